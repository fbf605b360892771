"""What every network run needs to know about its machine: device, threads, precision, memory, and tiles that fit.

Limits are those of the process, not of the computer: processor affinity, cgroup (container) quotas of both versions
and address-space limits count, since a container with 2 of 64 cores must not start 64 threads.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ._heap import freed_bytes, give_back_freed, keep_freed
from .errors import OutOfMemoryError, RequestError

if TYPE_CHECKING:
    import torch

    from .progress import Progress

__all__ = [
    "Tile",
    "available_memory",
    "available_threads",
    "format_bytes",
    "is_memory_failure",
    "keep_freed_memory",
    "peak_memory_bytes",
    "pick_device",
    "pick_precision",
    "plan_tiles",
    "require_memory",
    "run_with_fallback",
    "set_threads",
    "within_memory",
]

Result = TypeVar("Result")

# Waiting threads of the convolution library must sleep, not spin: on a busy machine spinning costs more processor
# time than the work itself. It is read when torch is first imported, so it is set here and not where it is used.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_MANY_CORES = 4  # from here on hyper-threads cost more than they give in convolutions
_NO_LIMIT = 1 << 60  # cgroup version 1 writes "no limit" as a number near 2**63
_REUSED_BYTES = 128 << 20  # larger tensors go back to the system: in a single run they are not needed again
_KEPT_BYTES = 1 << 30
_SHORT = 8  # freed memory that is kept goes back when less than so many times as much is free

_keeps = False


def pick_device(request: str = "auto") -> torch.device:
    """Return the device for ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.

    ``auto`` takes the first CUDA device and else the CPU; Apple's MPS is used on request only, since its 3-D
    convolutions are incomplete. Raises RequestError for an unknown name or a device that is not there.
    """
    import torch

    name = request.strip().lower()
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and (kind != "cuda" or not index.isdigit())):
        raise RequestError(f"unknown device {request!r}", "use auto, cpu, cuda, cuda:N or mps")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise RequestError("device 'mps' is not available", "use --device auto or cpu")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            found = f"{count} CUDA device(s) found" if count else "no CUDA device found"
            raise RequestError(f"device {request!r} is not available, {found}", "use --device auto or cpu")
        return torch.device(f"cuda:{int(index or 0)}")
    return torch.device(kind)


def pick_precision(request: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic type for ``"auto"`` (float32 everywhere), ``"fp32"``, ``"bf16"`` or ``"fp16"``.

    Half precision is never chosen unasked: it moves label borders. Raises RequestError where the device lacks it.
    """
    import torch

    types = {"auto": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if request not in types:
        raise RequestError(f"unknown precision {request!r}", "use auto, fp32, bf16 or fp16")
    if types[request] == torch.float16 and device.type != "cuda":
        raise RequestError(f"precision fp16 does not work on {device.type}", "use --precision fp32 or bf16")
    if types[request] == torch.bfloat16 and device.type == "mps":
        raise RequestError("precision bf16 does not work on mps", "use --precision fp32")
    return types[request]


# --------------------------------------------------------------------------------------------------------- threads


def available_threads(root: Path = Path("/")) -> int:
    """Return how many threads this process should use: affinity, cgroup quota and ``OMP_NUM_THREADS``, at least 1.

    ``root`` is where ``proc`` and ``sys`` are found. With more than four physical cores hyper-threads do not count.
    """
    import psutil

    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else (os.cpu_count() or 1)
    physical = psutil.cpu_count(logical=False) or count
    if physical >= _MANY_CORES:
        count = min(count, physical)
    quota = _cgroup_cpus(root)
    if quota:
        count = min(count, math.ceil(quota))
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isascii() and wanted.isdigit() and int(wanted) > 0:
        count = min(count, int(wanted))
    return max(1, count)


def set_threads(threads: int | None = None) -> int:
    """Make torch use ``threads`` threads (None = :func:`available_threads`) and return the number.

    Raises RequestError for a number below 1.
    """
    import torch

    if threads is not None and threads < 1:
        raise RequestError(f"number of threads must be at least 1, not {threads}")
    count = threads or available_threads()
    torch.set_num_threads(count)
    return count


def keep_freed_memory(*, many: bool = False) -> bool:
    """Let this process use freed memory again, where the C library allows it (glibc); returns whether it does.

    By default tensors above 32 MB go back to the system as soon as they are freed, and the next one is made of pages
    that the system first fills with zeros: up to a third of the processor time of a run. ``many`` is for work on one
    scan after the other, which needs the largest tensors again: it keeps more, up to an eighth of what is free now.
    :func:`available_memory` gives all of it back when memory becomes short.
    """
    global _keeps
    kept = max(_KEPT_BYTES // 4, min(2 * _KEPT_BYTES, available_memory() // 8)) if many else _KEPT_BYTES
    _keeps = keep_freed(kept if many else _REUSED_BYTES, kept)
    return _keeps


def _cgroup_folders(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Yield (cgroup version, folder) of this process and its ancestors for one controller."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    base = root / "sys/fs/cgroup"
    for line in lines:
        _, names, path = line.split(":", 2)
        if not names:
            version, top = 2, base
        elif controller in names.split(","):
            version, top = 1, base / controller
        else:
            continue
        folder = top / path.lstrip("/")
        for parent in itertools.chain((folder,), folder.parents):
            yield version, parent
            if parent == top:
                break


def _numbers(path: Path) -> list[int | None]:
    """Return the integers of a one-line file (None for words such as ``max``); empty when it cannot be read."""
    try:
        return [int(word) if word.lstrip("-").isdigit() else None for word in path.read_text().split()]
    except OSError:
        return []


def _cgroup_cpus(root: Path) -> float | None:
    """Return the smallest processor quota among this process's cgroups, in cores."""
    quotas = []
    for version, folder in _cgroup_folders(root, "cpu"):
        if version == 2:
            pair = _numbers(folder / "cpu.max")
        else:
            pair = _numbers(folder / "cpu.cfs_quota_us") + _numbers(folder / "cpu.cfs_period_us")
        if len(pair) == 2 and pair[0] and pair[1] and pair[0] > 0:
            quotas.append(pair[0] / pair[1])
    return min(quotas) if quotas else None


# ---------------------------------------------------------------------------------------------------------- memory


def available_memory(device: torch.device | None = None, root: Path = Path("/")) -> int:
    """Return how many bytes this process may still take on ``device`` (None = CPU).

    On the CPU: the smallest of free memory, cgroup limit less use, and address-space limit less use. What this process
    keeps of freed memory (:func:`keep_freed_memory`) is given back first where that is a good part of it.
    """
    if device is not None and device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    room = _free_memory(root)
    if _keeps and room < _SHORT * freed_bytes():
        give_back_freed()
        room = _free_memory(root)
    return room


def _free_memory(root: Path) -> int:
    """Return what the system and the limits of this process leave free, in bytes."""
    import psutil

    room = [int(psutil.virtual_memory().available), *_cgroup_memory(root)]
    if sys.platform != "win32":
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            room.append(limit - psutil.Process().memory_info().vms)
    return max(0, min(room))


def _cgroup_memory(root: Path) -> Iterator[int]:
    """Yield limit less use for each cgroup that has a memory limit; the page cache is not counted as used."""
    for version, folder in _cgroup_folders(root, "memory"):
        names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        limit, used = (_numbers(folder / name) or [None] for name in names)
        if limit[0] is not None and used[0] is not None and limit[0] < _NO_LIMIT:
            yield limit[0] - used[0] + _page_cache(folder / "memory.stat")


def _page_cache(path: Path) -> int:
    """Return the bytes of file cache that the kernel would drop first."""
    try:
        fields = dict(line.split()[:2] for line in path.read_text().splitlines() if line.strip())
    except OSError:
        return 0
    return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))


def peak_memory_bytes(device: torch.device | None = None) -> int:
    """Return the highest memory use of this process so far: resident bytes, or allocated bytes on a CUDA device."""
    if device is not None and device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def format_bytes(count: float) -> str:
    """Return bytes as text in MB or GB (powers of ten)."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def require_memory(needed: int, available: int, what: str, hint: str) -> None:
    """Raise OutOfMemoryError when ``needed`` bytes exceed ``available``, with both figures in the message."""
    if needed > available:
        message = f"{what} needs about {format_bytes(needed)} of memory but {format_bytes(available)} are free"
        raise OutOfMemoryError(message, hint)


def is_memory_failure(error: BaseException) -> bool:
    """Say whether an exception means that memory ran out (torch reports this on the CPU as a RuntimeError)."""
    import torch

    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    signs = ("can't allocate memory", "out of memory", "not enough memory", "std::bad_alloc", "could not create a mem")
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


def run_with_fallback(run: Callable[[torch.device], Result], device: torch.device, progress: Progress) -> Result:
    """Run ``run(device)``; when a GPU runs out of memory, say so and run once more on the CPU.

    Raises OutOfMemoryError when the CPU's memory does not suffice either; other exceptions pass.
    """
    import torch

    if device.type != "cpu":
        try:
            return run(device)
        except (RuntimeError, MemoryError) as error:
            if not is_memory_failure(error):
                raise
        if device.type == "cuda":
            torch.cuda.empty_cache()
        progress.warn(f"{device} ran out of memory; the work is done again on the CPU, which takes longer")
        device = torch.device("cpu")
        progress.device("cpu", reason=f"out of memory on {device}")
    return within_memory(lambda: run(device))


def within_memory(work: Callable[[], Result]) -> Result:
    """Return ``work()``; raise OutOfMemoryError where it fails for want of memory, whichever library says so."""
    try:
        return work()
    except OutOfMemoryError:
        raise
    except (RuntimeError, MemoryError) as error:
        if not is_memory_failure(error):
            raise
        hint = "close other programs or use a smaller crop"
        raise OutOfMemoryError("memory ran out during the work", hint) from error


# ----------------------------------------------------------------------------------------------------------- tiles


@dataclass(frozen=True)
class Tile:
    """One piece of a volume: what to read, what of the piece's result to keep, and where that goes.

    ``source`` and ``target`` index the volume, ``inner`` indexes the piece; each has one slice per axis.
    """

    source: tuple[slice, ...]
    inner: tuple[slice, ...]
    target: tuple[slice, ...]


def plan_tiles(
    shape: Sequence[int], bytes_per_voxel: float, available: float, *, multiple: int = 32, halo: int = 32
) -> list[Tile]:
    """Split a volume of ``shape`` (multiples of ``multiple``) into the fewest tiles that each fit into memory.

    The tile ladder halves the longest axis until ``bytes_per_voxel`` times the tile's voxels, ``halo`` voxels on each
    inner side included, is at most ``available`` bytes. One tile means the whole volume. Raises OutOfMemoryError when
    tiles as small as ``multiple`` do not fit.
    """
    if any(n < 1 or n % multiple for n in shape):
        raise RequestError(f"cannot tile shape {tuple(shape)}: not a multiple of {multiple}")
    halo = math.ceil(halo / multiple) * multiple
    core = list(shape)
    while True:
        padded = [min(size + min(-(-n // size) - 1, 2) * halo, n) for size, n in zip(core, shape, strict=True)]
        needed = math.prod(padded) * bytes_per_voxel
        if needed <= available:
            break
        axis = max(range(len(core)), key=lambda k: core[k])
        if core[axis] <= multiple:
            require_memory(int(needed), int(available), "the smallest piece of the volume", "free memory or crop")
        core[axis] = math.ceil(core[axis] / 2 / multiple) * multiple
    starts = [range(0, n, size) for n, size in zip(shape, core, strict=True)]
    return [_tile(corner, core, shape, halo) for corner in itertools.product(*starts)]


def _tile(corner: Sequence[int], core: Sequence[int], shape: Sequence[int], halo: int) -> Tile:
    source, inner, target = [], [], []
    for start, size, n in zip(corner, core, shape, strict=True):
        stop = min(start + size, n)
        low, high = max(start - halo, 0), min(stop + halo, n)
        source.append(slice(low, high))
        inner.append(slice(start - low, stop - low))
        target.append(slice(start, stop))
    return Tile(tuple(source), tuple(inner), tuple(target))
