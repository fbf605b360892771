"""Stand-ins for the CTK widgets that modules use: real Qt widgets with CTK's names, properties and signals."""

# ruff: noqa: N802, N815 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Qt, Signal

from .ctk_numbers import (
    ctkCoordinatesWidget,
    ctkDoubleRangeSlider,
    ctkDoubleSlider,
    ctkDoubleSpinBox,
    ctkRangeWidget,
    ctkSliderWidget,
)
from .standins import Prop, stand_in

# The classes of the other file, here for namespace().
__all__ = [
    "ctkCoordinatesWidget",
    "ctkDoubleRangeSlider",
    "ctkDoubleSlider",
    "ctkDoubleSpinBox",
    "ctkRangeWidget",
    "ctkSliderWidget",
]


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


class ctkSettings(QtCore.QSettings):  # noqa: N801
    """Settings; the class exists because tests of Slicer ask for it."""


class ctkErrorLogContext:  # noqa: N801
    """Where an error came from; the class exists because tests of Slicer ask for it."""


def namespace() -> dict[str, Any]:
    """Return name -> class of everything here that is CTK's."""
    return {name: value for name, value in globals().items() if name.startswith("ctk")}
