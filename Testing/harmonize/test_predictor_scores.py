"""Measures of predictions against scikit-learn, their intervals against theory, and the command."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.errors import InputError
from mri_deep_tools.harmonize.predictor_metrics import classification_measures, regression_measures

METRICS = pytest.importorskip("sklearn.metrics")


def named(measures):
    return {measure.name: measure.value for measure in measures}


@pytest.mark.parametrize("seed", range(4))
def test_errors_of_a_number_equal_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(20, 80, 30)
    found = truth + rng.normal(2, 6, 30)
    measures = named(regression_measures(truth, found))
    assert measures["MAE"] == pytest.approx(METRICS.mean_absolute_error(truth, found))
    assert measures["RMSE"] == pytest.approx(METRICS.mean_squared_error(truth, found) ** 0.5)
    assert measures["R2"] == pytest.approx(METRICS.r2_score(truth, found))
    assert measures["Pearson r"] == pytest.approx(np.corrcoef(truth, found)[0, 1])
    assert measures["mean error"] == pytest.approx(np.mean(found - truth))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_discrimination_equals_that_of_scikit_learn(seed, ties):
    rng = np.random.default_rng(seed)
    truth = rng.random(40) < 0.3
    truth[:2] = True, False
    found = np.clip(rng.normal(0.4 + 0.2 * truth, 0.25), 0, 1)
    found = found.round(1) if ties else found
    measures, chosen = named(classification_measures(truth, found)), found >= 0.5
    assert measures["AUC"] == pytest.approx(METRICS.roc_auc_score(truth, found))
    assert measures["balanced accuracy"] == pytest.approx(METRICS.balanced_accuracy_score(truth, chosen))
    assert measures["sensitivity"] == pytest.approx(METRICS.recall_score(truth, chosen))
    assert measures["specificity"] == pytest.approx(METRICS.recall_score(~truth, ~chosen))
    assert measures["accuracy"] == pytest.approx(METRICS.accuracy_score(truth, chosen))
    assert measures["Brier score"] == pytest.approx(METRICS.brier_score_loss(truth, found))


def test_the_interval_of_a_mean_is_that_of_theory():
    rng = np.random.default_rng(5)
    error = rng.exponential(5, 400)
    measure = regression_measures(np.zeros(400) + rng.normal(size=400) * 1e-9, error)[0]
    half = 1.96 * error.std() / 20
    assert measure.low == pytest.approx(measure.value - half, abs=0.1 * half)
    assert measure.high == pytest.approx(measure.value + half, abs=0.1 * half)
    again = regression_measures(np.zeros(400) + 0.0, error)[0]
    assert (again.low, again.high) == pytest.approx((measure.low, measure.high), rel=1e-6)


def test_scans_of_one_person_count_once_in_the_interval():
    """Ten scans of each of 40 persons say as much as one: the interval is that of 40, not of 400."""
    rng = np.random.default_rng(6)
    error = np.repeat(rng.exponential(5, 40), 10)
    truth, persons = rng.uniform(20, 80, 400), [str(index // 10) for index in range(400)]
    naive, fair = (regression_measures(truth, truth + error, who)[0] for who in (None, persons))
    assert naive.value == fair.value
    assert (fair.high - fair.low) > 2.5 * (naive.high - naive.low)


def test_measures_that_are_not_defined_are_left_empty():
    measures = regression_measures([50.0, 50.0, 50.0], [49.0, 51.0, 50.0])
    assert np.isnan(named(measures)["R2"]) and np.isnan(named(measures)["Pearson r"])
    one = regression_measures([50.0, 60.0], [49.0, 51.0], ["a", "a"])
    assert np.isnan(one[0].low) and one[0].value == 5.0
    with pytest.raises(InputError, match="1 scans"):
        regression_measures([50.0], [49.0])
    with pytest.raises(InputError, match="all scans are of one class"):
        classification_measures([True, True], [0.4, 0.6])


# ----------------------------------------------------------------------------------------------------------- command


def write(path, *rows):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def ages(tmp_path):
    rng = np.random.default_rng(0)
    rows = [("path", "age", "site", "predicted age (years)", "error")]
    for index in range(20):
        age = rng.uniform(20, 80)
        rows.append((f"s{index}.nii", f"{age:.1f}", "AB"[index % 2], f"{age + rng.normal(0, 5):.3f}", ""))
    rows.append(("bad.nii", "44", "A", "", "s.nii cannot be read."))
    return write(tmp_path / "predictions.csv", *rows)


def test_command_scores_ages_of_all_and_of_each_site(ages, tmp_path, capsys):
    out = tmp_path / "scores.csv"
    assert main(["evaluate", "prediction", str(ages), str(out), "--truth", "age", "--group", "site"]) == 0
    caught = capsys.readouterr()
    assert "20 scans" in caught.out and "MAE" in caught.out
    assert "1 of 21 rows have no prediction or no truth" in caught.err
    rows = read(out)
    assert [row["group"] for row in rows] == ["all"] * 5 + ["A"] * 5 + ["B"] * 5
    given = [row for row in read(ages) if row["predicted age (years)"]]
    error = [abs(float(row["predicted age (years)"]) - float(row["age"])) for row in given]
    assert rows[0]["measure"] == "MAE" and float(rows[0]["value"]) == pytest.approx(np.mean(error), rel=1e-5)
    assert float(rows[0]["low (95 %)"]) < float(rows[0]["value"]) < float(rows[0]["high (95 %)"])
    assert rows[5]["scans"] == "10"


def test_command_joins_a_table_of_diagnoses(tmp_path, capsys):
    found = write(tmp_path / "p.csv", ("scan", "probability of AD"), *((f"s{n}", 0.1 * n) for n in range(9)))
    truth = write(
        tmp_path / "t.csv",
        ("scan", "group", "person"),
        *((f"s{n}", "AD" if n > 4 else "CN", n // 2) for n in range(8)),
    )
    words = ["evaluate", "prediction", str(found), str(tmp_path / "o.csv"), "--truth", "group"]
    assert main([*words, "--table", str(truth), "--subject", "person", "--progress", "json"]) == 0
    result = next(json.loads(line.split(" ", 1)[1]) for line in capsys.readouterr().out.splitlines() if "AUC" in line)
    assert result["measures"]["AUC"] == 1.0 and result["scans"] == 8
    assert {row["persons"] for row in read(tmp_path / "o.csv")} == {"4"}


@pytest.mark.parametrize(
    ("header", "rows", "more", "told"),
    [
        (("scan", "age", "x"), [("a", 1, 2)], [], "does not tell which column holds the predictions"),
        (("scan", "predicted age"), [("a", 1)], [], "there is no column 'age'"),
        (("age", "predicted age"), [("a", 1), ("2", 3)], [], r"the truth \(age\) of a row is 'a'"),
        (("age", "predicted age"), [("", 1), ("2", "")], [], "no row of p.csv has a prediction and a truth"),
        (("age", "probability of AD"), [("CN", 0.1), ("MCI", 0.2)], [], "no scan is of the class 'AD'"),
        (("age", "probability of AD"), [("CN", 0.1), ("AD", 2)], [], "holds values outside 0 to 1"),
        (("age", "probability"), [("CN", 0.1), ("AD", 0.2)], [], r"of which class .*add --positive"),
        (("age", "predicted age"), [("1", 1), ("2", 3)], ["--column", "age2"], "no column 'age2'"),
        (("age", "predicted age"), [("1", 1)], [], "1 scans have both"),
    ],
)
def test_what_cannot_be_scored_is_told(tmp_path, capsys, header, rows, more, told):
    import re

    found = write(tmp_path / "p.csv", header, *rows)
    words = ["evaluate", "prediction", str(found), str(tmp_path / "o.csv"), "--truth", "age", *more]
    assert main(words) == 2
    assert re.search(told, capsys.readouterr().err)
    assert not (tmp_path / "o.csv").exists()
