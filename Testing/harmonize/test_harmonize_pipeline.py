"""The stages of a harmonization: the published inference, the whole chain, the ways back, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from mri_deep_tools import harmonize
from mri_deep_tools.errors import InputError, RequestError, WeightsError
from mri_deep_tools.geometry import Reorient, same_grid
from mri_deep_tools.harmonize.bias import correct_bias
from mri_deep_tools.harmonize.change import describe_change, structural_similarity
from mri_deep_tools.harmonize.pipeline import BLEND_MM
from mri_deep_tools.harmonize.preprocess import TEMPLATE_GRID
from mri_deep_tools.harmonize.template import load_template
from mri_deep_tools.registration import difference, write_transform
from mri_deep_tools.volume import Volume, read_volume, write_volume
from scipy.ndimage import distance_transform_edt

# -------------------------------------------------------------------------------------------- a preprocessed image


@pytest.mark.parametrize("compatible", [False, True])
def test_published_inference(shared, golden, weights_files, compatible):
    path = shared("fixtures", "iguane", "inference_in.nii.gz")
    result = harmonize.harmonize(
        path, weights=weights_files["generator"], preprocessed=True, compatible=compatible, device="cpu"
    )
    np.testing.assert_allclose(result.image.data, golden("inference_expected.npz")["out"], rtol=0, atol=0.05)
    scan = read_volume(path)
    assert same_grid(result.image, scan) and result.warnings == ()
    brain = scan.data > 0
    np.testing.assert_allclose(result.change.data[brain], (result.image.data - scan.data)[brain], atol=1e-3)
    assert result.registration is None and result.mask is None


def test_storage_order_and_unit_of_a_preprocessed_image_do_not_matter(shared, golden, weights_files):
    scan = read_volume(shared("fixtures", "iguane", "inference_in.nii.gz"))
    turned = Reorient.to(scan, "SAR").apply(scan.with_data(scan.data / 500))
    result = harmonize.harmonize(turned, weights=weights_files["generator"], preprocessed=True)
    back = Reorient.to(result.image, "LAS").apply(result.image)
    np.testing.assert_allclose(back.data, golden("inference_expected.npz")["out"], rtol=0, atol=0.05)
    assert same_grid(result.image, turned) and "normalised to 1" in result.warnings[0]


def test_a_preprocessed_image_on_the_whole_grid_is_cropped_and_put_back(template, small_weights):
    scan = template.with_data(template.data * (500 / 6069))
    result = harmonize.harmonize(scan, weights=small_weights["identity"], preprocessed=True)
    assert result.prepared.shape3 == (160, 192, 160) and result.image.shape3 == TEMPLATE_GRID.shape
    np.testing.assert_allclose(result.image.data, scan.data, atol=2e-3)
    cropped = harmonize.harmonize(scan, weights=small_weights["identity"], preprocessed=True, compatible=True).image
    np.testing.assert_allclose(cropped.affine[:3, 3], [90 - 11, -126 + 13, -72 + 1])
    assert result.figures.mean_absolute < 1e-3 and result.figures.structural_similarity > 0.9999


def test_sizes_that_do_not_fit_are_told(small_weights):
    scan = Volume(np.full((48, 50, 48), 500.0), np.eye(4))
    scan.data[0] = 0
    with pytest.raises(InputError, match="48x50x48 voxels does not fit"):
        harmonize.harmonize(scan, weights=small_weights["identity"], preprocessed=True)


# ------------------------------------------------------------------------------------------------- the whole chain


@pytest.fixture(scope="module")
def whole(head, small_weights, shared):
    """Return the result of the whole chain with a network that changes nothing."""
    return harmonize.harmonize(
        head["scan"],
        mask=head["mask"],
        weights=small_weights["identity"],
        template=shared("data", "mni", "MNI152_T1_1mm_brain.nii.gz"),
        keep_head=True,
    )


def test_the_chain_finds_its_way_to_the_template(whole, head, template):
    points = np.argwhere(template.data > 0)[::5000] @ template.affine[:3, :3].T + template.affine[:3, 3]
    distance, turn = difference(whole.registration.matrix, head["truth"], points)
    assert distance < 1.0 and turn < 0.5
    assert whole.prepared.shape3 == (160, 192, 160)
    inside = whole.prepared.data[whole.prepared.data > 0]
    assert np.median(inside) == pytest.approx(500, rel=0.02)
    # The crop starts at the first voxel of brain, so its place says to a voxel where the brain came to lie.
    start = np.round((whole.prepared.affine - template.affine)[:3, 3] * [-1, 1, 1]).astype(int)
    np.testing.assert_allclose(start, [11, 13, 1], atol=1)
    part = template.data[tuple(slice(a, a + n) for a, n in zip(start, (160, 192, 160), strict=True))]
    assert (
        np.corrcoef(part[part > 0], whole.prepared.data[part > 0])[0, 1] > 0.9
    )  # 0.925 with the true transform: the template has a bias field
    assert whole.stages["brain mask"] == "given" and whole.stages["bias field"] == "N4"


def test_itk_reads_the_transform_that_was_found(whole, head, tmp_path):
    """ITK's own reader takes points of the template to within a mm of their true places in the scan."""
    for suffix in (".tfm", ".h5"):
        transform = sitk.ReadTransform(str(write_transform(tmp_path / f"found{suffix}", whole.registration.matrix)))
        for x, y, z in ((0.0, -18.0, 8.0), (40.0, -60.0, 30.0), (-50.0, 20.0, -20.0)):
            lps = transform.TransformPoint((-x, -y, z))
            np.testing.assert_allclose([-lps[0], -lps[1], lps[2]], (head["truth"] @ [x, y, z, 1])[:3], atol=1.0)


