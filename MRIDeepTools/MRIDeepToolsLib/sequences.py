"""Sequences: time points as files for the core and back as a sequence of segmentations; soft maps as a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer

from .errors import NodeError, ResultError
from .grids import check_complete, node_geometry, require_same_grid
from .i18n import _
from .labels import display_name, read_label_table
from .segmentations import import_segmentation
from .volumes import ExportedVolume, export_volume, keep_voxel_order, new_node

__all__ = ["Frame", "export_sequence", "import_posteriors", "import_segmentation_sequence", "sequence_of"]


@dataclass(frozen=True)
class Frame:
    """One time point: its index value, its name in the files, and what was written."""

    index: str
    stem: str
    exported: ExportedVolume


def sequence_of(node: Any) -> tuple[Any, Any]:
    """Return (sequence node, browser node or None) for a sequence, a browser, or a volume that a browser shows.

    (None, None) for a node that belongs to no sequence of volumes.
    """
    if node is None:
        return None, None
    if node.IsA("vtkMRMLSequenceNode"):
        return node, None
    browsers = [node] if node.IsA("vtkMRMLSequenceBrowserNode") else []
    browsers = browsers or slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")
    for browser in browsers:
        sequence = browser.GetMasterSequenceNode() if browser is node else browser.GetSequenceNode(node)
        if sequence is not None:
            return sequence, browser
    return None, None


def export_sequence(node: Any, folder: str | Path) -> list[Frame]:
    """Write each time point of a sequence of scalar volumes as a NIfTI file ``frame_0000.nii`` ... into a folder.

    Parameters
    ----------
    node : a sequence node, a browser node, or the volume that a browser shows.
    folder : exists.

    Raises
    ------
    NodeError, GeometryError, ResultError : as for :func:`.volumes.export_volume`; the message names the time point.

    """
    sequence, _browser = sequence_of(node)
    if sequence is None or sequence.GetNumberOfDataNodes() == 0:
        raise NodeError(_("The input is no sequence of volumes, or it is empty."))
    frames = []
    for number in range(sequence.GetNumberOfDataNodes()):
        stem = f"frame_{number:04d}"
        try:
            exported = export_volume(sequence.GetNthDataNode(number), Path(folder) / f"{stem}.nii")
        except (NodeError, ResultError) as error:
            text = _("Time point {number}: {reason}").format(number=number + 1, reason=error)
            raise type(error)(text) from error
        frames.append(Frame(sequence.GetNthIndexValue(number), stem, exported))
    return frames


def import_segmentation_sequence(
    frames: Sequence[Frame], folder: str | Path, reference: Any, name: str, *, pattern: str = "{stem}_dseg.nii"
) -> tuple[Any, Any]:
    """Read the label maps of all time points as a sequence of segmentations that moves with the input.

    Parameters
    ----------
    frames : what :func:`export_sequence` returned.
    folder : where the label maps are; each has its table beside it.
    reference : the input: a sequence, its browser, or the volume shown.
    name : of the new nodes; made unique.
    pattern : name of a label map file.

    Returns
    -------
    (sequence node, segmentation node that shows the current time point, or None where the input has no browser).

    Raises
    ------
    ResultError, GeometryMismatchError : as for :func:`.segmentations.import_segmentation`; nothing stays behind.

    """
    source, browser = sequence_of(reference)
    with new_node("vtkMRMLSequenceNode", name) as sequence:
        sequence.SetIndexName(source.GetIndexName())
        sequence.SetIndexUnit(source.GetIndexUnit())
        sequence.SetIndexType(source.GetIndexType())
        for number, frame in enumerate(frames):
            labels = Path(folder) / pattern.format(stem=frame.stem)
            table = labels.with_name(labels.name.partition(".")[0] + ".tsv")
            volume = source.GetNthDataNode(number)
            made = import_segmentation(labels, table, volume, name)
            try:
                sequence.SetDataNodeAtValue(made, frame.index)
            finally:
                slicer.mrmlScene.RemoveNode(made)
        if browser is None:
            return sequence, None
        browser.AddSynchronizedSequenceNode(sequence)
    return sequence, browser.GetProxyNode(sequence)


def import_posteriors(
    path: str | Path,
    reference: Any,
    name: str,
    node: Any = None,
    *,
    names: Sequence[str] | None = None,
    table_path: str | Path | None = None,
) -> Any:
    """Read the soft maps (a 4-D image, one map per structure) as a sequence of volumes, indexed by structure.

    Parameters
    ----------
    path : the 4-D NIfTI file.
    reference : the input volume, whose grid the maps must have; None to accept any.
    name, node : of a new sequence node, or one to fill.
    names, table_path : names of the maps, or the label table to take them from when it lists as many.

    Raises
    ------
    ResultError : the file cannot be read. GeometryMismatchError : it is not on the grid of the reference.

    """
    path = Path(path)
    if not path.is_file():
        raise ResultError(_("The result {name} is missing.").format(name=path.name))
    check_complete(path)
    read = slicer.vtkMRMLSequenceNode()
    storage = slicer.vtkMRMLVolumeSequenceStorageNode()
    storage.SetFileName(str(path))
    keep_voxel_order(storage)
    slicer.mrmlScene.AddNode(storage)  # it reads only inside a scene
    try:
        if not storage.ReadData(read) or read.GetNumberOfDataNodes() == 0:
            raise ResultError(_("The result {name} cannot be read.").format(name=path.name))
    finally:
        slicer.mrmlScene.RemoveNode(storage)
    maps = [read.GetNthDataNode(number) for number in range(read.GetNumberOfDataNodes())]
    if reference is not None:
        require_same_grid(node_geometry(maps[0]), node_geometry(reference), name)
    titles = _titles(len(maps), names, table_path)
    with new_node("vtkMRMLSequenceNode", name, node) as sequence:
        sequence.RemoveAllDataNodes()
        sequence.SetIndexName(_("structure"))
        sequence.SetIndexType(sequence.TextIndex)
        for title, volume in zip(titles, maps, strict=True):
            volume.SetName(title)
            sequence.SetDataNodeAtValue(volume, title)
    return sequence


def _titles(count: int, names: Sequence[str] | None, table_path: str | Path | None) -> list[str]:
    """Return one title per map: given ones, those of the label table (after the background), or numbers."""
    if names is None and table_path is not None:
        names = [item.name for item in read_label_table(table_path).values()]
    names = [display_name(name) for name in names or ()]
    if len(names) == count - 1:
        names = [_("Background"), *names]
    return names if len(names) == count else [str(number) for number in range(count)]
