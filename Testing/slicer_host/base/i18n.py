"""Translation as modules call it. The host has no translations, so a text stays as it is."""

# ruff: noqa: N802 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

import inspect
from pathlib import Path

import slicer


def getContext(sourceFile: str) -> str:
    """Return the context of a source file: its name, as Slicer's translators see it."""
    path = Path(sourceFile)
    return path.parent.name if path.name == "__init__.py" else path.stem


def translate(context: str, text: str) -> str:
    """Return the translation of *text* in *context*."""
    if not isinstance(text, str):
        raise TypeError(f"a text is translated, not {type(text).__name__}")
    return slicer.app.translate(context, text)


def tr(text: str) -> str:
    """Return the translation of *text* in the context of the file that calls."""
    return translate(getContext(inspect.stack()[1].filename), text)
