"""Evaluation of label maps: published numbers, geometry, matching of files, tables."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from mri_deep_tools.errors import GeometryError, InputError, RequestError
from mri_deep_tools.synthsegment.evaluate import (
    WHOLE,
    Evaluation,
    compare,
    evaluate_folders,
    evaluate_pair,
    match_files,
)
from mri_deep_tools.synthsegment.selection import epoch_of, list_checkpoints, select_checkpoint
from mri_deep_tools.volume import Volume, write_volume

PUBLISHED = (
    ("dice", "dice"),
    ("hausdorff", "hausdorff_voxels"),
    ("hausdorff_99", "hausdorff_99_voxels"),
    ("hausdorff_95", "hausdorff_95_voxels"),
    ("mean_distance", "mean_distance_voxels"),
)


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared("fixtures", "synthseg", "metrics", "metrics.npz")) as data:
        return dict(data)


def volume(array, spacing=(3.0, 3.0, 3.0)):
    return Volume(np.asarray(array, np.int32), np.diag([*spacing, 1.0]))


def cube(start, stop, shape=(12, 12, 12), code=17):
    array = np.zeros(shape, np.int32)
    array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = code
    return array


@pytest.mark.parametrize(("column", "name"), [(0, "seg_other_subject"), (1, "seg_shifted")])
def test_scores_are_the_published_ones(golden, column, name):
    found = evaluate_pair(volume(golden["gt"]), volume(golden[name]), golden["labels"], compatible=True)
    assert found.codes == (*golden["labels"].tolist(), WHOLE)
    for ours, theirs in PUBLISHED:
        np.testing.assert_allclose(found[theirs], golden[ours][:, column], atol=1e-6)
        if theirs != "dice":
            np.testing.assert_allclose(found[theirs.replace("voxels", "mm")], 3 * golden[ours][:, column], atol=1e-5)


def test_default_scores_agree_with_the_published_ones_where_those_have_no_fault(golden):
    found = evaluate_pair(volume(golden["gt"]), volume(golden["seg_shifted"]))
    rows = np.array([golden["labels"].tolist().index(code) for code in found.labels])
    np.testing.assert_allclose(found["dice"][:-1], golden["dice"][rows, 1], atol=1e-5)
    # the published boxes lose their last plane, which moves distances a little
    assert np.abs(found["mean_distance_voxels"][:-1] - golden["mean_distance"][rows, 1]).max() < 0.15


def test_distances_in_mm_follow_anisotropic_voxels():
    truth, found = cube((2, 2, 2), (6, 6, 6)), cube((2, 2, 4), (6, 6, 8))
    scores = evaluate_pair(volume(truth, (1.0, 1.0, 2.5)), volume(found, (1.0, 1.0, 2.5)))
    assert scores.labels == (17,)
    assert scores["dice"][0] == pytest.approx(0.5)
    assert scores["hausdorff_voxels"][0] == 2.0
    assert scores["hausdorff_mm"][0] == pytest.approx(5.0)
    assert scores["truth_volume_mm3"].tolist() == [160.0, 160.0]


def test_labels_absent_from_one_or_both_maps():
    truth, found = cube((2, 2, 2), (6, 6, 6)), cube((2, 2, 2), (6, 6, 6), code=53)
    scores = evaluate_pair(volume(truth), volume(found), [17, 53, 60])
    np.testing.assert_array_equal(scores["dice"], [0.0, 0.0, np.nan, 1.0])
    assert np.isnan(scores["hausdorff_mm"][:3]).all()
    assert scores["hausdorff_mm"][3] == 0.0
    assert scores.mean("dice") == 0.0
    published = evaluate_pair(volume(truth), volume(found), [17, 53, 60], compatible=True)
    assert published["dice"][:3].tolist() == [0.0, 0.0, 0.0]
    assert published["hausdorff_voxels"][:3].tolist() == [12.0, 12.0, 12.0]


def test_axes_may_run_differently():
    truth = volume(cube((1, 2, 3), (5, 8, 6)), (1.0, 1.5, 2.0))
    flipped = Volume(
        truth.data[::-1].transpose(1, 0, 2),
        np.array([[0, -1.0, 0, 11], [1.5, 0, 0, 0], [0, 0, 2.0, 0], [0, 0, 0, 1]]),
    )
    scores = evaluate_pair(truth, flipped)
    assert scores["dice"].tolist() == [1.0, 1.0]
    assert scores["hausdorff_mm"].tolist() == [0.0, 0.0]


def test_another_grid_is_refused_unless_resampling_is_asked_for():
    coarse = volume(cube((2, 2, 2), (6, 6, 6)), (2.0, 2.0, 2.0))
    fine = Volume(
        np.kron(coarse.data, np.ones((2, 2, 2), np.int32)),
        np.array([[1.0, 0, 0, -0.5], [0, 1.0, 0, -0.5], [0, 0, 1.0, -0.5], [0, 0, 0, 1]]),
    )
    with pytest.raises(GeometryError, match="12 x 12 x 12 voxels of 2 x 2 x 2 mm") as caught:
        evaluate_pair(coarse, fine)
    assert "resampling" in caught.value.hint
    assert evaluate_pair(coarse, fine, resample=True)["dice"].tolist() == [1.0, 1.0]


def test_what_is_no_label_map_is_refused():
    truth = volume(cube((2, 2, 2), (6, 6, 6)))
    with pytest.raises(InputError, match="whole numbers"):
        evaluate_pair(truth, Volume(truth.data * 0.3, truth.affine))
    with pytest.raises(RequestError, match="labels"):
        evaluate_pair(truth, truth, [3, 3])
    floats = Volume(truth.data.astype(np.float64), truth.affine)
    assert evaluate_pair(truth, floats, distances=False)["dice"].tolist() == [1.0, 1.0]


def write(folder, name, array):
    folder.mkdir(exist_ok=True)
    return write_volume(volume(array), folder / name)


def test_folders_give_tables(tmp_path):
    truth, found = tmp_path / "truth", tmp_path / "found"
    for name, shift in (("a", 0), ("b", 2)):
        write(truth, f"{name}.nii.gz", cube((2, 2, 2), (6, 6, 6)))
        write(found, f"{name}.mgz", cube((2, 2, 2 + shift), (6, 6, 6 + shift)))
    write(found, "c.mgz", cube((2, 2, 2), (6, 6, 6), code=53))
    result = evaluate_folders(truth, found, tmp_path / "scores.csv")
    assert result.subjects == ("a", "b")
    assert result.labels == (17,)
    np.testing.assert_allclose(result.table("dice"), [[1.0, 0.5], [1.0, 0.5]])
    assert result.mean("dice") == pytest.approx(0.75)
    assert len(result.warnings) == 1
    with (tmp_path / "scores.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["subject"], row["label"], row["structure"]) for row in rows] == [
        ("a", "17", "left hippocampus"),
        ("a", "all", "whole structure"),
        ("b", "17", "left hippocampus"),
        ("b", "all", "whole structure"),
    ]
    assert float(rows[2]["hausdorff_mm"]) == 6.0
    assert float(rows[2]["hausdorff_voxels"]) == 2.0
    assert float(rows[0]["truth_volume_mm3"]) == 64 * 27
    with (tmp_path / "scores_summary.csv").open(encoding="utf-8") as stream:
        summary = list(csv.DictReader(stream))
    assert float(summary[0]["dice_mean"]) == 0.75
    assert float(summary[0]["dice_sd"]) == pytest.approx(np.sqrt(0.125))
    assert summary[0]["dice_count"] == "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found", "scores.csv", "scores_summary.csv", "truth"]


def test_one_file_against_one_file(tmp_path):
    first = write(tmp_path, "truth.nii.gz", cube((2, 2, 2), (6, 6, 6)))
    second = write(tmp_path, "found.nii", cube((2, 2, 3), (6, 6, 7)))
    result = evaluate_folders(first, second, labels=[17], distances=False)
    assert result.subjects == ("found",)
    assert result.table().tolist() == [[0.75], [0.75]]
    with pytest.raises(RequestError, match="folder and the other a file"):
        evaluate_folders(tmp_path, second)
    with pytest.raises(InputError, match="no such"):
        evaluate_folders(tmp_path / "gone", second)


def test_how_files_are_matched(tmp_path):
    def folder(name, *files):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
        return tmp_path / name

    names = lambda pairs: [(a.name, b.name) for a, b in pairs]  # noqa: E731
    bids = folder("bids", "sub-1_ses-2_dseg.nii.gz", "sub-3_dseg.nii.gz")
    ours = folder("ours", "sub-1_ses-2_T1w_synthseg.nii", "sub-3_T1w_synthseg.nii")
    assert names(match_files(bids, ours)) == [
        ("sub-1_ses-2_dseg.nii.gz", "sub-1_ses-2_T1w_synthseg.nii"),
        ("sub-3_dseg.nii.gz", "sub-3_T1w_synthseg.nii"),
    ]
    truth, other = folder("truth", "a.nii", "b.nii"), folder("other", "b.nii", "c.nii")
    assert names(match_files(truth, other)) == [("b.nii", "b.nii")]
    assert names(match_files(truth, other, by_order=True)) == [("a.nii", "b.nii"), ("b.nii", "c.nii")]
    heard = []
    strange = folder("strange", "x.nii", "y.nii")
    assert names(match_files(truth, strange, on_warning=heard.append)) == [("a.nii", "x.nii"), ("b.nii", "y.nii")]
    assert "alphabetical order" in heard[0]
    with pytest.raises(InputError, match="cannot be matched"):
        match_files(truth, folder("three", "1.nii", "2.nii", "3.nii"))
    with pytest.raises(InputError, match="no images"):
        match_files(truth, folder("empty"))


def test_two_methods_are_compared_per_structure(tmp_path):
    folders = {name: tmp_path / name for name in ("truth", "good", "bad")}
    for index in range(6):
        both = cube((2, 2, 2), (9, 9, 6)) + cube((2, 2, 6), (9, 9, 10), code=53)
        write(folders["truth"], f"{index}.nii", both)
        for name, lost in (("good", 1 + index), ("bad", 8 + 3 * index)):
            worse = both.copy()
            flat = np.flatnonzero(both == 17)[:lost]
            worse.flat[flat] = 0
            write(folders[name], f"{index}.nii", worse)
    good, bad = (evaluate_folders(folders["truth"], folders[name], distances=False) for name in ("good", "bad"))
    result = compare(good, bad, alternative="greater")
    assert result.labels == (17, 53)
    np.testing.assert_allclose(result.p_values, [1 / 64, np.nan, 1 / 64])
    assert result.effect_sizes[0] > 1
    assert np.isnan(result.effect_sizes[1])  # no difference, no spread
    result.write_csv(tmp_path / "comparison.csv")
    lines = (tmp_path / "comparison.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "label,structure,dice_first_mean,dice_second_mean,wilcoxon_p,cohens_d"
    assert lines[2] == "53,right hippocampus,1,1,n/a,n/a"
    with pytest.raises(RequestError, match="differ in subjects"):
        compare(good, Evaluation(bad.pairs[:5]))
    with pytest.raises(RequestError, match="unknown measure"):
        compare(good, bad, "hausdorff_mm")


def test_the_best_epoch_is_chosen_without_background(tmp_path):
    truth = write(tmp_path / "truth", "a.nii", cube((2, 2, 2), (6, 6, 6)))
    image = write(tmp_path / "images", "a.nii", cube((2, 2, 2), (6, 6, 6)))
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("dice_001.ckpt", "dice_003.ckpt", "dice_010.ckpt", "wl2_001.ckpt", "dice_log.txt"):
        (folder / name).touch()
    checkpoints = list_checkpoints(folder)
    assert [path.name for path in checkpoints] == ["dice_001.ckpt", "dice_003.ckpt", "dice_010.ckpt"]
    assert [path.name for path in list_checkpoints(folder, step=2)] == ["dice_001.ckpt", "dice_010.ckpt"]
    assert epoch_of(checkpoints[2]) == 10
    shifts = {1: 2, 3: 0, 10: 1}

    def predict(checkpoint, scan):
        assert scan == image
        shift = shifts[epoch_of(checkpoint)]
        return volume(cube((2, 2, 2 + shift), (6, 6, 6 + shift)))

    chosen = select_checkpoint(checkpoints, predict, [image], [truth], [0, 17], csv_path=tmp_path / "epochs.csv")
    assert chosen.best.checkpoint.name == "dice_003.ckpt"
    assert [score.mean_dice for score in chosen.scores] == [0.5, 1.0, 0.75]
    lines = (tmp_path / "epochs.csv").read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["checkpoint,epoch,mean_dice,selected", "dice_001.ckpt,1,0.5,no", "dice_003.ckpt,3,1,yes"]
    with pytest.raises(InputError, match="no checkpoint"):
        list_checkpoints(folder, phase="best")
    with pytest.raises(RequestError, match="nothing to select"):
        select_checkpoint([], predict, [image], [truth], [17])
