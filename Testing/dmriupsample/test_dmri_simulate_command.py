"""``simulate dmri`` as a child process: files, gradients that fit them, truth in world space, refusals."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from mri_deep_tools.dmriupsample.directions import same_axis_angle
from mri_deep_tools.dmriupsample.scan import read_scan
from mri_deep_tools.dmriupsample.signals import tensor_maps
from mri_deep_tools.progress import Progress
from mri_deep_tools.volume import Volume, read_volume, write_volume


def simulate(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mri_deep_tools", "simulate", "dmri", *map(str, words), "--progress", "none"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


SMALL = ("--size", 14, 14, 14, "--spacing", 10)


def main_axis(signal: np.ndarray, bvals: np.ndarray, world: np.ndarray) -> np.ndarray:
    x, y, z = world.T
    design = np.column_stack([np.ones(len(bvals)), *(-bvals * c for c in (x * x, y * y, z * z))])
    design = np.column_stack([design, *(-2 * bvals * c for c in (x * y, x * z, y * z))])
    _, xx, yy, zz, xy, xz, yz = np.linalg.lstsq(design, np.log(signal), rcond=None)[0]
    return np.linalg.eigh(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]))[1][:, 2]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_files_fit_one_another(tmp_path, suffix):
    output = tmp_path / f"scan{suffix}"
    done = simulate(output, *SMALL, "--shells", 1000, 2000, "--directions", 12, 15, "--b0", 2, "--snr", 0)
    assert done.returncode == 0, done.stderr
    scan = read_scan(output, progress=Progress())
    assert scan.image.data.shape == (14, 14, 14, 29)
    assert [int((np.round(scan.table.bvals) == b).sum()) for b in (0, 1000, 2000)] == [2, 12, 15]
    assert (tmp_path / "scan.bvec").is_file() is (suffix != ".nrrd")
    mask, fa, md = (read_volume(tmp_path / f"scan_{name}{suffix}").data for name in ("mask", "fa", "md"))
    fibres = read_volume(tmp_path / f"scan_directions{suffix}", ndim=4).data
    assert set(np.unique(mask)) == {0, 1} and fa.max() < 1 and fibres.shape == (14, 14, 14, 9)
    kept = scan.table.bvals < 1500
    found = tensor_maps(scan.image.data[mask > 0][:, kept], scan.table.bvals[kept], scan.table.world[kept])
    assert np.abs(found[1] - md[mask > 0]).max() < 1e-4
    record = json.loads((tmp_path / "scan.json").read_text())
    assert record["Synthetic"] is True and record["Options"]["shells"] == [1000.0, 2000.0]


def test_oblique_left_handed_map_gives_gradients_along_the_fibres(tmp_path):
    from mri_deep_tools.dmriupsample.phantom import built_in_labels

    labels = built_in_labels((14, 16, 12), 9)
    angle = np.radians(25)
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    turned = Volume(labels.data[::-1].copy(), turn @ labels.affine @ np.diag([-1.0, 1, 1, 1]))
    write_volume(turned, tmp_path / "labels.nii.gz", intent="label")
    done = simulate(tmp_path / "scan.nii.gz", "--labels", tmp_path / "labels.nii.gz", "--spacing", 9, "--fibres", 1,
                    "--snr", 0, "--directions", 20)  # fmt: skip
    assert done.returncode == 0, done.stderr
    scan = read_scan(tmp_path / "scan.nii.gz", progress=Progress())
    fibres = read_volume(tmp_path / "scan_directions.nii.gz", ndim=4).data
    places = np.argwhere(np.linalg.norm(fibres[..., :3], axis=3) > 0.95)[:40]
    axes = np.array([main_axis(scan.image.data[tuple(p)], scan.table.bvals, scan.table.world) for p in places])
    truth = np.array([fibres[tuple(p)][:3] for p in places])
    assert len(places) == 40 and np.diag(same_axis_angle(axes, truth)).max() < 1.5


def test_scheme_of_files_and_noise_free_copy(tmp_path):
    assert simulate(tmp_path / "first.nii.gz", *SMALL).returncode == 0
    words = ("--bvecs", tmp_path / "first.bvec", "--bvals", tmp_path / "first.bval")
    done = simulate(tmp_path / "second.nii.gz", *SMALL, *words, "--noise-free", tmp_path / "clean.nii.gz", "--seed", 1)
    assert done.returncode == 0, done.stderr
    first, second = (np.loadtxt(tmp_path / f"{name}.bvec") for name in ("first", "second"))
    np.testing.assert_allclose(first, second, atol=1e-7)
    noisy, clean = (read_volume(tmp_path / f"{name}.nii.gz", ndim=4).data for name in ("second", "clean"))
    assert 50 < np.std((noisy - clean)[clean > 500]) < 250


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("scan.bval",), "does not end in an image suffix"),
        (("scan.nii.gz", "--shells", 50), "different b-values from 100"),
        (("scan.nii.gz", "--directions", 6, 6), "2 numbers of directions for 1 shells"),
        (("scan.nii.gz", "--bvecs", "x"), "belong together"),
        (("scan.nii.gz", "--bvecs", "x", "--bvals", "y", "--b0", 1), "by files and by numbers"),
        (("scan.nii.gz", "--labels", "none.nii.gz"), "none.nii.gz does not exist"),
        (("scan.nii.gz", "--labels", "none.nii.gz", "--size", 20, 20, 20), "--size is for the built-in"),
        (("scan.nii.gz", "--snr", "nan"), "signal-to-noise"),
        (("scan.nii.gz", "--size", 4, 20, 20), "too small"),
        (("scan.nii.gz", "--bvecs", "none.bvec", "--bvals", "none.bval"), "none.bval cannot be read"),
    ],
)
def test_refusals_leave_nothing(tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    done = simulate(*words)
    assert done.returncode in (1, 2) and sentence in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []
