"""The comparison view: scan, interpolation and result side by side, linked, in a plane that cuts across the slices."""

from __future__ import annotations

from typing import Any

from MRIDeepToolsLib.linked_views import LinkedViews, match_window
from MRIDeepToolsLib.map_colours import use_map_colours
from slicer.i18n import tr as _

__all__ = ["VIEWS", "colour_honesty_map", "overlay_map", "show_comparison"]

VIEWS = LinkedViews(
    layout=58310,
    group=5831,
    names=("SuperResolveScan", "SuperResolveInterpolated", "SuperResolveResult"),
    colours=("#7f8fa6", "#d6a441", "#2a9d4a"),
)
_MAP_SHARE = 0.1  # of the intensity range, at which the map has its full colour


def show_comparison(scan: Any, interpolated: Any, result: Any, slice_direction: str = "axial") -> bool:
    """Show the three volumes (None for an empty view); False without a main window.

    Parameters
    ----------
    scan, interpolated, result : volume nodes.
    slice_direction : of the scan's slices; the views cut across them.

    """
    for volume in (interpolated, result):
        match_window(scan, volume)
    labels = (_("Scan"), _("Interpolated"), _("Result (synthetic)"))
    return VIEWS.show((scan, interpolated, result), labels, "Axial" if slice_direction == "sagittal" else "Sagittal")


def overlay_map(honesty: Any, shown: bool) -> bool:
    """Lay the honesty map over the result in the comparison view, or take it away; False without that view."""
    return VIEWS.overlay(2, honesty if shown else None)


def colour_honesty_map(honesty: Any, data_range: float) -> None:
    """Colour a map: red where the result is brighter than measured, blue where darker, full at a tenth of the range."""
    use_map_colours(honesty, _MAP_SHARE * data_range if data_range > 0 else 1.0)
