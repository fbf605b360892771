"""Slice views side by side that move together, in a layout and a view group of their own.

The person's own views keep what they show.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import slicer

__all__ = ["LinkedViews", "match_window"]

_COLOURS = ("#7f8fa6", "#2a9d4a", "#d6a441")


@dataclass(frozen=True)
class LinkedViews:
    """A row of linked slice views.

    ``layout`` is the number of the layout (Slicer's own are below 1000), ``group`` that of the view group; ``names``
    are those of the views, which no other module uses; ``colours`` those of their bars.
    """

    layout: int
    group: int
    names: tuple[str, ...]
    colours: tuple[str, ...] = _COLOURS

    def show(self, volumes: Sequence[Any], labels: Sequence[str], orientation: str = "Axial") -> bool:
        """Show a volume in each view (None for an empty view), all at the same place; False without a main window.

        Parameters
        ----------
        volumes, labels : one for each view.
        orientation : Axial, Coronal or Sagittal.

        """
        manager = slicer.app.layoutManager()
        if manager is None:
            return False
        layout, description = manager.layoutLogic().GetLayoutNode(), self._description(labels, orientation)
        if layout.IsLayoutDescription(self.layout):
            layout.SetLayoutDescription(self.layout, description)
        else:
            layout.AddLayoutDescription(self.layout, description)
        layout.SetViewArrangement(self.layout)
        for name, volume in zip(self.names, volumes):  # noqa: B905 - Python 3.9
            widget = manager.sliceWidget(name)
            if widget is None:  # the main window is going away
                return False
            widget.mrmlSliceNode().SetOrientation(orientation)
            composite = widget.mrmlSliceCompositeNode()
            composite.SetLinkedControl(True)
            composite.SetHotLinkedControl(True)
            composite.SetBackgroundVolumeID(volume.GetID() if volume is not None else None)
            composite.SetForegroundVolumeID(None)
            composite.SetLabelVolumeID(None)
            widget.fitSliceToBackground()
        self._same_place(manager)
        return True

    def overlay(self, number: int, volume: Any, opacity: float = 1.0) -> bool:
        """Lay a volume over that of a view, or take it away (None); False while the views are not there."""
        manager = slicer.app.layoutManager()
        widget = manager.sliceWidget(self.names[number]) if manager is not None else None
        if widget is None:
            return False
        composite = widget.mrmlSliceCompositeNode()
        composite.SetForegroundVolumeID(volume.GetID() if volume is not None else None)
        composite.SetForegroundOpacity(opacity)
        return True

    def _description(self, labels: Sequence[str], orientation: str) -> str:
        items = "".join(
            f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">'
            f'<property name="orientation" action="default">{orientation}</property>'
            f'<property name="viewlabel" action="default">{html.escape(label)}</property>'
            f'<property name="viewcolor" action="default">{colour}</property>'
            f'<property name="viewgroup" action="default">{self.group}</property>'
            "</view></item>"
            for name, label, colour in zip(self.names, labels, self.colours)  # noqa: B905 - Python 3.9
        )
        return f'<layout type="horizontal" split="true">{items}</layout>'

    def _same_place(self, manager: Any) -> None:
        """Bring all views to place and magnification of the last one."""
        views = [manager.sliceWidget(name).mrmlSliceNode() for name in self.names]
        for view in views[:-1]:
            view.GetSliceToRAS().DeepCopy(views[-1].GetSliceToRAS())
            view.SetFieldOfView(*views[-1].GetFieldOfView())
            view.UpdateMatrices()


def match_window(reference: Any, volume: Any, factor: float = 1.0) -> None:
    """Give a volume the window of another one times a factor, so that equal tissue looks equally bright."""
    display = reference.GetDisplayNode() if reference is not None else None
    if display is None or volume is None or volume.GetDisplayNode() is None:
        return
    low, high = factor * display.GetWindowLevelMin(), factor * display.GetWindowLevelMax()
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevelMinMax(low, high)