def test_the_result_returns_to_the_scan(whole, head):
    """With a network that changes nothing, the brain comes back as the bias correction left it, but for smoothing."""
    scan, mask = read_volume(head["scan"]), read_volume(head["mask"]).data > 0
    assert same_grid(whole.image, scan)
    expected = scan.data * (500 / whole.median)
    deep = distance_transform_edt(mask, sampling=scan.spacing) > BLEND_MM
    way = Reorient.to(scan, "LAS")
    brain = way.apply(scan.with_data(np.where(mask, scan.data, 0)))
    flat = way.undo(correct_bias(brain, brain.data > 0)).data * (500 / whole.median)
    assert np.corrcoef(whole.image.data[deep], flat[deep])[0, 1] > 0.97
    assert np.median(whole.image.data[deep] - flat[deep]) == pytest.approx(0, abs=5)
    head_around = ~mask & (scan.data > 0)
    np.testing.assert_allclose(whole.image.data[head_around], expected[head_around], rtol=1e-5)
    assert np.abs(whole.change.data).max() < 1e-2
    assert same_grid(whole.mask, scan) and np.array_equal(whole.mask.data > 0, mask)


@pytest.mark.slow
def test_stages_can_be_given_and_skipped(head, small_weights, shared, template, tmp_path):
    fsl = shared("data", "mni", "MNI152_T1_1mm_brain.nii.gz")
    transform = write_transform(tmp_path / "t.tfm", head["truth"])
    common = {"weights": small_weights["random"], "template": fsl, "bias_correction": False}
    result = harmonize.harmonize(head["scan"], mask=head["mask"], transform=transform, space="template", **common)
    assert result.image.shape3 == TEMPLATE_GRID.shape
    np.testing.assert_allclose(result.image.affine, TEMPLATE_GRID.affine)
    assert result.stages["registration"] == "given" and result.stages["bias field"] == "skipped"
    assert result.figures.mean_absolute > 1
    native = harmonize.harmonize(head["scan"], mask=head["mask"], transform=transform, **common).image
    assert not native.data[read_volume(head["mask"]).data == 0].any()
    # A brain that lies in MNI space: nothing is moved, and the published output is the crop.
    plain = harmonize.harmonize(template, skull_stripped=True, registered=True, compatible=True, **common)
    assert plain.image.shape3 == (160, 192, 160)
    np.testing.assert_array_equal(plain.image.data, plain.harmonized.data)
    brain = template.data[11:171, 13:205, 1:161]
    np.testing.assert_allclose(
        plain.prepared.data, brain / np.median(template.data[template.data > 0]) * 500, rtol=1e-5
    )


def test_the_shipped_template_is_a_brain_on_the_grid(template):
    shipped = load_template()
    assert same_grid(shipped, TEMPLATE_GRID)
    assert 1.7e6 < (shipped.data > 0).sum() < 2.0e6
    inside = (shipped.data > 0) & (template.data > 0)
    assert np.corrcoef(shipped.data[inside], template.data[inside])[0, 1] > 0.7


def test_a_mask_is_no_template(template, tmp_path):
    write_volume(template.with_data((template.data > 0).astype(np.uint8)), tmp_path / "mask.nii.gz")
    with pytest.raises(InputError, match=r"mask.nii.gz is a mask or a label map"):
        load_template(tmp_path / "mask.nii.gz")
    write_volume(template, tmp_path / "brain.nii.gz")
    np.testing.assert_array_equal(load_template(tmp_path / "brain.nii.gz").data, template.data)


# ------------------------------------------------------------------------------------------------------ bad input


