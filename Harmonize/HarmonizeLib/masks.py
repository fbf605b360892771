"""A brain mask of the scene, written on the grid of the scan: a segmentation, or a label map on any grid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import slicer
import vtk
from MRIDeepToolsLib.errors import NodeError
from MRIDeepToolsLib.volumes import export_volume
from slicer.i18n import tr as _

__all__ = ["export_mask", "why_not_mask"]


def why_not_mask(mask: Any) -> str:
    """Return why a node cannot be the brain mask, in a sentence; empty when it can."""
    if mask is None:
        return _("Choose a brain mask: a segmentation or a label map.")
    if mask.IsA("vtkMRMLSegmentationNode"):
        segmentation = mask.GetSegmentation()
        if segmentation is None or segmentation.GetNumberOfSegments() == 0:
            return _("The chosen segmentation has no segments.")
    elif not mask.IsA("vtkMRMLLabelMapVolumeNode"):
        return _("The brain mask must be a segmentation or a label map.")
    elif mask.GetImageData() is None or not mask.GetImageData().GetScalarRange()[1] > 0:
        return _("The chosen label map is empty.")
    parent = mask.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        return _("The brain mask is under a non-linear transform. Harden it first (module Transforms).")
    return ""


def export_mask(mask: Any, scan: Any, path: Path) -> None:
    """Write all segments, or all labels above 0, as 1 on the grid of the scan, where they lie in the world.

    Raises
    ------
    NodeError : the mask cannot be used, or none of it is inside the scan.

    """
    reason = why_not_mask(mask)
    if reason:
        raise NodeError(reason)
    with _labels_on(scan, mask) as labels:
        import numpy as np

        inside = (slicer.util.arrayFromVolume(labels) > 0).astype(np.uint8)
    if not inside.any():
        raise NodeError(_("Nothing of the brain mask lies inside the scan."))
    written = slicer.vtkMRMLScalarVolumeNode()
    matrix = vtk.vtkMatrix4x4()
    scan.GetIJKToRASMatrix(matrix)
    written.SetIJKToRASMatrix(matrix)
    slicer.util.updateVolumeFromArray(written, inside)
    export_volume(written, path)


@contextmanager
def _labels_on(scan: Any, mask: Any) -> Iterator[Any]:
    """Give a label map of the mask on the grid of the scan; what is made for it is removed afterwards."""
    logic = slicer.modules.segmentations.logic()
    segmentation, labels, made = mask, None, []
    try:
        if not mask.IsA("vtkMRMLSegmentationNode"):
            segmentation = _scratch("vtkMRMLSegmentationNode", made)
            segmentation.SetAndObserveTransformNodeID(mask.GetTransformNodeID())  # or it would be hardened
            logic.ImportLabelmapToSegmentationNode(mask, segmentation)
        labels = _scratch("vtkMRMLLabelMapVolumeNode", made)
        identities = vtk.vtkStringArray()
        for number in range(segmentation.GetSegmentation().GetNumberOfSegments()):
            identities.InsertNextValue(segmentation.GetSegmentation().GetNthSegmentID(number))
        if not logic.ExportSegmentsToLabelmapNode(segmentation, identities, labels, scan):
            raise NodeError(_("The brain mask cannot be brought onto the grid of the scan."))
        yield labels
    finally:
        display = labels.GetDisplayNode() if labels is not None else None
        for node in (display.GetColorNode() if display is not None else None, *reversed(made)):
            if node is not None:
                slicer.mrmlScene.RemoveNode(node)


def _scratch(class_name: str, made: list[Any]) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass(class_name)
    node.SetHideFromEditors(True)
    made.append(node)
    return node
