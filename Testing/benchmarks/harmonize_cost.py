"""CPU seconds and peak memory of a harmonization at the published size (6.5 million parameters).

Weights are random, because time and memory do not depend on their values. ``generator`` runs the network alone on
160 x 192 x 160 voxels, ``second pass`` does so once more in the same process, ``plain form`` runs the same network
layer by layer as a library does, ``chain`` everything from a scan of a head on 192 x 224 x 192 voxels (the shipped
template with a skull around it, tilted, with a bias field) to the result on its own grid, with the best segmentation
model of this machine as the maker of the brain mask. Each case runs in a process of its own, so that its peak is its
own. System time is the price of fresh memory, which differs much between machines; the first line says what 1 GB costs.

    python Testing/benchmarks/harmonize_cost.py --threads 1
    python Testing/benchmarks/harmonize_cost.py --device cuda --modes generator
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import json, resource, sys, time
import numpy as np
import torch
from mri_deep_tools.inference import keep_freed_memory

weights, mode, options = json.loads(sys.argv[1])
used = lambda: np.array(resource.getrusage(resource.RUSAGE_SELF)[:2])
torch.set_num_threads(options["threads"])
keep_freed_memory()
stages = {}
if mode == "chain":
    from scipy.ndimage import distance_transform_edt
    from scipy.spatial.transform import Rotation
    from mri_deep_tools.geometry import resample_to
    from mri_deep_tools.harmonize import harmonize
    from mri_deep_tools.harmonize.template import load_template
    from mri_deep_tools.volume import Volume
    brain = load_template()
    away = distance_transform_edt(brain.data == 0)
    values = np.where((away > 9) & (away < 16), 220, np.where((away > 4) & (away <= 9), 30, brain.data))
    shape, turn = (192, 224, 192), np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [15, 5, -10], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, 3] = turn[:3, :3] @ [0, -18, 8] - (np.array(shape) - 1) / 2
    scan = resample_to(Volume(values.astype(np.float32), turn @ brain.affine), shape, affine)
    scan = scan.with_data(scan.data * (1 + 0.2 * np.linspace(-1, 1, shape[1], dtype=np.float32))[None, :, None])
    begin, before = time.monotonic(), used()
    result = harmonize(scan, weights=weights, **options)
    stages = {name: round(value, 1) for name, value in result.seconds.items()}
else:
    from mri_deep_tools.harmonize.engine import GeneratorEngine
    from mri_deep_tools.harmonize.weights import load_generator
    network = load_generator(weights)
    image = torch.rand(160, 192, 160)
    engine = GeneratorEngine(network, options["device"])
    for _ in range(2 if mode == "second pass" else 1):
        begin, before = time.monotonic(), used()
        if mode != "plain form":
            engine.run(image).cpu()
            continue
        with torch.inference_mode():
            network.to(options["device"])(image[None, None].to(options["device"])).cpu()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({
    "cpu_s": (used() - before).tolist(), "wall_s": time.monotonic() - begin, "peak_gb": peak / 1e9, "stages_s": stages,
}))
"""

MODES = ("generator", "second pass", "plain form", "chain")


def random_weights(folder: Path) -> Path:
    """Write random weights of the published size."""
    import torch
    from mri_deep_tools.harmonize.network import Generator
    from mri_deep_tools.harmonize.weights import save_network

    torch.manual_seed(0)
    return save_network(Generator(), folder / "random.safetensors")


def page_seconds() -> float:
    """Return the system time of touching 1 GB page by page."""
    with mmap.mmap(-1, 1 << 30) as memory:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_stime
        for start in range(0, len(memory), mmap.PAGESIZE):
            memory[start] = 1
        return resource.getrusage(resource.RUSAGE_SELF).ru_stime - before


def main() -> None:
    """Run the cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print(f"touching 1 GB of fresh memory takes {page_seconds():.2f} s of system time here")
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads")
    print(f"{'mode':12s}{'user s':>8s}{'system s':>9s}{'wall s':>8s}{'peak GB':>9s}  stages (s)")
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "MRI_DEEP_TOOLS_CACHE": folder}
        weights = str(random_weights(Path(folder)))
        for mode in args.modes:
            job = json.dumps([weights, mode, {"threads": args.threads, "device": args.device}])
            call = [sys.executable, "-W", "ignore", "-c", CHILD, job]
            done = subprocess.run(call, capture_output=True, text=True, env=environment)
            if done.returncode:
                sys.exit(done.stderr)
            found = json.loads(done.stdout.splitlines()[-1])
            user, system = found["cpu_s"]
            cost = f"{user:8.1f}{system:9.1f}{found['wall_s']:8.1f}{found['peak_gb']:9.2f}"
            print(f"{mode:12s}{cost}  {found['stages_s']}")


if __name__ == "__main__":
    main()
