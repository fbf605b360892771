"""``slicer.testing``: how CTest runs the tests of a module."""

# ruff: noqa: N802 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

import sys
import unittest

import slicer


def exitSuccess() -> None:
    """Leave the application with status 0."""
    slicer.util.exit(0)


def exitFailure(message: str = "") -> None:
    """Leave the application with status 1."""
    if message:
        print(message, file=sys.stderr)
    slicer.util.exit(1)


def runUnitTest(path: str | list[str], testname: str) -> None:
    """Load all test cases of the module *testname*, looked for in *path*, run them and leave with the result."""
    sys.path[:0] = [path] if isinstance(path, str) else list(path)
    suite = unittest.defaultTestLoader.loadTestsFromName(testname)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    if result.wasSuccessful():
        exitSuccess()
    else:
        exitFailure()
