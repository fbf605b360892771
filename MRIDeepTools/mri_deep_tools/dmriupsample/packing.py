"""Packing subjects for training into one HDF5 file, with bounded memory: a volume at a time.

Each part (a subject, or an octant of one) is a group with ``dmri``: patches (P, n, e, e, e) that touch the mask, or
blocks of voxels of the mask (P, n, v, 1, 1) for the 1D network without patches, the last block filled up with voxels of
the first; further ``bvec`` (n, 3), ``bval`` (n,), and for each shell its volumes and the 99th percentile in the mask.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MRIDeepToolsError
from ..progress import Progress
from .patches import PatchGrid
from .subjects import Frame, Subject, SubjectFiles, kept_planes, octants, open_subject

__all__ = ["BLOCK", "PackOptions", "pack_subjects", "percentile_of_largest"]

BLOCK = 1000
"""Voxels in a block: as many as in a patch."""
_VERSION = 1
_PERCENT = 99.0


@dataclass(frozen=True)
class PackOptions:
    """What decides the content of a packed file.

    Attributes
    ----------
    shells : b-values; volumes within ``tolerance`` belong to them.
    patches : whole patches; else blocks of voxels.
    frame : see :func:`.subjects.open_subject`.
    crop : drop empty planes first, as published.
    cut : cut each subject into octants, as published for large ones.
    edge : of a patch.

    """

    shells: tuple[int, ...]
    tolerance: float = 30.0
    patches: bool = True
    frame: Frame = "network"
    crop: bool = True
    cut: bool = False
    edge: int = 10


def pack_subjects(subjects: Sequence[SubjectFiles], options: PackOptions, path: str | Path, progress: Progress) -> Path:
    """Write the packed file, unless it is there already for the same files and options; all or nothing.

    Raises
    ------
    InputError : a subject cannot be used; its name is in the message.
    OutputError : the file cannot be written.

    """
    import h5py

    from ..volume import atomic_path

    path = Path(path)
    key = _fingerprint(subjects, options)
    if path.is_file() and _key_of(path) == key:
        return path
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for number, files in enumerate(subjects):
            progress.update(number / len(subjects))
            try:
                _pack(file, files, options, progress)
            except MRIDeepToolsError as error:
                raise type(error)(f"subject {files.name}: {error.message}", error.hint) from None
        file.attrs["key"] = key
        file.attrs["options"] = json.dumps(asdict(options))
    return path


def _fingerprint(subjects: Sequence[SubjectFiles], options: PackOptions) -> str:
    stats = [(s.name, [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in s.files]) for s in subjects]
    text = json.dumps([_VERSION, asdict(options), stats])
    return hashlib.sha256(text.encode()).hexdigest()


def _key_of(path: Path) -> str:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get("key", ""))
    except OSError:
        return ""


def _pack(file: Any, files: SubjectFiles, options: PackOptions, progress: Progress) -> None:
    subject = open_subject(files, options.frame, progress)
    shells = {shell: np.flatnonzero(np.abs(subject.bvals - shell) <= options.tolerance) for shell in options.shells}
    missing = [shell for shell, index in shells.items() if not index.size]
    if missing:
        raise InputError(f"it has no volumes at b = {missing[0]}", "correct the shells, or leave it out")
    kept = np.sort(np.concatenate(list(shells.values())))
    planes = kept_planes(subject) if options.crop else tuple(np.arange(n) for n in subject.mask.shape)
    mask = subject.mask[np.ix_(*planes)]
    for name, region in _regions(files.name, mask.shape, options.cut):
        inside = mask[region]
        if not (inside != 0).any():
            continue
        group = file.create_group(name)
        group.attrs["subject"] = files.name
        group.create_dataset("bvec", data=subject.bvecs[kept])
        group.create_dataset("bval", data=subject.bvals[kept])
        for shell, index in shells.items():
            group.create_dataset(f"volumes_{shell}", data=np.searchsorted(kept, index))
        _write_units(group, subject, kept, planes, region, inside, options)
        for shell, index in shells.items():
            values = (subject.volume(int(k))[np.ix_(*planes)][region][inside != 0] for k in index)
            count = int((inside != 0).sum()) * len(index)
            group.attrs[f"percentile_{shell}"] = percentile_of_largest(values, count, _PERCENT)


def _regions(name: str, shape: tuple[int, ...], cut: bool) -> Iterator[tuple[str, tuple[slice, ...]]]:
    if not cut:
        yield name, (slice(None),) * 3
        return
    for number, part in enumerate(octants((shape[0], shape[1], shape[2]))):
        yield f"{name}.{number}", part


def _write_units(
    group: Any,
    subject: Subject,
    kept: np.ndarray,
    planes: tuple[np.ndarray, ...],
    region: tuple[slice, ...],
    inside: np.ndarray,
    options: PackOptions,
) -> None:
    """Write patches or blocks, one volume after the other."""
    if options.patches:
        grid = PatchGrid(inside, options.edge)
        which, unit = np.arange(len(grid)), (options.edge,) * 3
        count = len(grid)
    else:
        voxels = np.flatnonzero(inside)
        count = -(-len(voxels) // BLOCK)
        voxels, unit = np.resize(voxels, count * BLOCK), (BLOCK, 1, 1)
    data = group.create_dataset("dmri", (count, len(kept), *unit), np.float32)
    for place, k in enumerate(kept):
        volume = subject.volume(int(k))[np.ix_(*planes)][region]
        if options.patches:
            data[:, place] = grid.take(volume[..., None], which)[:, 0]
        else:
            data[:, place] = volume.ravel()[voxels].reshape(count, *unit)


def percentile_of_largest(parts: Iterator[np.ndarray], count: int, percent: float) -> float:
    """Return a high percentile (linear interpolation) of ``count`` values in parts; only the largest are kept.

    The result is that of ``numpy.percentile`` on all values together.
    """
    position = percent / 100 * (count - 1)
    low = int(np.floor(position))
    keep = count - low
    largest = np.empty(0, dtype=np.float32)
    for part in parts:
        largest = np.concatenate([largest, part.ravel()])
        if largest.size > keep:
            largest = np.partition(largest, largest.size - keep)[-keep:]
    ordered = np.sort(largest)
    upper = ordered[1] if ordered.size > 1 else ordered[0]
    return float(ordered[0] + (upper - ordered[0]) * np.float32(position - low))
