"""Harmonize: T1-weighted brain scans of any site in one reference style (IGUANe), and predictions from them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .predict import HarmonizationResult, Harmonizer, harmonize

__all__ = ["HarmonizationResult", "Harmonizer", "harmonize"]

_HOMES = {"HarmonizationResult": "predict", "Harmonizer": "predict", "harmonize": "predict"}


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use, so that importing the package stays quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
