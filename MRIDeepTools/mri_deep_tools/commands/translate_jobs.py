"""Which images the translate command works on, and where each result goes.

INPUT is one scan (a file, or a folder with one DICOM series), one picture, a folder of scans and pictures, a ``.txt``
file with one path per line, or a table (CSV or TSV) with a column ``path`` and, if wanted, ``output`` and ``mask``;
paths are relative to the list's folder, outputs to OUTPUT. With several images OUTPUT, ``--save-std`` and ``--report``
are folders. Data sets of nnU-Net and published sets of tiles are the matter of :mod:`.translate_sets`.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, RequestError

__all__ = ["EXTRAS", "ImageJob", "Plan", "plan_images", "synthetic_suffix"]

EXTRAS = ("save_std", "report")
"""Files beside a result, by the names of their options."""
_WORD = "desc-synthetic"
_COLUMNS = {"path": ("path", "scan", "image"), "output": ("output",), "mask": ("mask",)}
_TABLES = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class ImageJob:
    """One scan or picture, its result, the files beside it by the names of ``EXTRAS``, and its mask."""

    source: Path
    output: Path
    is_picture: bool
    extra: Mapping[str, Path] = field(default_factory=dict)
    mask: Path | None = None

    def outputs(self) -> list[Path]:
        """Return all files that are made for this image alone."""
        return [self.output, self.sidecar, *self.extra.values()]

    def roles(self) -> dict[Path, str]:
        """Return what each file is, for the record."""
        parts = {path: name.removeprefix("save_") for name, path in self.extra.items()}
        parts |= {self.source: "picture" if self.is_picture else "scan", self.output: "image"}
        return parts | ({self.mask: "mask"} if self.mask else {})

    @property
    def sidecar(self) -> Path:
        """The record beside the result."""
        from ..provenance import sidecar_path

        return self.output.with_suffix(".json") if self.is_picture else sidecar_path(self.output)


@dataclass(frozen=True)
class Plan:
    """The images in order, the folder below which they lie, and that of the results (None for a single image)."""

    jobs: tuple[ImageJob, ...]
    root: Path | None = None
    output: Path | None = None


def synthetic_suffix(stem: str, target: str) -> str:
    """Return the name of a result in the manner of BIDS: ``sub-1_T1w`` and ``T2`` to ``sub-1_desc-synthetic_T2w``."""
    from ..translate.options import same_contrast

    plain = "".join(letter for letter in target if letter.isalnum()) or "target"
    head, _, tail = stem.rpartition("_")
    named = next((name for name in ("T1w", "T2w", "PDw") if same_contrast(name, plain)), plain)
    known = ("T1w", "T2w", "PDw", "PD", "T1", "T2", "FLAIR")
    return f"{head}_{_WORD}_{named}" if head and tail in known else f"{stem}_{_WORD}_{named}"


def plan_images(args: argparse.Namespace, target: str) -> Plan:
    """Return the images that the command line names, and all names of outputs, looked at before the work.

    Parameters
    ----------
    args : of the command: ``input``, ``output``, ``recursive``, ``mask``, ``save_std``, ``report``,
        ``samples``.
    target : name of the contrast that is made.

    Raises
    ------
    InputError : the input is missing, or holds no image. RequestError : an output is not of the kind of the input.

    """
    path: Path = args.input
    wanted = {name: place for name in EXTRAS if (place := getattr(args, name)) is not None}
    if not path.exists():
        raise InputError(f"{path.name} does not exist", "check the path of the input")
    if path.is_file() and path.suffix.lower() in _TABLES:
        rows, root = _rows(path), path.parent
    else:
        found = _images_in(path, args.recursive) if path.is_dir() else []
        if not found:
            _require_flat(path, args.recursive)
            return Plan((_single(args, path, target, wanted),))
        rows, root = [{"path": image} for image in found], path
    if args.mask is not None:
        raise RequestError("--mask is the mask of one scan", "write the masks into a table: path,mask")
    jobs = tuple(_job(args, row, root, target, wanted) for row in rows)
    twice = [
        place.name for place, count in Counter(item for job in jobs for item in job.outputs()).items() if count > 1
    ]
    if twice:
        raise RequestError(f"two images would both be written to {twice[0]}", "give them different names")
    return Plan(jobs, root, args.output)


def _single(args: argparse.Namespace, path: Path, target: str, wanted: Mapping[str, Path]) -> ImageJob:
    """Return the job of one image; outputs may be files or folders."""
    picture = _kind(path)
    if picture and args.mask is not None:
        raise RequestError("--mask is the mask of a scan, and INPUT is a picture", "leave it out")
    made = {}
    for name, place in {"output": args.output, **wanted}.items():
        names_file = bool(place.suffix) and not place.is_dir()
        made[name] = place if names_file else place / _name(path, name, target, picture, alone=True)
        _require_suffix(name, made[name], picture)
    return ImageJob(path, made.pop("output"), picture, made | _maps(args, made), args.mask)


def _job(
    args: argparse.Namespace, row: Mapping[str, Path], root: Path, target: str, wanted: Mapping[str, Path]
) -> ImageJob:
    image = row["path"]
    picture = _kind(image)
    below = image.parent.relative_to(root) if image.is_relative_to(root) else Path()
    made = {}
    for name, place in {"output": args.output, **wanted}.items():
        if place.is_file() or (place.suffix and not place.is_dir()):
            told = _told(name)
            raise RequestError(f"INPUT is several images, so {told} must be a folder, not {place.name}", "name one")
        made[name] = place / below / _name(image, name, target, picture, alone=False)
    if "output" in row:
        made["output"] = args.output / row["output"]
        _require_suffix("output", made["output"], picture)
    return ImageJob(image, made.pop("output"), picture, made | _maps(args, made), row.get("mask"))


def _maps(args: argparse.Namespace, made: Mapping[str, Path]) -> dict[str, Path]:
    """Return the file of what the page shows and no other output holds: the spread of samples."""
    from ..reports.maps import ROLE, maps_path

    if "report" not in made or "save_std" in made or args.samples < 2:
        return {}
    return {ROLE: maps_path(made["report"])}


def _kind(path: Path) -> bool:
    """Say whether a path is a picture; InputError for one that is neither picture nor scan by its name."""
    from ..translate.pictures import PICTURE_SUFFIXES, is_picture_path
    from ..volume import SUFFIXES, is_image_path

    if is_picture_path(path) and not path.is_dir():
        return True
    if path.is_dir() or is_image_path(path):
        return False
    known = ", ".join((*PICTURE_SUFFIXES, *SUFFIXES))
    raise InputError(f"{path.name} is neither a picture nor a scan by its name", f"use one of {known}")


def _name(image: Path, output: str, target: str, picture: bool, *, alone: bool) -> str:
    """Return the name of a file made from an image; pictures of a folder keep their names, as labels point at them."""
    from ..volume import split_suffix

    if picture:
        stem, suffix = image.stem, image.suffix
        made = f"{stem}_synthetic" if alone else stem
        return {"save_std": f"{made}_std{suffix}", "report": f"{made}.html"}.get(output, f"{made}{suffix}")
    stem, suffix = (image.resolve().name, ".nii.gz") if image.is_dir() else split_suffix(image)
    made = synthetic_suffix(stem, target)
    head, _, tail = made.rpartition("_")
    return {"save_std": f"{head}_stat-std_{tail}{suffix}", "report": f"{made}.html"}.get(output, f"{made}{suffix}")


def _require_suffix(name: str, path: Path, picture: bool) -> None:
    from ..translate.pictures import PICTURE_SUFFIXES
    from ..volume import SUFFIXES

    allowed = (".html", ".htm") if name == "report" else PICTURE_SUFFIXES if picture else SUFFIXES
    if not path.name.lower().endswith(allowed):
        raise RequestError(f"{_told(name)} {path.name} has the wrong suffix", f"use {', '.join(allowed)}")


def _images_in(folder: Path, recursive: bool) -> list[Path]:
    """Return scans and pictures of a folder that this command did not make; none where it is one DICOM series."""
    from ..translate.pictures import list_pictures
    from ..volume import is_image_path, list_images, split_suffix

    pictures = list_pictures(folder, recursive=recursive, excluded=("derivatives", ".git"))
    if recursive:
        scans = [
            path
            for path in sorted(folder.rglob("*"))
            if is_image_path(path)
            and path.is_file()
            and not any(part.startswith(".") or part == "derivatives" for part in path.relative_to(folder).parts)
        ]
    else:
        scans = list_images(folder)
    ours = [path for path in scans if _WORD in split_suffix(path)[0]]
    if ours and len(ours) == len(scans) and not pictures:
        raise InputError(f"the folder {folder.name} holds results only", "give a folder with scans")
    return sorted([path for path in scans if path not in set(ours)] + pictures)


def _require_flat(path: Path, recursive: bool) -> None:
    """Say that images lie deeper, where a folder has none of its own and was not searched (InputError)."""
    if not path.is_dir() or recursive or any(item.is_file() for item in path.iterdir()):
        return
    if deeper := _images_in(path, recursive=True):
        hint = f"sub-folders hold {len(deeper)}: add --recursive"
        raise InputError(f"the folder {path.name} has no scans or pictures of its own", hint)


def _rows(path: Path) -> list[dict[str, Path]]:
    """Return the rows of a list or table; inputs are relative to it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path.name} cannot be read as text", "write it in UTF-8") from None
    if path.suffix.lower() == ".txt":
        rows: list[dict[str, Any]] = [{"path": line.strip()} for line in text.splitlines() if line.strip()]
    else:
        table = csv.DictReader(text.splitlines(), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        names = {own: name for own, names in _COLUMNS.items() for name in names if name in (table.fieldnames or ())}
        if "path" not in names:
            raise InputError(f"{path.name} has no column path", "name it in the first line: path,output,mask")
        rows = []
        for row in table:
            cells = {own: value for own, name in names.items() if (value := (row[name] or "").strip())}
            if "path" not in cells:
                raise InputError(f"line {table.line_num} of {path.name} names no image", "fill the column path")
            rows.append(cells)
    if not rows:
        raise InputError(f"{path.name} names no images", "write one per line")
    made = [{own: Path(text) if own == "output" else path.parent / text for own, text in row.items()} for row in rows]
    if not any(row["path"].exists() for row in made):
        raise InputError(f"{path.name} names {made[0]['path'].name}, which does not exist", "check the paths in it")
    return made


def _told(name: str) -> str:
    return "OUTPUT" if name == "output" else f"--{name.replace('_', '-')}"
