"""Tiny diffusion scans, whose further directions take spherical harmonics a few hundredths of a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from mri_deep_tools.cli import main

WORDS = ("--method", "sh", "--directions", "6", "--device", "cpu", "--threads", "1")
QUIET = ("--quiet",)


def directions(count=12):
    """Return gradients (count + 1, 3), the first of them no direction."""
    found = np.random.default_rng(5).normal(size=(count, 3))
    return np.vstack([np.zeros((1, 3)), found / np.linalg.norm(found, axis=1)[:, None]])


def write_gradients(stem, count=12):
    """Write STEM.bvec and STEM.bval."""
    np.savetxt(f"{stem}.bvec", directions(count).T, fmt="%.6f")
    np.savetxt(f"{stem}.bval", np.array([[0] + [1000] * count]), fmt="%d")


def write_dwi(path, seed=0, *, gradients=True):
    """Write a diffusion scan (6, 6, 3, 13), with its gradients beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(seed).uniform(100, 200, (6, 6, 3, 13)).astype(np.float32)
    data[..., 0] *= 3
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2, 2, 1])), path)
    if gradients:
        write_gradients(str(path).removesuffix(".nii.gz"))
    return path


def make_table(folder, count, name="scans.csv"):
    """Write scans and the table that names them; return its path."""
    rows = [write_dwi(folder / f"in/s{n:03d}_dwi.nii.gz", n).relative_to(folder).as_posix() for n in range(count)]
    table = folder / name
    table.write_text("\n".join(["input", *rows, ""]))
    return table


def batch(*words, task="upsample-dmri", options=WORDS):
    """Run the command in this process; return its exit status."""
    return main(["batch", task, *map(str, words), *options, *QUIET])


def batch_process(*words, task="upsample-dmri", options=WORDS):
    """Start the command as a process."""
    line = [sys.executable, "-m", "mri_deep_tools", "batch", task, *map(str, words), *options, *QUIET]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment)


def records(folder):
    """Return the records of a batch by the name of the subject."""
    found = Path(folder, ".batch", "records").glob("*/[!.]*.json")
    return {path.stem: json.loads(path.read_text()) for path in found}


def results(folder):
    """Return name, inode and time of every image of a batch."""
    images = [path for path in Path(folder).rglob("*.nii.gz") if ".batch" not in path.parts]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in images}
