"""Pictures: of panels by Qt, of slices and surfaces by VTK with the displayable managers of Slicer."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from .host import Host

_SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLScalarBarDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
)
_3D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
)


# Asked of another process, because VTK can crash where no OpenGL is to be had.
_PROBE = """
import vtkmodules.vtkRenderingOpenGL2
from vtkmodules.vtkRenderingCore import vtkRenderWindow
window = vtkRenderWindow()
window.SetOffScreenRendering(1)
window.SetSize(8, 8)
window.Render()
raise SystemExit(0 if "OpenGL version" in window.ReportCapabilities() else 1)
"""


class RenderingUnavailableError(OSError):
    """This machine offers no OpenGL, not even in software."""


@functools.cache
def require_rendering() -> None:
    """Check once that VTK can draw here.

    Raises:
        RenderingUnavailableError: it cannot; the message names what to install.
    """
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=120, check=False)
    if done.returncode != 0:
        raise RenderingUnavailableError(
            "VTK cannot draw on this machine (no OpenGL); Debian: apt-get install libegl1 libgl1 libgl1-mesa-dri"
        )


def grab(host: Host, what: Any, path: Path, size: tuple[int, int] | None = None) -> Path:
    """Write a PNG of a widget, of a Python panel or of the panel of a module handle.

    Args:
        host: the host, whose event loop runs before the picture is taken.
        what: a QWidget, an object whose ``parent`` is one, or a module handle.
        path: the file; its folder is made.
        size: width and height in pixels; without it the widget is as large as it wants to be.
    """
    widget = what.module.widgetRepresentation() if hasattr(what, "module") else what
    widget = widget if hasattr(widget, "grab") else widget.parent
    if size is not None:
        widget.resize(*size)
    else:
        widget.adjustSize()
    widget.show()
    host.pump(0.05)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not widget.grab().save(str(path)):
        raise OSError(f"the picture {path} could not be written")
    return path


def slice_view(
    host: Host,
    path: Path,
    background: Any = None,
    segmentation: Any = None,
    orientation: str = "Axial",
    size: tuple[int, int] = (512, 512),
    offset: float | None = None,
    foreground: Any = None,
    foreground_opacity: float = 0.5,
) -> Path:
    """Write a PNG of one slice, with all visible segmentations over it.

    Args:
        host: the host.
        path: the file; its folder is made.
        background: volume node.
        segmentation: the one segmentation to be seen; without it, all that are visible in the scene.
        orientation: "Axial", "Sagittal" or "Coronal" (RAS axes).
        size: width and height in pixels.
        offset: where the slice is on the axis it cuts, R, A or S, in mm; the middle of the volume where it is None.
        foreground: volume node over the background.
        foreground_opacity: 0 to 1.
    """
    import slicer
    import vtk

    scene = host.scene
    kept = _ids(scene)
    name = scene.GenerateUniqueName("HostSlice")
    slice_node = _new_view(scene, "vtkMRMLSliceNode", name)
    composite = _new_view(scene, "vtkMRMLSliceCompositeNode", name)
    slice_node.SetOrientation(orientation)
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLApplicationLogic(host.app.applicationLogic())
    logic.SetMRMLScene(scene)
    logic.SetSliceNode(slice_node)
    logic.SetSliceCompositeNode(composite)
    composite.SetBackgroundVolumeID(background.GetID() if background is not None else None)
    composite.SetForegroundVolumeID(foreground.GetID() if foreground is not None else None)
    composite.SetForegroundOpacity(foreground_opacity)
    window, renderer = _window(size)
    factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
    others = _show_only(scene, segmentation, slice_node)
    mapper, actor = _image_actor(vtk, renderer)  # before the managers: what is added first is drawn first
    group = _managers(factory, _SLICE_MANAGERS, renderer, slice_node)
    try:
        logic.ResizeSliceNode(*size)
        logic.FitSliceToAll(*size)
        if offset is not None:
            axis = {"Sagittal": 0, "Coronal": 1, "Axial": 2}[orientation]
            slice_node.JumpSliceByOffsetting(*(offset if i == axis else 0.0 for i in range(3)))
        mapper.SetInputConnection(logic.GetImageDataConnection())
        actor.SetVisibility(background is not None or foreground is not None)
        _save(window, path)
    finally:
        group.SetMRMLDisplayableNode(None)
        logic.SetMRMLScene(None)
        for node, visible in others:
            node.SetVisibility(visible)
        _forget(scene, kept)
        window.Finalize()
    return path


def view_3d(host: Host, path: Path, segmentation: Any, size: tuple[int, int] = (512, 512)) -> Path:
    """Write a PNG of the closed surfaces of a segmentation, or of a model, seen from the front right and above.

    The surfaces are made if they are not there yet.
    """
    import slicer

    scene = host.scene
    name = scene.GenerateUniqueName("HostView")
    surfaces = segmentation.GetSegmentation() if segmentation.IsA("vtkMRMLSegmentationNode") else None
    if surfaces is not None and not surfaces.ContainsRepresentation("Closed surface"):
        segmentation.CreateClosedSurfaceRepresentation()
    kept = _ids(scene)
    view = _new_view(scene, "vtkMRMLViewNode", name)
    view.SetBoxVisible(False)
    view.SetAxisLabelsVisible(False)
    view.SetBackgroundColor(1.0, 1.0, 1.0)
    view.SetBackgroundColor2(0.86, 0.88, 0.92)
    camera = slicer.vtkMRMLCameraNode()
    camera.SetLayoutName(name)
    camera = scene.AddNode(camera)
    window, renderer = _window(size)
    others = _show_only(scene, segmentation, view)
    factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
    group = _managers(factory, _3D_MANAGERS, renderer, view)
    try:
        bounds = [0.0] * 6
        segmentation.GetRASBounds(bounds)
        centre = [(bounds[i] + bounds[i + 1]) / 2 for i in (0, 2, 4)]
        looking = renderer.GetActiveCamera()
        looking.SetFocalPoint(*centre)
        looking.SetPosition(centre[0] + 1.0, centre[1] + 1.6, centre[2] + 0.8)
        looking.SetViewUp(0, 0, 1)
        renderer.ResetCamera(bounds)
        looking.Zoom(1.25)
        renderer.ResetCameraClippingRange()
        _save(window, path)
    finally:
        group.SetMRMLDisplayableNode(None)
        for node, visible in others:
            node.SetVisibility(visible)
        _forget(scene, kept)
        window.Finalize()
    return path


def _ids(scene: Any) -> set[str]:
    return {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}


def _forget(scene: Any, kept: set[str]) -> None:
    """Remove what a picture has added to the scene: its views, and what logics and managers made for them."""
    for node_id in _ids(scene) - kept:
        node = scene.GetNodeByID(node_id)
        if node is not None:
            scene.RemoveNode(node)


def _new_view(scene: Any, class_name: str, name: str) -> Any:
    """Add a view node of a layout name that no widget shows; made by the scene, so that it knows the orientations."""
    node = scene.CreateNodeByClass(class_name)
    node.UnRegister(None)
    node.SetLayoutName(name)
    node.SetName(name)
    node.SetSingletonTag(name)
    node.SetSaveWithScene(False)
    return scene.AddNode(node)


def _window(size: tuple[int, int]) -> tuple[Any, Any]:
    import vtk

    require_rendering()
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(0)
    window.SetSize(*size)
    renderer = vtk.vtkRenderer()
    window.AddRenderer(renderer)
    interactor = vtk.vtkGenericRenderWindowInteractor()
    interactor.SetRenderWindow(window)
    return window, renderer


def _managers(factory: Any, names: tuple[str, ...], renderer: Any, view: Any) -> Any:
    """Return a group of displayable managers that draws what *view* shows into the renderer."""
    import slicer

    for name in names:
        if not factory.IsDisplayableManagerRegistered(name):
            factory.RegisterDisplayableManager(name)
    group = slicer.vtkMRMLDisplayableManagerGroup()
    group.Initialize(factory, renderer)
    group.SetMRMLDisplayableNode(view)
    return group


def _image_actor(vtk: Any, renderer: Any) -> tuple[Any, Any]:
    """Return mapper and actor of the slice itself, drawn behind everything, grey values as they are."""
    mapper = vtk.vtkImageMapper()
    mapper.SetColorWindow(255)
    mapper.SetColorLevel(127.5)
    actor = vtk.vtkActor2D()
    actor.SetMapper(mapper)
    actor.GetProperty().SetDisplayLocationToBackground()
    renderer.AddViewProp(actor)
    return mapper, actor


def _show_only(scene: Any, segmentation: Any, view: Any) -> list[tuple[Any, int]]:
    """Hide the other segmentations; return their display nodes with what they were."""
    changed = []
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLSegmentationNode")
        display = node.GetDisplayNode()
        if segmentation is not None and node is not segmentation and display is not None:
            changed.append((display, display.GetVisibility()))
            display.SetVisibility(0)
    return changed


def _save(window: Any, path: Path) -> None:
    import vtk

    window.Render()
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(window)
    grabber.ReadFrontBufferOff()
    writer = vtk.vtkPNGWriter()
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.SetFileName(str(path))
    writer.SetInputConnection(grabber.GetOutputPort())
    writer.Write()
