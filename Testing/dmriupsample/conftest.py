"""Fixtures of the diffusion tests: golden weights unpacked once, a cache of their own, no network."""

from __future__ import annotations

from pathlib import Path

import pytest
from dmri_helpers import unpack


@pytest.fixture(scope="session")
def golden(shared):
    """Return a function that gives a path inside the golden data of dMRI-RCNN."""
    return lambda *parts: shared("fixtures", "dmri_rcnn", *parts)


@pytest.fixture(scope="session")
def weights(golden, tmp_path_factory):
    """Return a function (dims, q_in) -> folder with a golden checkpoint, unpacked once."""
    folder = tmp_path_factory.mktemp("dmri_weights")

    def path(dims: int, count: int) -> Path:
        name = f"b1000_{count}in"
        target = folder / f"{dims}D_RCNN" / name
        if not target.is_dir():
            unpack(golden("weights", f"{dims}D_RCNN_{name}.tar.xz"), folder)
        return target

    return path


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory) -> Path:
    """Return a cache folder for converted weights that all tests of this process use."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(shared_cache, monkeypatch) -> Path:
    """Keep every test away from the caches, the models and the settings of this machine; no network."""
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(shared_cache))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MRI_DEEP_TOOLS_OFFLINE", "1")
    monkeypatch.delenv("MRI_DEEP_TOOLS_DEBUG", raising=False)
    return shared_cache
