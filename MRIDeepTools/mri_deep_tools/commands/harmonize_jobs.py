"""Which scans the harmonize command works on, and where each result goes.

INPUT is one scan (a file, or a folder with one DICOM series), a folder of scans, a ``.txt`` file with one path per
line, or a ``.csv`` table with a column ``scan`` and, if wanted, ``output``, ``mask`` and ``age``; the published
program's names of columns, ``in_paths`` and ``out_paths``, mean the same, and so does ``path``. Paths in a list or
table are relative to its folder, outputs to OUTPUT. A scan that is not there fails alone. With several scans OUTPUT and
all further outputs are folders, in which files are named after the scan.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, RequestError

__all__ = ["IMAGES", "Job", "plan_jobs"]

IMAGES = ("save_preprocessed", "save_mask", "change")
_WORDS = {
    "image": "desc-harmonized",
    "save_preprocessed": "space-MNI152_desc-preprocessed",
    "save_mask": "desc-brain",
    "change": "desc-change",
    "save_transform": "from-MNI152_to-T1w",
    "report": "desc-harmonized",
}
_COLUMNS = {"scan": ("scan", "path", "in_paths"), "output": ("output", "out_paths"), "mask": ("mask",), "age": ("age",)}


@dataclass(frozen=True)
class Job:
    """One scan, its result, further files by the name of their option, and what is known of the scan alone."""

    scan: Path
    image: Path
    extra: dict[str, Path] = field(default_factory=dict)
    mask: Path | None = None
    age: float | None = None


def plan_jobs(args: argparse.Namespace) -> list[Job]:
    """Return the scans that the command line names, and all names of outputs, looked at before the work.

    Raises
    ------
    InputError : the input is missing, or holds no scan. RequestError : an output is not of the kind of the input.

    """
    path: Path = args.input
    if not path.exists():
        raise InputError(f"{path.name} does not exist", "check the path of the input")
    wanted = {name: place for name in _WORDS if (place := getattr(args, name, None)) is not None}
    for name in wanted:
        if args.preprocessed and name in ("save_mask", "save_transform"):
            raise RequestError(f"{_told(name)} cannot be written: a preprocessed image has none", "leave it out")
    if path.is_file() and path.suffix.lower() in (".csv", ".txt"):
        rows = _rows(path)
    else:
        found = _scans_in(path) if path.is_dir() else []
        if not found:
            return [Job(path, *_places(args, path, wanted, many=False))]
        rows = [{"scan": scan} for scan in found]
    if args.mask is not None:
        raise RequestError("--mask is the mask of one scan", "write the masks into a table: scan,mask")
    jobs = [_job(args, row, wanted) for row in rows]
    _require_different(jobs)
    return jobs


def _job(args: argparse.Namespace, row: dict[str, Any], wanted: dict[str, Path]) -> Job:
    image, extra = _places(args, row["scan"], wanted, many=True)
    if "output" in row:
        image = args.output / row["output"]
        _require_suffix("image", image)
    if "mask" in row and (args.preprocessed or args.skull_stripped or args.hd_bet):
        raise RequestError("the table names masks, and another option says where the brain is", "drop one of the two")
    return Job(row["scan"], image, extra, row.get("mask"), row.get("age", args.age))


def _places(
    args: argparse.Namespace, scan: Path, wanted: dict[str, Path], *, many: bool
) -> tuple[Path, dict[str, Path]]:
    """Return the paths of the result and of the further files of one scan."""
    from ..volume import SUFFIXES, is_image_path

    mapped = args.space == "template" or (args.compatible and not args.preprocessed)
    made = {}
    for name, place in {"image": args.output, **wanted}.items():
        names_file = bool(place.suffix) and not place.is_dir()
        if many and names_file and (name != "image" or is_image_path(place)):
            raise RequestError(
                f"INPUT is several scans, so {_told(name)} must be a folder, not {place.name}", "name one"
            )
        if names_file and name == "image" and not is_image_path(place):
            known = ", ".join(SUFFIXES)
            raise RequestError(f"OUTPUT {place.name} does not end in an image suffix", f"use one of {known}")
        space = "space-MNI152_" if mapped and name in ("image", "change") else ""
        made[name] = place if names_file else place / _name(scan, name, space)
        _require_suffix(name, made[name])
    return made.pop("image"), made


def _name(scan: Path, output: str, space: str) -> str:
    """Return the name of a file made from a scan, in the manner of BIDS derivatives."""
    from ..volume import split_suffix

    stem, suffix = (scan.resolve().name, ".nii.gz") if scan.is_dir() else split_suffix(scan)
    tail = "_T1w" if stem.endswith("_T1w") else ""
    suffix = {"save_transform": ".tfm", "report": ".html"}.get(output, suffix or ".nii.gz")
    kind = {"save_mask": "_mask", "save_transform": "_xfm"}.get(output, tail)
    return f"{stem.removesuffix('_T1w')}_{space}{_WORDS[output]}{kind}{suffix}"


def _require_suffix(name: str, path: Path) -> None:
    from ..registration import TRANSFORM_SUFFIXES
    from ..volume import SUFFIXES, is_image_path

    allowed = {"save_transform": TRANSFORM_SUFFIXES, "report": (".html", ".htm")}.get(name)
    if not (is_image_path(path) if allowed is None else path.suffix.lower() in allowed):
        raise RequestError(f"{_told(name)} {path.name} has the wrong suffix", f"use {', '.join(allowed or SUFFIXES)}")


def _require_different(jobs: list[Job]) -> None:
    """Refuse two scans of one name: their results would have one name too."""
    for places in zip(*([job.image, *job.extra.values()] for job in jobs), strict=True):
        twice = [path for path, count in Counter(places).items() if count > 1]
        if twice:
            raise RequestError(f"two scans would both be written to {twice[0].name}", "give them different names")


def _scans_in(folder: Path) -> list[Path]:
    """Return the scans of a folder that this command did not make; none where it is one DICOM series."""
    from ..volume import list_images, split_suffix

    found = list_images(folder)
    made = (*(word for name, word in _WORDS.items() if name in ("image", *IMAGES)),)
    scans = [path for path in found if not any(word in split_suffix(path)[0] for word in made)]
    if found and not scans:
        raise InputError(f"the folder {folder.name} holds results only", "give a folder with scans")
    return scans


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a list or table: paths, and ages in years."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path.name} cannot be read as text", "write it in UTF-8") from None
    if path.suffix.lower() == ".txt":
        rows: list[dict[str, Any]] = [{"scan": line.strip()} for line in text.splitlines() if line.strip()]
    else:
        table = csv.DictReader(text.splitlines())
        names = {own: name for own, names in _COLUMNS.items() for name in names if name in (table.fieldnames or ())}
        if "scan" not in names:
            raise InputError(f"{path.name} has no column scan (or in_paths)", "name it in the first line")
        rows = []
        for row in table:
            cells: dict[str, Any] = {own: value for own, name in names.items() if (value := (row[name] or "").strip())}
            if "scan" not in cells:
                raise InputError(f"line {table.line_num} of {path.name} names no scan", "fill the column scan")
            rows.append(cells)
            if "age" in cells:
                cells["age"] = _age(cells["age"], f"line {table.line_num} of {path.name}")
    if not rows:
        raise InputError(f"{path.name} names no scans", "write one per line")
    for row in rows:
        for own in ("scan", "mask", "output"):
            if own in row:  # outputs are relative to OUTPUT
                row[own] = Path(row[own]) if own == "output" else path.parent / row[own]
    if not any(row["scan"].exists() for row in rows):
        raise InputError(f"{path.name} names {rows[0]['scan'].name}, which does not exist", "check the paths in it")
    return rows


def _age(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"the age {text!r} in {where} is not a number", "give ages in years") from None


def _told(name: str) -> str:
    return "OUTPUT" if name == "image" else f"--{name.replace('_', '-')}"
