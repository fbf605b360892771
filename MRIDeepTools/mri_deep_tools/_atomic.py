"""Files appear whole or not at all: a temporary name in the same folder, flushed to the disk, then renamed.

Temporary names are ``.mdt-<machine>-<process>-<token><suffix>``. One that is left over by a process that was killed is
removed the next time something is written into its folder from the same machine.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ._formats import SUFFIXES, split_suffix
from .errors import MRIDeepToolsError, OutputError, RequestError

SIDE_SUFFIXES = (
    ".csv",
    ".tsv",
    ".json",
    ".html",
    ".png",
    ".svg",
    ".pdf",
    ".txt",
    ".md",
    ".npy",
    ".yaml",
    ".toml",
    ".bval",
    ".bvec",
    ".b",
    ".tfm",
    ".tif",
    ".tiff",
    ".bmp",
    ".hdf5",
    ".mat",
    ".zip",
)
"""Suffixes of results that are not images."""

_WEIGHT_SUFFIXES = (".h5", ".safetensors", ".ckpt", ".pt", ".pth")
_TEMPORARY = re.compile(r"^\.mdt-(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}")
_WRITE_ERRORS = {
    errno.ENOSPC: ("the disk is full", "free some space or write to another place"),
    errno.EDQUOT: ("your disk quota is used up", "free some space or write to another place"),
    errno.EFBIG: ("the file is larger than this disk or account allows", "write to another place"),
    errno.EROFS: ("the disk is read-only", "write to another place"),
    errno.EACCES: ("permission denied, or it is open in another program", "close it there or write to another place"),
    errno.EPERM: ("permission denied, or it is open in another program", "close it there or write to another place"),
    errno.ENOTDIR: ("its folder is not a folder", "check the path"),
    errno.ENOENT: ("its folder does not exist", "check the path"),
    errno.ENAMETOOLONG: ("its name is too long", "choose a shorter name"),
    errno.EIO: ("the disk reports an error", "check the disk or write to another place"),
}
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_active: dict[Path, Path] = {}  # temporary path -> the path that it will become, for this process


@contextmanager
def atomic_path(path: str | Path, *, suffix: str | None = None) -> Iterator[Path]:
    """Give a temporary path in the folder of ``path`` that becomes ``path`` when the block ends without an error.

    Missing folders are made. When the block fails, the temporary file is removed, so are folders that were made and are
    empty, and a file that was at ``path`` before stays. Blocks may be nested: for a path that is itself temporary that
    very path is given, and the outer block renames.

    Parameters
    ----------
    path : where the file is to be.
    suffix : end of the temporary name, for libraries that choose the format by it; that of ``path`` if None.

    Raises
    ------
    OutputError : the folder cannot be made or written to, the disk is full, or the target cannot be replaced.

    """
    path = Path(path)
    own = split_suffix(path)[1] or path.suffix
    if path in _active and suffix in (None, own):
        yield path
        return
    temporary = path.parent / _temporary_name(own if suffix is None else suffix)
    _active[temporary] = _active.get(path, path)  # before it exists, or another thread would take it for left over
    above = path.absolute().parents
    missing = [folder for folder in above if not os.path.exists(folder)]  # noqa: PTH110 (never raises)
    try:
        _begin(temporary)
    except OSError as error:
        raised = output_error(path, error)
        del _active[temporary]
        _remove_empty(missing)
        raise raised from error
    try:
        yield temporary
        _publish(temporary, path)
    except OSError as error:
        if isinstance(error, MRIDeepToolsError) or not _is_about(error, temporary):
            raise
        raise output_error(path, error) from error
    finally:
        _active.pop(temporary, None)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _remove_empty(missing)


def _begin(temporary: Path) -> None:
    """Make a temporary file and its folder, once more where a writer that failed took the empty folder away."""
    for last in (False, True):
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(temporary.parent)
            with temporary.open("xb"):
                return
        except FileNotFoundError:
            if last:
                raise


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, until one holds something."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _is_about(error: OSError, temporary: Path) -> bool:
    """Say whether an error comes from writing the temporary file, and not from some other file the block works on."""
    return error.errno in _DISK_ERRORS or str(error.filename) == str(temporary)


def _publish(temporary: Path, path: Path) -> None:
    """Bring the content to the disk, then give it its name, then bring the name to the disk."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    if os.name != "posix":
        return
    with suppress(OSError):
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def output_error(path: Path, error: OSError) -> OutputError:
    """Return the error for a result that the system does not let us write."""
    why, hint = _WRITE_ERRORS.get(error.errno or 0, (str(error.strerror or error), "write to another place"))
    return OutputError(f"{final_name(path)} cannot be written: {why}", hint)


def final_name(path: Path) -> str:
    """Return the file name of a result, also when ``path`` is its temporary path."""
    return _active.get(path, path).name


def check_output_path(path: str | Path, overwrite: bool = True, suffixes: Sequence[str] | None = None) -> None:
    """Check before the work that a result can be written; nothing is left behind.

    Parameters
    ----------
    path : file to be written; missing folders above it are accepted where they can be made.
    overwrite : whether an existing file may be replaced.
    suffixes : allowed ends of the name; None for those of images, tables, pictures and weights.

    Raises
    ------
    RequestError : the file exists and may not be replaced, is a folder, or ends in no suffix that can be written.
    OutputError : the place cannot be written to.

    """
    path = Path(path)
    allowed = (*SUFFIXES, *SIDE_SUFFIXES, *_WEIGHT_SUFFIXES) if suffixes is None else tuple(suffixes)
    if not path.name.lower().endswith(allowed):
        known = ", ".join(SUFFIXES if suffixes is None else allowed)
        raise RequestError(f"{path.name} does not end in a suffix that can be written", f"use one of {known}")
    try:
        if path.is_dir():
            raise RequestError(f"{path.name} is a folder", "name a file")
        if path.exists() and not overwrite:
            raise RequestError(f"{path.name} exists already", "choose another name or allow overwriting (--overwrite)")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        probe = folder / _temporary_name("")
        with probe.open("xb"):
            pass
        probe.unlink()
    except MRIDeepToolsError:
        raise
    except OSError as error:
        raise output_error(path, error) from error


def remove_stale(*paths: str | Path) -> None:
    """Delete results of an earlier run, so that none can be taken for new if the work fails; absent ones are fine.

    Raises
    ------
    OutputError : a file cannot be deleted.

    """
    for path in map(Path, paths):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{path.name} cannot be replaced ({error.strerror})",
                "close it in other programs",
            ) from None


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files in ``folder`` whose process, on this machine, has ended."""
    import psutil

    for entry in os.scandir(folder):
        found = folder / entry.name
        match = _TEMPORARY.match(entry.name)
        if match is None or match["machine"] != _machine():
            continue
        process = int(match["process"])
        ours = process == os.getpid()
        if (ours and found not in _active) or (not ours and not psutil.pid_exists(process)):
            with suppress(OSError):
                found.unlink()


def _temporary_name(suffix: str) -> str:
    return f".mdt-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{suffix}"


def _machine() -> str:
    """Return eight digits that tell machines apart on a shared disk without naming them."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"
