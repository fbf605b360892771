"""Harmonize: gives a T1w scan of any site the style of one reference scanner, and shows what it changed.

The method is IGUANe (Roca et al. 2025), run by the package `mri_deep_tools` in a process of its own; SynDiff (Özbey et
al. 2023) makes another contrast instead. The result is synthetic, and says so.
"""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Any

import slicer
import vtk
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

from HarmonizeLib.methods import IGUANE
from HarmonizeLib.panel import Panel
from HarmonizeLib.parameters import HarmonizeParameters
from HarmonizeLib.prediction import Prediction, PredictOptions, PredictRun, why_not_predictor
from HarmonizeLib.run import HarmonizeOptions, HarmonizeRun
from HarmonizeLib.scan_choice import likely_scan, why_not_harmonize
from HarmonizeLib.spaces import is_rigid, scan_to_template
from HarmonizeLib.translation import TranslateOptions, TranslateRun, why_not_translate
from MRIDeepToolsLib import core_info, nodes, setup_core
from MRIDeepToolsLib.module_widget import ModuleWidget


class Harmonize(ScriptedLoadableModule):
    """The module as Slicer knows it."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Harmonize")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Filtering"), "Neuroimaging"]
        parent.dependencies = ["MRIDeepTools"]
        parent.contributors = ["The MRI Deep Tools contributors"]
        parent.helpText = (
            _(
                "Gives a T1w scan of any site the style of one reference scanner, so that scans of several sites can "
                "be compared, and shows what was changed; or makes another contrast of a scan. The result is "
                "synthetic. Research use only, not a medical device."
            )
            + self.getDefaultModuleDocumentationLink()
        )
        parent.acknowledgementText = _(
            "Methods: V. Roca et al., IGUANe, Medical Image Analysis 99 (2025) 103388; M. Ozbey et al., SynDiff, IEEE "
            "Transactions on Medical Imaging (2023). Please cite the one that you used. "
            "The weights have licences of their own, shown in the panel. MRI Deep Tools is free software "
            "under the Apache License 2.0."
        )

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        """Return the link below the help text; ours is not among Slicer's own pages."""
        from MRIDeepToolsLib.widgets import documentation_url

        text = _("Documentation")
        return f'<p><a href="{documentation_url()}">{text}</a></p>'


class HarmonizeWidget(ModuleWidget):
    """The panel in Slicer; what it does is in :mod:`HarmonizeLib.panel`."""

    def make_logic(self) -> HarmonizeLogic:
        """Return the module's logic."""
        return HarmonizeLogic()

    def make_panel(self) -> Panel:
        """Return what the panel does."""
        return Panel(self.ui, self.logic)

    def choose_inputs(self, parameters: Any) -> None:
        """Fill inputs that are not chosen yet with likely ones."""
        if parameters.inputVolume is None:
            parameters.inputVolume = likely_scan()


