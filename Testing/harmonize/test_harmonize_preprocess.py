"""The published preparation of a brain, against the golden data of the original programs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mri_deep_tools.errors import InputError
from mri_deep_tools.harmonize.bias import correct_bias
from mri_deep_tools.harmonize.preprocess import TEMPLATE_GRID, crop_box, from_network, median_normalise, to_network
from mri_deep_tools.volume import Volume, read_volume


def flat(box) -> list[int]:
    return [number for a, b in zip(box.start, box.stop, strict=True) for number in (a, b - a)]


def test_crop_of_every_golden_case(shared):
    cases = json.loads(shared("fixtures", "iguane", "crop_cases.json").read_text())
    template = read_volume(shared("data", "mni", "MNI152_T1_1mm_brain.nii.gz"))
    assert template.shape3 == TEMPLATE_GRID.shape
    np.testing.assert_array_equal(template.affine, TEMPLATE_GRID.affine)
    for case in cases["boxes_of_ones"]:
        x0, x1, y0, y1, z0, z1 = case["background_slices_x0_x1_y0_y1_z0_z1"]
        data = np.zeros(TEMPLATE_GRID.shape, dtype=np.uint8)
        data[x0 : 182 - x1, y0 : 218 - y1, z0 : 182 - z1] = 1
        assert flat(crop_box(data)) == case["xmin_xsize_ymin_ysize_zmin_zsize"], case
    for case in cases["template_rolls"]:
        rolled = np.roll(template.data, case["numpy_roll_of_template_xyz"], axis=(0, 1, 2))
        assert flat(crop_box(rolled)) == case["xmin_xsize_ymin_ysize_zmin_zsize"], case
    assert len(cases["boxes_of_ones"]) > 10 and len(cases["template_rolls"]) > 1


def test_crop_of_nothing_and_of_another_grid_is_refused():
    with pytest.raises(InputError, match="holds no brain"):
        crop_box(np.zeros(TEMPLATE_GRID.shape))
    with pytest.raises(InputError, match="not on the template's grid"):
        crop_box(np.ones((160, 192, 160)))


def test_median(shared, golden):
    image, mask = (read_volume(shared("fixtures", "iguane", f"median_{name}.nii.gz")).data for name in ("in", "mask"))
    expected = golden("median_expected.npz")
    made, median = median_normalise(image, mask)
    assert median == pytest.approx(float(expected["median_in_mask"]), abs=1e-9)
    np.testing.assert_allclose(made, expected["out"], rtol=0, atol=1e-3)
    with pytest.raises(InputError, match="not positive"):
        median_normalise(image, np.zeros_like(mask))


def test_bias_field_is_that_of_ants(shared, golden):
    image, mask = (read_volume(shared("fixtures", "iguane", f"n4_{name}.nii.gz")) for name in ("in", "mask"))
    expected = golden("n4_expected.npz")
    made = correct_bias(image, mask.data).data
    wanted = expected["out_every_2nd_voxel"]
    # The record holds half-precision numbers, so half their step comes on top of the tolerance.
    step = np.spacing(np.abs(wanted).astype(np.float16)).astype(np.float64)
    np.testing.assert_array_equal(wanted, wanted.astype(np.float16).astype(np.float32))
    assert (np.abs(made[::2, ::2, ::2] - wanted) <= 0.05 + step / 2).all()
    inside = made[mask.data > 0]
    assert inside.mean() == pytest.approx(float(expected["mean_in_mask"]), abs=0.01)
    assert np.median(inside) == pytest.approx(float(expected["median_in_mask"]), abs=0.02)
    assert (inside.min(), inside.max()) == pytest.approx((58, 517), abs=1e-3)
    np.testing.assert_array_equal(made[mask.data == 0], image.data[mask.data == 0])


def test_bias_field_of_a_useless_mask_is_refused():
    volume = Volume(np.full((24, 24, 24), 7.0), np.eye(4))
    with pytest.raises(InputError, match="empty or too thin"):
        correct_bias(volume, np.zeros((24, 24, 24)))
    with pytest.raises(InputError, match="same everywhere"):
        correct_bias(volume, np.ones((24, 24, 24)))


def test_intensities_of_the_networks():
    data = np.array([[[0.0, 500.0, 750.0, -3.0]]])
    np.testing.assert_array_equal(to_network(data), np.float32([[[0, 0, 0.5, 0]]]))
    np.testing.assert_array_equal(to_network(data, background=-1.0), np.float32([[[-1, 0, 0.5, -1]]]))
    np.testing.assert_array_equal(to_network(data / 500, unit=1.0), np.float32([[[0, 0, 0.5, 0]]]))
    made = np.float32([[[0.3, -1.5, 0.25, 0.9]]])
    np.testing.assert_array_equal(from_network(made, data), np.float32([[[0, 0, 625, 0]]]))
