"""Looks at a scan before it is labelled: what makes a run impossible, and what the networks do not know."""

from __future__ import annotations

from typing import Any

from MRIDeepToolsLib.input_checks import why_not
from slicer.i18n import tr as _

__all__ = ["scan_notes", "why_not"]

LARGEST_SPACING_MM = 10.0
"""The networks were trained with slices up to this far apart."""
SMALLEST_EXTENT_MM = 100.0
"""A scan that is shorter along an axis does not hold a whole adult brain."""
LARGEST_EXTENT_MM = 400.0
_AIR_HU = -500.0  # no MR image has values as low as those of air in CT


def scan_notes(volume: Any, *, ct: bool = False) -> list[str]:
    """Return what a person should know before a volume that :func:`.input_checks.why_not` accepts is labelled.

    Parameters
    ----------
    volume : scalar volume node; spacing in mm.
    ct : the scan is taken for CT.

    """
    notes = []
    spacing = volume.GetSpacing()
    extents = [size * step for size, step in zip(volume.GetImageData().GetDimensions(), spacing)]  # noqa: B905
    if max(spacing) > LARGEST_SPACING_MM:
        text = _("The slices are {spacing:.0f} mm apart. The networks know up to {limit:.0f} mm; expect poor labels.")
        notes.append(text.format(spacing=max(spacing), limit=LARGEST_SPACING_MM))
    if min(extents) < SMALLEST_EXTENT_MM:
        text = _("The scan covers only {extent:.0f} mm along one axis. The networks know whole brains.")
        notes.append(text.format(extent=min(extents)))
    if max(extents) > LARGEST_EXTENT_MM:
        text = _("The scan is {extent:.0f} mm long. Crop it to the head: faster, and safer for the labels.")
        notes.append(text.format(extent=max(extents)))
    low, _high = volume.GetImageData().GetScalarRange()
    if low <= _AIR_HU and not ct:
        notes.append(_("The values look like CT. If so, check CT under Advanced."))
    if low >= 0 and ct:
        notes.append(_("CT is checked, but the values do not look like Hounsfield units."))
    return notes
