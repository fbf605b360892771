"""Scans for a training set: where they are listed, whose they are, and to which part each person belongs.

A person's scans never lie in two parts, whatever their contrast: a network that has seen somebody's T1w scan in
training would be tested on an anatomy that it knows. People with both contrasts and people with one only are split
for themselves, so that every part gets some of each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..harmonize.predictor_table import TABLE_SUFFIXES, read_scans
from ..volume import is_image_path, list_images, split_suffix
from .dataset_split import Ratios, split, subject_of

__all__ = ["Scan", "by_part", "list_scans", "pair_scans"]

_LIST_SUFFIX = ".txt"
_FEWEST = 3


@dataclass(frozen=True)
class Scan:
    """A scan of a person.

    Attributes
    ----------
    path : of the image.
    subject : whose it is.
    visit : what it has in common with the other contrast's scan of the same visit.
    mask : of the brain, on the scan's grid; None where there is none.

    """

    path: Path
    subject: str
    visit: str
    mask: Path | None = None


def list_scans(
    sources: Sequence[Path],
    contrast: str,
    masks: Path | None = None,
    *,
    on_warning: Callable[[str], None] | None = None,
) -> list[Scan]:
    """Return the scans of one contrast.

    Parameters
    ----------
    sources : scans; folders of scans, of which those with the contrast's name are taken where some have it and others
        not (as in BIDS); tables (.csv, .tsv) with a column ``path`` and, where known, ``subject``,
        ``session`` and ``mask``; lists (.txt) with one path per line, relative to the list.
    contrast : its name, which is taken off the end of file names to find who and which visit it is: ``sub-07_T1w`` and
        ``IXI002-Guys-0828-T1`` belong to T1.
    masks : folder of brain masks whose names begin with, or equal, those of the scans.

    Raises
    ------
    InputError : a missing file or folder, a scan that is listed twice, or one without mask where masks are given.

    """
    found: list[Scan] = []
    for source in sources:
        if source.suffix.lower() in TABLE_SUFFIXES and source.is_file():
            found += _from_table(source, contrast)
        else:
            listed = _paths(source)
            named = [path for path in listed if _scan_name(path) != _without(_scan_name(path), contrast)]
            if source.is_dir() and named and len(named) < len(listed) and on_warning is not None:
                on_warning(
                    f"{len(named)} of {len(listed)} scans in {source.name} are named {contrast}; others are not used"
                )
            found += [_scan(path, contrast) for path in (named if source.is_dir() and named else listed)]
    twice = {scan.path.name for scan in found if sum(scan.path == other.path for other in found) > 1}
    if twice:
        raise InputError(f"{min(twice)} is listed twice for {contrast}", "list every scan once")
    if masks is None:
        return found
    return [scan if scan.mask else Scan(scan.path, scan.subject, scan.visit, _mask_of(scan, masks)) for scan in found]


def by_part(scans: Mapping[str, Sequence[Scan]], ratios: Ratios, *, seed: int = 42) -> dict[str, dict[str, list[Scan]]]:
    """Return the scans of every part and contrast, each person in one part.

    People with the same contrasts are split together by the published formula; groups of fewer than three are for
    training.

    Raises
    ------
    InputError : a contrast would have no scans in a part that is asked for.

    """
    contrasts: dict[str, tuple[str, ...]] = {}
    for name, listed in scans.items():
        for subject in {scan.subject for scan in listed}:
            contrasts[subject] = (*contrasts.get(subject, ()), name)
    part_of: dict[str, str] = {}
    for kind in sorted(set(contrasts.values())):
        people = sorted(subject for subject, found in contrasts.items() if found == kind)
        wanted = sum(share > 0 for share in (ratios.train, ratios.val, ratios.test))
        numbers = split(len(people), ratios, seed=seed) if len(people) >= min(wanted, _FEWEST) else {}
        part_of |= dict.fromkeys(people, "train")
        part_of |= {people[k]: part for part, chosen in numbers.items() for k in chosen}
    parts = [part for part, share in zip(("train", "val", "test"), _shares(ratios), strict=True) if share]
    found = {
        part: {name: [scan for scan in listed if part_of[scan.subject] == part] for name, listed in scans.items()}
        for part in parts
    }
    for part, listed_by_name in found.items():
        for name, listed in listed_by_name.items():
            if not listed:
                count = len({scan.subject for scan in scans[name]})
                raise InputError(
                    f"{count} {'person' if count == 1 else 'people'} with {name} cannot be split: none is left for the "
                    f"part {part}",
                    "give scans of more people, or set shares to 0, for instance --ratios 1 0 0",
                )
    return found


def pair_scans(first: Sequence[Scan], second: Sequence[Scan]) -> tuple[list[tuple[Scan, Scan]], list[Scan]]:
    """Return the pairs of scans of one visit, and the scans without partner.

    Raises
    ------
    InputError : no pairs, or a visit with two scans of one contrast.

    """
    tables: list[dict[tuple[str, str], Scan]] = []
    for scans in (first, second):
        table: dict[tuple[str, str], Scan] = {}
        for scan in scans:
            if (scan.subject, scan.visit) in table:
                other = table[scan.subject, scan.visit].path.name
                raise InputError(f"{scan.path.name} and {other} belong to one visit", "list one of them")
            table[scan.subject, scan.visit] = scan
        tables.append(table)
    keys = [key for key in tables[0] if key in tables[1]]
    if not keys:
        raise InputError(
            "no scans of the two contrasts belong together",
            "give them the same name but for the contrast, or a table with the columns path, subject and session",
        )
    alone = [scan for table in tables for key, scan in table.items() if key not in keys]
    return [(tables[0][key], tables[1][key]) for key in keys], alone


def _shares(ratios: Ratios) -> tuple[float, float, float]:
    return ratios.train, ratios.val, ratios.test


def _paths(source: Path) -> list[Path]:
    """Return the scans that a path names: one, those of a folder and of its sub-folders, or those of a list."""
    if not source.exists():
        raise InputError(f"{source.name} does not exist", "check the path")
    if source.is_dir():
        found = sorted(path for folder in (source, *_folders(source)) for path in list_images(folder))
        if not found:
            raise InputError(f"the folder {source.name} holds no scans", "give scans, or a folder of them")
        return found
    if source.suffix.lower() != _LIST_SUFFIX:
        return [source]
    try:
        lines = [line.strip() for line in source.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"{source.name} cannot be read as a list of paths", "write one path per line in UTF-8"
        ) from None
    listed = [source.parent / line for line in lines if line and not line.startswith("#")]
    missing = [path.name for path in listed if not path.exists()]
    if missing or not listed:
        what = f"{missing[0]}, named in {source.name}, does not exist" if missing else f"{source.name} names no scans"
        raise InputError(what, "write one path per line, relative to the list")
    return listed


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_dir() and not path.name.startswith("."))


def _scan(path: Path, contrast: str) -> Scan:
    """Read from the name of a file whose it is."""
    visit = _without(_scan_name(path), contrast)
    return Scan(path, subject_of(path.name) or subject_of(path.as_posix()) or visit, visit)


def _scan_name(path: Path) -> str:
    return split_suffix(path)[0] if is_image_path(path) else path.name


def _without(stem: str, contrast: str) -> str:
    """Take the contrast's name off the end of a file name."""
    return re.sub(rf"[-_. ]{re.escape(contrast)}w?$", "", stem, flags=re.IGNORECASE) or stem


