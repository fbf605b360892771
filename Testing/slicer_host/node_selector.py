"""Stand-in for the node selector, on the real scene and with the rules of Slicer's."""

# ruff: noqa: N802, N815 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

from typing import Any

import vtk
from PySide6 import QtWidgets
from PySide6.QtCore import Signal

from .mrml_base import SCENE_SIGNAL, Observations
from .standins import Prop, stand_in

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


@stand_in(SCENE_SIGNAL | _NODE_SIGNALS)
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
