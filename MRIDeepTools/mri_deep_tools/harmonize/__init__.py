"""Harmonize: T1-weighted brain scans of any site in one reference style (IGUANe), and predictions from them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .predict import HarmonizationResult, Harmonizer, harmonize
    from .predictor import Prediction, ScanPredictor, predict_scan

__all__ = ["HarmonizationResult", "Harmonizer", "Prediction", "ScanPredictor", "harmonize", "predict_scan"]

_HOMES = {"HarmonizationResult": "predict", "Harmonizer": "predict", "harmonize": "predict"}
_HOMES |= {"Prediction": "predictor", "ScanPredictor": "predictor", "predict_scan": "predictor"}


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use, so that importing the package stays quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
