"""What the panel holds and the scene remembers."""

from __future__ import annotations

import enum
from typing import Annotated

from slicer import vtkMRMLPlotChartNode, vtkMRMLScalarVolumeNode, vtkMRMLTableNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

__all__ = ["SliceDirection", "SuperResolveParameters"]


class SliceDirection(enum.Enum):
    """How the slices lie; the names are stored in scenes, the values are the core's words."""

    DETECTED = ""
    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"

    def label(self) -> str:
        """Return what the combo box shows."""
        return {
            SliceDirection.DETECTED: _("As detected"),
            SliceDirection.AXIAL: _("Axial"),
            SliceDirection.CORONAL: _("Coronal"),
            SliceDirection.SAGITTAL: _("Sagittal"),
        }[self]


@parameterNodeWrapper
class SuperResolveParameters:
    """Parameters of the panel, stored in the scene. What belongs to the computer is in the application settings.

    ``sliceThickness`` and ``sliceSpacing`` are mm, 0 for what is detected. ``result``, ``interpolated`` and
    ``honestyMap`` are where the person wants the outputs (None: new nodes); the members ``made...`` are what the last
    run made.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    guideVolume: vtkMRMLScalarVolumeNode
    sliceDirection: SliceDirection = SliceDirection.DETECTED
    sliceThickness: Annotated[float, WithinRange(0, 50)] = 0
    sliceSpacing: Annotated[float, WithinRange(0, 50)] = 0
    result: vtkMRMLScalarVolumeNode
    makeInterpolated: bool = True
    interpolated: vtkMRMLScalarVolumeNode
    makeHonestyMap: bool = True
    honestyMap: vtkMRMLScalarVolumeNode
    model: str = ""
    aligned: bool = False
    smoothBlend: bool = False
    template: vtkMRMLScalarVolumeNode
    inTemplateSpace: bool = False
    showResult: bool = True
    madeInput: vtkMRMLScalarVolumeNode
    madeResult: vtkMRMLScalarVolumeNode
    madeInterpolated: vtkMRMLScalarVolumeNode
    madeHonestyMap: vtkMRMLScalarVolumeNode
    madeTable: vtkMRMLTableNode
    madeChart: vtkMRMLPlotChartNode
    madeCheck: str = ""
    madeWarnings: list[str]
