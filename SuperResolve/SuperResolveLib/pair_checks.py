"""Looks at the scans before a run: what makes it impossible, which volumes a person most likely means."""

from __future__ import annotations

from typing import Any

import slicer
from MRIDeepToolsLib.input_checks import why_not
from slicer.i18n import tr as _

__all__ = ["THICK", "likely_pair", "why_not_pair"]

THICK = 1.25
"""A volume whose largest voxel side is this many times the next one has thick slices, as the core says."""


def why_not_pair(scan: Any, guide: Any, template: Any = None, *, aligned: bool = False) -> str:
    """Return why these volumes cannot be used, in a sentence; empty when they can.

    Parameters
    ----------
    scan, guide, template : T2w volume; T1w volume and template, or None.
    aligned : the volumes are to be taken as they lie in the world.

    """
    reason = why_not(scan, _("Choose a T2w scan with thick slices."))
    if reason:
        return reason
    for name, volume in ((_("T1w"), guide), (_("template"), template)):
        if volume is None:
            continue
        reason = why_not(volume)
        if reason:
            return _("{name}: {reason}").format(name=name, reason=reason)
        if volume is scan:
            return _("The same volume is chosen twice. Choose another one as {name}.").format(name=name)
        if aligned and volume.GetTransformNodeID() != scan.GetTransformNodeID():
            return _(
                "The volumes are under different transforms. Harden those (module Transforms), or uncheck that the "
                "scans are aligned already."
            )
    return ""


def likely_pair() -> tuple[Any, Any]:
    """Return the volumes that are most likely the T2w scan and the T1w scan; None for what there is not.

    A name with T2 or T1 in it counts first, then the shape of the voxels. A volume that this program made is never one.
    """
    volumes = [
        volume
        for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if volume.GetClassName() == "vtkMRMLScalarVolumeNode"
        and volume.GetAttribute("MRIDeepTools.Synthetic") != "1"
        and volume.GetImageData() is not None
    ]
    named = [volume for volume in volumes if "T2" in volume.GetName().upper()]
    thick = [volume for volume in volumes if _is_thick(volume) and "T1" not in volume.GetName().upper()]
    scan = next((volume for volume in named if _is_thick(volume)), None) or next(iter(thick or named), None)
    guides = [volume for volume in volumes if "T1" in volume.GetName().upper() and volume is not scan]
    return scan, next(iter(guides), None)


def _is_thick(volume: Any) -> bool:
    first, second = sorted(volume.GetSpacing(), reverse=True)[:2]
    return bool(first >= THICK * second)
