"""Which pairs of scans the superresolve command works on, and where each result goes.

One pair has files; a folder of T2w scans, or a table, has folders. In a folder, the T1w of ``X_T2w`` is ``X_T1w``, or
a file of the same name in another folder; a scan without partner is super-resolved alone.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError, RequestError

__all__ = ["EXTRAS", "PairJob", "plan_pairs"]

EXTRAS = {
    "interpolated": "_desc-interpolated_T2w",
    "honesty": "_desc-honesty_T2w",
    "save_transform": "_from-T2w_to-T1w_xfm",
    "report": "_report",
}
"""Outputs beside the result, and what is put behind the name of a scan where they are folders."""
_Row = tuple[Path, Path | None, Path | None]  # T2w, T1w, result
_SYNTHETIC = "_desc-synthetic_T2w"
_OURS = (_SYNTHETIC, EXTRAS["interpolated"], EXTRAS["honesty"])


@dataclass(frozen=True)
class PairJob:
    """One T2w scan, its T1w scan (None: alone), the result, and the files beside it by the names of ``EXTRAS``."""

    t2: Path
    t1: Path | None
    image: Path
    extras: Mapping[str, Path] = field(default_factory=dict)

    def outputs(self) -> list[Path]:
        """Return all files that are made."""
        from ..provenance import sidecar_path

        return [self.image, sidecar_path(self.image), *self.extras.values()]

    def roles(self) -> dict[Path, str]:
        """Return what each of the scans and files is, for the record."""
        parts = {path: name.removeprefix("save_") for name, path in self.extras.items()}
        return parts | {self.t2: "t2", self.image: "image"} | ({self.t1: "t1"} if self.t1 else {})


def plan_pairs(
    output: Path,
    t2: Path | None,
    t1: Path | None,
    table: Path | None,
    extras: Mapping[str, Path],
    on_warning: Callable[[str], None],
    *,
    compatible: bool = False,
) -> list[PairJob]:
    """Return what to read and what to write.

    Parameters
    ----------
    output, t2, t1, table, extras : of the command line; either ``t2`` or ``table`` is given.
    on_warning : is told of scans without a T1w.
    compatible : name results as the published program does.

    Raises
    ------
    InputError : an input is missing, or holds no scan. RequestError : an output is not of the kind of the input.

    """
    if table is not None:
        return _many(_rows_of(table), table.parent, output, extras)
    if t2 is None:
        raise RequestError("no scan is given", "name one with --t2, or many with --table")
    for path in (t2, t1):
        if path is not None and not path.exists():
            raise InputError(f"{path.name} does not exist", "check the path of the input")
    scans = _scans_in(t2) if t2.is_dir() else []
    if not scans:
        return [_one(output, t2, t1, extras, compatible)]
    if t1 is not None and not t1.is_dir():
        raise RequestError(
            "--t2 is a folder of scans, so --t1 must be a folder too", "name the folder of the T1w scans"
        )
    pairs = [(scan, _partner(scan, t2, t1), None) for scan in scans]
    alone = [scan.name for scan, partner, _ in pairs if partner is None]
    if alone and t1 is not None:
        on_warning(f"{len(alone)} of {len(scans)} T2w scans have no T1w ({alone[0]}, ...); they are taken alone")
    return _many(pairs, t2, output, extras)


# ----------------------------------------------------------------------------------------------------------- one pair


def _one(output: Path, t2: Path, t1: Path | None, extras: Mapping[str, Path], compatible: bool) -> PairJob:
    for name, path in extras.items():
        _require_suffix(name, path)
    return PairJob(t2, t1, _image_of(output, t2, compatible), dict(extras))


def _image_of(output: Path, t2: Path, compatible: bool) -> Path:
    """Return the path of the result; in a folder, a name that says that it is synthetic."""
    from ..volume import is_image_path, split_suffix

    if is_image_path(output) and not output.is_dir():
        return output
    if output.suffix and not output.is_dir():
        _require_suffix("OUTPUT", output)
    stem, suffix = split_suffix(t2) if not t2.is_dir() else (t2.resolve().name, ".nii.gz")
    if compatible:
        stem = stem.replace("T2w", "T2w_reconstructed") if "T2w" in stem else f"{stem}_reconstructed"
        return output / f"{stem}{suffix}"
    return output / f"{stem.removesuffix('_T2w')}{_SYNTHETIC}{suffix}"


def _require_suffix(name: str, path: Path) -> None:
    from ..registration import TRANSFORM_SUFFIXES
    from ..volume import SUFFIXES, is_image_path

    told = name if name == "OUTPUT" else f"--{name.replace('_', '-')}"
    if name == "report":
        if path.suffix.lower() not in (".html", ".htm"):
            raise RequestError(f"{told} {path.name} does not end in .html", "name a .html file")
    elif name == "save_transform":
        if path.suffix.lower() not in TRANSFORM_SUFFIXES:
            known = ", ".join(TRANSFORM_SUFFIXES)
            raise RequestError(f"{told} {path.name} does not end in a transform suffix", f"use one of {known}")
    elif not is_image_path(path):
        known = ", ".join(SUFFIXES)
        raise RequestError(f"{told} {path.name} does not end in an image suffix", f"use one of {known}")


# --------------------------------------------------------------------------------------------------------- many pairs


def _many(pairs: Sequence[_Row], root: Path, output: Path, extras: Mapping[str, Path]) -> list[PairJob]:
    """Return the jobs of many pairs (T2w, T1w, result or None); below ``output`` folders are as below ``root``."""
    for name, path in {"OUTPUT": output, **extras}.items():
        if path.is_file() or (path.suffix and not path.is_dir()):
            told = name if name == "OUTPUT" else f"--{name.replace('_', '-')}"
            raise RequestError(
                f"there are {len(pairs)} scans, so {told} must be a folder, not {path.name}",
                "name a folder; it is made if it does not exist",
            )
    jobs = [_job(t2, t1, image, root, output, extras) for t2, t1, image in pairs]
    twice = [path.name for path, count in Counter(job.image for job in jobs).items() if count > 1]
    if twice:
        raise RequestError(f"two scans would both be written to {twice[0]}", "give the scans different names")
    return jobs


def _job(
    t2: Path, t1: Path | None, image: Path | None, root: Path, output: Path, extras: Mapping[str, Path]
) -> PairJob:
    from ..volume import split_suffix

    stem, suffix = split_suffix(t2) if not t2.is_dir() else (t2.resolve().name, ".nii.gz")
    stem = stem.removesuffix("_T2w")
    below = t2.parent.relative_to(root) if t2.is_relative_to(root) else Path()
    endings = {"save_transform": ".tfm", "report": ".html"}
    made = {
        name: folder / below / f"{stem}{EXTRAS[name]}{endings.get(name, suffix)}" for name, folder in extras.items()
    }
    return PairJob(t2, t1, image if image is not None else output / below / f"{stem}{_SYNTHETIC}{suffix}", made)


def _scans_in(folder: Path) -> list[Path]:
    """Return the T2w scans below a folder, sorted; none when it should be read as a DICOM series."""
    from ..volume import is_image_path, list_images, split_suffix

    named = [path for path in sorted(folder.rglob("*_T2w.*")) if is_image_path(path) and path.is_file()]
    found = named or [path for path in list_images(folder) if not split_suffix(path)[0].endswith("_T1w")]
    scans = [path for path in found if not split_suffix(path)[0].endswith(_OURS)]
    if found and not scans:
        raise InputError(f"the folder {folder.name} holds results only", "give a folder with scans")
    return scans


def _partner(scan: Path, folder: Path, guides: Path | None) -> Path | None:
    """Return the T1w scan of a T2w scan of ``folder``, where there is one."""
    from ..volume import SUFFIXES, split_suffix

    stem, suffix = split_suffix(scan)
    root = folder if guides is None else guides
    place = root / scan.parent.relative_to(folder)
    names = [f"{stem.removesuffix('_T2w')}_T1w"] if stem.endswith("_T2w") else [f"{stem}_T1w"]
    if guides is not None and guides.resolve() != folder.resolve():
        names.append(stem)  # the same name in the folder of the T1w scans
    candidates = [place / f"{name}{end}" for name in names for end in (suffix, *SUFFIXES)]
    return next((path for path in candidates if path.is_file()), None)


def _rows_of(table: Path) -> list[_Row]:
    """Return T2w, T1w and result of each row; paths are relative to the table."""
    if not table.is_file():
        raise InputError(f"{table.name} does not exist", "check the path of the table")
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t" if table.suffix.lower() == ".tsv" else ","))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise InputError(f"{table.name} cannot be read as a table", "write CSV in UTF-8") from None
    if not rows or "t2" not in rows[0]:
        raise InputError(f"{table.name} lacks the column t2, or rows", "write t2,t1,output into its first line")
    found: list[_Row] = []
    for number, row in enumerate(rows, 2):
        names = [(row.get(key) or "").strip() for key in ("t2", "t1", "output")]
        t2, t1, image = (table.parent / name if name else None for name in names)
        if t2 is None:
            raise InputError(f"line {number} of {table.name} names no T2w scan", "fill the column t2")
        for path in (t2, t1):
            if path is not None and not path.exists():
                raise InputError(f"{path.name}, in line {number} of {table.name}, does not exist", "correct the table")
        if image is not None:
            _require_suffix("OUTPUT", image)
        found.append((t2, t1, image))
    return found
