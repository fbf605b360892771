"""Translation by the Python call: golden pictures of the published program, and what holds for scans and samples."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mri_deep_tools.errors import InputError, RequestError, WeightsError
from mri_deep_tools.translate.diffusion import draw
from mri_deep_tools.translate.folders import (
    grey_values,
    mapping_text,
    network_values,
    read_tile_set,
    synthetic_names,
    translate_picture,
)
from mri_deep_tools.translate.nnunet_sets import AXON_LABELS, new_dataset
from mri_deep_tools.translate.options import TranslateOptions, same_contrast
from mri_deep_tools.translate.pictures import read_picture
from mri_deep_tools.translate.predict import Translator, translate
from mri_deep_tools.translate.sampling import published_numbers, run_pieces, seeded_numbers, stored_numbers
from mri_deep_tools.volume import Volume
from translation_models import head, picture, tiny_model

GREY_SHARE = 0.001  # of pixels that may differ by one grey value (README of the golden data)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def golden_model(shared, tmp_path_factory):
    """Return the folder of the network that made the golden pictures, under its published names."""
    folder = tmp_path_factory.mktemp("golden") / "small"
    folder.mkdir()
    packed = shared("fixtures", "syndiff", "gen_diffusive_1_small.pth.gz")
    (folder / "gen_diffusive_2_50.pth").write_bytes(gzip.decompress(packed.read_bytes()))
    (folder / "model.json").write_text('{"contrasts": ["T1", "T2"], "image_size": 64, "rule": "bytes"}')
    return folder


@pytest.fixture(scope="module")
def golden_output(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden-output")
    with tarfile.open(shared("fixtures", "syndiff", "translate_output.tar.gz")) as archive:
        archive.extractall(folder, filter="data")
    return folder


def golden_translator(shared, model, kind, **options):
    with np.load(shared("fixtures", "syndiff", f"translate_noise_{kind}.npz")) as noise:
        numbers = stored_numbers(noise["noise_init"], noise["z"], noise["noise"])
    keywords = {"to": "T2", "weights": model, "compatible": True, "threads": 1, **options}
    return Translator(TranslateOptions(**keywords), numbers=numbers)


def assert_same_picture(found, expected):
    assert found.shape == expected.shape
    apart = np.abs(found.astype(int) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= GREY_SHARE


# ---------------------------------------------------------------------------------------------------------- golden data


@pytest.mark.parametrize("kind", ["plain", "nn"])
def test_published_sets_of_tiles_become_the_published_pictures(shared, golden_model, golden_output, kind, tmp_path):
    translator = golden_translator(shared, golden_model, kind)
    contrast, stored = read_tile_set(shared("fixtures", "syndiff", f"to_translate_{kind}_T1.hdf5"), None)
    assert contrast == "T1"
    names = synthetic_names([Path(item.path).name for item in stored], "T2", strict=True)
    folder = {"plain": "plain_out", "nn": "nnUNet_raw/Dataset005_SYNTH_T2_from_T1/imagesTr"}[kind]
    expected = golden_output / folder
    assert sorted(names) == sorted(path.name for path in expected.glob("*.png"))
    made = [translator.translate_stored(item, f"{kind}.hdf5", k) for k, item in enumerate(stored)]
    for name, result in zip(names, made, strict=True):
        assert_same_picture(result.image, read_picture(expected / name))
    mapping = json.loads((expected / "translated_to_original_paths.json").read_text())
    assert {Path(key).name: value for key, value in mapping.items()} == {
        name: item.path for name, item in zip(names, stored, strict=True)
    }
    assert mapping_text(mapping) == (expected / "translated_to_original_paths.json").read_text()
    if kind == "plain":
        return
    final = tmp_path / "Dataset005_SYNTH_T2_from_T1"
    with new_dataset(final, "T2", overwrite=False) as dataset:
        for name, item, result in zip(names, stored, made, strict=True):
            dataset.add(name, result.image, item.labels, item.path, {})
        dataset.finish(AXON_LABELS)
        assert not final.exists()
    root = expected.parent
    assert sorted(path.name for path in final.rglob("*")) == sorted(path.name for path in root.rglob("*"))
    assert (final / "dataset.json").read_text() == (root / "dataset.json").read_text()
    assert list(json.loads((final / "imagesTr" / "translated_to_original_paths.json").read_text()).values()) == list(
        mapping.values()
    )
    for path in (root / "labelsTr").iterdir():
        found = read_picture(final / "labelsTr" / path.name, labels=True)
        assert np.array_equal(found, read_picture(path, labels=True))


def test_a_folder_gives_what_its_set_of_tiles_gives(shared, golden_model, golden_output, tmp_path):
    """The same pictures, read from their folder and cut here, become the published ones too."""
    with tarfile.open(shared("fixtures", "syndiff", "png_sources.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    translator = golden_translator(shared, golden_model, "plain")
    for number in range(2):
        result = translator.translate_picture(tmp_path / "plain" / f"slide{number}.png", number=number)
        expected = read_picture(golden_output / "plain_out" / f"SYNTH_T2_00{number}_0000.png")
        assert_same_picture(result.image, expected)
    translator = golden_translator(shared, golden_model, "nn", scale_factor=0.9)
    source = tmp_path / "nn" / "Dataset007_T1axons" / "imagesTr" / "AX_005_0000.png"  # the first of the original
    folder = golden_output / "nnUNet_raw" / "Dataset005_SYNTH_T2_from_T1" / "imagesTr"
    expected = read_picture(folder / "SYNTH_T2_005_0000.png")
    assert_same_picture(translator.translate_picture(source).image, expected)


# ------------------------------------------------------------------------------------------------------------ pictures


def identity(pieces, keys):
    return pieces, None


@pytest.mark.parametrize("shape", [(33, 95), (32, 32), (7, 64), (3, 2), (100, 31)])
@pytest.mark.parametrize("stitching", ["blend", "published"])
def test_pictures_of_any_size_keep_size_and_content(shape, stitching):
    """With a network that changes nothing, nothing is changed."""
    grey = picture(shape)
    options = TranslateOptions(to="T2", model="m", stitching=stitching)
    made = translate_picture(grey, 32, 4, identity, options)
    assert made.image.dtype == np.uint8
    if stitching == "blend":
        assert np.array_equal(made.image, grey)
    else:  # v / 127.5 - 1 and back, cut off: rounding can cost one grey value, as in the published program
        assert np.array_equal(made.image, grey_values(network_values(grey), published=True))
        assert np.abs(made.image.astype(int) - grey).max() <= 1


def test_scaling_is_undone_unless_it_is_to_stay():
    grey = picture((60, 80))
    back = translate_picture(grey, 32, 4, identity, TranslateOptions(to="T2", model="m", scale_factor=0.5))
    assert back.image.shape == (60, 80)
    assert np.abs(back.image.astype(int) - grey).mean() < 8
    kept = translate_picture(
        grey, 32, 4, identity, TranslateOptions(to="T2", model="m", scale_factor=0.5, keep_scale=True)
    )
    assert np.array_equal(kept.image, grey[::2, ::2])
    published = TranslateOptions(to="T2", model="m", scale_factor=0.9, compatible=True)
    assert translate_picture(grey, 32, 4, identity, published).image.shape == (54, 72)


def test_blending_leaves_no_seam():
    """Tiles that differ by a constant meet in a slope, not in a step."""

    def shifted(pieces, keys):
        return pieces + np.array([0.2 * (key[1] % 2) for key in keys], np.float32)[:, None, None], None

    grey = np.full((32, 104), 100, np.uint8)
    steps = {}
    for stitching, overlap in (("blend", 16), ("published", None)):
        options = TranslateOptions(to="T2", model="m", stitching=stitching, overlap=overlap)
        made = translate_picture(grey, 32, 4, shifted, options).image[16].astype(int)
        steps[stitching] = np.abs(np.diff(made)).max()
    assert steps["published"] >= 25
    assert steps["blend"] <= 4


def test_names_are_the_published_ones():
    assert synthetic_names(["a_123_0000.png", "b.png"], "TEM") == ["SYNTH_TEM_123_0000.png", "SYNTH_TEM_001_0000.png"]
    twice = ["a_001_0000.png", "b.png"]
    assert synthetic_names(twice, "T2") == ["SYNTH_T2_000_0000.png", "SYNTH_T2_001_0000.png"]
    with pytest.raises(RequestError, match="SYNTH_T2_001_0000"):
        synthetic_names(twice, "T2", strict=True)


# --------------------------------------------------------------------------------------------------------------- scans


def test_a_scan_keeps_its_grid_and_its_empty_slices_stay_empty(model):
    scan = head()
    result = translate(scan, "T2", weights=model, threads=1)
    assert np.array_equal(result.image.affine, scan.affine)
    assert result.image.data.shape == scan.shape3
    assert result.image.data.dtype == np.float32
    assert 0 <= result.image.data.min() < result.image.data.max() <= 1
    used = np.flatnonzero(result.image.data.any(axis=(0, 1)))
    assert result.facts["SlicesTranslated"] == len(used) < scan.shape3[2]
    assert (result.source, result.target) == ("T1", "T2")
    assert set(result.seconds) >= {"read", "prepare", "translate"}
    assert result.facts["IntensityDivisor"] == pytest.approx(5 * scan.data.mean(), rel=1e-4)


def test_what_a_slice_becomes_does_not_depend_on_its_company(model):
    """Batches, a range of slices and a second run give the same values; another seed gives others."""
    scan, fixed = head(), {"weights": model, "threads": 1}
    whole = translate(scan, "T2", **fixed).image.data
    for options in ({"batch": 5}, {"batch": 1}):
        np.testing.assert_allclose(translate(scan, "T2", **fixed, **options).image.data, whole, atol=2e-6)
    part = translate(scan, "T2", **fixed, slices="5:7").image.data
    np.testing.assert_allclose(part[:, :, 5:7], whole[:, :, 5:7], atol=2e-6)
    assert not part[:, :, :5].any() and not part[:, :, 7:].any()
    assert np.abs(translate(scan, "T2", **fixed, seed=7).image.data - whole).max() > 0.01


def test_the_same_noise_makes_equal_slices_equal(model):
    column = head().data[:, :, 6]
    scan = Volume(np.repeat(column[:, :, None], 4, axis=2), np.eye(4))
    differ = translate(scan, "T2", weights=model, threads=1).image.data
    equal = translate(scan, "T2", weights=model, threads=1, same_noise=True).image.data
    assert np.abs(np.diff(differ, axis=2)).max() > 0.01
    np.testing.assert_allclose(equal, equal[:, :, :1].repeat(4, axis=2), atol=2e-6)


def test_samples_give_mean_and_standard_deviation(model):
    scan, fixed = head(), {"weights": model, "threads": 1, "slices": "6"}
    translator = Translator(to="T2", samples=3, **fixed)
    result = translator.translate(scan)
    ordinary = translator.numbers
    singles = []
    for wanted in range(3):
        single = Translator(to="T2", **fixed, numbers=lambda key, _, shape, k=wanted: ordinary(key, k, shape))
        singles.append(single.translate(scan).image.data)
    np.testing.assert_allclose(result.image.data, np.mean(singles, axis=0), atol=2e-6)
    np.testing.assert_allclose(result.spread.data, np.std(singles, axis=0, ddof=1), atol=2e-6)
    assert result.spread.data[:, :, 6].max() > 0.001
    assert np.array_equal(result.spread.affine, scan.affine)


def test_output_factor_background_and_mask(model):
    scan, fixed = head(), {"weights": model, "threads": 1, "slices": "4:8"}
    plain = translate(scan, "T2", **fixed).image.data
    doubled = translate(scan, "T2", **fixed, output_factor=400).image.data
    np.testing.assert_allclose(doubled, 400 * plain, rtol=1e-5, atol=1e-3)
    cut = translate(scan, "T2", **fixed, background="zero").image.data
    inside = cut > 0
    np.testing.assert_array_equal(cut[inside], plain[inside])
    ball = scan.data > 100
    assert (inside[:, :, 4:8] | ~ball[:, :, 4:8]).all()
    assert inside[:, :, 4:8].sum() < 1.4 * ball[:, :, 4:8].sum()
    mask = np.zeros(scan.shape3, bool)
    mask[10:18, 10:20, 4:8] = True
    masked = translate(scan, "T2", **fixed, mean="mask", mask=mask, background="zero")
    assert masked.facts["IntensityDivisor"] == pytest.approx(5 * scan.data[mask].mean(), rel=1e-4)
    assert not masked.image.data[~mask].any()


@pytest.mark.parametrize("axis", ["coronal", "sagittal"])
def test_other_axes_and_larger_slices_by_tiles(model, axis):
    """Slices of 48 x 40 pixels, of which the head fills all, need tiles; the network's are 32."""
    rng = np.random.default_rng(1)
    scan = Volume(rng.uniform(50, 100, (48, 48, 40)), np.eye(4))
    result = translate(scan, "T2", weights=model, axis=axis, slices="20:22", threads=1)
    assert result.facts["Window"] == "4 tiles per slice"
    moved = np.moveaxis(result.image.data, {"coronal": 1, "sagittal": 0}[axis], -1)
    assert moved[:, :, 20:22].min() > 0
    assert not moved[:, :, :20].any()
    assert any("axial slices" in warning for warning in result.warnings)


