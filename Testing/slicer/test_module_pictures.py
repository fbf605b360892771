"""Pictures of the panels and of a labelled brain, as a person sees them.

`MRI_DEEP_TOOLS_PICTURES=Resources/Screenshots pytest Testing/slicer/test_module_pictures.py` makes those of the README:
at full resolution, of the ICBM template labelled by the bundled model. Where the package carries no model, and in an
ordinary test run, the labels are those of a label map of the golden data over a scan made from it.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from module_helpers import grab_panel, set_mode, use_fake_core, wait_idle

PUBLISHED = os.environ.get("MRI_DEEP_TOOLS_PICTURES", "")
STEP = 1 if PUBLISHED else 3
VIEW = 430  # pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return where the pictures go."""
    place = Path(PUBLISHED).resolve() if PUBLISHED else tmp_path_factory.mktemp("pictures")
    place.mkdir(parents=True, exist_ok=True)
    return place


def bundled() -> bool:
    from mri_deep_tools.models import model_status

    return model_status("synthseg-lite") == "bundled"


def head_and_labels(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a scan made from a label map, its labels (both k, j, i) and the affine; cut to the head."""
    import nibabel
    from mri_deep_tools.synthsegment.labels import LABELS
    from scipy.ndimage import gaussian_filter

    image = nibabel.as_closest_canonical(nibabel.load(path))
    codes = np.asarray(image.dataobj).astype(np.int16)
    box = tuple(slice(max(a.min() - 4, 0), a.max() + 5, STEP) for a in np.nonzero(codes))
    bright = {2: 110, 41: 110, 3: 72, 42: 72, 4: 28, 43: 28, 24: 30, 10: 92, 49: 92, 16: 100, 7: 104, 46: 104}
    table = np.full(codes.max() + 1, 78.0)
    table[0] = 4
    for code, value in {
        **bright,
        14: 28,
        15: 28,
        506: 35,
        507: 60,
        509: 45,
        511: 62,
        512: 96,
        514: 40,
        515: 58,
    }.items():
        if code < len(table):
            table[code] = value
    noise = np.random.default_rng(3).normal(0, 3, codes.shape)
    scan = gaussian_filter(table[codes], 0.7) + noise
    known = np.zeros(codes.max() + 1, np.int16)
    for code in set(LABELS) & set(np.unique(codes).tolist()):
        known[code] = code
    affine = image.affine @ np.diag([STEP, STEP, STEP, 1.0])
    affine[:3, 3] = (image.affine @ [*(part.start for part in box), 1])[:3]
    return scan[box].astype(np.float32), known[codes[box]], affine


@pytest.fixture
def case(host, tmp_path, monkeypatch, request):
    """Return the handle of SynthSegment with a head in the scene, and a core that labels it."""
    handle = host.load("SynthSegment")
    from MRIDeepToolsLib import core_info

    real = bool(PUBLISHED) and bundled()
    if real:
        from mri_deep_tools.sample_scans import template_scan

        template = template_scan()
        add_scan("ICBM 152", template.data.astype(np.float32), template.affine)
        return handle
    path = request.getfixturevalue("shared")("data", "synthseg_label_maps", "training_seg_01.nii.gz")
    scan, labels, affine = head_and_labels(path)
    add_scan("Head", scan, affine)
    import nibabel

    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "labels.nii")
    monkeypatch.setenv("FAKE_CORE_LABELS", str(tmp_path / "labels.nii"))
    use_fake_core(monkeypatch, "picture")
    here = {"task": "segment", "bundled": False, "size": 1, "size_text": "53.1 MB", "licence": "", "citation": []}
    models = [
        {**here, "name": name, "status": "installed", "description": name}
        for name in ("synthseg-2.0", "synthseg-qc-2.0")
    ]
    monkeypatch.setattr(core_info, "_known", {"version": "1", "devices": [{"name": "cpu"}], "models": models})
    return handle


def add_scan(name: str, values: np.ndarray, affine: np.ndarray):
    """Add a volume of axes X, Y, Z with its affine, in RAS mm."""
    import slicer
    import vtk

    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(volume, np.ascontiguousarray(values.transpose()))
    matrix = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            matrix.SetElement(row, column, affine[row, column])
    volume.SetIJKToRASMatrix(matrix)
    volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0, float(np.percentile(values, 99.8)))
    return volume


def pixels(path: Path) -> np.ndarray:
    """Return a picture as rows, columns, red green blue."""
    from PySide6 import QtGui

    image = QtGui.QImage(str(path)).convertToFormat(QtGui.QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : image.width() * 3].reshape(image.height(), image.width(), 3).copy()  # Qt frees the bytes


def colours(path: Path) -> int:
    """Return how many strong colours a picture shows: hues of 30 degrees that cover a thousandth of it or more."""
    values = pixels(path).astype(float)
    high, low = values.max(-1), values.min(-1)
    strong = (high - low > 60) & (high > 80)
    red, green, blue = (values[..., n][strong] for n in range(3))
    hue = np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)) % 360
    counts = np.histogram(hue, np.arange(0, 361, 30))[0]
    return int((counts > values.shape[0] * values.shape[1] / 1000).sum())


def compose(panel: Path, views: list[Path], target: Path) -> None:
    """Put a panel and four views into one picture, as they stand in Slicer's window."""
    from PySide6 import QtCore, QtGui

    left = QtGui.QImage(str(panel))
    height = max(left.height(), 2 * VIEW + 6)
    image = QtGui.QImage(left.width() + 2 * VIEW + 12, height, QtGui.QImage.Format.Format_RGB888)
    image.fill(QtGui.QColor("#3a3f44"))
    painter = QtGui.QPainter(image)
    painter.fillRect(0, 0, left.width(), height, QtGui.QColor(left.pixel(1, 1)))
    painter.drawImage(QtCore.QPoint(0, 0), left)
    size = (height - 6) // 2
    for number, view in enumerate(views):
        place = QtCore.QRect(left.width() + 6 + (number % 2) * (VIEW + 6), (number // 2) * (size + 6), VIEW, size)
        picture = QtGui.QImage(str(view))
        picture = picture.copy((picture.width() - VIEW) // 2, (picture.height() - size) // 2, VIEW, size)
        painter.drawImage(place, picture)
    painter.end()
    assert image.save(str(target))


def test_pictures_of_a_labelled_brain(host, case, folder, tmp_path):
    widget = case.widget()
    wait_idle(host, widget, 120)
    widget.panel.parameters.makeScores = not (PUBLISHED and bundled())
    widget.ui.applyButton.click()
    wait_idle(host, widget, 500)
    parameters = widget.panel.parameters
    segmentation, volume = parameters.resultSegmentation, parameters.inputVolume
    assert segmentation is not None, widget.panel.progress.log_text
    panel = grab_panel(host, case, folder / "SynthSegment.png")
    assert pixels(panel).shape[0] <= 880, "the panel with results must fit on a screen without scrolling"
    widget.ui.resultsTabs.currentIndex = 1
    grab_panel(host, case, folder / "SynthSegment-volumes.png")
    if parameters.resultScores is not None:
        widget.ui.resultsTabs.currentIndex = 2
        grab_panel(host, case, tmp_path / "SynthSegment-quality.png")  # the scores of a picture are made up
    centre = segmentation.GetSegmentCenterRAS("Label_10")  # the left thalamus
    offsets = {"Axial": centre[2] + 6, "Coronal": centre[1], "Sagittal": centre[0]}
    segmentation.GetDisplayNode().SetOpacity2DFill(0.55)
    views = []
    for orientation, offset in offsets.items():
        options = {"background": volume, "segmentation": segmentation, "size": (VIEW + 60, VIEW + 60)}
        name = folder / "slice.png" if orientation == "Axial" else tmp_path / f"{orientation}.png"
        views.append(host.slice_view(name, orientation=orientation, offset=offset, **options))
        assert colours(name) >= 4, f"{orientation}: no coloured brain"
    for code in (41, 42):  # the right hemisphere is opened, to show what lies inside
        segmentation.GetDisplayNode().SetSegmentVisibility3D(f"Label_{code}", False)
    views.append(host.view_3d(folder / "surfaces.png", segmentation, size=(VIEW + 60, VIEW + 60)))
    assert colours(views[-1]) >= 2
    compose(panel, views, folder / "segmentation.png")
    for view in views:
        assert len(zlib.compress(pixels(view).tobytes())) > 5000, f"{view.name} is empty"


def test_picture_while_it_runs(host, case, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_CORE_GO", str(tmp_path / "go"))
    use_fake_core(monkeypatch, "step")
    widget = case.widget()
    wait_idle(host, widget, 120)
    widget.ui.applyButton.click()
    assert host.wait_until(lambda: "43 %" in widget.panel.progress.ui.progressBar.format, 60)
    grab_panel(host, case, folder / "SynthSegment-running.png")
    set_mode(monkeypatch, "good")
    widget.ui.applyButton.click()
    wait_idle(host, widget)
    assert "Cancelled" in widget.panel.progress.ui.messageLabel.text


def test_picture_of_the_home_module(host, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path))
    monkeypatch.delenv("FREESURFER_HOME", raising=False)
    handle = host.load("MRIDeepTools")
    from MRIDeepToolsLib import core_info

    core_info.forget()
    widget = handle.widget()
    assert host.wait_until(lambda: widget.panel._asking is None, 60)
    picture = grab_panel(host, handle, folder / "MRIDeepTools.png")
    assert pixels(picture).shape[0] <= 880
    assert colours(picture) >= 1
    core_info.forget()
