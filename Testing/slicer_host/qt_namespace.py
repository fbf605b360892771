"""The modules ``qt`` and ``ctk`` as Slicer has them."""

from __future__ import annotations

import sys
import types
from typing import Any

from PySide6 import QtCore, QtGui, QtNetwork, QtWidgets

from . import ctk_widgets


def build() -> None:
    """Put ``qt`` and ``ctk`` among the imported modules."""
    from .ui_loader import UiLoader

    qt = types.ModuleType("qt", "Qt as modules of Slicer see it.")
    for module in (QtCore, QtGui, QtWidgets, QtNetwork):
        for name in dir(module):
            # What PySide6 adds of its own (Signal, Slot, Property ...) is not there in Slicer.
            if name.startswith(("Q", "SIGNAL", "SLOT")):
                setattr(qt, name, getattr(module, name))
    qt.QUiLoader = UiLoader
    qt.QMenu = _menu()
    for cls in (QtCore.QCoreApplication, QtCore.QEventLoop, QtCore.QThread, QtGui.QDrag):
        if not hasattr(cls, "exec_"):
            cls.exec_ = cls.exec
    ctk = types.ModuleType("ctk", "CTK as modules of Slicer see it.")
    vars(ctk).update(ctk_widgets.namespace())
    sys.modules["qt"], sys.modules["ctk"] = qt, ctk


def _menu() -> type:
    """Return QMenu's constructor as PythonQt has it: a parent that is no widget is ignored."""

    class QMenu(QtWidgets.QMenu):
        _stand_in = True

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*[a for a in arguments if isinstance(a, (str, QtWidgets.QWidget))])

    return QMenu
