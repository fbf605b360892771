"""SuperResolve: thick-slice T2w scans to 1 mm isotropic ones with a T1w guide; simulation, scores, training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .metrics import similarity
    from .predict import SuperResolutionResult, SuperResolver, superresolve
    from .simulate import acquire, as_trained
    from .slices import detect_slices

__all__ = [
    "SuperResolutionResult",
    "SuperResolver",
    "acquire",
    "as_trained",
    "detect_slices",
    "similarity",
    "superresolve",
]

_HOMES = {
    "SuperResolutionResult": "predict",
    "SuperResolver": "predict",
    "acquire": "simulate",
    "as_trained": "simulate",
    "detect_slices": "slices",
    "similarity": "metrics",
    "superresolve": "predict",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use, so that importing the package stays quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
