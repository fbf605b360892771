"""Which widget can show which type. The test is on the exact class of the widget, as in Slicer."""

# ruff: noqa: N802 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

import enum
import pathlib
import typing
from typing import Any

import ctk
import qt
import slicer

from .codecs import FloatRange, is_node_type, split_annotated
from .validators import Choice, Maximum, Minimum, RangeBounds, WithinRange


class Decimals:
    """Annotation: how many digits a spin box or slider shows."""

    def __init__(self, value: int) -> None:
        self.value = value


class SingleStep:
    """Annotation: the step of a spin box or slider."""

    def __init__(self, value: float) -> None:
        self.value = value


class GuiConnector:
    """Shows one parameter in one widget, and reads it back. Own connectors derive from it."""

    def __init__(self) -> None:
        self._callback: Any = None

    def onChanged(self, callback: Any) -> None:
        """Call *callback()* when the person changes the widget; None ends it."""
        had, self._callback = self._callback, callback
        if callback is not None and had is None:
            self._connect()
        elif callback is None and had is not None:
            self._disconnect()

    def changed(self) -> None:
        if self._callback is not None:
            self._callback()


_connectors: list[type] = []


def parameterNodeGuiConnector(classtype: type | None = None) -> Any:
    """Class decorator: register a connector."""
    if classtype is None:
        return parameterNodeGuiConnector
    if not issubclass(classtype, GuiConnector):
        raise TypeError("a GuiConnector is wanted")
    _connectors.append(classtype)
    return classtype


def createGuiConnector(widget: Any, datatype: Any) -> GuiConnector:
    """Return a connector for a widget and an annotated type.

    Raises:
        RuntimeError: this class of widget cannot show this type.
    """
    for connector in _connectors:
        if connector.canRepresent(widget, datatype):
            return connector.create(widget, datatype)
    raise RuntimeError(f"no connector between the type {datatype} and a {type(widget).__name__} '{widget.objectName}'")


class _SignalConnector(GuiConnector):
    """A connector to one attribute of the widget with one signal."""

    attribute = signal = ""
    classes: tuple[type, ...] = ()
    kinds: tuple[Any, ...] = ()

    def __init__(self, widget: Any, datatype: Any) -> None:
        super().__init__()
        self._widget = widget
        self.kind, self.annotations = split_annotated(datatype)
        self.prepare()

    @classmethod
    def canRepresent(cls, widget: Any, datatype: Any) -> bool:
        return type(widget) in cls.classes and cls.accepts(split_annotated(datatype)[0])

    @classmethod
    def accepts(cls, kind: Any) -> bool:
        return kind in cls.kinds

    @classmethod
    def create(cls, widget: Any, datatype: Any) -> GuiConnector:
        return cls(widget, datatype)

    def prepare(self) -> None:
        """Set up the widget once, from the annotations."""

    def annotation(self, *kinds: type) -> Any:
        return next((a for a in self.annotations if isinstance(a, kinds)), None)

    def widget(self) -> Any:
        return self._widget

    def _connect(self) -> None:
        getattr(self._widget, self.signal).connect(self.changed)

    def _disconnect(self) -> None:
        getattr(self._widget, self.signal).disconnect(self.changed)

    def read(self) -> Any:
        return getattr(self._widget, self.attribute)

    def write(self, value: Any) -> None:
        setattr(self._widget, self.attribute, value)


@parameterNodeGuiConnector
class _BoolConnector(_SignalConnector):
    attribute, signal = "checked", "toggled"
    classes = (qt.QCheckBox, ctk.ctkCheckBox, qt.QPushButton, ctk.ctkCheckablePushButton)
    kinds = (bool,)

    def prepare(self) -> None:
        self._widget.checkable = True


class _NumberConnector(_SignalConnector):
    attribute, signal = "value", "valueChanged"
    unbounded: tuple[float, float] = (0, 0)
    need_bounds: tuple[type, ...] = ()

    def prepare(self) -> None:
        within, low, high = (self.annotation(k) for k in (WithinRange, Minimum, Maximum))
        if within is None and (low is None or high is None) and type(self._widget) in self.need_bounds:
            raise RuntimeError(f"a {type(self._widget).__name__} needs WithinRange, or Minimum and Maximum")
        decimals, step = self.annotation(Decimals), self.annotation(SingleStep)
        if decimals is not None:
            self._widget.decimals = decimals.value
        if step is not None:
            self._widget.singleStep = step.value
        minimum = within.minimum if within is not None else low.minimum if low is not None else self.unbounded[0]
        maximum = within.maximum if within is not None else high.maximum if high is not None else self.unbounded[1]
        self._widget.minimum, self._widget.maximum = minimum, maximum

    def read(self) -> Any:
        return self.kind(self._widget.value)


@parameterNodeGuiConnector
class _IntConnector(_NumberConnector):
    classes, kinds, need_bounds = (qt.QSpinBox, qt.QSlider), (int,), (qt.QSlider,)
    unbounded = (-(2**31), 2**31 - 1)


