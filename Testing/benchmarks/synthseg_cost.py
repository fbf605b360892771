"""CPU seconds, peak memory and stage times of a segmentation at the published width (13.2 million parameters).

Weights are random, because the published ones may not be shipped; time and memory do not depend on their values. The
scan is an ellipsoid of noise in a 1 mm grid. Each case runs in a process of its own, so that its peak is its own.

    python Testing/benchmarks/synthseg_cost.py                     # 182 x 218 x 182, default and fast, 2 threads
    python Testing/benchmarks/synthseg_cost.py --shape 256 256 256 --modes default
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import json, resource, sys, time
import numpy as np
from mri_deep_tools.synthsegment.predict import Segmenter
from mri_deep_tools.volume import Volume

shape, weights, options = json.loads(sys.argv[1])
axes = [np.linspace(-1.2, 1.2, n, dtype=np.float32) for n in shape]
radius = sum(a**2 for a in np.meshgrid(*axes, indexing="ij", sparse=True))
data = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32) * (radius < 1)
begin, used = time.monotonic(), sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
result = Segmenter(weights=weights, **options).segment(Volume(data, np.eye(4)))
after = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "cpu_s": after.ru_utime + after.ru_stime - used,
    "wall_s": time.monotonic() - begin,
    "peak_gb": after.ru_maxrss * 1024 / 1e9,
    "device": result.device,
    "stages_s": {k: round(v, 1) for k, v in result.seconds.items()},
}))
"""

MODES = {"default": {}, "fast": {"fast": True}}


def random_weights(folder: Path) -> Path:
    """Write weights of the published size with random values."""
    import torch
    from mri_deep_tools.synthsegment.network import UNet
    from safetensors.torch import save

    torch.manual_seed(0)
    state = {f"unet/{k}": v for k, v in UNet().state_dict().items() if not k.endswith("num_batches_tracked")}
    path = folder / "random.safetensors"
    path.write_bytes(save(state))
    return path


def main() -> None:
    """Run the cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[182, 218, 182])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    args = parser.parse_args()
    common = {"threads": args.threads, "device": args.device, "precision": args.precision}
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, shape {tuple(args.shape)}, 1 mm")
    print(f"{'mode':10s}{'CPU s':>8s}{'wall s':>8s}{'peak GB':>9s}  stages (s)")
    with tempfile.TemporaryDirectory() as folder:
        weights = str(random_weights(Path(folder)))
        for mode in args.modes:
            job = json.dumps([args.shape, weights, {**common, **MODES[mode]}])
            done = subprocess.run([sys.executable, "-c", CHILD, job], capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"{mode:10s}{found['cpu_s']:8.1f}{found['wall_s']:8.1f}{found['peak_gb']:9.2f}  {found['stages_s']}")


if __name__ == "__main__":
    main()
