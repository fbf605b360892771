"""A result on disk: its sidecar, and the files that the sidecar names, found by name or checksum."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError, MRIDeepToolsError
from ..methods import command_of
from ..provenance import HIDDEN, file_facts, sidecar_path
from ..translate.pictures import is_picture_path, read_picture
from ..volume import Volume, is_image_path, read_volume
from .maps import ROLE, read_maps
from .schema import is_readable

__all__ = ["FoundFile", "Images", "Result", "fields_in_use", "find_sidecars", "open_result", "read_record"]

State = Literal["same", "changed", "missing"]

_DESCRIPTION = "dataset_description.json"  # of BIDS: names the program too, but is no sidecar
_RAW = "bids:raw:"

# What the first files are where a record of version 1.0 does not say it.
_FIRST_OUTPUT = {"segment": "labels", "predict": "table"}
_FIRST_INPUT = {"superresolve": ("t2", "t1"), "upsample-dmri": ("dwi",)}


@dataclass(frozen=True)
class FoundFile:
    """A file that a sidecar names: what the record says of it, where it lies now (None: nowhere), and its state."""

    entry: Mapping[str, Any]
    role: str
    output: bool
    path: Path | None
    state: State


class Images(Mapping[str, Volume]):
    """The images of a result by role, read when they are asked for; what cannot be read is told and left out."""

    def __init__(self, files: Sequence[FoundFile], on_warning: Callable[[str], None]) -> None:
        self._files = {
            item.role: item.path
            for item in sorted(files, key=lambda item: item.output)
            if item.path is not None and (item.path.is_dir() or is_image_path(item.path) or is_picture_path(item.path))
        }
        self._read: dict[str, Volume] = {}
        self._warn = on_warning
        kept = next((item.path for item in files if item.role == ROLE and item.state == "same" and item.path), None)
        if kept is not None:
            self._take_kept(kept)

    def _take_kept(self, path: Path) -> None:
        """Add the maps that were kept for the page."""
        try:
            self._read |= read_maps(path)
        except InputError as error:
            self._warn(f"{error}; what it holds is not shown")
        self._files |= dict.fromkeys(self._read, path)

    def __getitem__(self, role: str) -> Volume:
        """Return the (X, Y, Z) or (X, Y, Z, C) image of a role; KeyError where there is none that can be read."""
        path = self._files[role]
        if role not in self._read:
            try:
                self._read[role] = _image(path)
            except MRIDeepToolsError as error:
                del self._files[role]
                self._warn(f"{error}; it is not shown")
                raise KeyError(role) from None
        return self._read[role]

    def __contains__(self, role: object) -> bool:
        """Say whether there is a readable image of this role."""
        if role not in self._files or not isinstance(role, str):
            return False
        try:
            self[role]
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        """Go through the roles."""
        return iter([role for role in list(self._files) if role in self])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(list(iter(self)))


def _image(path: Path) -> Volume:
    """Read a scan, or a picture as (H, W, 1) without a place in the world."""
    if not is_picture_path(path):
        return read_volume(path, ndim=None, on_warning=lambda message: None)
    return Volume(read_picture(path)[:, :, None], np.eye(4))


@dataclass(frozen=True)
class Result:
    """One result: the path of its sidecar, the record in it, and its files."""

    sidecar: Path
    record: Mapping[str, Any]
    files: tuple[FoundFile, ...]

    @property
    def command(self) -> str:
        """The command that made it."""
        return command_of(self.record)

    def notes(self, *, names: bool = False, inputs: bool = True) -> list[str]:
        """Return sentences about files that are missing or have changed, by their role, or also by their names."""
        told = []
        for item in (one for one in self.files if inputs or one.output):
            kind = "output" if item.output else "input"
            what = f"The {kind} {item.role}".rstrip() + (f" ({item.entry['Name']})" if names else "")
            if item.state == "missing":
                more = "" if item.output else "; --inputs FOLDER says where it is"
                told.append(f"{what} was not found: what shows it is left out{more}.")
            elif item.state == "changed":
                more = "pictures show it as it is now" if item.output else "it is not used"
                told.append(
                    f"{what} has changed since the run (another checksum): {more}, numbers are those of the run."
                )
        return told

    def images(self, on_warning: Callable[[str], None]) -> Images:
        """Return the images by role; outputs as they are, inputs that have not changed."""
        usable = [item for item in self.files if item.output or item.state == "same"]
        return Images(usable, on_warning)

    def file(self, role: str) -> Path | None:
        """Return where the output of a role lies."""
        return next((item.path for item in self.files if item.output and item.role == role), None)


@contextmanager
def fields_in_use(*sidecars: Path) -> Iterator[None]:
    """Turn what a damaged record does to the code that reads its fields into an InputError that names the sidecar."""
    try:
        yield
    except MRIDeepToolsError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        names = " or ".join(dict.fromkeys(path.name for path in sidecars))
        raise InputError(
            f"{names} is damaged: its fields are not those of its schema", "run the command again"
        ) from error


def read_record(path: Path) -> dict[str, Any]:
    """Return the record in a sidecar.

    Raises
    ------
    InputError : it cannot be read, is not a sidecar of this program, or keeps to a schema of another major version.

    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror})", "check the path of the output") from None
    except ValueError:
        raise InputError(
            f"{path.name} is not JSON", "give an output with the sidecar that was written with it"
        ) from None
    if not _is_ours(record):
        raise InputError(f"{path.name} is not a sidecar of mri-deep-tools", "give an output of this program")
    version = record.get("SchemaVersion")
    if not is_readable(version):
        raise InputError(
            f"{path.name} keeps to version {version} of the schema, which this program cannot read",
            "use the version of mri-deep-tools that wrote it, or a newer one",
        )
    needed = ("Inputs", "Outputs", "Models", "Options")
    lost = [name for name in needed if not isinstance(record.get(name), (list, dict))]
    if lost or not all(_is_file(item) for name in needed[:2] for item in record[name]):
        raise InputError(
            f"{path.name} is damaged: {', '.join(lost) or 'its list of files'} cannot be used", "run again"
        )
    return dict(record)


