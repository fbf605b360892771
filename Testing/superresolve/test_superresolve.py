"""Super-resolution of a pair, from Python: published output, native frames, slices, checks."""

from __future__ import annotations

import numpy as np
import pytest
from mri_deep_tools.errors import InputError, RequestError, WeightsError
from mri_deep_tools.geometry import Reorient, resample_to
from mri_deep_tools.superresolve import SuperResolver, acquire, superresolve
from mri_deep_tools.superresolve.honesty import check_honesty
from mri_deep_tools.superresolve.predict import SuperResolveOptions
from mri_deep_tools.superresolve.simulate import SliceStack, array_axis
from mri_deep_tools.superresolve.simulate_pairs import PairConfig, simulate_pair
from mri_deep_tools.volume import Volume, read_volume, write_volume

WHERE = {"registered": True, "threads": 1}


@pytest.fixture(scope="module")
def pair(golden):
    """Return the T1w, the isotropic T2w and the published thick-slice T2w of the golden data."""
    return tuple(read_volume(golden(f"{name}.nii.gz")) for name in ("t1w", "t2w_iso", "t2w_aniso"))


@pytest.fixture(scope="module")
def thick(pair):
    """Return the isotropic T2w as a scanner would take it: 4 mm axial slices on a grid of their own."""
    return acquire(pair[1], SliceStack(2, 4.0, 4.0))


# ---------------------------------------------------------------------------------------------------- published output


@pytest.mark.parametrize("name", ["narrow", "shallow"])
def test_compatible_output_equals_the_published_one(golden, weights_file, name):
    expected = golden(f"infer_{name}.npz")
    paths = golden("t2w_aniso.nii.gz"), golden("t1w.nii.gz")
    result = superresolve(*paths, weights=weights_file(name), compatible=True, **WHERE)
    assert result.image.data.dtype == np.float64
    np.testing.assert_allclose(result.image.affine, expected["affine"], atol=1e-6)
    found = result.image.data
    if name == "shallow":
        assert np.abs(found[::2, ::2, ::2] - expected["reconstruction_every_2nd"]).max() <= 2e-5
    else:
        assert np.abs(found - expected["reconstruction"]).max() <= 2e-5
    assert result.honesty is None
    assert result.interpolated.shape3 == result.image.shape3


def test_the_default_gives_the_same_on_the_grid_and_intensities_of_the_scan(golden, weights_file, pair):
    expected, prepared = golden("infer_narrow.npz"), golden("preprocess.npz")
    t1, _, t2 = pair
    result = superresolve(t2, t1, weights=weights_file("narrow"), **WHERE)
    assert result.image.shape3 == t2.shape3
    assert result.image.data.dtype == np.float32
    np.testing.assert_array_equal(result.image.affine, t2.affine)
    low, high = prepared["t2_percentiles"]
    cut = expected["reconstruction"][5:-5, 5:-5, 2:-2]
    inside = (t2.data > 0) | (t1.data > 0)
    assert np.abs(result.image.data - (low + cut * (high - low + 1e-6)))[inside].max() < 0.02
    assert np.all(result.image.data[~inside] == 0)
    unit = superresolve(t2, t1, weights=weights_file("narrow"), intensities="unit", **WHERE)
    assert np.abs(unit.image.data - cut).max() <= 2e-5
    assert any("looks as if it was interpolated from axial slices" in text for text in result.warnings)
    assert result.slices is not None
    assert result.slices.spacing_mm == pytest.approx(59 / 14, abs=0.1)  # the published stretch of 15 kept slices
    assert result.honesty is not None
    isotropic = superresolve(pair[1], t1, weights=weights_file("narrow"), **WHERE)
    assert any("not known" in text for text in isotropic.warnings)
    assert isotropic.honesty is None


# -------------------------------------------------------------------------------------------------------- native frame


def test_a_thick_scan_keeps_its_own_frame(weights_file, pair, thick):
    t1 = pair[0]
    result = superresolve(thick, t1, weights=weights_file("narrow"), **WHERE)
    assert result.image.axcodes == ("L", "A", "S")
    assert result.image.spacing == pytest.approx((1, 1, 1))
    assert result.image.shape3 == (54, 70, 60)
    np.testing.assert_allclose(result.image.affine, t1.affine, atol=1e-6)
    assert result.slices is not None
    assert result.slices.words().startswith("15 axial slices of 4 mm every 4 mm, without gaps")
    assert result.slices.told_by == "assumed"
    assert result.honesty is not None
    assert len(result.honesty.rms_per_slice) == 15


