"""Tiles, scaling and pictures: golden data of AxonDeepSynth's cutting and pasting, and files of every kind."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from mri_deep_tools.errors import InputError, RequestError
from mri_deep_tools.translate.pictures import list_pictures, read_picture, write_picture
from mri_deep_tools.translate.tiles import blend, centre_crop, centre_pad, resize_nearest, stitch, tile, tile_locations

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def cuts(shared):
    with np.load(shared("fixtures", "syndiff", "tiling_and_resize.npz")) as data:
        return dict(data)


# -------------------------------------------------------------------------------------------------------------- tiles


@pytest.mark.parametrize("case", [0, 1, 2])
def test_tiles_are_the_published_ones(cuts, case):
    tiles, places = tile(cuts[f"case{case}_image"], int(cuts[f"case{case}_tile"]))
    np.testing.assert_array_equal(np.stack(tiles), cuts[f"case{case}_tiles"])
    np.testing.assert_array_equal(places, cuts[f"case{case}_locations_xy"])


@pytest.mark.parametrize("case", [0, 1, 2])
def test_stitching_is_the_published_one(cuts, case):
    tiles = [part // 2 + 3 * i for i, part in enumerate(cuts[f"case{case}_tiles"])]
    expected = cuts[f"case{case}_stitched_of_tile//2+3i"]
    places = cuts[f"case{case}_locations_xy"]
    np.testing.assert_array_equal(stitch([part.astype(np.uint8) for part in tiles], places), expected)
    whole = stitch([part.astype(np.uint8) for part in tiles], places, expected.shape)
    np.testing.assert_array_equal(whole, expected)


@pytest.mark.parametrize("case", range(5))
def test_nearest_scaling_is_the_published_one(cuts, case):
    scaled = resize_nearest(cuts[f"resize{case}_in"], float(cuts[f"resize{case}_factor"]))
    np.testing.assert_array_equal(scaled, cuts[f"resize{case}_out"])


@pytest.mark.parametrize(("shape", "size", "overlap"), [((70, 101), 32, 8), ((33, 90), 32, 31), ((20, 64), 32, 16)])
def test_overlapping_tiles_cover_everything_and_overlap_enough(shape, size, overlap):
    places = tile_locations(shape, size, overlap)
    covered = np.zeros(shape, dtype=int)
    for x, y in places:
        covered[y : y + size, x : x + size] += 1
    assert covered.min() >= 1
    columns = sorted({x for x, _ in places})
    assert all(b - a <= size - overlap for a, b in itertools.pairwise(columns))
    assert columns[-1] + size == max(shape[1], size)
    assert len(set(places)) == len(places)


def test_blending_returns_the_picture_and_smooths_seams():
    image = np.random.default_rng(0).integers(0, 256, (70, 101)).astype(np.uint8)
    tiles, places = tile(image, 32, 12)
    np.testing.assert_allclose(blend(tiles, places, image.shape), image, atol=1e-4)
    constant = [np.full(part.shape, 100.0 + 20 * (i % 2), np.float32) for i, part in enumerate(tiles)]
    steps = np.abs(np.diff(blend(constant, places), axis=1)).max()
    assert steps < 5 < np.abs(np.diff(stitch(constant, places), axis=1)).max()


def test_scaling_back_to_a_size_and_padding_have_an_inverse():
    image = np.arange(35 * 21, dtype=np.int32).reshape(35, 21)
    assert np.array_equal(resize_nearest(resize_nearest(image, 2.0), 1.0, shape=image.shape), image)
    padded, start = centre_pad(image, (40, 32), -1)
    assert padded.shape == (40, 32) and start == (2, 5)
    np.testing.assert_array_equal(centre_crop(padded, image.shape, start), image)
    assert centre_pad(image, (40, 32), compatible=True)[0].shape == (39, 31)  # the published fault


@pytest.mark.parametrize("factor", [0, -1, float("nan"), 0.01])
def test_scaling_refuses_what_leaves_nothing(factor):
    with pytest.raises(RequestError):
        resize_nearest(np.zeros((20, 20), np.uint8), factor)


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (32, 32), (32, -1)])
def test_impossible_tiles_are_refused(size, overlap):
    with pytest.raises(RequestError):
        tile_locations((64, 64), size, overlap)


# ----------------------------------------------------------------------------------------------------------- pictures


@pytest.fixture
def grey():
    return np.random.default_rng(1).integers(0, 256, (30, 41)).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp"])
def test_pictures_come_back_exactly(tmp_path, grey, suffix):
    path = write_picture(grey, tmp_path / f"new/a{suffix}", text={"Software": "MRI Deep Tools", "Note": "SYNTHETIC"})
    notes: list[str] = []
    np.testing.assert_array_equal(read_picture(path, on_warning=notes.append), grey)
    assert notes == []
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_notes_travel_in_the_file(tmp_path, grey):
    with Image.open(write_picture(grey, tmp_path / "a.png", text={"Note": "SYNTHETIC"})) as picture:
        assert picture.text == {"Note": "SYNTHETIC"}
    with Image.open(write_picture(grey, tmp_path / "a.tif", text={"Note": "SYNTHETIC"})) as picture:
        assert picture.tag_v2[270] == "Note: SYNTHETIC"


def saved(folder, kind, grey):
    if kind == "16":
        made = Image.fromarray(grey.astype(np.uint16) * 257)
    elif kind == "12":
        made = Image.fromarray((grey * (4095 / 255)).round().astype(np.uint16))
    elif kind == "unit":
        made = Image.fromarray((grey / 255).astype(np.float32))
    elif kind == "float":
        made = Image.fromarray(grey.astype(np.float32))
    elif kind == "rgba":
        made = Image.merge("RGBA", [Image.fromarray(grey)] * 4)
    else:
        made = Image.fromarray(grey).convert(kind)
    path = folder / f"picture_{kind}.tif"
    made.save(path)
    return path


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("16", "16 bits; 0..65535"),
        ("12", "16 bits; 0..4095"),
        ("unit", "0..1 becomes"),
        ("float", "rounded"),
        ("RGB", "colour"),
        ("rgba", "colour"),
        ("P", "palette"),
        ("LA", "transparency"),
    ],
)
def test_other_kinds_become_grey_with_a_message(tmp_path, grey, kind, word):
    notes: list[str] = []
    path = saved(tmp_path, kind, grey)
    if kind == "LA":
        path = path.with_suffix(".png")
        Image.fromarray(grey).convert("LA").save(path)
    np.testing.assert_array_equal(read_picture(path, on_warning=notes.append), grey)
    assert len(notes) == 1 and word in notes[0] and notes[0].startswith(path.name)


def test_of_several_pages_the_first_is_used(tmp_path, grey):
    path = tmp_path / "stack.tif"
    Image.fromarray(grey).save(path, save_all=True, append_images=[Image.fromarray(255 - grey)])
    notes: list[str] = []
    np.testing.assert_array_equal(read_picture(path, on_warning=notes.append), grey)
    assert "2 pages" in notes[0]


def test_codes_of_label_maps_stay(tmp_path):
    codes = np.array([[0, 1, 2], [2, 1, 7]], np.uint8)
    Image.fromarray(codes).save(tmp_path / "grey.png")
    Image.fromarray(codes.astype(np.uint16)).save(tmp_path / "deep.png")
    palette = Image.fromarray(codes)
    palette.putpalette([9, 9, 9] * 256)
    palette.save(tmp_path / "palette.png")
    for name in ("grey.png", "deep.png", "palette.png"):
        np.testing.assert_array_equal(read_picture(tmp_path / name, labels=True), codes)
    Image.fromarray(np.full((4, 4, 3), 5, np.uint8)).save(tmp_path / "colour.png")
    with pytest.raises(InputError, match="not a label map"):
        read_picture(tmp_path / "colour.png", labels=True)


def test_unusable_files_are_told_by_name(tmp_path, grey):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    write_picture(grey, tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:300])
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tif")
    Image.fromarray(np.full((4, 4), -7, np.float32)).save(tmp_path / "negative.tif")
    for name in ("empty.png", "text.png", "cut.png", "nan.tif", "negative.tif", "absent.png"):
        with pytest.raises(InputError, match=name):
            read_picture(tmp_path / name)


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4)), np.zeros((0, 4), np.uint8)])
def test_only_grey_pictures_are_written(tmp_path, image):
    with pytest.raises(RequestError, match=r"a\.png"):
        write_picture(image, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_listing_is_sorted_and_leaves_out_folders(tmp_path, grey):
    for name in ("b/2.png", "b/derivatives/3.png", "a/1.TIF", "0.png", "a/note.txt", "a/._1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_pictures(tmp_path, recursive=True)]
    assert found == ["0.png", "a/1.TIF", "b/2.png", "b/derivatives/3.png"]
    kept = list_pictures(tmp_path, recursive=True, excluded=["derivatives"])
    assert [path.name for path in kept] == ["0.png", "1.TIF", "2.png"]
    assert [path.name for path in list_pictures(tmp_path)] == ["0.png"]
    with pytest.raises(InputError, match="absent"):
        list_pictures(tmp_path / "absent")
