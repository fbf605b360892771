"""Training sets from scans: slices of whole volumes, with all that a translation must know to treat a new scan alike.

The steps are those of :mod:`.volumes`, which a translation takes as well: orientation, pixel size, division by the
mean of the volume, and by one constant K per contrast, the largest such value of all training scans (Özbey et al.,
arXiv 2207.08208). K, the pixel size and the axis are stored with the slices; the training writes them into the
model's ``model.json``. Slices with little of the brain are left out, and a person's slices are all in one part.

Two forms are written: HDF5 as of AxonDeepSynth with values 0..255 (float32 with decimals, or 8 bits), which our
training reads and its program too; or SynDiff's ``data_<part>_<contrast>.mat`` with values 0..1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError, RequestError
from ..geometry import Reorient, resample_to, same_grid
from ..progress import Progress
from ..volume import Volume, read_volume
from .dataset_scans import Scan, pair_scans
from .dataset_writers import open_writers
from .volumes import AXES, Axis, SliceStack, check_scan, head_mask, intensity_divisor, slice_numbers, slice_scan

__all__ = ["SliceRules", "Written", "measure", "write_volume_sets"]

_LEAST_SHARE = 1e-3  # an empty slice shows nothing, whatever share is asked for
Parts = Mapping[str, Mapping[str, Sequence[Scan]]]


@dataclass(frozen=True)
class SliceRules:
    """How slices are made of scans.

    Attributes
    ----------
    axis : direction in which slices follow each other.
    spacing_mm : pixel side; None takes the median of all scans.
    rule : ``mean`` (published), or ``percentile``: the 99.9th percentile of a scan becomes 0.9, without a constant.
    region : where the mean or percentile is taken: the whole ``volume``, background included (published), or ``mask``.
    minimum_share : of a slice that the brain covers; slices with less are left out. Without brain masks the head
        counts.
    slices : which slices of each scan are looked at, as ``FIRST:END``; None all.
    peak : percentile of a scan that counts as its largest value when K is measured; 100 as published.
    constants : K of contrasts where it is given and not measured.

    Raises
    ------
    RequestError : a value out of its range.

    """

    axis: Axis = "axial"
    spacing_mm: float | None = None
    rule: Literal["mean", "percentile"] = "mean"
    region: Literal["volume", "mask"] = "volume"
    minimum_share: float = 0.1
    slices: str | None = None
    peak: float = 100.0
    constants: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values."""
        if self.axis not in AXES:
            raise RequestError(f"unknown slice axis {self.axis!r}", f"use one of {', '.join(AXES)}")
        if self.spacing_mm is not None and not 0 < self.spacing_mm < np.inf:
            raise RequestError(f"a pixel side of {self.spacing_mm:g} mm is not positive", "give millimetres")
        if not 0 <= self.minimum_share < 1:
            raise RequestError(f"the least share of the brain must be from 0 to below 1, not {self.minimum_share:g}")
        if not 50 <= self.peak <= 100:
            raise RequestError(f"the percentile of the largest value must be from 50 to 100, not {self.peak:g}")
        for name, value in self.constants.items():
            if not 0 < value < np.inf:
                raise RequestError(f"the intensity constant of {name} must be above 0, not {value:g}")
        if self.constants and self.rule != "mean":
            raise RequestError("intensity constants belong to the rule mean", "leave them out, or use --rule mean")


@dataclass
class Written:
    """What was written.

    Attributes
    ----------
    counts : number of slices by part and contrast.
    subjects : people by part.
    clipped : share of the voxels of all scans that are above K and were cut, by contrast.

    """

    counts: dict[str, dict[str, int]]
    subjects: dict[str, list[str]]
    clipped: dict[str, float]


