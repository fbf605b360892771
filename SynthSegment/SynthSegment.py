"""SynthSegment: labels the structures of the brain in a scan of any contrast and resolution.

The networks and the pipeline are those of SynthSeg (Billot et al. 2023), run by the package `mri_deep_tools` in a
process of its own.
"""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
)

try:
    import MRIDeepToolsLib  # noqa: F401
except ImportError:  # in the source tree each module has a folder of its own; installed, all are in one
    sys.path.append(str(Path(__file__).resolve().parent.parent / "MRIDeepTools"))

from MRIDeepToolsLib import core_info, nodes, setup_core
from MRIDeepToolsLib.module_widget import ModuleWidget
from SynthSegmentLib.panel import Panel
from SynthSegmentLib.parameters import SynthSegmentParameters
from SynthSegmentLib.run import SegmentOptions, SegmentRun, needed_models
from SynthSegmentLib.sample_data import register_sample_data
from SynthSegmentLib.scan_checks import why_not


class SynthSegment(ScriptedLoadableModule):
    """The module as Slicer knows it."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("SynthSegment")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation"), "Neuroimaging"]
        parent.dependencies = ["MRIDeepTools"]
        parent.contributors = ["The MRI Deep Tools contributors"]
        parent.helpText = (
            _(
                "Labels the structures of the brain in a scan of any contrast and resolution, with their volumes. "
                "Choose a scan and press Apply. Research use only, not a medical device."
            )
            + self.getDefaultModuleDocumentationLink()
        )
        parent.acknowledgementText = _(
            "Method: B. Billot et al., SynthSeg, Medical Image Analysis 86 (2023) 102789, and PNAS 120(9) (2023) "
            "e2216399120. Please cite them when you use the results. The weights have licences of their own, shown in "
            "the panel. MRI Deep Tools is free software under the Apache License 2.0."
        )
        slicer.app.connect("startupCompleted()", self.register_samples)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        """Return the link below the help text; ours is not among Slicer's own pages."""
        from MRIDeepToolsLib.widgets import documentation_url

        text = _("Documentation")
        return f'<p><a href="{documentation_url()}">{text}</a></p>'

    def register_samples(self) -> None:
        """Offer scans to try the module with, once all modules are there."""
        register_sample_data(self.resourcePath("Icons/SynthSegment.png"))


class SynthSegmentWidget(ModuleWidget):
    """The panel in Slicer; what it does is in :mod:`SynthSegmentLib.panel`."""

    def make_logic(self) -> SynthSegmentLogic:
        """Return the module's logic."""
        return SynthSegmentLogic()

    def make_panel(self) -> Panel:
        """Return what the panel does."""
        return Panel(self.ui, self.logic)

    def choose_inputs(self, parameters: Any) -> None:
        """Fill inputs that are not chosen yet with likely ones."""
        if parameters.inputVolume is None:
            parameters.inputVolume = default_volume()