class HarmonizeLogic(ScriptedLoadableModuleLogic):
    """Harmonizes volumes without any panel: for scripts, other modules and the Python console.

    ::

        import Harmonize
        scan = slicer.util.getNode("T1w")
        harmonized = Harmonize.HarmonizeLogic().process(scan)
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.outputs: Any = None

    def getParameterNode(self) -> HarmonizeParameters:
        """Return the parameters that the scene remembers for the panel."""
        return HarmonizeParameters(super().getParameterNode())

    def process(
        self,
        scanNode: Any,
        resultNode: Any = None,
        *,
        brain: Any = None,
        placement: Any = None,
        change: Any = True,
        mask: Any = False,
        transform: Any = False,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Any:
        """Harmonize a T1w volume, wait, and return the volume node of the result; Slicer stays alive meanwhile.

        Parameters
        ----------
        scanNode : T1w scalar volume node.
        resultNode : to be filled; None for a new one.
        brain : segmentation or label map node to take as brain mask; None to find the brain.
        placement : rigid transform node under which the scan, as Slicer shows it, lies in MNI space; None to register.
        change, mask, transform :
            True or False, or the node (scalar volume, segmentation, linear transform) to be filled with the change
            (result minus normalised scan), the brain mask, the transform that takes the scan to MNI space. What was
            made is in ``outputs``, with tables and charts of the change.
        timeout_s : give up after so many seconds; None for no limit.
        options : fields of :class:`HarmonizeLib.run.HarmonizeOptions`, such as ``keep_head=True`` or ``device="cpu"``;
            also ``on_progress``, ``on_log``, ``on_warning``.

        Raises
        ------
        GlueError : an input cannot be used, the core is not installed, or the run failed; the message is a sentence.

        """
        made = {"change": change, "mask": mask, "transform": transform}
        run = self.start(scanNode, resultNode, brain=brain, placement=placement, **made, **options)
        try:
            self.outputs = run.wait(timeout_s)
        finally:
            run.cancel()
        return self.outputs.result

    def start(
        self,
        scanNode: Any,
        resultNode: Any = None,
        *,
        brain: Any = None,
        placement: Any = None,
        change: Any = True,
        mask: Any = False,
        transform: Any = False,
        **options: Any,
    ) -> HarmonizeRun:
        """Start what :meth:`process` does and return at once; ``on_done`` is called with the run at its end."""
        callbacks = {name: options.pop(name) for name in list(options) if name.startswith("on_")}
        wanted = {"change": change, "mask": mask, "transform": transform}
        targets = {name: None if isinstance(value, bool) else value for name, value in wanted.items()}
        targets["result"] = resultNode
        flags = {name: value is not None and value is not False for name, value in wanted.items()}
        settings = HarmonizeOptions(**flags, **options)
        reason = why_not_harmonize(
            scanNode,
            brain=brain,
            placement=placement,
            registered=settings.registered,
            template=settings.template,
            unchecked=settings.unchecked,
            targets=targets,
        )
        if reason:
            raise nodes.NodeError(reason)
        return HarmonizeRun(scanNode, settings, brain=brain, placement=placement, **targets, **callbacks).start()

    def predict(
        self,
        scanNode: Any,
        *,
        weights: Any = "",
        model: str = "",
        brain: Any = None,
        placement: Any = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Prediction:
        """Predict an age or a diagnosis from a T1w volume, wait, and return value, unit, warnings and a table node.

        Parameters
        ----------
        scanNode, brain, placement, timeout_s : as for :meth:`process`. The scan is not changed.
        weights, model : file of a training (.safetensors), or the name of a model that predicts; one of them.
        options : fields of :class:`HarmonizeLib.prediction.PredictOptions`; also ``on_progress``, ``on_log``,
            ``on_warning``.

        Raises
        ------
        GlueError : as for :meth:`process`, or there is no model.

        """
        callbacks = {name: options.pop(name) for name in list(options) if name.startswith("on_")}
        chosen = PredictOptions(weights=str(weights), model=model, **options)
        checked = {"registered": chosen.registered, "template": chosen.template, "unchecked": chosen.unchecked}
        reason = why_not_predictor(chosen.model, chosen.weights)
        reason = reason or why_not_harmonize(scanNode, brain=brain, placement=placement, **checked)
        if reason:
            raise nodes.NodeError(reason)
        run = PredictRun(scanNode, chosen, brain=brain, placement=placement, **callbacks).start()
        try:
            return run.wait(timeout_s)
        finally:
            run.cancel()

    def translate(
        self,
        scanNode: Any,
        target: str,
        resultNode: Any = None,
        *,
        spread: Any = False,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Any:
        """Make another contrast from a volume (SynDiff), wait, and return the volume node of the synthetic image.

        Parameters
        ----------
        scanNode : scalar volume node; it is not changed.
        target : contrast to make, as the model names it.
        resultNode : to be filled; None for a new one.
        spread : True, or the volume node to fill, for the standard deviation of the samples; it is in ``outputs``.
        timeout_s : give up after so many seconds; None for no limit.
        options : fields of :class:`HarmonizeLib.translation.TranslateOptions`, such as ``weights=folder`` or
            ``samples=4``; also ``on_progress``, ``on_log``, ``on_warning``.

        Raises
        ------
        GlueError : as for :meth:`process`, or there is no model.

        """
        callbacks = {name: options.pop(name) for name in list(options) if name.startswith("on_")}
        options["weights"] = str(options.get("weights", ""))
        chosen = TranslateOptions(target=target, spread=spread is not None and spread is not False, **options)
        targets = {"result": resultNode, "spread": None if isinstance(spread, bool) else spread}
        reason = why_not_translate(scanNode, chosen, targets)
        if reason:
            raise nodes.NodeError(reason)
        run = TranslateRun(scanNode, chosen, **targets, **callbacks).start()
        try:
            self.outputs = run.wait(timeout_s)
        finally:
            run.cancel()
        return self.outputs.result


class HarmonizeTest(ScriptedLoadableModuleTest):
    """Tests that any Slicer can run: no network, no installation, no GPU, half a minute.

    What needs the core is skipped where it is not installed.
    """

    def setUp(self) -> None:
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run all tests; for the button Reload and Test."""
        for name in ("test_checks", "test_parameters", "test_words", "test_spaces", "test_run", "test_translation"):
            self.setUp()
            try:
                getattr(self, name)()
            except unittest.SkipTest as skipped:
                self.delayDisplay(str(skipped))
        self.delayDisplay(_("All tests of Harmonize passed."))

    def test_checks(self) -> None:
        """Missing and empty inputs are refused with a sentence; a plain scan is not."""
        self.assertTrue(why_not_harmonize(None))
        self.assertTrue(why_not_harmonize(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")))
        scan = sample_volume()
        self.assertEqual(why_not_harmonize(scan), "")
        self.assertTrue(why_not_harmonize(scan, needs_mask=True))
        mask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        self.assertTrue(why_not_harmonize(scan, brain=mask))
        self.assertTrue(why_not_harmonize(scan, targets={"result": scan}))

    def test_parameters(self) -> None:
        """Parameters live in the scene."""
        logic = HarmonizeLogic()
        logic.getParameterNode().inputVolume = sample_volume()
        logic.getParameterNode().keepHead = True
        self.assertTrue(logic.getParameterNode().keepHead)
        self.assertEqual(logic.getParameterNode().inputVolume.GetName(), "Sample T1w")

    def test_words(self) -> None:
        """Options become words of the command line."""
        words = HarmonizeOptions(model="iguane", bias_correction=False, device="cpu", threads=1).words()
        self.assertEqual(
            words,
            ["--model", "iguane", "--space", "native", "--no-bias-correction", "--device", "cpu", "--threads", "1"],
        )

    def test_spaces(self) -> None:
        """A transform that the scan is under counts once; a mirror is no way to the template."""
        scan = sample_volume()
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 5.0)
        transform.SetMatrixTransformToParent(matrix)
        self.assertEqual(scan_to_template(scan, transform).GetElement(0, 3), 5.0)
        scan.SetAndObserveTransformNodeID(transform.GetID())
        self.assertEqual(scan_to_template(scan, transform).GetElement(0, 3), 5.0)
        matrix.SetElement(0, 0, -1.0)
        self.assertFalse(is_rigid(matrix))

    def test_run(self) -> None:
        """A brain in MNI space keeps its place."""
        if not setup_core.state().ready:
            raise unittest.SkipTest("the core is not installed")
        if IGUANE.needed_models("", core_info.info()["models"]):
            raise unittest.SkipTest("no model is on this computer")
        scan = sample_volume()
        options = {"skull_stripped": True, "bias_correction": False, "registered": True, "unchecked": True}
        result = HarmonizeLogic().process(scan, **options, device="cpu", threads=1)
        self.assertEqual(result.GetImageData().GetDimensions(), scan.GetImageData().GetDimensions())
        self.assertEqual(result.GetAttribute("MRIDeepTools.Synthetic"), "1")

    def test_translation(self) -> None:
        """Another contrast keeps the place of the scan, which stays as it is; a few slices, for speed."""
        scan = sample_volume()
        self.assertTrue(why_not_translate(scan, TranslateOptions("T2w")))
        self.assertTrue(why_not_translate(scan, TranslateOptions("T2w", model="syndiff-lite", slices="4:2")))
        words = TranslateOptions("T2w", model="syndiff-lite", device="cpu", threads=1).words()
        self.assertEqual(words[:4], ["--to", "T2w", "--model", "syndiff-lite"])
        if not setup_core.state().ready:
            raise unittest.SkipTest("the core is not installed")
        known = {model["name"]: model["status"] for model in core_info.info()["models"]}
        if known.get("syndiff-lite", "absent") == "absent":
            raise unittest.SkipTest("no model that translates is on this computer")
        before = slicer.util.arrayFromVolume(scan).copy()
        options = {"model": "syndiff-lite", "slices": "20:22", "device": "cpu", "threads": 1}
        result = HarmonizeLogic().translate(scan, "T2w", **options)
        self.assertEqual(result.GetImageData().GetDimensions(), scan.GetImageData().GetDimensions())
        self.assertEqual(result.GetAttribute("MRIDeepTools.Synthetic"), "1")
        self.assertTrue((slicer.util.arrayFromVolume(scan) == before).all())


def sample_volume() -> Any:
    """Return a small new volume in MNI space: an ellipsoid with a darker rim, 40 x 48 x 40 voxels of 4 mm."""
    import numpy as np

    k, j, i = np.indices((40, 48, 40)).astype(np.float32)
    distance = np.sqrt(((i - 19.5) / 16) ** 2 + ((j - 23.5) / 20) ** 2 + ((k - 19.5) / 16) ** 2)
    values = np.where(distance < 0.75, 600, 400) + np.random.default_rng(1).normal(0, 20, distance.shape)
    values = np.where(distance < 1, values, 0).astype(np.float32)
    volume = slicer.util.addVolumeFromArray(values, name="Sample T1w", nodeClassName="vtkMRMLScalarVolumeNode")
    volume.SetSpacing(4, 4, 4)
    volume.SetOrigin(-78, -112, -60)
    return volume
