"""Fixtures of the harmonization tests: golden data, weights files, a private cache."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def golden(shared):
    """Return a function that loads a golden .npz file."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(shared("fixtures", "iguane", name)) as data:
            return dict(data)

    return load


@pytest.fixture(scope="session")
def weights_files(shared, tmp_path_factory) -> dict[str, Path]:
    """Return the golden Keras files of the three networks, unpacked."""
    folder = tmp_path_factory.mktemp("iguane")
    files = {}
    for name in ("generator", "discriminator", "predictor"):
        files[name] = folder / f"{name}.h5"
        with gzip.open(shared("fixtures", "iguane", f"{name}_weights.h5.gz")) as source:
            files[name].write_bytes(source.read())
    return files


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory) -> Path:
    """Return a cache folder for converted weights that all tests of this process use."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(session_cache, monkeypatch) -> Path:
    """Keep every test away from the caches and the models of this machine; no network."""
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(session_cache))
    monkeypatch.setenv("MRI_DEEP_TOOLS_OFFLINE", "1")
    monkeypatch.delenv("MRI_DEEP_TOOLS_DEBUG", raising=False)
    return session_cache
