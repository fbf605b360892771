"""One stream of progress events: a bar in a terminal, JSON lines for a graphical program, or a Python callback.

A JSON event is one line on standard output: the token ``@mri-deep-tools`` followed by a blank and one JSON object.
Its ``event`` field is one of ``stage``, ``progress``, ``device``, ``warning``, ``result``, ``error``; every other
line is ordinary log text. ``fraction`` is the share of the whole command that is done (0 to 1) and never falls;
``eta_s`` is the estimated time left in seconds, or null while nothing is known.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from .errors import MRIDeepToolsError

__all__ = ["EVENT_TOKEN", "Event", "Progress", "ProgressCallback", "bar_callback", "json_callback", "null_callback"]

EVENT_TOKEN = "@mri-deep-tools"  # nosec: a marker, not a secret

ProgressCallback = Callable[["Event"], None]


@dataclass(frozen=True)
class Event:
    """One thing that happened: its kind and its fields (JSON types only)."""

    event: str
    fields: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        """Give the fields as attributes: ``event.fraction``."""
        try:
            return self.__dict__["fields"][name]
        except KeyError:
            raise AttributeError(name) from None

    def to_json(self) -> str:
        """Return the event as one line of JSON."""
        return json.dumps({"event": self.event, **self.fields}, ensure_ascii=False, allow_nan=False)


def null_callback(event: Event) -> None:
    """Ignore the event."""


class Progress:
    """Turns stages with weights into one fraction, and times them.

    Parameters
    ----------
    callback : receives every :class:`Event`; an exception it raises ends the work (this is how a caller cancels).
    stages : (name, weight) pairs in the order in which they will run; weights are relative expected durations.

    """

    def __init__(
        self, callback: ProgressCallback | None = None, stages: Sequence[tuple[str, float]] = (("work", 1.0),)
    ) -> None:
        self._callback = callback or null_callback
        self.seconds: dict[str, float] = {}
        self.warnings: list[str] = []
        self._start = time.monotonic()
        self._last_fraction = 0.0
        self._last_sent = 0.0
        self._items = (0, 1)
        self.plan(stages)

    def plan(self, stages: Sequence[tuple[str, float]]) -> None:
        """Replace the planned stages; the fraction starts again from what was reached within this item."""
        total = sum(weight for _, weight in stages) or 1.0
        self._spans: dict[str, tuple[float, float]] = {}
        begin = 0.0
        for name, weight in stages:
            self._spans[name] = (begin / total, weight / total)
            begin += weight
        self._current = (0.0, 1.0)
        self._stage = ""

    def item(self, index: int, count: int) -> None:
        """Say that item ``index`` (from 0) of ``count`` equal items begins; stages then fill that item's share."""
        self._items = (index, max(count, 1))

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """Time a stage and announce its begin and end."""
        self._stage, self._current = name, self._spans.get(name, (self._current[0] + self._current[1], 0.0))
        begin = time.monotonic()
        self._emit("stage", stage=name)
        self.update(0.0, force=True)
        try:
            yield self
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begin
        self.update(1.0, force=True)

    def update(self, done: float, *, force: bool = False) -> None:
        """Report the share (0 to 1) of the current stage that is done; sent at most ten times a second."""
        begin, width = self._current
        index, count = self._items
        fraction = (index + begin + width * min(max(done, 0.0), 1.0)) / count
        fraction = self._last_fraction = max(self._last_fraction, min(fraction, 1.0))
        now = time.monotonic()
        if not force and now - self._last_sent < 0.1:
            return
        self._last_sent = now
        elapsed = now - self._start
        eta = elapsed * (1 - fraction) / fraction if fraction > 0.02 and elapsed > 1 else None
        self._emit(
            "progress",
            stage=self._stage,
            fraction=round(fraction, 4),
            eta_s=None if eta is None else round(eta, 1),
            elapsed_s=round(elapsed, 1),
        )

    def tell(self, stage: str, fraction: float, eta_s: float | None, elapsed_s: float, **fields: Any) -> None:
        """Report a share of the whole that someone else has counted, with the seconds that are left and that passed."""
        self._stage, self._last_sent = stage, time.monotonic()
        self._last_fraction = max(self._last_fraction, min(max(fraction, 0.0), 1.0))
        self._emit(
            "progress",
            stage=stage,
            fraction=round(self._last_fraction, 6),
            eta_s=None if eta_s is None else round(eta_s, 1),
            elapsed_s=round(elapsed_s, 1),
            **fields,
        )

    def device(self, name: str, **details: Any) -> None:
        """Say on which device the work runs, with threads, precision and memory figures as ``details``."""
        self._emit("device", device=name, **details)

    def warn(self, message: str) -> None:
        """Pass on a warning and keep it for the sidecar; the same text is sent once."""
        message = " ".join(message.split())
        if message not in self.warnings:
            self.warnings.append(message)
            self._emit("warning", message=message)

    def result(self, **fields: Any) -> None:
        """Announce what was made (output files and key figures)."""
        self._emit("result", **fields)

    def error(self, error: BaseException) -> None:
        """Announce why the work ended."""
        if isinstance(error, MRIDeepToolsError):
            self._emit("error", code=error.code, message=error.message, hint=error.hint)
        else:
            self._emit("error", code="internal", message=f"{type(error).__name__}: {error}", hint="report this")

    def _emit(self, kind: str, **fields: Any) -> None:
        self._callback(Event(kind, fields))


def json_callback(stream: TextIO | None = None) -> ProgressCallback:
    """Return a callback that writes one token-marked JSON line per event to ``stream`` (standard output)."""

    def callback(event: Event) -> None:
        out = stream or sys.stdout
        out.write(f"{EVENT_TOKEN} {event.to_json()}\n")
        out.flush()

    return callback


def bar_callback(stream: TextIO | None = None, *, quiet: bool = False) -> ProgressCallback:
    """Return a callback that draws a tqdm bar on ``stream`` (standard error) and prints warnings above it."""
    from tqdm import tqdm

    out = stream or sys.stderr
    bar: Any = None

    def callback(event: Event) -> None:
        nonlocal bar
        if event.event in ("warning", "device"):
            text = f"Warning: {event.message}" if event.event == "warning" else _device_line(event)
            if event.event == "warning" or not quiet:
                tqdm.write(text, file=out)
        elif event.event == "progress" and not quiet:
            if bar is None:
                form = "{desc:<24.24}{percentage:3.0f}% |{bar}| {elapsed}<{remaining}"
                bar = tqdm(total=1.0, file=out, bar_format=form, leave=True, disable=None)
            bar.set_description_str(str(event.stage), refresh=False)
            bar.n = event.fraction
            bar.refresh()
        elif event.event in ("result", "error") and bar is not None:
            bar.close()
            bar = None

    return callback


def _device_line(event: Event) -> str:
    extras = ", ".join(f"{key} {value}" for key, value in event.fields.items() if key != "device" and value is not None)
    return f"Device: {event.device}" + (f" ({extras})" if extras else "")
