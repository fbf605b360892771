"""Colours of maps of differences: red where something is brighter, blue where it is darker, clear where it is equal."""

from __future__ import annotations

from typing import Any

import slicer

from .i18n import _

__all__ = ["use_map_colours"]

_CLEAR = 0.1  # share of the full colour below which a map is clear
_MARK = "MRIDeepTools.DifferenceColours"
_BLUES = ((0.62, 0.78, 0.93), (0.13, 0.44, 0.85), (0.03, 0.10, 0.62))
_REDS = ((0.99, 0.75, 0.60), (0.93, 0.25, 0.17), (0.55, 0.00, 0.05))
_STEPS = 255  # odd, so that one colour is that of no difference


def use_map_colours(volume: Any, limit: float) -> None:
    """Colour a map of differences.

    Parameters
    ----------
    volume : scalar volume node with a display node.
    limit : difference, either way, that has the full colour.

    """
    display = volume.GetDisplayNode()
    display.SetAndObserveColorNodeID(_colour_table().GetID())
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(-limit, limit)


def _colour_table() -> Any:
    """Return the table of the scene, made where there is none yet."""
    tables = slicer.util.getNodesByClass("vtkMRMLColorTableNode")
    found = next((table for table in tables if table.GetAttribute(_MARK) == "1"), None)
    if found is not None:
        return found
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", _("Difference (blue to red)"))
    table.SetTypeToUser()
    table.SetAttribute(_MARK, "1")
    table.SetNumberOfColors(_STEPS)
    for step in range(_STEPS):
        share = 2 * step / (_STEPS - 1) - 1
        opaque = float(abs(share) >= _CLEAR)  # slice views know clear and opaque alone
        table.SetColor(step, f"{100 * share:+.0f} %", *_shade(share), opaque)
    return table


def _shade(share: float) -> tuple[float, ...]:
    """Return the colour of a share of the full one (-1 to 1), between the three given ones."""
    shades, place = _REDS if share > 0 else _BLUES, abs(share) * 2
    low = min(int(place), 1)
    return tuple(a + (b - a) * (place - low) for a, b in zip(shades[low], shades[low + 1], strict=True))
