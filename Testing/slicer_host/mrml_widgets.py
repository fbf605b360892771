"""All stand-ins for Slicer's MRML widgets: those of other files, the ones with units, and the container of a panel."""

# ruff: noqa: N815 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import slicer
from PySide6 import QtWidgets
from PySide6.QtCore import Signal

from .ctk_numbers import ctkCoordinatesWidget, ctkDoubleSpinBox, ctkRangeWidget, ctkSliderWidget
from .findings import findings
from .mrml_base import SCENE_SIGNAL, qMRMLWidget, qSlicerWidget
from .mrml_views import qMRMLSegmentationShow3DButton, qMRMLSegmentsTableView, qMRMLTableView
from .node_selector import qMRMLNodeComboBox
from .standins import Prop, stand_in

if TYPE_CHECKING:
    from collections.abc import Callable

# The classes of the other files, here for namespace().
__all__ = [
    "qMRMLNodeComboBox",
    "qMRMLSegmentationShow3DButton",
    "qMRMLSegmentsTableView",
    "qMRMLTableView",
    "qMRMLWidget",
    "qSlicerWidget",
]


def _with_scene(base: type, name: str) -> type:
    """Return a CTK stand-in under its MRML name, with the scene that MRML widgets carry for units."""

    def set_scene(self: Any, scene: Any) -> None:
        self._s_scene = scene
        self.mrmlSceneChanged.emit(scene)

    body = {
        "mrmlSceneChanged": Signal(object),
        "quantity": Prop("", str),
        "unitAwareProperties": Prop(0),
        "mrmlScene": lambda self: self.__dict__.get("_s_scene"),
        "setMRMLScene": set_scene,
        "__doc__": f"{base.__name__} that knows the units of the scene.",
    }
    return stand_in(SCENE_SIGNAL)(type(base)(name, (base,), body))


qMRMLSliderWidget = _with_scene(ctkSliderWidget, "qMRMLSliderWidget")  # noqa: N816
qMRMLSpinBox = _with_scene(ctkDoubleSpinBox, "qMRMLSpinBox")  # noqa: N816
qMRMLRangeWidget = _with_scene(ctkRangeWidget, "qMRMLRangeWidget")  # noqa: N816
qMRMLCoordinatesWidget = _with_scene(ctkCoordinatesWidget, "qMRMLCoordinatesWidget")  # noqa: N816


@stand_in(SCENE_SIGNAL)
class qSlicerScriptedLoadableModuleWidget(qSlicerWidget):  # noqa: N801
    """The container of a scripted panel, and what calls the hooks of the Python widget inside it."""

    mrmlSceneChanged = Signal(object)
    isEntered = Prop(False, bool)
    moduleName = Prop("", str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._s_python = None
        self.setLayout(QtWidgets.QVBoxLayout())

    def self(self) -> Any:
        return self._s_python

    def _s_call(self, hook: str) -> None:
        function: Callable | None = getattr(self._s_python, hook, None)
        if function is None:
            return
        try:
            function()
        except Exception as error:  # noqa: BLE001 - Slicer prints it and goes on; the host writes it down
            findings.record_exception(f"{type(self._s_python).__name__}.{hook}()", error)

    def enter(self) -> None:
        self.isEntered = True
        self._s_call("enter")

    def exit(self) -> None:
        self.isEntered = False
        self._s_call("exit")


def namespace() -> dict[str, Any]:
    """Return name -> class of everything here that is Slicer's."""
    return {name: value for name, value in globals().items() if name.startswith(("qMRML", "qSlicer"))}


def install() -> None:
    """Put the classes on the package ``slicer``."""
    for name, cls in namespace().items():
        setattr(slicer, name, cls)
