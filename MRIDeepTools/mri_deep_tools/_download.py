"""Fetch one file with a published checksum: several sources, resume, one process at a time, placed whole or not at all.

Only https is used (plain http to this machine is allowed, for tests and local mirrors). Proxies come from the usual
environment variables, certificates from the system. What has arrived stays in ``<name>.part`` when a transfer is
interrupted, and the next attempt, from whichever source, goes on from there; the checksum decides in the end.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from . import __version__
from ._files import CACHE_HINT, git_blob_of, human_size, output_error, sha256_of
from ._registry import ModelFile, source_fault
from .errors import DownloadError, OutputError

__all__ = ["check_space", "content_fault", "exclusive", "fetch", "part_path"]

_CHUNK = 1 << 18
_IDLE_ROUNDS = 3  # rounds over all sources without a byte of progress before giving up
_ROUNDS = 200  # rounds in all, against servers that give a few bytes each time
_PAUSE_S = 0.2  # before the second round; doubled with each idle round
_SPARE_BYTES = 50_000_000  # left free on the disk
_TEMPORARY_STATUS = {408, 416, 425, 429, 500, 502, 503, 504}
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}


class _InterruptedTransferError(Exception):
    """The transfer stopped on the way; trying again can help."""


class _UselessSourceError(Exception):
    """The source will not give the file; trying it again cannot help."""


@dataclass
class _Job:
    file: ModelFile
    part: Path
    on_bytes: Callable[[int], None]
    timeout: float
    contributors: set[str] = field(default_factory=set)  # which sources the bytes of the part came from
    mixing: bool = True  # whether a source may go on where another stopped
    best: int = 0  # the most bytes that were ever here, to tell progress from going round in circles


def part_path(target: Path) -> Path:
    """Return where the bytes of an unfinished transfer to ``target`` are kept."""
    return target.with_name(target.name + ".part")


def content_fault(path: Path, file: ModelFile) -> str | None:
    """Return how the content of ``path`` differs from the published file, or None where no published fact differs.

    The size is looked at first, then the SHA-256, or the git blob id where no SHA-256 was published.
    """
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"it has {size:,} bytes instead of {file.size:,}"
    if file.sha256 is not None:
        return None if sha256_of(path) == file.sha256 else "its SHA-256 is not the published one"
    if file.git_blob is not None and git_blob_of(path) != file.git_blob:
        return "its git blob id is not the published one"
    return None


def fetch(
    file: ModelFile, target: Path, *, on_bytes: Callable[[int], None], on_wait: Callable[[], None], timeout: float
) -> str | None:
    """Bring ``file`` to the path ``target``; return the host that gave it, or None where it was already there.

    ``on_bytes`` receives the number of bytes that are here; ``on_wait`` is called about once a second while another
    process fetches the same file. An exception from either ends the work and keeps what has arrived.
    ``timeout`` is the longest silence of a server in seconds.

    Raises
    ------
    DownloadError : no checksum is published for the file, or none of the sources gave it.
    OutputError : the folder cannot be written, or the disk has no room.

    """
    if not file.has_checksum or file.size is None or not file.sources:
        lack = "has no published checksum" if file.sources else "has no known source"
        raise DownloadError(
            f"{file.name} {lack}, so it is not downloaded",
            "import a copy that you trust with 'mri-deep-tools models import FOLDER'",
        )
    with exclusive(target, on_wait):
        if target.is_file() and content_fault(target, file) is None:
            return None
        job = _Job(file, part_path(target), on_bytes, timeout)
        if job.part.exists():
            job.contributors.add("an earlier run")
        url = _from_any_source(job)
        try:
            job.part.replace(target)
        except OSError as error:
            raise output_error(file.name, error) from None
    return None if url is None else urlsplit(url).hostname


@contextmanager
def exclusive(target: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the right to change ``target`` among all processes; makes its folder.

    Raises
    ------
    OutputError : the folder cannot be made or written.

    """
    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(target.name, error) from None
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    while not _acquired(lock, target.name):
        on_wait()
    try:
        yield
    finally:
        lock.release()


