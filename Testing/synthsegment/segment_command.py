"""What the tests of the segment command share: small scans, and the real program in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

QUICK = ("--crop", "32", "--threads", "1")
"""Keeps the network's grid at 32^3 voxels, a blink for the narrow networks."""


def scan_values(shape: tuple[int, ...] = (40, 36, 34), seed: int = 1) -> np.ndarray:
    """Return noise with a bright box in the middle, float32."""
    values = np.random.default_rng(seed).normal(100, 20, shape)
    values[8:-8, 8:-8, 8:-8] += 200
    return values.astype(np.float32)


def save(path: Path, values: np.ndarray | None = None, affine: np.ndarray | None = None) -> Path:
    """Write a NIfTI file."""
    values = scan_values() if values is None else values
    nib.save(nib.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


def start(*words: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Start the real program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "mri_deep_tools", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def command(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the real program in a process of its own until it ends."""
    process = start(*words, **options)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def sentence(text: str) -> str:
    """Return the last line after checking that it is the program's one sentence and that no traceback came before."""
    assert "Traceback" not in text, text
    last = text.rstrip("\n").rsplit("\n", 1)[-1]
    assert last.startswith("mri-deep-tools: error: "), text
    assert last.endswith((".", "?")), text
    return last


def remains(folder: Path) -> list[str]:
    """Return the files in a folder and below, temporary ones included."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def labels_of(path: Path) -> np.ndarray:
    """Return the values of a label map."""
    return np.asarray(nib.load(path).dataobj)