@pytest.mark.parametrize("codes", ["RAS", "PIR", "SLA"])
def test_the_order_of_the_axes_changes_nothing(weights_file, pair, thick, codes):
    t1 = pair[0]
    engine = SuperResolver(weights=weights_file("shallow"), **WHERE)
    plain = engine.superresolve(thick, t1)
    turned = engine.superresolve(Reorient.to(thick, codes).apply(thick), Reorient.to(t1, codes[::-1]).apply(t1))
    np.testing.assert_allclose(turned.image.affine, plain.image.affine, atol=1e-6)
    scale = np.abs(plain.image.data).max()
    assert np.abs(turned.image.data - plain.image.data).max() < 1e-4 * scale
    assert turned.slices is not None
    assert turned.slices.direction == "axial"
    assert turned.slices.axis == array_axis(Reorient.to(thick, codes).apply(thick), "axial")


def test_an_oblique_scan_keeps_its_own_frame(weights_file, pair, thick):
    """Both scans turned by the same 25 degrees in the world: the same numbers, in the turned frame."""
    angle = np.radians(25)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    t1 = pair[0]
    engine = SuperResolver(weights=weights_file("shallow"), **WHERE)
    plain = engine.superresolve(thick, t1)
    moved = engine.superresolve(Volume(thick.data, turn @ thick.affine), Volume(t1.data, turn @ t1.affine))
    np.testing.assert_allclose(moved.image.affine, turn @ plain.image.affine, atol=1e-6)
    assert np.abs(moved.image.data - plain.image.data).max() < 1e-3 * np.abs(plain.image.data).max()
    assert moved.slices is not None
    assert moved.slices.oblique_degrees == pytest.approx(25)


def test_resampling_as_trained_is_the_published_stretch(weights_file, pair):
    """Every fourth slice of a volume, with its true affine, gives the network what the published synthesis gives."""
    t1, iso, _ = pair
    from mri_deep_tools.superresolve.frames import native_frame
    from mri_deep_tools.superresolve.simulate import as_trained

    size = 58  # 15 slices 4 mm apart span 56 voxels, and the published sizes stretch by one voxel
    cut = iso.with_data(iso.data).data[:, :, :size]
    affine = np.array(iso.affine)
    affine[:3, 2] *= 4
    kept = Volume(cut[:, :, ::4], affine)
    frame = native_frame(kept, t1, np.eye(4), 2, "as-trained")
    expected = as_trained(cut, 2, 4)
    assert frame.t2.shape3 == expected.shape == frame.t1.shape3
    assert np.abs(frame.t2.data - expected).max() < 2e-3
    np.testing.assert_allclose(frame.t2.affine, iso.affine, atol=1e-9)
    result = superresolve(kept, t1, weights=weights_file("shallow"), resampling="as-trained", **WHERE)
    assert result.image.shape3 == (54, 70, size)


def test_a_template_gives_the_frame_and_the_way_back(weights_file, pair, thick, tmp_path):
    t1 = pair[0]
    affine = np.array(t1.affine)
    affine[:3, 3] += (4, -3, 2)
    template = write_volume(Volume(np.ones((50, 60, 56), np.float32), affine), tmp_path / "template.nii.gz")
    engine = {"weights": weights_file("shallow"), "template": template, **WHERE}
    there = superresolve(thick, t1, space="template", **engine)
    assert there.image.shape3 == (50, 60, 56)
    np.testing.assert_allclose(there.image.affine, affine, atol=1e-6)
    native = superresolve(thick, t1, **engine)
    assert native.image.shape3 == (54, 70, 60)
    again = resample_to(native.image, (50, 60, 56), affine, order=3)
    middle = (slice(8, -8),) * 3
    change = np.abs(again.data - there.image.data)[middle]
    assert np.median(change) < 0.02 * np.ptp(there.image.data)


# ------------------------------------------------------------------------------------------------------- registration


