"""What the panel holds and the scene remembers."""

from __future__ import annotations

import enum
from typing import Annotated

from slicer import (
    vtkMRMLLinearTransformNode,
    vtkMRMLNode,
    vtkMRMLPlotChartNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
)
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

__all__ = ["BrainSource", "HarmonizeParameters", "MethodChoice", "Placement", "ResultSpace"]


class MethodChoice(enum.Enum):
    """What is done with the scan; the names are stored in scenes."""

    IGUANE = "iguane"
    SYNDIFF = "syndiff"

    def label(self) -> str:
        """Return what the combo box shows."""
        return {
            MethodChoice.IGUANE: _("Reference style, same contrast (IGUANe)"),
            MethodChoice.SYNDIFF: _("SynDiff translation into another contrast"),
        }[self]


class BrainSource(enum.Enum):
    """How the brain is found; the names are stored in scenes."""

    FOUND = "found"
    HD_BET = "hd-bet"
    MASK = "mask"
    STRIPPED = "stripped"

    def label(self) -> str:
        """Return what the combo box shows."""
        return {
            BrainSource.FOUND: _("Find it in the scan"),
            BrainSource.HD_BET: _("Find it with HD-BET, if installed"),
            BrainSource.MASK: _("Take a mask"),
            BrainSource.STRIPPED: _("Skull is removed already"),
        }[self]


class Placement(enum.Enum):
    """How the scan comes into the space of the template; the names are stored in scenes."""

    REGISTER = "register"
    REGISTERED = "registered"
    TRANSFORM = "transform"

    def label(self) -> str:
        """Return what the combo box shows."""
        return {
            Placement.REGISTER: _("Register rigidly to the template"),
            Placement.REGISTERED: _("Scan lies in MNI space already"),
            Placement.TRANSFORM: _("Take a transform"),
        }[self]


class ResultSpace(enum.Enum):
    """On which grid the result is; the names are stored in scenes, the values are the core's words."""

    SCAN = "native"
    TEMPLATE = "template"

    def label(self) -> str:
        """Return what the combo box shows."""
        return {ResultSpace.SCAN: _("That of the scan"), ResultSpace.TEMPLATE: _("MNI space, 1 mm")}[self]


@parameterNodeWrapper
class HarmonizeParameters:
    """Parameters of the panel, stored in the scene. What belongs to the computer is in the application settings.

    ``age`` is years, 0 where it is not known. ``result``, ``changeMap``, ``brainMask`` and ``transform`` (and of a
    translation ``translated`` and ``spread``) are where the person wants the outputs (None: new nodes); the members
    ``made...`` are what the last run made; ``madeContrast`` is empty after a harmonization.
    """

    method: MethodChoice = MethodChoice.IGUANE
    inputVolume: vtkMRMLScalarVolumeNode
    translator: str = ""
    translateTo: str = ""
    translated: vtkMRMLScalarVolumeNode
    makeSpread: bool = False
    spread: vtkMRMLScalarVolumeNode
    samples: Annotated[int, WithinRange(1, 64)] = 1
    seed: Annotated[int, WithinRange(0, 2147483647)] = 42
    sameNoise: bool = False
    slices: str = ""
    age: Annotated[float, WithinRange(0, 130)] = 0
    brainSource: BrainSource = BrainSource.FOUND
    maskNode: vtkMRMLNode
    biasCorrection: bool = True
    placement: Placement = Placement.REGISTER
    givenTransform: vtkMRMLLinearTransformNode
    model: str = ""
    predictor: str = ""
    result: vtkMRMLScalarVolumeNode
    makeChangeMap: bool = True
    changeMap: vtkMRMLScalarVolumeNode
    makeBrainMask: bool = False
    brainMask: vtkMRMLSegmentationNode
    makeTransform: bool = False
    transform: vtkMRMLLinearTransformNode
    makeTissues: bool = False
    space: ResultSpace = ResultSpace.SCAN
    keepHead: bool = False
    unchecked: bool = False
    showResult: bool = True
    madeBefore: vtkMRMLScalarVolumeNode
    madeResult: vtkMRMLScalarVolumeNode
    madeChangeMap: vtkMRMLScalarVolumeNode
    madeFigures: vtkMRMLTableNode
    madeTissues: vtkMRMLTableNode
    madeHistogram: vtkMRMLPlotChartNode
    madeJoint: vtkMRMLPlotChartNode
    madeFactor: float = 1.0
    madeContrast: str = ""
    madeStages: dict[str, str]
    madeWarnings: list[str]
    madePrediction: vtkMRMLTableNode
    madePredictionNotes: list[str]
    madePredictionDisclaimer: str = ""