def test_slices_are_resampled_to_the_models_pixels_and_back(tmp_path):
    folder = tiny_model(tmp_path / "coarse", in_plane_spacing_mm=4.0)
    scan = head()
    result = translate(scan, "T2", weights=folder, threads=1, slices="5:7")
    assert result.facts["PixelMm"] == [4.0, 4.0]
    assert result.facts["SliceShape"] == [15, 14]
    assert result.image.data.shape == scan.shape3
    assert np.array_equal(result.image.affine, scan.affine)
    fine = translate(scan, "T2", weights=folder, threads=1, slices="5:7", pixel=2.0)
    assert not fine.facts["Resampled"]


def test_the_mean_is_taken_where_the_training_took_it(tmp_path):
    folder, scan = tiny_model(tmp_path / "masked", region="mask"), head()
    mask = scan.data > 500
    fixed = {"weights": folder, "threads": 1, "slices": "6", "mask": mask}
    result = translate(scan, "T2", **fixed)
    assert result.facts["MeanOver"] == "mask"
    assert result.facts["IntensityDivisor"] == pytest.approx(5 * scan.data[mask].mean(), rel=1e-4)
    whole = translate(scan, "T2", **fixed, mean="volume")
    assert whole.facts["IntensityDivisor"] == pytest.approx(5 * scan.data.mean(), rel=1e-4)


