"""``slicer.util.loadUI``: Qt's own loader, with stand-ins for the CTK and Slicer widgets."""

# ruff: noqa: N802 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from . import ctk_widgets, mrml_widgets, pythonqt
from .findings import findings


class UiLoader(QtUiTools.QUiLoader):
    """Loads the XML of Qt Designer.

    ``<connections>`` and the properties that only a stand-in knows are taken out of the XML and made afterwards,
    because Qt's loader asks the C++ meta object, which knows neither.
    """

    def __init__(self, parent: QtCore.QObject | None = None) -> None:
        super().__init__(parent)
        self._classes = ctk_widgets.namespace() | mrml_widgets.namespace()

    def createWidget(self, class_name: str, parent: QtWidgets.QWidget | None = None, name: str = "") -> Any:
        cls = self._classes.get(class_name)
        if cls is None:
            if class_name.startswith("Q"):
                return super().createWidget(class_name, parent, name)
            findings.record(f"unknown class in the .ui file: {class_name} '{name}'")
            cls = QtWidgets.QWidget
        widget = cls(parent)
        widget.objectName = name
        self._made.append(widget)
        return widget

    def load(self, source: Any, parent: QtWidgets.QWidget | None = None) -> Any:
        if isinstance(source, str):
            source = QtCore.QFile(source)
        if not source.isOpen() and not source.open(QtCore.QIODevice.ReadOnly):
            return None
        root = ElementTree.fromstring(bytes(source.readAll().data()))
        connections = self._take_connections(root)
        properties = self._take_properties(root)
        self._check_declared(root)
        buffer = QtCore.QBuffer()
        buffer.setData(QtCore.QByteArray(ElementTree.tostring(root)))
        buffer.open(QtCore.QIODevice.ReadOnly)
        self._made: list[Any] = []
        pythonqt.loading_ui.append(True)
        try:
            widget = super().load(buffer, parent)
        finally:
            pythonqt.loading_ui.pop()
        if widget is None:
            findings.record(f"the .ui file could not be loaded: {self.errorString()}")
            return None
        widget.__dict__["_s_made"] = self._made  # their Python halves live as long as the panel
        everything = {child.objectName: child for child in [*widget.findChildren(QtCore.QObject), widget]}
        for name, key, value in properties:
            setattr(everything[name], key, value)
        for sender, signal, receiver, slot in connections:
            self._connect(everything, sender, signal, receiver, slot)
        return widget

    @staticmethod
    def _take_connections(root: ElementTree.Element) -> list[tuple[str, ...]]:
        element = root.find("connections")
        if element is None:
            return []
        root.remove(element)
        keys = ("sender", "signal", "receiver", "slot")
        return [tuple(c.findtext(key, "").strip() for key in keys) for c in element.findall("connection")]

    def _take_properties(self, root: ElementTree.Element) -> list[tuple[str, str, Any]]:
        taken = []
        for element in root.iter("widget"):
            cls = self._classes.get(element.get("class", ""))
            if cls is None:
                continue
            for child in element.findall("property"):
                name = child.get("name", "")
                if child.get("stdset") == "0" or (_is_of_qt(cls, name) and name != "enabled"):
                    continue
                element.remove(child)
                if not hasattr(cls, name):
                    findings.record(f"unknown property in the .ui file: {name} of {element.get('class')}")
                    continue
                taken.append((element.get("name", ""), name, _value(cls, child)))
        return taken

    def _check_declared(self, root: ElementTree.Element) -> None:
        """Qt Designer and Slicer build a custom class only if <customwidgets> names it."""
        declared = {e.findtext("class", "") for e in root.iter("customwidget")}
        names: list[str] = []
        for element in root.iter("widget"):
            class_name = element.get("class", "")
            names.append(element.get("name", ""))
            if not class_name.startswith("Q") and class_name not in declared:
                findings.record(f"custom class not declared in <customwidgets>: {class_name}")
        for name in sorted({n for n in names if names.count(n) > 1}):
            findings.record(f"two widgets of the .ui file have the name '{name}'")

    @staticmethod
    def _connect(everything: dict[str, Any], sender: str, signal: str, receiver: str, slot: str) -> None:
        if sender not in everything or receiver not in everything:
            findings.record(f"connection in the .ui file between unknown objects: {sender} -> {receiver}")
            return
        everything[sender].connect(signal, everything[receiver], slot)


def _is_of_qt(cls: type, name: str) -> bool:
    """Tell whether a property of a stand-in is one of the Qt class below it, which Qt's loader knows to set."""
    owner = next((base for base in cls.__mro__ if name in base.__dict__), None)
    return owner is not None and isinstance(owner.__dict__[name], pythonqt.QtProperty)


def _value(cls: type, element: ElementTree.Element) -> Any:
    """Turn the value of a property in the XML into a Python value."""
    child = element[0]
    text = (child.text or "").strip()
    if child.tag == "bool":
        return text == "true"
    if child.tag in ("number", "longlong"):
        return int(text)
    if child.tag in ("double", "float"):
        return float(text)
    if child.tag == "stringlist":
        return [item.text or "" for item in child.findall("string")]
    if child.tag in ("set", "enum"):
        total = 0
        for part in text.split("|"):
            member = getattr(cls, part.split("::")[-1], None)
            total |= int(member) if member is not None else 0
        return total
    return text if child.tag in ("string", "cstring") else child.text
