"""Pictures of the panel of Harmonize, of the comparison and of the charts, as a person sees them.

`MRI_DEEP_TOOLS_PICTURES=Resources/Screenshots pytest Testing/slicer/test_module_harmonize_pictures.py` makes those of
the documentation: the template as another site might have taken it, harmonized by the bundled model, and a head made
from a label map, to which the bundled translator gives the contrast of T2w. Where the package carries no model, and in
an ordinary test run, the quick core stands in.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harmonize_case import MODELS, choose_method, use_fake, voxel_to_world
from module_helpers import grab_panel, set_mode, wait_idle
from test_module_pictures import (
    PUBLISHED,
    add_scan,
    colours,
    folder,  # noqa: F401 - a fixture
    head_and_labels,
    pixels,
)

pytestmark = pytest.mark.slow  # real networks on whole scans

STEP = 1 if PUBLISHED else 3
VIEW = (360, 400)
HEIGHT = 880


def bundled() -> bool:
    from mri_deep_tools.errors import MRIDeepToolsError
    from mri_deep_tools.models import model_status

    try:
        return all(model_status(name) == "bundled" for name in ("iguane-lite", "syndiff-lite"))
    except MRIDeepToolsError:
        return False


def site_scan():
    """Add the template's brain, as another scanner might have taken it: contrast, bias field and noise differ."""
    from mri_deep_tools.harmonize.template import load_template

    template = load_template(None)
    values = template.data[::STEP, ::STEP, ::STEP].astype(np.float32)
    high = float(np.percentile(values[values > 0], 99))
    ramp = 1 + 0.2 * np.linspace(-1, 1, values.shape[1])[None, :, None]
    noise = np.random.default_rng(4).normal(0, 0.015, values.shape)
    values = np.where(values > 0, np.clip((values / high) ** 1.5 * ramp + noise, 0.01, None) * 900, 0)
    affine = template.affine @ np.diag([STEP, STEP, STEP, 1.0])
    return add_scan("Site B T1w", values.astype(np.float32), affine)


@pytest.fixture
def case(host, monkeypatch):
    """Return the handle of Harmonize with a brain in the scene, and whether the real core works."""
    handle = host.load("Harmonize")
    from MRIDeepToolsLib import core_info

    real = bool(PUBLISHED) and bundled()
    if not real:
        use_fake(monkeypatch)
        monkeypatch.setattr(core_info, "_known", {"version": "1", "devices": [{"name": "cpu"}], "models": MODELS})
    return handle, real


def compose(pictures: list[Path], target: Path) -> None:
    """Put pictures side by side."""
    from PySide6 import QtGui

    images = [QtGui.QImage(str(picture)) for picture in pictures]
    whole = QtGui.QImage(sum(i.width() for i in images), max(i.height() for i in images), images[0].format())
    whole.fill(QtGui.QColor("black"))
    painter = QtGui.QPainter(whole)
    left = 0
    for image in images:
        painter.drawImage(left, 0, image)
        left += image.width()
    painter.end()
    assert whole.save(str(target))


def test_pictures_of_a_harmonized_brain(host, case, folder, tmp_path):  # noqa: F811
    from HarmonizeLib.results import MAP_OPACITY
    from slicer_host.charts import chart_view

    handle, real = case
    site_scan()
    widget = handle.widget()
    wait_idle(host, widget, 120)
    parameters = widget.panel.parameters
    parameters.brainSource = type(parameters.brainSource).STRIPPED
    parameters.makeTissues = not real  # two segmentations less
    widget.ui.applyButton.click()
    wait_idle(host, widget, 500)
    before, result, change = parameters.madeBefore, parameters.madeResult, parameters.madeChangeMap
    assert result is not None, widget.panel.progress.log_text
    panel = grab_panel(host, handle, folder / "Harmonize.png")
    assert pixels(panel).shape[0] <= HEIGHT, "the panel with results must fit on a screen without scrolling"
    assert colours(panel) >= 1
    views, options = [], {"orientation": "Axial", "offset": 12.0, "size": VIEW}
    for name, background, foreground in (("a", before, None), ("b", result, None), ("c", result, change)):
        layers = {"background": background, "foreground": foreground, "foreground_opacity": MAP_OPACITY}
        views.append(host.slice_view(tmp_path / f"{name}.png", **layers, **options))
    assert colours(views[0]) == colours(views[1]) == 0
    assert colours(views[2]) >= 1, "the change must be seen"
    inside = [np.median(pixels(view)[pixels(view).max(-1) > 20].astype(float)) for view in views[:2]]
    assert abs(inside[0] - inside[1]) < 0.3 * inside[0], "equal tissue must be about equally bright"
    compose(views, folder / "Harmonize-comparison.png")
    charts = [
        chart_view(tmp_path / f"{name}.png", chart, (540, 400))
        for name, chart in (("histogram", parameters.madeHistogram), ("joint", parameters.madeJoint))
    ]
    for chart in charts:
        assert colours(chart) >= 1, f"{chart.name} is empty"
    compose(charts, folder / "Harmonize-charts.png")


