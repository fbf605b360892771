"""Diffusion signals of brain tissue: crossing fibres, grey matter, fluid, and the noise of magnitude images.

Fibres are tensors (multi-tensor) or sticks in a ball (Behrens et al., Magn Reson Med 50, 2003); both forms are given
the same mean diffusivities along and across a fibre, so that they differ in higher orders of b only. Noise is Rician
(Gudbjartsson and Patz, Magn Reson Med 34, 1995). Diffusivities are in mm^2/s, b-values in s/mm^2.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

__all__ = [
    "FibreModel",
    "Tissue",
    "expected_magnitude",
    "fibre_signal",
    "rician",
    "tensor_maps",
    "tissue_signal",
]

FibreModel = Literal["multi-tensor", "ball-and-stick"]

S0_GREY, S0_FLUID = 1.25, 2.5
"""Signal without diffusion weighting where white matter has 1 (T2-weighted echo-planar images of adults)."""


@dataclass(frozen=True)
class Tissue:
    """What voxels (...) are made of; arrays broadcast against one another.

    Attributes
    ----------
    fractions : (..., 3) shares of the volume: white matter, grey matter, fluid.
    axes : (..., K, 3) unit vectors of the fibres.
    shares : (..., K) share of white matter that each fibre has; they sum to 1 where there is any.
    along, across : (...) diffusivities of a fibre.
    grey, fluid : (...) diffusivities, the same in all directions.
    s0 : (..., 3) signal of the pure classes without diffusion weighting.

    """

    fractions: np.ndarray
    axes: np.ndarray
    shares: np.ndarray
    along: np.ndarray
    across: np.ndarray
    grey: np.ndarray
    fluid: np.ndarray
    s0: np.ndarray

    def part(self, which: slice) -> Tissue:
        """Return the tissue of some of the voxels (along the first axis)."""
        return Tissue(*(getattr(self, item.name)[which] for item in fields(self)))


def fibre_signal(
    bvals: np.ndarray,
    directions: np.ndarray,
    axes: np.ndarray,
    shares: np.ndarray,
    along: np.ndarray,
    across: np.ndarray,
    model: FibreModel = "multi-tensor",
) -> np.ndarray:
    """Return the signal (..., n) of white matter that gives 1 at b = 0.

    Parameters
    ----------
    bvals, directions :
        (n,) and (n, 3) unit vectors; or with leading axes that broadcast against those of the voxels.
    axes, shares, along, across, model :
        See :class:`Tissue`; ``ball-and-stick`` has sticks of diffusivity ``along`` and the share 1 - across / along.

    """
    cosine = np.einsum("...kc,...nc->...kn", axes, directions)
    b, along, across = bvals[..., None, :], along[..., None, None], across[..., None, None]
    weights = shares[..., None]
    if model == "multi-tensor":
        return np.asarray((weights * np.exp(-b * (across + (along - across) * cosine**2))).sum(axis=-2))
    sticks = (weights * np.exp(-b * along * cosine**2)).sum(axis=-2)
    ball = np.exp(-b * along)[..., 0, :] * shares.sum(axis=-1)[..., None]
    part = (1 - across / along)[..., 0]
    return np.asarray(part * sticks + (1 - part) * ball)


def tissue_signal(
    bvals: np.ndarray, directions: np.ndarray, tissue: Tissue, model: FibreModel = "multi-tensor"
) -> np.ndarray:
    """Return the signal (..., n) without noise; see :func:`fibre_signal`."""
    white = fibre_signal(bvals, directions, tissue.axes, tissue.shares, tissue.along, tissue.across, model)
    grey = np.exp(-bvals * tissue.grey[..., None])
    fluid = np.exp(-bvals * tissue.fluid[..., None])
    amount = tissue.fractions * tissue.s0
    return np.asarray(amount[..., 0, None] * white + amount[..., 1, None] * grey + amount[..., 2, None] * fluid)


def rician(signal: np.ndarray, sigma: np.ndarray | float, generator: np.random.Generator) -> np.ndarray:
    """Return magnitudes of a signal with Gaussian noise of deviation ``sigma`` in both channels."""
    real = signal + sigma * generator.standard_normal(signal.shape, dtype=np.float32)
    return np.asarray(np.hypot(real, sigma * generator.standard_normal(signal.shape, dtype=np.float32)))


def expected_magnitude(signal: np.ndarray, sigma: np.ndarray | float) -> np.ndarray:
    """Return the mean of :func:`rician` over the noise: above the signal, most of all where there is little."""
    from scipy.special import i0e, i1e

    x = np.square(signal / sigma) / 2
    return np.asarray(sigma * np.sqrt(np.pi / 2) * ((1 + x) * i0e(x / 2) + x * i1e(x / 2)))


def tensor_maps(signal: np.ndarray, bvals: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return FA and MD (...) in mm^2/s of the tensor that fits the logarithm of a signal (..., n) best.

    Parameters
    ----------
    signal :
        Positive, b = 0 among the volumes.
    bvals, directions :
        (n,) and (n, 3) unit vectors.

    """
    x, y, z = directions.T
    columns = [x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z]
    design = np.column_stack([np.ones(len(bvals)), -bvals[:, None] * np.stack(columns, axis=1)])
    found = np.log(np.maximum(signal, 1e-12)) @ np.linalg.pinv(design).T
    xx, yy, zz, xy, xz, yz = np.moveaxis(found[..., 1:], -1, 0)
    rows = [np.stack(row, axis=-1) for row in ((xx, xy, xz), (xy, yy, yz), (xz, yz, zz))]
    values = np.linalg.eigvalsh(np.stack(rows, axis=-2)).clip(0)
    mean = values.mean(axis=-1)
    power = np.square(values).sum(axis=-1)
    spread = np.square(values - mean[..., None]).sum(axis=-1)
    return np.sqrt(1.5 * spread / np.where(power > 0, power, 1)), mean
