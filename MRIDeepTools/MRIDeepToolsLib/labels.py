"""The label table that the core writes beside a segmentation, as Slicer shows it."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import ResultError
from .i18n import _

__all__ = ["Structure", "display_name", "read_label_table"]

_UPPER = {"csf": "CSF", "ct": "CT"}


@dataclass(frozen=True)
class Structure:
    """One label: its value, the core's name, colour (red, green, blue; 0 to 1), side, and terminology code."""

    value: int
    name: str
    colour: tuple[float, float, float]
    side: str = "neutral"
    scheme: str = ""
    code: str = ""
    meaning: str = ""

    @property
    def title(self) -> str:
        """The name as it is shown."""
        return display_name(self.name)


def display_name(name: str) -> str:
    """Return a structure's name as it is shown: ``left thalamus`` -> ``Left thalamus``, ``csf`` -> ``CSF``."""
    if name.startswith("ctx-"):
        return name
    words = [_UPPER.get(word, word) for word in name.split(" ")]
    return words[0][:1].upper() + " ".join(words)[1:]


def read_label_table(path: str | Path) -> dict[int, Structure]:
    """Read ``*_dseg.tsv``: label value -> structure, without background.

    Raises
    ------
    ResultError : the table is missing or not of the known form.

    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        structures = [_structure(row) for row in rows]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ResultError(_("The table of labels {name} cannot be read.").format(name=path.name)) from error
    return {item.value: item for item in structures if item.value != 0}


def _structure(row: dict[str, str]) -> Structure:
    colour = row["color"].strip()
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
        raise ValueError(colour)
    parts = tuple(int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    known = {key: "" if row.get(key) in (None, "n/a") else row[key].strip() for key in _CONCEPT}
    side = (row.get("side") or "neutral").strip()
    return Structure(int(row["index"]), row["name"].strip(), parts, side, *known.values())


_CONCEPT = ("coding_scheme", "concept_code", "concept_meaning")