def measure(
    parts: Parts, rules: SliceRules, *, compatible: bool = False, progress: Progress | None = None
) -> tuple[dict[str, float], float]:
    """Return K of each contrast, and the pixel side in mm.

    K is measured on the training part; ``compatible`` takes all parts, as published, which lets the truth of the test
    scans into the training. The side is the median over the sides of the pixels of all scans.

    Raises
    ------
    InputError : a scan that cannot be used.

    """
    progress = progress or Progress()
    scans = [(name, part, scan) for part, named in parts.items() for name, listed in named.items() for scan in listed]
    found: dict[str, float] = {}
    sides: list[float] = []
    for done, (name, part, scan) in enumerate(scans, 1):
        wanted = rules.rule == "mean" and name not in rules.constants and (part == "train" or compatible)
        if not wanted and rules.spacing_mm is not None:
            continue
        volume, mask = _read(scan, rules, progress)
        sides += _pixel(volume, rules.axis)
        if wanted:
            region = mask if rules.region == "mask" else None
            unit = intensity_divisor(volume.data, 1.0, region=region, name=scan.path.name)
            found[name] = max(found.get(name, 0.0), float(np.percentile(volume.data, rules.peak)) / unit)
        progress.update(done / len(scans))
    constants = {name: rules.constants.get(name, found.get(name)) for name in parts["train"]}
    known = {name: value for name, value in constants.items() if value is not None and rules.rule == "mean"}
    return known, rules.spacing_mm or round(float(np.median(sides)), 3)


def write_volume_sets(
    outputs: Mapping[str, Path | Mapping[str, Path]],
    parts: Parts,
    rules: SliceRules,
    constants: Mapping[str, float],
    spacing_mm: float,
    *,
    paired: bool = False,
    eight_bit: bool = False,
    size: int = 256,
    progress: Progress | None = None,
) -> Written:
    """Write the slices of all parts, all files or none.

    Parameters
    ----------
    outputs : of each part an HDF5 file, or the ``.mat`` file of each contrast.
    parts : scans by part and contrast (:func:`.dataset_scans.by_part`).
    constants, spacing_mm : from :func:`measure`.
    paired : number k of both contrasts is the same slice of the same person; of the second contrast's scan the
        values on the first one's grid are taken, so the two must be registered.
    eight_bit : store whole grey values 0..255, as the published program of microscopy, instead of float32.
    size : side of the slices of ``.mat`` files.

    Raises
    ------
    InputError : a scan that cannot be used, no pairs, or a part without slices. OutputError : a place that cannot be
    written to.

    """
    progress = progress or Progress()
    facts = {name: _facts(rules, constants.get(name), spacing_mm) for name in parts["train"]}
    total = sum(len(listed) for named in parts.values() for listed in named.values())
    counts: dict[str, dict[str, int]] = {}
    clipped: dict[str, list[float]] = {name: [] for name in facts}
    done = 0
    with ExitStack() as stack:
        for part, target in outputs.items():
            writers = open_writers(stack, target, facts, paired=paired, eight_bit=eight_bit, size=size)
            for group in _groups(parts[part], paired, progress):
                found = _cut(group, rules, constants, spacing_mm, progress)
                for number in _kept(found, rules):
                    for name, scan in group.items():
                        image = found[name].stack.values[number]
                        writers[name].add(image, subject=scan.subject, number=number, source=scan.path.name)
                for name, cut in found.items():
                    clipped[name].append(cut.clipped)
                done += len(group)
                progress.update(done / total)
            counts[part] = {name: writer.count for name, writer in writers.items()}
            _refuse_empty(part, counts[part])
    shares = {name: float(np.mean(values)) for name, values in clipped.items()}
    return Written(counts, {part: _people(parts[part]) for part in outputs}, shares)


# ------------------------------------------------------------------------------------------------------ a scan's slices


@dataclass(frozen=True)
class _Cut:
    """Slices of a scan, the share of each that the brain covers, and the share of its voxels that were cut at K."""

    stack: SliceStack
    shares: np.ndarray
    clipped: float