def _from_table(table: Path, contrast: str) -> list[Scan]:
    found: list[Scan] = []
    for row in read_scans(table, must_exist=True)[1]:
        named = _scan(row.path, contrast)
        subject = row.ids.get("subject", "") or named.subject
        session = row.ids.get("session", "")
        visit = f"{subject}_{session}" if session else (subject if row.ids.get("subject") else named.visit)
        mask = table.parent / row.ids["mask"] if row.ids.get("mask") else None
        if mask is not None and not mask.is_file():
            raise InputError(f"{mask.name}, named in {table.name}, does not exist", "correct the table")
        found.append(Scan(row.path, subject, visit, mask))
    return found


def _mask_of(scan: Scan, folder: Path) -> Path:
    """Return the mask in a folder that belongs to a scan."""
    if not folder.is_dir():
        raise InputError(f"the folder {folder.name} does not exist", "give a folder of brain masks")
    listed = [(split_suffix(path)[0], path) for path in list_images(folder)]
    stem = split_suffix(scan.path)[0]
    names = [path for name, path in listed if name.startswith(stem)]
    names = names or [path for name, path in listed if name.startswith(scan.visit)]
    if len(names) != 1:
        what = "no mask" if not names else f"{len(names)} masks"
        raise InputError(f"{what} for {scan.path.name} in {folder.name}", "name each mask like its scan")
    return names[0]
