"""Denoiser pairs through the real command, with the narrow S1 of the golden weights."""

from __future__ import annotations

import gzip
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from test_training import write_map


@pytest.mark.slow
def test_pairs_are_group_maps_on_one_grid(shared, tmp_path):
    weights = tmp_path / "synthseg_robust_2.0.h5"
    source = shared("fixtures", "synthseg", "weights", "synthseg_robust_2.0.h5.gz")
    weights.write_bytes(gzip.decompress(source.read_bytes()))
    for name in ("maps", "images"):
        (tmp_path / name).mkdir()
    write_map(tmp_path / "maps" / "a.nii.gz", size=64)
    labels = nib.load(tmp_path / "maps" / "a.nii.gz")
    scan = np.asarray(labels.dataobj) % 100 + np.random.default_rng(0).normal(0, 2, labels.shape)
    nib.Nifti1Image(scan.astype(np.float32), labels.affine).to_filename(tmp_path / "images" / "a.nii.gz")
    words = ["images", "maps", "pairs", "--weights", weights.name, "--number", "2", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "mri_deep_tools", "simulate", "denoiser-pairs", *words, "--progress", "none"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for number in (1, 2):
        noisy, true = (nib.load(tmp_path / "pairs" / k / f"pair_{number:05d}.nii.gz") for k in ("noisy", "true"))
        assert noisy.shape == true.shape == (64, 64, 64)
        assert set(np.unique(noisy.dataobj)) <= set(range(5))
        assert set(np.unique(true.dataobj)) == {0, 1, 2, 3}  # the head of the test has no cerebellum
    again = subprocess.run(
        [sys.executable, "-m", "mri_deep_tools", "simulate", "denoiser-pairs", *words],
        cwd=tmp_path,
        capture_output=True,
    )
    assert again.returncode == 2
