"""What the panel holds and the scene remembers."""

from __future__ import annotations

import enum

from slicer import (
    vtkMRMLPlotChartNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLSequenceNode,
    vtkMRMLTableNode,
)
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper

__all__ = ["LabelGrid", "SynthSegmentParameters"]


class LabelGrid(enum.Enum):
    """On which voxel grid the labels are; the names are stored in scenes, the values are the core's words."""

    SCAN = "native"
    ONE_MM = "1mm"

    def label(self) -> str:
        """Return what the combo box shows."""
        return {LabelGrid.SCAN: _("That of the scan"), LabelGrid.ONE_MM: _("1 mm, as published")}[self]


@parameterNodeWrapper
class SynthSegmentParameters:
    """Parameters of the panel, stored in the scene. What belongs to the computer is in the application settings.

    ``segmentation``, ``volumesTable``, ``scoresTable`` and ``posteriors`` are where the person wants the outputs (None:
    new nodes); the members ``result...`` are what the last run made.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    allTimePoints: bool = False
    segmentation: vtkMRMLSegmentationNode
    makeVolumes: bool = True
    volumesTable: vtkMRMLTableNode
    makeScores: bool = False
    scoresTable: vtkMRMLTableNode
    makePosteriors: bool = False
    posteriors: vtkMRMLSequenceNode
    model: str = ""
    parcels: bool = False
    robust: bool = False
    ct: bool = False
    fast: bool = False
    grid: LabelGrid = LabelGrid.SCAN
    showResult: bool = True
    resultSegmentation: vtkMRMLSegmentationNode
    resultVolumes: vtkMRMLTableNode
    resultScores: vtkMRMLTableNode
    resultChart: vtkMRMLPlotChartNode
    resultWarnings: list[str]
