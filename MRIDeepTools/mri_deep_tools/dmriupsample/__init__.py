"""DMRIUpsample: more diffusion directions from few, by the published recurrent autoencoder or spherical harmonics."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .gradients import GradientTable
    from .predict import UpsampleOptions, Upsampler, UpsampleResult, upsample

__all__ = ["GradientTable", "UpsampleOptions", "UpsampleResult", "Upsampler", "upsample"]

_HOMES = {
    "GradientTable": "gradients",
    "UpsampleOptions": "predict",
    "UpsampleResult": "predict",
    "Upsampler": "predict",
    "upsample": "predict",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use, so that importing the package stays quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