def _is_ours(record: object) -> bool:
    made = record.get("GeneratedBy") if isinstance(record, dict) else None
    return (
        isinstance(made, list) and bool(made) and isinstance(made[0], dict) and made[0].get("Name") == "mri-deep-tools"
    )


def _is_file(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("Name"), str) and isinstance(item.get("SHA256"), str)


def find_sidecars(path: Path) -> list[Path]:
    """Return the sidecars that a person means by an output, a sidecar, or a folder with results (and below).

    Raises
    ------
    InputError : there is none.

    """
    if path.is_dir():
        found = [item for item in sorted(path.rglob("*.json")) if item.is_file() and _holds_record(item)]
        if not found:
            raise InputError(f"the folder {path.name} holds no output of mri-deep-tools with a sidecar", "name another")
        return found
    if not path.exists():
        raise InputError(f"{path.name} does not exist", "check the path of the output")
    if path.suffix.lower() == ".json":
        return [path]
    beside = path.with_suffix(".json") if is_picture_path(path) else sidecar_path(path)
    if beside.is_file():
        return [beside]
    for item in sorted(path.parent.glob("*.json")):  # a further output of a run, as a map
        if _holds_record(item) and path.name in (entry["Name"] for entry in read_record(item)["Outputs"]):
            return [item]
    raise InputError(f"{path.name} has no sidecar {beside.name}", "give an output of this program")


def _holds_record(path: Path) -> bool:
    try:
        return path.name != _DESCRIPTION and _is_ours(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def open_result(sidecar: Path, folders: Sequence[Path] = ()) -> Result:
    """Return a result with its files, which are looked for beside the sidecar and in ``folders``.

    Raises
    ------
    InputError : the sidecar cannot be read; see :func:`read_record`.

    """
    record = read_record(sidecar)
    folders = [*folders, *_source_folders(sidecar, record, folders)]
    command, files = command_of(record), []
    for output, entries in ((True, record["Outputs"]), (False, record["Inputs"])):
        first = (_FIRST_OUTPUT.get(command, "image"),) if output else _FIRST_INPUT.get(command, ("scan",))
        for index, entry in enumerate(entries):
            role = entry.get("Role") or (first[index] if index < len(first) else "")
            places = [sidecar.parent] if output else [sidecar.parent, *folders]
            files.append(FoundFile(entry, role, output, *_find(entry, places)))
    return Result(sidecar, record, tuple(files))


def _source_folders(sidecar: Path, record: Mapping[str, Any], roots: Sequence[Path]) -> list[Path]:
    """Return where the scans of a BIDS derivative lie: below one of ``roots``, or in the data set that it links to."""
    sources = record.get("Sources")
    named = [text for text in sources if isinstance(text, str)] if isinstance(sources, list) else []
    inside = [Path(text.removeprefix(_RAW)) for text in named if text.startswith(_RAW)]
    if not inside:
        return []
    linked = next((place for place in sidecar.absolute().parents if (place / _DESCRIPTION).is_file()), None)
    with suppress(OSError, ValueError, KeyError, TypeError):  # the link helps, and is not needed
        if linked is not None:
            described = json.loads((linked / _DESCRIPTION).read_text(encoding="utf-8"))
            roots = [*roots, linked / described["DatasetLinks"]["raw"]]
    return list(dict.fromkeys(root / path.parent for root in roots for path in inside if ".." not in path.parts))


def _find(entry: Mapping[str, Any], places: Sequence[Path]) -> tuple[Path | None, State]:
    """Return where a file lies: by its name, else any file of the same content; one of its name has changed."""
    named = [place / entry["Name"] for place in places if not entry["Name"].startswith(HIDDEN)]
    present = [path for path in named if path.exists()]
    for path in present:
        if _facts(path) == entry["SHA256"]:
            return path, "same"
    for place in places:
        try:
            alike = [
                path for path in place.iterdir() if path.is_file() and path.stat().st_size == entry.get("SizeBytes")
            ]
        except OSError:
            continue
        for path in sorted(alike):
            if _facts(path) == entry["SHA256"]:
                return path, "same"
    return (present[0], "changed") if present else (None, "missing")


def _facts(path: Path) -> str:
    try:
        return str(file_facts(path)["SHA256"])
    except (InputError, OSError):
        return ""
