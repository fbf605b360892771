"""The number of threads honours OMP_NUM_THREADS, as batch systems set it."""

from __future__ import annotations

import pytest
from mri_deep_tools.inference import available_threads


@pytest.mark.parametrize(("value", "expected"), [("1", 1), ("1,2", 1), ("", None), ("many", None), ("0", None)])
def test_omp_num_threads(monkeypatch, value, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    free = available_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert available_threads() == (expected or free)
