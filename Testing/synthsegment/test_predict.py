"""Whole segmentations: the published program's results in compatible mode, and what the default does better."""

from __future__ import annotations

import csv
import gzip

import numpy as np
import pytest
from mri_deep_tools.errors import CancelledError, InputError, OutOfMemoryError, RequestError, WeightsError
from mri_deep_tools.synthsegment import memory, predict
from mri_deep_tools.synthsegment.backend import PublishedBackend
from mri_deep_tools.synthsegment.labels import PARCEL_NAMES, V1_CHANNELS, V2_CHANNELS
from mri_deep_tools.synthsegment.memory import MemoryPlan, estimate_memory
from mri_deep_tools.synthsegment.preprocess import prepare
from mri_deep_tools.synthsegment.robust import ROBUST_PREFIXES, RobustBackend
from mri_deep_tools.synthsegment.weights import load_unets
from mri_deep_tools.volume import Volume, read_volume

TAGS = {
    "v2_aniso": ("aniso_oblique.nii.gz", {}),
    "v2_near1mm_fast": ("near1mm_scaled.nii.gz", {"fast": True}),
    "v1_near1mm": ("near1mm_scaled.nii.gz", {"version": "1.0", "crop": 96}),
    "v1_aniso_fast": ("aniso_oblique.nii.gz", {"version": "1.0", "fast": True, "crop": (64, 96, 64)}),
    "v2_ct": ("ct_hu.nii.gz", {"ct": True, "crop": 96}),
    "v2_parc_qc": ("conformed.mgz", {"parcellation": True, "qc": True, "crop": 64, "qc_box": 64}),
    "v1_parc": ("conformed.mgz", {"version": "1.0", "parcellation": True, "crop": 64}),
    "robust_parc": ("conformed.mgz", {"robust": True, "parcellation": True, "crop": 64}),
}
SHARE_OF_VOXELS = {"robust_parc": 1e-3}  # else 0.02 %, see the golden data's tolerances


