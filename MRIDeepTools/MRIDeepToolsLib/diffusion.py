"""Diffusion-weighted volumes: gradients in world space, into files for the core and back, from and to files of people.

Slicer keeps a gradient as stored vector and measurement frame; world direction (RAS) = frame x vector. Nodes made here
hold world directions and an identity frame, so that they are right for any position of the scan, also in SlicerDMRI.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk

from .diffusion_files import (
    is_diffusion_nrrd,
    is_nifti,
    read_fsl,
    read_nifti_series,
    read_world_table,
    write_fsl,
    write_nifti,
    write_nrrd,
)
from .errors import NodeError, ResultError
from .grids import ORTHOGONAL, Grid, check_exportable, node_geometry, require_same_grid
from .i18n import _
from .volumes import new_node

__all__ = [
    "SMALLEST_SAVED",
    "check_dwi",
    "companions",
    "export_dwi",
    "export_fsl",
    "export_mask",
    "export_stand_in",
    "fill_dwi",
    "gradients_of",
    "import_dwi",
    "import_dwi_files",
]

DWI_CLASS = "vtkMRMLDiffusionWeightedVolumeNode"
SMALLEST_SAVED = 7
"""Fewer volumes Slicer writes as a scalar, vector, colour or tensor volume, without gradients."""


def gradients_of(node: Any) -> tuple[Any, Any]:
    """Return b-values (n,), s/mm^2, and world directions (n, 3), RAS, unit length or zeros, of a DWI node."""
    import numpy as np
    from vtk.util.numpy_support import vtk_to_numpy

    count = node.GetNumberOfGradients()
    frame = vtk.vtkMatrix4x4()
    node.GetMeasurementFrameMatrix(frame)
    turn = np.array([[frame.GetElement(row, column) for column in range(3)] for row in range(3)])
    world = vtk_to_numpy(node.GetDiffusionGradients()).reshape(-1, 3)[:count] @ turn.T
    length = np.linalg.norm(world, axis=1, keepdims=True)
    bvals = vtk_to_numpy(node.GetBValues())[:count].astype(float)
    return bvals, world / np.where(length > 1e-6, length, 1.0)


def check_dwi(node: Any) -> Grid:
    """Return the grid of a DWI node that can be exported.

    Raises
    ------
    NodeError : no such node, no image, or not one gradient per volume.
    GeometryError : see :func:`.grids.check_exportable`.

    """
    if node is None:
        raise NodeError(_("Choose a diffusion scan."))
    if not node.IsA(DWI_CLASS):
        raise NodeError(_("The input must be a diffusion-weighted volume."))
    image = node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise NodeError(_("The chosen volume is empty."))
    if image.GetNumberOfScalarComponents() != node.GetNumberOfGradients():
        text = _("The chosen scan has {volumes} volumes and {gradients} gradients; they do not belong together.")
        numbers = {"volumes": image.GetNumberOfScalarComponents(), "gradients": node.GetNumberOfGradients()}
        raise NodeError(text.format(**numbers))
    grid = node_geometry(node)
    check_exportable(node, grid)
    return grid


# ------------------------------------------------------------------------------------------------------ for the core


def export_dwi(node: Any, path: str | Path) -> Grid:
    """Write a DWI node as an uncompressed NRRD with its gradients, in the node's own space; returns the grid.

    Matrix and directions are written with all digits. The parent transform is not applied: results are put under the
    same transform.

    Raises
    ------
    NodeError, GeometryError : the volume cannot be used; see :func:`check_dwi`.
    ResultError : the file could not be written.

    """
    grid = check_dwi(node)
    _write(Path(path), slicer.util.arrayFromVolume(node), grid, *gradients_of(node))
    return grid


def export_stand_in(node: Any, path: str | Path) -> None:
    """Write a tiny scan with the gradients and the axes of a DWI node: enough to ask which of them would be used.

    Raises
    ------
    As :func:`export_dwi`.

    """
    import numpy as np

    grid = check_dwi(node)
    values = np.ones((2, 2, 2, node.GetNumberOfGradients()), dtype=np.uint8)
    _write(Path(path), values, Grid(grid.affine, (2, 2, 2)), *gradients_of(node))


def export_mask(mask: Any, reference: Any, path: str | Path) -> int:
    """Write a label map or a segmentation as a mask on the grid of a DWI node; returns the number of voxels inside.

    What is not 0 is inside; of a segmentation, all segments together. Voxels are compared in world space, so the mask
    may lie on another grid and under another transform.

    Raises
    ------
    NodeError : the mask has nothing inside the scan, or cannot be used.

    """
    import numpy as np

    grid = check_dwi(reference)
    if mask.IsA("vtkMRMLSegmentationNode"):
        identities = vtk.vtkStringArray()
        mask.GetSegmentation().GetSegmentIDs(identities)
        names = [identities.GetValue(index) for index in range(identities.GetNumberOfValues())]
        parts = [slicer.util.arrayFromSegmentBinaryLabelmap(mask, name, reference) for name in names]
        inside = np.zeros(tuple(reversed(grid.shape)), dtype=bool)
        for part in parts:
            inside |= part > 0 if part is not None else False
    else:
        inside = _sampled(mask, reference, grid)
    if not inside.any():
        raise NodeError(_("The chosen mask has nothing inside the scan."))
    _write(Path(path), inside.astype(np.uint8), grid)
    return int(inside.sum())


def _sampled(labels: Any, reference: Any, grid: Grid) -> Any:
    """Return where (k, j, i) the nearest voxel of a label map is not 0; slice by slice, for the sake of memory."""
    import numpy as np

    source = slicer.util.arrayFromVolume(labels)
    to_labels = np.linalg.inv(_to_world(labels)) @ _to_world(reference)
    inside = np.zeros(tuple(reversed(grid.shape)), dtype=bool)
    j, i = np.indices(inside.shape[1:])
    for k in range(inside.shape[0]):
        points = np.stack([i.ravel(), j.ravel(), np.full(i.size, k), np.ones(i.size)])
        index = np.floor(to_labels[:3] @ points + 0.5).astype(int)[::-1]
        known = ((index >= 0) & (index < np.array(source.shape)[:, None])).all(axis=0)
        index = np.where(known, index, 0)
        inside[k] = (known & (source[tuple(index)] != 0)).reshape(i.shape)
    return inside


def _to_world(volume: Any) -> Any:
    """Return the matrix (4, 4) from voxel index to world, the parent transform included."""
    matrix, above = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    transform = volume.GetParentTransformNode()
    if transform is not None:
        if not transform.IsTransformToWorldLinear():
            raise NodeError(_("The mask is under a non-linear transform. Harden the transform first."))
        transform.GetMatrixTransformToWorld(above)
    return slicer.util.arrayFromVTKMatrix(above) @ slicer.util.arrayFromVTKMatrix(matrix)


def _write(path: Path, values: Any, grid: Grid, bvals: Any = None, world: Any = None) -> None:
    try:
        write_nrrd(path, values, grid, bvals, world)
    except OSError as error:
        text = _("The volume could not be written to the temporary folder; is the disk full?")
        raise ResultError(text) from error
    except KeyError as error:
        raise NodeError(_("The values of the volume are of a type that files cannot hold.")) from error


def import_dwi(
    path: str | Path,
    table: str | Path,
    reference: Any,
    name: str,
    node: Any = None,
    *,
    keep: list[int] | None = None,
) -> Any:
    """Read a result of the core as a DWI node on the grid of its input.

    Parameters
    ----------
    path, table : NIfTI file with several volumes, and its gradients in world space (rows ``x y z b``).
    reference : the input; its grid is required, its matrix and its parent transform are taken over.
    name : of a new node; made unique.
    node : a DWI node to fill instead of a new one; on an error it keeps what it held.
    keep : numbers of the volumes to take; None for all.

    Raises
    ------
    ResultError : a file is missing or damaged. GeometryMismatchError : another grid.

    """
    values, grid = read_nifti_series(path)
    require_same_grid(grid, node_geometry(reference), name)
    bvals, world = read_world_table(table, values.shape[3])
    if keep is not None and len(keep) < len(bvals):
        values, bvals, world = values[..., keep].copy(), bvals[keep], world[keep]
    with new_node(DWI_CLASS, name, node) as volume:
        matrix = vtk.vtkMatrix4x4()
        reference.GetIJKToRASMatrix(matrix)
        fill_dwi(volume, values, matrix, bvals, world)
        volume.SetAndObserveTransformNodeID(reference.GetTransformNodeID())
    return volume


def fill_dwi(node: Any, values: Any, matrix: Any, bvals: Any, world: Any) -> None:
    """Give a DWI node values (k, j, i, n), its matrix (vtkMatrix4x4), b-values (n,) and world directions (n, 3)."""
    with slicer.util.NodeModify(node):
        node.SetNumberOfGradients(len(bvals))
        node.SetMeasurementFrameMatrix(vtk.vtkMatrix4x4())
        for index, (b, direction) in enumerate(zip(bvals, world)):  # noqa: B905 - Python 3.9
            node.SetBValue(index, float(b))
            node.SetDiffusionGradient(index, [float(value) for value in direction])
        slicer.util.updateVolumeFromArray(node, values)
        node.SetIJKToRASMatrix(matrix)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()


# --------------------------------------------------------------------------------------------------- files of people


def companions(image: str | Path) -> tuple[Path, Path]:
    """Return where FSL's b-values and directions of a NIfTI file stand beside it; they need not be there."""
    path = Path(image)
    stem = path.name[: -7 if path.name.lower().endswith(".nii.gz") else -4]
    return path.with_name(f"{stem}.bval"), path.with_name(f"{stem}.bvec")


