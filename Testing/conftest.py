"""What every test shares: where the golden data are, and small scans made by the project's own code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_root() -> Path | None:
    """Return the folder of golden data, or None where there is none."""
    root = Path(os.environ.get("MRI_DEEP_TOOLS_SHARED", REPOSITORY.parent / "shared"))
    return root.resolve() if (root / "fixtures").is_dir() else None  # tests may change the working folder


@pytest.fixture(scope="session")
def shared():
    """Return a function that gives a path inside the shared golden data; skips where they are absent."""
    root = shared_root()

    def path(*parts: str) -> Path:
        if root is None:
            pytest.skip("golden data not found: set MRI_DEEP_TOOLS_SHARED to the folder that holds fixtures/ and data/")
        return root.joinpath(*parts)

    return path
