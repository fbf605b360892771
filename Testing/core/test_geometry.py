"""Every step and its inverse; world coordinates against theory; labels from posteriors against the plain way."""

from __future__ import annotations

import json
import tracemalloc
from itertools import product

import numpy as np
import pytest
from mri_deep_tools._resample import aligned_mapping, axis_map, grid_matrix
from mri_deep_tools.errors import CancelledError, GeometryError, RequestError
from mri_deep_tools.geometry import (
    SAME_GRID_TOLERANCE_MM,
    SNAP_TOLERANCE_VOXELS,
    Chain,
    Crop,
    Grid,
    Pad,
    Reorient,
    Resample,
    Step,
    all_orientations,
    axcodes_of,
    oblique_degrees,
    ras_axes,
    resample_argmax,
    resample_to,
    same_grid,
    spacing_of,
    voxel_to_world,
    world_to_voxel,
)
from mri_deep_tools.volume import Volume, read_volume
from scipy.ndimage import map_coordinates

SHAPE = (9, 11, 13)


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """Return a rotation matrix from angles in degrees."""
    matrix = np.eye(3)
    for axis, degrees in enumerate((x, y, z)):
        one, c, s = np.eye(3), np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        a, b = [k for k in range(3) if k != axis]
        one[a, a], one[a, b], one[b, a], one[b, b] = c, -s, s, c
        matrix = one @ matrix
    return matrix


def affine_of(code="RAS", spacing=(0.9, 1.2, 3.1), degrees=(0, 0, 0), origin=(-40.5, 12.25, 7.0)) -> np.ndarray:
    """Return the affine of a scan whose axes run along ``code``, turned by ``degrees``."""
    steps = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    affine = np.eye(4)
    affine[:3, :3] = rotation(*degrees) @ np.array([steps[letter] for letter in code]).T * np.array(spacing)
    affine[:3, 3] = origin
    return affine


def noise(shape=SHAPE, dtype="float32") -> np.ndarray:
    return (np.random.default_rng(8).random(shape) * 200).astype(dtype)


GEOMETRIES = {
    "plain": affine_of(),
    "oblique": affine_of(degrees=(8, -12, 15)),
    "left-handed": affine_of("LAS", degrees=(0, 10, 0)),
    "thick": affine_of("LPS", spacing=(0.43, 0.43, 6.5)),
    "tiny": affine_of("SPL", spacing=(0.05, 0.05, 0.05)),
    "huge": affine_of("AIR", spacing=(12, 12, 12), degrees=(5, 5, 5)),
}


def linear_field(affine: np.ndarray, shape=SHAPE) -> np.ndarray:
    """Return a linear function of the world position of each voxel: any right linear interpolation keeps it."""
    points = voxel_to_world(affine, np.stack(np.indices(shape), axis=-1))
    scale = np.abs(points).max()
    return points @ (1.0, -2.0, 0.5) / scale


def world_values(affine: np.ndarray, shape, scale_from: np.ndarray) -> np.ndarray:
    points = voxel_to_world(affine, np.stack(np.indices(shape), axis=-1))
    original = voxel_to_world(scale_from, np.stack(np.indices(SHAPE), axis=-1))
    return points @ (1.0, -2.0, 0.5) / np.abs(original).max()


# ---------------------------------------------------------------------------------------------------------- reorient


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("code", all_orientations())
def test_forty_eight_orientations_and_back(code, name):
    degrees = (8, -12, 15) if name == "oblique" else (0, 0, 0)
    spacing = spacing_of(GEOMETRIES[name])
    volume = Volume(noise(), affine_of(code, spacing, degrees))
    if not any(degrees):
        assert "".join(volume.axcodes) == code
    step = Reorient.to_ras(volume)
    upright = step.apply(volume)
    assert upright.axcodes == ("R", "A", "S")
    back = step.undo(upright)
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-12)
    for voxel in ((0, 0, 0), (3, 4, 5)):
        place = voxel_to_world(volume.affine, voxel)
        new = np.rint(world_to_voxel(upright.affine, place)).astype(int)
        assert upright.data[tuple(new)] == volume.data[voxel]


