"""DMRIUpsample: predicts further diffusion directions of a scan from few measured ones.

The networks and the pipeline are those of dMRI-RCNN (Lyon et al. 2022), run by the package `mri_deep_tools` in a
process of its own.
"""

from __future__ import annotations

import sys
import tempfile
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

from DMRIUpsampleLib.panel import Panel
from DMRIUpsampleLib.parameters import DMRIUpsampleParameters
from DMRIUpsampleLib.run import UpsampleOptions, UpsampleRun, why_not
from MRIDeepToolsLib import diffusion, nodes, setup_core
from MRIDeepToolsLib.module_widget import ModuleWidget


class DMRIUpsample(ScriptedLoadableModule):
    """The module as Slicer knows it."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("DMRIUpsample")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Diffusion"), "Neuroimaging"]
        parent.dependencies = ["MRIDeepTools"]
        parent.contributors = ["The MRI Deep Tools contributors"]
        parent.helpText = (
            _(
                "Predicts further directions of a diffusion scan from few measured ones, and says how well it does on "
                "directions that were measured. What it makes is synthetic. Research use only, not a medical device."
            )
            + self.getDefaultModuleDocumentationLink()
        )
        parent.acknowledgementText = _(
            "Method: M. Lyon, P. Armitage and M. A. \u00c1lvarez, Angular Super-Resolution in Diffusion MRI with a 3D "
            "Recurrent Convolutional Autoencoder, MIDL 2022 (arXiv:2203.15598). Please cite it when you use "
            "results of the network. The weights have licences of their own, shown in the panel. Masks and tensors are "
            "made with DIPY. MRI Deep Tools is free software under the Apache License 2.0."
        )

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        """Return the link below the help text; ours is not among Slicer's own pages."""
        from MRIDeepToolsLib.widgets import documentation_url

        text = _("Documentation")
        return f'<p><a href="{documentation_url()}">{text}</a></p>'


class DMRIUpsampleWidget(ModuleWidget):
    """The panel in Slicer; what it does is in :mod:`DMRIUpsampleLib.panel`."""

    def make_logic(self) -> DMRIUpsampleLogic:
        """Return the module's logic."""
        return DMRIUpsampleLogic()

    def make_panel(self) -> Panel:
        """Return what the panel does."""
        return Panel(self.ui, self.logic)

    def choose_inputs(self, parameters: Any) -> None:
        """Fill inputs that are not chosen yet with likely ones."""
        if parameters.inputVolume is None:
            parameters.inputVolume = default_volume()