def test_an_unknown_constant_is_told(tmp_path):
    folder = tiny_model(tmp_path / "unknown", constants={})
    scan = head()
    result = translate(scan, "T2", weights=folder, threads=1, slices="6")
    assert any("--constant" in warning for warning in result.warnings)
    assert result.facts["IntensityDivisor"] == pytest.approx(np.percentile(scan.data, 99.9) / 0.9, rel=1e-4)
    given = translate(scan, "T2", weights=folder, threads=1, slices="6", constant=5)
    assert not given.warnings
    assert given.facts["IntensityDivisor"] == pytest.approx(5 * scan.data.mean(), rel=1e-4)


# ------------------------------------------------------------------------------------------------------- random numbers


def test_published_numbers_are_one_stream_after_one_draw():
    numbers = published_numbers(42, 2, 3)
    found = [numbers((0, k), 0, (4, 5)) for k in range(2)]
    torch.manual_seed(42)
    torch.empty((), dtype=torch.int64).random_()
    for item in found:
        expected = draw((1, 4, 5), 2, 3)
        assert torch.equal(item.start, expected.start)
        assert torch.equal(item.latents, expected.latents)
        assert torch.equal(item.noises, expected.noises)


def test_seeded_numbers_are_normal_and_differ_by_piece_and_sample():
    numbers = seeded_numbers(1, 1, 2)
    seen = [numbers(key, sample, (64, 64)).start for key in ((0,), (1,), (0, 1)) for sample in (0, 1)]
    values = torch.cat(seen).flatten(1)
    assert abs(float(values.mean())) < 0.02
    assert abs(float(values.std()) - 1) < 0.02
    correlation = torch.corrcoef(values)
    assert (correlation - torch.eye(len(seen))).abs().max() < 0.08
    same = seeded_numbers(1, 1, 2, same=True)
    assert torch.equal(same((3, 1), 0, (4, 4)).start, same((8, 1), 0, (4, 4)).start)
    assert not torch.equal(same((3, 1), 0, (4, 4)).start, same((3, 2), 0, (4, 4)).start)


