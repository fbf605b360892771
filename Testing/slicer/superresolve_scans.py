"""Scans for the tests of the module SuperResolve, and what its panel says of their slices."""

from __future__ import annotations

import numpy as np
from module_helpers import add_volume


def add_thick(name: str = "Baby T2w", slice_mm: float = 4.0, count: int = 14, matrix=None):
    """Add a scan with axial slices: a bright box in noise, 40 x 36 voxels of 1.1 mm in the plane."""
    grid = np.diag([1.1, 1.1, slice_mm, 1.0])
    grid[:3, 3] = (-20, -18, -28)
    return add_volume(name, (count, 36, 40), grid if matrix is None else matrix)


def add_guide(name: str = "Baby T1w"):
    grid = np.eye(4)
    grid[:3, 3] = (-22, -20, -30)
    return add_volume(name, (58, 42, 46), grid, seed=2)


def slices_known(host, widget, seconds: float = 60) -> str:
    """Wait until the core has told how the slices lie; return what the panel says."""
    panel = widget.panel
    assert host.wait_until(lambda: "Looking" not in widget.ui.slicesLabel.text and panel.describing is None, seconds)
    return widget.ui.slicesLabel.text
