"""Dice, IoU and confusion matrix of segmented pictures, by hand and by the published rule."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.errors import InputError
from mri_deep_tools.translate.picture_scores import class_masks, match_pictures, score_pair, summary_rows
from toy_cells import save

CODES = np.array([[0, 0, 1, 1], [1, 2, 2, 2]], np.uint8)
FOUND = np.array([[0, 1, 1, 0], [1, 2, 2, 1]], np.uint8)


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_scores_by_hand(tmp_path):
    """Myelin: 2 of 3 found, 2 of the 4 found are right; axon: 2 of 3 found, all right."""
    pair = save(CODES, tmp_path / "t.png"), save(FOUND, tmp_path / "f.png")
    myelin, axon = score_pair(*pair)
    assert (myelin.tp, myelin.fp, myelin.fn, myelin.tn) == (2, 2, 1, 3)
    assert (axon.tp, axon.fp, axon.fn, axon.tn) == (2, 0, 1, 5)
    assert (myelin.dice, myelin.iou) == pytest.approx((4 / 7, 2 / 5))
    assert (axon.dice, axon.iou) == pytest.approx((4 / 5, 2 / 3))
    assert (myelin.sensitivity, myelin.precision) == pytest.approx((2 / 3, 1 / 2))


def test_grey_masks_and_label_maps_score_alike():
    grey = np.array([0, 127, 255], np.uint8)[CODES]
    for compatible in (False, True):
        for item in (CODES, grey):
            masks = class_masks(item, compatible=compatible)
            np.testing.assert_array_equal(masks["myelin"], CODES == 1)
            np.testing.assert_array_equal(masks["axon"], CODES == 2)


def test_thresholds_and_the_published_stretching():
    levels = np.array([[99, 100, 200, 201, 255]], np.uint8)
    masks = class_masks(levels)
    assert masks["myelin"].tolist() == [[False, True, True, False, False]]
    assert masks["axon"].tolist() == [[False, False, False, True, True]]
    myelin_alone = np.array([[0, 127, 127]], np.uint8)
    assert class_masks(myelin_alone)["myelin"].sum() == 2
    assert class_masks(myelin_alone, compatible=True)["axon"].sum() == 2  # the published fault
    half = np.array([[0, 64, 128]], np.uint8)  # 128 becomes 255, 64 becomes 127.5
    assert [int(mask.sum()) for mask in class_masks(half, compatible=True).values()] == [1, 1]


def test_absent_classes_are_unknown_not_perfect(tmp_path):
    empty = save(np.zeros((3, 3), np.uint8), tmp_path / "a.png")
    scores = score_pair(empty, empty)
    assert all(np.isnan(score.dice) and np.isnan(score.iou) and score.tn == 9 for score in scores)
    row = summary_rows(scores)[0]
    assert np.isnan(row["dice_mean"])


def test_the_command(tmp_path, capsys):
    for name, found in (("a", FOUND), ("b", CODES)):
        save(np.array([0, 127, 255], np.uint8)[CODES], tmp_path / "truth" / f"{name}.png")
        save(found, tmp_path / "found" / f"{name}_0000.png")
    save(CODES, tmp_path / "found" / "c.png")
    words = ["evaluate", "image-segmentation", *(str(tmp_path / name) for name in ("truth", "found", "s.csv"))]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "truth lacks 1 of the other's pictures, first c" in shown.err
    assert shown.out.split()[:3] == ["class", "dice", "mean"]
    rows = rows_of(tmp_path / "s.csv")
    assert [(row["image"], row["class"]) for row in rows] == [
        (f"{name}_0000.png", kind) for name in "ab" for kind in ("myelin", "axon")
    ]
    assert float(rows[0]["dice"]) == pytest.approx(4 / 7)
    assert [rows[0][key] for key in ("tp", "fp", "fn", "tn")] == ["2", "2", "1", "3"]
    myelin = rows_of(tmp_path / "s_summary.csv")[0]
    assert float(myelin["dice_mean"]) == pytest.approx((4 / 7 + 1) / 2)
    assert float(myelin["dice_pooled"]) == pytest.approx(2 * 5 / (2 * 5 + 2 + 1))
    assert main(words) == 2  # the tables exist
    assert main([*words, "--overwrite"]) == 0


def test_own_codes(tmp_path):
    pair = [str(save(item * 3, tmp_path / name)) for item, name in ((CODES, "t.png"), (FOUND, "f.png"))]
    words = ["evaluate", "image-segmentation", *pair, str(tmp_path / "s.csv"), "--quiet", "--labels"]
    assert main([*words, "sheath=3", "core=6"]) == 0
    rows = rows_of(tmp_path / "s.csv")
    assert [row["class"] for row in rows] == ["sheath", "core"]
    assert float(rows[1]["iou"]) == pytest.approx(2 / 3)
    for wrong in (["sheath"], ["a=x"], ["a=1", "a=2"]):
        assert main([*words, *wrong, "--overwrite"]) == 2
    assert main([*words, "a=1", "--compatible", "--overwrite"]) == 2


def test_pictures_that_do_not_fit(tmp_path):
    truth = save(CODES, tmp_path / "truth" / "a.png")
    other = save(CODES[:, :3], tmp_path / "found" / "a.png")
    with pytest.raises(InputError, match=r"2x3 pixels, a.png 2x4"):
        score_pair(truth, other)
    colours = save(np.zeros((2, 4, 3), np.uint8), tmp_path / "rgb.png")
    with pytest.raises(InputError, match=r"rgb.png is not a label map"):
        score_pair(truth, colours)
    broken = tmp_path / "broken.png"
    broken.write_bytes(truth.read_bytes()[:40])
    with pytest.raises(InputError, match=r"broken.png"):
        score_pair(truth, broken)
    with pytest.raises(InputError, match="a folder and a file"):
        match_pictures(tmp_path / "truth", other, print)
    other.rename(other.with_name("b.png"))
    with pytest.raises(InputError, match="no picture of found has the name of one in truth"):
        match_pictures(tmp_path / "truth", tmp_path / "found", print)
    assert main(["evaluate", "image-segmentation", str(truth), str(tmp_path / "no.png"), str(tmp_path / "s.csv")]) == 2
