"""The Slicer host as a fixture, for tests of the extension's modules in the real MRML scene."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

#: What offscreen Qt and the software renderer of VTK need of a Debian or Ubuntu system.
DEBIAN_PACKAGES = "libegl1 libgl1 libgl1-mesa-dri libxkbcommon0 libfontconfig1 libdbus-1-3 fonts-dejavu-core"


def _missing() -> str:
    """Return why the host cannot run here, or an empty text."""
    for package, distribution in (("slicer_core", "slicer-core"), ("PySide6", "PySide6-Essentials")):
        if importlib.util.find_spec(package) is None:
            return f"{distribution} is not installed: pip install './MRIDeepTools[slicer-test]'"
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from slicer_host.importing import import_slicer

    try:
        import_slicer()
        from PySide6 import QtGui, QtNetwork, QtUiTools, QtWidgets  # noqa: F401
    except ImportError as error:
        return f"a system library is missing ({error}); Debian: apt-get install {DEBIAN_PACKAGES}"
    return ""


# Now, because a test file that imports slicer by itself would take this very folder for a part of that package.
MISSING = _missing()


@pytest.fixture(scope="session")
def _booted_host():
    if MISSING:
        pytest.skip(MISSING)
    from slicer_host import Host

    return Host.boot()


@pytest.fixture
def host(_booted_host):
    """Return the host with an empty scene; the test fails if anything went wrong unseen, closing included."""
    _booted_host.reset()
    yield _booted_host
    _booted_host.close_panels()
    try:
        _booted_host.check()
    finally:
        _booted_host.reset()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Skip a test that wants a picture of VTK on a machine without OpenGL."""
    try:
        return (yield)
    except Exception as error:
        render = sys.modules.get("slicer_host.render")
        if render is not None and isinstance(error, render.RenderingUnavailableError):
            pytest.skip(str(error))
        raise


_status: list[int] = []


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """Remember the status: the process leaves with it below."""
    _status[:] = [int(exitstatus)]


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """Leave at once when reports and summary are written: see :meth:`slicer_host.Host.leave`."""
    host_module = sys.modules.get("slicer_host.host")
    running = host_module is not None and host_module.Host._instance
    if running and _status:
        running.leave(_status[0])