@pytest.mark.parametrize(("angles", "shift"), [((12, -8, 5), (6, -4, 9)), ((35, 10, 0), (0, 12, -5))])
def test_a_t1w_that_lies_elsewhere_is_found(weights_file, pair, thick, angles, shift):
    """A known rigid motion of the T1w is found to a millimetre at the corners of the head, and the result stays."""
    from scipy.spatial.transform import Rotation

    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), shift
    t1 = pair[0]
    engine = {"weights": weights_file("shallow"), "threads": 1, "device": "cpu"}
    still = superresolve(thick, t1, **engine, registered=True)
    moved = superresolve(thick, Volume(t1.data, motion @ t1.affine), **engine)
    ends = np.array([[x, y, z, 1] for x in (0, 53) for y in (0, 69) for z in (0, 59)]) @ t1.affine.T
    assert np.linalg.norm(ends @ (moved.t2_to_t1 - motion).T, axis=1).max() < 1.0
    assert moved.overlap > 0.95
    np.testing.assert_allclose(moved.image.affine, still.image.affine, atol=1e-6)
    inside = (slice(6, -6),) * 3
    change = np.abs(moved.image.data - still.image.data)[inside]
    assert np.median(change) < 0.05 * np.ptp(still.image.data[inside])


@pytest.mark.parametrize("angles", [(-75, 20, 15), pytest.param((180, 10, 0), marks=pytest.mark.slow)])
@pytest.mark.slow
def test_large_tilts_of_a_whole_brain_are_found(angles):
    """A T1w brain on its side or upside down against 5 mm slices of another contrast: below 1.5 mm at its corners."""
    from mri_deep_tools.harmonize.template import load_template
    from mri_deep_tools.registration import register_rigid
    from mri_deep_tools.sample_scans import without_t1_contrast
    from scipy.spatial.transform import Rotation

    brain = load_template()
    small = Volume(np.ascontiguousarray(brain.data[::2, ::2, ::2]), brain.affine @ np.diag([2, 2, 2, 1.0]))
    slices = acquire(without_t1_contrast(brain), SliceStack(2, 5.0, 5.0))
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), (15, -10, 20)
    moved = Volume(small.data, motion @ small.affine)
    found = register_rigid(moved, slices, metric="mutual-information", threads=1)
    ends = np.array([[x, y, z, 1] for x in (-70, 70) for y in (-105, 70) for z in (-60, 80)])
    assert np.linalg.norm(ends @ (found.matrix - motion).T, axis=1).max() < 1.5


def test_a_registered_template_gives_its_frame(weights_file, pair, thick, tmp_path):
    """The T1w itself, turned and cut, is the template: the result lies where the template says."""
    from scipy.spatial.transform import Rotation

    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = Rotation.from_euler("xyz", (10, 5, -7), degrees=True).as_matrix(), (5, 0, -8)
    t1 = pair[0]
    template = write_volume(Volume(t1.data, turn @ t1.affine), tmp_path / "template.nii.gz")
    result = superresolve(thick, t1, weights=weights_file("shallow"), template=template, space="template", threads=1)
    np.testing.assert_allclose(result.image.affine, turn @ t1.affine, atol=1e-6)
    plain = superresolve(thick, t1, weights=weights_file("shallow"), **WHERE)
    inside = (slice(6, -6),) * 3
    correlation = np.corrcoef(result.interpolated.data[inside].ravel(), plain.interpolated.data[inside].ravel())[0, 1]
    assert correlation > 0.9


# ------------------------------------------------------------------------------------------------------- honesty check


def test_the_truth_passes_the_honesty_check_and_an_invention_does_not(pair, thick):
    iso = pair[1]
    truth = Volume(iso.data.astype(np.float32), iso.affine)
    span = 500.0
    passed = check_honesty(truth, truth, thick, 2, 4.0, span)
    assert passed.psnr_db > 80
    assert passed.doubtful_slices == ()
    assert passed.difference.shape3 == (54, 70, 15)
    np.testing.assert_allclose(passed.difference.affine, thick.affine, atol=1e-6)
    invented = truth.data.copy()
    invented[20:30, 30:40, 24:28] += 0.4 * span
    caught = check_honesty(truth.with_data(invented), truth, thick, 2, 4.0, span)
    assert caught.psnr_db < 45
    assert caught.doubtful_slices == (6,)
    place = np.unravel_index(np.abs(caught.difference.data).argmax(), caught.difference.data.shape)
    assert 20 <= place[0] < 30
    assert place[2] == 6
    assert "look at slice 7" in caught.words()


def test_interpolation_scores_below_the_truth_where_slices_are_thick(pair, thick):
    iso = pair[1]
    truth = Volume(iso.data.astype(np.float32), iso.affine)
    interpolated = resample_to(thick, truth.shape3, truth.affine, order=3)
    check = check_honesty(truth, interpolated, thick, 2, 4.0, 500.0)
    assert check.interpolation_psnr_db < check.psnr_db - 20