@parameterNodeGuiConnector
class _FloatConnector(_NumberConnector):
    need_bounds = (ctk.ctkSliderWidget, slicer.qMRMLSliderWidget)
    classes = (*need_bounds, qt.QDoubleSpinBox, ctk.ctkDoubleSpinBox, ctk.ctkDoubleSlider, slicer.qMRMLSpinBox)
    kinds = (int, float)
    unbounded = (float("-inf"), float("inf"))


@parameterNodeGuiConnector
class _ChoiceConnector(_SignalConnector):
    attribute, signal = "currentIndex", "currentIndexChanged"
    classes, kinds = (qt.QComboBox, ctk.ctkComboBox), (int, float, str, bool)

    def prepare(self) -> None:
        choice = self.annotation(Choice)
        if choice is None:
            raise RuntimeError("a combo box needs the annotation Choice")
        self.values = list(choice.choices)
        self.fill([str(value) for value in self.values])

    def fill(self, texts: list[str]) -> None:
        self._widget.clear()
        for text in texts:
            self._widget.addItem(text)

    def read(self) -> Any:
        return self.values[self._widget.currentIndex]

    def write(self, value: Any) -> None:
        self._widget.currentIndex = self.values.index(value)


@parameterNodeGuiConnector
class _EnumConnector(_ChoiceConnector):
    @classmethod
    def accepts(cls, kind: Any) -> bool:
        return isinstance(kind, type) and issubclass(kind, enum.Enum)

    def prepare(self) -> None:
        self.values = list(self.kind)
        label = getattr(self.kind, "label", lambda member: member.name)
        self.fill([label(member) for member in self.values])


@parameterNodeGuiConnector
class _LineConnector(_SignalConnector):
    attribute, signal, classes, kinds = "text", "textChanged", (qt.QLineEdit,), (str,)


@parameterNodeGuiConnector
class _TextConnector(_LineConnector):
    attribute, classes = "plainText", (qt.QTextEdit,)

    def read(self) -> str:
        return self._widget.toPlainText()

    def write(self, value: str) -> None:
        if value != self._widget.toPlainText():
            self._widget.setPlainText(value)


@parameterNodeGuiConnector
class _LabelConnector(_LineConnector):
    classes = (qt.QLabel,)

    def _connect(self) -> None:
        """A label is only written."""

    _disconnect = _connect


@parameterNodeGuiConnector
class _RangeConnector(_SignalConnector):
    signal = "valuesChanged"
    classes = (ctk.ctkRangeWidget, ctk.ctkDoubleRangeSlider, slicer.qMRMLRangeWidget)
    kinds = (FloatRange,)

    def prepare(self) -> None:
        bounds = self.annotation(RangeBounds)
        if bounds is None:
            raise RuntimeError("a range widget needs the annotation RangeBounds")
        for name, annotation in (("decimals", Decimals), ("singleStep", SingleStep)):
            if self.annotation(annotation) is not None:
                setattr(self._widget, name, self.annotation(annotation).value)
        self._widget.minimum, self._widget.maximum = bounds.minimum, bounds.maximum

    def read(self) -> FloatRange:
        return FloatRange(self._widget.minimumValue, self._widget.maximumValue)

    def write(self, value: FloatRange) -> None:
        self._widget.setValues(value.minimum, value.maximum)


@parameterNodeGuiConnector
class _PathConnector(_SignalConnector):
    attribute, signal, classes = "currentPath", "currentPathChanged", (ctk.ctkPathLineEdit,)

    @classmethod
    def accepts(cls, kind: Any) -> bool:
        return isinstance(kind, type) and issubclass(kind, pathlib.PurePath)

    def read(self) -> Any:
        return self.kind(getattr(self._widget, self.attribute))

    def write(self, value: Any) -> None:
        setattr(self._widget, self.attribute, str(value))


@parameterNodeGuiConnector
class _DirectoryConnector(_PathConnector):
    attribute, signal, classes = "directory", "directoryChanged", (ctk.ctkDirectoryButton,)


def _node_types(kind: Any) -> list[Any]:
    return [k for k in (typing.get_args(kind) or (kind,)) if k is not type(None)]


@parameterNodeGuiConnector
class _NodeConnector(_SignalConnector):
    signal, classes = "currentNodeChanged", (slicer.qMRMLNodeComboBox,)

    @classmethod
    def accepts(cls, kind: Any) -> bool:
        return all(is_node_type(k) for k in _node_types(kind))

    def prepare(self) -> None:
        self._widget.nodeTypes = [k.__name__ for k in _node_types(self.kind)]

    def _connect(self) -> None:
        self._widget.connect("currentNodeChanged(vtkMRMLNode*)", self.changed)

    def _disconnect(self) -> None:
        self._widget.disconnect("currentNodeChanged(vtkMRMLNode*)", self.changed)

    def read(self) -> Any:
        return self._widget.currentNode()

    def write(self, value: Any) -> None:
        self._widget.setCurrentNode(value)


@parameterNodeGuiConnector
class _ColorConnector(_SignalConnector):
    attribute, signal, classes, kinds = "color", "colorChanged", (ctk.ctkColorPickerButton,), (qt.QColor,)
