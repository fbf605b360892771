"""The bundled model syndiff-lite, used as anyone would: by its name, on scans of simulated people."""

from __future__ import annotations

import numpy as np
import pytest
from mri_deep_tools.models import list_models, model_status
from mri_deep_tools.superresolve.simulate_pairs import PairConfig, simulate_pair
from mri_deep_tools.translate.predict import translate
from mri_deep_tools.translate.weights import load_direction
from mri_deep_tools.volume import Volume, read_volume

LITE = next((model for model in list_models("translate") if model.name == "syndiff-lite"), None)
pytestmark = pytest.mark.skipif(
    LITE is None or model_status(LITE) != "bundled", reason="the package carries no weights of syndiff-lite"
)
QUIET = {"spread": 4.0, "texture": [2.0, 4.0], "bias": 0.05, "gamma": 0.0, "noise": 1.0}


def head():
    """Return a label map at 2 mm: scalp around skull around fluid around cortex around white matter, a ventricle."""
    shape = (84, 104, 20)
    axes = (np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), np.linspace(-0.25, 0.25, shape[2]))
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    labels = np.zeros(shape, dtype=np.int32)
    for limit, code in ((0.95, 507), (0.85, 511), (0.8, 24), (0.75, 3), (0.6, 2), (0.2, 4)):
        labels[radius < limit] = code
    return Volume(labels, np.diag([2.0, 2, 2, 1]))


def ratio(truth, made):
    """Return the PSNR in dB after the best linear map of what was made, with the range of the truth as peak."""
    design = np.stack([made.ravel(), np.ones(made.size)], axis=1)
    fitted = design @ np.linalg.lstsq(design, truth.ravel(), rcond=None)[0]
    return 10 * np.log10(np.ptp(truth) ** 2 / np.mean((fitted - truth.ravel()) ** 2))


def test_both_directions_are_there():
    size = sum(file.size for file in LITE.files)
    assert size < 6 << 20 and "Apache-2.0" in LITE.licence
    for source, target in (("T1w", "T2w"), ("T2w", "T1w")):
        direction = load_direction("syndiff-lite", target)
        assert (direction.source, direction.target) == (source, target)
        assert direction.info["slice_axis"] == "axial" and direction.info["in_plane_spacing_mm"] == 2.0
        assert "simulated" in direction.info["training_data"] and "not validated" in direction.info["note"]


@pytest.mark.parametrize(("source", "target"), [("t1", "T2w"), ("t2", "T1w")])
def test_tissues_change_places(source, target):
    """Fluid, grey and white matter come in the order of the wanted contrast, nearer the truth than the source is."""
    labels = head()
    config = PairConfig(output_shape=list(labels.shape3), scaling=[1.0, 1.0], contrast="adult", **QUIET)
    pair = simulate_pair(labels, 4, config)
    scan, truth = (pair.t1, pair.t2) if source == "t1" else (pair.t2, pair.t1)
    result = translate(scan, target, model="syndiff-lite", slices="9:11", seed=3, threads=1)
    made = result.image.data[:, :, 9:11]
    real, given = truth.data[:, :, 9:11], scan.data[:, :, 9:11]
    assert ratio(real, made) > ratio(real, given) + 3
    brain = [real[40:44, 50:54], real[40:44, 70:74]]  # ventricle, white matter
    order = np.sign(brain[0].mean() - brain[1].mean())
    assert order == np.sign(made[40:44, 50:54].mean() - made[40:44, 70:74].mean()) == (1 if target == "T2w" else -1)


@pytest.mark.slow
def test_a_person_that_the_training_never_saw(shared):
    """About as good as the best mapping of intensities that knows the truth, or better, on one slice."""
    labels = read_volume(shared("data", "synthseg_label_maps", "training_seg_12.nii.gz"))
    pair = simulate_pair(labels, 77, PairConfig(contrast="adult", texture=[2.0, 7.0], bias=0.1, gamma=0.05))
    for scan, truth, target in ((pair.t1, pair.t2, "T2w"), (pair.t2, pair.t1, "T1w")):
        result = translate(scan, target, model="syndiff-lite", slices="100", seed=3, threads=1)
        real, given, made = (np.asarray(v.data[:, :, 100], float) for v in (truth, scan, result.image))
        assert made.shape == real.shape
        grades = np.digitize(given, np.linspace(given.min(), given.max(), 64))
        best = np.zeros_like(real)  # each grey value becomes what it is on average in the truth
        for grade in np.unique(grades):
            best[grades == grade] = real[grades == grade].mean()
        assert ratio(real, made) > ratio(real, given) + 4
        assert ratio(real, made) > ratio(real, best) - 1
