"""Pictures of the panel of SuperResolve and of the comparison view, as a person sees them.

`MRI_DEEP_TOOLS_PICTURES=Resources/Screenshots pytest Testing/slicer/test_module_superresolve_pictures.py` makes those
of the documentation: slices of 4 mm of the template with the contrast turned round, filled in by the bundled model.
Where the package carries none, and in an ordinary test run, the quick core interpolates instead.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from module_helpers import grab_panel, use_fake_core, wait_idle
from superresolve_case import MODELS
from superresolve_scans import slices_known
from test_module_pictures import PUBLISHED, VIEW, add_scan, colours, compose, folder, pixels  # noqa: F401
from test_module_superresolve_real import is_bundled

pytestmark = pytest.mark.slow  # real networks on whole scans

STEP = 1 if PUBLISHED else 3


def add_pair():
    """Add the template and slices of 4 mm of it (fewer voxels in a test run) with the contrast of T2w."""
    from mri_deep_tools.harmonize.template import load_template
    from mri_deep_tools.sample_scans import without_t1_contrast
    from mri_deep_tools.superresolve.simulate import SliceStack, acquire
    from mri_deep_tools.volume import Volume

    brain = load_template()
    guide = Volume(brain.data[::STEP, ::STEP, ::STEP], brain.affine @ np.diag([STEP, STEP, STEP, 1.0]))
    thick = acquire(without_t1_contrast(brain), SliceStack(2, 4.0, 4.0))
    scan = Volume(thick.data[::STEP, ::STEP], thick.affine @ np.diag([STEP, STEP, 1.0, 1.0]))
    add_scan("Template T1w", guide.data, guide.affine)
    volume = add_scan("Template T2w", scan.data, scan.affine)
    volume.GetDisplayNode().SetInterpolate(False)


@pytest.fixture
def case(host, monkeypatch):
    """Return the handle of SuperResolve with a pair in the scene."""
    handle = host.load("SuperResolve")
    from MRIDeepToolsLib import core_info

    add_pair()
    if not (PUBLISHED and is_bundled()):
        use_fake_core(monkeypatch)
        monkeypatch.setattr(core_info, "_known", {"version": "1", "devices": [{"name": "cpu"}], "models": MODELS})
    return handle


def test_pictures_of_a_super_resolved_brain(host, case, folder, tmp_path):  # noqa: F811
    from SuperResolveLib.comparison import colour_honesty_map

    widget = case.widget()
    wait_idle(host, widget, 120)
    slices_known(host, widget)
    before = grab_panel(host, case, folder / "SuperResolve-slices.png")
    assert pixels(before).shape[0] <= 880
    widget.panel.parameters.aligned = True
    widget.ui.applyButton.click()
    wait_idle(host, widget, 580)
    parameters = widget.panel.parameters
    assert parameters.madeResult is not None, widget.panel.progress.log_text
    slices_known(host, widget)
    panel = grab_panel(host, case, folder / "SuperResolve.png")
    assert pixels(panel).shape[0] <= 880, "the panel with results must fit on a screen without scrolling"
    place = {"orientation": "Sagittal", "offset": 12.0, "size": (VIEW + 60, VIEW + 60)}
    views = []
    for number, node in enumerate((parameters.inputVolume, parameters.madeInterpolated, parameters.madeResult)):
        views.append(host.slice_view(tmp_path / f"{number}.png", background=node, **place))
    over = {"foreground": parameters.madeHonestyMap, "foreground_opacity": 1.0}
    views.append(host.slice_view(tmp_path / "map.png", background=parameters.madeResult, **over, **place))
    compose(panel, views, folder / "superresolution.png")
    grey = [np.asarray(pixels(view), dtype=float) for view in views]
    assert np.abs(grey[0] - grey[2]).mean() > 1, "scan and result look the same"
    colour_honesty_map(parameters.madeHonestyMap, 1.0)  # so sensitive that any difference shows
    sensitive = host.slice_view(tmp_path / "sensitive.png", background=parameters.madeResult, **over, **place)
    assert colours(sensitive) >= 2
    for view in views:
        assert Path(view).stat().st_size > 3000
