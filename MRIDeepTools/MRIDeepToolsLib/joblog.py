"""What a child process prints: reader threads that never wait for the GUI, a capped log, and the events in between.

The core marks an event by a token at the beginning of a line of standard output, followed by one JSON object. Every
other line of both outputs is log text. Reading goes on in threads whatever the main thread does, so a program that
prints much is never held up, and memory stays bounded: the log keeps its beginning and its end.
"""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from collections.abc import Callable
from typing import IO, Any

__all__ = ["EVENT_TOKEN", "LOG_LIMIT", "LogBuffer", "OutputReader"]

EVENT_TOKEN = "@mri-deep-tools "
LOG_LIMIT = 256 * 1024
"""Most characters that a log holds."""

_LINE_LIMIT = 1 << 20  # bytes; a longer line is read in pieces
_LOG_LINE = 4000  # characters of one line that the log keeps
_CHUNK = 32 * 1024  # characters given to the GUI at once
_OUTPUT_LIMIT = 8 << 20  # characters of plain output that are kept for a program without events
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class LogBuffer:
    """Lines of text; of more than ``limit`` characters the beginning and the end are kept."""

    def __init__(self, limit: int = LOG_LIMIT) -> None:
        self._lock = threading.Lock()
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._head_room, self._tail_room = limit // 4, limit - limit // 4 - 100
        self._left_out = 0
        self._new: deque[str] = deque()
        self._new_size = self._new_left_out = 0

    def append(self, line: str) -> None:
        """Add one line, without its line end."""
        line = line[:_LOG_LINE]
        with self._lock:
            self._keep(line)
            self._new.append(line)
            self._new_size += len(line) + 1
            while self._new_size > _CHUNK:
                self._new_size -= len(self._new.popleft()) + 1
                self._new_left_out += 1

    def _keep(self, line: str) -> None:
        size = len(line) + 1
        if not self._tail and size <= self._head_room:
            self._head.append(line)
            self._head_room -= size
            return
        self._tail.append(line)
        self._tail_room -= size
        while self._tail_room < 0:
            self._tail_room += len(self._tail.popleft()) + 1
            self._left_out += 1

    def take_new(self) -> str:
        """Return the lines since the last call, the newest where there were too many; empty when there were none."""
        with self._lock:
            lines, left_out = list(self._new), self._new_left_out
            self._new.clear()
            self._new_size = self._new_left_out = 0
        return "\n".join(([f"[... {left_out} lines ...]"] if left_out else []) + lines)

    @property
    def text(self) -> str:
        """The whole log as far as it is kept."""
        with self._lock:
            gap = [f"[... {self._left_out} lines left out ...]"] if self._left_out else []
            return "\n".join([*self._head, *gap, *self._tail])

    def last_lines(self, count: int) -> list[str]:
        """Return the last lines that are not blank."""
        with self._lock:
            lines = [*self._head[-4 * count :], *list(self._tail)[-4 * count :]]
        return [line for line in lines if line.strip()][-count:]


class OutputReader:
    """Reads the outputs of a process in threads.

    Parameters
    ----------
    outputs : (pipe, is standard output) pairs.
    log : receives the text lines.
    events : True to look for events in standard output; False to keep its plain text in :attr:`output`.
    clean : applied to each line of the log, to take private parts out.

    """

    def __init__(
        self, outputs: list[tuple[IO[bytes], bool]], log: LogBuffer, *, events: bool, clean: Callable[[str], str]
    ) -> None:
        self.log, self._look_for_events, self._clean = log, events, clean
        self._lock = threading.Lock()
        self._events: list[dict[str, Any]] = []
        self._output: list[str] = []
        self._output_room = _OUTPUT_LIMIT
        self.activity = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=pair, daemon=True) for pair in outputs]
        for thread in self._threads:
            thread.start()

    @property
    def at_end(self) -> bool:
        """True when both outputs have been read to their end."""
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def output(self) -> str:
        """Plain standard output of a program without events."""
        with self._lock:
            return "".join(self._output)

    def take_events(self) -> list[dict[str, Any]]:
        """Return the events since the last call, in order; of consecutive progress events only the last."""
        self.activity.clear()
        with self._lock:
            events, self._events = self._events, []
        return events

    def _read(self, pipe: IO[bytes], standard: bool) -> None:
        try:
            for line in iter(lambda: pipe.readline(_LINE_LIMIT), b""):
                self._take(line.decode("utf-8", "replace"), standard)
        except (OSError, ValueError):  # the pipe was closed under us
            return
        finally:
            self.activity.set()
            pipe.close()

    def _take(self, line: str, standard: bool) -> None:
        event = None
        if standard and not self._look_for_events:
            self._keep_output(line)
            return
        if standard and line.startswith(EVENT_TOKEN):
            event = _parse(line[len(EVENT_TOKEN) :])
        if event is None:
            text = _ESCAPES.sub("", line.rstrip("\r\n").rpartition("\r")[2])
            self.log.append(self._clean(text))
            return
        with self._lock:
            if self._events and self._events[-1]["event"] == event["event"] == "progress":
                self._events[-1] = event
            else:
                self._events.append(event)
        self.activity.set()

    def _keep_output(self, line: str) -> None:
        with self._lock:
            if self._output_room > 0:
                self._output.append(line)
                self._output_room -= len(line)


def _parse(text: str) -> dict[str, Any] | None:
    """Return the event of a line, or None for text that is none."""
    try:
        event = json.loads(text)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
