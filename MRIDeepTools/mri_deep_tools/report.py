"""One-page HTML reports: blocks of text, pictures, tables and facts, in one file that opens without a network.

Any command composes a page from :class:`Text`, :class:`Picture`, :class:`Table` and :class:`KeyValues`, and adds the
provenance record, from which warnings, input geometry, method, citations, options, time and memory are written.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal

from . import __version__
from .errors import DependencyError, InputError
from .overlay import REPORT_HINT, label_colour, overlay_png
from .provenance import DISCLAIMER

__all__ = [
    "Cell",
    "Code",
    "Column",
    "KeyValues",
    "Level",
    "Part",
    "Picture",
    "Section",
    "Table",
    "Text",
    "label_colour",
    "overlay_png",
    "page_environment",
    "write_report",
]

Level = Literal["", "good", "doubtful", "bad"]
_MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


@dataclass(frozen=True)
class Text:
    """Paragraphs; a ``level`` of ``doubtful`` or ``bad`` makes a marked box of them."""

    kind: ClassVar[str] = "text"
    title: str
    paragraphs: Sequence[str]
    level: Level = ""


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG file that goes into the page, with a description for those who cannot see it."""

    kind: ClassVar[str] = "picture"
    title: str
    file: Path
    alt: str
    caption: str = ""

    @property
    def source(self) -> str:
        """The file as a data address."""
        media = _MEDIA.get(self.file.suffix.lower())
        if media is None:
            raise InputError(f"{self.file.name}: not a picture for a report", "give a PNG or JPEG file")
        try:
            data = self.file.read_bytes()
        except OSError as error:
            raise InputError(f"{self.file.name} cannot be read ({error.strerror})", "check the picture") from error
        return f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"


@dataclass(frozen=True)
class Column:
    """Heading of a table column; neighbours with the same ``group`` stand under one common heading."""

    name: str
    unit: str = ""
    group: str = ""
    digits: int | None = None
    """Decimals of numbers in this column; None marks a column of text."""


@dataclass(frozen=True)
class Cell:
    """A table cell with more than a value: a verdict, colour swatches (0-255), or a bar from -1 to 1 beside it."""

    value: str | float | None
    level: Level = ""
    colours: Sequence[tuple[int, int, int]] = ()
    bar: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows under headings; the first column names the row. Numbers may be plain or :class:`Cell`."""

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str | float | Cell | None]]
    caption: str = ""
    note: str = ""
    folded: bool = False
    """Long tables may start closed; they open with a click and are open in print."""

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings of the upper row with the number of columns under each; empty without groups."""
        if not any(column.group for column in self.columns):
            return []
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and column.group and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans

    @property
    def cells(self) -> list[list[Cell]]:
        """Rows as cells whose values are text ready to print."""
        return [[_printed(value, column) for value, column in zip(row, self.columns, strict=True)] for row in self.rows]


@dataclass(frozen=True)
class KeyValues:
    """Facts, one per line."""

    kind: ClassVar[str] = "facts"
    title: str
    items: Mapping[str, Any]
    note: str = ""
    folded: bool = False

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Names and printed values."""
        return [(name, _fact(value)) for name, value in self.items.items()]


@dataclass(frozen=True)
class Code:
    """Text to copy: a click marks all of it. ``prose`` sets it in the type of the page."""

    kind: ClassVar[str] = "code"
    title: str
    text: str
    note: str = ""
    prose: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Part:
    """The heading of a part of a page; what follows belongs to it, and is marked where it is synthetic."""

    kind: ClassVar[str] = "part"
    title: str
    synthetic: bool = False


Section = Text | Picture | Table | KeyValues | Code | Part


def write_report(
    path: str | Path,
    *,
    title: str,
    sections: Sequence[Section],
    record: Mapping[str, Any] | None = None,
    subtitle: str = "",
    show_names: bool = False,
    notes: Sequence[str] = (),
) -> Path:
    """Write a self-contained HTML page.

    Parameters
    ----------
    path :
        HTML file to write.
    title, subtitle :
        Heading; must not name a person.
    sections :
        The results, in order; warnings come before them, what the record tells comes after.
    record :
        What :func:`mri_deep_tools.provenance.make_record` gave.
    show_names :
        Print the names of input and output files; off, because they often name a person.
    notes :
        Warnings beside those of the record.

    Returns
    -------
    The path of the page, which loads nothing from anywhere.

    Raises
    ------
    DependencyError without jinja2; InputError for a missing picture; OutputError when the page cannot be written.

    """
    from .record_sections import hidden_names, record_sections
    from .volume import atomic_path

    record = record or {}
    page = (
        page_environment()
        .get_template("report.html")
        .render(
            title=title,
            subtitle=subtitle,
            version=__version__,
            disclaimer=DISCLAIMER,
            synthetic=bool(record.get("Synthetic", False)),
            warnings=hidden_names([*notes, *record.get("Warnings", ())], record, show_names),
            sections=[*sections, *record_sections(record, show_names=show_names)],
        )
    )
    path = Path(path)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def page_environment() -> Any:
    """Return the jinja2 environment of all pages, with the templates ``report.html``, ``blocks.html``, ``style.css``.

    A page of another kind can include ``style.css`` and import ``heading`` and ``body`` from ``blocks.html``.

    Raises
    ------
    DependencyError without jinja2.

    """
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ImportError as error:
        raise DependencyError("reports need jinja2", REPORT_HINT) from error

    def read(name: str) -> str:
        return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["linked"] = _linked
    return environment


def _fact(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_fact(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_fact(item) for item in value)
    return str(value)


def _printed(value: str | float | Cell | None, column: Column) -> Cell:
    """Return a cell whose value is text: numbers with the column's decimals and thin blanks between thousands."""
    cell = value if isinstance(value, Cell) else Cell(value)
    text = cell.value
    if text is None or text != text:
        text = "\N{EN DASH}"
    elif not isinstance(text, str):
        text = f"{text:,.{column.digits or 0}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
        text = text.replace("-", "\N{MINUS SIGN}")
    return Cell(text, cell.level, cell.colours, cell.bar)


def _linked(text: str) -> Any:
    """Return text as safe HTML in which every DOI and arXiv number is a link."""
    from markupsafe import Markup, escape

    pattern = re.compile(r"doi:?\s*(10\.\d{4,9}/[^\s,;]+?)(?=[.,;]?(?:\s|$))|arXiv:(\d{4}\.\d{4,5})", re.IGNORECASE)
    parts, end = [], 0
    for match in pattern.finditer(text):
        link = (
            'doi:<a href="https://doi.org/{0}">{0}</a>'
            if match[1]
            else '<a href="https://arxiv.org/abs/{0}">arXiv:{0}</a>'
        )
        parts += [escape(text[end : match.start()]), Markup(link).format(match[1] or match[2])]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])
