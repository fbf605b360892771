"""Which scans the predict command works on, and the columns that identify each of them in the table it writes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, RequestError

__all__ = ["Inputs", "plan_inputs"]

_ID, _MASK = "scan", "mask"


@dataclass(frozen=True)
class Inputs:
    """Scans, the identification columns and brain mask of each, and files that were read to find them."""

    scans: tuple[Path, ...]
    ids: tuple[dict[str, str], ...]
    masks: tuple[Path | None, ...]
    files: tuple[Path, ...] = ()


def plan_inputs(words: Sequence[Path], *, keep_paths: bool = True) -> Inputs:
    """Return the scans that the command line names.

    Parameters
    ----------
    words : image files, folders of them, folders with one DICOM series; or a single table with a column of paths,
        whose other columns identify the scans (a column ``mask`` names brain masks as well).
    keep_paths : whether the column of paths is one of the identification columns; in the published form it is not.

    Raises
    ------
    InputError : a file that is missing, a folder without scans, an unusable table.
    RequestError : a table beside other inputs, or a scan that is named twice.

    """
    from ..harmonize.predictor_table import TABLE_SUFFIXES, read_scans

    for word in words:
        if not word.exists():
            raise InputError(f"{word.name} does not exist", "check the path of the input")
    tables = [word for word in words if word.suffix.lower() in TABLE_SUFFIXES and word.is_file()]
    if tables and len(words) > 1:
        raise RequestError(f"the table {tables[0].name} stands beside other inputs", "give one table, or scans")
    if tables:
        table, rows = read_scans(tables[0])
        scans = tuple(row.path for row in rows)
        ids = table.rows if keep_paths else tuple(row.ids for row in rows) if rows[0].ids else _names(scans)
        masks = tuple(tables[0].parent / row.ids[_MASK] if row.ids.get(_MASK) else None for row in rows)
        return Inputs(scans, ids, masks, (tables[0],))
    scans = tuple(scan for word in words for scan in _scans(word))
    seen: set[str] = set()
    for scan in scans:
        key = os.path.realpath(scan)
        if key in seen:
            raise RequestError(f"{scan.name} was given twice", "name each scan once")
        seen.add(key)
    return Inputs(scans, _names(scans), (None,) * len(scans))


def _scans(word: Path) -> list[Path]:
    """Return a scan, or those of a folder; a folder without image files is one DICOM series."""
    from ..volume import is_image_path, list_images

    if not word.is_dir():
        if not is_image_path(word):
            raise InputError(
                f"{word.name} is neither an image nor a table by its name", "name scans, a folder, or a .csv table"
            )
        return [word]
    found = list_images(word)
    if not found and not any(path.is_file() for path in word.iterdir()):
        raise InputError(f"the folder {word.name} holds no files", "give a folder with scans or one DICOM series")
    return found or [word]


def _names(scans: Sequence[Path]) -> tuple[dict[str, str], ...]:
    """Return the name of each scan without its suffix, with as much of its folder as tells it from the others."""
    from ..volume import split_suffix

    def name(scan: Path) -> str:
        return (scan.resolve().name or "scan") if scan.is_dir() else split_suffix(scan)[0]

    plain = [name(scan) for scan in scans]
    if len(set(plain)) == len(plain):
        return tuple({_ID: text} for text in plain)
    whole = [Path(os.path.normpath(scan.absolute())) for scan in scans]
    root = Path(os.path.commonpath([scan.parent for scan in whole]))
    longer = [(scan.parent.relative_to(root) / name(scan)).as_posix() for scan in whole]
    if len(set(longer)) < len(longer):
        longer = [scan.relative_to(root).as_posix() for scan in whole]
    return tuple({_ID: text} for text in longer)
