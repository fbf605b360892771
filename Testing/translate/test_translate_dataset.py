"""Training images: published files are read exactly, and pairs are drawn by the rules, ours and the published ones."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest
import torch
from mri_deep_tools.errors import InputError, RequestError
from mri_deep_tools.translate.dataset import ContrastPairs
from mri_deep_tools.translate.dataset_sources import open_images, read_mat
from torch.utils.data import DataLoader


def coordinates(rows, columns, offset=0):
    """Return an image that says where a pixel came from: every value once (where there are at most 256)."""
    return ((np.arange(rows)[:, None] * columns + np.arange(columns) + offset) % 256).astype(np.uint8)


@pytest.fixture
def made(tmp_path):
    def make(counts=(5, 3), shape=(20, 24), *, attributes=None, name="set_train.hdf5"):
        path = tmp_path / name
        path.unlink(missing_ok=True)  # an earlier set may still be open
        with h5py.File(path, "w") as file:
            for contrast, count in zip(("A", "B"), counts, strict=True):
                group = file.create_group(contrast)
                group.attrs.update(attributes or {})
                for k in range(count):
                    group[str(k)] = coordinates(*shape, offset=10 * k)
        return path

    return make


# ---------------------------------------------------------------------------------------------------------- .mat files


@pytest.mark.parametrize("contrast", ["T1", "T2"])
def test_mat_files_are_read_as_published(shared, contrast):
    path = shared("fixtures", "syndiff", f"data_test_{contrast}.mat")
    with np.load(shared("fixtures", "syndiff", "mat_loader.npz")) as golden:
        found = read_mat(path, compatible=True)
        assert found.shape == golden[contrast].shape
        np.testing.assert_allclose(found, golden[contrast], atol=1e-7, rtol=0)
        if f"{contrast}_nopad_nonorm" in golden:
            plain = read_mat(path, size=None, normalise=False, compatible=True)
            np.testing.assert_allclose(plain, golden[f"{contrast}_nopad_nonorm"], atol=1e-7, rtol=0)


def test_odd_sides_are_padded_to_the_whole_size(shared):
    path = shared("fixtures", "syndiff", "data_test_T1.mat")
    found, plain = read_mat(path), read_mat(path, size=None)
    assert found.shape == (2, 1, 256, 256)
    np.testing.assert_array_equal(found[:, :, 78:178, 100:155], plain)
    assert (np.delete(found, np.s_[100:155], axis=3) == -1).all()


def test_real_sample_files_are_a_training_set(shared, tmp_path):
    for contrast in ("T1", "T2"):
        (tmp_path / f"data_train_{contrast}.mat").symlink_to(shared("data", "syndiff_sample", f"{contrast}.mat"))
    notes: list[str] = []
    pairs = ContrastPairs(tmp_path, ("T1", "T2"), 256, on_warning=notes.append)
    assert len(pairs) == 25 and not pairs.flips
    first, second = pairs[0]
    assert first.shape == second.shape == (1, 256, 256)
    assert (first[:, :, :52] == -1).all() and (first[:, :, 52:204] > -0.9).any()
    assert "25 of 25 images of T1" in notes[0] and "background" in notes[0]


def write_mat(path, values):
    with h5py.File(path, "w") as file:
        file["data_fs"] = values


def test_unusable_mat_files_are_told_by_name(tmp_path):
    good = np.full((2, 8, 10), 0.5, np.float32)
    write_mat(tmp_path / "large.mat", np.zeros((2, 300, 10), np.float32))
    write_mat(tmp_path / "flat.mat", good[0])
    write_mat(tmp_path / "channels.mat", np.stack([good, good]))
    write_mat(tmp_path / "raw.mat", good * 900)
    write_mat(tmp_path / "nan.mat", good * np.nan)
    write_mat(tmp_path / "none.mat", good[:0])
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with h5py.File(tmp_path / "other.mat", "w") as file:
        file["images"] = good
    for name in ("large", "flat", "channels", "raw", "nan", "none", "old", "other", "absent"):
        with pytest.raises(InputError, match=rf"{name}\.mat"):
            read_mat(tmp_path / f"{name}.mat")


# --------------------------------------------------------------------------------------------------------- HDF5 files


def test_published_sets_are_read(shared):
    source = open_images(shared("fixtures", "syndiff", "dataset_train.hdf5"), ("T1", "T2"))
    assert source.shapes("T1") == [(72, 80)] * 8
    assert source.facts("T1") == {}
    with h5py.File(shared("fixtures", "syndiff", "dataset_train.hdf5")) as file:
        expected = file["T2"]["7"][()] / np.float32(127.5) - 1
    np.testing.assert_allclose(source.image("T2", 7), expected, atol=1e-7)


def test_a_folder_is_searched_for_the_split(made, tmp_path):
    path = made(name="set_val.hdf5")
    assert open_images(tmp_path, ("A", "B"), split="val").name == path.name
    with pytest.raises(InputError, match=r"no \*_train\.hdf5, nor data_train_A\.mat"):
        open_images(tmp_path, ("A", "B"))
    made(name="other_val.hdf5")
    with pytest.raises(InputError, match="several val sets"):
        open_images(tmp_path, ("A", "B"), split="val")


def test_unusable_sets_are_told(made, tmp_path):
    path = made()
    with pytest.raises(InputError, match="no contrast 'T1'; it has A, B"):
        open_images(path, ("T1", "A"))
    (tmp_path / "cut.hdf5").write_bytes(path.read_bytes()[:1000])
    for name in ("cut.hdf5", "absent.hdf5"):
        with pytest.raises(InputError, match=name):
            open_images(tmp_path / name, ("A", "B"))
    with h5py.File(path, "a") as file:
        file["A/5"] = np.zeros((2, 3, 4))
        file.create_group("empty")
    with pytest.raises(InputError, match="A/5"):
        open_images(path, ("A", "B"))
    with pytest.raises(InputError, match="no images of 'empty'"):
        open_images(path, ("B", "empty"))


# -------------------------------------------------------------------------------------------------------------- pairs


def whose(square):
    """Return the first value of a square as it is in the file."""
    return torch.round((square + 1) * 127.5).to(torch.int64)


def test_an_epoch_shows_every_image_and_the_next_in_another_order(made):
    pairs = ContrastPairs(made(shape=(16, 16)), ("A", "B"), 16, flips=False)
    assert len(pairs) == 5
    orders = []
    for epoch in range(3):
        pairs.set_epoch(epoch)
        seen = [(int(whose(a)[0, 0, 0]) // 10, int(whose(b)[0, 0, 0]) // 10) for a, b in pairs]
        assert sorted(a for a, _ in seen) == [0, 1, 2, 3, 4]
        assert [b for _, b in seen[3:]] == [b for _, b in seen[:2]]  # i mod 3
        assert {b for _, b in seen} == {0, 1, 2}
        orders.append(tuple(seen))
    assert len(set(orders)) == 3
    again = ContrastPairs(pairs.source, ("A", "B"), 16, flips=False)
    torch.testing.assert_close(again.sample(7)[0], _at(pairs, 1, 2)[0])


def _at(pairs, epoch, index):
    pairs.set_epoch(epoch)
    return pairs[index]


def test_squares_are_cut_out_and_turned_over_independently(made):
    pairs = ContrastPairs(made((1, 1)), ("A", "B"), 12)
    image = coordinates(20, 24)
    windows = {}
    for row in range(9):
        for column in range(13):
            window = image[row : row + 12, column : column + 12]
            for turns in range(4):
                turned = window[:: -1 if turns & 1 else 1, :: -1 if turns & 2 else 1]
                windows[turned.tobytes()] = (row, column, turns)
    seen = [[windows[whose(s)[0].numpy().astype(np.uint8).tobytes()] for s in pairs.sample(n)] for n in range(400)]
    for contrast in range(2):
        drawn = [pair[contrast] for pair in seen]
        assert {row for row, _, _ in drawn} == set(range(9))
        assert {column for _, column, _ in drawn} == set(range(13))
        assert all(60 < sum(turns == k for _, _, turns in drawn) < 140 for k in range(4))
    assert sum(a == b for a, b in seen) < 20


def test_pairs_share_the_draws_and_the_published_ones_do_not(made):
    path = made((4, 4))
    ours = ContrastPairs(path, ("A", "B"), 12, paired=True)
    assert all(torch.equal(*ours.sample(n)) for n in range(12))
    published = ContrastPairs(path, ("A", "B"), 12, paired=True, compatible=True)
    assert sum(torch.equal(*published.sample(n)) for n in range(12)) < 4
    whole = ContrastPairs(made((4, 4), shape=(12, 12)), ("A", "B"), 12, paired=True, training=False, compatible=True)
    assert all(torch.equal(*whole.sample(n)) for n in range(4))
    with pytest.raises(InputError, match="5 images of A and 3 of B"):
        ContrastPairs(made((5, 3)), ("A", "B"), 12, paired=True)


def test_validation_shows_the_middle_in_order(made):
    pairs = ContrastPairs(made(), ("A", "B"), 12, training=False)
    for epoch in range(2):
        first = _at(pairs, epoch, 3)[0]
        np.testing.assert_array_equal(whose(first)[0], coordinates(20, 24, 30)[4:16, 6:18])
    published = ContrastPairs(made(), ("A", "B"), 12, training=False, compatible=True)
    middle = coordinates(20, 24, 30)[4:16, 6:18]
    assert any(not np.array_equal(whose(published.sample(n)[0])[0], middle) for n in range(3, 20, 5))


def test_small_images_are_padded_with_a_message(made):
    notes: list[str] = []
    pairs = ContrastPairs(made((2, 2), (12, 20)), ("A", "B"), 16, training=False, on_warning=notes.append)
    assert notes[0].startswith("2 of 2 images of A in set_train.hdf5 are smaller than 16 pixels")
    assert notes[0].endswith("padded with their mirror image")
    square = whose(pairs[0][0])[0].numpy()
    np.testing.assert_array_equal(square[2:14], coordinates(12, 20)[:, 2:18])
    np.testing.assert_array_equal(square[1], square[2])
    slices = ContrastPairs(made((2, 2), (12, 20), attributes={"slice_axis": "axial"}), ("A", "B"), 16, training=False)
    assert (slices[0][0][0, [0, 1, 14, 15]] == -1).all()
    with pytest.raises(InputError, match="smaller than 16"):
        ContrastPairs(made((2, 2), (12, 20)), ("A", "B"), 16, compatible=True)


def test_loaders_with_workers_give_the_same(made):
    pairs = ContrastPairs(made(), ("A", "B"), 12)
    alone = [pairs[k] for k in range(5)]
    _ = pairs.source.image("A", 0)  # an open file must not travel to the workers
    together = list(DataLoader(pickle.loads(pickle.dumps(pairs)), batch_size=1, num_workers=2))
    for (a, b), (c, d) in zip(alone, together, strict=True):
        assert torch.equal(a, c[0]) and torch.equal(b, d[0])


@pytest.mark.parametrize("contrasts", [("A",), ("A", "A"), ("A", "")])
def test_two_names_are_needed(made, contrasts):
    with pytest.raises(RequestError, match="two contrasts"):
        ContrastPairs(made(), contrasts, 12)