def import_dwi_files(image: str | Path, bvals: str | Path = "", bvecs: str | Path = "", name: str = "") -> Any:
    """Read a diffusion scan of a person as a new DWI node: NIfTI with FSL's files, or a diffusion-weighted NRRD.

    Parameters
    ----------
    image : .nii, .nii.gz, .nrrd or .nhdr.
    bvals, bvecs : FSL's files; without them, those beside the image.
    name : of the node; without it, the name of the file.

    Raises
    ------
    NodeError, ResultError : a file is missing, damaged, or they do not belong together.

    """
    path = Path(image)
    if not path.is_file():
        raise NodeError(_("Choose an image file."))
    if not is_nifti(path):
        return _import_nrrd(path, name)
    beside = companions(path)
    tables = [Path(given) if str(given) not in ("", ".") else found for given, found in zip((bvals, bvecs), beside)]  # noqa: B905
    for table in tables:
        if not table.is_file():
            raise NodeError(_("{name} is missing; choose the file with the gradients.").format(name=table.name))
    values, grid = read_nifti_series(path)
    if values.shape[3] < 2:
        raise NodeError(_("{name} holds a single volume, not a diffusion scan.").format(name=path.name))
    if grid.oblique_cosine > ORTHOGONAL:
        raise NodeError(
            _("The axes of {name} are not at right angles, which Slicer cannot hold.").format(name=path.name)
        )
    b, world = read_fsl(*tables, grid, values.shape[3])
    with new_node(DWI_CLASS, name or companions(path)[0].stem) as node:
        fill_dwi(node, values, slicer.util.vtkMatrixFromArray(_rows(grid.affine)), b, world)
    return node


