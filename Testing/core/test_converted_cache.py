"""Weights converted once: the cache serves, mends itself, and is never in the way."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from mri_deep_tools.checkpoints.cache import cached_state, converted_dir, forget, sha256_of
from mri_deep_tools.errors import WeightsError

STATE = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "count": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 3), np.float32),
}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "net.h5"
    path.write_bytes(b"the original")
    return path


@pytest.fixture
def convert():
    """Return a conversion that counts its calls."""

    def call(path):
        call.count += 1
        return STATE

    call.count = 0
    return call


def the_cached_file():
    (cached,) = converted_dir().iterdir()
    return cached


def check(state):
    assert set(state) == set(STATE)
    for name, array in STATE.items():
        assert state[name].dtype == array.dtype and state[name].shape == array.shape
        np.testing.assert_array_equal(state[name], array)


def test_converted_once(weights, convert):
    check(cached_state(weights, convert, kind="unet"))
    check(cached_state(weights, convert, kind="unet"))
    assert convert.count == 1
    assert the_cached_file().name == f"{sha256_of(weights)}-unet-v1.1.safetensors"


def test_content_and_kind_and_version_decide(weights, convert, tmp_path):
    cached_state(weights, convert, kind="unet")
    weights.rename(tmp_path / "renamed.h5")  # the name has no say
    check(cached_state(tmp_path / "renamed.h5", convert, kind="unet"))
    assert convert.count == 1
    cached_state(tmp_path / "renamed.h5", convert, kind="qc")
    cached_state(tmp_path / "renamed.h5", convert, kind="unet", version=2)
    (tmp_path / "renamed.h5").write_bytes(b"another file")
    cached_state(tmp_path / "renamed.h5", convert, kind="unet")
    assert convert.count == 4
    with pytest.raises(ValueError, match="kind must be"):
        cached_state(tmp_path / "renamed.h5", convert, kind="../unet")


def damage_end(data):
    return data[:-3] + bytes([data[-3] ^ 255]) + data[-2:]


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[:100], lambda data: data[:-8], damage_end, lambda data: b"\xff" * len(data)],
    ids=["empty", "header only", "cut", "one value", "noise"],
)
def test_damaged_cache_is_made_anew(weights, convert, damage):
    cached_state(weights, convert, kind="unet")
    good = the_cached_file().read_bytes()
    the_cached_file().write_bytes(damage(good))
    check(cached_state(weights, convert, kind="unet"))
    assert convert.count == 2
    check(cached_state(weights, convert, kind="unet"))
    assert convert.count == 2


def test_cached_file_of_another_original_is_not_believed(weights, convert, tmp_path):
    cached_state(weights, convert, kind="unet")
    data = the_cached_file().read_bytes()
    other = tmp_path / "other.h5"
    other.write_bytes(b"something else")
    (converted_dir() / f"{sha256_of(other)}-unet-v1.1.safetensors").write_bytes(data)
    cached_state(other, convert, kind="unet")
    assert convert.count == 2


def test_unwritable_cache_is_no_obstacle(weights, convert, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "file" / "cache"))
    check(cached_state(weights, convert, kind="unet"))
    check(cached_state(weights, convert, kind="unet"))
    assert convert.count == 2
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "cache2"))
    (tmp_path / "cache2").mkdir()
    (tmp_path / "cache2" / "converted").write_text("a file where the folder should be")
    check(cached_state(weights, convert, kind="unet"))


def test_nothing_is_left_when_the_conversion_fails(weights):
    def unfit(path):
        raise WeightsError(f"{path.name} is unfit")

    with pytest.raises(WeightsError, match=r"net\.h5 is unfit"):
        cached_state(weights, unfit, kind="unet")
    assert not converted_dir().exists()
    with pytest.raises(WeightsError, match=r"none\.h5 does not exist"):
        cached_state(weights.with_name("none.h5"), unfit, kind="unet")


def test_forget(weights, convert):
    cached_state(weights, convert, kind="unet")
    cached_state(weights, convert, kind="qc")
    freed = sum(path.stat().st_size for path in converted_dir().iterdir())
    assert forget(sha256_of(weights)) == freed and not list(converted_dir().iterdir())
    assert forget(sha256_of(weights)) == 0


def test_another_process_uses_the_same_copy(weights, convert):
    cached_state(weights, convert, kind="unet")
    code = (
        "import sys; from mri_deep_tools.checkpoints.cache import cached_state;"
        "state = cached_state(sys.argv[1], lambda path: 1 / 0, kind='unet'); print(sorted(state))"
    )
    run = subprocess.run([sys.executable, "-c", code, weights], capture_output=True, text=True, env=os.environ)
    assert run.stdout.strip() == str(sorted(STATE)), run.stderr
