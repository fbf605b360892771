"""Stand-ins for Slicer's MRML widgets, on the real scene."""

# ruff: noqa: N802, N815 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import shiboken6
import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Qt, Signal

from .ctk_widgets import ctkCoordinatesWidget, ctkDoubleSpinBox, ctkMenuButton, ctkRangeWidget, ctkSliderWidget
from .standins import Prop, stand_in

if TYPE_CHECKING:
    from collections.abc import Callable


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


_SCENE_SIGNAL = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}


@stand_in(_SCENE_SIGNAL)
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


@stand_in(_SCENE_SIGNAL)
class qSlicerWidget(qMRMLWidget):  # noqa: N801
    """A widget of the application."""


_NODE_SIGNALS = {
    "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
    "currentNodeChanged(bool)": "_currentNodeChangedBool",
    "currentNodeIDChanged(QString)": "currentNodeIDChanged",
    "currentNodeRenamed(QString)": "currentNodeRenamed",
    "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
    "nodeAdded(vtkMRMLNode*)": "nodeAdded",
    "nodeActivated(vtkMRMLNode*)": "nodeActivated",
    "nodeAboutToBeRemoved(vtkMRMLNode*)": "nodeAboutToBeRemoved",
}


@stand_in(_SCENE_SIGNAL | _NODE_SIGNALS)
class qMRMLNodeComboBox(QtWidgets.QWidget):  # noqa: N801
    """A list of the nodes of given types. Without a scene it is disabled and empty."""

    mrmlSceneChanged = Signal(object)
    currentNodeChanged = Signal(object)
    _currentNodeChangedBool = Signal(bool)
    currentNodeIDChanged = Signal(str)
    currentNodeRenamed = Signal(str)
    nodeAddedByUser = Signal(object)
    nodeAdded = Signal(object)
    nodeActivated = Signal(object)
    nodeAboutToBeRemoved = Signal(object)

    nodeTypes = Prop([], list, "_s_settings_changed")
    showHidden = Prop(False, bool, "_s_settings_changed")
    showChildNodeTypes = Prop(True, bool, "_s_settings_changed")
    hideChildNodeTypes = Prop([], list, "_s_settings_changed")
    noneEnabled = Prop(False, bool, "_s_settings_changed")
    noneDisplay = Prop("None", str, "_s_settings_changed")
    addEnabled = Prop(True, bool, "_s_settings_changed")
    removeEnabled = Prop(True, bool, "_s_settings_changed")
    editEnabled = Prop(False, bool, "_s_settings_changed")
    renameEnabled = Prop(False, bool, "_s_settings_changed")
    baseName = Prop("", str)
    selectNodeUponCreation = Prop(True, bool)
    interactionNodeSingletonTag = Prop("", str)
    sizeAdjustPolicy = Prop(0)
    setMRMLSceneEnabled = Prop(True, bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._s_scene = self._s_node = None
        self._s_attributes: list[tuple[str, str, Any]] = []
        self._s_known: set[str] = set()
        self._s_observations = Observations(self)
        self._s_box = QtWidgets.QComboBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._s_box)
        self._s_box.connect("activated(int)", self._s_activated)
        self._s_wanted_enabled = True
        super().setEnabled(False)

    # enabled only with a scene, whatever a .ui file or the module says

    def _s_set_enabled(self, value: bool) -> None:
        self._s_wanted_enabled = bool(value)
        QtWidgets.QWidget.setEnabled(self, self._s_wanted_enabled and self._s_scene is not None)

    setEnabled = _s_set_enabled
    enabled = property(lambda self: QtWidgets.QWidget.isEnabled(self), _s_set_enabled)

    def mrmlScene(self) -> Any:
        return self._s_scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self._s_scene:
            return
        self._s_observations.clear()
        self._s_scene = scene
        self._s_known = set()
        if scene is not None:
            events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent)
            self._s_observations.add(scene, events, "_s_refresh")
        self._s_set_enabled(self._s_wanted_enabled)
        self._s_rebuild()
        if not self.noneEnabled:
            self._s_select_first()
        self.mrmlSceneChanged.emit(scene)

    def addAttribute(self, node_type: str, name: str, value: Any = None) -> None:
        self._s_attributes.append((node_type, name, value))
        self._s_settings_changed()

    def removeAttribute(self, node_type: str, name: str) -> None:
        self._s_attributes = [a for a in self._s_attributes if a[:2] != (node_type, name)]
        self._s_settings_changed()

    def nodes(self) -> list[Any]:
        """Return the nodes in the list, in the order of the scene."""
        if self._s_scene is None:
            return []
        found = []
        for index in range(self._s_scene.GetNumberOfNodes()):
            node = self._s_scene.GetNthNode(index)
            if self._s_accepts(node):
                found.append(node)
        return found

    def _s_accepts(self, node: Any) -> bool:
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        if any(node.IsA(name) for name in self.hideChildNodeTypes):
            return False
        for name in self.nodeTypes:
            if node.IsA(name) if self.showChildNodeTypes else node.GetClassName() == name:
                break
        else:
            return False
        for node_type, name, value in self._s_attributes:
            if node.IsA(node_type):
                have = node.GetAttribute(name)
                if have is None or (value is not None and have != str(value)):
                    return False
        return True

    def nodeCount(self) -> int:
        return len(self.nodes())

    def nodeFromIndex(self, index: int) -> Any:
        nodes = self.nodes()
        return nodes[index] if 0 <= index < len(nodes) else None

    def currentNode(self) -> Any:
        return self._s_node if self._s_scene is not None else None

    @property
    def currentNodeID(self) -> str:
        node = self.currentNode()
        return node.GetID() if node is not None else ""

    @currentNodeID.setter
    def currentNodeID(self, node_id: str) -> None:
        self.setCurrentNodeID(node_id)

    def setCurrentNodeID(self, node_id: str) -> None:
        self.setCurrentNode(self._s_scene.GetNodeByID(node_id) if self._s_scene is not None and node_id else None)

    def setCurrentNode(self, node: Any) -> None:
        if isinstance(node, str):
            self.setCurrentNodeID(node)
            return
        if node is not None and node not in self.nodes():
            node = None
        self._s_set_node(node)

    def currentNodeIndex(self) -> int:
        nodes = self.nodes()
        return nodes.index(self._s_node) if self._s_node in nodes else -1

    def setCurrentNodeIndex(self, index: int) -> None:
        self._s_set_node(self.nodeFromIndex(index))

    def addNode(self, node_type: str = "") -> Any:
        """Make a node as the entry "Create new ..." does; return it."""
        node_type = node_type or self.nodeTypes[0]
        node = self._s_scene.CreateNodeByClass(node_type)
        node.UnRegister(None)
        base = self.baseName or node.GetNodeTagName()
        node.SetName(self._s_scene.GenerateUniqueName(base))
        for kind, name, value in self._s_attributes:
            if node.IsA(kind):
                node.SetAttribute(name, "" if value is None else str(value))
        node = self._s_scene.AddNode(node)
        if self.selectNodeUponCreation:
            self._s_set_node(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        if self._s_node is not None:
            self._s_scene.RemoveNode(self._s_node)

    # -- inside --

    def _s_select_first(self) -> None:
        nodes = self.nodes()
        self._s_set_node(nodes[0] if nodes else None)

    def _s_settings_changed(self) -> None:
        self._s_rebuild()
        if self._s_node is not None and self._s_node not in self.nodes():
            self._s_set_node(None)
        if self._s_node is None and not self.noneEnabled and self._s_scene is not None:
            self._s_select_first()

    def _s_refresh(self) -> None:
        """Follow the scene. A new node is selected by itself only if the list had no entry at all."""
        scene = self._s_scene
        if scene is None or scene.IsBatchProcessing():
            return
        nodes = self.nodes()
        ids = {node.GetID() for node in nodes}
        added = [node for node in nodes if node.GetID() not in self._s_known]
        was_empty = not self._s_known and not self.noneEnabled and not self.addEnabled
        self._s_rebuild()
        if self._s_node is not None and (self._s_node.GetScene() is None or self._s_node.GetID() not in ids):
            self._s_set_node(None if self.noneEnabled or not nodes else nodes[0])
        elif self._s_node is None and was_empty and added:
            self._s_set_node(added[0])
        for node in added:
            self.nodeAdded.emit(node)

    def _s_rebuild(self) -> None:
        box = self._s_box
        box.blockSignals(True)
        box.clear()
        if self._s_scene is not None:
            if self.noneEnabled:
                box.addItem(self.noneDisplay, "")
            for node in self.nodes():
                box.addItem(node.GetName() or "", node.GetID())
            actions = (
                ("Create new", self.addEnabled),
                ("Rename current", self.renameEnabled),
                ("Edit current", self.editEnabled),
            )
            for text, present in (*actions, ("Delete current", self.removeEnabled)):
                if present:
                    box.addItem(f"{text} {self._s_type_label()}", f"!{text.split()[0]}")
        self._s_known = {node.GetID() for node in self.nodes()}
        self._s_show_current()
        box.blockSignals(False)

    def _s_type_label(self) -> str:
        if not self.nodeTypes or self._s_scene is None:
            return "node"
        node = self._s_scene.CreateNodeByClass(self.nodeTypes[0])
        if node is None:
            return self.nodeTypes[0]
        node.UnRegister(None)
        return self._s_scene.GetTagByClassName(self.nodeTypes[0]) or node.GetNodeTagName()

    def _s_show_current(self) -> None:
        wanted = self._s_node.GetID() if self._s_node is not None else ""
        index = self._s_box.findData(wanted)
        self._s_box.setPlaceholderText(f"Select a {self._s_type_label()}")
        self._s_box.setCurrentIndex(index)

    def _s_set_node(self, node: Any) -> None:
        if node is self._s_node:
            return
        self._s_node = node
        self._s_box.blockSignals(True)
        self._s_show_current()
        self._s_box.blockSignals(False)
        self._s_observations.clear()
        if self._s_scene is not None:
            scene = self._s_scene
            events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent)
            self._s_observations.add(scene, events, "_s_refresh")
        if node is not None:
            self._s_observations.add(node, (vtk.vtkCommand.ModifiedEvent,), "_s_renamed")
        self.currentNodeChanged.emit(node)
        self._currentNodeChangedBool.emit(node is not None)
        self.currentNodeIDChanged.emit(self.currentNodeID)

    def _s_renamed(self) -> None:
        index = self._s_box.findData(self.currentNodeID)
        if self._s_node is not None and index >= 0 and self._s_box.itemText(index) != self._s_node.GetName():
            self._s_box.setItemText(index, self._s_node.GetName() or "")
            self.currentNodeRenamed.emit(self._s_node.GetName() or "")

    def _s_activated(self, index: int) -> None:
        data = self._s_box.itemData(index) or ""
        if data == "!Create":
            self.addNode()
        elif data == "!Delete":
            self.removeCurrentNode()
        elif not data.startswith("!"):
            self.setCurrentNodeID(data)
            self.nodeActivated.emit(self._s_node)
        self._s_show_current()


class _SegmentRows(QtWidgets.QTableWidget):
    """The rows inside a segments table."""


@stand_in(_SCENE_SIGNAL | {"selectionChanged(QItemSelection,QItemSelection)": "selectionChanged"})
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
        return self._s_table().GetColumnName(section) if orientation == Qt.Horizontal else str(section + 1)


@stand_in(_SCENE_SIGNAL)
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
    return stand_in(_SCENE_SIGNAL)(type(base)(name, (base,), body))


qMRMLSliderWidget = _with_scene(ctkSliderWidget, "qMRMLSliderWidget")  # noqa: N816
qMRMLSpinBox = _with_scene(ctkDoubleSpinBox, "qMRMLSpinBox")  # noqa: N816
qMRMLRangeWidget = _with_scene(ctkRangeWidget, "qMRMLRangeWidget")  # noqa: N816
qMRMLCoordinatesWidget = _with_scene(ctkCoordinatesWidget, "qMRMLCoordinatesWidget")  # noqa: N816


@stand_in(_SCENE_SIGNAL)
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
        from .findings import findings

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