class SynthSegmentLogic(ScriptedLoadableModuleLogic):
    """Labels volumes without any panel: for scripts, other modules and the Python console.

    ::

        import SynthSegment
        volume = slicer.util.getNode("MRHead")
        segmentation = SynthSegment.SynthSegmentLogic().process(volume)
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.outputs: Any = None

    def getParameterNode(self) -> SynthSegmentParameters:
        """Return the parameters that the scene remembers for the panel."""
        return SynthSegmentParameters(super().getParameterNode())

    def process(
        self,
        volumeNode: Any,
        segmentationNode: Any = None,
        *,
        volumes: Any = True,
        scores: Any = False,
        posteriors: Any = False,
        all_time_points: bool = False,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Any:
        """Label a volume, wait, and return the segmentation node; Slicer stays alive meanwhile.

        Parameters
        ----------
        volumeNode : scalar volume node.
        segmentationNode : to be filled; None for a new one.
        volumes, scores, posteriors :
            True or False, or the node (table, table, sequence) to be filled. What was made is in ``outputs``.
        all_time_points : label the whole sequence that the volume belongs to; the node that shows the current time
            point is returned, and ``outputs.sequence`` holds all.
        timeout_s : give up after so many seconds; None for no limit.
        options : fields of :class:`SynthSegmentLib.run.SegmentOptions`, such as ``robust=True`` or ``device="cpu"``;
            also ``on_progress``, ``on_log``, ``on_warning``.

        Raises
        ------
        GlueError : the volume cannot be used, the core is not installed, or the run failed; the message is a sentence.

        """
        run = self.start(
            volumeNode,
            segmentationNode,
            volumes=volumes,
            scores=scores,
            posteriors=posteriors,
            all_time_points=all_time_points,
            **options,
        )
        try:
            self.outputs = run.wait(timeout_s)
        finally:
            run.cancel()
        return self.outputs.segmentation

    def start(
        self,
        volumeNode: Any,
        segmentationNode: Any = None,
        *,
        volumes: Any = True,
        scores: Any = False,
        posteriors: Any = False,
        all_time_points: bool = False,
        **options: Any,
    ) -> SegmentRun:
        """Start what :meth:`process` does and return at once; ``on_done`` is called with the run at its end."""
        reason = why_not(volumeNode)
        if reason:
            raise nodes.NodeError(reason)
        callbacks = {name: options.pop(name) for name in list(options) if name.startswith("on_")}
        wanted = {"volumes": volumes, "scores": scores, "posteriors": posteriors}
        targets = {name: None if isinstance(value, bool) else value for name, value in wanted.items()}
        flags = {name: value is not None and value is not False for name, value in wanted.items()}
        run = SegmentRun(
            volumeNode,
            SegmentOptions(**flags, **options),
            segmentation=segmentationNode,
            all_time_points=all_time_points,
            **targets,
            **callbacks,
        )
        return run.start()


def default_volume() -> Any:
    """Return the volume that the person most likely means: the one shown, else the first; None without any."""
    selection = slicer.app.applicationLogic().GetSelectionNode()
    shown = slicer.mrmlScene.GetNodeByID(selection.GetActiveVolumeID() or "") if selection is not None else None
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    plain = [volume for volume in volumes if volume.GetClassName() == "vtkMRMLScalarVolumeNode"]
    return shown if shown in plain else next(iter(plain), None)


class SynthSegmentTest(ScriptedLoadableModuleTest):
    """Tests that any Slicer can run: no network, no installation, no GPU, half a minute.

    What needs the core is skipped where it is not installed.
    """

    def setUp(self) -> None:
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run all tests; for the button Reload and Test."""
        for name in ("test_checks", "test_parameters", "test_words", "test_run"):
            self.setUp()
            try:
                getattr(self, name)()
            except unittest.SkipTest as skipped:
                self.delayDisplay(str(skipped))
        self.delayDisplay(_("All tests of SynthSegment passed."))

    def test_checks(self) -> None:
        """A missing and an empty volume are refused with a sentence; a box in noise is not."""
        self.assertTrue(why_not(None))
        self.assertTrue(why_not(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")))
        self.assertEqual(why_not(sample_volume()), "")

    def test_parameters(self) -> None:
        """Parameters live in the scene."""
        logic = SynthSegmentLogic()
        logic.getParameterNode().inputVolume = sample_volume()
        logic.getParameterNode().robust = True
        self.assertTrue(logic.getParameterNode().robust)
        self.assertEqual(logic.getParameterNode().inputVolume.GetName(), "Sample")

    def test_words(self) -> None:
        """Options become words of the command line."""
        words = SegmentOptions(model="synthseg-2.0", fast=True, device="cpu", threads=1).words()
        self.assertEqual(
            words, ["--model", "synthseg-2.0", "--fast", "--grid", "native", "--device", "cpu", "--threads", "1"]
        )

    def test_run(self) -> None:
        """A volume gets labels on its own grid."""
        if not setup_core.state().ready:
            raise unittest.SkipTest("the core is not installed")
        if needed_models(SegmentOptions(), core_info.info()["models"]):
            raise unittest.SkipTest("no model is on this computer")
        volume = sample_volume()
        segmentation = SynthSegmentLogic().process(volume, crop=32, fast=True, device="cpu", threads=1)
        self.assertIsNotNone(segmentation)
        self.assertEqual(segmentation.GetAttribute("MRIDeepTools.ResearchUseOnly"), "1")


def sample_volume() -> Any:
    """Return a small new volume: a bright box in noise, 40 x 36 x 34 voxels of 1 mm."""
    import numpy as np

    values = np.random.default_rng(1).normal(100, 20, (34, 36, 40)).astype(np.float32)
    values[8:-8, 8:-8, 8:-8] += 200
    return slicer.util.addVolumeFromArray(values, name="Sample", nodeClassName="vtkMRMLScalarVolumeNode")
