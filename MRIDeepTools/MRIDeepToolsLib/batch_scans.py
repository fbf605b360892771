"""Which scans a batch of the home module works on: a folder, a BIDS data set, or volumes of the scene; its table."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer

from . import nodes
from .errors import GlueError
from .i18n import _

__all__ = ["TABLE", "images_in", "read_states", "studies", "volumes_of", "write_images", "write_table"]

TABLE = "scans.csv"
"""In the folder of the results: what the batch works on, so that it can be continued."""
SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz")
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


def images_in(folder: Path) -> list[Path]:
    """Return the images of a folder in the order of their names; GlueError where there are none."""
    try:
        found = sorted(path for path in folder.iterdir() if path.name.lower().endswith(SUFFIXES) and path.is_file())
    except OSError:
        raise GlueError(_("The folder of the scans cannot be read. Choose another one.")) from None
    if not found:
        raise GlueError(_("The folder holds no images (NIfTI, NRRD, MHA, MGZ). Choose another one."))
    return found


def studies() -> list[tuple[int, str, int]]:
    """Return item, name and number of scalar volumes of each part of the scene that holds some; the scene first."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return []
    import vtk

    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    found = [(hierarchy.GetSceneItemID(), _("Whole scene"))]
    for index in range(items.GetNumberOfIds()):
        item = items.GetId(index)
        if hierarchy.GetItemDataNode(item) is None:
            found.append((item, hierarchy.GetItemName(item)))
    counted = [(item, name, len(volumes_of(item))) for item, name in found]
    return [entry for entry in counted if entry[2]]


def volumes_of(item: int) -> list[Any]:
    """Return the scalar volumes of a part of the subject hierarchy that this extension did not make."""
    import vtk

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(item, items, True)
    found = [hierarchy.GetItemDataNode(items.GetId(index)) for index in range(items.GetNumberOfIds())]
    return [
        node
        for node in found
        if node is not None
        and node.GetClassName() == "vtkMRMLScalarVolumeNode"
        and not node.GetAttribute("MRIDeepTools.ResearchUseOnly")
    ]


def write_images(volumes: Sequence[Any], folder: Path) -> list[Path]:
    """Write volumes into a folder, named after them; returns the files in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    for number, volume in enumerate(volumes, 1):
        name = _NOT_IN_NAMES.sub("-", volume.GetName()).strip("-.") or "scan"
        path = folder / f"{number:03d}-{name}.nii"
        nodes.export_volume(volume, path)
        made.append(path)
    return made


def write_table(images: Sequence[Path], folder: Path) -> list[str]:
    """Write the table of a batch into the folder of its results; returns the names of the subjects."""
    names: list[str] = []
    for path in images:
        stem = next(path.name[: -len(end)] for end in SUFFIXES if path.name.lower().endswith(end))
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "input"])
        table.writerows((name, str(path.resolve())) for name, path in zip(names, images))  # noqa: B905 - Python 3.9
    return names


def read_states(folder: Path) -> list[dict[str, str]]:
    """Return id, state, seconds and message of each subject of a batch that ran here before; empty where none did."""
    for name in ("batch.csv", "batch.tsv"):
        try:
            with (folder / name).open(newline="", encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream, delimiter="," if name.endswith("csv") else "\t"))
        except (OSError, ValueError, csv.Error):
            continue
        return [{key: str(row.get(key) or "") for key in ("id", "state", "seconds", "message")} for row in rows]
    return []