@pytest.fixture(scope="module")
def weights(shared, tmp_path_factory):
    """A folder with the golden weights under their published names."""
    folder = tmp_path_factory.mktemp("models")
    for packed in shared("fixtures", "synthseg", "weights").glob("*.h5.gz"):
        (folder / packed.name[:-3]).write_bytes(gzip.decompress(packed.read_bytes()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRI_DEEP_TOOLS_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def scan(shared):
    """Return a function that reads one golden input."""

    def read(name):
        return read_volume(shared("fixtures", "synthseg", "inputs", name), on_warning=lambda text: None)

    return read


@pytest.fixture(scope="module")
def default_result(weights, shared):
    """The resampled golden input, segmented as a person would: every output, on its own grid."""
    path = shared("fixtures", "synthseg", "inputs", "aniso_oblique.nii.gz")
    return predict.segment(path, weights=weights, crop=64, parcellation=True, posteriors=True, resampled=True)


def columns(path):
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    row.pop("subject")
    return {name: float(value) for name, value in row.items()}


@pytest.mark.parametrize("tag", TAGS)
def test_published_results_are_reproduced(shared, weights, tag):
    name, options = TAGS[tag]
    segmenter = predict.Segmenter(weights=weights, compatible=True, posteriors=True, **options)
    result = segmenter.segment(shared("fixtures", "synthseg", "inputs", name))
    golden = np.load(shared("fixtures", "synthseg", "predict", f"{tag}.npz"))
    labels = read_volume(shared("fixtures", "synthseg", "predict", f"{tag}_seg.nii.gz"))
    assert result.labels.data.dtype == np.int32
    assert result.labels.shape3 == labels.shape3
    np.testing.assert_allclose(result.labels.affine, labels.affine, rtol=0, atol=1e-4)
    share = np.mean(result.labels.data != labels.data)
    assert share <= SHARE_OF_VOXELS.get(tag, 2e-4)
    stride = int(golden["stride"])
    assert result.posteriors.data.dtype == np.float32
    assert result.posteriors.data.shape == tuple(golden["posteriors_shape"])
    soft = result.posteriors.data[::stride, ::stride, ::stride]
    np.testing.assert_allclose(soft, golden["posteriors_strided"], rtol=0, atol=1e-3)
    wanted = columns(shared("fixtures", "synthseg", "predict", f"{tag}_vol.csv"))
    assert list(result.volumes_mm3) == list(wanted)
    for structure, volume in wanted.items():
        assert result.volumes_mm3[structure] == pytest.approx(volume, rel=1e-3, abs=1.0), structure
    if result.qc is not None:
        scores = columns(shared("fixtures", "synthseg", "predict", f"{tag}_qc.csv"))
        assert result.qc == pytest.approx(scores, abs=2e-3)
    assert result.codes == (V1_CHANNELS if options.get("version") else V2_CHANNELS)


def test_robust_chain_stage_by_stage(shared, weights, scan):
    import torch

    golden = np.load(shared("fixtures", "synthseg", "predict", "robust_stages_near1mm.npz"))
    image = prepare(scan("near1mm_scaled.nii.gz"), crop=(96, 96, 96), compatible=True)
    backend = RobustBackend(load_unets(weights / "synthseg_robust_2.0.h5", ROBUST_PREFIXES), V2_CHANNELS)
    first = backend.coarse(torch.from_numpy(image.image)[None]).numpy()
    assert np.count_nonzero(first != golden["s1_argmax"]) <= 5
    second = backend.denoise(torch.from_numpy(golden["s1_argmax"])).numpy()
    assert np.count_nonzero(second != golden["d_argmax"]) <= 5
    backend.coarse = lambda *args: first  # the published maps go in, so that stages are judged one by one
    backend.denoise = lambda *args: torch.from_numpy(golden["d_argmax"])
    soft, _ = backend.posteriors(image.image, image.affine, flip=False, smooth=False)
    np.testing.assert_allclose(np.moveaxis(soft, 0, -1)[::8, ::8, ::8], golden["s2_every8"], rtol=0, atol=1e-3)
    assert np.count_nonzero(soft.argmax(axis=0)[::2, ::2, ::2] != golden["s2_argmax_every2"]) <= 5


def test_default_labels_lie_on_the_scans_own_grid(default_result, scan):
    volume = scan("aniso_oblique.nii.gz")
    assert default_result.labels.shape3 == volume.shape3
    np.testing.assert_array_equal(default_result.labels.affine, volume.affine)
    assert default_result.posteriors.data.shape == (*volume.shape3, 33)
    np.testing.assert_allclose(default_result.posteriors.data.sum(axis=-1), 1, atol=1e-5)
    cortex = default_result.labels.data > 1000
    hard = np.asarray(V2_CHANNELS)[default_result.posteriors.data.argmax(axis=-1)]
    np.testing.assert_array_equal(np.isin(hard, (3, 42)), cortex)
    np.testing.assert_array_equal(hard[~cortex], default_result.labels.data[~cortex])
    assert default_result.resampled.spacing == pytest.approx((1, 1, 1))


def test_volumes_do_not_depend_on_the_grid_and_labels_agree_in_space(default_result, weights, scan):
    volume = scan("aniso_oblique.nii.gz")
    fine = predict.segment(volume, weights=weights, crop=64, parcellation=True, grid="1mm")
    assert fine.volumes_mm3 == default_result.volumes_mm3
    assert fine.labels.spacing == pytest.approx((1, 1, 1))
    to_fine = np.linalg.inv(fine.labels.affine) @ volume.affine
    points = np.argwhere(np.ones(volume.shape3, dtype=bool)) @ to_fine[:3, :3].T + to_fine[:3, 3]
    index = np.rint(points).astype(int)
    inside = ((index >= 0) & (index < fine.labels.shape3)).all(axis=1)
    nearest = fine.labels.data[tuple(index[inside].T)]
    assert np.mean(nearest == default_result.labels.data.ravel()[inside]) > 0.95


def test_parcels_add_up_to_the_cortex_of_their_hemisphere(default_result):
    volumes = default_result.volumes_mm3
    assert list(volumes)[-68:] == list(PARCEL_NAMES[1:])
    for side, mark in (("left", "ctx-lh"), ("right", "ctx-rh")):
        total = sum(value for name, value in volumes.items() if name.startswith(mark))
        assert total == pytest.approx(volumes[f"{side} cerebral cortex"], rel=1e-5, abs=0.1)
    structures = list(volumes)[1:-68]
    assert volumes["total intracranial"] == pytest.approx(sum(volumes[name] for name in structures), abs=0.1)


def test_smoothing_is_the_same_for_all_flags(weights, scan):
    volume = scan("conformed.mgz")
    plain = predict.segment(volume, weights=weights, crop=64, fast=True)
    scored = predict.Segmenter(weights=weights, crop=64, fast=True, qc=True, qc_box=64).segment(volume)
    assert plain.volumes_mm3 == scored.volumes_mm3
    published = predict.Segmenter(weights=weights, crop=64, fast=True, qc=True, qc_box=64, compatible=True)
    assert published.segment(volume).volumes_mm3 != scored.volumes_mm3
    assert any("quality" in warning for warning in scored.warnings)


def test_one_millimetre_scans_keep_their_grid_and_give_the_resampled_image(weights, scan):
    volume = scan("conformed.mgz")
    result = predict.segment(volume, weights=weights, fast=True, crop=64, resampled=True, posteriors=True)
    assert result.labels.shape3 == volume.shape3
    np.testing.assert_array_equal(result.labels.affine, volume.affine)
    np.testing.assert_array_equal(result.resampled.data, volume.data)
    assert result.device == "cpu"
    assert result.peak_memory_bytes > 0
    assert {"prepare", "segment", "clean up", "grid"} <= set(result.seconds)


def test_networks_are_loaded_once(weights, scan, monkeypatch):
    calls = []
    load = predict.load
    monkeypatch.setattr(predict, "load", lambda *args: calls.append(1) or load(*args))
    segmenter = predict.Segmenter(weights=weights / "synthseg_2.0.h5", fast=True, crop=32)
    results = [segmenter.segment(scan("conformed.mgz")) for _ in range(2)]
    np.testing.assert_array_equal(results[0].labels.data, results[1].labels.data)
    assert len(calls) == 1
    assert results[0].model == "synthseg_2.0.h5"


def test_unusual_inputs(weights, scan, shared):
    segmenter = predict.Segmenter(weights=weights, fast=True, crop=32)
    frames = segmenter.segment(shared("fixtures", "synthseg", "inputs", "three_channels.nii.gz"))
    assert any("frame" in warning for warning in frames.warnings)
    values = scan("conformed.mgz").data.astype(np.float32)
    four = Volume(np.stack([values, values * 0], axis=-1), np.eye(4))
    assert any("2 frames; the first is used" in warning for warning in segmenter.segment(four).warnings)
    values[0, 0, 0] = np.nan
    assert any("1 of 262144 voxels" in text for text in segmenter.segment(Volume(values, np.eye(4))).warnings)
    with pytest.raises(InputError, match="no contrast"):
        segmenter.segment(Volume(np.ones((64, 64, 64)), np.eye(4)))
    with pytest.raises(InputError, match="single slice"):
        segmenter.segment(Volume(np.ones((64, 64, 1)), np.eye(4)))
    thick = Volume(np.random.default_rng(0).random((20, 40, 40)), np.diag([2.0, 1, 1, 1]))
    assert any("covers only 40 mm" in warning for warning in segmenter.segment(thick).warnings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"robust": True, "version": "1.0"}, "no robust mode"),
        ({"version": "3"}, "unknown version"),
        ({"grid": "2mm"}, "unknown grid"),
        ({"model": "synthseg-2.0", "weights": "a.h5"}, "both given"),
        ({"model": "synthseg-2.0", "version": "1.0"}, "not of version"),
        ({"model": "synthseg-qc-2.0"}, "does not segment"),
        ({"crop": (32, 32)}, "one or three"),
        ({"weights": {"brain": "a.h5"}}, "unknown part"),
        ({"device": "gpu"}, "unknown device"),
        ({"precision": "fp16", "device": "cpu"}, "does not work on cpu"),
    ],
)
def test_contradictions_are_refused_before_any_work(options, message):
    with pytest.raises(RequestError, match=message):
        predict.Segmenter(**options)


