"""Sets made from pictures hold exactly what the published programs put into them."""

from __future__ import annotations

import json
import tarfile

import h5py
import numpy as np
import pytest
from mri_deep_tools.errors import InputError, RequestError
from mri_deep_tools.translate.dataset_pictures import (
    PictureFolder,
    list_folder,
    set_paths,
    split_folder,
    write_picture_sets,
)
from mri_deep_tools.translate.dataset_split import Ratios, split, split_groups, subject_of
from mri_deep_tools.translate.dataset_tiles import (
    Original,
    is_nnunet,
    list_originals,
    read_tiles,
    tiles_path,
    write_tiles,
)
from mri_deep_tools.translate.pictures import write_picture
from mri_deep_tools.translate.tiles import stitch

pytest.importorskip("PIL.Image")


@pytest.fixture(scope="session")
def sources(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("png_sources")
    with tarfile.open(shared("fixtures", "syndiff", "png_sources.tar.gz")) as archive:
        archive.extractall(folder, filter="data")
    return folder


def content(path):
    """Return every entry of an HDF5 file: type, values, attributes."""
    found = {}

    def visit(name, entry):
        values = entry[()] if isinstance(entry, h5py.Dataset) else None
        found[name] = (None if values is None else (values.dtype, values), dict(entry.attrs))

    with h5py.File(path) as file:
        assert not file.attrs
        file.visititems(visit)
    return found


def assert_same_content(path, golden, original=lambda text: text):
    ours, theirs = content(path), content(golden)
    assert set(ours) == set(theirs)
    for name, (values, attributes) in theirs.items():
        found, given = ours[name]
        if values is not None:
            assert found[0] == values[0], name
            np.testing.assert_array_equal(found[1], values[1], err_msg=name)
        assert set(given) == set(attributes), name
        for key, value in attributes.items():
            mine = original(given[key]) if isinstance(value, str) else given[key]
            assert type(mine) is type(value)
            assert getattr(mine, "dtype", None) == getattr(value, "dtype", None)
            np.testing.assert_array_equal(mine, value, err_msg=f"{name} {key}")


# ----------------------------------------------------------------------------------------------------------- the split


@pytest.mark.parametrize(("count", "sizes"), [(10, (8, 1, 1)), (12, (8, 2, 2)), (13, (9, 2, 2))])
def test_split_has_the_published_sizes(count, sizes):
    parts = split(count, Ratios())
    assert tuple(map(len, parts.values())) == sizes
    assert sorted(k for numbers in parts.values() for k in numbers) == list(range(count))


def test_split_is_that_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.model_selection")
    for count in range(3, 60):
        for ratios in ((0.8, 0.1, 0.1), (0.7, 0.2, 0.1), (0.5, 0.25, 0.25)):
            rest, test = sklearn.train_test_split(range(count), test_size=ratios[2], random_state=42)
            share = ratios[1] / (ratios[0] + ratios[1])
            train, val = sklearn.train_test_split(rest, test_size=share, random_state=42)
            assert split(count, Ratios(*ratios)) == {"train": train, "val": val, "test": test}, (count, ratios)


def test_groups_stay_together_and_shares_may_be_nothing():
    groups = [f"sub-{k // 4:02d}" for k in range(40)]
    parts = split_groups(groups, Ratios(0.6, 0.2, 0.2))
    people = {part: {groups[k] for k in numbers} for part, numbers in parts.items()}
    assert [len(found) for found in people.values()] == [6, 2, 2]
    assert not people["train"] & people["val"] and not people["train"] & people["test"]
    assert split(2, Ratios(1, 0, 0)) == {"train": [1, 0], "val": [], "test": []}
    assert subject_of("data/sub-A1/micr/sub-A1_sample-2.png") == "sub-A1"
    assert subject_of("data/grab-sub/x_sub.png") == ""


def test_too_few_and_wrong_shares_are_told():
    for count in (0, 1, 2):
        with pytest.raises(InputError, match="too few"):
            split(count, Ratios())
    for shares in ((0.8, 0.1, 0.2), (0, 0.5, 0.5), (1.1, -0.1, 0), (float("nan"), 0, 1)):
        with pytest.raises(RequestError, match="shares"):
            Ratios(*shares)


# ------------------------------------------------------------------------------------------------------- training sets


def folders(sources):
    return {
        "T1": PictureFolder(sources / "A", 0.8),
        "T2": PictureFolder(sources / "B", 1.0),
    }


def test_training_sets_are_the_published_ones(shared, sources, tmp_path):
    order = json.loads(shared("fixtures", "syndiff", "dataset_info.json").read_text())["walk_order"]
    contents = {}
    for contrast, folder in folders(sources).items():
        files = [folder.path / name for name in order[contrast]]
        assert sorted(files) == list_folder(folder) == sorted(list_folder(folder, compatible=True))
        contents[contrast] = [(folder, split_folder(files, Ratios()))]
    outputs = set_paths(tmp_path)
    names = write_picture_sets(outputs, contents, compatible=True)
    for part, path in outputs.items():
        assert_same_content(path, shared("fixtures", "syndiff", f"dataset_{part}.hdf5"))
    listed = sorted(name for part in outputs for name in names[part]["T1"])
    assert listed == sorted(order["T1"])


def test_sorted_order_does_not_depend_on_the_disk(sources, tmp_path):
    folder = PictureFolder(sources / "A", 0.8)
    parts = split_folder(list_folder(folder), Ratios())
    assert [path.name for path in parts["test"]] == ["img_08.png"]  # RandomState(42).permutation(10) begins with 8
    outputs = set_paths(tmp_path, "axons", parts=("train",))
    write_picture_sets(outputs, {"T1": [(folder, parts)], "T2": [(folder, parts)]})
    assert [path.name for path in tmp_path.iterdir()] == ["axons_train.hdf5"]


def test_layouts_of_nnunet_and_exclusions(sources, tmp_path):
    notes: list[str] = []
    whole = list_folder(PictureFolder(sources / "nn" / "Dataset007_T1axons"), on_warning=notes.append)
    assert [path.name for path in whole] == ["AX_004_0000.png", "AX_005_0000.png", "AX_006_0000.png"]
    assert "imagesTr is used, labelsTr not" in notes[0]
    found = list_folder(PictureFolder(sources / "A", excluded=()), on_warning=notes.append)
    assert len(found) == 11
    only = list_folder(PictureFolder(sources / "A", excluded=("derivatives", "sub-03")))
    assert len(only) == 9
    with pytest.raises(InputError, match="has no pictures"):
        list_folder(PictureFolder(sources / "A" / "derivatives", excluded=("labels",)))


def test_label_maps_and_empty_pictures_are_refused_and_nothing_is_left(tmp_path):
    (tmp_path / "in").mkdir()
    grey = np.random.default_rng(0).integers(0, 256, (20, 20)).astype(np.uint8)
    for k in range(5):
        write_picture(grey, tmp_path / "in" / f"{k}.png")
    write_picture(grey % 3, tmp_path / "in" / "5.png")
    folder = PictureFolder(tmp_path / "in")
    contents = {"T1": [(folder, split_folder(list_folder(folder), Ratios()))]}
    with pytest.raises(InputError, match=r"5\.png has only 3 grey values"):
        write_picture_sets(set_paths(tmp_path / "out"), contents)
    assert not (tmp_path / "out").exists()
    with pytest.raises(RequestError):
        set_paths(tmp_path, "a/b")


def test_subjects_of_bids_stay_together(tmp_path):
    names = [tmp_path / f"sub-{k // 3}/micr/sub-{k // 3}_sample-{k}_TEM.png" for k in range(30)]
    parts = split_folder(names, Ratios(), by_subject=True)
    assert [len(part) for part in parts.values()] == [24, 3, 3]
    assert all(len({path.parts[-3] for path in parts[part]}) == 1 for part in ("val", "test"))


# ------------------------------------------------------------------------------------------------- to be translated


@pytest.mark.parametrize(("kind", "folder", "factor"), [("nn", "nn/Dataset007_T1axons", 0.9), ("plain", "plain", 1.0)])
def test_sets_to_be_translated_are_the_published_ones(shared, sources, tmp_path, kind, folder, factor):
    golden = shared("fixtures", "syndiff", f"to_translate_{kind}_T1.hdf5")
    order = list(dict.fromkeys(item.original for item in read_tiles(golden, "T1")))
    found = {item.image.name: item for item in list_originals(sources / folder)}
    originals = [found[path.rpartition("/")[2]] for path in order]
    output = tiles_path(tmp_path, "T1", "to_translate")
    write_tiles(output, "T1", originals, factor=factor, size=64, compatible=True)
    assert_same_content(output, golden, lambda text: text.replace(str(sources), "/data"))


def test_tiles_come_back_as_pictures(sources, tmp_path):
    originals = list_originals(sources / "plain")
    count = write_tiles(tmp_path / "a.hdf5", "T1", originals, size=40)
    stored = list(read_tiles(tmp_path / "a.hdf5", "T1"))
    assert len(stored) == count
    from mri_deep_tools.translate.pictures import read_picture

    mine = [item for item in stored if item.original == str(originals[1].image)]
    whole = stitch([item.values for item in mine], [item.location for item in mine])
    np.testing.assert_array_equal(whole, read_picture(originals[1].image))


def test_faults_of_sets_to_be_translated(sources, tmp_path):
    assert is_nnunet(sources / "nn/Dataset007_T1axons") and not is_nnunet(sources / "plain")
    with pytest.raises(InputError, match="no folder imagesTr"):
        list_originals(sources / "plain", nnunet=True)
    with pytest.raises(InputError, match="no pictures"):
        list_originals(sources / "nn")
    grey = np.arange(400, dtype=np.uint8).reshape(20, 20)
    image = write_picture(grey, tmp_path / "set/imagesTr/a_0000.png")
    with pytest.raises(InputError, match=r"a_0000\.png has no label map a\.png"):
        list_originals(tmp_path / "set")
    labels = write_picture(grey[:10] % 3, tmp_path / "set/labelsTr/a.png")
    with pytest.raises(InputError, match="different sizes"):
        write_tiles(tmp_path / "x.hdf5", "T1", [Original(image, labels)], size=16)
    assert not (tmp_path / "x.hdf5").exists()
    with pytest.raises(InputError, match="no labels of 'T1'"):
        write_tiles(tmp_path / "x.hdf5", "T1", [Original(image)], size=16)
        list(read_tiles(tmp_path / "x.hdf5", "T1", "labels"))
