"""Devices, threads, memory limits and tiles."""

from __future__ import annotations

import ctypes
import math
import resource
import subprocess
import sys

import numpy as np
import psutil
import pytest
import torch
from mri_deep_tools import inference
from mri_deep_tools.errors import OutOfMemoryError, RequestError
from mri_deep_tools.inference import (
    available_memory,
    available_threads,
    is_memory_failure,
    peak_memory_bytes,
    pick_device,
    pick_precision,
    plan_tiles,
    run_with_fallback,
    set_threads,
)
from mri_deep_tools.progress import Progress


def cgroup(root, listing: str, **files: str):
    """Lay out a small proc and cgroup tree."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(listing)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_device_names():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda")
    for bad in ("gpu", "cuda:x", "cpu:0", ""):
        with pytest.raises(RequestError, match="unknown device"):
            pick_device(bad)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    with pytest.raises(RequestError, match="not available"):
        pick_device(f"cuda:{count}")


def test_precision_is_full_unless_asked():
    cpu = torch.device("cpu")
    assert pick_precision("auto", cpu) == torch.float32
    assert pick_precision("bf16", cpu) == torch.bfloat16
    for bad in ("fp16", "half"):
        with pytest.raises(RequestError, match="precision"):
            pick_precision(bad, cpu)
    assert pick_precision("fp16", torch.device("cuda:0")) == torch.float16
    with pytest.raises(RequestError, match="bf16 does not work on mps"):
        pick_precision("bf16", torch.device("mps"))


def test_threads_follow_quota_of_cgroup_2_and_its_parents(tmp_path):
    files = {"pod/cpu.max": "150000 100000", "pod/job/cpu.max": "max 100000"}
    root = cgroup(tmp_path, "0::/pod/job\n", **files)
    assert inference._cgroup_cpus(root) == 1.5
    assert available_threads(root) == min(2, available_threads(tmp_path / "nothing"))


def test_threads_follow_quota_of_cgroup_1(tmp_path):
    files = {"cpu/job/cpu.cfs_quota_us": "100000", "cpu/job/cpu.cfs_period_us": "100000", "cpu/cpu.cfs_quota_us": "-1"}
    root = cgroup(tmp_path, "4:cpu:/job\n3:memory:/job\n", **files)
    assert inference._cgroup_cpus(root) == 1.0
    assert available_threads(root) == 1


def test_set_threads():
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == 1
        assert torch.get_num_threads() == 1
        assert set_threads(None) == available_threads()
        with pytest.raises(RequestError, match="at least 1"):
            set_threads(0)
    finally:
        torch.set_num_threads(before)


def test_memory_follows_cgroup_2_without_page_cache(tmp_path):
    files = {
        "job/memory.max": "3000000",
        "job/memory.current": "2500000",
        "job/memory.stat": "anon 5\ninactive_file 400000\n",
        "memory.max": "max",
        "memory.current": "7",
    }
    assert available_memory(root=cgroup(tmp_path, "0::/job\n", **files)) == 900_000


def test_memory_follows_cgroup_1(tmp_path):
    files = {"memory/memory.limit_in_bytes": str(2**63 - 4096), "memory/memory.usage_in_bytes": "1"}
    files |= {"memory/job/memory.limit_in_bytes": "1000", "memory/job/memory.usage_in_bytes": "1500"}
    assert available_memory(root=cgroup(tmp_path, "4:memory:/job\n", **files)) == 0


def test_memory_follows_the_address_space_limit(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    free = available_memory(root=tmp_path)
    assert free > 0
    used = psutil.Process().memory_info().vms
    try:
        resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000, hard))
        assert 30_000_000 < available_memory(root=tmp_path) <= 51_000_000
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.slow
def test_peak_memory_sees_an_allocation():
    before = peak_memory_bytes()
    assert before > 10_000_000
    block = np.ones(max(before // 8, 1) + 1_000_000)
    assert peak_memory_bytes() >= block.nbytes


def test_memory_failures_are_told_from_others():
    assert is_memory_failure(MemoryError())
    assert is_memory_failure(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert is_memory_failure(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert not is_memory_failure(RuntimeError("shape mismatch"))
    assert not is_memory_failure(ValueError("out of memory"))


def test_gpu_out_of_memory_is_retried_once_on_the_cpu():
    events, seen = [], []
    progress = Progress(events.append)

    def run(device):
        seen.append(device.type)
        if device.type == "cuda":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return 7

    assert run_with_fallback(run, torch.device("cuda", 0), progress) == 7
    assert seen == ["cuda", "cpu"]
    assert progress.warnings == ["cuda:0 ran out of memory; the work is done again on the CPU, which takes longer"]
    assert [event.device for event in events if event.event == "device"] == ["cpu"]


def test_cpu_memory_failure_is_an_error_of_ours_and_others_pass():
    def fail(device):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    def wrong(device):
        raise RuntimeError("wrong")

    with pytest.raises(OutOfMemoryError, match="memory ran out"):
        run_with_fallback(fail, torch.device("cpu"), Progress())
    with pytest.raises(RuntimeError, match="wrong"):
        run_with_fallback(wrong, torch.device("cuda:0"), Progress())


@pytest.mark.parametrize("share", [1.0, 0.7, 0.4])
def test_tiles_cover_every_voxel_once_and_fit(share):
    shape = (96, 160, 128)
    available = share * math.prod(shape) * 10
    tiles = plan_tiles(shape, 10, available, multiple=16, halo=16)
    count, image = np.zeros(shape, dtype=int), np.random.default_rng(0).random(shape)
    rebuilt = np.zeros(shape)
    for tile in tiles:
        piece = image[tile.source]
        assert piece.size * 10 <= available
        assert all(n % 16 == 0 for n in piece.shape)
        rebuilt[tile.target] = piece[tile.inner]
        count[tile.target] += 1
    assert (count == 1).all()
    assert (rebuilt == image).all()
    assert (len(tiles) == 1) == (share == 1.0)


def test_tiles_keep_the_halo_and_refuse_the_impossible():
    tiles = plan_tiles((64, 32, 32), 1, 64 * 32 * 32 - 1, multiple=8, halo=4)
    assert len(tiles) == 2
    assert tiles[0].source[0] == slice(0, 40)
    assert tiles[1].source[0] == slice(24, 64)
    assert tiles[1].inner[0] == slice(8, 40)
    with pytest.raises(OutOfMemoryError, match="needs about"):
        plan_tiles((64, 64, 64), 1e6, 1e6, multiple=32, halo=0)
    with pytest.raises(RequestError, match="not a multiple"):
        plan_tiles((10, 32, 32), 1, 1, multiple=32)


KEPT = """
import sys
import numpy as np, psutil
from mri_deep_tools.inference import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
resident = lambda: psutil.Process().memory_info().rss
before = resident()
for _ in range(3):
    np.ones(8 << 20)
print(resident() - before)
"""


def test_freed_memory_is_used_again_instead_of_fetched_from_the_system():
    if not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("the C library has no mallopt")
    kept = {}
    for mode in ("keep", "plain"):
        done = subprocess.run([sys.executable, "-c", KEPT, mode], capture_output=True, text=True, check=True)
        kept[mode] = int(done.stdout)
    assert kept["keep"] > 48 << 20  # of the 64 MB of each array
    assert kept["plain"] < 16 << 20


MANY = """
import threading
import numpy as np, psutil
from mri_deep_tools import inference
if not inference.keep_freed_memory(many=True):
    raise SystemExit(3)
resident = lambda: psutil.Process().memory_info().rss
before, found = resident(), []

def work():
    for _ in range(3):
        np.ones(12 << 20)  # 96 MB, more than a thread's own heap may hold
        found.append(resident() - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
print(min(found))
inference._SHORT = 1 << 40  # as if memory were short
inference.available_memory()
print(resident() - before)
"""


def test_threads_use_freed_memory_again_until_memory_is_short():
    if not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("the C library has no mallinfo2")
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True)
    kept, given_back = map(int, done.stdout.split())
    assert kept > 80 << 20
    assert given_back < 32 << 20
