"""Stand-ins for the CTK widgets that modules use: real Qt widgets with CTK's names, properties and signals."""

# ruff: noqa: N802, N815 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Qt, Signal

from .standins import Prop, stand_in

_INFINITE = 1e9


@stand_in({"contentsCollapsed(bool)": "contentsCollapsed"})
class ctkCollapsibleButton(QtWidgets.QWidget):  # noqa: N801 - CTK's name
    """A titled header that folds the widgets below it."""

    contentsCollapsed = Signal(bool)
    text = Prop("", str, "_s_header_changed")
    collapsed = Prop(False, bool, "_s_fold")
    flat = Prop(False, bool)
    checked = Prop(True, bool)
    contentsFrameShape = Prop(0)
    collapsedHeight = Prop(14, int)

    def __init__(self, *arguments: Any) -> None:
        title = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        parent = next((a for a in arguments if isinstance(a, QtWidgets.QWidget)), None)
        super().__init__(parent)
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)
        self._s_header_changed()
        self.text = title

    def _s_header_height(self) -> int:
        return self.fontMetrics().height() + 10

    def _s_header_changed(self) -> None:
        self.setContentsMargins(0, self._s_header_height(), 0, 0)
        self.update()

    def _s_children(self) -> list[QtWidgets.QWidget]:
        return [c for c in self.children() if isinstance(c, QtWidgets.QWidget) and not c.isWindow()]

    def _s_fold(self) -> None:
        hidden = self.__dict__.setdefault("_s_hidden", set())
        for child in self._s_children():
            if self.collapsed and not child.isHidden():
                child.hide()
                hidden.add(child)
            elif not self.collapsed and child in hidden:
                child.show()
        if not self.collapsed:
            hidden.clear()
        self.setMaximumHeight(self._s_header_height() if self.collapsed else 16777215)
        self.checked = not self.collapsed
        self.updateGeometry()
        self.contentsCollapsed.emit(self.collapsed)

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        """A widget added to a collapsed button is hidden too."""
        child = event.child()
        if event.added() and self.collapsed and isinstance(child, QtWidgets.QWidget):
            child.hide()
            self.__dict__.setdefault("_s_hidden", set()).add(child)

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:
        """A click on the header folds or unfolds."""
        if event.position().y() <= self._s_header_height():
            self.toggle()

    def toggle(self) -> None:
        self.collapsed = not self.collapsed

    def click(self) -> None:
        self.toggle()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        """Draw the header like a tool button with an arrow, and a frame around the contents."""
        painter = QtGui.QPainter(self)
        height = self._s_header_height()
        header = QtCore.QRect(0, 0, self.width, height - 2)
        painter.setPen(self.palette.mid().color())
        if not self.flat and not self.collapsed:
            painter.drawRect(QtCore.QRect(0, height // 2, self.width - 1, self.height - height // 2 - 1))
        painter.setBrush(self.palette.button())
        painter.drawRoundedRect(header.adjusted(0, 0, -1, 0), 3, 3)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(6, (height - 12) // 2, 10, 10)
        primitive = (
            QtWidgets.QStyle.PE_IndicatorArrowRight if self.collapsed else QtWidgets.QStyle.PE_IndicatorArrowDown
        )
        QtWidgets.QApplication.style().drawPrimitive(primitive, arrow, painter, self)
        painter.setPen(self.palette.buttonText().color())
        painter.drawText(header.adjusted(24, 0, -4, 0), Qt.AlignVCenter | Qt.AlignLeft, self.text)
        painter.end()


@stand_in()
class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):  # noqa: N801
    """A group box that folds."""

    collapsed = Prop(False, bool, "_s_fold")
    collapsedHeight = Prop(14, int)

    def _s_fold(self) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(not self.collapsed)


@stand_in({"valueChanged(double)": "valueChanged", "valueIsChanging(double)": "valueIsChanging"})
class ctkSliderWidget(QtWidgets.QWidget):  # noqa: N801
    """A slider and a spin box that show one number."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    value = Prop(0.0, float, "_s_value_changed")
    minimum = Prop(0.0, float, "_s_range_changed")
    maximum = Prop(99.0, float, "_s_range_changed")
    singleStep = Prop(1.0, float, "_s_range_changed")
    pageStep = Prop(10.0, float)
    decimals = Prop(2, int, "_s_range_changed")
    suffix = Prop("", str, "_s_range_changed")
    prefix = Prop("", str, "_s_range_changed")
    tracking = Prop(True, bool)
    spinBoxVisible = Prop(True, bool, "_s_range_changed")
    tickInterval = Prop(0.0, float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._s_slider = QtWidgets.QSlider(Qt.Horizontal, self)
        self._s_spin = QtWidgets.QDoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._s_slider)
        layout.addWidget(self._s_spin)
        self._s_range_changed()
        self._s_slider.connect("valueChanged(int)", self._s_slider_moved)
        self._s_spin.connect("valueChanged(double)", lambda value: setattr(self, "value", value))

    def _s_slider_moved(self, position: int) -> None:
        self.value = self.minimum + position * (self.singleStep or 1)

    def _s_range_changed(self) -> None:
        value = self.value
        spin, slider = self._s_spin, self._s_slider
        slider.blockSignals(True)
        spin.blockSignals(True)
        spin.setDecimals(self.decimals)
        spin.setRange(max(self.minimum, -_INFINITE), min(self.maximum, _INFINITE))
        spin.setSingleStep(self.singleStep)
        spin.setSuffix(self.suffix)
        spin.setPrefix(self.prefix)
        spin.setVisible(self.spinBoxVisible)
        slider.setRange(0, self._s_steps(self.maximum))
        slider.blockSignals(False)
        spin.blockSignals(False)
        self.value = min(max(value, self.minimum), self.maximum)
        self._s_show()

    def _s_show(self) -> None:
        for widget, value in ((self._s_spin, self.value), (self._s_slider, self._s_steps(self.value))):
            widget.blockSignals(True)
            widget.setValue(value)
            widget.blockSignals(False)

    def _s_steps(self, value: float) -> int:
        """Return the position of the handle for a value; without bounds there is no such place."""
        steps = (value - self.minimum) / (self.singleStep or 1)
        return round(min(steps, 2**30)) if math.isfinite(self.minimum) else 0

    def _s_value_changed(self) -> None:
        bounded = min(max(self.value, self.minimum), self.maximum)
        if bounded != self.value:
            self.value = bounded
            return
        self._s_show()
        self.valueChanged.emit(self.value)

    def setRange(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def reset(self) -> None:
        self.value = self.minimum


@stand_in()
class ctkDoubleSlider(ctkSliderWidget):  # noqa: N801
    """A slider of real numbers, without the spin box."""

    spinBoxVisible = Prop(False, bool, "_s_range_changed")
    orientation = Prop(Qt.Horizontal)


@stand_in()
class ctkDoubleSpinBox(ctkSliderWidget):  # noqa: N801
    """A spin box of real numbers."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._s_slider.hide()


@stand_in(
    {
        "valuesChanged(double,double)": "valuesChanged",
        "minimumValueChanged(double)": "minimumValueChanged",
        "maximumValueChanged(double)": "maximumValueChanged",
        "rangeChanged(double,double)": "rangeChanged",
    }
)
class ctkRangeWidget(QtWidgets.QWidget):  # noqa: N801
    """Two spin boxes that hold a range of values."""

    valuesChanged = Signal(float, float)
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)
    rangeChanged = Signal(float, float)
    minimumValue = Prop(0.0, float, "_s_values_changed")
    maximumValue = Prop(99.0, float, "_s_values_changed")
    minimum = Prop(0.0, float, "_s_range_changed")
    maximum = Prop(99.0, float, "_s_range_changed")
    singleStep = Prop(1.0, float, "_s_range_changed")
    decimals = Prop(2, int, "_s_range_changed")
    suffix = Prop("", str, "_s_range_changed")

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._s_low, self._s_high = QtWidgets.QDoubleSpinBox(self), QtWidgets.QDoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._s_low)
        layout.addWidget(self._s_high)
        self._s_range_changed()
        self._s_low.connect("valueChanged(double)", lambda value: setattr(self, "minimumValue", value))
        self._s_high.connect("valueChanged(double)", lambda value: setattr(self, "maximumValue", value))

    def _s_boxes(self) -> tuple[tuple[Any, float], ...]:
        return (self._s_low, self.minimumValue), (self._s_high, self.maximumValue)

    def _s_range_changed(self) -> None:
        for box, value in self._s_boxes():
            box.blockSignals(True)
            box.setDecimals(self.decimals)
            box.setRange(max(self.minimum, -_INFINITE), min(self.maximum, _INFINITE))
            box.setSingleStep(self.singleStep)
            box.setSuffix(self.suffix)
            box.setValue(value)
            box.blockSignals(False)
        self.setValues(
            min(max(self.minimumValue, self.minimum), self.maximum),
            min(max(self.maximumValue, self.minimum), self.maximum),
        )
        self.rangeChanged.emit(self.minimum, self.maximum)

    def _s_values_changed(self) -> None:
        for box, value in self._s_boxes():
            box.blockSignals(True)
            box.setValue(value)
            box.blockSignals(False)
        self.minimumValueChanged.emit(self.minimumValue)
        self.maximumValueChanged.emit(self.maximumValue)
        self.valuesChanged.emit(self.minimumValue, self.maximumValue)

    def setValues(self, low: float, high: float) -> None:
        self.minimumValue, self.maximumValue = low, high

    def setRange(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum


@stand_in()
class ctkDoubleRangeSlider(ctkRangeWidget):  # noqa: N801
    """A slider with two handles."""


@stand_in(
    {
        "currentPathChanged(QString)": "currentPathChanged",
        "validInputChanged(bool)": "validInputChanged",
        "retrievePathList(QStringList)": "retrievePathList",
    }
)
class ctkPathLineEdit(QtWidgets.QWidget):  # noqa: N801
    """A line for a path and a button to look for it."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    retrievePathList = Signal(list)
    currentPath = Prop("", str, "_s_path_changed")
    filters = Prop(0)
    nameFilters = Prop([], list)
    settingKey = Prop("", str)
    label = Prop("", str)
    showBrowseButton = Prop(True, bool, "_s_browse_changed")
    showHistoryButton = Prop(True, bool)
    sizeAdjustPolicy = Prop(0)
    Dirs, Files, NoDot, NoDotDot, Readable, Writable, Executable = 1, 2, 8192, 16384, 16, 32, 64

    def __init__(self, parent: QtWidgets.QWidget | None = None, *_: Any) -> None:
        super().__init__(parent)
        self._s_edit, self._s_button = QtWidgets.QLineEdit(self), QtWidgets.QToolButton(self)
        self._s_button.setText("...")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._s_edit)
        layout.addWidget(self._s_button)
        self._s_edit.connect("textChanged(QString)", lambda text: setattr(self, "currentPath", text))
        self._s_button.connect("clicked()", self.browse)

    def _s_path_changed(self) -> None:
        if self._s_edit.text != self.currentPath:
            self._s_edit.setText(self.currentPath)
        self.currentPathChanged.emit(self.currentPath)
        self.validInputChanged.emit(Path(self.currentPath).exists())

    def _s_browse_changed(self) -> None:
        self._s_button.setVisible(self.showBrowseButton)

    def browse(self) -> None:
        from .dialogs import recorder

        path = recorder.ask("QFileDialog", self.label or "Open", "", default="")
        if path:
            self.currentPath = path

    def addCurrentPathToHistory(self) -> None:
        if self.settingKey:
            QtCore.QSettings().setValue(self.settingKey, [self.currentPath])

    def clear(self) -> None:
        self.currentPath = ""


@stand_in({"directoryChanged(QString)": "directoryChanged", "directorySelected(QString)": "directorySelected"})
class ctkDirectoryButton(QtWidgets.QWidget):  # noqa: N801
    """A button that shows and asks for a folder."""

    directoryChanged = Signal(str)
    directorySelected = Signal(str)
    directory = Prop("", str, "_s_directory_changed")
    caption = Prop("", str)
    text = Prop("", str)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(next((a for a in arguments if isinstance(a, QtWidgets.QWidget)), None))
        self._s_button = QtWidgets.QPushButton(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._s_button)
        self._s_button.connect("clicked()", self.browse)

    def _s_directory_changed(self) -> None:
        self._s_button.setText(self.directory)
        self.directoryChanged.emit(self.directory)

    def browse(self) -> None:
        from .dialogs import recorder

        path = recorder.ask("QFileDialog", self.caption, "", default="")
        if path:
            self.directory = path
            self.directorySelected.emit(path)


@stand_in({"colorChanged(QColor)": "colorChanged"})
class ctkColorPickerButton(QtWidgets.QPushButton):  # noqa: N801
    """A button that shows a colour."""

    colorChanged = Signal(QtGui.QColor)
    color = Prop(QtGui.QColor(0, 0, 0), QtGui.QColor, "_s_color_changed")
    displayColorName = Prop(True, bool)

    def _s_color_changed(self) -> None:
        self.text = self.color.name() if self.displayColorName else ""
        self.colorChanged.emit(self.color)


@stand_in()
class ctkComboBox(QtWidgets.QComboBox):  # noqa: N801
    """A combo box with a text for no choice."""

    defaultText = Prop("", str, "_s_default_changed")
    defaultIcon = Prop(None)
    forceDefault = Prop(False, bool)
    elideMode = Prop(0)
    scrollWheelEffect = Prop(0)

    def _s_default_changed(self) -> None:
        self.setPlaceholderText(self.defaultText)


@stand_in({"checkedIndexesChanged()": "checkedIndexesChanged"})
class ctkCheckableComboBox(QtWidgets.QComboBox):  # noqa: N801
    """A combo box whose entries can be checked."""

    checkedIndexesChanged = Signal()

    def checkedIndexes(self) -> list[QtCore.QModelIndex]:
        rows = [self.model().index(row, 0) for row in range(self.count)]
        return [i for i in rows if i.data(Qt.CheckStateRole) == Qt.Checked]

    def setCheckState(self, index: QtCore.QModelIndex, state: Qt.CheckState) -> None:
        self.model().setData(index, state, Qt.CheckStateRole)
        self.checkedIndexesChanged.emit()

    def checkState(self, index: QtCore.QModelIndex) -> Qt.CheckState:
        return Qt.CheckState(index.data(Qt.CheckStateRole) or 0)


@stand_in()
class ctkCheckBox(QtWidgets.QCheckBox):  # noqa: N801
    """A check box with an icon."""


@stand_in()
class ctkPushButton(QtWidgets.QPushButton):  # noqa: N801
    """A push button."""

    buttonTextAlignment = Prop(0)
    iconAlignment = Prop(0)
    elideMode = Prop(0)


@stand_in()
class ctkCheckablePushButton(ctkPushButton):  # noqa: N801
    """A push button with a check box in it."""

    checkBoxControlsButton = Prop(True, bool)
    checkBoxUserCheckable = Prop(True, bool)


@stand_in()
class ctkMenuButton(ctkPushButton):  # noqa: N801
    """A push button with an arrow that opens a menu."""

    showMenuIcon = Prop(True, bool)


@stand_in()
class ctkExpandButton(QtWidgets.QToolButton):  # noqa: N801
    """A small button that shows more."""

    orientation = Prop(Qt.Vertical)
    mirrorOnExpand = Prop(False, bool)


@stand_in()
class ctkMessageBox(QtWidgets.QMessageBox):  # noqa: N801
    """A message box that can be told not to appear again."""

    dontShowAgainSettingsKey = Prop("", str)
    dontShowAgainVisible = Prop(False, bool)
    dontShowAgain = Prop(False, bool)


@stand_in()
class ctkFittedTextBrowser(QtWidgets.QTextBrowser):  # noqa: N801
    """A text browser as high as its text."""

    collapsed = Prop(False, bool)
    collapsible = Prop(True, bool)
    collapsibleText = Prop("", str)


@stand_in()
class ctkSearchBox(QtWidgets.QLineEdit):  # noqa: N801
    """A line edit for a search."""

    showSearchIcon = Prop(False, bool)
    alwaysShowClearIcon = Prop(False, bool)
    showClearIcon = Prop(True, bool)


@stand_in({"coordinatesChanged(double*)": "coordinatesChanged"})
class ctkCoordinatesWidget(QtWidgets.QWidget):  # noqa: N801
    """Several numbers in a row."""

    coordinatesChanged = Signal(object)
    coordinates = Prop("0,0,0", str, "_s_coordinates_changed")
    dimension = Prop(3, int)
    decimals = Prop(3, int)
    minimum = Prop(-100000.0, float)
    maximum = Prop(100000.0, float)
    singleStep = Prop(1.0, float)
    normalized = Prop(False, bool)

    def _s_coordinates_changed(self) -> None:
        self.coordinatesChanged.emit([float(v) for v in self.coordinates.split(",")])


class ctkSettings(QtCore.QSettings):  # noqa: N801
    """Settings; the class exists because tests of Slicer ask for it."""


class ctkErrorLogContext:  # noqa: N801
    """Where an error came from; the class exists because tests of Slicer ask for it."""


def namespace() -> dict[str, Any]:
    """Return name -> class of everything here that is CTK's."""
    return {name: value for name, value in globals().items() if name.startswith("ctk")}
