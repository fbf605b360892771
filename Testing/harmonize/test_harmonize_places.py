"""Heads that lie anywhere: brains of known place are found on the shipped template, which is another brain.

The truth is measured, not assumed: the pose found for the unmoved brain, followed by the motion that the test made.
The quick subset, of a brain onto itself, stands in ``core/test_registration.py``.
"""

from __future__ import annotations

import numpy as np
import pytest
from mri_deep_tools.geometry import Grid, Reorient, all_orientations, resample_to
from mri_deep_tools.harmonize.plausible import judge_registration
from mri_deep_tools.harmonize.template import load_template
from mri_deep_tools.progress import Progress
from mri_deep_tools.registration import difference, register_rigid
from mri_deep_tools.volume import Volume
from scipy.spatial.transform import Rotation

pytestmark = pytest.mark.slow

CENTRE, SHIFT = np.array([0.0, -18.0, 8.0]), np.array([12.0, -20.0, 8.0])
TILTS = [(30, 0, 0), (-30, 0, 0), (0, 30, 0), (0, -30, 0), (0, 0, 30), (0, 0, -30), (20, 20, -20)]
THICK = [(4.0, 1.0, 1.0), (1.0, 4.0, 1.0), (1.0, 1.0, 4.0)]
CUTS = [(2, 0.0, 0.78), (2, 0.25, 1.0), (1, 0.0, 0.8), (1, 0.2, 1.0), (0, 0.0, 0.8)]  # axis, share of it that is kept


@pytest.fixture(scope="module")
def pair(template) -> tuple[Volume, Volume, np.ndarray]:
    """Return FSL's brain as a scan, the shipped template, and the rigid transform between them."""
    grid = Grid.of(template).with_spacing(2.0)
    brain, fixed = resample_to(template, grid.shape, grid.affine), load_template()
    return brain, fixed, register_rigid(brain, fixed, any_orientation=False).matrix


def moved(
    brain: Volume, angles: tuple[float, ...], spacing: tuple[float, ...] = (1.5, 1.5, 1.5)
) -> tuple[Volume, np.ndarray]:
    """Return the brain turned, shifted, sampled anew with a bias field and noise; and the motion."""
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    motion[:3, 3] = CENTRE + SHIFT - motion[:3, :3] @ CENTRE
    affine, shape = np.diag([*spacing, 1.0]), tuple(round(216 / size) for size in spacing)
    affine[:3, 3] = CENTRE + SHIFT - np.array(spacing) * (np.array(shape) - 1) / 2
    data = resample_to(Volume(brain.data, motion @ brain.affine), shape, affine).data
    bias = 1 + 0.2 * np.linspace(-1, 1, shape[1])[None, :, None]
    noise = np.random.default_rng(3).normal(0, 150, shape) * (data > 0)
    return Volume(np.maximum(data * bias + noise, 0).astype(np.float32), affine), motion


def require_found(pair: tuple[Volume, Volume, np.ndarray], scan: Volume, motion: np.ndarray, mm: float) -> None:
    """Find a scan on the template and compare with the truth; the plausibility check must let it pass."""
    _, fixed, unmoved = pair
    found = register_rigid(scan, fixed)
    points = np.argwhere(fixed.data > 0)[::3000] @ fixed.affine[:3, :3].T + fixed.affine[:3, 3]
    distance, turn = difference(found.matrix, motion @ unmoved, points)
    assert distance < mm and turn < mm, (distance, turn)
    judge_registration(found, "scan", Progress(), unchecked=False)


def test_a_tilted_scan_of_thick_slices_stored_the_other_way_round(pair):
    scan, motion = moved(pair[0], (30, 0, 10), (1.0, 1.0, 4.0))
    require_found(pair, Reorient.to(scan, "PSR").apply(scan), motion, 2.0)


@pytest.mark.parametrize("code", all_orientations())
def test_every_storage_order(pair, code):
    scan, motion = moved(pair[0], (10, -5, 5), (2.0, 2.0, 2.0))
    require_found(pair, Reorient.to(scan, code).apply(scan), motion, 2.0)


@pytest.mark.parametrize("angles", TILTS)
def test_tilts_of_30_degrees(pair, angles):
    require_found(pair, *moved(pair[0], angles), 2.0)


@pytest.mark.parametrize("spacing", THICK)
def test_slices_of_4_mm(pair, spacing):
    require_found(pair, *moved(pair[0], (15, 10, -10), spacing), 2.0)


@pytest.mark.parametrize("cut", CUTS)
def test_fields_of_view_that_cut_the_brain(pair, cut):
    scan, motion = moved(pair[0], (10, 0, 5))
    axis, first, last = cut
    content = np.flatnonzero((scan.data > 0).any(axis=tuple(k for k in range(3) if k != axis)))
    start, stop = (int(content[0] + share * (content[-1] - content[0])) for share in (first, last))
    part = [slice(None)] * 3
    part[axis] = slice(start, stop + 1)
    affine = scan.affine.copy()
    affine[:3, 3] += affine[:3, axis] * start
    require_found(pair, Volume(scan.data[tuple(part)], affine), motion, 3.0)
