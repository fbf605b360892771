"""What the stand-ins for MRML widgets share: observers that end with the widget, widgets that know the scene."""

# ruff: noqa: N802, N815 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

import weakref
from typing import Any

import shiboken6
from PySide6 import QtWidgets
from PySide6.QtCore import Signal

from .standins import stand_in


class Observations:
    """Observers of VTK objects that end with the widget they belong to and do not keep it alive."""

    def __init__(self, widget: QtWidgets.QWidget) -> None:
        self._widget = weakref.ref(widget)
        self._tags: list[tuple[Any, int]] = []

    def add(self, subject: Any, events: tuple[int, ...], method: str) -> None:
        """Call the named method of the widget, without arguments, at each of the events."""
        reference = self._widget

        def call(caller: Any, event: str) -> None:
            widget = reference()
            if widget is not None and shiboken6.isValid(widget):
                getattr(widget, method)()

        self._tags += [(subject, subject.AddObserver(event, call)) for event in events]

    def clear(self) -> None:
        """Remove all observers."""
        for subject, tag in self._tags:
            subject.RemoveObserver(tag)
        self._tags.clear()


SCENE_SIGNAL = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}


@stand_in(SCENE_SIGNAL)
class qMRMLWidget(QtWidgets.QWidget):  # noqa: N801 - Slicer's name
    """A widget that knows the scene and tells its children when it changes."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None, *_: Any) -> None:
        super().__init__(parent if isinstance(parent, QtWidgets.QWidget) else None)
        self._s_scene = None

    def mrmlScene(self) -> Any:
        return self._s_scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self._s_scene:
            return
        self._s_scene = scene
        self.mrmlSceneChanged.emit(scene)


@stand_in(SCENE_SIGNAL)
class qSlicerWidget(qMRMLWidget):  # noqa: N801
    """A widget of the application."""
