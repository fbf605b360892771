"""Small models of random weights, scans and pictures, for tests of the translation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mri_deep_tools.translate.network import NCSNpp, NCSNppSpec
from mri_deep_tools.translate.weights import ModelFacts, save_model
from mri_deep_tools.volume import Volume

TINY = NCSNppSpec(
    image_size=32, width=16, multipliers=(1, 1), blocks=1, attention=(16,), latent=8, embedding=16, mapping_layers=1
)


def tiny_network(seed: int = 0) -> NCSNpp:
    """Return a network whose output depends on all of its inputs."""
    torch.manual_seed(seed)
    network = NCSNpp(TINY)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.08)
    return network.eval()


def tiny_model(folder: Path, **facts) -> Path:
    """Write a model folder for T1 and T2, both directions."""
    known = {"contrasts": ("T1", "T2"), "rule": "mean", "constants": {"T1": 5.0, "T2": 5.0}, "slice_axis": "axial"}
    return save_model(folder, {1: tiny_network(1), 2: tiny_network(2)}, ModelFacts(**(known | facts)))


def head(shape=(28, 30, 12), spacing=(2.0, 2.0, 4.0)) -> Volume:
    """Return a bright ball on a dark, noisy ground, with empty slices at both ends."""
    rng = np.random.default_rng(4)
    axes = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    data = np.where(sum(axis**2 for axis in axes) < 1, 600 + 300 * axes[0], 0) + rng.uniform(0, 20, shape)
    affine = np.diag((-spacing[0], spacing[1], spacing[2], 1.0))
    affine[:3, 3] = (20, -31, 7)
    return Volume(data.astype(np.int16), affine)


def picture(shape=(40, 52), seed: int = 0) -> np.ndarray:
    """Return a smooth 8-bit picture."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    return np.interp(smooth, (smooth.min(), smooth.max()), (0, 255)).astype(np.uint8)
