"""Measured and predicted directions as points on a sphere in the 3D view, both ends of each, in two colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import vtk
from MRIDeepToolsLib.hierarchy import output_name, place_beside
from MRIDeepToolsLib.provenance import mark_research_use
from MRIDeepToolsLib.volumes import new_node
from slicer.i18n import tr as _

from .plan import Plan

__all__ = ["MEASURED_COLOUR", "PREDICTED_COLOUR", "legend", "show_directions"]

MEASURED_COLOUR, PREDICTED_COLOUR = (36, 113, 184), (240, 128, 20)
_SPHERE_COLOUR = (226, 228, 232)
_SHARE = 0.4  # radius of the sphere over the shortest side of the scan
_READ, _UNREAD, _PREDICTED = 0.055, 0.03, 0.045  # radius of a point over that of the sphere


def legend() -> str:
    """Return what the colours mean, as rich text."""
    names = ((MEASURED_COLOUR, _("measured")), (PREDICTED_COLOUR, _("predicted")))
    return "&nbsp;&nbsp;".join(
        f'<span style="color:rgb({red},{green},{blue})">\u25cf</span> {text}' for (red, green, blue), text in names
    )


def show_directions(plan: Plan, volume: Any, node: Any = None) -> Any:
    """Fill a model node, or a new one, with the directions of a plan, and show it; returns the node.

    The sphere is in the middle of the scan, and under its transform. Measured directions that are not read are smaller.
    """
    with new_node("vtkMRMLModelNode", output_name(volume, _("directions")), node) as model:
        centre, radius = _place(volume)
        model.SetAndObservePolyData(directions_mesh(plan, centre, radius))
        if model.GetDisplayNode() is None:
            model.CreateDefaultDisplayNodes()
        display = model.GetDisplayNode()
        display.SetActiveScalarName("Colour")
        display.SetScalarRangeFlag(display.UseDirectMapping)
        display.SetScalarVisibility(True)
        display.SetVisibility(True)
        display.SetVisibility2D(False)
        mark_research_use(model)
        place_beside(model, volume)
    return model


def _place(volume: Any) -> tuple[list[float], float]:
    """Return middle (RAS, mm, without the transform above) and radius (mm) of the sphere."""
    size, spacing = volume.GetImageData().GetDimensions(), volume.GetSpacing()
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    middle = matrix.MultiplyPoint([*((n - 1) / 2 for n in size), 1.0])
    return list(middle[:3]), _SHARE * min(n * step for n, step in zip(size, spacing))  # noqa: B905 - Python 3.9


def directions_mesh(plan: Plan, centre: Sequence[float], radius: float) -> Any:
    """Return the mesh (vtkPolyData) of a plan's directions; its points carry the array ``Colour`` (RGB)."""
    chosen = set(plan.context)
    read = [plan.measured[index] for index in plan.context]
    unread = [plan.measured[index] for index in plan.unused if index not in chosen]
    append = vtk.vtkAppendPolyData()
    append.AddInputData(_ball(centre, radius * 0.97, 48, _SPHERE_COLOUR))
    groups = (
        (read, _READ, MEASURED_COLOUR),
        (unread, _UNREAD, MEASURED_COLOUR),
        (plan.targets, _PREDICTED, PREDICTED_COLOUR),
    )
    for directions, size, colour in groups:
        for direction in directions:
            for sign in (1.0, -1.0):
                place = [c + sign * radius * value for c, value in zip(centre, direction)]  # noqa: B905
                append.AddInputData(_ball(place, size * radius, 10, colour))
    append.Update()
    return append.GetOutput()


def _ball(centre: Sequence[float], radius: float, resolution: int, colour: tuple[int, int, int]) -> Any:
    source = vtk.vtkSphereSource()
    source.SetCenter(*centre)
    source.SetRadius(radius)
    source.SetThetaResolution(resolution)
    source.SetPhiResolution(resolution)
    source.Update()
    ball = source.GetOutput()
    colours = vtk.vtkUnsignedCharArray()
    colours.SetName("Colour")
    colours.SetNumberOfComponents(3)
    for _point in range(ball.GetNumberOfPoints()):
        colours.InsertNextTuple3(*colour)
    ball.GetPointData().SetScalars(colours)
    return ball
