"""Translation: the function that all user-visible strings pass through."""

from __future__ import annotations

__all__ = ["_"]

try:
    from slicer.i18n import tr as _
except ImportError:  # the bare interpreter of Slicer has no translations

    def _(text: str) -> str:
        """Return the text as it is."""
        return text
