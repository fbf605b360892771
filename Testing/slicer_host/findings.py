"""What went wrong while nobody was looking: exceptions in slots, observers and timers, failed connects, VTK errors.

Qt and VTK print such faults and go on, so a module can look healthy while half of it does nothing. The host writes each
one down here; a test that ends with a finding has failed.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


class Findings(list):
    """A list of sentences, oldest first."""

    def record(self, text: str) -> None:
        """Add one finding and print it, so that it also stands in the output of the test."""
        self.append(text)
        print(f"[slicer_host] {text}", file=sys.stderr)

    def record_exception(self, where: str, error: BaseException) -> None:
        """Add an exception that was swallowed in *where*, with the line it came from, and print its traceback."""
        traceback.print_exception(type(error), error, error.__traceback__)
        frames = traceback.extract_tb(error.__traceback__)
        line = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        self.record(f"exception in {where}: {type(error).__name__}: {error}{line}")

    @contextlib.contextmanager
    def expected(self, pattern: str) -> Iterator[None]:
        """Require at least one finding that matches the regular expression, and forget those that do.

        Raises:
            AssertionError: nothing matched inside the block.
        """
        start = len(self)
        yield
        new = self[start:]
        matching = [text for text in new if re.search(pattern, text)]
        if not matching:
            raise AssertionError(f"expected a finding like {pattern!r}, got {new}")
        self[start:] = [text for text in new if text not in matching]


#: The one list of the process: Qt, VTK and Python report to it wherever the fault happens.
findings = Findings()
_output_window: list[Any] = []


def install_hooks() -> None:
    """Send uncaught exceptions of the interpreter, of threads and the errors of VTK to the findings."""
    sys.excepthook = _exception_hook
    threading.excepthook = _thread_hook
    _observe_vtk()


def _exception_hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, (KeyboardInterrupt, SystemExit)):
        sys.__excepthook__(kind, error, trace)
        return
    findings.record_exception("an observer, slot or timer", error.with_traceback(trace))


def _thread_hook(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        findings.record_exception(f"thread {arguments.thread and arguments.thread.name}", arguments.exc_value)


# Said by VTK and Qt themselves on machines without a display; no module can help it.
_HARMLESS = ("bad X server connection", "Could not find a decent config", "does not support propagateSizeHints")


def quiet_qt() -> None:
    """Print Qt's messages as Qt does, but for the ones of the offscreen platform that say nothing about a module."""
    from PySide6 import QtCore

    def show(kind: Any, context: Any, text: str) -> None:
        if not any(harmless in text for harmless in _HARMLESS):
            print(f"Qt: {text}", file=sys.stderr)

    QtCore.qInstallMessageHandler(show)
    _output_window.append(show)


def _observe_vtk() -> None:
    import vtk

    window = vtk.vtkOutputWindow()
    vtk.vtkOutputWindow.SetInstance(window)

    @vtk.calldata_type(vtk.VTK_STRING)
    def on_message(caller: Any, event: str, text: str) -> None:
        message = " ".join(str(text).split())
        if not any(harmless in message for harmless in _HARMLESS):
            findings.append(f"VTK error: {message}")

    window.AddObserver("ErrorEvent", on_message)
    # The window and the function live as long as the process, like VTK's own.
    _output_window.extend((window, on_message))
