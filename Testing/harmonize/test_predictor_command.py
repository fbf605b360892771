"""Prediction from prepared images and from scans: golden output, tables, records, and what cannot be predicted."""

from __future__ import annotations

import csv
import hashlib
import json
import re

import numpy as np
import pytest
import torch
from mri_deep_tools.cli import main
from mri_deep_tools.errors import InputError, RequestError, WeightsError
from mri_deep_tools.geometry import Reorient
from mri_deep_tools.harmonize.network import Predictor
from mri_deep_tools.harmonize.predictor import ScanPredictor, predict_scan
from mri_deep_tools.harmonize.predictor_images import fitted, network_image
from mri_deep_tools.harmonize.predictor_weights import PredictorSpec, load_prediction_model, save_prediction_model
from mri_deep_tools.volume import Volume, write_volume

AFFINE = np.array([[-1.0, 0, 0, 30], [0, 1, 0, -40], [0, 0, 1, -20], [0, 0, 0, 1]])


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def blob(seed=0, shape=(32, 32, 32)):
    """Return a ball of noise with a median of 500 on a background of 0."""
    rng = np.random.default_rng(seed)
    away = np.sqrt(sum(((g - n / 2) / (0.4 * n)) ** 2 for g, n in zip(np.indices(shape), shape, strict=True)))
    values = np.where(away < 1, rng.uniform(200, 800, shape), 0)
    return (values * 500 / np.median(values[values > 0])).astype(np.float32)


