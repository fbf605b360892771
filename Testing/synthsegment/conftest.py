"""Fixtures of the tests that run the segment command."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def narrow_weights(shared, tmp_path_factory) -> Path:
    """Return a folder with the narrow networks of the golden data under the names of the published files."""
    folder = tmp_path_factory.mktemp("weights")
    for path in shared("fixtures", "synthseg", "weights").glob("*.h5.gz"):
        with gzip.open(path) as source:
            (folder / path.name.removesuffix(".gz")).write_bytes(source.read())
    return folder


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory) -> Path:
    """Return a cache folder for converted weights that all tests of this process use."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def own_cache(shared_cache, monkeypatch) -> Path:
    """Keep a test's processes away from the caches, the models and the settings of this machine; no network."""
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(shared_cache))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MRI_DEEP_TOOLS_OFFLINE", "1")
    monkeypatch.delenv("FREESURFER_HOME", raising=False)
    monkeypatch.delenv("MRI_DEEP_TOOLS_DEBUG", raising=False)
    return shared_cache
