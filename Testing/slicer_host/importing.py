"""Import the package ``slicer`` without mistaking other folders of that name for a part of it.

The package takes every folder called ``slicer`` on the module search path as its own and imports what lies in it. The
folder ``Testing/slicer`` is such a one, and ``Testing`` is on the path whenever the host is used.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def import_slicer() -> Any:
    """Return the package ``slicer`` of the wheel slicer-core.

    Raises:
        ImportError: the wheel, or a system library that it needs, is missing.
    """
    if "slicer" not in sys.modules:
        path = sys.path[:]
        sys.path[:] = [folder for folder in path if not _holds_tests(folder)]
        try:
            import slicer  # noqa: F401
        finally:
            sys.path[:] = path
    return sys.modules["slicer"]


def _holds_tests(folder: str) -> bool:
    return (Path(folder or ".") / "slicer" / "conftest.py").is_file()
