"""Slices of scans: how they lie, what becomes of intensities, and that the way back is exact."""

from __future__ import annotations

import numpy as np
import pytest
from mri_deep_tools.errors import InputError, RequestError
from mri_deep_tools.geometry import Reorient, all_orientations
from mri_deep_tools.translate.volumes import (
    check_scan,
    foreground,
    head_mask,
    intensity_divisor,
    place_window,
    slice_numbers,
    slice_scan,
)
from mri_deep_tools.volume import Volume


def grid_of(axcodes: str, spacing=(1.0, 1.0, 1.0)) -> np.ndarray:
    """Return an affine whose array axes run in the given directions."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, letter in enumerate(axcodes):
        world = "RLAPSI".index(letter)
        affine[world // 2, axis] = spacing[axis] * (1 if letter in "RAS" else -1)
    affine[:3, 3] = (-31.5, 12.25, 7)
    return affine


def ball(shape, spacing=(1.0, 1.0, 1.0), axcodes="RAS", value=100.0) -> Volume:
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    data = np.where(sum(axis**2 for axis in axes) < 0.6, value + 20 * axes[0], 0)
    return Volume(data.astype(np.float32), grid_of(axcodes, spacing))


@pytest.mark.parametrize(
    ("axis", "count", "shape"), [("axial", 9, (7, 5)), ("coronal", 7, (9, 5)), ("sagittal", 5, (9, 7))]
)
def test_slices_lie_as_pictures_do(axis, count, shape):
    """A mark at the right, front, top corner: in axial slices it lies at the left of the first row of the last one."""
    data = np.zeros((5, 7, 9), np.float32)
    data[4, 6, 8] = 1
    stack = slice_scan(Volume(data, np.eye(4)), 1.0, axis=axis)
    assert stack.values.shape == (count, *shape)
    where = {"axial": (8, 0, 0), "coronal": (6, 0, 0), "sagittal": (4, 0, 0)}[axis]
    assert stack.values[where] == 1
    assert stack.values.sum() == pytest.approx(2 - data.size)


@pytest.mark.parametrize("axcodes", all_orientations())
@pytest.mark.parametrize("axis", ["axial", "sagittal"])
def test_the_way_back_is_exact_in_all_orientations(axcodes, axis):
    data = np.random.default_rng(3).uniform(0, 1, (5, 6, 7)).astype(np.float32)
    straight = Volume(data, grid_of("RAS", (1, 1.5, 2)))
    scan = Reorient.to(straight, axcodes).apply(straight)
    stack = slice_scan(scan, 1.0, axis=axis)
    assert np.array_equal(stack.values, slice_scan(straight, 1.0, axis=axis).values)
    back = stack.back((stack.values + 1) / 2)
    assert np.array_equal(back.affine, scan.affine)
    np.testing.assert_allclose(back.data, scan.data, atol=1e-6)


def test_pixels_are_resampled_only_beyond_five_percent():
    scan = ball((40, 50, 12), (1.03, 1.0, 3))
    assert slice_scan(scan, 100.0, spacing_mm=1.0).values.shape == (12, 50, 40)
    stack = slice_scan(scan, 100.0, spacing_mm=(0.94, 1.2))  # rows first: front to back, then right to left
    assert stack.values.shape == (12, 54, 35)
    assert stack.grid.shape == (54, 35, 12)
    back = stack.back((stack.values + 1) / 2 * 100)
    inside = head_mask(scan.with_data(np.where(scan.data > 0, 100.0, 0)))
    assert np.array_equal(back.affine, scan.affine)
    assert np.abs(np.minimum(scan.data, 100) - back.data)[scan.data > 0].mean() < 6  # only the border is blurred
    assert back.data[~inside].max() < 80
    with pytest.raises(RequestError, match="not positive"):
        slice_scan(scan, 1.0, spacing_mm=0)
    with pytest.raises(RequestError, match="axis"):
        slice_scan(scan, 1.0, axis="oblique")


def test_intensities_are_those_of_the_published_rule():
    data = np.arange(1000, dtype=np.float64).reshape(10, 10, 10)
    assert intensity_divisor(data, 6.8) == pytest.approx(499.5 * 6.8)
    assert intensity_divisor(data, 6.8, region=data >= 900) == pytest.approx(949.5 * 6.8)
    assert intensity_divisor(data, None) == pytest.approx(np.percentile(data, 99.9) / 0.9)
    values = slice_scan(Volume(data, np.eye(4)), 500.0).values
    assert values.min() == -1
    assert values.max() == 1
    assert np.sort(values.ravel())[250] == pytest.approx(0.0)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(RequestError, match="constant"):
            intensity_divisor(data, wrong)
    with pytest.raises(InputError, match="positive intensities"):
        intensity_divisor(data - 1000, 6.8)


def test_empty_slices_are_known():
    scan = ball((20, 20, 30))
    noisy = scan.with_data(scan.data + np.random.default_rng(0).uniform(0, 4, scan.data.shape).astype(np.float32))
    shown = scan.data.max(axis=(0, 1)) > 0
    assert np.array_equal(slice_scan(noisy, 100.0).filled, shown)
    head = np.zeros(scan.shape3, bool)
    head[5, 5, 11] = True
    assert np.flatnonzero(slice_scan(noisy, 100.0, head=head).filled).tolist() == [11]


def test_the_head_is_found_without_its_holes():
    scan = ball((30, 30, 30))
    data = scan.data.copy()
    data[13:17, 13:17, 13:17] = 0  # an air-filled hole
    data[0, 0, 0] = 100  # a speck
    head = head_mask(scan.with_data(data))
    assert head[15, 15, 15]
    assert not head[0, 0, 0]
    assert not (foreground(scan.data) & ~head).any()
    assert head.sum() < 1.6 * (scan.data > 0).sum()


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (None, [0, 1, 2, 3, 4]),
        ("1:3", [1, 2]),
        ("3:", [3, 4]),
        (":2", [0, 1]),
        ("::2", [0, 2, 4]),
        ("2", [2]),
        ("-1", [4]),
        ("-2:", [3, 4]),
        ("3:99", [3, 4]),
    ],
)
def test_slice_requests(request_, expected):
    assert list(slice_numbers(request_, 5)) == expected


@pytest.mark.parametrize("request_", ["", "a", "1:2:3:4", "7", "3:3", "::0", "::-1", "1.5"])
def test_slice_requests_that_cannot_be(request_):
    with pytest.raises(RequestError, match="slices"):
        slice_numbers(request_, 5)


@pytest.mark.parametrize(("shape", "above", "left"), [((40, 41), 12, 11), ((64, 64), 0, 0), ((1, 63), 31, 0)])
def test_small_slices_are_padded_around_their_centre(shape, above, left):
    scan = Volume(np.full((shape[1], shape[0], 2), 5.0) + np.eye(shape[1], shape[0])[..., None], np.eye(4))
    stack = slice_scan(scan, 6.0)
    window = place_window(stack, 64)
    assert (window.above, window.left) == (above, left)
    squares = window.cut(stack.values)
    assert squares.shape == (2, 64, 64)
    assert squares[0, 0, 0] == (-1 if above else stack.values[0, 0, 0])
    assert np.array_equal(window.paste(squares, shape), stack.values)


def test_large_slices_are_cut_around_the_head_or_left_to_tiles():
    data = np.zeros((100, 40, 3), np.float32)
    data[60:95, 10:20] = 50
    stack = slice_scan(Volume(data, np.eye(4)), 50.0)
    window = place_window(stack, 48)
    first, last = window.columns
    assert last - first == 48
    assert first <= 5 < 40 <= last  # the head lies at columns 5 to 39, since the right of the body is on the left
    np.testing.assert_array_equal(window.paste(window.cut(stack.values), stack.values.shape[1:]), stack.values)
    data[20:95] = 50
    assert place_window(slice_scan(Volume(data, np.eye(4)), 50.0), 48) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((4, 4, 4, 3)) + np.arange(3), "3 frames"),
        (np.full((4, 4, 4), 7), "same value"),
        (np.full((4, 4, 4), np.nan), "same value"),
        (np.ones((4, 4, 4), complex), "complex128"),
    ],
)
def test_scans_that_cannot_be_translated(data, message):
    with pytest.raises(InputError, match=message):
        check_scan(Volume(data, np.eye(4)), "scan.nii.gz")


def test_scans_with_holes_and_one_frame_can_be():
    data = np.arange(8.0).reshape(2, 2, 2, 1)
    data[0, 0, 0] = np.nan
    checked = check_scan(Volume(data, np.eye(4)), "scan.nii.gz")
    assert checked.data.shape == (2, 2, 2)
    assert checked.data[0, 0, 0] == 0
