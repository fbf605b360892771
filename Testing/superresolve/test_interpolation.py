"""Scans that were interpolated from thick slices are recognised, and isotropic ones are not taken for such."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.errors import RequestError
from mri_deep_tools.geometry import resample_to
from mri_deep_tools.superresolve.interpolation import find_interpolation
from mri_deep_tools.superresolve.simulate import SliceStack, acquire
from mri_deep_tools.superresolve.slices import understand_slices
from mri_deep_tools.volume import Volume, write_volume
from scipy.ndimage import gaussian_filter

SHAPE = (72, 80, 68)


@pytest.fixture(scope="module")
def textured() -> Volume:
    """Return an ellipsoid of texture at 1 mm, with detail of all sizes and some noise, in other axes than RAS."""
    rng = np.random.default_rng(5)
    texture = sum(gaussian_filter(rng.normal(size=SHAPE), sigma) * sigma**1.5 for sigma in (0.7, 1.5, 3, 6))
    places = np.indices(SHAPE).transpose(1, 2, 3, 0) - (np.array(SHAPE) - 1) / 2
    head = ((places / (np.array(SHAPE) * 0.42)) ** 2).sum(axis=-1) < 1
    affine = np.array([[0, 0, 1, -30], [-1, 0, 0, 40], [0, 1, 0, -20], [0, 0, 0, 1.0]])
    return Volume(np.where(head, 300 + 60 * texture, 0).astype(np.float32), affine)


def thick_and_back(volume: Volume, axis: int, spacing: float, order: int, noise: float = 0.01) -> Volume:
    return resample_to(
        acquire(volume, SliceStack(axis, spacing, spacing), noise=noise), volume.shape3, volume.affine, order=order
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [3.0, 4.0, 4.4, 5.0])
def test_slices_are_recognised_after_cubic_interpolation(textured, axis, spacing):
    found = find_interpolation(thick_and_back(textured, axis, spacing, 3))
    assert found is not None
    assert found.axis == axis
    assert found.spacing_mm == pytest.approx(spacing, abs=0.15)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_direction_is_recognised_after_linear_interpolation(textured, axis):
    found = find_interpolation(thick_and_back(textured, axis, 4.0, 1))
    assert found is not None
    assert found.axis == axis


def test_isotropic_scans_are_left_alone(textured, golden):
    from mri_deep_tools.volume import read_volume

    assert find_interpolation(textured) is None
    smooth = textured.with_data(gaussian_filter(textured.data, 1.5))
    assert find_interpolation(smooth) is None
    rather = textured.with_data(gaussian_filter(textured.data, (0.5, 0.5, 0.8)))
    assert find_interpolation(rather) is None
    for name in ("t1w", "t2w_iso"):
        assert find_interpolation(read_volume(golden(f"{name}.nii.gz"))) is None


def test_content_that_tells_nothing_is_no_reason_to_fail(textured):
    assert find_interpolation(Volume(np.zeros((40, 40, 40)), np.eye(4))) is None
    assert find_interpolation(Volume(np.ones((40, 40, 40)), np.eye(4))) is None
    assert find_interpolation(Volume(textured.data[:10], textured.affine)) is None


def test_a_recognised_scan_is_taken_as_slices_and_the_person_has_the_last_word(textured):
    scan = thick_and_back(textured, 1, 4.0, 3)  # the second array axis runs from foot to head here
    slices, notes = understand_slices(scan, None, "scan.nii")
    assert slices is not None
    assert slices.direction == "axial"
    assert slices.told_by == "assumed"
    assert slices.count == 20
    assert "looks as if it was interpolated from axial slices about 4 mm apart" in notes[0]
    slices, notes = understand_slices(scan, None, "scan.nii", direction="axial", spacing_mm=5.0)
    assert slices is not None
    assert slices.spacing_mm == 5.0
    assert not any("looks as if" in text for text in notes)
    with pytest.raises(RequestError, match="nothing to do"):
        understand_slices(scan, None, "scan.nii", direction="sagittal")
    with pytest.raises(RequestError, match="nothing to do"):
        understand_slices(textured, None, "scan.nii")
    slices, notes = understand_slices(textured, None, "scan.nii", registered=True)
    assert slices is None
    assert "is not known" in notes[0]


# --------------------------------------------------------------------------------------------------------- --describe


def test_describe_prints_what_a_run_would_assume(textured, tmp_path, capsys):
    thick = acquire(textured, SliceStack(1, 3.0, 4.0))
    path = write_volume(thick, tmp_path / "sub-01_T2w.nii.gz")
    assert main(["superresolve", "--describe", "--t2", str(path)]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["Slices"]["Direction"] == "axial"
    assert told["Slices"]["SpacingMm"] == 4
    assert told["Slices"]["ThicknessToldBy"] == "assumed"
    assert told["Warnings"] == []
    assert err == ""
    (tmp_path / "sub-01_T2w.json").write_text('{"SliceThickness": 3.0}')
    assert main(["superresolve", "--describe", "--t2", str(path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "with gaps of 1 mm" in told["Words"]
    assert told["Slices"]["ThicknessToldBy"] == "sidecar"
    assert main(["superresolve", "--describe", "--t2", str(path), "--slice-thickness", "1.5"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "larger than the slices" in told["Warnings"][0]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["sub-01_T2w.json", "sub-01_T2w.nii.gz"]


def test_describe_refuses_what_a_run_would_refuse(textured, tmp_path, capsys):
    path = write_volume(textured, tmp_path / "iso.nii.gz")
    for words, expected in (
        (["--t2", str(path)], "nothing to do"),
        ([], "needs a scan"),
        (["--t2", str(tmp_path / "none.nii")], "none.nii does not exist"),
    ):
        assert main(["superresolve", "--describe", *words]) == 2
        assert expected in capsys.readouterr().err
