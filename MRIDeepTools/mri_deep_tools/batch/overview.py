"""The overview of a batch: one page with a picture per subject, to be sorted and filtered, without a network.

The rows stand in the page as data and a small script shows a hundred at a time, whose pictures the browser loads when
they come into view; so a page of many thousand subjects opens as fast as one of ten.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .. import __version__
from .plan import Request

__all__ = ["write_overview"]


def write_overview(
    path: Path,
    request: Request,
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    seconds: float,
    finished: int,
    tables: Sequence[Path],
) -> Path:
    """Write the page.

    Parameters
    ----------
    path : of the page; pictures are relative to its folder.
    request : what was asked for.
    rows : one per subject; ``_picture`` is the path of its picture.
    columns : what is shown, in order.
    seconds, finished : how long the last run took for how many subjects.
    tables : that hold the same, to be linked.

    Raises
    ------
    DependencyError : jinja2 is missing.
    OutputError : the page cannot be written.

    """
    from ..provenance import DISCLAIMER
    from ..report import page_environment
    from ..volume import atomic_path

    found = [dict(row) for row in rows]
    same = _taken_out(found)
    shown = [name for name in columns if name not in ("output", "message", "warning") and name.capitalize() not in same]
    shown.insert(shown.index("warnings") + 1, "remarks")
    data = {
        "columns": shown,
        "rows": [
            [*(row.get(name) for name in shown), row.get("_picture") or "", row.get("output") or ""] for row in found
        ],
    }
    text = (
        page_environment()
        .get_template("batch.html")
        .render(
            title=f"Batch: {request.task.name}",
            disclaimer=DISCLAIMER,
            version=__version__,
            facts={**_facts(request, found, seconds, finished), **same},
            tables=[table.name for table in tables],
            data=_embedded(data),
            total=len(found),
        )
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _taken_out(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Bring what all finished subjects have in common above the table; gives ``remarks`` to each row, in place.

    A remark is the sentence of a failure, or the warnings, one per line.
    """
    done = [row for row in rows if row["state"] == "done"]
    lists = [str(row["warning"]).split(" | ") if row.get("warning") else [] for row in done]
    common = [text for text in lists[0] if all(text in others for others in lists)] if len(lists) > 1 else []
    for row in rows:
        own = str(row["warning"]).split(" | ") if row.get("warning") else []
        left = [text for text in own if text not in common]
        row["remarks"] = "\n".join([*([str(row["message"])] if row.get("message") else []), *left])
        if "warnings" in row:
            row["warnings"] = len(left)
    same = {}
    for name in ("model", "device"):
        values = {row.get(name) for row in done}
        if len(values) == 1 and (value := values.pop()):
            same[name] = str(value)
    told = {name.capitalize(): value for name, value in same.items()}
    told |= {"In all subjects": ". ".join(common)} if common else {}
    for row in rows:
        for name in same:
            row.pop(name, None)
    return told


def _facts(request: Request, rows: Sequence[Mapping[str, Any]], seconds: float, finished: int) -> dict[str, str]:
    """Return what stands above the table."""
    states: dict[str, int] = {}
    for row in rows:
        states[str(row["state"])] = states.get(str(row["state"]), 0) + 1
    times = [float(row["seconds"]) for row in rows if row["state"] == "done"]
    facts = {"Subjects": ", ".join(f"{count} {state}" for state, count in sorted(states.items()))}
    if times:
        facts["Time per subject"] = f"median {median(times):.1f} s, longest {max(times):.1f} s"
    if finished and seconds > 0:
        count = f"{finished} subject{'s' if finished > 1 else ''}"
        facts["Last run"] = f"{count} in {_clock(seconds)}, {finished * 3600 / seconds:.0f} per hour"
    if request.task.picture == "pair":
        facts["Pictures"] = "above: the scan; below: what was made of it, computed and not measured (synthetic)"
    told = [_short(word) for word in request.options if word not in ("--device=auto", "--precision=auto")]
    facts["Options"] = " ".join([*told, *_extras(request)]) or "none"
    return facts


def _extras(request: Request) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name in request.extras]


def _short(word: str) -> str:
    """Return a word of the command line without folders: pages are passed on."""
    flag, mark, value = word.partition("=")
    return f"{flag}{mark}{Path(value).name if '/' in value or chr(92) in value else value}"


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def _embedded(data: Any) -> str:
    """Return JSON that is safe inside a script element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    marks = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    for mark, code in marks.items():
        text = text.replace(mark, code)
    return text
