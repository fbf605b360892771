"""Training pairs of the denoiser: what the first network of the robust chain makes of a degraded scan, and the truth.

Section 6.2 of the published programs' description: real scans with label maps are deformed, mirrored, given a bias
field, noise, gamma, an inverted contrast and a random resolution, and passed through S1; its arg-max group map is the
noisy input, the deformed true groups are the target. About 10,000 pairs were used.
"""

from __future__ import annotations

import numpy as np
import torch

from .generator.draws import Draws
from .generator.intensity import apply_bias, draw_bias
from .generator.model import GeneratorConfig, LabelsToImage, LabelTables, output_and_crop_shape
from .generator.resolution import blur, blurring_sigma, draw_resolution, jitter, mimic_acquisition
from .network import UNet
from .training_maps import ImagePair

__all__ = ["degradation_config", "make_pair"]

LOW_RESOLUTION_NOISE = 3 / 255
"""Largest standard deviation of the noise of coarse scans; 3 on the 0-255 scale, as scans here are in 0-1."""


def degradation_config() -> GeneratorConfig:
    """Return how scans are degraded before S1 sees them."""
    return GeneratorConfig(
        output_shape=None,
        scaling=0.15,
        rotation=15.0,
        shearing=0.012,
        nonlin_std=3.0,
        bias_field_std=0.5,
        noise_std=10.0,
        gamma_std=0.5,
        invert_contrast=0.5,
    )


def make_pair(pair: ImagePair, network: UNet, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Return the noisy and the true group map (X, Y, Z) int32 of one degraded scan.

    Parameters
    ----------
    pair : scan (1, X, Y, Z) and its map of generation labels, RAS order.
    network : S1, one channel to five groups.
    draws : fixes the degradation.

    """
    config = degradation_config()
    generator = LabelsToImage(
        config, LabelTables.published("groups"), voxel_size=pair.map.voxel_size, levels=network.spec.levels
    )
    shape, crop = output_and_crop_shape(
        pair.map.labels.shape, None, generator.voxel_size, generator.voxel_size, generator.multiple
    )
    labels, images, _, _ = generator.warp(pair.map.labels, crop, draws, pair.image)
    image = images[0] if images is not None else torch.zeros(shape)
    low, high = image.min(), image.max()
    image = 255 * (image - low) / (high - low + 1e-7)
    if draws.chance(config.bias_probability):
        image = apply_bias(image, draw_bias(image.shape, config.bias_scale, config.bias_field_std, draws))
    image = generator.finish_intensity(image, draws, clip=None)
    size, thickness = draw_resolution(generator.voxel_size, config.max_res_iso, config.max_res_aniso, draws)
    image = blur(image, jitter(blurring_sigma(generator.voxel_size, size, thickness), draws).tolist())
    noise = draws.uniform(0, LOW_RESOLUTION_NOISE) if draws.chance(0.95) else 0.0
    image = mimic_acquisition(image, generator.voxel_size, size.tolist(), shape, noise, draws)
    noisy = first_stage_groups(image, network)
    return noisy.numpy().astype(np.int32), generator.targets(labels).numpy().astype(np.int32)


def first_stage_groups(image: torch.Tensor, network: UNet) -> torch.Tensor:
    """Return S1's arg-max group map of a scan (X, Y, Z) in 0-1 whose sides fit the network."""
    with torch.inference_mode():
        return network(image[None, None])[0].argmax(0)
