"""Folders with DICOM slices, written with GDCM as a scanner would: one upright series is read, all else is refused."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from mri_deep_tools.errors import GeometryError, InputError
from mri_deep_tools.volume import read_volume, write_volume

SHAPE = (9, 11, 6)  # columns, rows, slices
SPACING = (0.75, 1.25, 3.0)
ORIGIN = np.array([-20.0, 15.0, 40.0])  # LPS
PATIENT = "Doe^Jane"


def values(dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(11).integers(0, 1000, SHAPE).astype(dtype)


def oblique() -> np.ndarray:
    """Return the directions of columns, rows and slices, as columns of a rotation in LPS."""
    tilt, turn = np.radians(12), np.radians(-8)
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    return about_z @ about_x


def write_series(
    folder: Path,
    positions: Sequence[np.ndarray] | None = None,
    *,
    axes: np.ndarray | None = None,
    number: int = 3,
    order: Sequence[int] | None = None,
    data: np.ndarray | None = None,
    tags: dict[str, str] | None = None,
) -> None:
    """Write slices, one file each; ``positions`` are those of their first pixels in LPS mm."""
    folder.mkdir(parents=True, exist_ok=True)
    axes = oblique() if axes is None else axes
    data = values() if data is None else data
    count = data.shape[2]
    positions = [ORIGIN + k * SPACING[2] * axes[:, 2] for k in range(count)] if positions is None else positions
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for name, k in enumerate(range(count) if order is None else order):
        image = sitk.GetImageFromArray(np.ascontiguousarray(data[:, :, k].T)[None])
        image.SetSpacing(SPACING)
        facts = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.{number}.{k + 1}",
            "0008|0060": "MR",
            "0010|0010": PATIENT,
            "0020|000d": "1.2.826.0.1.3680043.2.1125.99",
            "0020|000e": f"1.2.826.0.1.3680043.2.1125.{number}",
            "0020|0011": str(number),
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{x:.6f}" for x in positions[k]),
            "0020|0037": "\\".join(f"{x:.9f}" for x in axes[:, :2].T.ravel()),
            **(tags or {}),
        }
        for key, text in facts.items():
            image.SetMetaData(key, text)
        writer.SetFileName(str(folder / f"{number}_{name:03d}.dcm"))
        writer.Execute(image)


def refused(folder: Path, pattern: str, error: type[Exception] = InputError) -> None:
    with pytest.raises(error, match=pattern) as caught:
        read_volume(folder)
    assert str(caught.value).startswith(folder.name)
    assert "Doe" not in str(caught.value)
    assert str(folder.parent) not in str(caught.value)


@pytest.mark.parametrize("order", [range(6), [3, 0, 5, 1, 4, 2]])
def test_series(tmp_path, capfd, order):
    """Values lie where the slices say, whatever the order of the files."""
    write_series(tmp_path / "scan", order=order)
    (tmp_path / "scan" / "notes.txt").write_text("not a slice")
    volume = read_volume(tmp_path / "scan")
    assert volume.source.format == "dicom"
    assert volume.source.file_name == volume.source.name == "scan"
    np.testing.assert_array_equal(volume.data, values())
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = oblique() * np.array(SPACING), ORIGIN
    np.testing.assert_allclose(volume.affine, np.diag([-1, -1, 1, 1]) @ lps, atol=1e-5)
    assert volume.spacing == pytest.approx(SPACING, abs=1e-6)
    assert capfd.readouterr().err == ""


def test_nothing_of_the_person_is_kept(tmp_path):
    write_series(tmp_path / "scan")
    volume = read_volume(tmp_path / "scan")
    assert "Doe" not in repr(volume.source)
    for suffix in (".nii", ".nrrd", ".mha", ".mgh", ".npz"):
        assert b"Doe" not in write_volume(volume, tmp_path / f"out{suffix}").read_bytes()


def test_rescaled_values(tmp_path):
    """A computed tomography scan as it usually is: stored values are Hounsfield units + 1024."""
    write_series(tmp_path / "scan", tags={"0028|1052": "-1024", "0028|1053": "1", "0008|0060": "CT"})
    np.testing.assert_array_equal(read_volume(tmp_path / "scan").data, values())


def test_several_series(tmp_path):
    write_series(tmp_path / "scan", number=3)
    write_series(tmp_path / "scan", number=7, data=values()[:, :, :4])
    refused(tmp_path / "scan", r"2 DICOM series \(number 3 with 6 files, number 7 with 4 files\); put the one you want")


def test_no_series(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "without a DICOM series")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.dcm").write_text("no slice")
    refused(tmp_path / "text", "without a DICOM series")


def test_missing_slice(tmp_path):
    write_series(tmp_path / "scan", order=[0, 1, 2, 4, 5])
    refused(tmp_path / "scan", "unequal slice gaps: 6 mm after slice 3, 3 mm elsewhere", GeometryError)


def test_small_irregularity_is_accepted(tmp_path):
    """Positions rounded to a hundredth of a millimetre are not irregular."""
    axes = np.eye(3)
    write_series(tmp_path / "scan", [np.array([0, 0, 3.0 * k + 0.01 * (k % 2)]) for k in range(6)], axes=axes)
    assert read_volume(tmp_path / "scan").spacing[2] == pytest.approx(3, abs=0.01)
    write_series(tmp_path / "coarse", [np.array([0, 0, 3.0 * k + 0.08 * (k == 2)]) for k in range(6)], axes=axes)
    said = []
    assert read_volume(tmp_path / "coarse", on_warning=said.append).spacing[2] == pytest.approx(3)
    assert said == ["coarse: slices lie up to 0.08 mm off even gaps of 3 mm; even gaps are used"]
    write_series(tmp_path / "off", [np.array([0, 0, 3.0 * k + 0.2 * (k == 2)]) for k in range(6)], axes=axes)
    refused(tmp_path / "off", "unequal slice gaps: 3.2 mm after slice 2, 3 mm elsewhere", GeometryError)


def test_tilted_gantry(tmp_path):
    axes = np.eye(3)
    step = np.array([0, np.tan(np.radians(15)), 1]) * 3
    write_series(tmp_path / "scan", [ORIGIN + k * step for k in range(6)], axes=axes)
    refused(tmp_path / "scan", r"tilted gantry \(15\.0 degrees\); convert it to NIfTI with dcm2niix", GeometryError)


def test_slices_that_are_not_parallel(tmp_path):
    write_series(tmp_path / "scan", data=values()[:, :, :3])
    other = oblique()[:, [1, 2, 0]]
    write_series(tmp_path / "more", [ORIGIN + k * other[:, 2] for k in range(3)], axes=other, data=values()[:, :, :3])
    for k, path in enumerate(sorted((tmp_path / "more").iterdir())):
        path.rename(tmp_path / "scan" / f"other{k}.dcm")
    refused(tmp_path / "scan", "not parallel|several images at the same place|unequal slice gaps", InputError)


def test_time_points(tmp_path):
    axes = oblique()
    write_series(tmp_path / "scan", [ORIGIN + (k // 2) * SPACING[2] * axes[:, 2] for k in range(6)])
    refused(tmp_path / "scan", "several images at the same place")


def test_single_slice(tmp_path):
    write_series(tmp_path / "scan", data=values()[:, :, :1])
    refused(tmp_path / "scan", "a single DICOM slice")


@pytest.mark.parametrize("which", [2, 5])
@pytest.mark.parametrize("kept", [600, -120])
def test_damaged_slice(tmp_path, which, kept):
    """A slice that is cut short is not left out silently, not even the last one."""
    write_series(tmp_path / "scan")
    path = sorted((tmp_path / "scan").iterdir())[which]
    path.write_bytes(path.read_bytes()[:kept])
    refused(tmp_path / "scan", f"is not complete .*: 3_00{which}.dcm cannot be read")


def test_report_beside_the_slices(tmp_path):
    write_series(tmp_path / "scan")
    raw = sorted((tmp_path / "scan").iterdir())[0].read_bytes()[:600]
    (tmp_path / "scan" / "report").write_bytes(raw.replace(b"5.1.4.1.1.4\0", b"5.1.4.1.1.66"))
    np.testing.assert_array_equal(read_volume(tmp_path / "scan").data, values())


# ----------------------------------------------------------------------------------------- many frames in one file


def element(tag: int, kind: str, value: bytes) -> bytes:
    """Return one element in explicit little endian (DICOM part 5, section 7.1)."""
    value += (b"\0" if kind in ("UI", "OW", "SQ") else b" ") * (len(value) % 2)
    long = kind in ("OW", "SQ", "OB")
    length = (b"\0\0" + struct.pack("<I", len(value))) if long else struct.pack("<H", len(value))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind.encode() + length + value


def items(*contents: bytes) -> bytes:
    return b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content for content in contents)


def numbers(values: Sequence[float]) -> bytes:
    return "\\".join(f"{value:.6f}" for value in values).encode()


def write_frames(folder: Path, positions: Sequence[np.ndarray], axes: np.ndarray) -> None:
    """Write an Enhanced MR image whose k-th frame holds the k-th slice of ``values()``."""
    folder.mkdir()
    storage, instance = b"1.2.840.10008.5.1.4.1.1.4.1", b"1.2.826.0.1.3680043.2.1125.5"
    meta = element(0x00020001, "OB", b"\0\1") + element(0x00020002, "UI", storage)
    meta += element(0x00020003, "UI", instance) + element(0x00020010, "UI", b"1.2.840.10008.1.2.1")
    short = {0x00280002: 1, 0x00280010: SHAPE[1], 0x00280011: SHAPE[0], 0x00280100: 16, 0x00280101: 16, 0x00280102: 15}
    pixels = {**{tag: struct.pack("<H", value) for tag, value in short.items()}, 0x00280103: b"\0\0"}
    measures = element(0x00180050, "DS", b"3") + element(0x00280030, "DS", numbers((SPACING[1], SPACING[0])))
    shared = element(0x00209116, "SQ", items(element(0x00200037, "DS", numbers(axes[:, :2].T.ravel()))))
    shared += element(0x00289110, "SQ", items(measures))
    frames = [element(0x00209113, "SQ", items(element(0x00200032, "DS", numbers(place)))) for place in positions]
    body = element(0x00080016, "UI", storage) + element(0x00080018, "UI", instance) + element(0x00080060, "CS", b"MR")
    body += element(0x00100010, "PN", PATIENT.encode()) + element(0x0020000E, "UI", instance + b".1")
    body += element(0x00280004, "CS", b"MONOCHROME2") + element(0x00280008, "IS", str(len(frames)).encode())
    body += b"".join(element(tag, "US", value) for tag, value in sorted(pixels.items()))
    body += element(0x52009229, "SQ", items(shared)) + element(0x52009230, "SQ", items(*frames))
    body += element(0x7FE00010, "OW", values(np.uint16).tobytes("F"))
    group = element(0x00020000, "UL", struct.pack("<I", len(meta)))
    (folder / "frames.dcm").write_bytes(bytes(128) + b"DICM" + group + meta + body)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 5, 1, 4, 3]])
def test_frames_of_one_file(tmp_path, order):
    """Frame k lies at place ``order[k]`` of the stack; values follow their places."""
    axes = oblique()
    write_frames(tmp_path / "scan", [ORIGIN + place * SPACING[2] * axes[:, 2] for place in order], axes)
    volume = read_volume(tmp_path / "scan")
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = axes * np.array(SPACING), ORIGIN
    np.testing.assert_allclose(volume.affine, np.diag([-1, -1, 1, 1]) @ lps, atol=1e-4)
    np.testing.assert_array_equal(volume.data[:, :, order], values())


def test_frames_that_are_no_stack(tmp_path):
    up = np.array([0, 0, 3.0])
    write_frames(tmp_path / "time", [k % 3 * up for k in range(6)], np.eye(3))
    refused(tmp_path / "time", "several images at the same place")
    write_frames(tmp_path / "gap", [(k + 2 * (k > 3)) * up for k in range(6)], np.eye(3))
    refused(tmp_path / "gap", "unequal slice gaps: 9 mm after slice 4", GeometryError)
    write_frames(tmp_path / "tilt", [k * np.array([0, 1, 3.0]) for k in range(6)], np.eye(3))
    refused(tmp_path / "tilt", "tilted gantry", GeometryError)
