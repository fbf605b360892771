"""Looks at the inputs before a run: what makes it impossible, which volume a person most likely means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import slicer
from MRIDeepToolsLib.input_checks import why_not
from slicer.i18n import tr as _

from .masks import why_not_mask
from .spaces import why_not_transform

__all__ = ["is_synthetic", "likely_scan", "scan_notes", "why_not_harmonize"]

LARGEST_SPACING = 5.0  # mm; beyond, the core warns
CT_LOWEST = -500.0  # below, the core refuses the scan as CT


def why_not_harmonize(
    scan: Any,
    *,
    brain: Any = None,
    needs_mask: bool = False,
    placement: Any = None,
    needs_transform: bool = False,
    registered: bool = False,
    template: str = "",
    unchecked: bool = False,
    targets: Mapping[str, Any] | None = None,
) -> str:
    """Return why these inputs cannot be used, in a sentence; empty when they can.

    Parameters
    ----------
    scan : T1w volume.
    brain, placement : mask node and transform node, or None; ``needs_mask`` and ``needs_transform`` where None will not
        do. ``registered``: the scan lies in MNI space as it is.
    unchecked : take a scan that was harmonized before.
    template : file, or "".
    targets : name -> node that is to be filled.

    """
    reason = why_not(scan, _("Choose a T1w scan."))
    if reason:
        return reason
    if scan.GetImageData().GetScalarRange()[0] <= CT_LOWEST:
        return _("The chosen volume looks like CT. Choose a T1w MR scan.")
    if not unchecked and scan.GetAttribute("MRIDeepTools.Command") == "harmonize" and is_synthetic(scan):
        return _("This volume was harmonized already. Choose the original scan, or 'Go on where a check fails'.")
    if needs_mask or brain is not None:
        reason = why_not_mask(brain)
    if not reason and needs_transform and placement is None:
        reason = _("Choose the transform that takes the scan to MNI space.")
    if not reason and (registered or placement is not None):
        reason = why_not_transform(scan, placement)
    if not reason and template and not Path(template).is_file():
        reason = _("The template file is not there. Choose another one under Advanced, or none.")
    taken = {scan: _("the scan"), brain: _("the brain mask"), placement: _("the transform")}
    for node in (targets or {}).values():
        if not reason and node is not None and node in taken:
            reason = _("The result would overwrite {what}. Choose another output.").format(what=taken[node])
    return reason


def scan_notes(scan: Any) -> list[str]:
    """Return what a person should know of a usable scan before the run, in sentences."""
    notes = []
    name = scan.GetName().upper()
    if any(word in name for word in ("T2", "FLAIR", "PD", "DWI")) and "T1" not in name:
        notes.append(_("The name does not sound like a T1w scan; the model knows T1w scans alone."))
    if max(scan.GetSpacing()) > LARGEST_SPACING:
        text = _("Voxels of {size:.1f} mm: the model was made for about 1 mm.")
        notes.append(text.format(size=max(scan.GetSpacing())))
    if is_synthetic(scan):
        notes.append(_("This volume was made by MRI Deep Tools already. Choose the original scan."))
    return notes


def likely_scan() -> Any:
    """Return the volume that the person most likely means: a T1w by its name, the one shown, the first; or None."""
    selection = slicer.app.applicationLogic().GetSelectionNode()
    shown = slicer.mrmlScene.GetNodeByID(selection.GetActiveVolumeID() or "") if selection is not None else None
    volumes = [
        volume
        for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if volume.GetClassName() == "vtkMRMLScalarVolumeNode" and not is_synthetic(volume)
    ]
    named = [volume for volume in volumes if "T1" in volume.GetName().upper()]
    if shown in volumes and (shown in named or not named):
        return shown
    return next(iter(named or volumes), None)


def is_synthetic(volume: Any) -> bool:
    """Return True when this extension made the values of a volume."""
    return bool(volume.GetAttribute("MRIDeepTools.Synthetic") == "1")
