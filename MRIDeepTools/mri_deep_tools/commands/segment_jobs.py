"""Which scans the segment command works on, and where each result goes.

INPUT and every output are of the same kind: one scan (a file, or a folder with one DICOM series) and one file; a
folder of scans and a folder; or a ``.txt`` file with one path per line and other ones with as many lines. Tables are
shared by all scans, except that a list of scans has a list of tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from ..errors import InputError, RequestError

__all__ = ["Job", "Plan", "plan_jobs"]

_ENDINGS = {"labels": "_synthseg", "posteriors": "_posteriors", "resampled": "_resampled", "report": "_report"}
"""What is put behind the name of a scan, as published, where an output is a folder."""

_OPTIONS = {"labels": "OUTPUT"}
"""What the person calls an output where it is not ``--`` and its name."""


@dataclass(frozen=True)
class Job:
    """One scan and the files that its segmentation makes; None where a file was not asked for."""

    scan: Path
    labels: Path
    posteriors: Path | None = None
    resampled: Path | None = None
    report: Path | None = None
    volumes: Path | None = None
    qc: Path | None = None

    def files(self) -> list[Path]:
        """Return the files that belong to this scan alone."""
        return [path for path in (self.labels, self.posteriors, self.resampled, self.report) if path]

    def roles(self) -> dict[Path, str]:
        """Return what each of the images is, for the record."""
        images = {"labels": self.labels, "posteriors": self.posteriors, "resampled": self.resampled}
        return {path: role for role, path in images.items() if path}

    def tables(self) -> list[Path]:
        """Return the CSV files, which all scans may share."""
        return [path for path in (self.volumes, self.qc) if path]


@dataclass(frozen=True)
class Plan:
    """All jobs; ``shared_tables``: the CSV files are the same for all of them, one row per scan."""

    jobs: tuple[Job, ...]
    shared_tables: bool


def plan_jobs(scan: str, outputs: Mapping[str, str | None], on_warning: Callable[[str], None]) -> Plan:
    """Return what to read and what to write.

    Parameters
    ----------
    scan :
        INPUT of the command line.
    outputs :
        The other words of the command line by the names of :class:`Job`; ``labels`` is OUTPUT.
    on_warning :
        Is told of files that are left out.

    Raises
    ------
    InputError : the input is missing or holds no scan.
    RequestError : an output is not of the kind of the input.

    """
    path = Path(scan)
    if not path.exists():
        raise InputError(f"{path.name or scan} does not exist", "check the path of the input")
    wanted = {name: text for name, text in outputs.items() if text}
    if path.is_file() and path.suffix.lower() == ".txt":
        return _plan_list(path, wanted)
    scans = _scans_in(path, on_warning) if path.is_dir() else []
    if not scans:
        return Plan((_job(path, {name: _place(name, text, path) for name, text in wanted.items()}),), True)
    for name, text in wanted.items():
        if name in _ENDINGS:
            _require_folder(name, text, len(scans))
    folders = {name: f"{text}/" if name in _ENDINGS else text for name, text in wanted.items()}
    jobs = [_job(item, {name: _place(name, text, item) for name, text in folders.items()}) for item in scans]
    twice = [name for name, count in Counter(job.labels.name for job in jobs).items() if count > 1]
    if twice:
        raise RequestError(f"two scans would both be written to {twice[0]}", "give the scans different names")
    return Plan(tuple(jobs), shared_tables=True)


def _plan_list(path: Path, wanted: Mapping[str, str]) -> Plan:
    """Return the plan for a list of scans; every output is a list of as many lines."""
    scans = _lines(path)
    if not scans:
        raise InputError(f"{path.name} names no scans", "write one path per line")
    columns: dict[str, list[str]] = {}
    for name, text in wanted.items():
        place = Path(text)
        if place.suffix.lower() != ".txt":
            raise RequestError(
                f"INPUT is a list of scans, so {_told(name)} must be a .txt list too, not {place.name}",
                "write one path per line",
            )
        columns[name] = _lines(place)
        if len(columns[name]) != len(scans):
            raise RequestError(
                f"{path.name} lists {len(scans)} scans and {place.name} lists {len(columns[name])} outputs",
                "write one output per scan, in the same order",
            )
    return Plan(
        tuple(
            _job(Path(scan), {name: _place(name, column[index], Path(scan)) for name, column in columns.items()})
            for index, scan in enumerate(scans)
        ),
        shared_tables=False,
    )


def _job(scan: Path, places: Mapping[str, Path]) -> Job:
    known = {item.name for item in fields(Job)}
    return Job(scan, **{name: path for name, path in places.items() if name in known})


def _place(name: str, text: str, scan: Path) -> Path:
    """Return the path of an output of one scan; where ``text`` is a folder, a file inside it named after the scan."""
    path = Path(text)
    if name not in _ENDINGS:
        if path.is_dir():
            raise RequestError(f"{_told(name)} {path.name} is a folder", "name a .csv file")
        return path if path.suffix.lower() == ".csv" else path.with_name(f"{path.name}.csv")
    if text.endswith(("/", "\\")) or path.is_dir() or not path.suffix:
        stem, suffix = _name_of(scan)
        return path / f"{stem}{_ENDINGS[name]}{'.html' if name == 'report' else suffix}"
    _require_suffix(name, path)
    return path


def _name_of(scan: Path) -> tuple[str, str]:
    """Return the name of a scan without its suffix, and the suffix of images made from it."""
    from ..volume import split_suffix

    if scan.is_dir():
        return scan.resolve().name or "scan", ".nii.gz"
    stem, suffix = split_suffix(scan)
    return stem, suffix or ".nii.gz"


def _require_suffix(name: str, path: Path) -> None:
    from ..volume import SUFFIXES, is_image_path

    if name == "report":
        if path.suffix.lower() not in (".html", ".htm"):
            raise RequestError(f"--report {path.name} does not end in .html", "name a .html file")
    elif not is_image_path(path):
        known = ", ".join(SUFFIXES)
        raise RequestError(f"{_told(name)} {path.name} does not end in an image suffix", f"use one of {known}")


def _require_folder(name: str, text: str, count: int) -> None:
    from ..volume import is_image_path

    path = Path(text)
    if path.is_file() or ((is_image_path(path) or path.suffix.lower() == ".html") and not path.is_dir()):
        raise RequestError(
            f"INPUT is a folder with {count} scans, so {_told(name)} must be a folder too, not {path.name}",
            "name a folder; it is made if it does not exist",
        )


def _told(name: str) -> str:
    return _OPTIONS.get(name, f"--{name}")


def _scans_in(folder: Path, on_warning: Callable[[str], None]) -> list[Path]:
    """Return the scans of a folder, sorted; none when it should be read as a DICOM series."""
    from ..volume import list_images, split_suffix

    found = list_images(folder)
    scans = [path for path in found if not split_suffix(path)[0].endswith(tuple(_ENDINGS.values()))]
    if len(scans) < len(found):
        on_warning(f"{len(found) - len(scans)} files in {folder.name} are results of an earlier run and are left out")
    if found and not scans:
        raise InputError(f"the folder {folder.name} holds results only", "give a folder with scans")
    if not found and not any(path.is_file() for path in folder.iterdir()):
        raise InputError(f"the folder {folder.name} holds no files", "give a folder with scans or one DICOM series")
    return scans


def _lines(path: Path) -> list[str]:
    """Return the lines of a list, without empty ones."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror})", "check the path of the list") from None
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not a text file", "write one path per line, in UTF-8") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
