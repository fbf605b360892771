"""The label list of a model of one's own: a table (CSV, TSV) or a plain list (``.npy``) of codes.

As in the published program (Billot et al., Medical Image Analysis 86, 2023, 102789), channel c of the network is the
c-th smallest different code of the list, whatever the order of the rows; where a code stands in several rows, the
first one gives its name and class.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, RequestError
from .labels import swap_table
from .scores import structure_name

__all__ = ["MOST_LABELS", "LabelTable", "read_label_table"]

MOST_LABELS = 256  # channels that are told apart where labels are chosen

_SIDES = {"": "neutral", "neutral": "neutral", "n/a": "neutral", "left": "left", "right": "right"}
_HINT = "give columns label, name and, where they matter, side (neutral, left, right) and topological_class"


@dataclass(frozen=True)
class LabelTable:
    """What the output channels of a network mean, in the order of the channels.

    Attributes
    ----------
    codes : label codes, ascending; the first is 0, background.
    names : one name per channel, all different.
    sides : neutral, left or right per channel, or None where the list does not say.
    mirror : for each channel the one of the same structure on the other side, or None without sides.
    classes : topological class per channel (0 = left alone), or None where the list has none.

    """

    codes: tuple[int, ...]
    names: tuple[str, ...]
    sides: tuple[str, ...] | None = None
    mirror: tuple[int, ...] | None = None
    classes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class _Row:
    code: int
    name: str
    side: str | None
    topology: int | None


def read_label_table(path: str | Path, *, neutral: int | None = None) -> LabelTable:
    """Read the label list of a model.

    Parameters
    ----------
    path : ``.csv`` (commas or semicolons) or ``.tsv`` with the columns ``label``, ``name`` (optional), ``side``
        (optional; the k-th left row pairs with the k-th right row) and ``topological_class`` (optional); or ``.npy``
        with the codes, ordered neutral, left, right when there are sides.
    neutral : how many codes of a ``.npy`` list have no side; without it nothing is known of sides.

    Raises
    ------
    InputError : missing, of another form, without background, or with sides that do not pair.
    RequestError : another suffix, or ``neutral`` where it does not belong.

    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".npy"):
        raise RequestError(f"the label table {path.name} is not .csv, .tsv or .npy", _HINT)
    if not path.is_file():
        raise InputError(f"the label table {path.name} does not exist", "check the path")
    if suffix == ".npy":
        return _table(_listed(path, neutral), path.name)
    if neutral is not None:
        message = f"the number of neutral labels was given, but {path.name} is a table"
        raise RequestError(message, "leave it out and write a column side")
    return _table(_tabled(path), path.name)


def _listed(path: Path, neutral: int | None) -> list[_Row]:
    """Return the rows of a ``.npy`` list."""
    import numpy as np

    try:
        codes = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise InputError(f"{path.name} is not a NumPy array file", "save it with numpy.save") from None
    if not isinstance(codes, np.ndarray) or codes.ndim != 1 or codes.dtype.kind not in "iuf" or (codes % 1).any():
        raise InputError(f"{path.name} does not hold a list of whole numbers", "save a 1-D array of label codes")
    values = [int(code) for code in codes]
    if neutral is None:
        return [_Row(code, "", None, None) for code in values]
    sided = len(values) - neutral
    if sided < 0 or sided % 2:
        message = f"{path.name} lists {len(values)} labels, which {neutral} neutral ones leave no two equal sides"
        raise InputError(message, "give the number of labels without a side")
    sides = ["neutral"] * neutral + ["left"] * (sided // 2) + ["right"] * (sided // 2)
    return [_Row(code, "", side, None) for code, side in zip(values, sides, strict=True)]


def _tabled(path: Path) -> list[_Row]:
    """Return the rows of a CSV or TSV table."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path.name} cannot be read as text", "save the table as CSV in UTF-8") from None
    lines = [line for line in text.splitlines() if line.strip()]
    head = lines[0] if lines else ""
    reader = csv.DictReader(lines, delimiter=max("\t;,", key=head.count), skipinitialspace=True)
    columns = {str(name).strip().lower(): name for name in reader.fieldnames or ()}
    if "label" not in columns:
        raise InputError(f"{path.name} has no column named label", _HINT)
    rows = []
    for number, raw in enumerate(reader, start=2):
        cells = {name: (raw.get(key) or "").strip() for name, key in columns.items()}
        where = f"{path.name}, row {number}"
        side = cells["side"].lower() if "side" in cells else None
        if side is not None and side not in _SIDES:
            raise InputError(f"{where}: {cells['side']!r} is no side", "write neutral, left or right")
        rows.append(
            _Row(
                _whole(cells["label"], where),
                cells.get("name", ""),
                None if side is None else _SIDES[side],
                _whole(cells["topological_class"] or "0", where) if "topological_class" in cells else None,
            )
        )
    return rows


def _whole(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(
            f"{where}: {text!r} is not a whole number", "label codes and classes are whole numbers"
        ) from None


def _table(rows: Sequence[_Row], name: str) -> LabelTable:
    """Sort the rows into channels, and check that they make sense together."""
    first: dict[int, _Row] = {}
    for row in rows:
        first.setdefault(row.code, row)
    codes = tuple(sorted(first))
    if not codes or codes[0] != 0:
        what = f"the label {codes[0]}, below 0" if codes and codes[0] < 0 else "no label 0, the background"
        raise InputError(f"{name} has {what}", "list every label of the network, background (0) among them")
    if not 2 <= len(codes) <= MOST_LABELS:
        raise InputError(f"{name} has {len(codes)} labels", f"from 2 to {MOST_LABELS} can be told apart")
    names = tuple(first[code].name or structure_name(code) for code in codes)
    twice = [text for text in names if names.count(text) > 1]
    if twice:
        raise InputError(f"{name} gives two labels the name {twice[0]!r}", "give every label a name of its own")
    if any((first[code].topology or 0) < 0 for code in codes):
        raise InputError(f"{name} has a topological class below 0", "use 0 for labels that are left alone")
    sided = rows[0].side is not None
    return LabelTable(
        codes,
        names,
        tuple(str(first[code].side) for code in codes) if sided else None,
        _mirror(rows, codes, name) if sided else None,
        tuple(int(first[code].topology or 0) for code in codes) if rows[0].topology is not None else None,
    )


def _mirror(rows: Sequence[_Row], codes: Sequence[int], name: str) -> tuple[int, ...]:
    """Return the channel of the other side for each channel; the k-th left row belongs to the k-th right one."""
    neutral, left, right = ([row for row in rows if row.side == side] for side in ("neutral", "left", "right"))
    hint = "list as many right as left structures, in the same order"
    if len(left) != len(right):
        raise InputError(f"{name} has {len(left)} left and {len(right)} right labels", hint)
    for a, b in zip(left, right, strict=True):
        plain = [row.name.lower().replace(side, "", 1) for row, side in ((a, "left"), (b, "right"))]
        named = "left" in a.name.lower() and "right" in b.name.lower()
        if named and plain[0] != plain[1]:
            raise InputError(f"{name} pairs {a.name!r} with {b.name!r}", hint)
    table = swap_table([row.code for row in (*neutral, *left, *right)], len(neutral))
    order = tuple(codes.index(table[code]) for code in codes)
    if any(order[other] != index for index, other in enumerate(order)):
        raise InputError(f"the sides in {name} do not pair each label with one other", hint)
    return order
