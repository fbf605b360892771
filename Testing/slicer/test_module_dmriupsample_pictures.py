"""Pictures of the module DMRIUpsample, as a person sees it: panel, directions in 3D, measured and predicted slices, FA.

`MRI_DEEP_TOOLS_PICTURES=Resources/Screenshots pytest Testing/slicer/test_module_dmriupsample_pictures.py` makes those
of the documentation, of a simulated scan at 2.5 mm. In an ordinary test run the scan is coarser.
"""

from __future__ import annotations

import numpy as np
import pytest
from dmriupsample_case import wait_planned
from module_helpers import apply, grab_panel
from test_module_pictures import PUBLISHED, VIEW, colours, compose, folder, pixels  # noqa: F401 - folder is a fixture

pytestmark = pytest.mark.slow  # real networks on whole scans

SIZE, SPACING = ((64, 76, 60), 2.5) if PUBLISHED else ((32, 36, 30), 5.0)


@pytest.fixture
def shown(host, tmp_path_factory, monkeypatch):
    """Return handle and panel with a simulated scan: two volumes at b = 0, ten directions; the core is the real one."""
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("MRI_DEEP_TOOLS_OFFLINE", "1")
    handle = host.load("DMRIUpsample")
    from MRIDeepToolsLib import core_info, settings

    core_info.forget()
    settings.set_value("device", "cpu")
    add_simulated_scan()
    widget = handle.widget()
    if not bundled():
        widget.panel.parameters.method = type(widget.panel.parameters.method).HARMONICS
    wait_planned(host, widget, 120)
    return handle, widget


def host_chart(path, chart):
    from slicer_host.charts import chart_view

    return chart_view(path, chart, size=(640, 380))


def bundled() -> bool:
    from mri_deep_tools.models import list_models

    return any(model.bundled for model in list_models("upsample-dmri"))


def add_simulated_scan() -> None:
    import slicer
    from mri_deep_tools.dmriupsample.phantom import built_in_labels, make_phantom
    from mri_deep_tools.dmriupsample.simulate import even_scheme, simulate_dmri
    from MRIDeepToolsLib import diffusion

    table = even_scheme([1000.0], [10], 2, 5)
    scan = simulate_dmri(make_phantom(built_in_labels(SIZE, SPACING)), table, snr=25, seed=5)
    values = np.ascontiguousarray(np.clip(scan.image.data, 0, 32000).astype(np.int16).transpose(2, 1, 0, 3))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLDiffusionWeightedVolumeNode", "DWI")
    diffusion.fill_dwi(node, values, slicer.util.vtkMatrixFromArray(scan.image.affine), table.bvals, table.world)


def test_pictures_of_more_directions(host, shown, folder, tmp_path):  # noqa: F811
    handle, widget = shown
    parameters = widget.panel.parameters
    widget.ui.showDirectionsCheckBox.checked = True
    wait_planned(host, widget, 120)
    grab_panel(host, handle, folder / "DMRIUpsample.png")
    assert pixels(folder / "DMRIUpsample.png").shape[0] <= 880
    apply(host, widget, 500)
    assert parameters.madeFA is not None, widget.panel.progress.log_text
    panel = grab_panel(host, handle, tmp_path / "panel.png")
    widget.ui.resultsTabs.currentIndex = 1
    grab_panel(host, handle, folder / "DMRIUpsample-errors.png")
    chart = host_chart(folder / "DMRIUpsample-chart.png", parameters.madeChart)
    assert colours(chart) >= 1, "no lines"
    sphere = host.view_3d(folder / "directions.png", parameters.directionsModel, size=(VIEW + 60, VIEW + 60))
    assert colours(sphere) >= 2, "blue and orange points"
    result, views = parameters.madeResult, []
    display = result.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0, 3200)
    size = (VIEW + 60, VIEW + 60)
    for name, component in (("measured", 2), ("predicted", int(widget.ui.volumeSlider.value))):
        display.SetDiffusionComponent(component)
        views.append(host.slice_view(tmp_path / f"{name}.png", background=result, size=size))
        assert pixels(views[-1]).std() > 20, f"{name}: no brain"
    fa = host.slice_view(tmp_path / "fa.png", background=parameters.madeFA, size=size)
    assert pixels(fa).std() > 20
    compose(panel, [*views, fa, sphere], folder / "more-directions.png")