def _acquired(lock: Any, name: str) -> bool:
    """Try for a second to get the lock."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=1.0)
    except Timeout:
        return False
    except NotImplementedError:  # a file system without locks; placing is atomic all the same
        return True
    except OSError as error:
        raise output_error(name, error) from None
    return True


def check_space(folder: Path, size: int, name: str) -> None:
    """Raise OutputError where the disk of the existing ``folder`` has no room for ``size`` more bytes."""
    free = shutil.disk_usage(folder).free
    if free < size + _SPARE_BYTES:
        raise OutputError(
            f"{name} needs {human_size(size)} in the model cache and the disk has {human_size(free)} left", CACHE_HINT
        )


def _from_any_source(job: _Job) -> str | None:
    """Fill the part with right content; return the address that gave the last bytes (None: all were there)."""
    size, sources, reasons = job.file.size or 0, list(job.file.sources), dict[str, str]()
    last: str | None = None
    idle = 0
    for _ in range(_ROUNDS):
        if _arrived(job) == size:
            if content_fault(job.part, job.file) is None:
                return last
            _blame(job, sources, reasons, last)
        check_space(job.part.parent, size - _arrived(job), job.file.name)
        best = job.best
        for url in list(sources):
            last = url
            try:
                _transfer(url, job)
                break
            except _UselessSourceError as error:
                reasons[url] = str(error)
                sources.remove(url)
            except _InterruptedTransferError as error:
                reasons[url] = str(error)
        else:
            idle = 0 if job.best > best else idle + 1
            if not sources or idle >= _IDLE_ROUNDS:
                break
            time.sleep(_PAUSE_S * 2**idle)
    raise _failure(job.file, reasons)


def _blame(job: _Job, sources: list[str], reasons: dict[str, str], last: str | None) -> None:
    """Throw away content that turned out wrong, and its source where all of it came from one."""
    job.part.unlink(missing_ok=True)
    if last is not None and job.contributors == {last}:
        sources.remove(last)
        reasons[last] = "gave other content than the published file"
    else:
        job.mixing = False  # nobody knows which of them gave the wrong bytes
    job.best = 0
    job.contributors.clear()


def _arrived(job: _Job) -> int:
    """Return how many bytes have arrived; a part that is longer than the file is thrown away."""
    try:
        size = job.part.stat().st_size
        if size > (job.file.size or 0):
            job.part.unlink()
            size = 0
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise output_error(job.file.name, error) from None
    job.best = max(job.best, size)
    return size


def _transfer(url: str, job: _Job) -> None:
    """Append to the part what is missing from it; returns when the part has the size of the file."""
    if not job.mixing and job.contributors != {url}:
        job.part.unlink(missing_ok=True)
    done = _arrived(job)
    with _answer(url, done, job) as response:
        append = _accept(response, done, job)
        if not append:
            job.contributors.clear()
        job.contributors.add(url)
        try:
            stream = job.part.open("ab" if append else "wb")
        except OSError as error:
            raise output_error(job.file.name, error) from None
        try:
            _copy(response, stream, job)
        finally:
            with suppress(OSError):  # every byte was flushed, or its failure is on its way already
                stream.close()
    here = _arrived(job)
    if here < (job.file.size or 0):
        raise _InterruptedTransferError(f"connection cut after {human_size(here)} of {human_size(job.file.size)}")


def _answer(url: str, done: int, job: _Job) -> Any:
    """Ask for the bytes from ``done`` on; return the response, whose body is yet to be read."""
    headers = {"User-Agent": f"mri-deep-tools/{__version__}", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    try:
        return _opener(url).open(urllib.request.Request(url, headers=headers), timeout=job.timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # what is here is not a beginning of what this server has
            job.part.unlink(missing_ok=True)
        kind = _InterruptedTransferError if error.code in _TEMPORARY_STATUS else _UselessSourceError
        raise kind(f"{error.code} {error.reason}".strip()) from None
    except (OSError, http.client.HTTPException) as error:
        raise _network_fault(error, job.timeout) from None


def _accept(response: Any, done: int, job: _Job) -> bool:
    """Judge the answer's head; return True where its body goes after what is here, False where it begins anew."""
    size, length = job.file.size, response.headers.get("Content-Length", "")
    if done and response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if found is None or int(found[1]) != done:
            job.part.unlink(missing_ok=True)
            raise _InterruptedTransferError("answered with another range than asked for")
        total = found[2]
    elif response.status == 200:
        total = length
    else:
        raise _UselessSourceError(f"answered with status {response.status}")
    page = "html" in response.headers.get("Content-Type", "").lower()
    if total.isdigit() and int(total) != size:
        what = "a web page" if page else "a file"
        raise _UselessSourceError(f"has {what} of {int(total):,} bytes instead of {size:,}")
    if page and not total.isdigit():
        raise _UselessSourceError("gave a web page instead of the file")
    return bool(response.status == 206)