def test_progress_is_told_within_a_pass_and_can_end_it(model):
    class EndedError(Exception):
        pass

    translator = Translator(to="T2", weights=model, threads=1)
    engine = translator._engine_on(torch.device("cpu"))
    shares = []

    def done(share):
        shares.append(share)
        if share > 1.5:
            raise EndedError

    pieces = np.zeros((4, 32, 32), np.float32)
    with pytest.raises(EndedError):
        run_pieces(engine, pieces, [(k,) for k in range(4)], translator.numbers, done=done)
    assert shares == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": " "}, "no contrast"),
        ({"to": "T2", "samples": 0}, "samples"),
        ({"to": "T2", "seed": -1}, "seed"),
        ({"to": "T2", "axis": "up"}, "axis"),
        ({"to": "T2", "scale_factor": 0}, "scale factor"),
        ({"to": "T2", "output_factor": float("nan")}, "output factor"),
        ({"to": "T2", "constant": -1}, "constant"),
        ({"to": "T2", "compatible": True, "samples": 2}, "--samples"),
        ({"to": "T2", "model": "a", "weights": "b"}, "one of"),
        ({"to": "FLAIR"}, "FLAIR"),
        ({"to": "T2", "source": "PD"}, "not from PD"),
        ({"to": "T2", "tile_size": 33}, "multiple of 2"),
        ({"to": "T2", "overlap": 32}, "overlap"),
        ({"to": "T2", "device": "abacus"}, "device"),
    ],
)
def test_requests_that_cannot_be(model, options, message):
    keywords = options if "weights" in options else {**options, "weights": model}
    with pytest.raises(RequestError, match=message):
        Translator(**keywords).translate_picture(picture((64, 64)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((8, 8, 8)), "same value"),
        (np.full((8, 8, 8), np.nan), "same value"),
        (np.random.default_rng(0).uniform(-9, -1, (8, 8, 8)), "positive intensities"),
        (np.ones((8, 8, 8, 3)), "3 frames"),
    ],
)
def test_scans_that_cannot_be_translated(model, data, message):
    with pytest.raises(InputError, match=message):
        translate(Volume(data, np.eye(4)), "T2", weights=model)


