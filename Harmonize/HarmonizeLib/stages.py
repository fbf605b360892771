"""The checklist of the stages in the panel: what each one is doing, has done, or has left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from MRIDeepToolsLib.widgets import coloured, sentence
from slicer.i18n import tr as _

__all__ = ["STAGES", "Checklist"]

STAGES = ("brain mask", "bias field", "registration", "harmonize")
"""Stages of the core that have a row, in their order."""
_LEFT_OUT = ("skipped",)


class Checklist:
    """Shows the state of each stage beside the control that chooses how it is done.

    Parameters
    ----------
    labels : for the state of each of :data:`STAGES`.

    """

    def __init__(self, labels: Sequence[Any]) -> None:
        self._labels = dict(zip(STAGES, labels))  # noqa: B905 - Python 3.9
        self._running = False
        self._at = ""
        self._told: dict[str, str] = {}
        self._kept: dict[str, str] | None = None

    def begin(self) -> None:
        """Show that nothing has been done yet."""
        self._running, self._at, self._kept = True, "", None
        for stage in STAGES:
            self._show(stage)

    def at(self, stage: str) -> None:
        """Show that a stage is at work, and those before it are done; other stages have no row."""
        if stage not in STAGES:
            return
        self._at = stage
        for name in STAGES[: STAGES.index(stage)]:
            self._show(name, _("done"), "good")
        self._show(stage, _("at work"), "quiet")

    def end(self, *, done: bool) -> None:
        """Take over what the run did when it is told, or show where it stopped."""
        self._running = False
        self._kept = None if done else self._told
        if not done and self._at:
            self._show(self._at, _("stopped"), "warning")

    def tell(self, told: Mapping[str, str]) -> None:
        """Show what the run did that the scene remembers (stage -> words of the core).

        While another run is at work, and after one that stopped, nothing changes.
        """
        told = dict(told)
        if self._running or told == self._kept:
            return
        self._told, self._kept = told, None
        for stage in STAGES:
            words = told.get(stage, "")
            if words in _LEFT_OUT:
                self._show(stage, _("left out"), "quiet", words)
            else:
                self._show(stage, _("done") if words else "", "good", words)

    def _show(self, stage: str, text: str = "", kind: str = "", tip: str = "") -> None:
        label = self._labels[stage]
        label.text = coloured(text, kind) if text else ""
        label.toolTip = sentence(tip)