def test_wrong_weights_are_named(weights, scan, tmp_path):
    volume = scan("conformed.mgz")
    with pytest.raises(WeightsError, match=r"synthseg_1\.0\.h5 is of version 1\.0, not 2\.0"):
        predict.segment(volume, weights=weights / "synthseg_1.0.h5", version="2.0", crop=32)
    with pytest.raises(WeightsError, match="add the option --robust"):
        predict.segment(volume, weights=weights / "synthseg_robust_2.0.h5", crop=32)
    with pytest.raises(WeightsError, match=r"absent\.h5 does not exist"):
        predict.segment(volume, weights=tmp_path / "absent.h5")
    with pytest.raises(WeightsError, match=r"holds no weights of synthseg-2\.0"):
        predict.segment(volume, weights=tmp_path)


def test_cancelling_and_progress(weights, scan):
    seen = []
    segmenter = predict.Segmenter(weights=weights, fast=True, crop=32)
    segmenter.segment(scan("conformed.mgz"), seen.append)
    shares = [event.fraction for event in seen if event.event == "progress"]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert {event.stage for event in seen if event.event == "stage"} >= {"read", "prepare", "segment", "grid"}

    def cancel(event):
        if event.event == "stage" and event.stage == "segment":
            raise CancelledError("stopped")

    with pytest.raises(CancelledError):
        segmenter.segment(scan("conformed.mgz"), cancel)


