"""Transforms between the scan, the world of the scene, and the space of the template.

The core's transform leads from points of the template to points of the scan's file (RAS, mm). In the scene the scan may
lie under a parent transform, so a transform node here takes the scan *as Slicer shows it* to the template: put under
that node, the scan (with all above it) lies in MNI space.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk
from MRIDeepToolsLib.errors import NodeError, ResultError
from MRIDeepToolsLib.volumes import new_node
from slicer.i18n import tr as _

__all__ = ["import_transform", "scan_to_template", "why_not_transform", "write_transform"]

RIGID = 1e-3
"""Largest departure of a rotation matrix from orthogonality, as in the core."""
SAME_MM = 1e-3


def scan_to_template(scan: Any, transform: Any = None) -> Any:
    """Return the matrix from the scan's own space to that of the template (vtkMatrix4x4, RAS mm).

    Parameters
    ----------
    scan : volume node.
    transform : linear transform node that takes the scan, as Slicer shows it, to the template; None where the scan lies
        there already. One that the scan is under counts once.

    """
    matrix = to_world(scan)
    if transform is not None and not _is_under(scan, transform):
        vtk.vtkMatrix4x4.Multiply4x4(_node_to_world(transform), matrix, matrix)
    return matrix


def why_not_transform(scan: Any, transform: Any = None) -> str:
    """Return why the way from the scan to the template cannot be taken, in a sentence; empty when it can."""
    if transform is not None and not transform.IsTransformToWorldLinear():
        return _("The chosen transform is not linear.")
    if is_rigid(scan_to_template(scan, transform)):
        return ""
    return _("The way from the scan to the template must be rigid (turn and shift); this one changes sizes or mirrors.")


def is_rigid(matrix: Any) -> bool:
    """Return True for a rotation and a translation."""
    rows = [[matrix.GetElement(row, column) for column in range(3)] for row in range(3)]
    products = [[sum(row[m] * row[n] for row in rows) for n in range(3)] for m in range(3)]
    square = all(abs(products[m][n] - (m == n)) <= RIGID for m in range(3) for n in range(3))
    return square and matrix.Determinant() > 0


def write_transform(path: Path, matrix: Any) -> None:
    """Write the way from the scan to the template as an ITK file, which leads from the template to the scan.

    Raises
    ------
    ResultError : the file could not be written.

    """
    node = slicer.vtkMRMLLinearTransformNode()
    node.SetMatrixTransformToParent(matrix)
    storage = slicer.vtkMRMLTransformStorageNode()
    storage.SetFileName(str(path))
    if not storage.WriteData(node) or not path.is_file():
        raise ResultError(_("The transform could not be written to the temporary folder; is the disk full?"))


def import_transform(path: Path, scan: Any, name: str, node: Any = None, expected: Any = None) -> Any:
    """Read the core's transform as a node that takes the scan, as Slicer shows it, to the template.

    Parameters
    ----------
    path : ITK file, template to scan.
    scan : the volume.
    name : of a new node; made unique.
    node : linear transform node to fill instead of a new one.
    expected : the same matrix as the core's record states it (rows, RAS mm), to compare; None for none.

    Raises
    ------
    ResultError : the file cannot be read, or does not hold what the record states.
    NodeError : the scan is under the node to fill, which would move it.

    """
    read = slicer.vtkMRMLLinearTransformNode()
    storage = slicer.vtkMRMLTransformStorageNode()
    storage.SetFileName(str(path))
    if not path.is_file() or not storage.ReadData(read):
        raise ResultError(_("The result {name} cannot be read.").format(name=path.name))
    to_scan = vtk.vtkMatrix4x4()
    read.GetMatrixTransformFromParent(to_scan)
    if expected is not None and not _same(to_scan, expected):
        raise ResultError(_("The transform is not the one that the program reports, so it was not imported."))
    if node is not None and _is_under(scan, node):
        raise NodeError(_("The scan is under the chosen transform, which would move it. Choose another node."))
    matrix = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Multiply4x4(to_world(scan), to_scan, matrix)  # template to scan to world
    matrix.Invert()
    with new_node("vtkMRMLLinearTransformNode", name, node) as transform:
        transform.SetAndObserveTransformNodeID(None)
        transform.SetMatrixTransformToParent(matrix)
    return transform


def to_world(node: Any) -> Any:
    """Return the matrix of the transforms above a node: from its own space to the world (vtkMatrix4x4)."""
    parent = node.GetParentTransformNode()
    return vtk.vtkMatrix4x4() if parent is None else _node_to_world(parent)


def _node_to_world(transform: Any) -> Any:
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return matrix


def _is_under(node: Any, transform: Any) -> bool:
    parent = node.GetParentTransformNode()
    while parent is not None:
        if parent == transform:
            return True
        parent = parent.GetParentTransformNode()
    return False


def _same(matrix: Any, rows: Any) -> bool:
    try:
        pairs = [(matrix.GetElement(row, column), float(rows[row][column])) for row in range(3) for column in range(4)]
    except (TypeError, ValueError, IndexError):
        return False
    return all(abs(a - b) <= SAME_MM for a, b in pairs)
