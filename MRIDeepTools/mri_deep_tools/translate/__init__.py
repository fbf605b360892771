"""Translate: one contrast into another without pairs, 2D images and scans; data sets, training, nnU-Net hand-over."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .options import TranslateOptions
    from .predict import PictureTranslation, TranslationResult, Translator, translate
    from .volumes import SliceStack, slice_scan
    from .weights import ModelFacts, load_direction, save_model

__all__ = [
    "ModelFacts",
    "PictureTranslation",
    "SliceStack",
    "TranslateOptions",
    "TranslationResult",
    "Translator",
    "load_direction",
    "save_model",
    "slice_scan",
    "translate",
]

_HOMES = {
    "ModelFacts": "weights",
    "PictureTranslation": "predict",
    "SliceStack": "volumes",
    "TranslateOptions": "options",
    "TranslationResult": "predict",
    "Translator": "predict",
    "load_direction": "weights",
    "save_model": "weights",
    "slice_scan": "volumes",
    "translate": "predict",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use, so that importing the package stays quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
