"""What makes any run on a volume impossible, in a sentence for the person who chose it."""

from __future__ import annotations

from typing import Any

from .errors import GlueError
from .i18n import _
from .volumes import check_volume

__all__ = ["why_not"]


def why_not(volume: Any, missing: str = "") -> str:
    """Return why a volume cannot be used, in a sentence; empty when it can.

    Parameters
    ----------
    volume : volume node, or None.
    missing : what to say when there is none.

    """
    if volume is None:
        return missing or _("Choose a scan.")
    image = volume.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        return _("The chosen volume is empty.")
    if image.GetNumberOfScalarComponents() != 1:
        return _("The chosen volume has several values per voxel; choose one with a single value.")
    if min(image.GetDimensions()) < 2:
        return _("The chosen volume is a single slice; a scan with several slices is needed.")
    low, high = image.GetScalarRange()
    if not low < high:
        return _("All voxels of the chosen volume have the same value.")
    try:
        check_volume(volume)
    except GlueError as error:
        return str(error)
    return ""
