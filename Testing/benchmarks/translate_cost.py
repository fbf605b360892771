"""Cost of a translation at the published size: time per slice of 256x256 pixels with 4 steps, and peak memory.

Random weights of the published generator (39.7 million parameters); time and memory do not depend on their values. The
plain form is the network layer by layer, as the published program runs it. Each case runs in a process of its own, so
that its peak is its own; the first slice, which fetches memory from the system, is not timed. Times on a CPU are user
and system seconds of all threads.

    python Testing/benchmarks/translate_cost.py --threads 1
    python Testing/benchmarks/translate_cost.py --device cuda --batches 1 16 32 --precisions fp32 bf16
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
from mri_deep_tools.inference import keep_freed_memory, peak_memory_bytes, pick_precision
from mri_deep_tools.translate.diffusion import Schedule, draw, sample
from mri_deep_tools.translate.engine import TranslationEngine
from mri_deep_tools.translate.network import NCSNpp
from mri_deep_tools.translate.weights import Direction

job = json.loads(sys.argv[1])
used = lambda: np.array(resource.getrusage(resource.RUSAGE_SELF)[:2])
torch.set_num_threads(job["threads"])
if job["keep"]:
    keep_freed_memory()
device, batch, side = torch.device(job["device"]), job["batch"], job["side"]
torch.manual_seed(0)
network, schedule = NCSNpp().eval(), Schedule()
source, draws = torch.rand(batch, 1, side, side) * 2 - 1, draw((batch, side, side), 4, network.spec.latent)
if job["form"] == "engine":
    direction = Direction("a", "b", network, schedule, {})
    engine = TranslationEngine(direction, device, pick_precision(job["precision"], device))
    del network, direction
    work = lambda: engine.run(source, draws).cpu()
else:
    network, schedule = network.to(device), schedule.to(device)
    given = dict(start=draws.start.to(device), latents=draws.latents.to(device), noises=draws.noises.to(device))
    def work():
        with torch.inference_mode():
            return sample(network, schedule, source.to(device), **given).cpu()
ready = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
begin, before = time.monotonic(), used()
work()
first = (used() - before).tolist()
times, walls = [], []
for _ in range(job["repeats"]):
    begin, before = time.monotonic(), used()
    work()
    times.append((used() - before).tolist())
    walls.append(time.monotonic() - begin)
best = min(range(len(times)), key=lambda k: sum(times[k]))
peak = peak_memory_bytes(device)
print(json.dumps({"cpu_s": times[best], "wall_s": min(walls), "first_s": first, "peak": peak, "ready": ready}))
"""


def measure(job: dict[str, object]) -> dict[str, object]:
    """Run one case in a process of its own."""
    call = [sys.executable, "-W", "ignore", "-c", CHILD, json.dumps(job)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(call, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run the cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forms", nargs="+", choices=("engine", "plain"), default=["engine", "plain"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16", "fp16"), default=["fp32"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts")
    args = parser.parse_args()
    cpu = args.device == "cpu"
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, device {args.device}")
    head = "user s   system s" if cpu else "        "
    print(f"{'form':8s}{'precision':>10s}{'batch':>6s}  per slice: {head}   wall s   slices/s   peak MB")
    for form in args.forms:
        for precision in args.precisions if form == "engine" else ["fp32"]:
            for batch in args.batches:
                job = {"form": form, "precision": precision, "batch": batch, "threads": args.threads}
                job |= {"device": args.device, "side": args.side, "repeats": args.repeats, "keep": form == "engine"}
                found = measure(job)
                user, system = (value / batch for value in found["cpu_s"])
                wall = found["wall_s"] / batch
                cost = f"{user:7.2f}{system:10.2f}" if cpu else " " * 17
                memory = f"{found['peak'] / 1e6:.0f} (before the first pass {found['ready'] / 1e6:.0f})"
                memory = memory if cpu else f"{found['peak'] / 1e6:.0f} on the device"
                print(f"{form:8s}{precision:>10s}{batch:6d}             {cost}{wall:9.3f}{1 / wall:11.2f}   {memory}")


if __name__ == "__main__":
    main()