def test_wrong_contrast_and_place_are_refused(template, small_weights):
    common = {
        "weights": small_weights["identity"],
        "skull_stripped": True,
        "registered": True,
        "bias_correction": False,
    }
    t2w = template.with_data(np.where(template.data > 0, 9500 - template.data, 0))
    with pytest.raises(InputError, match="does not look like a T1w scan"):
        harmonize.harmonize(t2w, **common)
    assert "T1w" in harmonize.harmonize(t2w, unchecked=True, **common).warnings[0]
    shifted = Volume(template.data, template.affine + np.array([[0, 0, 0, 60.0], [0] * 4, [0] * 4, [0] * 4]))
    with pytest.raises(InputError, match="registration failed"):
        harmonize.harmonize(shifted, **common)
    with pytest.raises(InputError, match="looks like CT"):
        harmonize.harmonize(template.with_data(template.data - 1000), **common)
    with pytest.raises(InputError, match="no contrast"):
        harmonize.harmonize(template.with_data(np.zeros(template.shape3)), **common)


def test_wrong_masks_are_refused(head, small_weights, tmp_path):
    scan, mask = read_volume(head["scan"]), read_volume(head["mask"])
    other = write_volume(Volume(mask.data[1:], mask.affine), tmp_path / "other.nii.gz")
    moved = write_volume(Volume(mask.data, mask.affine + np.eye(4, k=3)), tmp_path / "moved.nii.gz")
    none = write_volume(mask.with_data(np.zeros_like(mask.data)), tmp_path / "none.nii.gz")
    tiny = write_volume(mask.with_data((np.indices(mask.shape3).max(0) < 5).astype(np.uint8)), tmp_path / "tiny.nii.gz")
    for path, said in (
        (other, "not on the grid"),
        (moved, "not on the grid"),
        (none, "is empty"),
        (tiny, "not a brain"),
    ):
        with pytest.raises(InputError, match=said):
            harmonize.harmonize(scan, mask=path, weights=small_weights["identity"])


def test_contradictions_and_missing_weights_are_told(small_weights, tmp_path):
    weights = small_weights["identity"]
    for options, said in (
        ({"model": "iguane"}, "both given"),
        ({"preprocessed": True, "mask": "m.nii.gz"}, "needs no mask"),
        ({"registered": True, "transform": "t.tfm"}, "is registered"),
        ({"keep_head": True, "space": "template"}, "only in native space"),
        ({"mask": "m.nii.gz", "skull_stripped": True}, "both stated"),
        ({"space": "moon"}, "unknown space"),
    ):
        with pytest.raises(RequestError, match=said):
            harmonize.Harmonizer(weights=weights, **options)
    with pytest.raises(WeightsError, match="models download iguane"):
        harmonize.Harmonizer(model="iguane")
    with pytest.raises(RequestError, match="does not harmonize"):
        harmonize.Harmonizer(model="synthseg-2.0")
    with pytest.raises(WeightsError, match="does not exist"):
        harmonize.Harmonizer(weights=tmp_path / "none.h5")


def test_an_image_that_was_harmonized_is_not_harmonized_again(shared, small_weights, tmp_path):
    path = tmp_path / "x.nii.gz"
    path.write_bytes(shared("fixtures", "iguane", "inference_in.nii.gz").read_bytes())
    record = {"GeneratedBy": [{"Command": "harmonize"}], "Outputs": [{"Name": "x.nii.gz"}]}
    (tmp_path / "x.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="was harmonized already"):
        harmonize.harmonize(path, weights=small_weights["identity"], preprocessed=True)
    harmonize.harmonize(path, weights=small_weights["identity"], preprocessed=True, unchecked=True)


# --------------------------------------------------------------------------------------------------------- figures


def test_figures_of_a_known_change():
    rng = np.random.default_rng(0)
    before = np.zeros((24, 24, 24), dtype=np.float32)
    before[4:20, 4:20, 4:20] = rng.uniform(100, 900, (16, 16, 16))
    after = np.where(before > 0, 0.5 * before + 100, 0).astype(np.float32)
    change = describe_change(before, after)
    inside = before > 0
    assert change.correlation == pytest.approx(1.0, abs=1e-6)
    assert change.mean == pytest.approx(float((after - before)[inside].mean()), rel=1e-5)
    assert change.before.sum() == change.after.sum() == change.joint.sum() == inside.sum()
    assert change.joint.sum(1).tolist() == change.before.tolist()
    assert 0 < change.structural_similarity < 1
    assert structural_similarity(before, before, inside, 900) == pytest.approx(1.0, abs=1e-5)
    record = json.loads(json.dumps(change.as_record()))["Histogram"]
    rows = np.array([[int(number) for number in row.split()] for row in record["Joint"]])
    assert rows.shape == (50, 50)
    np.testing.assert_array_equal(rows, change.joint.reshape(50, 2, 50, 2).sum((1, 3)))
