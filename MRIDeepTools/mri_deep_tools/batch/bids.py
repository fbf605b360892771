"""Subjects from a BIDS data set: a small index of what the tasks read, and the files that belong to each scan.

Only names decide (BIDS 1.10): ``sub-<label>[_ses-<label>][_<key>-<label>...]_<suffix>.<extension>`` in ``anat`` or
``dwi``. Gradient files follow the inheritance principle: a file applies to every scan at its level or below whose name
has all of its entities; the nearest one counts.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["IMAGES", "BidsFile", "Dataset", "parse_name"]

_NAME = re.compile(r"^((?:[A-Za-z]+-[A-Za-z0-9+]+_)+)([A-Za-z0-9]+)(\.[A-Za-z0-9.]+)$")
IMAGES = (".nii", ".nii.gz")
_MANY = {"is": "are", "has": "have"}
_DERIVED = {"space", "desc", "res", "den", "label", "seg"}


@dataclass(frozen=True)
class BidsFile:
    """One file of a data set: its entities in the order of its name, its suffix, and its extension."""

    path: Path
    entities: Mapping[str, str]
    suffix: str
    extension: str

    @property
    def subject(self) -> str:
        """The label of the subject."""
        return self.entities["sub"]

    @property
    def stem(self) -> str:
        """The entities as they stand in the name."""
        return "_".join(f"{key}-{value}" for key, value in self.entities.items())

    def __getitem__(self, key: str) -> str:
        """Return the label of an entity, or an empty text."""
        return self.entities.get(key, "")


def parse_name(path: Path) -> BidsFile | None:
    """Return what a name says, or None where it is not one of BIDS."""
    found = _NAME.match(path.name)
    if found is None:
        return None
    pairs = [part.split("-", 1) for part in found[1].rstrip("_").split("_")]
    entities = dict(pairs)  # type: ignore[arg-type]
    return BidsFile(path, entities, found[2], found[3]) if len(entities) == len(pairs) else None


@dataclass
class Dataset:
    """A BIDS data set as its names tell it.

    Parameters
    ----------
    root : folder that holds ``dataset_description.json`` and ``sub-*``.

    Raises
    ------
    InputError : there is no such folder, it holds no subjects, or its description or ``participants.tsv`` is broken.

    """

    root: Path
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Look at the folder, and at what describes it."""
        if not self.root.is_dir():
            raise InputError(f"{self.root.name} is not a folder", "name the folder of a BIDS data set")
        self.description = self._described()
        self.folders = sorted(path for path in self.root.glob("sub-*") if path.is_dir())
        if not self.folders:
            raise InputError(f"{self.root.name or self.root} holds no folders sub-*", "name a BIDS data set")
        self.participants = self._participants()
        here = {path.name.removeprefix("sub-") for path in self.folders}
        self._tell("is in participants.tsv but has no folder", sorted(set(self.participants) - here))
        if self.participants:
            self._tell("has a folder but is not in participants.tsv", sorted(here - set(self.participants)))

    def _tell(self, what: str, labels: Sequence[str]) -> None:
        if labels:
            more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
            told = what if len(labels) == 1 else re.sub(r"\b(is|has)\b", lambda found: _MANY[found[1]], what)
            self.warnings.append(f"{', '.join(labels[:3])}{more} {told}")

    def _described(self) -> dict[str, Any]:
        path = self.root / "dataset_description.json"
        if not path.exists():
            self.warnings.append("there is no dataset_description.json, which BIDS demands")
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError):
            raise InputError("dataset_description.json cannot be read", "it must be JSON") from None
        return found if isinstance(found, dict) else {}

    def _participants(self) -> dict[str, dict[str, str]]:
        """Return the rows of participants.tsv by the label of the subject."""
        path = self.root / "participants.tsv"
        if not path.exists():
            return {}
        try:
            with path.open(newline="", encoding="utf-8-sig") as stream:
                rows = list(csv.DictReader(stream, delimiter="\t"))
        except (OSError, UnicodeDecodeError, csv.Error):
            raise InputError("participants.tsv cannot be read", "it must be a table with tabs, in UTF-8") from None
        if rows and "participant_id" not in rows[0]:
            raise InputError("participants.tsv has no column participant_id", "name it in its first line")
        table = {}
        for row in rows:
            label = (row.get("participant_id") or "").strip().removeprefix("sub-")
            if label:
                table[label] = {
                    key: value.strip() for key, value in row.items() if key and isinstance(value, str) and value.strip()
                }
        return table

    # ------------------------------------------------------------------------------------------------------- scans

    @cached_property
    def scans(self) -> list[BidsFile]:
        """All images of anat and dwi, in order of their paths; derivatives are none of the data set's own."""
        return [file for folder in self.folders for file in _images(folder)]

    def find(
        self,
        suffixes: Iterable[str],
        *,
        participants: Iterable[str] = (),
        sessions: Iterable[str] = (),
        entities: Mapping[str, str] | None = None,
    ) -> list[BidsFile]:
        """Return the scans with one of the suffixes; labels may be given with or without ``sub-`` and ``ses-``.

        ``entities`` must be those of the scan; an empty label means that the scan has no such entity.

        Raises
        ------
        InputError : a participant or session that was asked for is not there; nothing is left.

        """
        people = [label.removeprefix("sub-") for label in participants]
        visits = [label.removeprefix("ses-") for label in sessions]
        here = {path.name.removeprefix("sub-") for path in self.folders}
        if missing := [label for label in people if label not in here]:
            raise InputError(f"there is no participant {missing[0]} in {self.root.name}", "check the label")
        if missing := [label for label in visits if all(file["ses"] != label for file in self.scans)]:
            raise InputError(f"there is no session {missing[0]} in {self.root.name}", "check the label")
        wanted = set(suffixes)
        found = [
            file
            for file in self.scans
            if file.suffix in wanted
            and (not people or file.subject in people)
            and (not visits or file["ses"] in visits)
            and all(file[key] == value for key, value in (entities or {}).items())
        ]
        if not found:
            raise InputError(f"{self.root.name} holds no {' or '.join(sorted(wanted))} of that kind", "check the names")
        asked = {folder.name.removeprefix("sub-") for folder in self.folders} if not people else set(people)
        self._tell(f"has no {' or '.join(sorted(wanted))} of that kind", sorted(asked - {f.subject for f in found}))
        return found

    def partner(self, scan: BidsFile, suffix: str) -> BidsFile | None:
        """Return the scan of another suffix from the same subject and session that is likest by its other entities."""
        same = [file for file in self.scans if file.suffix == suffix and file.path.parent == scan.path.parent]

        def unlike(file: BidsFile) -> tuple[int, str]:
            keys = set(file.entities) | set(scan.entities)
            return sum(file[key] != scan[key] for key in keys), file.path.name

        return min(same, key=unlike, default=None)

    def inherited(self, scan: BidsFile, extension: str) -> Path | None:
        """Return the file that applies to a scan by the inheritance principle, the nearest and most specific one."""
        folder = scan.path.parent
        while True:
            fitting = [
                (len(found.entities), path.name, path)
                for path, found in _files(folder, extension)
                if found.suffix == scan.suffix and all(scan[key] == value for key, value in found.entities.items())
            ]
            if fitting:
                return max(fitting)[2]
            if folder == self.root or folder.parent == folder:
                return None
            folder = folder.parent

    def uri(self, path: Path) -> str:
        """Return a file of the data set as BIDS names it in sidecars."""
        return f"bids:raw:{path.relative_to(self.root).as_posix()}"


def _images(folder: Path) -> Iterator[BidsFile]:
    """Yield the images below the folder of a subject."""
    places = [folder, *sorted(path for path in folder.glob("ses-*") if path.is_dir())]
    for place in places:
        for kind in ("anat", "dwi"):
            for path in sorted((place / kind).glob("sub-*")):
                file = parse_name(path)
                if file is not None and file.extension in IMAGES and not _DERIVED & set(file.entities):
                    labels = (f"sub-{file['sub']}", f"ses-{file['ses']}" if file["ses"] else place.name)
                    if labels == (folder.name, place.name):
                        yield file


def _files(folder: Path, extension: str) -> Iterator[tuple[Path, BidsFile]]:
    """Yield the files of one extension in a folder; at the top a name may consist of the suffix alone."""
    for path in folder.glob(f"*{extension}"):
        found = parse_name(path)
        if found is None and re.fullmatch(r"[A-Za-z0-9]+", path.name.removesuffix(extension)):
            found = BidsFile(path, {}, path.name.removesuffix(extension), extension)
        if found is not None and found.extension == extension:
            yield path, found