def _import_nrrd(path: Path, name: str) -> Any:
    if path.suffix.lower() not in (".nrrd", ".nhdr"):
        text = _("{name} is neither NIfTI nor NRRD; convert DICOM with dcm2niix or the module DICOM first.")
        raise NodeError(text.format(name=path.name))
    text = _("{name} holds no diffusion scan with its gradients.")
    if not is_diffusion_nrrd(path):
        raise NodeError(text.format(name=path.name))
    with new_node(DWI_CLASS, name or path.stem) as node:
        storage = slicer.vtkMRMLNRRDStorageNode()
        storage.SetFileName(str(path))
        if not storage.ReadData(node) or node.GetImageData() is None:
            raise NodeError(text.format(name=path.name))
        check_dwi(node)
        node.CreateDefaultDisplayNodes()
    return node


def export_fsl(node: Any, path: str | Path) -> list[Path]:
    """Write a DWI node as NIfTI with FSL's files beside it; returns the three paths.

    Raises
    ------
    NodeError, GeometryError : the volume cannot be used. ResultError : a file cannot be written.

    """
    path = Path(path)
    if not is_nifti(path):
        raise NodeError(_("The name of the file must end in .nii or .nii.gz."))
    grid = check_dwi(node)
    bvals, world = gradients_of(node)
    paths = [path, *companions(path)]
    try:
        write_nifti(path, slicer.util.arrayFromVolume(node), grid)
        write_fsl(paths[1], paths[2], bvals, world, grid)
    except OSError as error:
        raise ResultError(
            _("{name} cannot be written: {reason}").format(name=path.name, reason=error.strerror)
        ) from error
    return paths


def _rows(affine: Any) -> Any:
    import numpy as np

    return np.array(affine, dtype=float)