def _groups(named: Mapping[str, Sequence[Scan]], paired: bool, progress: Progress) -> Iterator[dict[str, Scan]]:
    """Yield what is cut together: single scans, or the two scans of a visit."""
    if not paired:
        yield from ({name: scan} for name, listed in named.items() for scan in listed)
        return
    first, second = named
    pairs, alone = pair_scans(named[first], named[second])
    if alone:
        progress.warn(f"{len(alone)} scans have no partner of the other contrast and were left out")
    yield from ({first: a, second: b} for a, b in pairs)


def _cut(
    group: Mapping[str, Scan],
    rules: SliceRules,
    constants: Mapping[str, float],
    spacing_mm: float,
    progress: Progress,
) -> dict[str, _Cut]:
    """Cut the scans of a group; those after the first are brought to its grid."""
    found: dict[str, _Cut] = {}
    leader: Volume | None = None
    for name, scan in group.items():
        volume, mask = _read(scan, rules, progress)
        if leader is not None and not same_grid(volume, leader):
            progress.warn(f"{scan.path.name} was resampled to the grid of its partner")
            if mask is not None:
                inside = resample_to(volume.with_data(mask.astype(np.float32)), leader.shape3, leader.affine)
                mask = inside.data > 0.5
            volume = resample_to(volume, leader.shape3, leader.affine)
            check_scan(volume, scan.path.name)
        leader = leader or volume
        region = mask if rules.region == "mask" else None
        divisor = intensity_divisor(volume.data, constants.get(name), region=region, name=scan.path.name)
        stack = slice_scan(volume, divisor, axis=rules.axis, spacing_mm=spacing_mm)
        covered = stack.mask(head_mask(volume) if mask is None else mask)
        found[name] = _Cut(stack, covered.mean(axis=(1, 2)), float((volume.data > divisor).mean()))
    return found


def _kept(found: Mapping[str, _Cut], rules: SliceRules) -> list[int]:
    """Return the numbers of the slices with enough of the brain in every contrast."""
    shares = np.min([cut.shares for cut in found.values()], axis=0)
    looked_at = slice_numbers(rules.slices, len(shares))
    return [number for number in looked_at if shares[number] >= max(rules.minimum_share, _LEAST_SHARE)]


def _read(scan: Scan, rules: SliceRules, progress: Progress) -> tuple[Volume, np.ndarray | None]:
    """Return a scan that can be used, and its brain mask."""
    volume = check_scan(read_volume(scan.path, ndim=None, on_warning=progress.warn), scan.path.name)
    if scan.mask is None:
        if rules.region == "mask":
            raise InputError(f"{scan.path.name} has no brain mask for its mean", "give masks, or leave the region out")
        return volume, None
    mask = read_volume(scan.mask, on_warning=progress.warn)
    if not same_grid(mask, volume):
        raise InputError(f"the mask {scan.mask.name} is not on the grid of {scan.path.name}", "resample it to the scan")
    if not (mask.data > 0).any():
        raise InputError(f"the mask {scan.mask.name} is empty", "make it again")
    return volume, mask.data > 0


def _pixel(volume: Volume, axis: Axis) -> list[float]:
    """Return height and width of a pixel in mm."""
    turned = Reorient.to(volume, AXES[axis]).apply(volume)
    return [turned.spacing[0], turned.spacing[1]]


def _facts(rules: SliceRules, constant: float | None, spacing_mm: float) -> dict[str, Any]:
    """Return what is stored with the slices of a contrast; the names are those of ``model.json``."""
    found: dict[str, Any] = {"rule": rules.rule, "region": rules.region, "slice_axis": rules.axis}
    found |= {"in_plane_spacing_mm": spacing_mm, "minimum_share": rules.minimum_share, "axes": AXES[rules.axis]}
    return found if constant is None else found | {"constant": constant}


def _people(named: Mapping[str, Sequence[Scan]]) -> list[str]:
    return sorted({scan.subject for listed in named.values() for scan in listed})


def _refuse_empty(part: str, counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        if not count:
            raise InputError(
                f"no slice of {name} shows enough of the brain in the part {part}",
                "lower --minimum-brain, or check --slices",
            )
