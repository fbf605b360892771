"""What a click in Slicer costs over the bare command: export of the scan, start of the process, import of the results.

    python Testing/benchmarks/slicer_overhead.py [--size 256] [--repeats 3] [--weights FOLDER] [--device cpu]

The same options go to the same program twice: from a shell, and through SynthSegmentLogic in the Slicer host. The work
itself is kept small (--crop), because it is the same in both and would only add noise. Without --weights the bundled
model is used.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "Testing"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--size", type=int, default=256, help="voxels along each axis, 1 mm (default 256)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--crop", type=int, default=96, help="side of the cube that the network sees, mm (default 96)")
    parser.add_argument("--weights", default="", help="folder with weights (default: the bundled model)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")
    return parser.parse_args()


def head(size: int) -> np.ndarray:
    """Return a bright ball with structure in noise, int16, like a head that fills half of the field of view."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    noise = np.random.default_rng(0).normal(0, 10, (size,) * 3).astype(np.float32)
    values = np.where(radius < 0.6, 300 + 100 * np.sin(12 * radius), 10) + noise
    return np.clip(values, 0, None).astype(np.int16)


def bare(args: argparse.Namespace, folder: Path) -> float:
    """Return the seconds of the command by itself; its input lies in the folder."""
    words = ["segment", "scan.nii", "bare_dseg.nii", "--volumes", "bare.csv", "--overwrite", "--progress", "json"]
    words += ["--crop", str(args.crop), "--fast", "--device", args.device, "--grid", "native"]
    words += ["--weights", args.weights] if args.weights else []
    begin = time.monotonic()
    command = [sys.executable, "-m", "mri_deep_tools", *words]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - begin


def click(args: argparse.Namespace, module, volume) -> dict[str, float]:
    """Return the seconds of one run through the module, and of its parts."""
    logic = module.SynthSegmentLogic()
    begin = time.monotonic()
    run = logic.start(volume, weights=args.weights, crop=args.crop, fast=True, device=args.device)
    started = time.monotonic()
    run.wait()
    end = time.monotonic()
    inside = run.job.outcome.seconds
    return {
        "click": end - begin,
        "export": started - begin,
        "process": inside,
        "import": end - started - inside,
    }


def middle(values: list[float]) -> float:
    return round(statistics.median(values), 2)


def main() -> int:
    args = parse()
    from slicer_host import Host

    host = Host.boot(main_window=False)
    module = host.load("SynthSegment").python
    import slicer

    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Scan")
    slicer.util.updateVolumeFromArray(volume, head(args.size))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        from MRIDeepToolsLib import nodes

        nodes.export_volume(volume, folder / "scan.nii")
        commands, clicks = [], []
        for _ in range(args.repeats):  # in turn, so that a busy machine disturbs both alike
            commands.append(bare(args, folder))
            clicks.append(click(args, module, volume))
    figures = {key: middle([item[key] for item in clicks]) for key in clicks[0]}
    figures |= {"command": middle(commands)}
    figures["overhead"] = round(figures["click"] - figures["command"], 2)
    figures["first_overhead"] = round(clicks[0]["click"] - commands[0], 2)
    print(f"{args.size}^3 voxels, {args.repeats} runs each, medians, seconds; load {os.getloadavg()[0]:.1f}")
    for key, value in figures.items():
        print(f"  {key:15} {value:7.2f}")
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    sys.stdout.flush()
    host.leave(0 if figures["overhead"] <= 8 else 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
