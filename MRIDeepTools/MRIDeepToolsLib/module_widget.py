"""The life cycle of a module's panel in Slicer, the same for every module."""

from __future__ import annotations

import sys
from typing import Any

import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

__all__ = ["ModuleWidget"]


class ModuleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Life cycle of a panel; a module says what its logic and its panel are, and which inputs it would choose.

    A subclass has the name that Slicer looks for, and the methods ``make_logic``, ``make_panel`` and ``choose_inputs``.
    """

    logic: Any = None
    panel: Any = None

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def make_logic(self) -> Any:
        """Return the module's logic."""
        raise NotImplementedError

    def make_panel(self) -> Any:
        """Return what the panel does, around ``self.ui`` and ``self.logic``."""
        raise NotImplementedError

    def choose_inputs(self, parameters: Any) -> None:
        """Fill inputs that are not chosen yet with likely ones."""
        raise NotImplementedError

    def setup(self) -> None:
        """Build the panel, once."""
        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        self.logic = self.make_logic()
        self.panel = self.make_panel()
        widget.setMRMLScene(slicer.mrmlScene)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneReplaced)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneReplaced)
        self.use_scene()

    def enter(self) -> None:
        """Take over what changed while another module was shown."""
        self.use_scene()
        self.panel.refresh_machine()

    def exit(self) -> None:
        """Let go of the parameter node; a run goes on."""
        self.use_parameters(None)

    def cleanup(self) -> None:
        """End runs and observers before the module goes."""
        self.use_parameters(None)
        if self.panel is not None:
            self.panel.close()
        self.removeObservers()

    def onReload(self) -> None:
        """Load the files of this module again, not only the module file."""
        for name in [name for name in sys.modules if name.partition(".")[0] == f"{self.moduleName}Lib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller: Any, event: str) -> None:
        """Let go of the parameter node before it is deleted."""
        self.use_parameters(None)

    def onSceneReplaced(self, caller: Any, event: str) -> None:
        """The scene was closed, or one was loaded: its parameters are shown."""
        if self.parent.isEntered:
            self.use_scene()

    def use_scene(self) -> None:
        """Show the parameters of the scene; choose inputs where none are chosen."""
        parameters = self.logic.getParameterNode()
        self.choose_inputs(parameters)
        self.use_parameters(parameters)

    def use_parameters(self, parameters: Any) -> None:
        """Bind the panel to parameters, or to nothing."""
        if self.panel is None:
            return
        if self.panel.parameters is not None:
            self.removeObserver(self.panel.parameters, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        self.panel.bind(parameters)
        if parameters is not None:
            self.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)

    def onParametersModified(self, caller: Any, event: str) -> None:
        """Follow the parameters."""
        self.panel.update()
