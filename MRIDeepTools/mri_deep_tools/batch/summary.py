"""The tables of a batch: one row per subject with state, time, warnings and figures, and what was measured.

``batch.tsv`` (or ``.csv``) holds what tells whether a result is good; ``batch_measures.tsv`` holds the measurements
(volumes in mm^3 and the like) where there are more than a few. Both are made from the records on disk, so that they
are the same whichever run did which subject.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .jobs import Figure, Job, Outcome
from .plan import Request
from .state import State

__all__ = ["MEASURES_INSIDE", "OWN_COLUMNS", "rows_of", "write_summary"]

MEASURES_INSIDE = 6
"""Up to so many measurements stand in the summary itself."""

_FIRST = ("state", "seconds", "warnings")
_LAST = ("warning", "message", "model", "device", "output", "finished", "worker")
OWN_COLUMNS = frozenset({"id", "participant", "session", *_FIRST, *_LAST})
"""Columns of the summary that are not the subjects' own."""

Row = dict[str, Figure]
_NOT_YET = "not done"


def write_summary(
    state: State, request: Request, jobs: Sequence[Job], seconds: float, finished: int, delimiter: str
) -> list[Path]:
    """Write the tables and the overview; return their paths.

    Parameters
    ----------
    state : records of the batch.
    request, jobs : what was asked for.
    seconds, finished : how long this run took for how many subjects.
    delimiter : of the tables: a tab or a comma.

    """
    from .overview import write_overview

    suffix = "csv" if delimiter == "," else "tsv"
    columns, measures = _columns(state, jobs)
    inside = measures if len(measures) <= MEASURES_INSIDE else []
    paths = [request.folder / f"batch.{suffix}"]
    _write(paths[0], [*columns, *inside], rows_of(state, jobs, inside), delimiter)
    if len(measures) > len(inside):
        paths.append(request.folder / f"batch_measures.{suffix}")
        header = ["id", *measures]
        _write(paths[1], header, _measured(state, jobs), delimiter)
    paths.append(request.folder / "batch.html")
    shown = [name for name in [*columns, *inside] if name not in ("worker", "outputs", "finished")]
    write_overview(paths[-1], request, rows_of(state, jobs, inside), shown, seconds, finished, paths[:-1])
    return paths


def rows_of(state: State, jobs: Sequence[Job], measures: Sequence[str] = ()) -> Iterator[Row]:
    """Yield the summary row of each job, in their order, with the picture under ``_picture``."""
    for job in jobs:
        outcome = state.outcome(job.id)
        known = dict(job.extra.get("columns", {}))
        if outcome is None:
            yield {"id": job.id, "state": _NOT_YET, **known}
            continue
        warnings = list(outcome.warnings)
        yield {
            "id": job.id,
            **known,
            "state": outcome.state,
            "seconds": round(outcome.seconds, 2),
            "warnings": len(warnings),
            "warning": " | ".join(warnings),
            "message": outcome.message,
            **{name: _rounded(value) for name, value in outcome.qc.items()},
            **{name: _rounded(value) for name, value in outcome.measures.items() if name in measures},
            "model": outcome.model,
            "device": outcome.device,
            "output": outcome.outputs[0] if outcome.outputs else "",
            "finished": outcome.finished,
            "worker": outcome.worker,
            "_picture": outcome.picture,
        }


def _columns(state: State, jobs: Sequence[Job]) -> tuple[list[str], list[str]]:
    """Return the columns of the summary that some subject fills, and the names of all measurements."""
    known: dict[str, None] = {}
    qc: dict[str, None] = {}
    measures: dict[str, None] = {}
    for job in jobs:
        known.update(dict.fromkeys(job.extra.get("columns", {})))
        outcome: Outcome | None = state.outcome(job.id)
        if outcome is not None:
            qc.update(dict.fromkeys(outcome.qc))
            measures.update(dict.fromkeys(outcome.measures))
    first = ["id", *known, *_FIRST]
    last = list(_LAST)
    return [*first, *(name for name in qc if name not in (*first, *last)), *last], list(measures)


def _measured(state: State, jobs: Sequence[Job]) -> Iterator[Row]:
    for job in jobs:
        outcome = state.outcome(job.id)
        if outcome is not None and outcome.state == "done":
            yield {"id": job.id, **{name: _rounded(value) for name, value in outcome.measures.items()}}


def _write(path: Path, header: Sequence[str], rows: Iterator[Row], delimiter: str) -> None:
    from ..volume import atomic_path

    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([_cell(row, name, delimiter) for name in header])


def _cell(row: Mapping[str, Any], name: str, delimiter: str) -> str:
    """Return the text of a cell; TSV has ``n/a`` for what is not known, as BIDS wants it, and no line breaks."""
    value = row.get(name)
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split())
    return text if text or delimiter == "," else "n/a"


def _rounded(value: Figure) -> Figure:
    """Return a number with six significant digits."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
