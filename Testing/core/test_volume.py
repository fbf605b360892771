"""Image files written by other programs' libraries, read here; written here, read by those libraries."""

from __future__ import annotations

import hashlib
import warnings
from itertools import product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from mri_deep_tools.errors import GeometryError, InputError, OutputError, RequestError
from mri_deep_tools.geometry import AFFINE_ATOL, all_orientations, same_grid
from mri_deep_tools.volume import (
    SUFFIXES,
    Source,
    Volume,
    is_image_path,
    list_images,
    read_volume,
    split_suffix,
    write_volume,
)

SHAPE = (5, 6, 7)


def rotation(*degrees: float) -> np.ndarray:
    x, y, z = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def affine_of(
    spacing=(0.9, 1.1, 2.5), degrees=(10, -15, 20), origin=(-31.25, 14.5, 7.75), flip=(1, 1, 1)
) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation(*degrees) * np.array(spacing) * np.array(flip)
    affine[:3, 3] = origin
    return affine


def values(dtype="float32", shape=SHAPE) -> np.ndarray:
    rng = np.random.default_rng(3)
    if np.dtype(dtype).kind == "f":
        return rng.normal(100, 30, shape).astype(dtype)
    return rng.integers(0, 100, shape).astype(dtype)


@pytest.fixture
def quiet():
    """Turn warnings into errors: nothing is said about files that are in order."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ------------------------------------------------------------------------------------------------- what others wrote


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
def test_nifti_types_and_byte_orders(tmp_path, quiet, suffix, kind, dtype, order):
    image = kind(values(dtype), affine_of(), dtype=dtype)
    header = image.header.as_byteswapped(order)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    nib.save(kind(values(dtype), affine_of(), header), tmp_path / f"scan{suffix}")
    volume = read_volume(tmp_path / f"scan{suffix}")
    assert volume.data.dtype == np.dtype(dtype)
    assert volume.data.dtype.isnative
    np.testing.assert_array_equal(volume.data, values(dtype))
    np.testing.assert_allclose(volume.affine, affine_of(), atol=AFFINE_ATOL)
    assert volume.source.dtype == np.dtype(dtype).name


@pytest.mark.parametrize("suffix", [".mgz", ".mgh"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_mgh_types(tmp_path, quiet, suffix, dtype):
    nib.save(nib.MGHImage(values(dtype), affine_of()), tmp_path / f"scan{suffix}")
    volume = read_volume(tmp_path / f"scan{suffix}")
    assert volume.data.dtype == dtype
    np.testing.assert_array_equal(volume.data, values(dtype))
    np.testing.assert_allclose(volume.affine, affine_of(), atol=AFFINE_ATOL)
    assert volume.source.format == "mgz"
    assert volume.source.header_spacing == pytest.approx((0.9, 1.1, 2.5), rel=1e-6)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_itk_formats(tmp_path, quiet, suffix, dtype, compress):
    image = sitk.GetImageFromArray(values(dtype).T)
    lps = np.diag([-1, -1, 1, 1]) @ affine_of()
    image.SetSpacing((0.9, 1.1, 2.5))
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / (0.9, 1.1, 2.5)).ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"), compress)
    volume = read_volume(tmp_path / f"scan{suffix}")
    assert volume.data.dtype == dtype
    np.testing.assert_array_equal(volume.data, values(dtype))
    np.testing.assert_allclose(volume.affine, affine_of(), atol=1e-9)


def test_nrrd_in_other_spaces(tmp_path):
    """The same scan, its directions once given in RAS and once in LPS, lies at the same place."""
    body = values("int16").tobytes("F")
    places = {}
    for space, sign in (("right-anterior-superior", 1), ("left-posterior-superior", -1)):
        text = (
            f"NRRD0004\ntype: short\ndimension: 3\nspace: {space}\nsizes: 5 6 7\nspace directions: "
            f"({2 * sign},0,0) (0,{3 * sign},0) (0,0,4)\nkinds: domain domain domain\nendian: little\n"
            f"encoding: raw\nspace origin: ({10 * sign},{20 * sign},30)\n\n"
        )
        (tmp_path / "scan.nrrd").write_bytes(text.encode() + body)
        places[space] = read_volume(tmp_path / "scan.nrrd")
    expected = np.array([[2, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1.0]])
    for volume in places.values():
        np.testing.assert_allclose(volume.affine, expected, atol=1e-12)
        np.testing.assert_array_equal(volume.data, values("int16"))


def test_nrrd_without_orientation_warns(tmp_path):
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 6 7\nendian: little\nencoding: raw\n\n"
    (tmp_path / "scan.nrrd").write_bytes(head.encode() + values("int16").tobytes("F"))
    said = []
    volume = read_volume(tmp_path / "scan.nrrd", on_warning=said.append)
    assert volume.axcodes == ("L", "P", "S")
    assert len(said) == 1
    assert said[0].startswith("scan.nrrd: has no orientation")


def test_channels_of_itk_files(tmp_path, quiet):
    """Vector components become the last axis, whether written by ITK or here."""
    data = values("float32", (*SHAPE, 4))
    write_volume(Volume(data, affine_of()), tmp_path / "ours.nrrd")
    np.testing.assert_array_equal(read_volume(tmp_path / "ours.nrrd", ndim=None).data, data)
    image = sitk.JoinSeries([sitk.GetImageFromArray(data[..., k].T) for k in range(4)])
    sitk.WriteImage(image, str(tmp_path / "frames.mha"))
    np.testing.assert_array_equal(read_volume(tmp_path / "frames.mha", ndim=None).data, data)


def test_npz(tmp_path, quiet):
    np.savez_compressed(tmp_path / "map.npz", vol_data=values("int32"))
    volume = read_volume(tmp_path / "map.npz")
    np.testing.assert_array_equal(volume.data, values("int32"))
    np.testing.assert_array_equal(volume.affine, np.eye(4))
    write_volume(Volume(values(), affine_of()), tmp_path / "placed.npz")
    np.testing.assert_array_equal(read_volume(tmp_path / "placed.npz").affine, affine_of())


@pytest.mark.parametrize("name", ["aniso_oblique.nii.gz", "near1mm_scaled.nii.gz", "ct_hu.nii.gz", "conformed.mgz"])
def test_golden_inputs_as_nibabel_reads_them(shared, quiet, name):
    path = shared("fixtures", "synthseg", "inputs", name)
    image, volume = nib.load(path), read_volume(path)
    np.testing.assert_allclose(volume.data, image.get_fdata(), atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(volume.affine, image.affine, atol=1e-6)
    np.testing.assert_allclose(volume.source.header_spacing, image.header.get_zooms()[:3], rtol=1e-6)
    assert volume.axcodes == nib.aff2axcodes(image.affine)


# ------------------------------------------------------------------------------------------------------- orientation


@pytest.mark.parametrize("code", all_orientations())
def test_axcodes_match_nibabel(code):
    steps = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    affine = np.eye(4)
    affine[:3, :3] = np.array([steps[letter] for letter in code]).T
    assert Volume(values(), affine).axcodes == tuple(code) == nib.aff2axcodes(affine)


@pytest.mark.parametrize(("sform", "qform", "used"), [(1, 0, "s"), (0, 1, "q"), (2, 1, "s"), (4, 3, "s")])
def test_which_form_is_used(tmp_path, sform, qform, used):
    forms = {"s": affine_of(origin=(0, 0, 0)), "q": affine_of(origin=(0, 0, 5))}
    image = nib.Nifti1Image(values(), None)
    image.set_sform(forms["s"], sform)
    image.set_qform(forms["q"], qform)
    nib.save(image, tmp_path / "scan.nii")
    said = []
    volume = read_volume(tmp_path / "scan.nii", on_warning=said.append)
    np.testing.assert_allclose(volume.affine, forms[used], atol=AFFINE_ATOL)
    assert (volume.source.sform_code, volume.source.qform_code) == (sform, qform)
    if sform and qform:
        codes = f"sform (code {sform}) and qform (code {qform})"
        assert said == [f"scan.nii: {codes} differ by up to 5 mm at the corners; the sform is used"]
    else:
        assert said == []


def test_forms_within_tolerance_are_not_mentioned(tmp_path, quiet):
    image = nib.Nifti1Image(values(), None)
    image.set_sform(affine_of(), 1)
    image.set_qform(affine_of(origin=(-31.25, 14.5, 7.80)), 1)
    nib.save(image, tmp_path / "scan.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "scan.nii").affine, affine_of(), atol=AFFINE_ATOL)


def test_no_orientation_is_what_nibabel_takes_it_for(tmp_path):
    image = nib.Nifti1Image(values(), None)
    image.header.set_zooms((2, 3, 4))
    nib.save(image, tmp_path / "scan.nii")
    said = []
    volume = read_volume(tmp_path / "scan.nii", on_warning=said.append)
    np.testing.assert_allclose(volume.affine, nib.load(tmp_path / "scan.nii").affine, atol=1e-6)
    assert volume.axcodes == ("L", "A", "S")
    assert "sform and qform code 0" in said[0]
    write_volume(volume, tmp_path / "again.nii")
    again = nib.load(tmp_path / "again.nii")
    assert (int(again.header["sform_code"]), int(again.header["qform_code"])) == (0, 0)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-6)


def test_singular_sform_gives_way_to_qform(tmp_path):
    image = nib.Nifti1Image(values(), None)
    image.set_qform(affine_of(), 1)
    image.set_sform(affine_of(), 1)
    nib.save(image, tmp_path / "scan.nii")
    raw = bytearray((tmp_path / "scan.nii").read_bytes())
    raw[312:328] = bytes(16)  # srow_z
    (tmp_path / "scan.nii").write_bytes(raw)
    said = []
    volume = read_volume(tmp_path / "scan.nii", on_warning=said.append)
    np.testing.assert_allclose(volume.affine, affine_of(), atol=AFFINE_ATOL)
    assert said == ["scan.nii: the sform is singular or not finite; the qform is used"]


def test_wrongly_scaled_sform_is_mentioned(tmp_path):
    image = nib.Nifti1Image(values(), None)
    image.set_sform(affine_of((9, 11, 25)), 1)
    image.header.set_zooms((0.9, 1.1, 2.5))
    nib.save(image, tmp_path / "scan.nii")
    said = []
    volume = read_volume(tmp_path / "scan.nii", on_warning=said.append)
    assert volume.spacing == pytest.approx((9, 11, 25))
    assert volume.source.header_spacing == pytest.approx((0.9, 1.1, 2.5))
    assert said == [
        "scan.nii: the header states voxels of 0.9 x 1.1 x 2.5 mm, its affine 9 x 11 x 25 mm; "
        "positions follow the affine"
    ]


@pytest.mark.parametrize("flip", list(product((1, -1), repeat=3)))
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_handedness_and_obliqueness_survive(tmp_path, quiet, suffix, flip):
    volume = Volume(values(), affine_of(flip=flip))
    back = read_volume(write_volume(volume, tmp_path / f"scan{suffix}"))
    assert back.is_left_handed == volume.is_left_handed == (np.prod(flip) < 0)
    assert back.oblique_degrees == pytest.approx(volume.oblique_degrees, abs=1e-3)
    assert same_grid(back, volume)
    np.testing.assert_array_equal(back.data, volume.data)


@pytest.mark.parametrize("spacing", [(0.05, 0.05, 0.05), (12, 12, 12), (0.4, 0.4, 6)])
@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz", ".nrrd", ".mha"])
def test_small_and_large_voxels(tmp_path, quiet, spacing, suffix):
    volume = Volume(values(), affine_of(spacing))
    back = read_volume(write_volume(volume, tmp_path / f"scan{suffix}"))
    assert back.spacing == pytest.approx(spacing, rel=1e-5)
    assert same_grid(back, volume)


@pytest.mark.parametrize(("code", "scale"), [(1, 1000.0), (3, 0.001)])
def test_units_other_than_mm(tmp_path, code, scale):
    affine = affine_of()
    affine[:3] /= scale
    image = nib.Nifti1Image(values(), affine)
    image.header["xyzt_units"] = code
    nib.save(image, tmp_path / "scan.nii")
    said = []
    volume = read_volume(tmp_path / "scan.nii", on_warning=said.append)
    np.testing.assert_allclose(volume.affine, affine_of(), rtol=1e-5, atol=AFFINE_ATOL)
    assert volume.source.header_spacing == pytest.approx((0.9, 1.1, 2.5), rel=1e-5)
    assert "converted to mm" in said[0]


def test_units_that_cannot_be_meant(tmp_path):
    image = nib.Nifti1Image(values(), affine_of())
    image.header["xyzt_units"] = 1  # a voxel of 0.9 m
    nib.save(image, tmp_path / "scan.nii")
    said = []
    np.testing.assert_allclose(
        read_volume(tmp_path / "scan.nii", on_warning=said.append).affine, affine_of(), atol=1e-4
    )
    assert "not plausible" in said[0]


# --------------------------------------------------------------------------------------------------------- intensities


def with_scaling(path, slope: float, intercept: float, dtype="int16") -> np.ndarray:
    """Write integers and then put the scale factors into the header."""
    data = values(dtype)
    nib.save(nib.Nifti1Image(data, affine_of(), dtype=dtype), path)
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([slope, intercept], dtype="<f4").tobytes()
    path.write_bytes(raw)
    return data


def test_scale_factors(tmp_path, quiet):
    data = with_scaling(tmp_path / "scan.nii", 0.25, -10)
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.data.dtype == np.float32
    np.testing.assert_array_equal(volume.data, data * 0.25 - 10)


def test_scale_factors_beyond_float32(tmp_path, quiet):
    data = with_scaling(tmp_path / "scan.nii", 0.25, 16_777_216)
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.data.dtype == np.float64
    np.testing.assert_array_equal(volume.data, data * 0.25 + 16_777_216)


@pytest.mark.parametrize("slope", [0, np.nan])
@pytest.mark.parametrize("intercept", [0, np.nan])
def test_usual_ways_to_say_unscaled(tmp_path, quiet, slope, intercept):
    data = with_scaling(tmp_path / "scan.nii", slope, intercept)
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.data.dtype == np.int16
    np.testing.assert_array_equal(volume.data, data)
    assert "values are not scaled" in volume.source.notes[0]


@pytest.mark.parametrize(("slope", "intercept"), [(0, 7), (np.nan, 7), (np.inf, 0)])
def test_odd_slopes_are_warned_of(tmp_path, slope, intercept):
    data = with_scaling(tmp_path / "scan.nii", slope, intercept)
    said = []
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii", on_warning=said.append).data, data)
    assert "values are not scaled" in said[0]


def test_intercept_that_is_no_number(tmp_path):
    data = with_scaling(tmp_path / "scan.nii", 2, np.nan)
    said = []
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii", on_warning=said.append).data, data * 2.0)
    assert said == ["scan.nii: scl_inter is nan and is not added"]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".npz", ".mgz"])
def test_values_that_are_no_numbers(tmp_path, suffix):
    data = values()
    data[0, 1, 2], data[3, 4, 5], data[1, 1, 1] = np.nan, np.inf, -np.inf
    write_volume(Volume(data, affine_of()), tmp_path / f"scan{suffix}")
    said = []
    volume = read_volume(tmp_path / f"scan{suffix}", on_warning=said.append)
    assert said == [f"scan{suffix}: 3 of 210 voxels are NaN or infinite and were set to 0"]
    np.testing.assert_array_equal(volume.data, np.where(np.isfinite(data), data, 0))


def test_type_on_request(tmp_path):
    labels = (values("int32") - 1e-4).astype(np.float32)
    write_volume(Volume(labels, affine_of()), tmp_path / "seg.nii")
    read = read_volume(tmp_path / "seg.nii", dtype=np.int32)
    np.testing.assert_array_equal(read.data, values("int32"))


# -------------------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mgz", ".nrrd", ".npz"])
def test_frames(tmp_path, suffix):
    data = values("float32", (*SHAPE, 3))
    write_volume(Volume(data, affine_of()), tmp_path / f"scan{suffix}")
    said = []
    first = read_volume(tmp_path / f"scan{suffix}", on_warning=said.append)
    np.testing.assert_array_equal(first.data, data[..., 0])
    assert said == [f"scan{suffix}: has 3 frames (axis 4 of 5 x 6 x 7 x 3); frame 0 is used"]
    np.testing.assert_array_equal(
        read_volume(tmp_path / f"scan{suffix}", frame=2, on_warning=said.append).data, data[..., 2]
    )
    np.testing.assert_array_equal(read_volume(tmp_path / f"scan{suffix}", ndim=None).data, data)
    with pytest.raises(RequestError, match="no frame 3"):
        read_volume(tmp_path / f"scan{suffix}", frame=3)


@pytest.mark.parametrize("shape", [(*SHAPE, 1), (*SHAPE, 1, 1)])
def test_axes_of_length_one_are_left_out(tmp_path, quiet, shape):
    nib.save(nib.Nifti1Image(values("float32", shape), affine_of()), tmp_path / "scan.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")
    assert volume.data.shape == SHAPE
    assert "axes of length 1 left out" in volume.source.notes[0]
    assert read_volume(tmp_path / "scan.nii.gz", ndim=4).data.shape == (*SHAPE, 1)


def test_vector_image_of_nifti(tmp_path, quiet):
    """NIfTI keeps vectors on axis 5, behind one time point."""
    data = values("float32", (*SHAPE, 1, 3))
    nib.save(nib.Nifti1Image(data, affine_of()), tmp_path / "field.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "field.nii", ndim=None).data, data[..., 0, :])


# ------------------------------------------------------------------------------------------------------------- writing


def test_header_is_fresh(tmp_path):
    image = nib.Nifti1Image(values("int16"), affine_of())
    image.header["descrip"], image.header["cal_max"], image.header["cal_min"] = b"name of a person", 50, 3
    image.header["aux_file"], image.header["intent_name"], image.header["intent_code"] = b"secret", b"x", 5
    image.header["db_name"] = b"date"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"patient"))
    nib.save(image, tmp_path / "in.nii")
    out = write_volume(read_volume(tmp_path / "in.nii"), tmp_path / "out.nii", description="made by a test")
    header = nib.load(out).header
    assert header["descrip"].item() == b"made by a test"
    for key in ("cal_max", "cal_min", "intent_code", "toffset"):
        assert float(header[key]) == 0
    for key in ("aux_file", "intent_name", "db_name"):
        assert header[key].item() == b""
    assert not header.extensions
    assert header.get_xyzt_units()[0] == "mm"
    raw = out.read_bytes()
    assert np.frombuffer(raw[112:120], "<f4").tolist() == [1, 0]
    assert len(raw) == 352 + values("int16").nbytes
    assert b"person" not in raw


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nhdr"])
def test_a_description_is_a_key_of_nrrd_and_metaimage(tmp_path, quiet, name):
    volume = Volume(values("float32"), affine_of())
    plain = write_volume(volume, tmp_path / f"plain_{name}")
    out = write_volume(volume, tmp_path / name, description="SYNTHETIC T2: made\nby a test")
    head = [line.strip() for line in out.read_bytes().splitlines()[:20]]
    assert (
        head.count(
            b"Description:=SYNTHETIC T2: made by a test"
            if b"NRRD" in head[0]
            else b"Description = SYNTHETIC T2: made by a test"
        )
        == 1
    )
    assert b"Description" not in plain.read_bytes()
    np.testing.assert_array_equal(read_volume(out).data, read_volume(plain).data)
    np.testing.assert_array_equal(read_volume(out).affine, read_volume(plain).affine)


@pytest.mark.parametrize("codes", [(1, 1), (4, 1), (2, 0), (0, 1), (0, 3)])
def test_codes_stay_while_the_grid_does(tmp_path, quiet, codes):
    image = nib.Nifti1Image(values(), None)
    image.set_sform(affine_of(), codes[0])
    image.set_qform(affine_of(), codes[1])
    nib.save(image, tmp_path / "in.nii")
    volume = read_volume(tmp_path / "in.nii")
    same = nib.load(write_volume(volume.with_data(values("int32")), tmp_path / "same.nii"))
    assert (int(same.header["sform_code"]), int(same.header["qform_code"])) == codes
    np.testing.assert_array_equal(same.affine, nib.load(tmp_path / "in.nii").affine)
    for form in (same.header.get_sform(), same.header.get_qform()):
        np.testing.assert_allclose(form, affine_of(), atol=AFFINE_ATOL)
    moved = nib.load(write_volume(volume.with_affine(volume.data, affine_of(origin=(0, 0, 0))), tmp_path / "moved.nii"))
    assert (int(moved.header["sform_code"]), int(moved.header["qform_code"])) == (2, 2)


def test_differing_forms_are_carried_over(tmp_path):
    """Whichever form a viewer prefers, it shows the result on top of the input."""
    forms = affine_of(), affine_of(origin=(0, 0, 40), degrees=(0, 0, 0))
    image = nib.Nifti1Image(values(), None)
    image.set_sform(forms[0], 4)
    image.set_qform(forms[1], 1)
    nib.save(image, tmp_path / "in.nii")
    volume = read_volume(tmp_path / "in.nii", on_warning=lambda text: None)
    out = nib.load(write_volume(volume, tmp_path / "out.nii"))
    np.testing.assert_allclose(out.get_sform(), forms[0], atol=AFFINE_ATOL)
    np.testing.assert_allclose(out.get_qform(), forms[1], atol=AFFINE_ATOL)
    assert (int(out.header["sform_code"]), int(out.header["qform_code"])) == (4, 1)


def test_codes_for_other_sources(tmp_path):
    nib.save(nib.MGHImage(values(), affine_of()), tmp_path / "in.mgz")
    from_mgz = nib.load(write_volume(read_volume(tmp_path / "in.mgz"), tmp_path / "a.nii")).header
    assert (int(from_mgz["sform_code"]), int(from_mgz["qform_code"])) == (1, 1)
    from_array = nib.load(write_volume(Volume(values(), affine_of()), tmp_path / "b.nii")).header
    assert (int(from_array["sform_code"]), int(from_array["qform_code"])) == (2, 2)


@pytest.mark.parametrize(
    ("given", "intent", "stored"),
    [
        ("float64", "none", "float32"),
        ("float32", "none", "float32"),
        ("float16", "none", "float32"),
        ("bool", "none", "uint8"),
        ("uint8", "none", "uint8"),
        ("int16", "none", "int16"),
        ("uint32", "none", "int32"),
        ("int64", "none", "int32"),
        ("int64", "label", "int32"),
        ("uint8", "label", "int32"),
        ("float64", "label", "int32"),
        ("bool", "label", "int32"),
    ],
)
def test_types_on_disk(tmp_path, given, intent, stored):
    data = np.rint(values("float64") % 2).astype(given)
    image = nib.load(write_volume(Volume(data, affine_of()), tmp_path / "out.nii.gz", intent=intent))
    assert image.get_data_dtype() == np.dtype(stored)
    np.testing.assert_array_equal(np.asarray(image.dataobj), data.astype(stored))
    assert int(image.header["intent_code"]) == (1002 if intent == "label" else 0)


def test_type_given(tmp_path):
    out = write_volume(Volume(values("int64"), affine_of()), tmp_path / "out.nii.gz", dtype="uint8")
    assert nib.load(out).get_data_dtype() == np.uint8


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (np.full(SHAPE, 300), {"dtype": "uint8"}),
        (np.full(SHAPE, 2**40), {}),
        (np.full(SHAPE, 0.5), {"intent": "label"}),
        (np.full(SHAPE, np.nan), {"intent": "label"}),
        (np.full(SHAPE, 1j), {}),
    ],
)
def test_values_that_do_not_fit(tmp_path, data, options):
    with pytest.raises(OutputError, match=r"^out\.nii cannot hold"):
        write_volume(Volume(data, affine_of()), tmp_path / "out.nii", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_same_content_same_bytes(tmp_path, suffix):
    digests = set()
    for folder, order in (("a", "C"), ("b", "F")):
        volume = Volume(np.array(values("float64"), order=order), affine_of())
        path = write_volume(volume, tmp_path / folder / f"scan{suffix}")
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3)])
def test_memory_layouts(tmp_path, quiet, suffix, shape):
    """Views that are turned and flipped are written as what they show."""
    data = values("float32", shape)
    view = np.flip(data.transpose(2, 0, 1, *range(3, len(shape))), axis=1)
    back = read_volume(write_volume(Volume(view, affine_of()), tmp_path / f"x{suffix}"), ndim=None)
    np.testing.assert_array_equal(back.data, view)


def test_blocks_of_large_volumes(tmp_path, monkeypatch):
    monkeypatch.setattr("mri_deep_tools._write._BLOCK_BYTES", 100)
    for name in ("a.nii.gz", "a.mgz"):
        volume = Volume(values("float32", (*SHAPE, 3)), affine_of())
        np.testing.assert_array_equal(read_volume(write_volume(volume, tmp_path / name), ndim=None).data, volume.data)


def test_long_axis_becomes_nifti2(tmp_path):
    volume = Volume(np.zeros((40000, 2, 2), np.uint8), np.eye(4))
    path = write_volume(volume, tmp_path / "long.nii")
    assert isinstance(nib.load(path), nib.Nifti2Image)
    assert read_volume(path).shape3 == (40000, 2, 2)


def test_other_libraries_read_what_is_written(tmp_path):
    volume = Volume(values(), affine_of())
    for suffix in (".nii", ".nii.gz", ".mgz"):
        image = nib.load(write_volume(volume, tmp_path / f"x{suffix}"))
        np.testing.assert_array_equal(np.asarray(image.dataobj), volume.data)
        np.testing.assert_allclose(image.affine, volume.affine, atol=AFFINE_ATOL)
    for suffix in (".nii.gz", ".nrrd", ".mha", ".nhdr", ".mhd"):
        image = sitk.ReadImage(str(write_volume(volume, tmp_path / f"x{suffix}")))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, volume.data)
        point = image.TransformIndexToPhysicalPoint((4, 3, 2))
        np.testing.assert_allclose(np.array(point) * (-1, -1, 1), (volume.affine @ (4, 3, 2, 1))[:3], atol=1e-4)


# ---------------------------------------------------------------------------------------------------- the volume itself


def test_volume_properties():
    volume = Volume(values(), np.diag([-2, 3, 4, 1.0]))
    assert volume.shape3 == SHAPE
    assert volume.spacing == (2, 3, 4)
    assert volume.axcodes == ("L", "A", "S")
    assert volume.voxel_volume_mm3 == pytest.approx(24)
    assert volume.is_left_handed
    assert volume.oblique_degrees == 0
    assert Volume(values(), affine_of(degrees=(0, 0, 20))).oblique_degrees == pytest.approx(20)
    assert volume.source == Source()


def test_volume_keeps_its_record(tmp_path):
    write_volume(Volume(values(), affine_of()), tmp_path / "sub-01.T1w.nii.gz")
    volume = read_volume(tmp_path / "sub-01.T1w.nii.gz")
    assert (volume.source.name, volume.source.file_name) == ("sub-01.T1w", "sub-01.T1w.nii.gz")
    assert volume.with_data(volume.data[..., None]).source is volume.source
    assert volume.with_affine(volume.data[1:], np.eye(4)).source is volume.source
    with pytest.raises(GeometryError, match="do not fit"):
        volume.with_data(volume.data[1:])


def test_volume_cannot_be_changed_in_place():
    volume = Volume(values(), np.eye(4))
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 0] = 2
    with pytest.raises(InputError):
        Volume(values()[0], np.eye(4))
    with pytest.raises(GeometryError):
        Volume(values(), np.full((4, 4), np.nan))


def test_names(tmp_path):
    assert split_suffix("a/b.c.nii.gz") == ("b.c", ".nii.gz")
    assert split_suffix("X.NII") == ("X", ".nii")
    assert split_suffix("notes.txt") == ("notes.txt", "")
    assert split_suffix(".nii.gz") == (".nii.gz", "")
    assert is_image_path("x.MGZ")
    assert not is_image_path("x.csv")
    for name in ("b.nii.gz", "a.mgz", "c.csv", ".hidden.nii", "d.NRRD"):
        (tmp_path / name).touch()
    (tmp_path / "folder.nii").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.mgz", "b.nii.gz", "d.NRRD"]
    with pytest.raises(InputError, match="nowhere"):
        list_images(tmp_path / "nowhere")


def test_names_with_blanks_and_other_letters(tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / "ein Ordner" / f"Größe 頭{suffix}"
        np.testing.assert_array_equal(read_volume(write_volume(Volume(values(), affine_of()), path)).data, values())
