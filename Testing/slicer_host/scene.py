"""The MRML scene with its logics, set up as the Slicer application does at start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk

# Name of the module in slicer.modules -> class of its logic.
LOGICS = {
    "terminologies": "vtkSlicerTerminologiesModuleLogic",
    "subjecthierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "units": "vtkSlicerUnitsLogic",
    "volumes": "vtkSlicerVolumesLogic",
    "models": "vtkSlicerModelsLogic",
    "segmentations": "vtkSlicerSegmentationsModuleLogic",
    "data": "vtkSlicerDataModuleLogic",
    "tables": "vtkSlicerTablesLogic",
    "plots": "vtkSlicerPlotsLogic",
    "sequences": "vtkSlicerSequencesLogic",
    "transforms": "vtkSlicerTransformLogic",
    "markups": "vtkSlicerMarkupsLogic",
    "cropvolume": "vtkSlicerCropVolumeLogic",
    "volumerendering": "vtkSlicerVolumeRenderingLogic",
    "texts": "vtkSlicerTextsLogic",
}
# What Slicer's module names look like where they are not the lower-case name with a capital.
TITLES = {"subjecthierarchy": "SubjectHierarchy", "cropvolume": "CropVolume", "volumerendering": "VolumeRendering"}
SLICES = (("Red", "Axial", "R"), ("Yellow", "Sagittal", "Y"), ("Green", "Coronal", "G"))
_IN_HIERARCHY = (
    "vtkMRMLVolumeNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLTableNode",
    "vtkMRMLModelNode",
    "vtkMRMLTransformNode",
    "vtkMRMLSequenceNode",
    "vtkMRMLSequenceBrowserNode",
    "vtkMRMLPlotChartNode",
    "vtkMRMLPlotSeriesNode",
    "vtkMRMLMarkupsNode",
    "vtkMRMLTextNode",
)


class SceneBoot:
    """Makes the scene, the application logic and the logic of each module; keeps them alive.

    Args:
        share: folder that stands for Slicer's share folder; colour files and terminologies are looked for in it.
    """

    def __init__(self, share: Path) -> None:
        self.share = share
        self.scene = slicer.vtkMRMLScene()
        self.application_logic = slicer.vtkSlicerApplicationLogic()
        self.logics: dict[str, Any] = {}
        self.slice_logics = vtk.vtkCollection()
        self.view_logics = vtk.vtkCollection()
        slicer.mrmlScene = self.scene
        self._register_io()
        self._application_nodes()
        self._application_logic(share)
        self._layout_logic()
        self._color_logic()
        self._displayable_managers()
        self._module_logics(share)
        self._observe()
        self.add_views()

    def _register_io(self) -> None:
        """Give the scene the managers of cached files, without which no .mrb can be read."""
        cache = slicer.vtkCacheManager()
        cache.SetRemoteCacheDirectory(str(self.share.parent / "cache"))
        cache.SetMRMLScene(self.scene)
        self.scene.SetCacheManager(cache)
        manager = slicer.vtkDataIOManager()
        manager.SetCacheManager(cache)
        self.scene.SetDataIOManager(manager)
        self._io = (cache, manager)

    def _application_nodes(self) -> None:
        for name in ("vtkMRMLCrosshairNode", "vtkMRMLInteractionNode", "vtkMRMLSelectionNode", "vtkMRMLLayoutNode"):
            node = self.scene.CreateNodeByClass(name)
            if node is None:
                continue
            node.UnRegister(None)
            if name == "vtkMRMLCrosshairNode":
                node.SetCrosshairName("default")
            self.scene.AddNode(node)

    def _application_logic(self, share: Path) -> None:
        logic = self.application_logic
        logic.SetHomeDirectory(str(share.parent))
        logic.SetShareDirectory(share.name)
        logic.SetTemporaryPath(str(share.parent / "tmp"))
        logic.SetSliceLogics(self.slice_logics)
        logic.SetViewLogics(self.view_logics)
        logic.SetMRMLScene(self.scene)

    def _layout_logic(self) -> None:
        """Make the views that a layout asks for, as Slicer's layout manager does; begin with the conventional one."""
        self.layout_logic = slicer.vtkMRMLLayoutLogic()
        self.layout_logic.SetMRMLScene(self.scene)
        self._layout = self.layout_logic.GetLayoutNode()  # kept, see :meth:`_observe`
        self._layout.SetViewArrangement(self._layout.SlicerLayoutConventionalView)
        self._layout.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: self.fill_layout())

    def fill_layout(self) -> None:
        """Give every slice view of the layout its composite node and logic, where it has none."""
        views = self.layout_logic.GetViewNodes()
        for number in range(views.GetNumberOfItems()):
            node = views.GetItemAsObject(number)
            if node.IsA("vtkMRMLSliceNode") and self.slice_logic(node.GetLayoutName()) is None:
                self._add_slice_logic(node)

    def slice_logic(self, name: str) -> Any:
        """Return the logic of the slice view of a layout name; None where the layout has none."""
        logics = (self.slice_logics.GetItemAsObject(number) for number in range(self.slice_logics.GetNumberOfItems()))
        return next((logic for logic in logics if logic.GetSliceNode().GetLayoutName() == name), None)

    def _color_logic(self) -> None:
        logic = slicer.vtkSlicerColorLogic()
        logic.SetMRMLApplicationLogic(self.application_logic)
        logic.SetMRMLScene(self.scene)
        self.application_logic.SetColorLogic(logic)
        self.application_logic.SetModuleLogic("Colors", logic)
        logic.AddDefaultColorNodes()
        self.logics["colors"] = logic

    def _displayable_managers(self) -> None:
        factories = (
            slicer.vtkMRMLSliceViewDisplayableManagerFactory,
            slicer.vtkMRMLThreeDViewDisplayableManagerFactory,
        )
        for factory in factories:
            factory.GetInstance().SetMRMLApplicationLogic(self.application_logic)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)

    def _module_logics(self, share: Path) -> None:
        for name, class_name in LOGICS.items():
            logic = getattr(slicer, class_name)()
            logic.SetMRMLApplicationLogic(self.application_logic)
            if hasattr(logic, "SetModuleShareDirectory"):
                logic.SetModuleShareDirectory(str(share))
            if name == "terminologies":
                # The lists are read when the scene is set, from the folder of the person and the share folder.
                logic.SetUserContextsPath(str(share))
            logic.SetMRMLScene(self.scene)
            self.application_logic.SetModuleLogic(TITLES.get(name, name.capitalize()), logic)
            self.logics[name] = logic

    def add_views(self) -> None:
        """Add the three slice views and the 3D view that a scene starts with, where they are missing."""
        self.fill_layout()
        for name, orientation, label in SLICES:
            if self.scene.GetSingletonNode(name, "vtkMRMLSliceNode") is None:
                self._add_slice(name, orientation, label)
        if self.scene.GetSingletonNode("1", "vtkMRMLViewNode") is None:
            node = self.scene.CreateNodeByClass("vtkMRMLViewNode")
            node.UnRegister(None)
            node.SetSingletonTag("1")
            node.SetLayoutName("1")
            node.SetName("View1")
            self.scene.AddNode(node)

    def _add_slice(self, name: str, orientation: str, label: str) -> None:
        node = self.scene.CreateNodeByClass("vtkMRMLSliceNode")
        node.UnRegister(None)
        node.SetSingletonTag(name)
        node.SetName(name)
        node.SetLayoutName(name)
        node.SetLayoutLabel(label)
        node.SetDefaultOrientation(orientation)  # which it goes back to when the scene is closed
        node.SetOrientation(orientation)
        self._add_slice_logic(self.scene.AddNode(node))

    def _add_slice_logic(self, node: Any) -> None:
        name = node.GetLayoutName()
        composite = self.scene.CreateNodeByClass("vtkMRMLSliceCompositeNode")
        composite.UnRegister(None)
        composite.SetSingletonTag(name)
        composite.SetLayoutName(name)
        composite = self.scene.AddNode(composite)
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(self.application_logic)
        logic.SetMRMLScene(self.scene)
        logic.SetSliceNode(node)
        logic.SetSliceCompositeNode(composite)
        self.slice_logics.AddItem(logic)

    def _observe(self) -> None:
        """Make subject hierarchy items for new nodes: in Slicer a Qt class does that, which is not in the wheel.

        The Python halves of the nodes are kept, too: VTK 9.6 lets Python's garbage collector take the observers of a
        node that Python does not hold otherwise, although the node lives on in the scene, and then calls into nothing.
        """

        self._alive: set[Any] = set()

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def on_added(caller: Any, event: str, node: Any) -> None:
            self._alive.add(node)
            if any(node.IsA(name) for name in _IN_HIERARCHY) and not node.GetHideFromEditors():
                hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
                if hierarchy is not None and not self.scene.IsClosing() and not hierarchy.GetItemByDataNode(node):
                    hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def on_removed(caller: Any, event: str, node: Any) -> None:
            if self.scene.IsClosing():
                return
            hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
            item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
            if item:
                hierarchy.RemoveItem(item, False, False)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def on_gone(caller: Any, event: str, node: Any) -> None:
            self._alive.discard(node)

        self._observers = (on_added, on_removed, on_gone)
        self.scene.AddObserver(self.scene.NodeRemovedEvent, on_gone)
        self.scene.AddObserver(self.scene.NodeAddedEvent, on_added)
        self.scene.AddObserver(self.scene.NodeAboutToBeRemovedEvent, on_removed)
