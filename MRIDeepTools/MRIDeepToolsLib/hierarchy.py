"""Names and places of results: beside their input in the subject hierarchy, under the same transform."""

from __future__ import annotations

from typing import Any

import slicer

__all__ = ["new_folder", "output_name", "place_beside", "unique_name"]


def unique_name(name: str) -> str:
    """Return a name that no node of the scene has: the name itself, or with a number behind it."""
    scene = slicer.mrmlScene
    if scene.GetFirstNodeByName(name) is None:
        return name
    return scene.GenerateUniqueName(name)


def output_name(reference: Any, what: str) -> str:
    """Return the unique name of a result: ``<name of the input> - <what>``."""
    return unique_name(f"{reference.GetName()} - {what}")


def new_folder(name: str, reference: Any = None) -> int:
    """Make a folder in the subject hierarchy beside ``reference`` and return its item ID; 0 where there is none."""
    hierarchy, _item, parent = _place_of(reference)
    return 0 if hierarchy is None else hierarchy.CreateFolderItem(parent, hierarchy.GenerateUniqueItemName(name))


def place_beside(node: Any, reference: Any, folder: int | None = None) -> None:
    """Put a result where its input is: the same branch of the subject hierarchy, the same parent transform.

    Parameters
    ----------
    node : the result.
    reference : the input; None leaves the transform alone.
    folder : item ID of a folder to put it in instead, see :func:`new_folder`.

    """
    if reference is not None and hasattr(node, "SetAndObserveTransformNodeID"):
        node.SetAndObserveTransformNodeID(reference.GetTransformNodeID())
    hierarchy, _item, parent = _place_of(reference)
    if hierarchy is None:
        return
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, folder or parent)


def _place_of(node: Any) -> tuple[Any, int, int]:
    """Return the hierarchy (or None), the item of a node (or 0) and that item's parent (or the scene item)."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return None, 0, 0
    item = hierarchy.GetItemByDataNode(node) if node is not None else 0
    return hierarchy, item, hierarchy.GetItemParent(item) if item else hierarchy.GetSceneItemID()
