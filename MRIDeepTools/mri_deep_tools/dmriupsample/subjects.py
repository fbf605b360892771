"""Subjects for training, volume by volume: from image files with gradients, or from the original's records."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..geometry import Reorient
from ..progress import Progress
from ..volume import Volume, read_volume, split_suffix
from .gradients import fsl_frame, read_fsl, read_nrrd_table
from .masks import read_mask
from .pipeline import NETWORK_AXES
from .records import RECORD_SUFFIXES, read_record

__all__ = ["Subject", "SubjectFiles", "find_subjects", "kept_planes", "octants", "open_subject"]

Frame = Literal["network", "stored"]


@dataclass(frozen=True)
class SubjectFiles:
    """Where a subject is: images with gradient files and a mask, or a record alone."""

    name: str
    dwi: Path
    bvals: Path | None = None
    bvecs: Path | None = None
    mask: Path | None = None

    @property
    def files(self) -> list[Path]:
        """All files."""
        return [path for path in (self.dwi, self.bvals, self.bvecs, self.mask) if path is not None]


@dataclass(frozen=True)
class Subject:
    """A subject whose volumes are read one at a time.

    Attributes
    ----------
    bvals : (n,) float32.
    bvecs : (n, 3) float32, in the frame of the voxel axes.
    mask : (X, Y, Z) int8.
    volume : returns volume k, (X, Y, Z) float32.

    """

    bvals: np.ndarray
    bvecs: np.ndarray
    mask: np.ndarray
    volume: Callable[[int], np.ndarray]


def find_subjects(place: str | Path) -> list[SubjectFiles]:
    """Return the subjects of a table or of a folder of records, sorted by name.

    Parameters
    ----------
    place :
        ``.csv`` or ``.tsv`` file with the columns ``dwi`` and ``mask``, paths relative to it, and if need be
        ``subject``, ``bvals``, ``bvecs`` (default: files of the image's name); or a folder of ``.tfrecord`` files.

    Raises
    ------
    InputError : nothing is there, a file is missing, or two subjects have one name.

    """
    place = Path(place)
    if not place.exists():
        raise InputError(f"{place.name} does not exist", "name a table or a folder of records")
    subjects = _records(place) if place.is_dir() else _table(place)
    if not subjects:
        raise InputError(f"{place.name} holds no subjects", "write a table (subject, dwi, bvals, bvecs, mask)")
    for path in (path for subject in subjects for path in subject.files):
        if not path.exists():
            raise InputError(f"{path.name}, named in {place.name}, does not exist", "correct the table")
    names = [subject.name for subject in subjects]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"{place.name} has two subjects called {min(twice)}", "name each once (column subject)")
    return sorted(subjects, key=lambda subject: subject.name)


def _records(folder: Path) -> list[SubjectFiles]:
    found = [path for path in folder.iterdir() if path.name.endswith(RECORD_SUFFIXES)]
    return [SubjectFiles(path.name.split(".tfrecord")[0], path) for path in found]


def _table(table: Path) -> list[SubjectFiles]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t" if table.suffix.lower() == ".tsv" else ","))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise InputError(f"{table.name} cannot be read as a table", "write CSV in UTF-8") from None
    if rows and not {"dwi", "mask"} <= set(rows[0]):
        raise InputError(f"{table.name} lacks the columns dwi and mask", "write subject,dwi,bvals,bvecs,mask on top")
    return [_row(table, row, number) for number, row in enumerate(rows, start=2)]


def _row(table: Path, row: dict[str, str], number: int) -> SubjectFiles:
    if not row.get("dwi") or not row.get("mask"):
        raise InputError(f"{table.name}, line {number}: dwi or mask is empty", "give both files")
    dwi = table.parent / row["dwi"]
    stem, suffix = split_suffix(dwi)

    def beside(column: str, end: str) -> Path | None:
        if row.get(column):
            return table.parent / row[column]
        return None if suffix in (".nrrd", ".nhdr") else dwi.with_name(f"{stem}.{end}")

    name = (row.get("subject") or stem).replace("/", "_")
    return SubjectFiles(name, dwi, beside("bvals", "bval"), beside("bvecs", "bvec"), table.parent / row["mask"])


def open_subject(files: SubjectFiles, frame: Frame, progress: Progress) -> Subject:
    """Open a subject.

    Parameters
    ----------
    files :
        See there.
    frame :
        ``network``: axes and directions as the pipeline feeds them to a network (:mod:`.pipeline`); ``stored``: axes as
        they are stored and raw b-vectors, as published. Records are always as stored.
    progress :
        Receives warnings.

    Raises
    ------
    InputError : files that cannot be read or do not belong together.

    """
    if files.mask is None:
        record = read_record(files.dwi)
        return Subject(record.bval, record.bvec, record.mask, lambda k: np.ascontiguousarray(record.dmri[..., k]))
    affine, count, volume = _volumes(files.dwi, progress)
    grid = Volume(volume(0), affine)
    if files.bvecs is None or files.bvals is None:
        table = read_nrrd_table(files.dwi, count)
    else:
        table = read_fsl(files.bvecs, files.bvals, affine, count, 0.0)
    mask = read_mask(files.mask, grid, progress).astype(np.int8)
    if frame == "stored":
        raw = table.raw if table.raw is not None else table.fsl(affine)
        return Subject(table.bvals.astype(np.float32), np.asarray(raw, dtype=np.float32), mask, volume)
    turn = Reorient.to(grid, NETWORK_AXES)

    def turned(array: np.ndarray) -> np.ndarray:
        return turn.apply(Volume(array, affine)).data

    vectors = (table.world @ fsl_frame(turn.apply(grid).affine)).astype(np.float32)
    return Subject(table.bvals.astype(np.float32), vectors, turned(mask), lambda k: turned(volume(k)))


def _volumes(path: Path, progress: Progress) -> tuple[np.ndarray, int, Callable[[int], np.ndarray]]:
    """Return affine, number of volumes, and how to read one; NIfTI files are read volume by volume."""
    if split_suffix(path)[1] not in (".nii", ".nii.gz"):
        image = read_volume(path, ndim=4, on_warning=progress.warn)
        return image.affine, image.data.shape[3], lambda k: np.asarray(image.data[..., k], dtype=np.float32)
    import nibabel as nib

    try:
        proxy: Any = nib.load(path, keep_file_open=True)  # a compressed file is then read on, not from its beginning
    except (OSError, nib.filebasedimages.ImageFileError, zlib.error, EOFError) as error:
        raise InputError(f"{path.name} cannot be read ({error})", "check the file") from None
    if len(proxy.shape) != 4:
        raise InputError(f"{path.name} is not a series: it has {len(proxy.shape)} axes", "give a diffusion series, 4-D")

    def volume(k: int) -> np.ndarray:
        try:
            data = np.asarray(proxy.dataobj[..., k], dtype=np.float32)
        except (OSError, ValueError, zlib.error, EOFError):
            raise InputError(f"{path.name} is not complete (truncated or damaged)", "copy it again") from None
        if not np.isfinite(data).all():
            raise InputError(f"{path.name}: volume {k} holds values that are no numbers", "correct the image")
        return data

    return np.asarray(proxy.affine, dtype=np.float64), int(proxy.shape[3]), volume


def kept_planes(subject: Subject) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the planes (indices) along each axis that the published autocrop keeps.

    Axis after axis, planes whose sum over all volumes and the mask is 0 are dropped, also those between others.

    Raises
    ------
    InputError : nothing is left.

    """
    total = subject.mask.astype(np.float64)
    for k in range(len(subject.bvals)):
        total += subject.volume(k)
    kept = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        index = np.flatnonzero(total.sum(axis=others) != 0)
        total = total.take(index, axis=axis)
        kept.append(index)
    if not total.size:
        raise InputError("a subject has no signal", "check its images")
    return kept[0], kept[1], kept[2]


def octants(shape: tuple[int, int, int]) -> Iterator[tuple[slice, slice, slice]]:
    """Yield the eight parts into which the original cuts large subjects: halves, the first the smaller, x slowest."""
    halves = [(slice(0, n // 2), slice(n // 2, n)) for n in shape]
    for x in halves[0]:
        for y in halves[1]:
            for z in halves[2]:
                yield x, y, z
