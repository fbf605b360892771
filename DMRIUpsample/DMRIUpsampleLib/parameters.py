"""What the panel holds and the scene remembers."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Union

from slicer import (
    vtkMRMLDiffusionWeightedVolumeNode,
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLModelNode,
    vtkMRMLPlotChartNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
)
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Default, WithinRange, parameterNodeWrapper

__all__ = ["DMRIUpsampleParameters", "Method", "Targets"]


class Method(enum.Enum):
    """What predicts; the names are stored in scenes, the values are the core's words."""

    NETWORK = "rcnn"
    HARMONICS = "sh"

    def label(self) -> str:
        """Return what the combo box shows."""
        return {Method.NETWORK: _("Network"), Method.HARMONICS: _("Spherical harmonics")}[self]


class Targets(enum.Enum):
    """Where the wanted directions come from; the names are stored in scenes."""

    EVEN = "even"
    FILE = "file"

    def label(self) -> str:
        """Return what the combo box shows."""
        return {Targets.EVEN: _("Evenly spread"), Targets.FILE: _("From a file")}[self]


@parameterNodeWrapper
class DMRIUpsampleParameters:
    """Parameters of the panel, stored in the scene. What belongs to the computer is in the application settings.

    ``shell`` is a b-value in s/mm^2, 0 for the only one. ``result``, ``b0Volume``, ``faVolume``, ``mdVolume`` and
    ``errorsTable`` are where the person wants the outputs (None: new nodes); the members ``made...`` are what the last
    run made, ``directionsModel`` is the sphere of directions in the 3D view.
    """

    inputVolume: vtkMRMLDiffusionWeightedVolumeNode
    shell: int = 0
    mask: Union[vtkMRMLLabelMapVolumeNode, vtkMRMLSegmentationNode]
    targets: Targets = Targets.EVEN
    directionCount: Annotated[int, WithinRange(1, 1000), Default(30)]
    targetFile: Path
    method: Method = Method.NETWORK
    showDirections: bool = False
    directionsModel: vtkMRMLModelNode
    result: vtkMRMLDiffusionWeightedVolumeNode
    makeB0: bool = False
    b0Volume: vtkMRMLScalarVolumeNode
    makeFA: bool = True
    faVolume: vtkMRMLScalarVolumeNode
    makeMD: bool = False
    mdVolume: vtkMRMLScalarVolumeNode
    makeErrors: bool = True
    errorsTable: vtkMRMLTableNode
    model: str = ""
    keepMeasured: bool = True
    showResult: bool = True
    madeResult: vtkMRMLDiffusionWeightedVolumeNode
    madeB0: vtkMRMLScalarVolumeNode
    madeFA: vtkMRMLScalarVolumeNode
    madeMD: vtkMRMLScalarVolumeNode
    madeErrors: vtkMRMLTableNode
    madeChart: vtkMRMLPlotChartNode
    madeVerdict: str = ""
    madeLevel: str = ""
    madeWarnings: list[str]
