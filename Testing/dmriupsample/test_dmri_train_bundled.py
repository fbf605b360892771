"""The bundled diffusion model on a phantom that it never saw and on the real volumes that DIPY carries."""

from __future__ import annotations

import numpy as np
import pytest
from mri_deep_tools.dmriupsample import upsample
from mri_deep_tools.dmriupsample.directions import even_directions
from mri_deep_tools.dmriupsample.facts import read_facts
from mri_deep_tools.dmriupsample.gradients import GradientTable
from mri_deep_tools.dmriupsample.phantom import built_in_labels, make_phantom
from mri_deep_tools.dmriupsample.simulate import even_scheme, simulate_dmri
from mri_deep_tools.models import get_model, model_path, model_status, verify
from mri_deep_tools.volume import Volume

MODEL = "dmri-rcnn-lite"
pytestmark = pytest.mark.skipif(model_status(MODEL) == "absent", reason=f"the package carries no {MODEL} yet")


def errors(image: Volume, table: GradientTable, mask: np.ndarray, wanted: np.ndarray, truth: np.ndarray) -> dict:
    """Return the mean absolute errors of the model and of the published baseline."""
    inside = image.with_data(mask.astype(np.uint8))
    vectors = (wanted * [-1, 1, 1]).astype(np.float32)  # FSL's convention of a right-handed image
    found = {}
    for name, options in {"network": {"model": MODEL}, "sh": {"method": "sh"}}.items():
        result = upsample(image, gradients=table, target_bvecs=vectors, mask=inside, device="cpu", **options)
        found[name] = float(np.abs(result.predicted.data[mask] - truth).mean())
    return found


def test_the_file_says_what_it_is_for():
    facts = read_facts(model_path(MODEL))
    assert facts is not None and facts.directions == (6, 10) and facts.shell == 1000 and facts.percentile
    assert all(check.status == "ok" for check in verify(MODEL))
    assert sum(file.size for file in get_model(MODEL).files) < 6 << 20


@pytest.mark.parametrize("count", [6, 10])
def test_it_is_better_than_the_baseline_on_a_noisy_phantom(count):
    phantom = make_phantom(built_in_labels((20, 20, 20), 8), seed=71)
    scan = simulate_dmri(phantom, even_scheme([1000], [count], seed=71), snr=15, seed=71)
    wanted = even_directions(12)
    table = GradientTable(np.r_[0, np.full(12, 1000.0)], np.r_[np.zeros((1, 3)), wanted])
    clean = simulate_dmri(phantom, table, snr=0).image.data[phantom.mask][:, 1:]
    found = errors(scan.image, scan.table, phantom.mask, wanted, clean)
    assert found["network"] < 0.92 * found["sh"]


def test_real_volumes_are_predicted_no_worse_than_by_the_baseline():
    data = pytest.importorskip("dipy.data")
    import nibabel as nib

    path, bvals, bvecs = data.get_fnames(name="small_64D")
    values, vectors = np.loadtxt(bvals), np.nan_to_num(np.loadtxt(bvecs))
    signal = nib.load(path).get_fdata(dtype=np.float32)
    kept = np.r_[0, 1:11]
    mask = np.ones(signal.shape[:3], dtype=bool)
    image = Volume(signal[..., kept], np.diag([2.0, 2, 2, 1]))
    table = GradientTable(values[kept], vectors[kept])
    found = errors(image, table, mask, vectors[11:], signal[mask][:, 11:])
    assert found["network"] < found["sh"]
