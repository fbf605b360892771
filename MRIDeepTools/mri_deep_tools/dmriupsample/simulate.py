"""Diffusion scans with known truth: signals of a phantom on a gradient scheme, with noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import RequestError
from ..volume import Volume
from .directions import even_directions
from .gradients import GradientTable
from .phantom import Phantom
from .signals import FibreModel, rician, tensor_maps, tissue_signal

__all__ = ["SimulatedScan", "even_scheme", "simulate_dmri"]

WHITE_SIGNAL = 3500.0
"""Intensity of white matter at b = 0, of the order of the scans that the published models were trained on."""

_TRUTH_DIRECTIONS = 60
_VOXELS = 1 << 14
_TRACE = 0.05  # fibres that fill less of a voxel are not part of the truth


@dataclass(frozen=True)
class SimulatedScan:
    """A scan and its truth, all on one grid.

    Attributes
    ----------
    image : (X, Y, Z, n) float32, with noise where that was asked for; ``clean`` : the same without noise.
    table : gradients of the volumes.
    mask : (X, Y, Z) uint8.
    fa, md : (X, Y, Z) float32 of the tensor that fits the clean signal of the lowest shell in 60 even directions and
        b = 0; MD in mm^2/s.
    directions : (X, Y, Z, 3 K) float32: unit vectors of the fibres in world space (RAS), each times its share of the
        voxel's volume, strongest first; zeros where there is none.
    sigma : deviation of the noise in each channel, in intensities.

    """

    image: Volume
    clean: Volume
    table: GradientTable
    mask: Volume
    fa: Volume
    md: Volume
    directions: Volume
    sigma: float


def even_scheme(shells: Sequence[float], counts: Sequence[int], b0: int = 1, seed: int = 0) -> GradientTable:
    """Return volumes at b = 0, then each shell's evenly spread directions, turned at random and over the whole sphere.

    Parameters
    ----------
    shells, counts :
        b-values (s/mm^2), and the number of directions of each; a single count serves all shells.
    b0 :
        Number of volumes at b = 0.
    seed :
        Of the turns and of which end of an axis is measured.

    Raises
    ------
    RequestError : values that make no scheme.

    """
    from scipy.spatial.transform import Rotation

    counts = [counts[0]] * len(shells) if len(counts) == 1 else list(counts)
    if len(counts) != len(shells) or not shells:
        raise RequestError(f"{len(counts)} numbers of directions for {len(shells)} shells", "give one for each shell")
    if not all(100 <= shell <= 20000 for shell in shells) or len(set(shells)) < len(shells):
        raise RequestError("shells must be different b-values from 100 to 20000", "correct the shells")
    if b0 < 1:
        raise RequestError("a scan needs a volume at b = 0", "ask for one or more")
    bvals, world = [np.zeros(b0)], [np.zeros((b0, 3))]
    for index, (shell, count) in enumerate(zip(shells, counts, strict=True)):
        generator = np.random.default_rng([seed, 5, index])
        turn = Rotation.random(random_state=np.random.RandomState(generator.integers(2**31)))
        signs = np.where(generator.random(count) < 0.5, -1.0, 1.0)
        world.append(turn.apply(even_directions(count)) * signs[:, None])
        bvals.append(np.full(count, float(shell)))
    return GradientTable(np.concatenate(bvals), np.concatenate(world))


def simulate_dmri(
    phantom: Phantom,
    table: GradientTable,
    *,
    model: FibreModel = "multi-tensor",
    snr: float = 20.0,
    seed: int = 0,
    intensity: float = WHITE_SIGNAL,
    tick: Callable[[float], None] | None = None,
) -> SimulatedScan:
    """Return a scan of a phantom.

    Parameters
    ----------
    phantom :
        See :func:`.phantom.make_phantom`.
    table :
        Gradients in world space.
    model :
        ``multi-tensor`` or ``ball-and-stick``; see :mod:`.signals`.
    snr :
        Signal of white matter at b = 0 over the deviation of the noise (Rician; the background has it too); 0: none.
    seed :
        Of the noise.
    intensity :
        Of white matter at b = 0.
    tick :
        Is told the share that is done.

    Raises
    ------
    RequestError : numbers that make no sense.

    """
    if not (np.isfinite(snr) and snr >= 0) or not (np.isfinite(intensity) and intensity > 0):
        raise RequestError("the signal-to-noise ratio must be 0 or more, the intensity above 0", "correct them")
    if not table.is_b0.any() or table.is_b0.all():
        raise RequestError("the scheme lacks volumes at b = 0 or above", "give both")
    mask, tissue, sigma = phantom.mask, phantom.tissue, intensity / snr if snr else 0.0
    clean = np.zeros((*mask.shape, len(table)), dtype=np.float32)
    noisy = np.zeros_like(clean)
    generator = np.random.default_rng([seed, 9])
    for index in range(len(table)):
        one = slice(index, index + 1)
        clean[mask, index] = intensity * tissue_signal(table.bvals[one], table.world[one], tissue, model)[:, 0]
        noisy[..., index] = rician(clean[..., index], sigma, generator) if sigma else clean[..., index]
        if tick:
            tick((index + 1) / len(table))
    fa, md = _truth(phantom, table, model)
    image = Volume(noisy, phantom.affine)
    shares = tissue.shares * tissue.fractions[:, :1]
    shares = np.where(shares >= _TRACE, shares, 0)
    return SimulatedScan(
        image=image,
        clean=image.with_data(clean),
        table=table,
        mask=image.with_data(mask.astype(np.uint8)),
        fa=image.with_data(_filled(mask, fa)),
        md=image.with_data(_filled(mask, md)),
        directions=image.with_data(_filled(mask, (tissue.axes * shares[..., None]).reshape(len(shares), -1))),
        sigma=sigma,
    )


def _truth(phantom: Phantom, table: GradientTable, model: FibreModel) -> tuple[np.ndarray, np.ndarray]:
    """Return FA and MD (V,) of the tensor that an ideal measurement gives."""
    lowest = float(np.round(table.bvals[~table.is_b0].min()))
    bvals = np.concatenate([[0.0], np.full(_TRUTH_DIRECTIONS, lowest)])
    world = np.concatenate([np.zeros((1, 3)), even_directions(_TRUTH_DIRECTIONS)])
    count = len(phantom.tissue.fractions)
    fa, md = np.empty(count), np.empty(count)
    for start in range(0, count, _VOXELS):
        part = slice(start, start + _VOXELS)
        fa[part], md[part] = tensor_maps(tissue_signal(bvals, world, phantom.tissue.part(part), model), bvals, world)
    return fa, md


def _filled(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    out = np.zeros((*mask.shape, *values.shape[1:]), dtype=np.float32)
    out[mask] = values
    return out
