"""Predicted diffusion volumes against the truth: errors of each direction, and of FA, MD and main direction.

Volumes are matched by b-value and direction in the world, so that the two scans may hold them in any order and in any
of the conventions of gradients; their grids must be the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import DependencyError, GeometryError, InputError
from ..geometry import same_grid
from ..volume import Volume
from .directions import same_axis_angle
from .gradients import GradientTable
from .scan import DiffusionScan
from .tensor import TensorDifference, compare_tensors, fit_tensors

__all__ = ["DmriEvaluation", "VolumeError", "evaluate_scans", "match_volumes"]

_SAME_DIRECTION_DEGREES = 1.0
_SAME_B = 100.0


@dataclass(frozen=True)
class VolumeError:
    """One predicted volume: its number and that of the true one, b-value, world direction, errors in and out of a mask.

    Errors are mean absolute ones and root mean square ones, in the scans' intensities; ``percent`` is the mean
    absolute error inside in per cent of the mean true signal there. NaN where no voxel is on that side.
    """

    found: int
    truth: int
    b: float
    world: tuple[float, float, float]
    mae_in: float
    rmse_in: float
    percent_in: float
    mae_out: float
    rmse_out: float

    def as_row(self) -> dict[str, float]:
        """Return the columns of a table."""
        x, y, z = self.world
        row: dict[str, float] = {"volume": self.found, "true_volume": self.truth, "b": self.b, "x": x, "y": y, "z": z}
        names = ("mae_in", "rmse_in", "percent_in", "mae_out", "rmse_out")
        return row | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class DmriEvaluation:
    """Errors of all matched volumes; ``tensors`` is None where no tensor could be fitted, and ``note`` says why."""

    volumes: tuple[VolumeError, ...]
    unmatched: tuple[int, ...]
    tensors: TensorDifference | None
    note: str = ""

    def mean(self, name: str) -> float:
        """Return the mean of a column over volumes."""
        return float(np.mean([row.as_row()[name] for row in self.volumes]))


def match_volumes(truth: GradientTable, found: GradientTable) -> list[tuple[int, int]]:
    """Return (found, truth) pairs of diffusion-weighted volumes with the same b-value and axis, the nearest one."""
    pairs: list[tuple[int, int]] = []
    left = np.flatnonzero(~truth.is_b0)
    for index in np.flatnonzero(~found.is_b0):
        near = left[np.abs(truth.bvals[left] - found.bvals[index]) <= _SAME_B]
        if near.size:
            angles = same_axis_angle(found.world[[index]], truth.world[near])[0]
            best = int(angles.argmin())
            if angles[best] <= _SAME_DIRECTION_DEGREES:
                pairs.append((int(index), int(near[best])))
    return pairs


def evaluate_scans(truth: DiffusionScan, found: DiffusionScan, mask: Volume | None = None) -> DmriEvaluation:
    """Compare a scan with the true one.

    Parameters
    ----------
    truth, found :
        Scans on one grid. Volumes of ``found`` that have no counterpart are told, and take no part.
    mask :
        (X, Y, Z) on that grid, above 0 inside; None: where the mean true signal is above a tenth of its largest.

    Raises
    ------
    GeometryError : the grids differ.
    InputError : no volume has a counterpart, or the mask is empty.

    """
    for other in (found.image, *([mask] if mask is not None else [])):
        if not same_grid(truth.image.with_data(truth.image.data[..., 0]), other.with_data(_first(other))):
            name = other.source.file_name or "the other image"
            raise GeometryError(f"{name} is not on the grid of {truth.name}", "compare images of one grid")
    pairs = match_volumes(truth.table, found.table)
    if not pairs:
        raise InputError(
            f"no direction of {found.name} is in {truth.name}", "compare with a scan that has the predicted directions"
        )
    inside = _inside(truth, mask)
    rows = [_error(truth, found, pair, inside) for pair in pairs]
    unmatched = sorted({int(index) for index in np.flatnonzero(~found.table.is_b0)} - {index for index, _ in pairs})
    tensors, note = _tensors(truth, found, pairs, inside)
    return DmriEvaluation(tuple(rows), tuple(unmatched), tensors, note)


def _first(volume: Volume) -> np.ndarray:
    return volume.data if volume.data.ndim == 3 else volume.data[..., 0]


def _inside(truth: DiffusionScan, mask: Volume | None) -> np.ndarray:
    if mask is None:
        mean = truth.image.data[..., ~truth.table.is_b0].mean(axis=3, dtype=np.float64)
        inside = mean > 0.1 * mean.max()
    else:
        inside = _first(mask) > 0
    if not inside.any():
        raise InputError("the mask is empty", "check the mask")
    return np.asarray(inside)


def _error(truth: DiffusionScan, found: DiffusionScan, pair: tuple[int, int], inside: np.ndarray) -> VolumeError:
    true = truth.image.data[..., pair[1]].astype(np.float64)
    error = found.image.data[..., pair[0]] - true
    sides = (error[inside], error[~inside])
    mae = [float(np.abs(part).mean()) if part.size else float("nan") for part in sides]
    rmse = [float(np.sqrt(np.square(part).mean())) if part.size else float("nan") for part in sides]
    signal = float(true[inside].mean())
    return VolumeError(
        found=pair[0],
        truth=pair[1],
        b=float(found.table.bvals[pair[0]]),
        world=tuple(float(value) for value in found.table.world[pair[0]]),  # type: ignore[arg-type]
        mae_in=mae[0],
        rmse_in=rmse[0],
        percent_in=100 * mae[0] / signal if signal > 0 else float("nan"),
        mae_out=mae[1],
        rmse_out=rmse[1],
    )


def _tensors(
    truth: DiffusionScan, found: DiffusionScan, pairs: list[tuple[int, int]], inside: np.ndarray
) -> tuple[TensorDifference | None, str]:
    """Compare fits to the matched volumes, each with the b = 0 volumes of its own scan (else the truth's)."""
    fits = []
    for scan, side in ((truth, 1), (found, 0)):
        b0 = np.flatnonzero(scan.table.is_b0)
        lender = scan if b0.size else truth
        b0 = np.flatnonzero(lender.table.is_b0)
        which = np.array([pair[side] for pair in pairs])
        signal = np.concatenate([lender.image.data[inside][:, b0], scan.image.data[inside][:, which]], axis=1)
        try:
            fits.append(fit_tensors(signal, lender.table.pick(b0).joined(scan.table.pick(which))))
        except (InputError, DependencyError) as error:
            return None, error.message
    return compare_tensors(fits[0], fits[1]), ""
