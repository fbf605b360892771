"""References as text and as BibTeX: those of ``references.json``, and the ones that a model names."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from importlib import resources

from . import __version__

__all__ = ["Reference", "bibtex", "find_reference", "reference", "software_reference"]

_ORDER = ("author", "title", "journal", "booktitle", "school", "volume", "number", "pages", "year", "version", "doi")


_OWN = "mrideeptools"


@dataclass(frozen=True)
class Reference:
    """An entry: its BibTeX key, type and fields."""

    key: str
    kind: str
    fields: dict[str, str]

    def __hash__(self) -> int:
        """Return what is equal for one key."""
        return hash(self.key)

    @property
    def label(self) -> str:
        """The short form in a sentence, ``Billot et al., 2023``; of a part of this program what it is, if anything."""
        if self.key.startswith(_OWN):
            return "model card" if self.kind == "misc" else ""
        names = [name.partition(",")[0].strip("{} ") for name in self.fields.get("author", "").split(" and ")]
        who = names[0] if len(names) == 1 else f"{names[0]} and {names[1]}" if len(names) == 2 else f"{names[0]} et al."
        return ", ".join(filter(None, (who, self.fields.get("year", ""))))

    @property
    def text(self) -> str:
        """The reference as one line of a list."""
        fields = self.fields
        names = [self._name(name) for name in fields.get("author", "").split(" and ")]
        who = ", ".join(names) if len(names) <= 3 else f"{names[0]} et al."
        place = " ".join(
            filter(
                None, (fields.get("journal", fields.get("booktitle", fields.get("school", ""))), fields.get("volume"))
            )
        )
        place += f"({fields['number']})" if "number" in fields else ""
        parts = [
            who,
            fields["title"],
            place,
            fields.get("pages", "").replace("--", "\N{EN DASH}"),
            fields.get("year", ""),
        ]
        parts += [fields.get("note", ""), _version(fields), f"doi:{fields['doi']}" if "doi" in fields else ""]
        parts += [f"{fields['archiveprefix']}:{fields['eprint']}" if "eprint" in fields else ""]
        return ", ".join(filter(None, parts))

    @property
    def bibtex(self) -> str:
        """The entry in BibTeX, UTF-8."""
        names = sorted(self.fields, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
        body = ",\n".join(f"  {name} = {{{self._escaped(name)}}}" for name in names)
        return f"@{self.kind}{{{self.key},\n{body}\n}}"

    def _escaped(self, name: str) -> str:
        text = self.fields[name]
        if name == "title":  # capitals inside words and of abbreviations are kept by braces
            text = re.sub(r"\b(\w*[a-z0-9]*[A-Z]{2,}\w*|\w+[A-Z]\w*|[A-Z][a-z]+(?=:))", r"{\1}", text)
        return text.replace("&", r"\&").replace("%", r"\%")

    @staticmethod
    def _name(name: str) -> str:
        family, _, given = name.strip("{} ").partition(", ")
        return " ".join(filter(None, (family, "".join(part[0] for part in re.split(r"[ -]", given) if part))))


def _version(fields: dict[str, str]) -> str:
    return f"version {fields['version']}" if "version" in fields else ""


@functools.cache
def _known() -> dict[str, Reference]:
    text = resources.files(__package__).joinpath("references.json").read_text(encoding="utf-8")
    return {key: Reference(key, entry.pop("type"), entry) for key, entry in json.loads(text).items()}


def reference(key: str) -> Reference:
    """Return the entry of ``references.json`` with this key."""
    return _known()[key]


def find_reference(citation: str) -> Reference:
    """Return the entry that a citation in the list of models means, by DOI, arXiv number or record, or a new one."""
    for entry in _known().values():
        marks = [entry.fields.get("doi"), entry.fields.get("eprint"), entry.fields.get("note", "").split(" ")[-1]]
        if any(mark and mark.lower() in citation.lower() for mark in marks):
            return entry
    card = re.fullmatch(r"MRI Deep Tools, model card of (\S+)", citation)
    if card:
        fields = {"author": "{The MRI Deep Tools contributors}", "title": f"Model card of {card[1]}"}
        return Reference(f"{_OWN}-{card[1]}", "misc", fields | {"note": "part of MRI Deep Tools"})
    key = re.sub(r"[^a-z0-9]+", "-", citation.lower())[:40].strip("-") or "reference"
    return Reference(key, "misc", {"title": citation})


def software_reference(version: str = __version__) -> Reference:
    """Return the entry of this program."""
    fields = {"author": "{The MRI Deep Tools contributors}", "title": "MRI Deep Tools", "version": version}
    return Reference(_OWN, "software", fields)


def bibtex(references: list[Reference]) -> str:
    """Return entries as one text, each once."""
    return "\n\n".join(item.bibtex for item in dict.fromkeys(references))
