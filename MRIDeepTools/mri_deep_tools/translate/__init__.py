"""Translate: one contrast into another without pairs, 2D images and scans; data sets, training, nnU-Net hand-over."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .volumes import SliceStack, slice_scan

__all__ = ["SliceStack", "slice_scan"]

_HOMES = {"SliceStack": "volumes", "slice_scan": "volumes"}


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use, so that importing the package stays quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
