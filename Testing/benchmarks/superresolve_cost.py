"""CPU seconds and peak memory of a super-resolution at the published network size (379 million parameters).

Weights are random, because the published ones may not be shipped; time and memory do not depend on their values. The
pair is an ellipsoid of noise on the published grid. Each case runs in a process of its own, so that its peak is its
own: the first run converts the 1.5 GB file, the later ones read what was converted; ``every patch`` computes the empty
ones too; ``plain form`` runs the whole network patch by patch on ten patches and extrapolates, as the published
program works.

    python Testing/benchmarks/superresolve_cost.py --threads 1
    python Testing/benchmarks/superresolve_cost.py --device cuda --modes later
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import json, resource, sys, time
import numpy as np
from mri_deep_tools.superresolve.predict import SuperResolver
from mri_deep_tools.volume import Volume

shape, weights, mode, options = json.loads(sys.argv[1])
used = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
share, stages = 1.0, {}
if mode == "plain form":
    import torch
    from mri_deep_tools.superresolve.weights import load_network
    torch.set_num_threads(options["threads"])
    network = load_network(weights, whole=True)
    begin, before = time.monotonic(), used()
    with torch.inference_mode():
        for _ in range(10):
            network(torch.rand(1, 2, 32, 32, 32))
    share = 157.3
else:
    axes = [np.linspace(-1.2, 1.2, n, dtype=np.float32) for n in shape]
    radius = sum(a**2 for a in np.meshgrid(*axes, indexing="ij", sparse=True))
    inside = (radius < 1) if mode != "every patch" else np.ones(shape, bool)
    scans = [Volume(np.random.default_rng(n).normal(100, 20, shape).astype(np.float32) * inside, np.eye(4))
             for n in (0, 1)]
    begin, before = time.monotonic(), used()
    result = SuperResolver(weights=weights, registered=True, **options).superresolve(*scans)
    stages = {k: round(v, 1) for k, v in result.seconds.items()}
print(json.dumps({
    "cpu_s": (used() - before) * share,
    "wall_s": (time.monotonic() - begin) * share,
    "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    "stages_s": stages,
}))
"""

MODES = ("first", "later", "every patch", "plain form")


def random_weights(folder: Path) -> Path:
    """Write weights of the published size and layout with random values."""
    import torch
    from mri_deep_tools.superresolve.network import ResUNet
    from mri_deep_tools.superresolve.weights import to_upstream

    torch.manual_seed(0)
    network = ResUNet()
    path = folder / "random.pth"
    torch.save(to_upstream(network.state_dict(), network.spec), path)
    return path


def main() -> None:
    """Run the cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[182, 218, 182])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, shape {tuple(args.shape)}, 1 mm")
    print(f"{'mode':12s}{'CPU s':>8s}{'wall s':>8s}{'peak GB':>9s}  stages (s)")
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "MRI_DEEP_TOOLS_CACHE": folder}
        weights = str(random_weights(Path(folder)))
        for mode in args.modes:
            job = json.dumps([args.shape, weights, mode, {"threads": args.threads, "device": args.device}])
            call = [sys.executable, "-W", "ignore", "-c", CHILD, job]
            done = subprocess.run(call, capture_output=True, text=True, env=environment)
            if done.returncode:
                sys.exit(done.stderr)
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"{mode:12s}{found['cpu_s']:8.1f}{found['wall_s']:8.1f}{found['peak_gb']:9.2f}  {found['stages_s']}")


if __name__ == "__main__":
    main()
