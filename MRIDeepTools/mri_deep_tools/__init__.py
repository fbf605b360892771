"""MRI Deep Tools: deep learning for brain MRI on files, with no dependence on 3D Slicer.

Research use only. Not a medical device.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

__all__ = ["__version__", "errors", "geometry", "models", "superresolve", "synthsegment", "volume"]

if TYPE_CHECKING:
    from . import errors, geometry, models, superresolve, synthsegment, volume


def __getattr__(name: str) -> Any:
    """Import a room on first use, so that importing the package stays quick."""
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
