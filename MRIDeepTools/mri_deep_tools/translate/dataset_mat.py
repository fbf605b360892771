"""SynDiff's ``.mat`` files as training sets of ours, with what is known of them stored beside the slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..errors import InputError, RequestError
from ..progress import Progress
from .dataset_sources import SPLITS, mat_path, read_mat
from .dataset_writers import open_writers

__all__ = ["find_mats", "pack_mats"]


def find_mats(sources: Mapping[str, Path], part: str = "train") -> dict[str, dict[str, Path]]:
    """Return the ``.mat`` file of every contrast, by part.

    Parameters
    ----------
    sources : of each contrast its file, or a folder with ``data_{train,val,test}_<contrast>.mat``.
    part : to which files belong that are named themselves.

    Raises
    ------
    InputError : a missing file, or a part that one contrast has and another has not.
    RequestError : no such part.

    """
    if part not in SPLITS:
        raise RequestError(f"there is no part {part!r}", f"use one of {', '.join(SPLITS)}")
    found: dict[str, dict[str, Path]] = {name: {} for name in SPLITS}
    for contrast, source in sources.items():
        if not source.exists():
            raise InputError(f"{source.name} does not exist", "check the path")
        files = {name: mat_path(source, name, contrast) for name in SPLITS} if source.is_dir() else {part: source}
        present = {name: path for name, path in files.items() if path.is_file()}
        if not present:
            wanted = mat_path(source, "train", contrast).name
            raise InputError(f"the folder {source.name} has no {wanted}", "name the file itself")
        for name, path in present.items():
            found[name][contrast] = path
    for name, files in found.items():
        missing = set(sources) - set(files)
        if files and missing:
            raise InputError(f"{min(missing)} has no images for the part {name}", "give all contrasts the same parts")
    return {name: files for name, files in found.items() if files}


def pack_mats(
    outputs: Mapping[str, Path],
    mats: Mapping[str, Mapping[str, Path]],
    *,
    size: int | None = 256,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    eight_bit: bool = False,
    paired: bool = False,
    compatible: bool = False,
    progress: Progress | None = None,
) -> dict[str, dict[str, int]]:
    """Write the images as HDF5, all files or none, and return their number by part and contrast.

    Parameters
    ----------
    outputs, mats : by part (:func:`find_mats`).
    size : side to which images are padded around their centre; None leaves their size.
    facts : further facts of the contrasts, such as ``constant`` and ``in_plane_spacing_mm``, which such files lack.
    eight_bit : whole grey values instead of float32.
    paired : image k of all contrasts shows the same.
    compatible : the published padding, which leaves an odd side one pixel short.

    Raises
    ------
    InputError : a file that cannot be used, or contrasts of different length when ``paired``.

    """
    progress = progress or Progress()
    counts: dict[str, dict[str, int]] = {}
    known = {"rule": "mean", "region": "volume", "slice_axis": "axial"}
    with ExitStack() as stack:
        for done, (part, files) in enumerate(mats.items()):
            described = {name: {**known, **(facts or {}).get(name, {})} for name in files}
            writers = open_writers(stack, outputs[part], described, paired=paired, eight_bit=eight_bit)
            for name, path in files.items():
                for number, image in enumerate(read_mat(path, size=size, compatible=compatible)[:, 0]):
                    writers[name].add(image, subject="", number=number, source=path.name)
            counts[part] = {name: writer.count for name, writer in writers.items()}
            _check_pairs(part, counts[part], paired)
            progress.update((done + 1) / len(mats))
    return counts


def _check_pairs(part: str, counts: Mapping[str, int], paired: bool) -> None:
    numbers: Sequence[int] = list(counts.values())
    if paired and len(set(numbers)) > 1:
        listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise InputError(f"the part {part} has {listed}, which are no pairs", "leave --paired out")
