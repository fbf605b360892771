"""The published unpaired training learns: the whole way as a person goes it, each step a process of its own.

Toy heads of which everybody has one contrast only are turned into a set, trained on, and others, who have both, are
translated and compared with the truth (Resources/training/syndiff-toy.yaml; a few minutes on one core).
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_heads import write_pictures

pytestmark = pytest.mark.slow
RECIPE = Path(__file__).parents[2] / "Resources" / "training" / "syndiff-toy.yaml"
LEAST = 22.0  # dB in either direction; 25.6 and 25.7 were seen
LEAST_GAIN = 4.0  # dB above whatever needs no training
LEAST_FALL = 0.6  # of the cycle's loss, last epoch to first


def call(*words) -> str:
    command = [sys.executable, "-m", "mri_deep_tools", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MRI_DEEP_TOOLS_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = write_pictures(tmp_path_factory.mktemp("toy"))
    call("translate-dataset", "pictures", root / "sets", "--contrast", "A", root / "a", "--contrast", "B", root / "b")
    return root


def trained(toy, name, *changes) -> Path:
    words = ["--config", RECIPE, "--set", f"data={toy / 'sets'}", "--output", toy / name]
    for change in changes:
        words += ["--set", change]
    call("train", "syndiff", *words)
    return toy / name / "model"


def scored(toy, contrast, pictures) -> float:
    """Return the mean PSNR in dB of pictures of the people kept back."""
    table = pictures / "scores.csv"
    call("evaluate", "translation", toy / f"held_{contrast.lower()}", pictures, table)
    with table.open(newline="") as stream:
        found = {row["name"]: float(row["psnr_db"]) for row in csv.DictReader(stream)}
    table.unlink()
    return found["mean"]


def translated(toy, model, contrast) -> float:
    source = {"A": "b", "B": "a"}[contrast]
    made = toy / f"{model.parent.name}_{contrast}"
    call("translate", toy / f"held_{source}", made, "--weights", model, "--to", contrast, "--threads", 1)
    return scored(toy, contrast, made)


def untrained(toy, contrast) -> dict[str, float]:
    """Return the PSNR of what needs no network: the other contrast itself, and the mean of all people."""
    other = toy / f"mean_{contrast}"
    other.mkdir()
    pictures = [np.asarray(Image.open(path), float) for path in (toy / contrast.lower()).iterdir()]
    mean = Image.fromarray(np.uint8(np.mean(pictures, axis=0) + 0.5))
    for path in (toy / f"held_{contrast.lower()}").iterdir():
        mean.save(other / path.name)
    source = toy / f"held_{'b' if contrast == 'A' else 'a'}"
    return {"source": scored(toy, contrast, source), "mean": scored(toy, contrast, other)}


def test_a_contrast_is_learnt_from_people_who_have_the_other_one_only(toy):
    before, after = trained(toy, "before", "run.steps=1"), trained(toy, "run")
    for contrast in ("A", "B"):
        found = translated(toy, after, contrast)
        others = untrained(toy, contrast) | {"first step": translated(toy, before, contrast)}
        sys.stdout.write(f"to {contrast}: {found:.2f} dB; without training {others}\n")
        assert found > LEAST, contrast
        assert found > max(others.values()) + LEAST_GAIN, contrast
    epochs = json.loads((after.parent / "stats.json").read_text())["epochs"]
    assert epochs[-1]["G_cycle"] < LEAST_FALL * epochs[0]["G_cycle"]
    assert epochs[-1]["G_L1"] < epochs[0]["G_L1"]
