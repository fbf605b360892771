"""What is known of a scan beside its voxels: the slice thickness that DICOM or a sidecar file states, in mm.

The thickness goes to the core as a sidecar beside the exported scan, so that one program detects the slices, whoever
asks.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import slicer
from MRIDeepToolsLib import nodes

__all__ = ["export_scan", "stated_thickness"]

_TAG = "0018,0050"


def stated_thickness(volume: Any) -> float | None:
    """Return the slice thickness in mm that the scan's DICOM files, or a JSON file beside its image, state."""
    return _from_dicom(volume) or _from_sidecar(volume)


def export_scan(volume: Any, path: Path) -> None:
    """Write a volume and, where its slice thickness is stated somewhere, a sidecar with it beside the file.

    Raises
    ------
    GlueError : as for :func:`MRIDeepToolsLib.nodes.export_volume`.

    """
    nodes.export_volume(volume, path)
    thickness = stated_thickness(volume)
    if thickness is not None:
        path.with_suffix(".json").write_text(json.dumps({"SliceThickness": thickness}), encoding="utf-8")


def _from_dicom(volume: Any) -> float | None:
    """Ask Slicer's DICOM database about the first file that the volume was loaded from."""
    database = getattr(slicer, "dicomDatabase", None)
    files = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    if database is None or not files:
        return None
    return _positive(database.instanceValue(files[0], _TAG))


def _from_sidecar(volume: Any) -> float | None:
    storage = volume.GetStorageNode()
    name = storage.GetFileName() if storage is not None else None
    if not name:
        return None
    path = Path(name)
    try:
        content = json.loads(path.with_name(f"{path.name.partition('.nii')[0]}.json").read_text(encoding="utf-8"))
        return _positive(content["SliceThickness"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None