def save(path, spec, seed=1):
    torch.manual_seed(seed)
    network = Predictor.for_shape(spec.shape)
    torch.nn.init.constant_(network.dense.bias, 50.0 if spec.task == "regression" else 0.3)
    network.dense.weight.data *= 1000 if spec.task == "regression" else 100  # untrained statistics leave little
    return save_prediction_model(path, network.state_dict(), spec)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return random models of 32 voxels a side: age, diagnosis, and one that was trained on harmonized images."""
    folder, shape = tmp_path_factory.mktemp("models"), (32, 32, 32)
    specs = {
        "age": PredictorSpec(shape=shape, trained_range=(20.0, 80.0)),
        "diagnosis": PredictorSpec("classification", "diagnosis", "", ("CN", "AD"), shape),
        "harmonized": PredictorSpec(shape=shape, harmonized="iguane"),
    }
    return {name: save(folder / f"{name}.safetensors", spec) for name, spec in specs.items()}


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for index in range(3):
        write_volume(Volume(blob(index), AFFINE), folder / f"sub-{index}_T1w.nii.gz")
    return folder


# ------------------------------------------------------------------------------------------------------- golden data


@pytest.mark.parametrize("compatible", [False, True])
def test_a_published_style_file_gives_the_golden_numbers(golden, weights_files, tmp_path, compatible):
    data = golden("predictor_io.npz")
    for index, x in enumerate(data["x"][..., 0]):
        stored = np.where(x > -1, (x.astype(np.float64) + 1) * 500, 0).astype(np.float32)
        write_volume(Volume(stored, AFFINE), tmp_path / f"s{index}.nii.gz")
    words = ["predict", str(tmp_path), "--csv", str(tmp_path / "p.csv"), "--weights", str(weights_files["predictor"])]
    assert main([*words, "--task", "regression", "--preprocessed", *(["--compatible"] if compatible else [])]) == 0
    rows = rows_of(tmp_path / "p.csv")
    assert list(rows[0]) == (["scan", "prediction"] if compatible else ["scan", "predicted age (years)", "error"])
    found = [float(row[list(row)[1]]) for row in rows]
    np.testing.assert_allclose(found, data["y"][:, 0], rtol=0, atol=2e-5)


# ------------------------------------------------------------------------------------------------------------ tables


def test_a_folder_gives_one_row_per_scan_and_a_record(scans, models, tmp_path, capsys):
    table = tmp_path / "ages.csv"
    assert main(["predict", str(scans), "--csv", str(table), "--weights", str(models["age"]), "--preprocessed"]) == 0
    rows, told = rows_of(table), capsys.readouterr().out
    assert [row["scan"] for row in rows] == ["sub-0_T1w", "sub-1_T1w", "sub-2_T1w"]
    assert {row["error"] for row in rows} == {""}
    assert told.count("predicted age") == 3 and "Research use only" in told
    network, spec = load_prediction_model(models["age"])
    with torch.inference_mode():
        seen = torch.from_numpy(np.where(blob(1) > 0, blob(1) / 500 - 1, -1).astype(np.float32))[None, None]
        assert float(rows[1]["predicted age (years)"]) == pytest.approx(float(network(seen)[0]), abs=1e-4)
    record = json.loads((tmp_path / "ages.json").read_text())
    assert record["Prediction"]["Quantity"] == spec.quantity == "predicted age (years)"
    assert len(record["Inputs"]) == 3 and "Research use only" in record["Disclaimer"]
    assert record["Models"][0]["File"] == "age.safetensors"


def test_the_columns_of_a_table_stay_and_a_scan_that_fails_is_recorded(scans, models, tmp_path, capsys):
    (scans / "list.tsv").write_text(
        "subject\tpath\tsex\nA\tsub-0_T1w.nii.gz\tF\nB\tmissing.nii.gz\tM\nC\tsub-2_T1w.nii.gz\tF\n"
    )
    table = tmp_path / "p.csv"
    words = ["predict", str(scans / "list.tsv"), "--csv", str(table), "--weights", str(models["diagnosis"])]
    assert main([*words, "--preprocessed"]) == 1
    rows = rows_of(table)
    assert list(rows[0]) == ["subject", "path", "sex", "probability of AD", "predicted diagnosis", "error"]
    assert [row["subject"] for row in rows] == ["A", "B", "C"]
    assert rows[1]["probability of AD"] == "" and "missing.nii.gz" in rows[1]["error"]
    for row in (rows[0], rows[2]):
        value = float(row["probability of AD"])
        assert 0 < value < 1 and row["predicted diagnosis"] == ("AD" if value >= 0.5 else "CN")
    assert "1 of 3 scans failed (missing.nii.gz); the others are in p.csv" in capsys.readouterr().err
    record = json.loads((tmp_path / "p.json").read_text())
    assert (record["Prediction"]["Scans"], record["Prediction"]["Failed"]) == (3, 1)
    assert main([*words, "--preprocessed", "--compatible", "--overwrite"]) == 1
    published = rows_of(table)
    assert list(published[0]) == ["subject", "sex", "prediction"] and published[1]["prediction"] == ""


def test_scans_of_the_same_name_are_told_apart(models, tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        write_volume(Volume(blob(1), AFFINE), tmp_path / folder / "T1.nii.gz")
    words = [str(tmp_path / folder / "T1.nii.gz") for folder in "ab"]
    out = tmp_path / "p.csv"
    assert main(["predict", *words, "--csv", str(out), "--weights", str(models["age"]), "--preprocessed"]) == 0
    assert [row["scan"] for row in rows_of(out)] == ["a/T1", "b/T1"]


def test_a_cancelled_run_keeps_the_rows_that_are_done(scans, models, tmp_path, monkeypatch, capsys):
    predict, calls = ScanPredictor.predict, []

    def cancelled(self, scan, progress=None, **options):
        calls.append(scan)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(self, scan, progress, **options)

    monkeypatch.setattr(ScanPredictor, "predict", cancelled)
    table = tmp_path / "p.csv"
    assert main(["predict", str(scans), "--csv", str(table), "--weights", str(models["age"]), "--preprocessed"]) == 1
    assert "p.csv holds the rows of 2 of 3 scans" in capsys.readouterr().err
    assert len(rows_of(table)) == 2 and (tmp_path / "p.json").exists()


def test_a_model_of_the_users_own_list_is_known_by_name(scans, models, tmp_path, monkeypatch):
    entry = {
        "name": "my-age",
        "task": "predict",
        "description": "a test",
        "bundled": False,
        "licence": "CC0-1.0",
        "citation": ["none"],
        "input_needs": {"contrast": "T1w", "spacing": "1 mm", "dims": 3, "channels": 1, "field_of_view": "brain"},
        "pages": [],
        "files": [
            {
                "name": "age.safetensors",
                "size": models["age"].stat().st_size,
                "sha256": hashlib.sha256(models["age"].read_bytes()).hexdigest(),
                "git_blob": None,
                "sources": [],
                "aliases": [],
            }
        ],
    }
    (tmp_path / "registry.json").write_text(json.dumps({"format": 1, "models": [entry]}))
    monkeypatch.setenv("MRI_DEEP_TOOLS_REGISTRY", str(tmp_path / "registry.json"))
    from mri_deep_tools import models as list_of_models

    list_of_models.import_models(models["age"].parent, ["my-age"])
    found = predict_scan(scans / "sub-0_T1w.nii.gz", model="my-age", preprocessed=True)
    same = predict_scan(scans / "sub-0_T1w.nii.gz", weights=models["age"], preprocessed=True)
    assert found.value == same.value and found.model == "my-age"
    with pytest.raises(RequestError, match=r"the model iguane does not predict; use my-age"):
        ScanPredictor(model="iguane")


# --------------------------------------------------------------------------------------------------- before the network


@pytest.mark.slow
def test_a_scan_and_its_prepared_image_give_the_same(template, tmp_path):
    """A brain in MNI space, once through the chain and once prepared by hand."""
    spec = PredictorSpec(shape=(160, 192, 160))
    predictor = save(tmp_path / "full.safetensors", spec)
    inside = template.data[template.data > 0]
    prepared = template.with_data(template.data * np.float32(500 / np.median(inside.astype(np.float64))))
    given = predict_scan(prepared, weights=predictor, preprocessed=True)
    turned = Reorient.to(template, "PSR").apply(template)
    mask = turned.with_data((turned.data > 0).astype(np.uint8))
    found = ScanPredictor(weights=predictor, registered=True, bias_correction=False).predict(turned, mask=mask)
    assert found.stages["brain mask"] == "given"
    assert found.prepared.shape3 == (160, 192, 160)
    assert found.stages["crop"].startswith("160x192x160") and found.stages["registration"] == "skipped"
    assert found.value == pytest.approx(given.value, abs=1e-3)
    window = template.data[11:171, 13:205, 1:161]
    network, _ = load_prediction_model(predictor)
    with torch.inference_mode():
        seen = np.where(window > 0, window / np.median(inside) - 1, -1).astype(np.float32)
        expected = float(network(torch.from_numpy(seen)[None, None])[0])
    assert given.value == pytest.approx(expected, abs=1e-3)


def test_a_scan_is_harmonized_when_the_model_was_trained_so(scans, models, small_weights):
    scan = scans / "sub-0_T1w.nii.gz"
    with pytest.raises(WeightsError, match="iguane is not on this machine"):
        ScanPredictor(weights=models["harmonized"])
    assert ScanPredictor(weights=models["harmonized"], harmonization="none").harmonizer is None
    assert ScanPredictor(weights=models["harmonized"], preprocessed=True).harmonizer is None
    plain = predict_scan(scan, weights=models["age"], preprocessed=True)
    options = {"weights": models["age"], "preprocessed": True}
    same = predict_scan(scan, harmonization=str(small_weights["identity"]), **options)
    other = predict_scan(scan, harmonization=str(small_weights["random"]), **options)
    assert same.value == pytest.approx(plain.value, abs=1e-3)
    assert abs(other.value - plain.value) > 1e-3
    assert other.stages["harmonize"] == "random.safetensors"


def test_what_was_harmonized_is_not_harmonized_again(scans, models, small_weights, tmp_path):
    copy = tmp_path / "h.nii.gz"
    copy.write_bytes((scans / "sub-0_T1w.nii.gz").read_bytes())
    record = {"GeneratedBy": [{"Command": "harmonize"}], "Outputs": [{"Name": "h.nii.gz"}]}
    (tmp_path / "h.json").write_text(json.dumps(record))
    options = {"weights": models["age"], "preprocessed": True}
    assert predict_scan(copy, **options).value
    with pytest.raises(InputError, match="was harmonized already"):
        predict_scan(copy, harmonization=str(small_weights["identity"]), **options)


def test_axes_median_and_size_are_brought_to_the_models_own():
    volume, warnings = Volume(blob(3), AFFINE), []
    expected = network_image(volume, (32, 32, 32))
    assert expected.min() == -1 and abs(np.median(expected[expected > -1])) < 1e-6
    turned = Reorient.to(volume, "SAR").apply(volume)
    assert np.array_equal(network_image(turned, (32, 32, 32)), expected)
    assert not np.array_equal(network_image(turned, None, compatible=True), expected)
    one = volume.with_data(volume.data / 500)
    np.testing.assert_allclose(network_image(one, None, warn=warnings.append), expected, atol=1e-5)
    assert "read as normalised to 1" in warnings.pop()
    network_image(volume.with_data(volume.data * 3), None, warn=warnings.append)
    assert "brain median of 1500, not 500" in warnings.pop()
    network_image(Volume(volume.data, np.diag([-2.0, 2, 2, 1])), None, warn=warnings.append)
    assert "2.00 x 2.00 x 2.00 mm" in warnings.pop()
    padded = np.zeros((40, 36, 50), np.float32)
    padded[7:39, 2:34, 10:42] = volume.data
    assert np.array_equal(network_image(volume.with_affine(padded, AFFINE), (32, 32, 32)), expected)
    assert not warnings
    network_image(volume, (16, 32, 32), warn=warnings.append)
    assert re.search(r"[\d.]+ ml of the brain of the image lie outside the model's 16x32x32 voxels", warnings.pop())
    assert fitted(volume.data, (48, 20, 32)).shape == (48, 20, 32)


def test_predictions_beyond_the_training_are_marked(scans, tmp_path):
    spec = PredictorSpec(shape=(32, 32, 32), trained_range=(60.0, 80.0))
    found = predict_scan(scans / "sub-0_T1w.nii.gz", weights=save(tmp_path / "m.safetensors", spec), preprocessed=True)
    assert found.value < 60
    assert any("outside the range of the training data, 60 to 80" in text for text in found.warnings)


# ------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["SCAN"], "IGUANe's were never published; give the weights of a training with --weights FILE"),
        (["SCAN", "--model", "age"], "has no prediction model"),
        (["SCAN", "--weights", "none.safetensors"], "none.safetensors does not exist"),
        (["SCAN", "--weights", "GENERATOR"], "holds a harmonization generator, not a prediction network"),
        (["SCAN", "--weights", "H5"], "does not say whether it predicts a number or a class; add --task"),
        (
            ["SCAN", "--weights", "H5", "--task", "regression", "--shape", "32", "32", "32"],
            "not for images of 32x32x32",
        ),
        (
            ["SCAN", "--weights", "H5", "--task", "regression", "--preprocessed"],
            "sub-0_T1w has 32x32x32 voxels, for which",
        ),
        (["SCAN", "--weights", "AGE", "--task", "classification"], "its task is 'regression', not 'classification'"),
        (["SCAN", "--weights", "AGE", "--classes", "a", "a"], "its classes is None"),
        (["nowhere.nii.gz", "--weights", "AGE"], "nowhere.nii.gz does not exist"),
        (["SCAN", "SCAN", "--weights", "AGE"], "given twice"),
        (["SCAN", "TABLE", "--weights", "AGE"], "stands beside other inputs"),
        (["FOLDER", "--mask", "SCAN", "--weights", "AGE"], "--mask belongs to one scan, and 3 were given"),
        (["SCAN", "--mask", "SCAN", "--weights", "AGE", "--preprocessed"], "a preprocessed image needs no mask"),
        (["CLASH", "--weights", "AGE"], "has a column 'error' already"),
        (["TEXT", "--weights", "AGE"], "neither an image nor a table by its name"),
        (["EMPTY", "--weights", "AGE"], "the folder empty holds no files"),
        (["SCAN", "--skull-stripped", "--weights", "AGE"], "covers 9 ml, which is not a brain"),
    ],
)
def test_wrong_requests_are_told_and_leave_nothing(scans, models, weights_files, tmp_path, capsys, words, told):
    (tmp_path / "t.csv").write_text("path\na.nii.gz\n")
    (tmp_path / "clash.csv").write_text("path,error\na.nii.gz,1\n")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    places = {
        "SCAN": scans / "sub-0_T1w.nii.gz",
        "FOLDER": scans,
        "GENERATOR": weights_files["generator"],
        "H5": weights_files["predictor"],
        "AGE": models["age"],
        "TABLE": tmp_path / "t.csv",
        "CLASH": tmp_path / "clash.csv",
        "TEXT": tmp_path / "notes.txt",
        "EMPTY": tmp_path / "empty",
    }
    out = tmp_path / "out.csv"
    assert main(["predict", *(str(places.get(word, word)) for word in words), "--csv", str(out)]) == 2
    assert re.search(told, capsys.readouterr().err)
    assert not out.exists() and not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (np.zeros((32, 32, 32), np.float32), "holds no brain"),
        (-np.ones((32, 32, 32), np.float32), "holds no brain"),
        (np.full((32, 32, 32), np.nan, np.float32), "holds no brain"),
    ],
)
def test_images_without_a_brain_are_told(models, tmp_path, data, told):
    write_volume(Volume(data, AFFINE), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=told):
        predict_scan(tmp_path / "a.nii.gz", weights=models["age"], preprocessed=True)


def test_weights_that_give_no_number_are_told(scans, tmp_path):
    network = Predictor.for_shape((32, 32, 32))
    torch.nn.init.constant_(network.dense.bias, float("nan"))
    path = save_prediction_model(tmp_path / "n.safetensors", network.state_dict(), PredictorSpec(shape=(32, 32, 32)))
    with pytest.raises(InputError, match="not a number; check the weights"):
        predict_scan(scans / "sub-0_T1w.nii.gz", weights=path, preprocessed=True)


def test_what_a_file_says_of_itself_must_be_sound(tmp_path):
    from safetensors.torch import save_file

    state = Predictor.for_shape((32, 32, 32)).state_dict()
    for text, told in (("{", "cannot be read"), ('{"task": "dreams"}', "cannot be read"), ("[1]", "cannot be read")):
        save_file(state, tmp_path / "a.safetensors", metadata={"iguane-predictor": text})
        with pytest.raises(WeightsError, match=told):
            load_prediction_model(tmp_path / "a.safetensors")
    save_file(
        state, tmp_path / "a.safetensors", metadata={"iguane-predictor": PredictorSpec(shape=(64,) * 3).to_text()}
    )
    with pytest.raises(WeightsError, match="not for images of 64x64x64 voxels: its last layer takes 128 features"):
        load_prediction_model(tmp_path / "a.safetensors")
    spec = PredictorSpec("classification", "diagnosis", "", ("CN", "AD"), (32, 32, 32), 500.0, "iguane", None)
    assert PredictorSpec.from_text(spec.to_text()) == spec
    assert PredictorSpec.from_text(spec.to_text()[:-1] + ', "later": 1}') == spec
    save_file(state, tmp_path / "plain.safetensors")
    with pytest.raises(RequestError, match="add --task"):
        load_prediction_model(tmp_path / "plain.safetensors")
