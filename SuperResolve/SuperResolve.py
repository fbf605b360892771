"""SuperResolve: turns a T2w scan with thick slices into one with voxels of 1 mm, guided by a T1w scan if there is one.

The method is that of BABY-AI (A. Lennartsson, Lund University), run by the package `mri_deep_tools` in a process of its
own. What lies between the slices was not measured: the result is synthetic, and says so.
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
from SuperResolveLib.pair_checks import likely_pair, why_not_pair
from SuperResolveLib.panel import Panel
from SuperResolveLib.parameters import SuperResolveParameters
from SuperResolveLib.run import SuperResolveOptions, SuperResolveRun, needed_models


class SuperResolve(ScriptedLoadableModule):
    """The module as Slicer knows it."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("SuperResolve")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Filtering"), "Neuroimaging"]
        parent.dependencies = ["MRIDeepTools"]
        parent.contributors = ["The MRI Deep Tools contributors"]
        parent.helpText = (
            _(
                "Turns a T2w scan with thick slices into one with voxels of 1 mm, guided by a T1w scan of the same "
                "person where there is one, and shows where the result departs from what was measured. The result is "
                "synthetic. Research use only, not a medical device."
            )
            + self.getDefaultModuleDocumentationLink()
        )
        parent.acknowledgementText = _(
            "Method: A. Lennartsson, BABY-AI, master's thesis, Lund University, LUP student papers 9222513. Please "
            "cite it when you use the results. The weights have licences of their own, shown in the panel. MRI Deep "
            "Tools is free software under the Apache License 2.0."
        )

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        """Return the link below the help text; ours is not among Slicer's own pages."""
        from MRIDeepToolsLib.widgets import documentation_url

        text = _("Documentation")
        return f'<p><a href="{documentation_url()}">{text}</a></p>'


class SuperResolveWidget(ModuleWidget):
    """The panel in Slicer; what it does is in :mod:`SuperResolveLib.panel`."""

    def make_logic(self) -> SuperResolveLogic:
        """Return the module's logic."""
        return SuperResolveLogic()

    def make_panel(self) -> Panel:
        """Return what the panel does."""
        return Panel(self.ui, self.logic)

    def choose_inputs(self, parameters: Any) -> None:
        """Fill inputs that are not chosen yet with likely ones."""
        if parameters.inputVolume is None:
            parameters.inputVolume, parameters.guideVolume = likely_pair()