# ----------------------------------------------------------------------------------------------------- wrong requests


def test_pairs_that_cannot_be_used_are_told(weights_file, pair, thick, golden):
    t1, iso, _ = pair
    engine = SuperResolver(weights=weights_file("shallow"), **WHERE)
    far = Volume(t1.data, np.array(t1.affine) + np.array([[0, 0, 0, 900], *[[0] * 4] * 3]))
    with pytest.raises(InputError, match="do not overlap"):
        engine.superresolve(thick, far)
    with pytest.raises(InputError, match="no value above 0"):
        engine.superresolve(thick, Volume(np.zeros((20, 20, 20)), t1.affine))
    with pytest.raises(InputError, match="single intensity"):
        engine.superresolve(Volume(np.full(thick.shape3, 3.0), thick.affine), t1)
    with pytest.raises(InputError, match="single slice"):
        engine.superresolve(Volume(np.ones((20, 20, 1)), thick.affine), t1)
    with pytest.raises(InputError, match="too few"):
        engine.superresolve(Volume(thick.data[:, :, :2], thick.affine), t1)
    free = SuperResolver(weights=weights_file("shallow"))
    with pytest.raises(RequestError, match="nothing to do"):
        free.superresolve(iso, t1)
    strict = SuperResolver(weights=weights_file("shallow"), compatible=True, **WHERE)
    with pytest.raises(RequestError, match="one grid of 1 mm voxels"):
        strict.superresolve(thick, t1)


def test_scans_that_do_not_belong_together_are_told(weights_file, pair, thick):
    t1 = pair[0]
    engine = SuperResolver(weights=weights_file("shallow"), **WHERE)
    fine = engine.superresolve(thick, t1)
    assert not any("fit poorly" in text for text in fine.warnings)
    rng = np.random.default_rng(0)
    noise = engine.superresolve(thick, Volume(rng.random(t1.shape3) + 0.5, t1.affine))
    assert any("fit poorly" in text for text in noise.warnings)
    assert noise.mutual_information < 1.02 < fine.mutual_information


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model": "a", "weights": "b"}, "one of the two"),
        ({"space": "template"}, "needs one"),
        ({"space": "moon"}, "unknown space"),
        ({"template": "x.nii", "resampling": "as-trained"}, "along the slices"),
        ({"compatible": True}, "registered to the template already"),
        ({"window": "hann"}, "no window"),
    ],
)
def test_options_that_contradict(options, expected):
    with pytest.raises(RequestError, match=expected):
        SuperResolveOptions(**options)


def test_the_bundled_model_steps_in_and_says_so():
    resolver = SuperResolver()
    assert resolver.model == "superresolve-lite"
    assert "baby-ai is not installed" in resolver.note
    assert SuperResolver(model="superresolve-lite").note == ""


def test_the_bundled_model_gains_on_cubic_interpolation_with_t1w_and_without():
    """On a head drawn from shells, which is none of its training data."""
    labels = np.zeros((64, 72, 64), dtype=np.int32)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in labels.shape), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in grid)) + 0.08 * np.sin(9 * grid[0]) * np.cos(11 * grid[1]) * np.sin(
        8 * grid[2]
    )
    for limit, code in ((0.95, 516), (0.85, 24), (0.78, 3), (0.6, 2), (0.25, 4)):
        labels[radius < limit] = code
    config = PairConfig(output_shape=[60, 60, 60], random_contrast=0.0, misalignment=0.2)
    pair = simulate_pair(Volume(labels, np.eye(4)), 7, config)
    thick = acquire(pair.t2, SliceStack(1, 4.0, 4.0), noise=0.01)
    for t1 in (pair.t1, None):
        result = superresolve(thick, t1, model="superresolve-lite", registered=True)
        error = {
            name: np.mean((resample_to(volume, pair.t2.shape3, pair.t2.affine, order=3).data - pair.t2.data) ** 2)
            for name, volume in (("plain", result.interpolated), ("found", result.image))
        }
        assert 10 * np.log10(error["plain"] / error["found"]) > 0.5  # dB


def test_models_that_are_not_there():
    with pytest.raises(WeightsError, match="not on this machine") as caught:
        SuperResolver(model="baby-ai", registered=True)
    assert "models download baby-ai" in str(caught.value)
    with pytest.raises(RequestError, match="not for super-resolution"):
        SuperResolver(model="synthseg-2.0")
    with pytest.raises(WeightsError, match=r"none\.pth does not exist"):
        SuperResolver(weights="none.pth")
