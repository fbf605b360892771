"""Subjects per hour of `mri-deep-tools batch` against a loop of single commands, over the same scans.

Both do the whole work on files: reading, computing, sidecars, writing; the batch makes its pictures and tables as well.
Loop and batch take turns, so that what else the machine does falls on both. Printed are wall-clock time, processor time
of all threads, and subjects per hour by either. Outputs of loop and batch are compared byte for byte.

    python Testing/benchmarks/batch_throughput.py
    python Testing/benchmarks/batch_throughput.py --cases sh segment --subjects 8 --repeat 2
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

CASES = {
    "segment": (
        "segment",
        ["--model", "synthseg-lite", "--fast"],
        "head of 96 x 112 x 96 mm at 2 mm, synthseg-lite --fast",
    ),
    "superresolve": (
        "superresolve",
        ["--model", "superresolve-lite"],
        "T2w of 64 x 72 x 64 mm, 4 mm slices, superresolve-lite",
    ),
    "dmri": (
        "upsample-dmri",
        ["--model", "dmri-rcnn-lite", "--directions", "30"],
        "12 x 12 x 6 voxels, 6 directions, dmri-rcnn-lite",
    ),
    "sh": (
        "upsample-dmri",
        ["--method", "sh", "--directions", "30"],
        "12 x 12 x 6 voxels, 6 directions, spherical harmonics",
    ),
}


def head(shape: tuple[int, int, int], spacing: tuple[float, float, float], seed: int) -> nib.Nifti1Image:
    """Return an ellipsoid of three shells and noise."""
    draw = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1.05, 1.05, n) for n in shape], indexing="ij", sparse=True)
    radius = np.sqrt(sum((a / s) ** 2 for a, s in zip(axes, (0.8, 0.95, 0.85), strict=True)))
    levels = np.select([radius < 0.5, radius < 0.82, radius < 0.9, radius < 1], [700, 500, 120, 900], 0.0)
    data = np.maximum(levels + draw.normal(0, 20, shape), 0).astype(np.int16)
    return nib.Nifti1Image(data, np.diag([*spacing, 1.0]))


def make_scans(case: str, folder: Path, count: int) -> list[Path]:
    """Write the scans of a case."""
    paths = []
    for number in range(count):
        path = folder / f"s{number:03d}.nii.gz"
        if case == "segment":
            nib.save(head((48, 56, 48), (2, 2, 2), number), path)
        elif case == "superresolve":
            nib.save(head((64, 72, 16), (1, 1, 4), number), path)
        else:
            draw = np.random.default_rng(number)
            turns = np.random.default_rng(1).normal(size=(6, 3))
            turns /= np.linalg.norm(turns, axis=1, keepdims=True)
            data = draw.uniform(300, 900, (12, 12, 6, 7))
            data[..., 0] = 1500
            nib.save(nib.Nifti1Image(data.astype(np.float32), np.diag([2.0, 2, 2, 1])), path)
            np.savetxt(folder / f"s{number:03d}.bvec", np.vstack([np.zeros((1, 3)), turns]).T, fmt="%.6f")
            np.savetxt(folder / f"s{number:03d}.bval", [[0] + [1000] * 6], fmt="%d")
        paths.append(path)
    if case == "dmri":
        nib.save(nib.Nifti1Image(np.ones((12, 12, 6), np.uint8), np.diag([2.0, 2, 2, 1])), folder / "mask.nii.gz")
    return paths


def measured(lines: list[list[str]]) -> tuple[float, float]:
    """Run commands one after the other; return wall-clock and processor seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    before, begin = used.ru_utime + used.ru_stime, time.monotonic()
    for line in lines:
        subprocess.run([sys.executable, "-m", "mri_deep_tools", *line, "--quiet"], check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - begin, used.ru_utime + used.ru_stime - before


def run(case: str, count: int, repeat: int) -> None:
    """Measure one case and print its row."""
    task, options, told = CASES[case]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scans = make_scans(case, folder, count)
        option = {"dmri": ["--mask", str(folder / "mask.nii.gz")]}.get(case, [])
        column = ",mask\n" if option else "\n"
        cell = ",mask.nii.gz" if option else ""
        table = folder / "scans.csv"
        table.write_text("input,output" + column + "".join(f"{path.name},{path.name}{cell}\n" for path in scans))
        loop, batch = np.zeros(2), np.zeros(2)
        for turn in range(repeat):
            one, all_ = folder / f"one{turn}", folder / f"all{turn}"
            one.mkdir()
            scan_words = ["--t2"] if task == "superresolve" else []
            lines = [[task, *scan_words, str(path), str(one / path.name), *option, *options] for path in scans]
            loop += measured(lines)
            batch += measured([["batch", task, "--table", str(table), str(all_), *options]])
            same = all((one / path.name).read_bytes() == (all_ / path.name).read_bytes() for path in scans)
            if not same:
                raise SystemExit(f"{case}: outputs of loop and batch differ")
        total = count * repeat
        rates = total * 3600 / loop[0], total * 3600 / batch[0]
        print(
            f"| {told} | {total} | {loop[0] / total:.1f} | {loop[1] / total:.1f} | {batch[0] / total:.1f} | "
            f"{batch[1] / total:.1f} | {rates[0]:.0f} | {rates[1]:.0f} | {rates[1] / rates[0]:.1f} |",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--subjects", type=int, default=6)
    parser.add_argument("--repeat", type=int, default=1)
    args = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f}, cores: {len(os.sched_getaffinity(0))}")
    print(
        "| case | subjects | loop: wall s | CPU s | batch: wall s | CPU s | loop: per hour | batch: per hour | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for case in args.cases:
        run(case, args.subjects, args.repeat)


if __name__ == "__main__":
    main()
