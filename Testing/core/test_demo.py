"""`mri-deep-tools demo` from end to end: every task with its bundled model, and one page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.sample_scans import other_site
from mri_deep_tools.volume import Volume


def test_another_site_keeps_the_grid_and_the_background():
    data = np.zeros((20, 22, 24), dtype=np.int16)
    data[4:16, 4:18, 4:20] = np.random.default_rng(0).integers(200, 1000, (12, 14, 16))
    scan = Volume(data, np.diag([1.0, 1.0, 1.0, 1.0]))
    other = other_site(scan)
    assert not other.data[data == 0].any()
    assert (other.data[data > 0] > 0).all()
    assert 0.5 < np.corrcoef(other.data[data > 0], data[data > 0])[0, 1] < 0.99
    np.testing.assert_array_equal(other_site(scan).data, other.data)


@pytest.mark.slow
def test_every_task_runs_on_sample_data(tmp_path):
    """About three minutes on two cores."""
    pytest.importorskip("nilearn", reason="the demonstration's template comes with nilearn")
    out = tmp_path / "demo"
    assert main(["demo", str(out), "--quiet", "--progress", "none"]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    for title in (
        "Segmentation",
        "Harmonization of two sites",
        "Super-resolution",
        "Another contrast",
        "More diffusion",
    ):
        assert title in page
    assert page.count("data:image/png") == 6
    for folder in ("harmonize", "superresolve", "translate", "dmri"):
        assert (out / folder / "report.html").is_file()
    record = json.loads((out / "superresolve" / "icbm152_desc-synthetic_T2w.json").read_text())
    assert record["Honesty"]["PsnrDb"] > record["Honesty"]["InterpolationPsnrDb"]
    assert main(["demo", str(out), "--quiet", "--progress", "none"]) == 2  # never overwrites unasked
