"""The grid on which the network works, and the two scans brought onto it.

The frame is that of the T2w scan (its own axes, 1 mm, ordered L, A, S as in the network's training) or of a template.
In the scan's own frame the T2w is interpolated along its axes only, never turned. Rigid transforms are (4, 4) matrices
from world points (RAS, mm) of one scan to those of another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import InputError, RequestError
from ..geometry import Grid, Reorient, resample_to, same_grid
from ..volume import Volume
from .simulate import stretch_matrix

__all__ = [
    "AXES",
    "Frame",
    "Resampling",
    "is_working_grid",
    "name_conflicts",
    "native_frame",
    "plausibility",
    "shared_frame",
    "template_frame",
]

AXES = "LAS"
"""Directions of the array axes in the network's training."""

Resampling = Literal["geometric", "as-trained"]
_ONE_MM = 0.02  # as much may voxels differ from 1 mm and still count as such
_HEAD = 0.1  # of the intensity range; brighter voxels belong to the head
_BINS = 32


@dataclass(frozen=True)
class Frame:
    """Two scans on one grid.

    Attributes
    ----------
    t1, t2 : (X, Y, Z) on the working grid.
    to_t2_world : from world points of the working grid to those of the T2w scan.
    background : (X, Y, Z) bool, where neither scan as it was given has a value above 0.

    """

    t1: Volume
    t2: Volume
    to_t2_world: np.ndarray
    background: np.ndarray


def is_working_grid(volume: Volume) -> bool:
    """Say whether voxels are 1 mm on each side, as the network needs them."""
    return bool(np.abs(np.array(volume.spacing) - 1).max() <= _ONE_MM)


def shared_frame(t2: Volume, t1: Volume) -> Frame | None:
    """Return the scans as they are where they lie on one grid of 1 mm voxels (the published inputs), else None."""
    if not (same_grid(t2, t1) and is_working_grid(t2)):
        return None
    return Frame(t1, t2, np.eye(4), (t1.data <= 0) & (t2.data <= 0))


def native_frame(
    t2: Volume, t1: Volume, t2_to_t1: np.ndarray, slice_axis: int | None, resampling: Resampling = "geometric"
) -> Frame:
    """Bring both scans onto a 1 mm grid along the T2w scan's own axes, cubic spline.

    Parameters
    ----------
    t2, t1 : the scans.
    t2_to_t1 : rigid transform from world points of the T2w scan to those of the T1w scan.
    slice_axis : array axis of ``t2`` across its slices; needed for ``as-trained``.
    resampling : ``geometric`` puts intensities where the affine says. ``as-trained`` imitates the published
        synthesis along the slice axis: the first slice is the first voxel, and the volume is stretched so that the
        last slice lies one voxel too far (as it does at the published sizes); the network undoes that.

    """
    turn = Reorient.to(t2, AXES)
    upright = turn.apply(t2)
    if resampling == "geometric":
        grid = Grid.of(upright).with_spacing(1.0)
        there = resample_to(upright, grid.shape, grid.affine, order=3)
    else:
        if slice_axis is None:
            raise RequestError("resampling as trained needs thick slices", "use --resampling geometric")
        there = _stretched(upright, turn.axes.index(slice_axis))
    moved = t1.with_affine(t1.data, np.linalg.inv(t2_to_t1) @ t1.affine)
    guide = resample_to(moved, there.shape3, there.affine, order=3)
    return Frame(guide, there, np.eye(4), _background((moved, upright), there))


def _background(scans: tuple[Volume, Volume], grid: Volume) -> np.ndarray:
    """Return where the nearest voxels of both scans are not above 0; cubic splines would ring around 0 there."""
    near = [resample_to(scan, grid.shape3, grid.affine, order=0).data <= 0 for scan in scans]
    return np.asarray(near[0] & near[1])


def _stretched(scan: Volume, axis: int) -> Volume:
    """Return a scan at 1 mm whose slices are placed as in the published synthesis."""
    count = scan.shape3[axis]
    spacing = list(scan.spacing)
    fine = Grid.of(scan).with_spacing([size if k == axis else 1.0 for k, size in enumerate(spacing)])
    plane = resample_to(scan, fine.shape, fine.affine, order=3)
    size = round((count - 1) * spacing[axis]) + 2
    data = np.moveaxis(plane.data, axis, -1).astype(np.float64) @ stretch_matrix(count, size).T
    affine = np.array(fine.affine)
    affine[:3, axis] /= spacing[axis]
    return scan.with_affine(np.ascontiguousarray(np.moveaxis(data, -1, axis), dtype=np.float32), affine)


def template_frame(t2: Volume, t1: Volume, template: Volume, t2_to_t1: np.ndarray, template_to_t1: np.ndarray) -> Frame:
    """Bring both scans onto the grid of a template, cubic spline.

    Raises
    ------
    InputError : the template's voxels are not 1 mm.

    """
    if not is_working_grid(template):
        raise InputError(
            f"the template has voxels of {', '.join(f'{size:.3g}' for size in template.spacing)} mm, not 1 mm",
            "give a template at 1 mm",
        )
    to_t2 = np.linalg.inv(t2_to_t1) @ template_to_t1
    first, second = (
        scan.with_affine(scan.data, np.linalg.inv(matrix) @ scan.affine)
        for scan, matrix in ((t1, template_to_t1), (t2, to_t2))
    )
    moved = (first, second)
    guide, thick = (resample_to(scan, template.shape3, template.affine, order=3) for scan in moved)
    return Frame(guide, thick, to_t2, _background(moved, template))


def plausibility(t1: np.ndarray, t2: np.ndarray) -> tuple[float, float]:
    """Return how well two scans on one grid fit: overlap of the heads (Dice) and normalised mutual information.

    Parameters
    ----------
    t1, t2 : (X, Y, Z) on 0..1. Mutual information is that of Studholme et al. 1999: 1 for independent scans.

    """
    heads = t1 > _HEAD, t2 > _HEAD
    sizes = [int(head.sum()) for head in heads]
    if not all(sizes):
        return 0.0, 1.0
    dice = 2 * int((heads[0] & heads[1]).sum()) / sum(sizes)
    either = heads[0] | heads[1]
    table, _, _ = np.histogram2d(t1[either], t2[either], bins=_BINS, range=((0, 1), (0, 1)))
    share = table / table.sum()

    def entropy(p: np.ndarray) -> float:
        p = p[p > 0]
        return float(-(p * np.log(p)).sum())

    joint = entropy(share)
    return dice, (entropy(share.sum(axis=0)) + entropy(share.sum(axis=1))) / joint if joint else 1.0


def name_conflicts(t2_name: str, t1_name: str) -> list[str]:
    """Return warnings where BIDS-like file names speak of different subjects or sessions."""
    notes = []
    for key, word in (("sub", "subjects"), ("ses", "sessions")):
        found = [re.search(rf"(?:^|_){key}-([A-Za-z0-9]+)", name) for name in (t2_name, t1_name)]
        if found[0] and found[1] and found[0][1] != found[1][1]:
            notes.append(
                f"the names of the T2w and T1w scans speak of different {word} "
                f"({key}-{found[0][1]} and {key}-{found[1][1]})"
            )
    return notes
