"""Stand-ins for the widgets that show a segmentation or a table."""

# ruff: noqa: N802, N815 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

import weakref
from typing import Any

import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Qt, Signal

from .ctk_widgets import ctkMenuButton
from .mrml_base import SCENE_SIGNAL, Observations, qMRMLWidget
from .standins import Prop, stand_in


class _SegmentRows(QtWidgets.QTableWidget):
    """The rows inside a segments table."""


@stand_in(SCENE_SIGNAL | {"selectionChanged(QItemSelection,QItemSelection)": "selectionChanged"})
class qMRMLSegmentsTableView(qMRMLWidget):  # noqa: N801
    """The segments of a segmentation with visibility, colour and name."""

    mrmlSceneChanged = Signal(object)
    selectionChanged = Signal(object, object)
    readOnly = Prop(False, bool)
    headerVisible = Prop(True, bool, "_s_update")
    visibilityColumnVisible = Prop(True, bool, "_s_update")
    colorColumnVisible = Prop(True, bool, "_s_update")
    opacityColumnVisible = Prop(True, bool, "_s_update")
    statusColumnVisible = Prop(False, bool)
    layerColumnVisible = Prop(False, bool)
    filterBarVisible = Prop(False, bool)
    textFilter = Prop("", str, "_s_update")
    selectionMode = Prop(3)
    jumpToSelectedSegmentEnabled = Prop(False, bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._s_node = None
        self._s_observations = Observations(self)
        self._s_table = _SegmentRows(0, 4, self)
        self._s_table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectRows)
        self._s_table.verticalHeader().hide()
        self._s_table.setHorizontalHeaderLabels(["", "", "Opacity", "Name"])
        self._s_table.horizontalHeader().setStretchLastSection(True)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._s_table)

    def segmentationNode(self) -> Any:
        return self._s_node

    def setSegmentationNode(self, node: Any) -> None:
        if node is not None and not node.IsA("vtkMRMLSegmentationNode"):
            raise ValueError(f"a segmentation node is wanted, not {node.GetClassName()}")
        self._s_observations.clear()
        self._s_node = node
        if node is not None:
            self._s_observations.add(node, (vtk.vtkCommand.ModifiedEvent,), "_s_update")
            segmentation = node.GetSegmentation()
            events = (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified)
            self._s_observations.add(segmentation, events, "_s_update")
        self._s_update()

    @property
    def segmentCount(self) -> int:
        return self._s_table.rowCount

    def _s_update(self) -> None:
        table, node = self._s_table, self._s_node
        table.setRowCount(0)
        table.horizontalHeader().setVisible(self.headerVisible)
        shown = (self.visibilityColumnVisible, self.colorColumnVisible, self.opacityColumnVisible)
        for column, visible in enumerate(shown):
            table.setColumnHidden(column, not visible)
            table.setColumnWidth(column, (28, 28, 60)[column])
        if node is None:
            return
        display = node.GetDisplayNode()
        for segment_id in node.GetSegmentation().GetSegmentIDs():
            segment = node.GetSegmentation().GetSegment(segment_id)
            if self.textFilter.lower() not in segment.GetName().lower():
                continue
            row = table.rowCount
            table.insertRow(row)
            visible = display is None or display.GetSegmentVisibility(segment_id)
            opacity = 1.0 if display is None else display.GetSegmentOpacity3D(segment_id)
            cells = [QtWidgets.QTableWidgetItem(t) for t in ("", "", f"{opacity:.2f}", segment.GetName())]
            cells[0].setCheckState(Qt.Checked if visible else Qt.Unchecked)
            cells[1].setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
            cells[3].setData(Qt.UserRole, segment_id)
            for column, cell in enumerate(cells):
                table.setItem(row, column, cell)

    def selectedSegmentIDs(self) -> list[str]:
        rows = sorted({index.row() for index in self._s_table.selectionModel().selectedRows()})
        return [self._s_table.item(row, 3).data(Qt.UserRole) for row in rows]

    def setSelectedSegmentIDs(self, ids: list[str]) -> None:
        self._s_table.clearSelection()
        for row in range(self._s_table.rowCount):
            if self._s_table.item(row, 3).data(Qt.UserRole) in ids:
                self._s_table.selectRow(row)

    def clearSelection(self) -> None:
        self._s_table.clearSelection()

    def displayedSegmentIDs(self) -> list[str]:
        return [self._s_table.item(row, 3).data(Qt.UserRole) for row in range(self._s_table.rowCount)]


@stand_in()
class qMRMLSegmentationShow3DButton(ctkMenuButton):  # noqa: N801
    """A button that makes and shows closed surfaces."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.text = "Show 3D"
        self.checkable = True
        self.enabled = False
        self._s_node = None
        self.connect("clicked(bool)", self._s_toggled)

    def segmentationNode(self) -> Any:
        return self._s_node

    def setSegmentationNode(self, node: Any) -> None:
        self._s_node = node
        self.enabled = node is not None
        self.checked = bool(node is not None and self._s_shown(node))

    @staticmethod
    def _s_shown(node: Any) -> bool:
        return node.GetSegmentation().ContainsRepresentation("Closed surface")

    def _s_toggled(self, on: bool) -> None:
        if self._s_node is None:
            return
        if on:
            self._s_node.CreateClosedSurfaceRepresentation()
        else:
            self._s_node.RemoveClosedSurfaceRepresentation()


class _TableModel(QtCore.QAbstractTableModel):
    def __init__(self, view: qMRMLTableView) -> None:
        super().__init__(view)
        self.view = weakref.ref(view)

    def _s_table(self) -> Any:
        view = self.view()
        node = view.mrmlTableNode() if view is not None else None
        return node.GetTable() if node is not None else None

    def rowCount(self, parent: Any = None) -> int:
        table = self._s_table()
        return int(table.GetNumberOfRows()) if table is not None else 0

    def columnCount(self, parent: Any = None) -> int:
        table = self._s_table()
        return int(table.GetNumberOfColumns()) if table is not None else 0

    def data(self, index: QtCore.QModelIndex, role: int = Qt.DisplayRole) -> Any:
        if role not in (Qt.DisplayRole, Qt.EditRole):
            return None
        return self._s_table().GetValue(index.row(), index.column()).ToString()

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.DisplayRole) -> Any:
        if role != Qt.DisplayRole:
            return None
        if orientation != Qt.Horizontal:
            return str(section + 1)
        name, node = self._s_table().GetColumnName(section), self.view().mrmlTableNode()
        return (node.GetColumnTitle(name) if node.GetUseColumnTitleAsColumnHeader() else "") or name


@stand_in(SCENE_SIGNAL)
class qMRMLTableView(QtWidgets.QTableView):  # noqa: N801
    """A table node as a table."""

    mrmlSceneChanged = Signal(object)
    transposed = Prop(False, bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._s_scene = self._s_node = None
        self._s_observations = Observations(self)
        self.setModel(_TableModel(self))

    def mrmlScene(self) -> Any:
        return self._s_scene

    def setMRMLScene(self, scene: Any) -> None:
        self._s_scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlTableNode(self) -> Any:
        return self._s_node

    def setMRMLTableNode(self, node: Any) -> None:
        self._s_observations.clear()
        self._s_node = node
        if node is not None:
            self._s_observations.add(node, (vtk.vtkCommand.ModifiedEvent,), "_s_update")
        self._s_update()

    def _s_update(self) -> None:
        self.model().beginResetModel()
        self.model().endResetModel()
        self.resizeColumnsToContents()

    def setFirstRowLocked(self, locked: bool) -> None:
        pass

    def firstRowLocked(self) -> bool:
        return False
