"""SynthSegment: any brain scan to labels, volumes and quality scores; its generative model, training and evaluation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluate import evaluate_folders, evaluate_pair
    from .generic import GenericOptions, GenericSegmenter
    from .predict import SegmentationResult, Segmenter, segment
    from .simulate import simulate_scan

__all__ = [
    "GenericOptions",
    "GenericSegmenter",
    "SegmentationResult",
    "Segmenter",
    "evaluate_folders",
    "evaluate_pair",
    "segment",
    "simulate_scan",
]

_HOMES = {
    "GenericOptions": "generic",
    "GenericSegmenter": "generic",
    "SegmentationResult": "predict",
    "Segmenter": "predict",
    "segment": "predict",
    "evaluate_folders": "evaluate",
    "evaluate_pair": "evaluate",
    "simulate_scan": "simulate",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use, so that importing the package stays quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
