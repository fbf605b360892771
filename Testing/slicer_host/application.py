"""``slicer.app`` and what hangs on it: modules, layout, main window, settings."""

# ruff: noqa: N802, N815 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Signal

from .io_manager import CoreIOManager
from .scene import SceneBoot
from .standins import Prop, stand_in

VERSION = (5, 10, 0)  # what the host claims to be: the oldest Slicer that the modules support


@stand_in({"moduleLoaded(QString)": "moduleLoaded", "moduleAboutToBeUnloaded(QString)": "moduleAboutToBeUnloaded"})
class qSlicerModuleManager(QtCore.QObject):  # noqa: N801 - Slicer's name
    """The modules by name."""

    moduleLoaded = Signal(str)
    moduleAboutToBeUnloaded = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._s_modules: dict[str, Any] = {}

    def module(self, name: str) -> Any:
        return self._s_modules.get(name)

    def modulesNames(self) -> list[str]:
        return list(self._s_modules)

    def isModuleLoaded(self, name: str) -> bool:
        return name in self._s_modules

    def factoryManager(self) -> qSlicerModuleManager:
        return self

    def loadedModuleNames(self) -> list[str]:
        return list(self._s_modules)

    def registeredModuleNames(self) -> list[str]:
        return list(self._s_modules)


@stand_in({"moduleSelected(QString)": "moduleSelected"})
class qSlicerModuleSelectorToolBar(QtWidgets.QToolBar):  # noqa: N801
    """The list of modules in the main window."""

    moduleSelected = Signal(str)
    selectedModule = Prop("", str)

    def selectModule(self, name: str) -> None:
        self.selectedModule = name
        self.moduleSelected.emit(name)


@stand_in()
class qSlicerMainWindow(QtWidgets.QMainWindow):  # noqa: N801
    """The main window: a module selector and a status bar."""

    def __init__(self) -> None:
        super().__init__()
        self.objectName = "qSlicerMainWindow"
        self._s_selector = qSlicerModuleSelectorToolBar(self)
        self.statusBar()

    def moduleSelector(self) -> qSlicerModuleSelectorToolBar:
        return self._s_selector

    def pythonConsole(self) -> None:
        return None


class _SliceWidget:
    """One slice view of the layout."""

    def __init__(self, name: str) -> None:
        self._name = name

    def mrmlSliceNode(self) -> Any:
        return slicer.mrmlScene.GetSingletonNode(self._name, "vtkMRMLSliceNode")

    def mrmlSliceCompositeNode(self) -> Any:
        return slicer.mrmlScene.GetSingletonNode(self._name, "vtkMRMLSliceCompositeNode")

    def sliceLogic(self) -> Any:
        return slicer.app.applicationLogic().GetSliceLogicByLayoutName(self._name)

    def fitSliceToBackground(self) -> None:
        self.sliceLogic().FitSliceToBackground()


class _ThreeDView:
    """The 3D view of the layout."""

    def mrmlViewNode(self) -> Any:
        return slicer.mrmlScene.GetSingletonNode("1", "vtkMRMLViewNode")

    def threeDView(self) -> _ThreeDView:
        return self

    def threeDController(self) -> _ThreeDView:
        return self

    def resetFocalPoint(self) -> None:
        pass

    def resetCamera(self) -> None:
        pass

    def rotateToViewAxis(self, axis: int) -> None:
        pass


@stand_in({"layoutChanged(int)": "layoutChanged"})
class qSlicerLayoutManager(QtCore.QObject):  # noqa: N801
    """The layout: slice views, as the layout node asks for, and a 3D view. Only there with a main window."""

    layoutChanged = Signal(int)

    def layoutLogic(self) -> Any:
        return slicer.app._s_boot.layout_logic

    def _s_layout(self) -> int:
        return int(self.layoutLogic().GetLayoutNode().GetViewArrangement())

    def setLayout(self, layout: int) -> None:
        self.layoutLogic().GetLayoutNode().SetViewArrangement(int(layout))
        self.layoutChanged.emit(int(layout))

    layout = property(_s_layout, setLayout)

    def sliceViewNames(self) -> tuple[str, ...]:
        logics = self.mrmlSliceLogics()
        nodes = (logics.GetItemAsObject(number).GetSliceNode() for number in range(logics.GetNumberOfItems()))
        return tuple(node.GetLayoutName() for node in nodes)

    def sliceWidget(self, name: str) -> _SliceWidget | None:
        slicer.app._s_boot.fill_layout()
        return _SliceWidget(name) if name in self.sliceViewNames() else None

    def mrmlSliceLogics(self) -> Any:
        return slicer.app.applicationLogic().GetSliceLogics()

    threeDViewCount = property(lambda self: 1)
    tableViewCount = property(lambda self: 0)
    plotViewCount = property(lambda self: 0)

    def threeDWidget(self, index: int) -> _ThreeDView:
        return _ThreeDView()

    def activeMRMLThreeDViewNode(self) -> Any:
        return _ThreeDView().mrmlViewNode()

    def resetSliceViews(self) -> None:
        for name in self.sliceViewNames():
            self.sliceWidget(name).fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        pass