@pytest.mark.parametrize("code", all_orientations())
def test_any_orientation_as_target(code):
    volume = Volume(noise((*SHAPE, 2)), affine_of("PIR"))
    step = Reorient.to(volume, code)
    assert "".join(step.apply(volume).axcodes) == code
    np.testing.assert_array_equal(step.undo(step.apply(volume), kind="posterior").data, volume.data)


def test_orientation_that_does_not_exist():
    with pytest.raises(RequestError, match="no orientation"):
        Reorient.to(Volume(noise(), np.eye(4)), "RLS")
    assert len(set(all_orientations())) == 48


def test_axis_claimed_twice():
    """With very unequal voxels one axis can be the nearest to two directions; the last claim gives way."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(0, 0, 40) * (0.2, 4, 1)
    inverse = np.abs(np.linalg.inv(affine)[:3, :3])
    assert inverse.argmax(axis=0).tolist() == [0, 0, 2]
    assert ras_axes(affine) == (0, 1, 2)
    turned = affine[:, [2, 1, 0, 3]]
    assert np.abs(np.linalg.inv(turned)[:3, :3]).argmax(axis=0).tolist() == [2, 2, 0]
    assert ras_axes(turned) == (2, 1, 0)
    volume = Volume(noise(), turned)
    step = Reorient.to_ras(volume)
    np.testing.assert_array_equal(step.undo(step.apply(volume)).data, volume.data)


@pytest.mark.parametrize("case", range(8))
def test_orientation_of_golden_cases(shared, case):
    """The oriented size that the published program found, from the affine it had after resampling."""
    facts = json.loads(shared("fixtures", "synthseg", "preprocess", "cases.json").read_text())[case]
    with np.load(shared("fixtures", "synthseg", "preprocess", f"case{case}.npz")) as golden:
        path = shared("fixtures", "synthseg", "inputs", facts["file"])
        shape = read_volume(path, on_warning=lambda text: None).shape3
        shape = tuple(golden["resampled_shape"]) if "resampled_shape" in golden.files else shape
        step = Reorient.to_ras(Grid((1, 1, 1), golden["out_affine"]))
        assert [shape[axis] for axis in step.axes] == golden["aligned_shape"].tolist()


# ---------------------------------------------------------------------------------------------------- crop, pad, chain


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("tail", [(), (3,)])
def test_crop_and_pad(name, tail):
    volume = Volume(noise((*SHAPE, *tail)), GEOMETRIES[name])
    crop = Crop((1, 0, 4), (7, 11, 9), SHAPE)
    small = crop.apply(volume)
    assert small.shape3 == (6, 11, 5)
    np.testing.assert_allclose(small.affine[:3, 3], voxel_to_world(volume.affine, (1, 0, 4)), atol=1e-12)
    back = crop.undo(small, fill=-1)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-12)
    np.testing.assert_array_equal(back.data[1:7, :, 4:9], volume.data[1:7, :, 4:9])
    assert (back.data[0] == -1).all()
    assert (back.data[:, :, 9:] == -1).all()
    pad = Pad((2, 0, 3), (1, 5, 0), value=7)
    large = pad.apply(volume)
    assert large.shape3 == (12, 16, 16)
    assert (large.data[:2] == 7).all()
    np.testing.assert_array_equal(pad.undo(large).data, volume.data)
    np.testing.assert_allclose(pad.undo(large).affine, volume.affine, atol=1e-12)


def test_crop_of_posteriors_is_background_outside():
    posteriors = Volume(np.full((2, 2, 2, 3), 0.25, np.float32), np.eye(4))
    back = Crop((1, 1, 1), (3, 3, 3), (4, 4, 4)).undo(posteriors, kind="posterior")
    np.testing.assert_array_equal(back.data[0, 0, 0], [1, 0, 0])
    np.testing.assert_array_equal(back.data[1, 1, 1], [0.25, 0.25, 0.25])
    np.testing.assert_allclose(back.data[..., 0].sum(), 64 - 8 + 2)


def test_margins_as_published():
    """Specification 4.3: crop from int((n - t) / 2), margins of floor(d / 2) before and ceil(d / 2) after."""
    crop = Crop.centre((82, 87, 88), (64, 96, 64))
    assert (crop.start, crop.stop) == ((9, 0, 12), (73, 87, 76))
    pad = Pad.to_shape((82, 87, 88), (96, 96, 96))
    assert (pad.before, pad.after) == ((7, 4, 4), (7, 5, 4))
    assert Pad.to_shape((5, 5, 5), (3, 3, 3)) == Pad((0, 0, 0), (0, 0, 0))


def test_steps_refuse_what_they_were_not_made_for():
    volume = Volume(noise(), np.eye(4))
    for wrong in (((0, 0, 0), (9, 11, 14)), ((-1, 0, 0), (9, 11, 13)), ((3, 0, 0), (3, 11, 13))):
        with pytest.raises(RequestError, match="does not lie"):
            Crop(*wrong, SHAPE)
    with pytest.raises(RequestError, match="negative"):
        Pad((0, 0, -1), (0, 0, 0))
    with pytest.raises(GeometryError, match="does not fit"):
        Crop((0, 0, 0), (2, 2, 2), (4, 4, 4)).apply(volume)
    with pytest.raises(GeometryError, match="does not fit"):
        Crop((0, 0, 0), (2, 2, 2), SHAPE).undo(volume)
    with pytest.raises(GeometryError, match="source grid"):
        Resample(Grid(SHAPE, np.diag([2, 2, 2, 1.0])), Grid.of(volume)).apply(volume)
    with pytest.raises(RequestError, match="unknown kind"):
        Crop((0, 0, 0), (2, 2, 2), SHAPE).undo(volume.with_affine(noise((2, 2, 2)), np.eye(4)), kind="mask")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("code", ["RAS", "LPI", "SAR", "IRP"])
def test_chain_and_back(name, code):
    volume = Volume(noise(dtype="int16"), affine_of(code, spacing_of(GEOMETRIES[name]), (3, 4, -5)))
    turn = Reorient.to_ras(volume)
    pad = Pad.to_shape(turn.apply(volume).shape3, (16, 16, 16))
    crop = Crop((1, 1, 1), (15, 15, 14), (16, 16, 16))
    chain = Chain((turn, pad, crop))
    assert isinstance(chain, Step)
    there = chain.apply(volume)
    back = chain.undo(there, kind="label")
    assert same_grid(back, volume)
    np.testing.assert_array_equal(back.data, volume.data)
    assert back.data.dtype == np.int16


# ---------------------------------------------------------------------------------------------------------- resample


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_same_grid_same_values(name, order):
    volume = Volume(noise(), GEOMETRIES[name])
    again = resample_to(volume, SHAPE, volume.affine, order=order)
    np.testing.assert_allclose(again.data, volume.data, atol=0 if order < 3 else 2e-3)
    nearly = np.array(volume.affine, dtype=np.float32).astype(np.float64)  # as it comes back from a file
    if order < 3:
        np.testing.assert_array_equal(resample_to(volume, SHAPE, nearly, order=order).data, volume.data)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("target", [*GEOMETRIES, "turned"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_world_coordinates_against_theory(name, target, order):
    """A linear function of position stays that function, on grids with parallel axes and on turned ones."""
    affine = GEOMETRIES[name]
    volume = Volume(linear_field(affine), affine)
    code, degrees = ("PSL", (3, -7, 20)) if target == "turned" else ("".join(axcodes_of(GEOMETRIES[target])), None)
    scale = np.array([0.7, 0.5, 0.9])
    if degrees is None:  # the same box with its axes in another order, at other spacings
        step = Reorient.to(volume, code)
        grid = Grid.of(step.apply(volume))
        inner = np.array(grid.affine)
        inner[:3, :3] *= scale
        inner[:3, 3] = voxel_to_world(grid.affine, (1.5, 1.25, 1.1))
        shape = tuple(int((n - 3.5) / s) for n, s in zip(grid.shape, scale, strict=True))
        assert aligned_mapping(grid_matrix(affine, inner), SHAPE, shape) is not None
    else:
        middle = voxel_to_world(affine, (np.array(SHAPE) - 1) / 2)
        shape = (5, 6, 4)
        inner = affine_of(code, np.full(3, min(spacing_of(affine)) * 0.6), degrees)
        inner[:3, 3] = middle - inner[:3, :3] @ ((np.array(shape) - 1) / 2)
        assert aligned_mapping(grid_matrix(affine, inner), SHAPE, shape) is None
    result = resample_to(volume, shape, inner, order=order)
    tolerance = 1e-6 if order == 1 else 0.02  # a spline bends near the edges
    np.testing.assert_allclose(result.data, world_values(inner, shape, affine), atol=tolerance)
    np.testing.assert_array_equal(result.affine, inner)


def test_fast_and_general_ways_agree():
    rng = np.random.default_rng(2)
    for _ in range(20):
        affine = affine_of(rng.choice(all_orientations()), rng.uniform(0.5, 4, 3))
        target = affine_of(rng.choice(all_orientations()), rng.uniform(0.5, 4, 3), origin=rng.uniform(-45, 15, 3))
        shape = tuple(rng.integers(4, 20, 3))
        data = rng.random(SHAPE)
        fast = resample_to(Volume(data, affine), shape, target, fill=-1).data
        positions = voxel_to_world(grid_matrix(affine, target), np.stack(np.indices(shape), axis=-1))
        plain = map_coordinates(data, np.moveaxis(positions, -1, 0), order=1, mode="nearest")
        inside = ((positions >= -0.5) & (positions <= np.array(SHAPE) - 0.5)).all(axis=-1)
        np.testing.assert_allclose(fast, np.where(inside, plain, -1), atol=1e-6)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (0, 0, 3)])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_field_of_view_ends_at_the_faces_of_voxels(degrees, order):
    volume = Volume(np.full((4, 4, 4), 5, np.float32), affine_of(spacing=(2, 2, 2)))
    target = np.array(volume.affine)
    target[:3, :3] = rotation(*degrees) @ target[:3, :3] / 4
    target[:3, 3] = voxel_to_world(volume.affine, (-1, 1.5, 1.5))
    row = resample_to(volume, (24, 1, 1), target, order=order, fill=-3).data[:, 0, 0]
    positions = world_to_voxel(volume.affine, voxel_to_world(target, [(k, 0, 0) for k in range(24)]))
    inside = ((positions >= -0.5 - SNAP_TOLERANCE_VOXELS) & (positions <= 3.5 + SNAP_TOLERANCE_VOXELS)).all(axis=1)
    assert inside.sum() in (16, 17)
    np.testing.assert_allclose(row, np.where(inside, 5, -3), atol=1e-5)


def test_nearest_keeps_codes_and_types():
    labels = np.random.default_rng(1).integers(0, 2035, SHAPE).astype(np.int32)
    volume = Volume(labels, affine_of("LPS"))
    for degrees in ((0, 0, 0), (4, 5, 6)):
        grid = Grid((20, 20, 20), affine_of("RSA", (1, 1, 1), degrees))
        result = resample_to(volume, grid.shape, grid.affine, order=0, fill=99)
        assert result.data.dtype == np.int32
        assert set(np.unique(result.data)) <= {*np.unique(labels), 99}
    mask = resample_to(Volume(labels > 1000, volume.affine), SHAPE, volume.affine, order=0)
    np.testing.assert_array_equal(mask.data, labels > 1000)


def test_types_of_interpolated_values():
    for dtype, result in (("uint8", "float32"), ("float16", "float32"), ("float32", "float32"), ("float64", "float64")):
        for degrees in ((0, 0, 0), (0, 0, 9)):
            moved = resample_to(Volume(noise(dtype=dtype), np.eye(4)), (4, 4, 4), affine_of("RAS", (1, 1, 1), degrees))
            assert moved.data.dtype == result


@pytest.mark.parametrize("spacing", [1.0, (2.0, 0.5, 3.1), 0.3])
def test_other_voxel_sizes_cover_the_same_box(spacing):
    volume = Volume(linear_field(GEOMETRIES["oblique"]), GEOMETRIES["oblique"])
    step = Resample.to_spacing(volume, spacing)
    there = step.apply(volume)
    assert there.spacing == pytest.approx(np.broadcast_to(spacing, 3))
    first = voxel_to_world(volume.affine, (-0.5, -0.5, -0.5))
    np.testing.assert_allclose(voxel_to_world(there.affine, (-0.5, -0.5, -0.5)), first, atol=1e-9)
    box = np.array(SHAPE) * volume.spacing
    assert (np.array(there.shape3) * there.spacing >= box - 0.01 * np.array(there.spacing) - 1e-9).all()
    assert (np.array(there.shape3) * there.spacing < box + there.spacing).all()
    back = step.undo(there)
    assert same_grid(back, volume)
    inner = (slice(3, -3),) * 3
    np.testing.assert_allclose(back.data[inner], volume.data[inner], atol=1e-6)
    with pytest.raises(RequestError):
        Resample.to_spacing(volume, 0)


def test_undo_of_resampling_by_kind():
    volume = Volume(noise(dtype="int16"), affine_of(spacing=(1, 1, 1)))
    grid = Grid((6, 6, 6), affine_of(spacing=(1, 1, 1)))
    step = Resample(Grid.of(volume), grid, order=0)
    labels = step.undo(step.apply(volume), kind="label", fill=-5)
    assert labels.data.dtype == np.int16
    np.testing.assert_array_equal(labels.data[:6, :6, :6], volume.data[:6, :6, :6])
    assert (labels.data[6:] == -5).all()
    posteriors = Volume(np.full((6, 6, 6, 2), 0.5, np.float32), grid.affine)
    back = step.undo(posteriors, kind="posterior")
    np.testing.assert_array_equal(back.data[-1, -1, -1], [1, 0])
    np.testing.assert_array_equal(back.data[0, 0, 0], [0.5, 0.5])


def test_requests_that_make_no_sense():
    volume = Volume(noise(), np.eye(4))
    with pytest.raises(RequestError, match="order"):
        resample_to(volume, SHAPE, np.eye(4), order=2)
    with pytest.raises(RequestError, match="empty"):
        resample_to(volume, (0, 1, 1), np.eye(4))
    with pytest.raises(GeometryError, match="singular"):
        resample_to(volume, SHAPE, np.diag([1, 1, 0, 1.0]))


# ------------------------------------------------------------------------------------- labels from posteriors


def posteriors_of(labels: np.ndarray, channels: int, layout: str = "last") -> np.ndarray:
    """Return soft posteriors around a label map of channel indices; they add up to 1."""
    rng = np.random.default_rng(4)
    values = rng.random((channels, *labels.shape), dtype=np.float32) * 0.5 / channels
    for channel in range(channels):
        values[channel][labels == channel] += 0.6
    values /= values.sum(axis=0)
    return values.transpose(1, 2, 3, 0) if layout == "first" else np.ascontiguousarray(values.transpose(1, 2, 3, 0))


def blocks(channels: int, shape=SHAPE) -> np.ndarray:
    """Return a map of boxes; channel 0 fills the rest."""
    rng = np.random.default_rng(6)
    labels = np.zeros(shape, int)
    for channel in range(1, channels):
        start = [rng.integers(0, n - 3) for n in shape]
        labels[tuple(slice(a, a + rng.integers(2, 5)) for a in start)] = channel
    return labels


def plain_argmax(posteriors, affine, shape, target, codes, outside=None) -> np.ndarray:
    """Interpolate all channels with SciPy, then take the largest."""
    positions = np.moveaxis(voxel_to_world(grid_matrix(affine, target), np.stack(np.indices(shape), axis=-1)), -1, 0)
    stack = [
        map_coordinates(posteriors[..., c].astype(np.float64), positions, order=1, mode="nearest")
        for c in range(posteriors.shape[3])
    ]
    result = np.asarray(codes)[np.argmax(stack, axis=0)]
    limits = np.array(posteriors.shape[:3])[:, None, None, None] - 0.5
    inside = ((positions >= -0.5 - 1e-4) & (positions <= limits + 1e-4)).all(axis=0)
    return np.where(inside, result, codes[0] if outside is None else outside)


CODES = [0, 2, 3, 41, 42, 1035]


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("slab", [None, 1, 3])
@pytest.mark.parametrize(
    ("code", "spacing", "degrees"),
    [
        ("RAS", (1, 1, 1), (0, 0, 0)),
        ("LPS", (0.5, 0.6, 0.7), (0, 0, 0)),
        ("SRP", (0.45, 3.3, 0.8), (0, 0, 0)),
        ("IPR", (2, 2, 2), (0, 0, 0)),
        ("RAS", (0.8, 0.9, 1), (10, -20, 30)),
        ("PSL", (1.5, 0.4, 0.7), (3, 3, 3)),
    ],
)
def test_labels_as_the_plain_way_gives_them(layout, slab, code, spacing, degrees):
    affine = affine_of("RAS", (1, 1, 1), origin=(0, 0, 0))
    target = affine_of(code, spacing, degrees, origin=(0, 0, 0))
    shape = (14, 15, 16)
    centre = voxel_to_world(target, (np.array(shape) - 1) / 2)
    target[:3, 3] = voxel_to_world(affine, (np.array(SHAPE) - 1) / 2) - centre
    posteriors = posteriors_of(blocks(6), 6, layout)
    result = resample_argmax(posteriors, affine, shape, target, CODES, slab=slab)
    assert result.dtype == np.int32
    wanted = plain_argmax(posteriors, affine, shape, target, CODES)
    assert (result != wanted).sum() <= 2  # float32 against float64 where two channels are equal to seven digits
    assert len(np.unique(result)) > 3


def test_labels_on_their_own_grid_are_the_arg_max():
    labels = blocks(6)
    result = resample_argmax(posteriors_of(labels, 6), GEOMETRIES["oblique"], SHAPE, GEOMETRIES["oblique"], CODES)
    np.testing.assert_array_equal(result, np.array(CODES)[labels])


def test_labels_back_to_thick_slices():
    """Posteriors at 1 mm give a map of 4 mm slices whose voxels are those of the structure at their centres."""
    volume = Volume(np.zeros((16, 16, 4)), affine_of("LAS", (1, 1, 4)))
    fine = Resample.to_spacing(volume, 1).target
    place = voxel_to_world(fine.affine, np.stack(np.indices(fine.shape), axis=-1))
    middle = voxel_to_world(fine.affine, (np.array(fine.shape) - 1) / 2)
    distance = np.linalg.norm(place - middle, axis=-1)
    inside = 1 / (1 + np.exp(distance - 5.5))
    result = resample_argmax(np.stack([1 - inside, inside], -1), fine.affine, (16, 16, 4), volume.affine, [0, 17])
    centres = voxel_to_world(volume.affine, np.stack(np.indices((16, 16, 4)), axis=-1))
    ball = np.linalg.norm(centres - middle, axis=-1)
    certain = np.abs(ball - 5.5) > 0.35
    np.testing.assert_array_equal(result[certain], np.where(ball < 5.5, 17, 0)[certain])


def test_values_that_do_not_add_up():
    """The short cut must not cost a label where posteriors are 0, unequal in sum, or negative."""
    rng = np.random.default_rng(9)
    target = affine_of("LIP", (0.7, 0.8, 0.9), origin=(8, 10, 12))
    for change in ("zeros", "sums", "negative", "one"):
        posteriors = posteriors_of(blocks(6), 6)
        if change == "zeros":
            posteriors[2:5] = 0
        elif change == "sums":
            posteriors *= rng.random((*SHAPE, 1), dtype=np.float32) * 100
        elif change == "negative":
            posteriors -= 0.3
        else:
            posteriors[...] = np.eye(6, dtype=np.float32)[blocks(6)]
        result = resample_argmax(posteriors, np.eye(4), (10, 14, 10), target, CODES)
        wanted = plain_argmax(posteriors, np.eye(4), (10, 14, 10), target, CODES)
        ties = 2 if change != "one" else 30  # exact halves between hard labels round either way
        assert (result != wanted).sum() <= ties, change


def test_code_outside():
    posteriors = posteriors_of(np.ones(SHAPE, int), 2)
    target = affine_of("RAS", (1, 1, 1), origin=(-3, 0, 0))
    for outside, code in ((None, 5), (7, 7), (99, 99)):
        result = resample_argmax(posteriors, np.eye(4), SHAPE, target, [5, 7], outside=outside)
        assert (result[:2] == code).all()
        assert (result[3:] == 7).all()


def test_labels_need_one_code_per_channel():
    with pytest.raises(RequestError, match="do not fit"):
        resample_argmax(np.zeros((2, 2, 2, 3)), np.eye(4), (2, 2, 2), np.eye(4), [0, 1])


def test_progress_and_cancelling():
    posteriors = posteriors_of(blocks(6), 6)
    seen: list[float] = []
    resample_argmax(posteriors, np.eye(4), SHAPE, np.eye(4), CODES, slab=2, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1

    def stop(share: float) -> None:
        raise CancelledError("stopped")

    with pytest.raises(CancelledError):
        resample_argmax(posteriors, np.eye(4), SHAPE, np.eye(4), CODES, progress=stop)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (0, 0, 5)])
def test_memory_is_that_of_one_slab(degrees):
    """Twelve channels at the target's size would be 48 bytes per voxel; the result and one slab are held instead."""
    labels = blocks(12, (48, 48, 48))
    posteriors = posteriors_of(labels, 12)
    shape = (96, 96, 96)
    target = affine_of("LPS", (0.5, 0.5, 0.5), degrees, origin=(47, 47, 0))
    tracemalloc.start()
    try:
        resample_argmax(posteriors, np.eye(4), shape, target, range(12), slab=8)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * np.prod(shape)


