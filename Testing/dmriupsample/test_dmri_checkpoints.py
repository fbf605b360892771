"""Reading TensorFlow checkpoints: checksums, real files, and what damaged ones are told."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from dmri_helpers import unpack
from mri_deep_tools.checkpoints._crc32c import crc32c, masked_crc32c
from mri_deep_tools.checkpoints._wire import MalformedError, fields, varint
from mri_deep_tools.checkpoints.tf_bundle import bundle_files, bundle_prefix, read_bundle, read_bundle_index
from mri_deep_tools.dmriupsample.weights import load_network, weight_keys
from mri_deep_tools.errors import WeightsError

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def crc_bit_by_bit(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_crc_of_rfc_3720():
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 511, 512, 1023, 1024, 1025, 5000, 20001])
def test_crc_of_any_length(size):
    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == crc_bit_by_bit(data)
    assert crc32c(np.frombuffer(data, np.uint8)) == crc32c(memoryview(data))


def test_crc_over_several_blocks(monkeypatch):
    data = np.random.default_rng(1).bytes(10_001)
    whole = crc32c(data)
    monkeypatch.setattr("mri_deep_tools.checkpoints._crc32c._BLOCK", 4097)
    assert crc32c(data) == whole
    monkeypatch.setattr("mri_deep_tools.checkpoints._crc32c._BLOCK", 10_000)  # the last block has one byte
    assert crc32c(data) == whole


def test_mask_is_tensorflows():
    value = crc32c(b"foo")
    assert masked_crc32c(b"foo") == ((value >> 15 | value << 17) + 0xA282EAD8) % 2**32


def test_wire_numbers_and_faults():
    assert varint(b"\xac\x02", 0) == (300, 2)
    assert list(fields(b"\x08\x96\x01\x12\x02hi\x1d\x01\x00\x00\x00")) == [(1, 150), (2, b"hi"), (3, 1)]
    for bad in (b"\x80", b"\x80" * 11, b"\x12\x05hi", b"\x0b", b"\x0d\x01"):
        with pytest.raises(MalformedError):
            list(fields(bad))


@pytest.mark.parametrize(("dims", "entries", "parameters"), [(1, 149, 846_817), (3, 257, 6_833_193)])
def test_golden_checkpoint_is_read_whole(weights, dims, entries, parameters):
    folder = weights(dims, 6)
    tensors = read_bundle(folder)
    assert len(tensors) == entries
    assert tensors["optimizer/iter" + VALUE] == 1000 + {1: 101, 3: 104}[dims]
    assert tensors["optimizer/iter" + VALUE].dtype == np.int64
    assert isinstance(tensors["_CHECKPOINTABLE_OBJECT_GRAPH"].item(), bytes)
    keys = weight_keys(dims)
    assert sum(tensors[key].size for key in keys) == parameters
    moments = [array for key, array in tensors.items() if "/.OPTIMIZER_SLOT/optimizer/m/" in key]
    assert len(moments) == {1: 43, 3: 75}[dims]
    assert all((array == -0.001953125).all() for array in moments)


def test_published_index_files_list_exactly_our_weights(golden, tmp_path):
    folder = unpack(golden("published_index", "published_index.tar.xz"), tmp_path)
    found = sorted(folder.rglob("weights.index"))
    assert len(found) == 11
    for path in found:
        dims = int(path.parts[-3][0])
        entries = read_bundle_index(path)
        assert len(entries) == {1: 149, 3: 257}[dims]
        for key, (_, shape) in weight_keys(dims).items():
            assert entries[key].shape == shape, key
        end = max(entries[key].offset + entries[key].size for key in weight_keys(dims))
        assert end == {1: 3_387_292, 3: 27_332_796}[dims]


def test_ways_to_name_a_checkpoint(weights, tmp_path):
    folder = weights(1, 10)
    prefix = folder / "weights"
    for name in (folder, prefix, folder / "weights.index", folder / "weights.data-00001-of-00002"):
        assert bundle_prefix(name) == prefix
    assert [path.name for path in bundle_files(folder)] == [
        "weights.index",
        "weights.data-00000-of-00002",
        "weights.data-00001-of-00002",
    ]
    with pytest.raises(WeightsError, match="holds no checkpoint"):
        bundle_prefix(tmp_path)
    with pytest.raises(WeightsError, match=r"none\.index does not exist"):
        bundle_prefix(tmp_path / "none")


@pytest.fixture
def copy(weights, tmp_path):
    return shutil.copytree(weights(1, 10), tmp_path / "copy")


def test_missing_and_short_shards(copy):
    shard = copy / "weights.data-00001-of-00002"
    data = shard.read_bytes()
    shard.write_bytes(data[:100_000])
    with pytest.raises(WeightsError, match=r"weights\.data-00001-of-00002 is cut short: 100\.0 kB are here"):
        read_bundle(copy)
    shard.unlink()
    with pytest.raises(WeightsError, match=r"weights\.data-00001-of-00002 of the checkpoint is missing") as caught:
        read_bundle(copy)
    assert str(copy) not in str(caught.value)


def test_one_changed_bit_in_a_shard_is_found(copy, monkeypatch, tmp_path):
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "cache"))
    shard = copy / "weights.data-00001-of-00002"
    data = bytearray(shard.read_bytes())
    data[1_000_000] ^= 4
    shard.write_bytes(data)
    with pytest.raises(WeightsError, match=r"is damaged: the checksum of layer_with_weights-.* does not match"):
        load_network(copy)
    shard.write_bytes(b"\0" * len(data))
    with pytest.raises(WeightsError, match="does not match"):
        read_bundle(copy, lambda key: key.endswith("cell/bias" + VALUE))


@pytest.mark.parametrize("at", [0, 5000, 11_200, -60])
def test_one_changed_bit_in_the_index_is_found(copy, at):
    index = copy / "weights.index"
    data = bytearray(index.read_bytes())
    data[at] ^= 16
    index.write_bytes(data)
    with pytest.raises(WeightsError, match=r"weights\.index is damaged"):
        read_bundle_index(copy)


@pytest.mark.parametrize("seed", range(20))
def test_scrambled_index_never_gives_a_foreign_error(copy, seed):
    index, whole = copy / "weights.index", read_bundle_index(copy)
    data = bytearray(index.read_bytes())
    generator, footer = np.random.default_rng(seed), len(data) - 48
    for position in generator.integers(footer if seed % 2 else 0, len(data) - 8 if seed % 2 else footer, 5):
        data[position] ^= int(generator.integers(1, 256))
    index.write_bytes(data)
    try:
        entries = read_bundle_index(copy)
    except WeightsError as error:
        assert error.message.startswith("weights.index is damaged")
    else:
        assert seed % 2 and entries == whole  # only the padding of the footer has no checksum


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "an empty file"), (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"), (b"<html>", "a web page")],
)
def test_what_is_no_index_is_named(copy, content, told):
    (copy / "weights.index").write_bytes(content)
    with pytest.raises(WeightsError, match=told):
        read_bundle_index(copy)
