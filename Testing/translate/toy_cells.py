"""A toy data set in the raw form of nnU-Net: bright discs (axons) in dark rings (myelin), small PNGs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

LEVELS = (120, 40, 200)  # background, myelin, axon


def cells(rng: np.random.Generator, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture (size, size) uint8 and its codes: 1 myelin, 2 axon."""
    labels = np.zeros((size, size), np.uint8)
    y, x = np.mgrid[:size, :size]
    for _ in range(4):
        centre, radius = rng.uniform(8, size - 8, 2), rng.uniform(5, 10)
        distance = np.hypot(y - centre[0], x - centre[1])
        labels[distance < radius] = 1
        labels[distance < 0.6 * radius] = 2
    grey = np.array(LEVELS)[labels] + rng.normal(0, 12, labels.shape)
    return np.clip(grey, 0, 255).astype(np.uint8), labels


def save(array: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def make_raw(root: Path, name: str = "Dataset101_TOY", cases: int = 10, tests: int = 0) -> Path:
    """Write ``root/nnUNet_raw/name`` and return it."""
    folder, rng = root / "nnUNet_raw" / name, np.random.default_rng(0)
    for index in range(cases):
        picture, labels = cells(rng)
        save(picture, folder / "imagesTr" / f"toy_{index:03d}_0000.png")
        save(labels, folder / "labelsTr" / f"toy_{index:03d}.png")
    (folder / "imagesTs").mkdir()
    for index in range(tests):
        save(cells(rng)[0], folder / "imagesTs" / f"new_{index}_0000.png")
    content = {
        "name": "TOY",
        "labels": {"background": 0, "myelin": 1, "axon": 2},
        "channel_names": {"0": "rescale_to_0_1"},
        "numTraining": cases,
        "numTest": tests,
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder
