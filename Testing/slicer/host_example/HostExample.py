"""A small scripted module with which the host is tested: threshold a volume into a segmentation."""

# ruff: noqa: N802, N815 - the names are those of Slicer

from __future__ import annotations

from typing import Annotated

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class HostExample(ScriptedLoadableModule):
    def __init__(self, parent):
        super().__init__(parent)
        self.parent.title = _("Host example")
        self.parent.categories = ["Testing"]
        self.parent.contributors = ["The MRI Deep Tools contributors"]
        self.parent.helpText = _("Marks what is brighter than a threshold.")
        self.parent.acknowledgementText = _("Made for the tests of the host.")


@parameterNodeWrapper
class HostExampleParameters:
    inputVolume: slicer.vtkMRMLScalarVolumeNode | None
    outputSegmentation: slicer.vtkMRMLSegmentationNode | None
    threshold: Annotated[float, WithinRange(0.0, 100.0), Default(50.0)]
    mode: Annotated[str, Choice(["above", "below"])] = "above"
    smooth: bool = False
    note: str = ""


class HostExampleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self.ui = self.parameters = self.guiTag = None

    def setup(self):
        super().setup()
        panel = slicer.util.loadUI(self.resourcePath("UI/HostExample.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = HostExampleLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.setParameters(self.logic.getParameters())

    def enter(self):
        self.setParameters(self.logic.getParameters())

    def exit(self):
        self.setParameters(None)

    def cleanup(self):
        self.setParameters(None)
        self.removeObservers()

    def onSceneStartClose(self, caller, event):
        self.setParameters(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.setParameters(self.logic.getParameters())

    def setParameters(self, parameters):
        if self.parameters is not None:
            self.parameters.disconnectGui(self.guiTag)
            self.removeObserver(self.parameters, vtk.vtkCommand.ModifiedEvent, self.checkCanApply)
        self.parameters = parameters
        if parameters is not None:
            self.guiTag = parameters.connectGui(self.ui)
            self.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self.checkCanApply)
            self.checkCanApply()

    def checkCanApply(self, caller=None, event=None):
        ready = self.parameters is not None and self.parameters.inputVolume is not None
        self.ui.applyButton.enabled = ready
        self.ui.applyButton.toolTip = _("Mark the bright part") if ready else _("Choose a volume")

    def onApply(self):
        with slicer.util.tryWithErrorDisplay(_("Failed."), waitCursor=True):
            p = self.parameters
            p.outputSegmentation = self.logic.process(p.inputVolume, p.threshold, p.mode == "below")
            self.ui.statusLabel.text = _("Done")


class HostExampleLogic(ScriptedLoadableModuleLogic):
    def getParameters(self):
        return HostExampleParameters(self.getParameterNode())

    def process(self, volume, threshold, invert=False):
        import numpy as np

        values = slicer.util.arrayFromVolume(volume)
        marked = values < threshold if invert else values > threshold
        labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
        slicer.util.updateVolumeFromArray(labels, marked.astype(np.uint8))
        labels.CopyOrientation(volume)
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Marked")
        segmentation.CreateDefaultDisplayNodes()
        slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, segmentation)
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        slicer.mrmlScene.RemoveNode(labels)
        return segmentation


class HostExampleTest(ScriptedLoadableModuleTest):
    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_threshold()

    def test_threshold(self):
        import numpy as np

        volume = slicer.util.addVolumeFromArray(np.arange(60, dtype=np.float32).reshape(3, 4, 5))
        segmentation = HostExampleLogic().process(volume, 50.0)
        segment = segmentation.GetSegmentation().GetNthSegmentID(0)
        marked = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume)
        self.assertEqual(int(marked.sum()), 9)
        self.assertIsInstance(qt.QLabel("text").text, str)