class _CommandOptions:
    """What the application was started with."""

    def __init__(self) -> None:
        self.runPythonAndExit = False
        self.noMainWindow = False
        self.testingEnabled = False


class _ErrorLog:
    """The log of the application, of which only the entries' count is asked."""

    def logEntryCount(self) -> int:
        return 0

    def clear(self) -> None:
        pass


class _Extensions:
    """The extensions manager of an application without extensions."""

    def isExtensionInstalled(self, name: str) -> bool:
        return False

    def isExtensionEnabled(self, name: str) -> bool:
        return False

    installedExtensions = ()


@stand_in({"startupCompleted()": "startupCompleted", "mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"})
class qSlicerApplication(QtWidgets.QApplication):  # noqa: N801
    """The application object."""

    startupCompleted = Signal()
    mrmlSceneChanged = Signal(object)

    def __init__(self, home: Path) -> None:
        super().__init__([sys.argv[0] or "slicer_host"])
        self.applicationName = "Slicer"
        self.organizationName = "slicer_host"
        self._s_home = home
        self._s_boot: SceneBoot | None = None
        self._s_modules = qSlicerModuleManager()
        self._s_io = CoreIOManager()
        self._s_options = _CommandOptions()
        self._s_layout: qSlicerLayoutManager | None = None
        self._s_window: qSlicerMainWindow | None = None
        self._s_exit_code: int | None = None
        self._s_environment = QtCore.QProcessEnvironment.systemEnvironment()
        for folder in ("tmp", "cache", "share"):
            (home / folder).mkdir(exist_ok=True)

    # Attributes of the application. They cannot be set from outside.
    majorVersion = property(lambda self: VERSION[0])
    minorVersion = property(lambda self: VERSION[1])
    revision = property(lambda self: "0")
    repositoryRevision = property(lambda self: "0")
    platform = property(lambda self: "linux-amd64")
    os = property(lambda self: "linux")
    arch = property(lambda self: "amd64")
    slicerHome = property(lambda self: str(self._s_home))
    temporaryPath = property(lambda self: str(self._s_home / "tmp"))
    cachePath = property(lambda self: str(self._s_home / "cache"))
    documentationBaseUrl = property(lambda self: "https://slicer.readthedocs.io/en/latest/")
    documentationVersion = property(lambda self: "latest")
    mainApplicationName = property(lambda self: "Slicer")
    isInstalled = property(lambda self: False)
    slicerUserSettingsFilePath = property(lambda self: QtCore.QSettings().fileName())

    def mrmlScene(self) -> Any:
        return slicer.mrmlScene

    def applicationLogic(self) -> Any:
        return self._s_boot.application_logic

    def moduleManager(self) -> qSlicerModuleManager:
        return self._s_modules

    def layoutManager(self) -> qSlicerLayoutManager | None:
        return self._s_layout

    def mainWindow(self) -> qSlicerMainWindow | None:
        return self._s_window

    def coreIOManager(self) -> CoreIOManager:
        return self._s_io

    ioManager = coreIOManager

    def settings(self) -> QtCore.QSettings:
        return QtCore.QSettings()

    userSettings = revisionUserSettings = settings

    def testingEnabled(self) -> bool:
        return self._s_options.testingEnabled

    def commandOptions(self) -> _CommandOptions:
        return self._s_options

    def errorLogModel(self) -> _ErrorLog:
        return _ErrorLog()

    def extensionsManagerModel(self) -> _Extensions:
        return _Extensions()

    def pythonConsole(self) -> None:
        return None

    def translate(self, context: str, text: str, *_: Any) -> str:
        return text

    def moduleDocumentationUrl(self, name: str) -> str:
        return f"{self.documentationBaseUrl}user_guide/modules/{name.lower()}.html"

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        return self._s_environment

    def restart(self) -> None:
        from .dialogs import recorder

        recorder.ask("restart", "Slicer", "The application was asked to restart.")

    def exit(self, status: int = 0) -> None:
        self._s_exit_code = int(status)
        QtWidgets.QApplication.exit(int(status))

    def pauseRender(self) -> None:
        pass

    def resumeRender(self) -> None:
        pass

    def setRenderPaused(self, paused: bool) -> None:
        pass

    def toSlicerHomeAbsolutePath(self, path: str) -> str:
        return str(self._s_home / path)

    def launchDesigner(self, arguments: Any = ()) -> bool:
        return False

    # -- for the host --

    def _s_set_main_window(self, present: bool) -> None:
        if present and self._s_window is None:
            self._s_window = qSlicerMainWindow()
            self._s_layout = qSlicerLayoutManager()
        elif not present and self._s_window is not None:
            window, self._s_window, self._s_layout = self._s_window, None, None
            window.delete()
        self._s_options.noMainWindow = not present


def make_modules_namespace() -> types.ModuleType:
    """Make ``slicer.modules`` and ``slicer.moduleNames``."""
    slicer.modules = types.ModuleType("slicer.modules")
    slicer.moduleNames = types.ModuleType("slicer.moduleNames")
    sys.modules["slicer.modules"], sys.modules["slicer.moduleNames"] = slicer.modules, slicer.moduleNames
    slicer.selfTests = {}
    return slicer.modules
