"""Scalar volumes to NIfTI files and back, on exactly the same grid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
import vtk

from .errors import GlueError, NodeError, ResultError
from .grids import Grid, check_complete, check_exportable, file_geometry, node_geometry, require_same_grid
from .hierarchy import unique_name
from .i18n import _

__all__ = [
    "ExportedVolume",
    "check_volume",
    "export_volume",
    "import_volume",
    "keep_voxel_order",
    "new_node",
    "read_volume",
]


@dataclass(frozen=True)
class ExportedVolume:
    """What was written: the file, its grid, and what the person should know of the transform above the volume."""

    path: Path
    grid: Grid
    transformed: bool
    """The volume is under a transform; results are put under the same one."""
    scaled: bool
    """That transform changes sizes, so volumes in mm^3 are those before the transform."""


def check_volume(volume: Any) -> Grid:
    """Return the grid of a volume that can be exported.

    Raises
    ------
    NodeError : no volume, no image, several numbers per voxel. GeometryError : see :func:`.grids.check_exportable`.

    """
    if volume is None:
        raise NodeError(_("Select a volume."))
    if not volume.IsA("vtkMRMLVolumeNode"):
        raise NodeError(_("The input must be a scalar volume."))
    grid = node_geometry(volume)
    if volume.GetImageData().GetNumberOfScalarComponents() != 1:
        raise NodeError(
            _("The input has several values per voxel (colour, vector or diffusion); a scalar volume is needed.")
        )
    if not volume.IsA("vtkMRMLScalarVolumeNode") or volume.IsA("vtkMRMLTensorVolumeNode"):
        raise NodeError(_("The input must be a scalar volume."))
    check_exportable(volume, grid)
    return grid


def export_volume(node: Any, path: str | Path) -> ExportedVolume:
    """Write a scalar volume as an uncompressed NIfTI file in the node's own space.

    The parent transform is not applied: results are put under the same transform, so they coincide in the world. The
    node is not changed, nor is its storage node.

    Raises
    ------
    NodeError, GeometryError : the volume cannot be used; see :func:`check_volume`.
    ResultError : the file could not be written.

    """
    path = Path(path)
    grid = check_volume(node)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetUseCompression(0)
    if not storage.WriteData(node) or not path.is_file():
        raise ResultError(_("The volume could not be written to the temporary folder; is the disk full?"))
    check_complete(path)
    require_same_grid(file_geometry(path), grid, _("The file written for the program"))
    return ExportedVolume(path, grid, node.GetParentTransformNode() is not None, _changes_sizes(node))


def _changes_sizes(node: Any) -> bool:
    """Return True when the transform above a node is no rigid motion (to 0.1 %)."""
    transform = node.GetParentTransformNode()
    if transform is None:
        return False
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    rows = [[matrix.GetElement(row, column) for column in range(3)] for row in range(3)]
    products = [[sum(row[m] * row[n] for row in rows) for n in range(3)] for m in range(3)]
    return any(abs(products[m][n] - (m == n)) > 2e-3 for m in range(3) for n in range(3))


def read_volume(path: str | Path, node: Any) -> Grid:
    """Read an image file into a volume node and return its grid.

    Raises
    ------
    ResultError : the file is missing or cannot be read.

    """
    path = Path(path)
    if not path.is_file():
        raise ResultError(_("The result {name} is missing.").format(name=path.name))
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    if path.name.lower().endswith((".nii", ".nii.gz")):
        check_complete(path)
    storage.SetCenterImage(0)
    keep_voxel_order(storage)
    if not storage.ReadData(node) or node.GetImageData() is None:
        raise ResultError(_("The result {name} cannot be read.").format(name=path.name))
    return node_geometry(node)


def keep_voxel_order(storage: Any) -> None:
    """Make a storage node read voxels in the order of the file.

    Slicer 5.8 and later otherwise reverses the slices of a left-handed grid, which would then not be the input's.
    """
    if hasattr(storage, "SetForceRightHandedIJKCoordinateSystem"):
        storage.SetForceRightHandedIJKCoordinateSystem(False)


def import_volume(path: str | Path, reference: Any, name: str, node: Any = None, *, same_grid: bool = True) -> Any:
    """Read an image file as a scalar volume.

    Parameters
    ----------
    path : the file.
    reference : the volume whose grid the result must have, and whose parent transform it gets; None for none.
    name : of a new node; made unique.
    node : a scalar volume node to fill instead of a new one; on an error it keeps what it held.
    same_grid : False for a result on a grid of its own.

    Raises
    ------
    ResultError : the file cannot be read. GeometryMismatchError : it is not on the grid of the reference.

    """
    read = slicer.vtkMRMLScalarVolumeNode()
    grid = read_volume(path, read)
    if reference is not None and same_grid:
        require_same_grid(grid, node_geometry(reference), name)
    with new_node("vtkMRMLScalarVolumeNode", name, node) as volume:
        matrix = vtk.vtkMatrix4x4()
        read.GetIJKToRASMatrix(matrix)
        with slicer.util.NodeModify(volume):
            volume.SetAndObserveImageData(read.GetImageData())
            volume.SetIJKToRASMatrix(matrix)
        volume.CreateDefaultDisplayNodes()
        if reference is not None:
            volume.SetAndObserveTransformNodeID(reference.GetTransformNodeID())
    return volume


@contextmanager
def new_node(class_name: str, name: str, node: Any = None) -> Iterator[Any]:
    """Give ``node``, or a new node with a unique name that is removed again when the body fails."""
    if node is not None:
        if not node.IsA(class_name):
            raise NodeError(_("The chosen output node is of another kind than the result."))
        yield node
        return
    made = slicer.mrmlScene.AddNewNodeByClass(class_name, unique_name(name))
    if made is None:
        raise GlueError(_("A node of the class {name} cannot be made here.").format(name=class_name))
    try:
        yield made
    except BaseException:
        with suppress(Exception):
            slicer.mrmlScene.RemoveNode(made)
        raise
