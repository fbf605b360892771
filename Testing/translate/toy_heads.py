"""Toy heads in two contrasts: scalp, skull, fluid, grey and white matter, whose order of brightness is not the same.

    python Testing/translate/toy_heads.py toy/

writes pictures of people who have contrast A only or B only (``toy/a``, ``toy/b``), and of others who have both
(``toy/held_a``, ``toy/held_b``).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

A = (0.02, 0.95, 0.10, 0.25, 0.50, 0.78)  # air, scalp, skull, fluid, grey and white matter; as in T1w
B = (0.02, 0.60, 0.10, 0.95, 0.70, 0.40)  # fluid bright, white matter dark; as in T2w
_RINGS = ((1.0, 1), (0.88, 2), (0.80, 3))


def head(rng: np.random.Generator, side: int = 32) -> np.ndarray:
    """Return the tissues of a head, (side, side), numbers of the levels above."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    centre, turn = rng.uniform(-0.03, 0.03, 2), rng.uniform(-0.15, 0.15)
    y, x = y - centre[0], x - centre[1]
    u, v = y * np.cos(turn) + x * np.sin(turn), x * np.cos(turn) - y * np.sin(turn)
    u, v = u / rng.uniform(0.40, 0.46), v / rng.uniform(0.33, 0.40)
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    folds = sum(rng.uniform(-0.05, 0.05) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5, 7))
    tissues = np.zeros((side, side), int)
    for limit, tissue in _RINGS:
        tissues[radius < limit] = tissue
    tissues[radius < 0.74 + 0.5 * folds] = 4
    tissues[radius < 0.52 + folds] = 5
    for way in (-1, 1):  # ventricles
        place, size = (rng.uniform(-0.2, 0.2), way * rng.uniform(0.14, 0.28)), rng.uniform((0.16, 0.09), (0.30, 0.17))
        tissues[((u - place[0]) / size[0]) ** 2 + ((v - place[1]) / size[1]) ** 2 < 1] = 3
    return tissues


def shown(tissues: np.ndarray, levels: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """Return a picture (side, side) uint8, a little blurred and noisy."""
    image = gaussian_filter(np.array(levels)[tissues], 0.5) + rng.normal(0, 0.01, tissues.shape)
    return np.uint8(255 * np.clip(image, 0, 1) + 0.5)


def write_pictures(root: Path, people: int = 400, held: int = 16) -> Path:
    """Write the four folders of ``root`` and return it: ``people`` of either contrast, ``held`` with both."""
    rng = np.random.default_rng(0)
    for name, number, levels in (("a", people, (A,)), ("b", people, (B,)), ("held", held, (A, B))):
        folders = [root / name] if len(levels) == 1 else [root / f"{name}_a", root / f"{name}_b"]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for k in range(number):
            tissues = head(rng)
            for folder, look in zip(folders, levels, strict=True):
                Image.fromarray(shown(tissues, look, rng)).save(folder / f"{name}_{k:03d}.png")
    return root


if __name__ == "__main__":
    write_pictures(Path(sys.argv[1]))