# --------------------------------------------------------------------------------------------------------- small parts


def test_same_grid():
    volume = Volume(noise(), GEOMETRIES["oblique"])
    moved = np.array(volume.affine)
    moved[0, 3] += SAME_GRID_TOLERANCE_MM * 0.9
    assert same_grid(volume, Grid(SHAPE, moved))
    moved[0, 3] += SAME_GRID_TOLERANCE_MM
    assert not same_grid(volume, Grid(SHAPE, moved))
    assert not same_grid(volume, Grid((9, 11, 12), volume.affine))


def test_world_and_voxels():
    affine = GEOMETRIES["huge"]
    points = np.random.default_rng(0).random((4, 5, 3)) * 10
    np.testing.assert_allclose(world_to_voxel(affine, voxel_to_world(affine, points)), points, atol=1e-9)
    np.testing.assert_allclose(voxel_to_world(affine, (1, 2, 3)), (affine @ (1, 2, 3, 1))[:3])


def test_obliqueness():
    for code, angle in product(("RAS", "SPL"), (0, 7, 30)):
        assert oblique_degrees(affine_of(code, degrees=(0, 0, angle))) == pytest.approx(angle, abs=1e-4)


def test_samples_near_voxel_centres_are_those_voxels():
    samples = axis_map(np.array([-0.6, -0.5, -0.2, 0.00005, 0.5, 2.99995, 3.4, 3.6]), 4)
    assert samples.inside.tolist() == [False, True, True, True, True, True, True, False]
    assert samples.lower.tolist() == [0, 0, 0, 0, 0, 3, 3, 3]
    np.testing.assert_array_equal(samples.weight, np.array([0, 0, 0, 0, 0.5, 0, 0, 0], np.float32))
