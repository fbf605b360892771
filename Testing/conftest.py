"""What every test shares: where the golden data are, and small scans made by the project's own code."""

from __future__ import annotations

import locale
import os
import signal
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LONG_FILES = ("test_module_generic.py", "test_module_home.py", "test_bundled.py", "test_dmri_train.py")
"""Files that take longest: they start first, so that no process is left alone with one of them at the end."""

# Shells start what runs in the background with interrupts ignored, and every program that tests start inherits it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; the order within files stays."""
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


def shared_root() -> Path | None:
    """Return the folder of golden data, or None where there is none."""
    root = Path(os.environ.get("MRI_DEEP_TOOLS_SHARED", REPOSITORY.parent / "shared"))
    return root.resolve() if (root / "fixtures").is_dir() else None  # tests may change the working folder


@pytest.fixture(autouse=True)
def _locale():
    """Put the locale back: ITK leaves the process without Unicode after it wrote a DICOM file, as some tests do."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    if locale.setlocale(locale.LC_ALL) != before:
        locale.setlocale(locale.LC_ALL, before)


@pytest.fixture(autouse=True)
def _no_networks_kept():
    """Drop the networks that a batch in this process keeps; a test that counts what is loaded must load it."""
    yield
    if "mri_deep_tools.kept" in sys.modules:
        sys.modules["mri_deep_tools.kept"].keep_networks(0)


@pytest.fixture(scope="session")
def shared():
    """Return a function that gives a path inside the shared golden data; skips where they are absent."""
    root = shared_root()

    def path(*parts: str) -> Path:
        if root is None:
            pytest.skip("golden data not found: set MRI_DEEP_TOOLS_SHARED to the folder that holds fixtures/ and data/")
        return root.joinpath(*parts)

    return path