def test_models_that_are_none(tmp_path, model):
    with pytest.raises(WeightsError, match="does not exist"):
        translate(head(), "T2", weights=tmp_path / "none")
    file = tmp_path / "gen_diffusive_1_0.pth"
    file.write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"model\.json"):
        translate(head(), "T2", weights=file)
    with pytest.raises(WeightsError, match="no epoch 3"):
        one = tiny_model(tmp_path / "one")
        (one / "gen_diffusive_2.safetensors").rename(one / "gen_diffusive_2_7.safetensors")
        translate(head(), "T2", weights=one, epoch=3)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("T1", "T1w", True),
        ("t1-w", "T1", True),
        ("T1", "T2", False),
        ("PD", "PDw", True),
        ("FLAIR", "flair", True),
        ("SEM", "TEM", False),
    ],
)
def test_names_of_contrasts(first, second, same):
    assert same_contrast(first, second) is same


def test_the_bundled_model_is_used_where_none_is_named():
    result = translate(head((20, 22, 8), (8.0, 8.0, 8.0)), "T2w", slices="4", threads=1)
    assert result.model == "syndiff-lite"
    assert any("simulated people" in text for text in result.warnings)
    assert result.facts["PixelMm"] == [2.0, 2.0]
    assert result.image.data[:, :, 4].max() > 0


def test_a_name_that_tells_another_contrast_is_told(model, tmp_path):
    from mri_deep_tools.volume import write_volume

    path = write_volume(head(), tmp_path / "sub-1_T2w.nii.gz")
    assert any("T2w by its name" in text for text in translate(path, "T2", weights=model, slices="6").warnings)
    assert not translate(path, "T1", weights=model, slices="6").warnings


def test_memory_that_does_not_suffice_is_told_before_the_work(model, monkeypatch):
    from mri_deep_tools.errors import OutOfMemoryError
    from mri_deep_tools.translate import predict

    monkeypatch.setattr(predict, "available_memory", lambda device=None: 1 << 16)
    with pytest.raises(OutOfMemoryError, match="are free"):
        translate(head(), "T2", weights=model)
    with pytest.raises(OutOfMemoryError, match="32 x 32 pixels"):
        translate(picture((32, 32)), "T2", weights=model)
