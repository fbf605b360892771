"""The Slicer host as a fixture, for tests of the extension's modules in the real MRML scene."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def _missing() -> str:
    """Return why the host cannot run here, or an empty text."""
    for package, distribution in (("slicer_core", "slicer-core"), ("PySide6", "PySide6-Essentials")):
        if importlib.util.find_spec(package) is None:
            return f"{distribution} is not installed: pip install './MRIDeepTools[slicer-test]'"
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    try:
        import slicer  # noqa: F401
        import vtk  # noqa: F401
        from PySide6 import QtGui, QtUiTools, QtWidgets  # noqa: F401
    except ImportError as error:
        return f"a system library is missing ({error}); Debian: apt-get install libegl1 libgl1 libxkbcommon0 libfontconfig1 libdbus-1-3"
    return ""


@pytest.fixture(scope="session")
def _booted_host():
    reason = _missing()
    if reason:
        pytest.skip(reason)
    from slicer_host import Host

    return Host.boot()


@pytest.fixture
def host(_booted_host):
    """Return the host with an empty scene; the test fails if anything went wrong unseen."""
    _booted_host.reset()
    yield _booted_host
    _booted_host.check()
    _booted_host.reset()