def _copy(response: Any, stream: IO[bytes], job: _Job) -> None:
    """Write the body to the part as it comes; a disk that fails is told from a network that fails."""
    here = stream.tell()
    while chunk := _read(response, job.timeout):
        here += len(chunk)
        if here > (job.file.size or 0):
            raise _UselessSourceError(f"sends more than the {job.file.size:,} bytes of the file")
        try:
            stream.write(chunk)
            stream.flush()
        except OSError as error:
            raise _disk_fault(job, error) from None
        job.on_bytes(here)
    try:
        os.fsync(stream.fileno())
    except OSError as error:
        raise _disk_fault(job, error) from None


def _read(response: Any, timeout: float) -> bytes:
    try:
        return bytes(response.read1(_CHUNK))
    except (OSError, http.client.HTTPException) as error:
        raise _network_fault(error, timeout) from None


def _disk_fault(job: _Job, error: OSError) -> OutputError:
    """Return the error for a write that failed; a full disk gets its room back."""
    if error.errno in _DISK_FULL:
        with suppress(OSError):
            job.part.unlink()
    return output_error(job.file.name, error)


def _network_fault(error: Exception, timeout: float) -> Exception:
    """Return the fault of a source in words, for an exception of the network libraries."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return _UselessSourceError("its certificate could not be verified")
    if isinstance(reason, TimeoutError):
        return _InterruptedTransferError(f"no answer within {timeout:g} s")
    if isinstance(reason, OSError):
        return _InterruptedTransferError(reason.strerror or str(reason) or type(reason).__name__)
    return _InterruptedTransferError(str(reason) or type(reason).__name__)


def _failure(file: ModelFile, reasons: dict[str, str]) -> DownloadError:
    told = "; ".join(f"{urlsplit(url).netloc}: {reason}" for url, reason in reasons.items())
    many = "its source" if len(reasons) == 1 else f"any of its {len(reasons)} sources"
    hint = "check the network, or fetch the file by hand and use 'mri-deep-tools models import FOLDER'"
    if "certificate" in told:
        hint = f"set SSL_CERT_FILE to the certificates of your network, {hint}"
    return DownloadError(f"{file.name} could not be fetched from {many} ({told})", hint)


class _CarefulRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to addresses that would do as sources, and never from https to http."""

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        fault = source_fault(newurl)
        if fault is None and self._scheme == "https" and urlsplit(newurl).scheme != "https":
            fault = "only https addresses are allowed"
        if fault is not None:
            raise _UselessSourceError(f"sends on to an address that cannot be used: {fault}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(url: str) -> urllib.request.OpenerDirector:
    fault = source_fault(url)
    if fault is not None:
        raise _UselessSourceError(fault)
    return urllib.request.build_opener(_CarefulRedirects(urlsplit(url).scheme))
