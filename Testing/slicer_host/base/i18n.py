"""Translation as modules call it. The host has no translations, so a text stays as it is."""

# ruff: noqa: N802 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

import sys
from pathlib import Path

import slicer


def getContext(sourceFile: str) -> str:
    """Return the context of a source file, as Slicer's translators see it: its name, after that of its package."""
    path = Path(sourceFile)
    return f"{path.parent.name}.{path.stem}" if (path.parent / "__init__.py").is_file() else path.stem


def translate(context: str, text: str) -> str:
    """Return the translation of *text* in *context*."""
    if not isinstance(text, str):
        raise TypeError(f"a text is translated, not {type(text).__name__}")
    return slicer.app.translate(context, text)


def tr(text: str) -> str:
    """Return the translation of *text* in the context of the file that calls.

    The frame alone is asked: ``inspect`` would look through every loaded module, slower the more tests are collected.
    """
    return translate(getContext(sys._getframe(1).f_code.co_filename), text)
