"""Files of one result: checked before the work starts, and put in place together when it is done, or not at all."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from ..errors import RequestError

__all__ = ["OutputSet", "check_outputs"]


def check_outputs(outputs: Sequence[Path], inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse, before any work, outputs that are named twice, would replace an input, exist, or cannot be written.

    With ``overwrite``, results of an earlier run are deleted here: should this run fail, none can be taken for new.

    Raises
    ------
    RequestError : two outputs, or an output and an input (or the sidecar of one), are the same file, or a suffix cannot
        be written.
    OutputError : an output exists (without ``overwrite``), or its place cannot be written to.

    """
    from ..provenance import sidecar_path
    from ..volume import check_output_path, remove_stale

    inputs = list(inputs)
    sources = {_key(path) for path in inputs}
    records = {_key(sidecar_path(path)): path.name for path in inputs if path.name}  # "." has none
    seen: set[str] = set()
    for path in outputs:
        key = _key(path)
        if key in sources:
            raise RequestError(f"the output {path.name} would replace an input", "choose another name")
        if key in records and path.exists():
            raise RequestError(
                f"the output {path.name} would replace the sidecar of the input {records[key]}", "choose another name"
            )
        if key in seen:
            raise RequestError(f"two outputs have the same name, {path.name}", "give each its own")
        seen.add(key)
        check_output_path(path, overwrite)
    remove_stale(*outputs)


class OutputSet:
    """Context in which files are written under temporary names; they get their own names together at the end.

    ::

        with OutputSet() as files:
            write_volume(labels, files.path(Path("labels.nii.gz")))
            write_rows(files.path(Path("volumes.csv")), rows)

    When the work inside ends with an error, none of them appears. The renaming at the end is not interrupted by
    Ctrl-C or SIGTERM; such a signal takes effect afterwards, when ``on_complete`` has been called.
    """

    def __init__(self, on_complete: Callable[[], None] | None = None) -> None:
        self._stack = ExitStack()
        self._on_complete = on_complete

    def __enter__(self) -> OutputSet:
        """Begin; nothing is written yet."""
        return self

    def path(self, final: Path) -> Path:
        """Return the temporary path, in the same folder and with the same suffix, that will become ``final``.

        Raises
        ------
        OutputError : the folder cannot be made or written to.

        """
        from ..volume import atomic_path

        return self._stack.enter_context(atomic_path(final))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Rename all files, or remove all temporary ones."""
        with _uninterrupted():
            self._stack.__exit__(kind, error, trace)
            if kind is None and self._on_complete:
                self._on_complete()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C, SIGTERM and SIGHUP during a short step; deliver the last one afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    numbers = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        signal.raise_signal(held[-1])


def _key(path: Path) -> str:
    """Return what is equal for two names of one file."""
    return os.path.normcase(os.path.realpath(path))
