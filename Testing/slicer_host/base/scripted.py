"""The base classes of a scripted module, as small as their contract allows."""

# ruff: noqa: N802 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

import importlib
import logging
import sys
import unittest
from pathlib import Path
from typing import Any

import ctk
import qt
import slicer

__all__ = ["ScriptedLoadableModule", "ScriptedLoadableModuleLogic", "ScriptedLoadableModuleTest", "ScriptedLoadableModuleWidget"]  # fmt: skip  # noqa: E501


def _module_name(instance: Any, suffix: str) -> str:
    name = type(instance).__name__
    return name[: -len(suffix)] if name.endswith(suffix) else name


class ScriptedLoadableModule:
    """The module as the application lists it; *parent* is the application's module object."""

    def __init__(self, parent: Any) -> None:
        super().__init__()
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title, parent.helpText, parent.acknowledgementText = "", "", ""
        parent.categories, parent.dependencies, parent.contributors = [], [], []
        for suffix in (".svg", ".png"):
            icon = Path(self.resourcePath("Icons")) / f"{self.moduleName}{suffix}"
            if icon.is_file():
                parent.icon = qt.QIcon(str(icon))
                break
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename: str) -> str:
        """Return the path of a file below the folder Resources."""
        return str(Path(self.parent.path).parent / "Resources" / filename)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        """Return a paragraph with a link to the documentation."""
        url = (
            slicer.app.documentationBaseUrl + docPage if docPage else slicer.app.moduleDocumentationUrl(self.moduleName)
        )
        return f'<p>More in the <a href="{url}">documentation</a>.</p>'

    def runTest(self, msec: int = 100, **kwargs: Any) -> None:
        """Run ``<Name>Test().runTest()``, as the button "Test" does."""
        module = importlib.import_module(type(self).__module__)
        test_class = getattr(module, f"{self.moduleName}Test", None)
        if test_class is None:
            raise AssertionError(f"there is no class {self.moduleName}Test in {module.__name__}")
        test = test_class()
        test.messageDelay = msec
        test.runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    """The panel; *parent* is the container that the application shows."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = _module_name(self, "Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool)
        alone = parent is None
        if alone:
            parent = slicer.qMRMLWidget()
            parent.setLayout(qt.QVBoxLayout())
            parent.setMRMLScene(slicer.mrmlScene)
        self.parent = parent
        self.layout = parent.layout()
        if alone:
            self.setup()
            parent.show()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename: str) -> str:
        """Return the path of a file below the folder Resources."""
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self) -> None:
        """Build what every panel has: in developer mode the buttons Reload and Reload & Test."""
        if not self.developerMode:
            return
        self.reloadCollapsibleButton = ctk.ctkCollapsibleButton()
        self.reloadCollapsibleButton.text = "Reload && Test"
        self.layout.addWidget(self.reloadCollapsibleButton)
        row = qt.QHBoxLayout(self.reloadCollapsibleButton)
        for text, slot in (("Reload", self.onReload), ("Reload and Test", self.onReloadAndTest)):
            button = qt.QPushButton(text)
            button.connect("clicked()", slot)
            row.addWidget(button)

    def cleanup(self) -> None:
        """Called before the panel goes: at reload and at the end of the application."""

    def _onModuleAboutToBeUnloaded(self, moduleName: str) -> None:
        if moduleName == self.moduleName:
            self.cleanup()
            manager = slicer.app.moduleManager()
            manager.disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def onReload(self) -> None:
        """Load the source anew and rebuild the panel."""
        slicer.util.reloadScriptedModule(self.moduleName)

    def onReloadAndTest(self, **kwargs: Any) -> None:
        """Reload, then run the tests."""
        with slicer.util.tryWithErrorDisplay("Reload and test failed."):
            self.onReload()
            slicer.selfTests[self.moduleName](**kwargs)

    def onTest(self, **kwargs: Any) -> None:
        """Run the tests."""
        with slicer.util.tryWithErrorDisplay("Test failed."):
            slicer.selfTests[self.moduleName](**kwargs)


class ScriptedLoadableModuleLogic:
    """What the module can do without a panel."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = _module_name(self, "Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        """Return the module's parameter node; make it if the scene has none."""
        scene = slicer.mrmlScene
        if self.isSingletonParameterNode:
            node = scene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node is not None:
                if node.GetAttribute("ModuleName") != self.moduleName:  # closing the scene takes the attribute away
                    node.SetAttribute("ModuleName", self.moduleName)
                return node
        else:
            nodes = self.getAllParameterNodes()
            if nodes:
                return nodes[0]
        return scene.AddNode(self.createParameterNode())

    def getAllParameterNodes(self) -> list[Any]:
        """Return all parameter nodes of the module in the scene."""
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self) -> Any:
        """Make a parameter node that is not in the scene yet."""
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The tests of a module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.messageDelay = 50
        self.enableScreenshots = False
        self.screenshotScaleFactor = 1.0

    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        """Say what is going on; the event loop runs for a moment."""
        logging.info(message)
        print(message, file=sys.stderr)
        slicer.app.processEvents()

    def takeScreenshot(self, name: str, description: str, type: int = -1) -> None:
        """Say what would be photographed."""
        self.delayDisplay(description)

    def runTest(self) -> None:
        """Run every callable whose name contains "test", helpers too; modules define their own."""
        names = [n for n in dir(self) if "test" in n.lower() and n != "runTest" and callable(getattr(self, n))]
        for name in [n for n in names if n not in dir(ScriptedLoadableModuleTest)]:
            self.setUp()
            getattr(self, name)()