def head_scan(labels: Path) -> int:
    """Add a T1w scan of a head made from a label map; return the slice with most of the lateral ventricles."""
    scan, codes, affine = head_and_labels(labels)
    add_scan("Head T1w", scan, affine)
    return int(np.isin(codes, (4, 43)).sum(axis=(0, 1)).argmax())


def test_pictures_of_a_translated_head(host, case, folder, tmp_path, request):  # noqa: F811
    """The panel with results, and scan, synthetic image and uncertainty side by side."""
    from HarmonizeLib.results import MAP_OPACITY

    handle, real = case
    if real:  # of a label map that the bundled model was not trained on
        middle = head_scan(request.getfixturevalue("shared")("data", "synthseg_label_maps", "training_seg_06.nii.gz"))
    else:
        middle = round(0.55 * site_scan().GetImageData().GetDimensions()[2])
    widget = handle.widget()
    wait_idle(host, widget, 120)
    choose_method(widget, "syndiff")
    parameters = widget.panel.parameters
    parameters.samples, parameters.sameNoise = 4, True
    scan = parameters.inputVolume
    parameters.slices = f"{middle - 6}:{middle + 6}"  # what is shown is enough
    widget.ui.applyButton.click()
    wait_idle(host, widget, 1500)
    result, spread = parameters.madeResult, parameters.madeChangeMap
    assert result is not None, widget.panel.progress.log_text
    panel = grab_panel(host, handle, folder / "Harmonize-translation.png")
    assert pixels(panel).shape[0] <= HEIGHT, "the panel with results must fit on a screen without scrolling"
    views, options = [], {"orientation": "Axial", "offset": (voxel_to_world(scan) @ [0, 0, middle, 1])[2], "size": VIEW}
    for name, background, foreground in (("a", scan, None), ("b", result, None), ("c", result, spread)):
        layers = {"background": background, "foreground": foreground, "foreground_opacity": MAP_OPACITY}
        views.append(host.slice_view(tmp_path / f"{name}.png", **layers, **options))
    assert colours(views[0]) == colours(views[1]) == 0
    assert colours(views[2]) >= 1, "the uncertainty must be seen"
    assert np.ptp(pixels(views[1]).astype(int)) > 100, "the synthetic image must be seen"
    compose(views, folder / "Harmonize-contrasts.png")


def test_picture_while_it_runs(host, case, monkeypatch, tmp_path):
    handle, _real = case
    site_scan()
    monkeypatch.setenv("FAKE_CORE_GO", str(tmp_path / "go"))
    use_fake(monkeypatch, "step")
    widget = handle.widget()
    wait_idle(host, widget, 120)
    widget.ui.applyButton.click()
    assert host.wait_until(lambda: "43 %" in widget.panel.progress.ui.progressBar.format, 60)
    picture = grab_panel(host, handle, tmp_path / "Harmonize-running.png")
    assert colours(picture) >= 1
    assert "at work" in widget.ui.modelStateLabel.text
    set_mode(monkeypatch, "good")
    widget.ui.applyButton.click()
    wait_idle(host, widget)
    assert "Cancelled" in widget.panel.progress.ui.messageLabel.text