def test_memory_is_estimated_before_the_work(weights, scan, monkeypatch):
    one = estimate_memory((182, 218, 182))
    assert 2.2e9 < one < 4.5e9
    assert estimate_memory((256, 256, 256)) < 8e9
    assert estimate_memory((256, 256, 256)) > one
    assert estimate_memory((182, 218, 182), qc=True, parcellation=True) > one
    monkeypatch.setattr(memory, "available_memory", lambda device=None: 30_000_000)
    with pytest.raises(OutOfMemoryError, match=r"segmenting conformed needs about .* but 30 MB are free"):
        predict.segment(scan("conformed.mgz"), weights=weights)


def test_short_memory_runs_in_tiles_and_says_so(weights, scan, monkeypatch):
    import mri_deep_tools.synthsegment.pipeline as pipeline

    room = memory.tile_memory((127, 32, 32), 8, 33)
    monkeypatch.setattr(pipeline, "plan_memory", lambda *args, **sizes: MemoryPlan(2 * room, room, room))
    tiled = predict.segment(scan("near1mm_scaled.nii.gz"), weights=weights, fast=True, crop=(128, 32, 32))
    assert any("overlapping pieces" in warning for warning in tiled.warnings)
    assert tiled.labels.shape3 == (80, 90, 78)


def test_tiles_agree_with_the_whole_away_from_seams(weights):
    (network,) = load_unets(weights / "synthseg_2.0.h5")
    backend = PublishedBackend(network, V2_CHANNELS)
    image = np.random.default_rng(0).random((32, 160, 32)).astype(np.float32)
    whole, _ = backend.posteriors(image, np.eye(4), flip=True, smooth=False)
    backend.tile_bytes = memory.tile_memory((32, 159, 32), 8, 33)
    assert [tile.target[1] for tile in backend.tiles(image.shape, 8, 33)] == [slice(0, 96), slice(96, 160)]
    tiled, _ = backend.posteriors(image, np.eye(4), flip=True, smooth=False)
    np.testing.assert_allclose(tiled.sum(axis=0), 1, atol=1e-5)
    apart = np.abs(whole - tiled).max(axis=(0, 1, 3))
    assert apart[:8].max() < 0.1 * apart[80:112].max()
