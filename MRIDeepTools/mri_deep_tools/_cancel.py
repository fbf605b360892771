"""Cancelling from outside where signals do not reach: a cancel file, and the end of the program that started us.

A graphical program starts a command with ``MRI_DEEP_TOOLS_CANCEL_FILE=PATH`` and creates that file to cancel it
(Windows has no polite signal, and launchers such as PythonSlicer do not pass signals on). With
``MRI_DEEP_TOOLS_PARENT_PID=N`` the command also ends when process N is gone: a crashed program leaves nothing running.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["watch_for_cancel"]

INTERVAL_S = 0.2
AGAIN_S = 5.0


@contextmanager
def watch_for_cancel() -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread when one of the two conditions of the environment comes true."""
    asked = _conditions()
    if not asked or threading.current_thread() is not threading.main_thread():
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(INTERVAL_S):
            if any(condition() for condition in asked):
                # SIGTERM, since a command that was started in the background may have to ignore SIGINT. Again after a
                # while, since Python drops an exception that a signal raises inside a finaliser.
                _thread.interrupt_main(signal.SIGTERM)
                ended.wait(AGAIN_S)

    thread = threading.Thread(target=watch, name="watch-for-cancel", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _conditions() -> list[Callable[[], bool]]:
    conditions: list[Callable[[], bool]] = []
    file = os.environ.get("MRI_DEEP_TOOLS_CANCEL_FILE", "")
    if file:
        conditions.append(Path(file).exists)
    parent = os.environ.get("MRI_DEEP_TOOLS_PARENT_PID", "")
    if parent.isdigit():
        number = int(parent)
        conditions.append(lambda: not _is_alive(number))
    return conditions


def _is_alive(number: int) -> bool:
    if sys.platform == "win32":  # os.kill would end the process there
        return _is_alive_on_windows(number)
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_alive_on_windows(number: int) -> bool:
    import ctypes

    synchronize, timeout = 0x00100000, 0x102
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    handle = kernel.OpenProcess(synchronize, False, number)
    if not handle:
        return False
    try:
        return bool(kernel.WaitForSingleObject(handle, 0) == timeout)
    finally:
        kernel.CloseHandle(handle)
