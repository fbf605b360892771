"""Fixtures of the super-resolution tests: the golden data and their networks."""

from __future__ import annotations

import gzip
import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    """Keep the tests away from the caches, the models and the settings of this machine; no network."""
    folder = tmp_path_factory.getbasetemp() / "superresolve-cache"
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MRI_DEEP_TOOLS_OFFLINE", "1")
    monkeypatch.delenv("MRI_DEEP_TOOLS_DEBUG", raising=False)
    return folder


@pytest.fixture(scope="session")
def golden(shared):
    """Return a function that gives a file of the golden data: arrays, JSON content, or a path."""

    def get(name: str):
        path = shared("fixtures", "baby_ai", name)
        if name.endswith(".npz"):
            with np.load(path) as archive:
                return dict(archive)
        return json.loads(path.read_text()) if name.endswith(".json") else path

    return get


@pytest.fixture(scope="session")
def weights_file(shared, tmp_path_factory):
    """Return a function that gives the ``.pth`` file of a golden network, unpacked once."""
    folder = tmp_path_factory.mktemp("baby-ai")

    def get(name: str) -> Path:
        target = folder / f"{name}.pth"
        if not target.exists():
            packed = {"shallow": "", "narrow": ".gz", "full": ".gz.gz"}[name]
            source = shared("fixtures", "baby_ai", f"weights_{name}.pth{packed}")
            with ExitStack() as stack:
                stream = stack.enter_context(source.open("rb"))
                for _ in range(packed.count(".gz")):
                    stream = stack.enter_context(gzip.open(stream))
                shutil.copyfileobj(stream, stack.enter_context(target.open("wb")), 1 << 24)
        return target

    return get


@pytest.fixture(scope="session")
def channels(golden):
    """Return the normalised pair of the golden data, (2, 64, 80, 64) float32: T1w, thick-slice T2w."""
    arrays = golden("preprocess.npz")
    return np.stack([arrays["t1_norm"], arrays["t2_aniso_norm"]])
