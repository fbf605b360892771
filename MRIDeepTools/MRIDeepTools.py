"""MRI Deep Tools: the home module. Sets up what all modules share, manages the models, holds the settings."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import slicer
from MRIDeepToolsLib import core_info, setup_core
from MRIDeepToolsLib.home_panel import HomePanel, device_words, models_words, torch_words
from MRIDeepToolsLib.jobs import CoreJob
from MRIDeepToolsLib.widgets import documentation_url, duration_words, progress_words
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class MRIDeepTools(ScriptedLoadableModule):
    """The module as Slicer knows it."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MRI Deep Tools")
        parent.categories = ["Neuroimaging"]
        parent.dependencies = []
        parent.contributors = ["The MRI Deep Tools contributors"]
        parent.helpText = _(
            "Sets up deep learning for brain MRI: installs what is needed, manages the models, holds the settings "
            "of this computer. Press Set up once, then use SynthSegment. Research use only, not a medical device."
        )
        parent.helpText += f'<p><a href="{documentation_url()}">{_("Documentation")}</a></p>'
        parent.acknowledgementText = _(
            "MRI Deep Tools is free software under the Apache License 2.0. The methods and the weights are the work of "
            "their authors; each module and each model says whom to cite."
        )


class MRIDeepToolsWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Life cycle of the panel; what it does is in :mod:`MRIDeepToolsLib.home_panel`."""

    logic: Any = None
    panel: Any = None

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def setup(self) -> None:
        """Build the panel, once; nothing is installed or asked for here."""
        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/MRIDeepTools.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        self.logic = MRIDeepToolsLogic()
        self.panel = HomePanel(self.ui, self.logic)
        widget.setMRMLScene(slicer.mrmlScene)

    def enter(self) -> None:
        """Look at what is installed."""
        self.panel.ask_core()

    def cleanup(self) -> None:
        """End commands before the module goes."""
        if self.panel is not None:
            self.panel.close()
        self.removeObservers()

    def onReload(self) -> None:
        """Load the shared files again, not only the module file."""
        for name in [name for name in sys.modules if name.partition(".")[0] == "MRIDeepToolsLib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)


class MRIDeepToolsLogic(ScriptedLoadableModuleLogic):
    """Set-up and models without any panel."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)

    def state(self) -> setup_core.SetupState:
        """Return what is installed and what is missing; imports nothing."""
        return setup_core.state()

    def set_up(
        self,
        ask: Callable[[str, str], bool] | None = None,
        log: Callable[[str], None] | None = None,
        *,
        repair: bool = False,
        on_step: Callable[[str], None] | None = None,
    ) -> setup_core.SetupState:
        """Install what is missing; see :func:`MRIDeepToolsLib.setup_core.ensure_core`."""
        return setup_core.ensure_core(ask, log, repair=repair, on_step=on_step)

    def models_job(self, words: list[str], **callbacks: Any) -> CoreJob:
        """Return a job, not yet started, for ``mri-deep-tools models ...``."""
        return CoreJob(["models", *words], **callbacks)

    def system_report(self) -> str:
        """Return versions, devices and models as text, without names and folders."""
        return core_info.system_report()


class MRIDeepToolsTest(ScriptedLoadableModuleTest):
    """Tests that any Slicer can run: no network, no installation, no GPU."""

    def setUp(self) -> None:
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run all tests; for the button Reload and Test."""
        for name in ("test_state", "test_words", "test_panel"):
            self.setUp()
            getattr(self, name)()
        self.delayDisplay(_("All tests of MRI Deep Tools passed."))

    def test_state(self) -> None:
        """The state is complete, or says what is missing."""
        state = MRIDeepToolsLogic().state()
        self.assertEqual(state.ready, not state.problems)

    def test_words(self) -> None:
        """Times and progress are told in words."""
        self.assertEqual(duration_words(130), "2 min")
        self.assertIn("43 %", progress_words(0.43, "segment", 20))
        self.assertIn("2.9.0", torch_words("2.9.0", None))
        self.assertIn("8", device_words({"devices": [{"name": "cpu"}], "threads": 8, "memory_gb": 16}))
        self.assertIn("1", models_words({"models": [{"name": "a", "status": "bundled", "bundled": True}]}))

    def test_panel(self) -> None:
        """The panel shows the state."""
        widget = slicer.modules.mrideeptools.widgetRepresentation().self()
        widget.panel.show_state()
        self.assertTrue(widget.ui.coreValue.text)
        self.assertTrue(widget.ui.torchValue.text)
