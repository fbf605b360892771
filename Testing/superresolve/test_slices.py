"""How slices are read from files, and what is said about them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from mri_deep_tools.errors import InputError, RequestError
from mri_deep_tools.superresolve.frames import name_conflicts
from mri_deep_tools.superresolve.slices import check_stack, detect_slices, read_thickness
from mri_deep_tools.volume import Volume, read_volume, write_volume


def scan(shape=(20, 22, 12), spacing=(1.0, 1.0, 4.0), seed=0):
    return Volume(np.random.default_rng(seed).random(shape).astype(np.float32), np.diag([*spacing, 1.0]))


@pytest.mark.parametrize(
    ("spacing", "axis", "direction"),
    [((1, 1, 4), 2, "axial"), ((0.8, 3, 0.8), 1, "coronal"), ((5, 0.5, 0.9), 0, "sagittal")],
)
def test_direction_and_spacing_come_from_the_voxels(spacing, axis, direction):
    found = detect_slices(scan(spacing=spacing))
    assert (found.axis, found.direction, found.spacing_mm) == (axis, direction, spacing[axis])
    assert found.gap_mm == 0
    assert "(thickness assumed)" in found.words()
    assert detect_slices(scan(spacing=(1, 1, 1.2))) is None


def test_the_thickness_comes_from_the_sidecar(tmp_path):
    path = write_volume(scan(), tmp_path / "sub-1_T2w.nii.gz")
    assert read_thickness(path) == (None, "assumed")
    (tmp_path / "sub-1_T2w.json").write_text(json.dumps({"SliceThickness": 3.2}))
    found = detect_slices(read_volume(path), path)
    assert found.told_by == "sidecar"
    assert found.gap_mm == pytest.approx(0.8)
    assert found.words() == "12 axial slices of 3.2 mm every 4 mm, with gaps of 0.8 mm; 1 x 1 mm in the plane"
    said = detect_slices(read_volume(path), path, thickness_mm=5.0)
    assert said.told_by == "request"
    assert "overlapping by 1 mm" in said.words()
    (tmp_path / "sub-1_T2w.json").write_text("not json")
    assert read_thickness(path) == (None, "assumed")


def test_the_thickness_comes_from_dicom(tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    values = np.random.default_rng(0).integers(0, 900, (12, 22, 20)).astype(np.int16)
    for index, plane in enumerate(values):
        image = sitk.GetImageFromArray(plane[None])
        image.SetSpacing((0.9, 0.9, 4.5))
        tags = {
            "0008|0060": "MR",
            "0020|000e": "1.2.826.0.1.3680043.2.1125.1",
            "0020|0032": f"0\\0\\{4.5 * index}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0018|0050": "3.5",
            "0020|0013": str(index),
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.1.{index + 1}",
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(series / f"{index:03}.dcm"))
        writer.Execute(image)
    volume = read_volume(series)
    found = detect_slices(volume, series)
    assert found.told_by == "DICOM"
    assert found.thickness_mm == 3.5
    assert found.spacing_mm == pytest.approx(4.5)


def test_an_interpolated_scan_needs_to_be_told():
    volume = scan((20, 20, 40), (1, 1, 1))
    found = detect_slices(volume, direction="coronal", spacing_mm=4.0)
    assert (found.axis, found.count, found.direction) == (1, 5, "coronal")
    with pytest.raises(RequestError, match="not sagittal"):
        detect_slices(scan(), direction="sagittal")
    with pytest.raises(RequestError, match="above 0"):
        detect_slices(scan(), thickness_mm=-1)


def test_odd_stacks_are_told():
    volume = scan((20, 22, 16))
    gaps = check_stack(volume, detect_slices(volume, thickness_mm=1.0), "x.nii")
    assert any("larger than the slices" in note for note in gaps)
    overlap = check_stack(volume, detect_slices(volume, thickness_mm=6.0), "x.nii")
    assert any("overlap by 2 mm" in note for note in overlap)
    with pytest.raises(InputError, match="too few"):
        check_stack(volume, detect_slices(scan((20, 20, 2))), "x.nii")


def test_motion_between_two_passes_is_told():
    """A smooth object; every second slice is shifted by three voxels."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (32, 32, 20)), indexing="ij"))
    smooth = 100 * np.exp(-((grid[0] - 16) ** 2 + (grid[1] - 16) ** 2) / 60 - (grid[2] - 10) ** 2 / 80)
    still = Volume(smooth, np.diag([1, 1, 4, 1.0]))
    assert check_stack(still, detect_slices(still), "x.nii") == []
    moved = smooth.copy()
    moved[:, :, 1::2] = np.roll(smooth, 3, axis=0)[:, :, 1::2]
    shaken = Volume(moved, still.affine)
    assert any("interleaved" in note for note in check_stack(shaken, detect_slices(shaken), "x.nii"))


def test_names_of_other_subjects_or_sessions_are_told():
    assert name_conflicts("sub-01_ses-1mo_T2w.nii.gz", "sub-01_ses-1mo_T1w.nii.gz") == []
    assert "sessions" in name_conflicts("sub-01_ses-1mo_T2w.nii.gz", "sub-01_ses-2mo_T1w.nii.gz")[0]
    assert "subjects" in name_conflicts("sub-01_T2w.nii.gz", "sub-02_T1w.nii.gz")[0]
    assert name_conflicts("t2.nii.gz", "sub-02_T1w.nii.gz") == []