class SuperResolveLogic(ScriptedLoadableModuleLogic):
    """Super-resolves volumes without any panel: for scripts, other modules and the Python console.

    ::

        import SuperResolve
        scan, guide = slicer.util.getNode("T2w"), slicer.util.getNode("T1w")
        result = SuperResolve.SuperResolveLogic().process(scan, guide)
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.outputs: Any = None

    def getParameterNode(self) -> SuperResolveParameters:
        """Return the parameters that the scene remembers for the panel."""
        return SuperResolveParameters(super().getParameterNode())

    def process(
        self,
        scanNode: Any,
        guideNode: Any = None,
        resultNode: Any = None,
        *,
        interpolated: Any = True,
        honesty: Any = True,
        template: Any = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Any:
        """Super-resolve a T2w volume, wait, and return the volume node of the result; Slicer stays alive meanwhile.

        Parameters
        ----------
        scanNode : T2w scalar volume node with thick slices.
        guideNode : T1w scalar volume node of the same person; None works from the T2w scan alone.
        resultNode : to be filled; None for a new one.
        interpolated, honesty :
            True or False, or the volume node to be filled with the interpolated scan (on the grid of the result), or
            with the result, reduced to the measured slices, minus these. What was made is in ``outputs``.
        template : scalar volume node at 1 mm in whose frame to work; None for the scan's own.
        timeout_s : give up after so many seconds; None for no limit.
        options : fields of :class:`SuperResolveLib.run.SuperResolveOptions`, such as ``thickness=4`` or
            ``device="cpu"``; also ``on_progress``, ``on_log``, ``on_warning``.

        Raises
        ------
        GlueError : a volume cannot be used, the core is not installed, or the run failed; the message is a sentence.

        """
        made = {"interpolated": interpolated, "honesty": honesty, "template": template}
        run = self.start(scanNode, guideNode, resultNode, **made, **options)
        try:
            self.outputs = run.wait(timeout_s)
        finally:
            run.cancel()
        return self.outputs.result

    def start(
        self,
        scanNode: Any,
        guideNode: Any = None,
        resultNode: Any = None,
        *,
        interpolated: Any = True,
        honesty: Any = True,
        template: Any = None,
        **options: Any,
    ) -> SuperResolveRun:
        """Start what :meth:`process` does and return at once; ``on_done`` is called with the run at its end."""
        reason = why_not_pair(scanNode, guideNode, template, aligned=bool(options.get("aligned")))
        if reason:
            raise nodes.NodeError(reason)
        callbacks = {name: options.pop(name) for name in list(options) if name.startswith("on_")}
        wanted = {"interpolated": interpolated, "honesty": honesty}
        targets = {name: None if isinstance(value, bool) else value for name, value in wanted.items()}
        flags = {name: value is not None and value is not False for name, value in wanted.items()}
        run = SuperResolveRun(
            scanNode,
            guideNode,
            SuperResolveOptions(**flags, **options),
            template=template,
            result=resultNode,
            **targets,
            **callbacks,
        )
        return run.start()


class SuperResolveTest(ScriptedLoadableModuleTest):
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
        self.delayDisplay(_("All tests of SuperResolve passed."))

    def test_checks(self) -> None:
        """A missing and an empty volume are refused with a sentence, and so is one volume in both roles."""
        self.assertTrue(why_not_pair(None, None))
        self.assertTrue(why_not_pair(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"), None))
        scan = sample_volume("T2w", 4)
        self.assertEqual(why_not_pair(scan, None), "")
        self.assertTrue(why_not_pair(scan, scan))

    def test_parameters(self) -> None:
        """Parameters live in the scene; scans find their places by themselves."""
        guide, scan = sample_volume("T1w", 1), sample_volume("T2w", 4)
        logic = SuperResolveLogic()
        logic.getParameterNode().inputVolume, logic.getParameterNode().guideVolume = likely_pair()
        logic.getParameterNode().sliceThickness = 3.5
        self.assertEqual(logic.getParameterNode().sliceThickness, 3.5)
        self.assertEqual(logic.getParameterNode().inputVolume.GetID(), scan.GetID())
        self.assertEqual(logic.getParameterNode().guideVolume.GetID(), guide.GetID())

    def test_words(self) -> None:
        """Options become words of the command line."""
        words = SuperResolveOptions(model="baby-ai", direction="axial", thickness=4, device="cpu", threads=1).words()
        self.assertEqual(
            words,
            [
                *("--model", "baby-ai", "--slice-direction", "axial", "--slice-thickness", "4"),
                *("--device", "cpu", "--threads", "1"),
            ],
        )

    def test_run(self) -> None:
        """A scan with slices of 4 mm becomes one at 1 mm, in the same place."""
        if not setup_core.state().ready:
            raise unittest.SkipTest("the core is not installed")
        if needed_models(SuperResolveOptions(), core_info.info()["models"]):
            raise unittest.SkipTest("no model is on this computer")
        result = SuperResolveLogic().process(sample_volume("T2w", 4), aligned=True, device="cpu", threads=1)
        self.assertEqual([round(size, 6) for size in result.GetSpacing()], [1.0, 1.0, 1.0])
        self.assertEqual(result.GetAttribute("MRIDeepTools.Synthetic"), "1")


def sample_volume(name: str, slice_mm: float) -> Any:
    """Return a small new volume: a bright box in noise, 40 x 36 voxels of 1 mm in the plane, slices over 48 mm."""
    import numpy as np

    count = round(48 / slice_mm)
    values = np.random.default_rng(1).normal(100, 20, (count, 36, 40)).astype(np.float32)
    values[count // 4 : -(count // 4), 8:-8, 8:-8] += 200
    volume = slicer.util.addVolumeFromArray(values, name=name, nodeClassName="vtkMRMLScalarVolumeNode")
    volume.SetSpacing(1, 1, slice_mm)
    volume.SetOrigin(0, 0, slice_mm / 2)
    return volume
