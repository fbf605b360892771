"""Module objects (``slicer.modules.synthsegment``) and the handle with which a test drives one."""

# ruff: noqa: N802, N815 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import slicer
from PySide6 import QtCore, QtGui

from .findings import findings
from .mrml_widgets import qSlicerScriptedLoadableModuleWidget
from .standins import Prop, stand_in

if TYPE_CHECKING:
    from pathlib import Path

    from .host import Host


@stand_in()
class qSlicerLoadableModule(QtCore.QObject):  # noqa: N801 - Slicer's name
    """A module of the application itself, of which the wheel has the logic."""

    name = Prop("", str)
    title = Prop("", str)
    path = Prop("", str)

    def __init__(self, name: str, logic: Any) -> None:
        super().__init__()
        self.name = self.title = name
        self._s_logic = logic

    def logic(self) -> Any:
        return self._s_logic

    def widgetRepresentation(self) -> None:
        return None


@stand_in()
class qSlicerScriptedLoadableModule(QtCore.QObject):  # noqa: N801
    """A scripted module as the application sees it."""

    name = Prop("", str)
    title = Prop("", str)
    path = Prop("", str)
    categories = Prop([], list)
    dependencies = Prop([], list)
    contributors = Prop([], list)
    associatedNodeTypes = Prop([], list)
    helpText = Prop("", str)
    acknowledgementText = Prop("", str)
    hidden = Prop(False, bool)
    index = Prop(-1, int)
    icon = Prop(None)
    isInstalled = Prop(False, bool)
    widgetRepresentationCreationEnabled = Prop(True, bool)

    def __init__(self, name: str, path: str) -> None:
        super().__init__()
        self.name, self.path = name, path
        self.icon = QtGui.QIcon()
        self._s_widget: qSlicerScriptedLoadableModuleWidget | None = None
        self._s_scene = slicer.mrmlScene
        self._s_logic = slicer.vtkSlicerScriptedLoadableModuleLogic()

    def logic(self) -> Any:
        return self._s_logic

    def mrmlScene(self) -> Any:
        return self._s_scene

    def setMRMLScene(self, scene: Any) -> None:
        self._s_scene = scene
        self._s_logic.SetMRMLScene(scene)
        if self._s_widget is not None:
            self._s_widget.setMRMLScene(scene)

    def widgetRepresentation(self) -> qSlicerScriptedLoadableModuleWidget:
        """Return the panel; build it at the first call."""
        if self._s_widget is None:
            self._s_widget = self.createNewWidgetRepresentation()
            setattr(slicer.modules, f"{self.name}Widget", self._s_widget.self())
        return self._s_widget

    def createNewWidgetRepresentation(self) -> qSlicerScriptedLoadableModuleWidget:
        """Return another panel."""
        container = _Container(self)
        container.setMRMLScene(slicer.mrmlScene)
        container._s_build()
        return container

    def inherits(self, name: str) -> bool:
        return name in (
            "qSlicerScriptedLoadableModule",
            "qSlicerLoadableModule",
            "qSlicerAbstractCoreModule",
            "QObject",
        )


@stand_in()
class _Container(qSlicerScriptedLoadableModuleWidget):
    """The container with what it needs to build the Python widget, also again after a reload."""

    def __init__(self, module: qSlicerScriptedLoadableModule) -> None:
        super().__init__()
        self._s_module = module
        self.moduleName = module.name
        self.objectName = f"{module.name}ModuleWidget"

    def className(self) -> str:
        return "qSlicerScriptedLoadableModuleWidget"

    def _s_build(self) -> None:
        python_module = sys.modules[self.moduleName]
        widget_class = getattr(python_module, f"{self.moduleName}Widget")
        try:
            self._s_python = widget_class(self)
        except Exception as error:  # noqa: BLE001 - Slicer prints it and shows an empty panel
            findings.record_exception(f"{widget_class.__name__}.__init__()", error)
            return
        self._s_call("setup")

    def setup(self) -> None:
        self._s_call("setup")

    def reload(self) -> None:
        """Build the Python widget anew from the module's present source."""
        for child in self.children():
            if child is not self.layout():
                child.deleteLater()
        self._s_build()
        setattr(slicer.modules, f"{self.moduleName}Widget", self._s_python)
        if self.isEntered:
            self._s_call("enter")


class ModuleHandle:
    """One loaded module under test."""

    def __init__(self, host: Host, name: str, path: Path) -> None:
        self.host, self.name, self.path = host, name, path
        self._import()
        self.module = qSlicerScriptedLoadableModule(name, str(path))
        instance = getattr(self.python, name)(self.module)
        setattr(slicer.modules, name.lower(), self.module)
        setattr(slicer.modules, f"{name}Instance", instance)
        setattr(slicer.moduleNames, name, name)
        manager = slicer.app.moduleManager()
        manager._s_modules[name] = self.module
        manager.moduleLoaded.emit(name)

    def _import(self) -> None:
        spec = importlib.util.spec_from_file_location(self.name, self.path)
        python = importlib.util.module_from_spec(spec)
        sys.modules[self.name] = python
        spec.loader.exec_module(python)

    @property
    def python(self) -> Any:
        """The imported Python module, the newest one after a reload."""
        return sys.modules[self.name]

    def widget(self) -> Any:
        """Show the panel (built at the first call) and return the Python widget."""
        container = self.module.widgetRepresentation()
        if not container.isEntered:
            self.enter()
        return container.self()

    def enter(self) -> None:
        """Show the panel as if the person chose the module."""
        container = self.module.widgetRepresentation()
        container.show()
        container.enter()
        self.host.pump(0)

    def leave(self) -> None:
        """Show another module."""
        container = self.module._s_widget
        if container is not None and container.isEntered:
            container.exit()
            container.hide()

    def reload(self) -> None:
        """Press the Reload button."""
        container = self.module.widgetRepresentation()
        container.self().onReload()
        self.host.pump(0)

    def close(self) -> None:
        """Leave and unload the panel: exit, cleanup, delete. The module stays registered, as at application exit."""
        container = self.module._s_widget
        if container is None:
            return
        self.leave()
        slicer.app.moduleManager().moduleAboutToBeUnloaded.emit(self.name)
        container.hide()
        container.deleteLater()
        self.module._s_widget = None
        vars(slicer.modules).pop(f"{self.name}Widget", None)
        self.host.pump(0)
