"""CPU time per voxel and peak memory of dMRI-RCNN against a plain port of the published network, in the same run.

The plain port is the network layer by layer on whole patches, with the published batches, as the original program
computes it: the measured volumes are encoded once and the state is copied for every target. Weights are random, since
time and memory do not depend on their values; the largest difference of the outputs is printed. A first table has whole
patches (every voxel is wanted), a second a ball as mask (38 % of the voxels of the patches that touch it), a third the
peak memory of the program under several bounds. Each case runs in a process of its own, so that its peak is its own.

    python Testing/benchmarks/dmri_cost.py
    python Testing/benchmarks/dmri_cost.py --dims 1 --targets 80 --device cuda
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys

CHILD = """
import json, resource, sys, time
import numpy as np
import torch
from mri_deep_tools.dmriupsample.network import RCNN
from mri_deep_tools.dmriupsample.pipeline import Task, run_network
from mri_deep_tools.volume import Volume

job = json.loads(sys.argv[1])
torch.set_num_threads(job["threads"])
torch.manual_seed(0)
network = RCNN(job["dims"]).eval().requires_grad_(False)
for norm in [m for m in network.modules() if type(m).__name__ == "KerasBatchNorm"]:  # as different as trained ones
    norm.running_mean.normal_(0, 0.1), norm.running_var.uniform_(0.5, 1.5)
device = torch.device(job["device"])
network = network.to(device)
draw = np.random.default_rng(0)
unit = lambda n: (lambda v: (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32))(draw.normal(size=(n, 3)))
shape, given, wanted = job["shape"], unit(10), unit(job["targets"])
data = draw.uniform(0, 4000, (*shape, 10)).astype(np.float32)
axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij", sparse=True)
mask = sum(a**2 for a in axes) < 0.81 if job["ball"] else np.ones(shape, bool)
used = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
before_gb, begin, before = peak(), time.monotonic(), used()
if job["plain"]:
    from mri_deep_tools.dmriupsample.patches import PatchGrid
    grid = PatchGrid(mask)
    out = np.zeros((*shape, job["targets"]), np.float32)
    batch = job["plain"]
    for start in range(0, len(grid), batch):
        which = np.arange(start, min(start + batch, len(grid)))
        patches = torch.from_numpy(grid.take(data, which) / np.float32(4000)).to(device)
        vectors = [torch.from_numpy(v).to(device).expand(len(which), -1, -1) for v in (given, wanted)]
        grid.put(out, network(patches, *vectors).cpu().numpy() * np.float32(4000), which)
    out *= mask[..., None]
else:
    task = Task(Volume(data, np.diag([-2, 2, 2, 1.0])), mask, given, wanted, 4000.0, raw=True)
    out = run_network(task, network, device, job["memory"])
print(json.dumps({"cpu_s": used() - before, "wall_s": time.monotonic() - begin, "peak_gb": peak(),
                  "before_gb": before_gb, "voxels": int(mask.sum()), "out_gb": out.nbytes / 1e9,
                  "digest": [float(x) for x in out[mask][::997].ravel()[:4000]]}))
"""


def run(**job: object) -> dict:
    """Run one case in a process of its own and return what it measured."""
    settings = {"targets": 80, "ball": False, "plain": 0, "memory": None, "threads": 1, "device": "cpu", **job}
    environment = {**os.environ, "OMP_NUM_THREADS": str(settings["threads"])}
    command = [sys.executable, "-c", CHILD, json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def compare(title: str, dims: int, job: dict) -> None:
    """Print plain port and program side by side."""
    plain, ours = run(dims=dims, plain=1 if dims == 3 else 4, **job), run(dims=dims, **job)
    ratio = plain["cpu_s"] / ours["cpu_s"]
    worst = max(abs(a - b) for a, b in zip(plain["digest"], ours["digest"], strict=True)) / 4000
    each = [1e3 * one["cpu_s"] / one["voxels"] for one in (plain, ours)]
    print(
        f"{title:14s}{dims}D  plain {each[0]:7.3f} ms CPU a voxel ({plain['wall_s']:.1f} s wall)  "
        f"program {each[1]:7.3f} ms ({ours['wall_s']:.1f} s wall)  {ratio:.2f} times  largest difference {worst:.1e}",
        flush=True,
    )


def main() -> None:
    """Run the cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--shape", type=int, nargs=3, default=[20, 20, 10], help="of the table of whole patches")
    parser.add_argument("--ball-shape", type=int, nargs=3, default=[20, 20, 20])
    parser.add_argument("--memory-shape", type=int, nargs=3, default=[20, 20, 20])
    parser.add_argument("--targets", type=int, default=80)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tables", nargs="+", choices=("whole", "ball", "memory"), default=["whole", "ball", "memory"])
    args = parser.parse_args()
    common = {"targets": args.targets, "threads": args.threads, "device": args.device}
    print(f"{platform.machine()}, {args.threads} threads, 10 to {args.targets} volumes, {args.device}")
    for dims in args.dims:
        if "whole" in args.tables:
            compare("whole patches", dims, {**common, "shape": args.shape})
        if "ball" in args.tables:
            compare("ball as mask", dims, {**common, "shape": args.ball_shape, "ball": True})
    for dims in args.dims if "memory" in args.tables else []:
        for limit in (0.25, 0.5, 1.0, 2.0):
            found = run(dims=dims, shape=args.memory_shape, memory=int(limit * 1e9), **{**common, "targets": 8})
            above = found["peak_gb"] - found["before_gb"] - found["out_gb"]
            print(
                f"--memory {limit:<5g}{dims}D  peak {found['peak_gb']:.2f} GB, {above:.2f} GB above the images  "
                f"{found['cpu_s']:.0f} CPU s",
                flush=True,
            )


if __name__ == "__main__":
    main()