class DMRIUpsampleLogic(ScriptedLoadableModuleLogic):
    """Predicts directions without any panel: for scripts, other modules and the Python console.

    ::

        import DMRIUpsample
        logic = DMRIUpsample.DMRIUpsampleLogic()
        scan = logic.load("dwi.nii.gz")  # with dwi.bval and dwi.bvec beside it
        result = logic.process(scan, directions=30)
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.outputs: Any = None

    def getParameterNode(self) -> DMRIUpsampleParameters:
        """Return the parameters that the scene remembers for the panel."""
        return DMRIUpsampleParameters(super().getParameterNode())

    def load(self, image: Any, bvals: Any = "", bvecs: Any = "", name: str = "") -> Any:
        """Read a diffusion scan from files, with directions that are right in world space; returns the node.

        Parameters
        ----------
        image : NIfTI, or a diffusion-weighted NRRD.
        bvals, bvecs : FSL's files of a NIfTI image; without them, those beside it.
        name : of the node; without it, the name of the file.

        Raises
        ------
        GlueError : a file is missing or damaged, or they do not belong together.

        """
        return diffusion.import_dwi_files(image, bvals, bvecs, name)

    def save_fsl(self, node: Any, path: Any) -> Any:
        """Write a diffusion scan as NIfTI (``.nii`` or ``.nii.gz``) with FSL's files beside it; returns the paths.

        Raises
        ------
        GlueError : the scan cannot be used, or a file cannot be written.

        """
        return diffusion.export_fsl(node, path)

    def process(
        self, volumeNode: Any, resultNode: Any = None, *, timeout_s: float | None = None, **options: Any
    ) -> Any:
        """Predict directions, wait, and return the diffusion scan with measured and predicted volumes.

        Parameters
        ----------
        volumeNode : diffusion-weighted volume node.
        resultNode : to be filled; None for a new one.
        timeout_s : give up after so many seconds; None for no limit.
        options : as for :meth:`start`. What was made is in ``outputs``.

        Raises
        ------
        GlueError : the scan cannot be used, the core is not installed, or the run failed; the message is a sentence.

        """
        run = self.start(volumeNode, resultNode, **options)
        try:
            self.outputs = run.wait(timeout_s)
        finally:
            run.cancel()
        return self.outputs.volume

    def start(
        self,
        volumeNode: Any,
        resultNode: Any = None,
        *,
        mask: Any = None,
        b0: Any = False,
        fa: Any = False,
        md: Any = False,
        errors: Any = False,
        **options: Any,
    ) -> UpsampleRun:
        """Start what :meth:`process` does and return at once; ``on_done`` is called with the run at its end.

        Parameters
        ----------
        volumeNode, resultNode : as for :meth:`process`.
        mask : label map or segmentation node; None computes one.
        b0, fa, md, errors : True or False, or the node (volumes, table) to be filled.
        options :
            fields of :class:`DMRIUpsampleLib.run.UpsampleOptions`, such as ``directions=60``, ``method="sh"`` or
            ``shell=1000``; also ``on_progress``, ``on_log``, ``on_warning``.

        """
        reason = why_not(volumeNode)
        if reason:
            raise nodes.NodeError(reason)
        callbacks = {name: options.pop(name) for name in list(options) if name.startswith("on_")}
        wanted = {"b0": b0, "fa": fa, "md": md, "errors": errors}
        targets = {name: None if isinstance(value, bool) else value for name, value in wanted.items()}
        flags = {name: value is not None and value is not False for name, value in wanted.items()}
        run = UpsampleRun(
            volumeNode, UpsampleOptions(**flags, **options), mask=mask, result=resultNode, **targets, **callbacks
        )
        return run.start()


def default_volume() -> Any:
    """Return the diffusion scan that the person most likely means: the one shown, else the first; None without any."""
    selection = slicer.app.applicationLogic().GetSelectionNode()
    shown = slicer.mrmlScene.GetNodeByID(selection.GetActiveVolumeID() or "") if selection is not None else None
    volumes = slicer.util.getNodesByClass("vtkMRMLDiffusionWeightedVolumeNode")
    return shown if shown in volumes else next(iter(volumes), None)


class DMRIUpsampleTest(ScriptedLoadableModuleTest):
    """Tests that any Slicer can run: no network, no installation, no GPU, half a minute.

    What needs the core is skipped where it is not installed.
    """

    def setUp(self) -> None:
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run all tests; for the button Reload and Test."""
        for name in ("test_checks", "test_files", "test_parameters", "test_words", "test_run"):
            self.setUp()
            try:
                getattr(self, name)()
            except unittest.SkipTest as skipped:
                self.delayDisplay(str(skipped))
        self.delayDisplay(_("All tests of DMRIUpsample passed."))

    def test_checks(self) -> None:
        """A missing and an empty scan are refused with a sentence; one with gradients is not."""
        self.assertTrue(why_not(None))
        self.assertTrue(why_not(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLDiffusionWeightedVolumeNode")))
        self.assertEqual(why_not(sample_scan()), "")

    def test_files(self) -> None:
        """Out as NIfTI with FSL's files and in again: the same directions in the world, of an oblique scan."""
        import numpy as np

        scan, logic = sample_scan(), DMRIUpsampleLogic()
        with tempfile.TemporaryDirectory() as folder:
            paths = logic.save_fsl(scan, Path(folder) / "scan.nii.gz")
            self.assertEqual([path.name for path in paths], ["scan.nii.gz", "scan.bval", "scan.bvec"])
            again = logic.load(paths[0])
        for one, other in zip(diffusion.gradients_of(scan), diffusion.gradients_of(again)):  # noqa: B905
            np.testing.assert_allclose(one, other, atol=1e-5)

    def test_parameters(self) -> None:
        """Parameters live in the scene."""
        logic = DMRIUpsampleLogic()
        logic.getParameterNode().inputVolume = sample_scan()
        logic.getParameterNode().directionCount = 44
        self.assertEqual(logic.getParameterNode().directionCount, 44)
        self.assertEqual(logic.getParameterNode().inputVolume.GetName(), "Sample")

    def test_words(self) -> None:
        """Options become words of the command line."""
        words = UpsampleOptions(directions=12, method="sh", shell=1000, device="cpu", threads=1).words()
        expected = ["--method", "sh", "--shell", "1000", "--directions", "12", "--device", "cpu", "--threads", "1"]
        self.assertEqual(words, expected)

    def test_run(self) -> None:
        """A scan gets further directions on its own grid."""
        if not setup_core.state().ready:
            raise unittest.SkipTest("the core is not installed")
        scan = sample_scan()
        result = DMRIUpsampleLogic().process(scan, directions=5, method="sh", device="cpu", threads=1)
        self.assertEqual(result.GetNumberOfGradients(), scan.GetNumberOfGradients() + 5)
        self.assertEqual(result.GetAttribute("MRIDeepTools.Synthetic"), "1")


def sample_scan() -> Any:
    """Return a small new diffusion scan, oblique: one volume at b = 0 and 12 directions, 10 x 9 x 8 voxels of 4 mm."""
    import numpy as np

    random = np.random.default_rng(1)
    world = random.normal(size=(13, 3))
    world[0] = 0
    world[1:] /= np.linalg.norm(world[1:], axis=1, keepdims=True)
    bvals = np.array([0.0] + [1000.0] * 12)
    fibre = np.array([0.6, 0.0, 0.8])
    signal = 1000 * np.exp(-bvals * (0.0003 + 0.0014 * (world @ fibre) ** 2))
    values = (signal + random.normal(0, 10, (8, 9, 10, 13))).astype(np.int16)
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn * 4.0
    scan = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLDiffusionWeightedVolumeNode", "Sample")
    diffusion.fill_dwi(scan, values, slicer.util.vtkMatrixFromArray(matrix), bvals, world)
    return scan
