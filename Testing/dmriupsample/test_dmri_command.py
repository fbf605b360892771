"""``upsample-dmri`` and ``evaluate dmri`` as a user meets them: files, records, reports, and wrong requests."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from dmri_helpers import centred, directions, fibres, fsl_of
from mri_deep_tools.cli import main
from mri_deep_tools.dmriupsample import GradientTable, upsample
from mri_deep_tools.dmriupsample.facts import Facts
from mri_deep_tools.dmriupsample.leave_out import leave_out, plan_folds
from mri_deep_tools.dmriupsample.network import RCNN
from mri_deep_tools.dmriupsample.predict import Upsampler
from mri_deep_tools.dmriupsample.scan import DiffusionScan
from mri_deep_tools.dmriupsample.weights import save_network
from mri_deep_tools.errors import RequestError
from mri_deep_tools.progress import EVENT_TOKEN, Progress
from mri_deep_tools.volume import Volume, read_volume, write_volume

SHAPE = (11, 9, 8)
NARROW = {"init": 6, "ecv11": 8, "ecv21": 8, "ecvl1": 5, "ecvl2": 6, "conv_lstm": 7, "dcvl1": 6, "dcvl2": 8, "dcv11": 9}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A small network that knows nothing, in a file that says what it would be for."""
    facts = Facts((6, 10), 1000, percentile=True, trained_on="nothing")
    torch.manual_seed(0)
    network = RCNN(1, 10, NARROW)
    network.decoder.unit("dc4").bias.data.fill_(0.3)  # above what the last layer cuts off
    return save_network(network, tmp_path_factory.mktemp("net") / "net.safetensors", facts)


def write_scan(folder, bvals=None, seed=0, noise=10.0, name="dwi"):
    """Write a scan with two b = 0 volumes and 14 directions, FSL files and a mask; return its path."""
    bvals = np.array([0.0, 5, *[1000] * 14]) if bvals is None else np.asarray(bvals, float)
    affine = centred(np.diag([-2.0, 2.1, 2.2]), SHAPE)
    world = np.where(bvals[:, None] > 50, directions(len(bvals), seed), 0)
    data = fibres(SHAPE, affine, world, bvals)
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:-1, 1:-1, 1:-1] = 1
    data = (data * mask[..., None] + np.random.default_rng(1).normal(0, noise, data.shape)).astype(np.float32)
    write_volume(Volume(np.maximum(data, 0), affine), folder / f"{name}.nii.gz")
    write_volume(Volume(mask, affine), folder / "mask.nii.gz", intent="label")
    np.savetxt(folder / f"{name}.bvec", fsl_of(world, affine).T)
    np.savetxt(folder / f"{name}.bval", bvals[None])
    return folder / f"{name}.nii.gz"


@pytest.fixture
def scan(tmp_path):
    return write_scan(tmp_path)


def run(*words):
    return main(["upsample-dmri", *map(str, words)])


def events(text):
    lines = [line for line in text.splitlines() if line.startswith(EVENT_TOKEN)]
    return [json.loads(line.removeprefix(EVENT_TOKEN)) for line in lines]


# -------------------------------------------------------------------------------------------------------------- files


def test_everything_is_written_beside_the_image(scan, network, tmp_path, capsys):
    out, mask = tmp_path / "out.nii.gz", tmp_path / "mask.nii.gz"
    more = {"--report": "r.html", "--residuals": "res.nii.gz", "--fa": "fa.nii.gz", "--md": "md.nii.gz"}
    more |= {"--save-mask": "used.nii.gz", "--save-grad": "out.b"}
    words = [word for option, name in more.items() for word in (option, tmp_path / name)]
    asked = ["--mask", mask, "--directions", 9, "--weights", network, "--device", "cpu", "--progress", "json"]
    assert run(scan, out, *asked, *words) == 0
    image = nib.load(out)
    assert image.shape == (*SHAPE, 2 + 9)
    assert np.loadtxt(tmp_path / "out.bval").tolist() == [0, 5, *[1000] * 9]
    assert np.loadtxt(tmp_path / "out.bvec").shape == (3, 11) and np.loadtxt(tmp_path / "out.b").shape == (11, 4)
    data = image.get_fdata()
    np.testing.assert_allclose(data[..., :2], nib.load(scan).get_fdata()[..., :2])
    outside = nib.load(mask).get_fdata() == 0
    assert not data[outside][:, 2:].any()
    np.testing.assert_array_equal(nib.load(tmp_path / "used.nii.gz").get_fdata(), ~outside)
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["Synthetic"] and record["Models"][0]["Name"] == "net.safetensors"
    assert len(record["Options"]["context_volumes"]) == 10 and len(record["Options"]["unused_volumes"]) == 4
    assert any("volumes 2, " in text and "are used" in text for text in record["Warnings"])
    assert {item["Name"] for item in record["Outputs"]} >= {"out.nii.gz", "out.bval", "out.bvec", "fa.nii.gz"}
    numbers = json.loads((tmp_path / "r_errors.json").read_text())
    assert numbers["Errors"].keys() == {"method", "sh", "sh_all", "mean"} and len(numbers["Directions"]) == 14
    assert numbers["Errors"]["sh"]["MAE"] < numbers["Errors"]["method"]["MAE"]  # the network knows nothing
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "use --method sh" in page and "Main direction" in page and page.count("data:image/png") == 5
    residuals = nib.load(tmp_path / "res.nii.gz").get_fdata()
    assert residuals[~outside].mean() == pytest.approx(numbers["Errors"]["method"]["MAE"], rel=1e-3)
    told = events(capsys.readouterr().out)
    result = next(event for event in told if event["event"] == "result")
    assert result["context"] == record["Options"]["context_volumes"] and result["predicted"] == 9
    assert {event["stage"] for event in told if event["event"] == "stage"} == {
        "read",
        "mask",
        "predict",
        "check",
        "write",
    }


def test_measured_volumes_can_be_kept(scan, network, tmp_path):
    asked = ["--mask", tmp_path / "mask.nii.gz", "--directions", 5, "--weights", network, "--keep-measured", "--quiet"]
    assert run(scan, tmp_path / "out.nii.gz", *asked) == 0
    data = nib.load(tmp_path / "out.nii.gz").get_fdata()
    np.testing.assert_allclose(data[..., :16], nib.load(scan).get_fdata())
    assert data.shape[3] == 21
    np.testing.assert_allclose(np.loadtxt(tmp_path / "out.bvec")[:, :16], np.loadtxt(tmp_path / "dwi.bvec"), atol=1e-7)


def test_dry_run_tells_and_writes_nothing(scan, network, tmp_path, capsys):
    before = sorted(tmp_path.iterdir())
    assert run(scan, tmp_path / "out.nii.gz", "--directions", 20, "--weights", network, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "2 volumes at b = 0; b = 1000: 14 directions" in told and "predict 20 directions" in told
    assert sorted(tmp_path.iterdir()) == before
    run(scan, tmp_path / "out.nii.gz", "--directions", 20, "--method", "sh", "--dry-run", "--progress", "json")
    result = events(capsys.readouterr().out)[-1]
    assert result["shells"] == {"1000": 14} and result["b0"] == [0, 1] and len(result["target_world"]) == 20


def test_a_shell_is_picked_of_several(network, tmp_path, capsys):
    scan = write_scan(tmp_path, [0, *[1000] * 8, *[2000] * 9])
    asked = ["--mask", tmp_path / "mask.nii.gz", "--directions", 7, "--weights", network, "--quiet"]
    assert run(scan, tmp_path / "out.nii.gz", *asked) == 2
    assert (
        "has several shells: 1000 (8 directions), 2000 (9 directions); choose one with --shell"
        in capsys.readouterr().err
    )
    assert run(scan, tmp_path / "out.nii.gz", *asked, "--shell", 1000) == 0
    assert np.loadtxt(tmp_path / "out.bval").tolist() == [0, *[1000] * 7]
    record = json.loads((tmp_path / "out.json").read_text())
    assert len(record["Options"]["context_volumes"]) == 6 and max(record["Options"]["context_volumes"]) <= 8


def test_mask_is_computed_where_none_is_given(network, tmp_path):
    pytest.importorskip("dipy")
    shape, count = (26, 24, 22), 6
    affine = centred(np.diag([-2.0, 2.0, 2.0]), shape)
    ball = np.linalg.norm(np.indices(shape).T - np.array(shape) / 2, axis=-1).T < 9
    world, bvals = np.concatenate([np.zeros((1, 3)), directions(count)]), np.array([0.0, *[1000] * count])
    data = fibres(shape, affine, world, bvals) * ball[..., None]
    data += np.abs(np.random.default_rng(1).normal(0, 20, data.shape)).astype(np.float32)
    scan = DiffusionScan(Volume(data, affine), GradientTable(bvals, world))
    result = upsample(scan, directions=3, weights=network, device="cpu")
    found = result.mask.data > 0
    assert 2 * (found & ball).sum() / (found.sum() + ball.sum()) > 0.9
    assert result.predicted.data[~found].max() == 0 < result.predicted.data[found].max()


def test_less_memory_gives_the_same(scan, network, tmp_path):
    asked = ["--mask", tmp_path / "mask.nii.gz", "--directions", 12, "--weights", network, "--device", "cpu", "--quiet"]
    found = []
    for memory in (2.0, 0.12):
        path = tmp_path / f"m{memory}.nii.gz"
        assert run(scan, path, *asked, "--memory", memory) == 0
        found.append(nib.load(path).get_fdata())
    np.testing.assert_allclose(*found, atol=1e-3)
    assert run(scan, tmp_path / "x.nii.gz", *asked, "--memory", 0.001) == 1
    assert not list(tmp_path.glob("x.*"))


def test_compatible_writes_what_the_published_program_writes(network, tmp_path):
    scan = write_scan(tmp_path, [1000] * 10)
    np.savetxt(tmp_path / "wanted.bvec", directions(4, 9).T)
    asked = ["--mask", tmp_path / "mask.nii.gz", "--target-bvecs", tmp_path / "wanted.bvec", "--weights", network]
    assert run(scan, tmp_path / "out.nii.gz", *asked, "--compatible", "--quiet") == 0
    image = nib.load(tmp_path / "out.nii.gz")
    assert isinstance(image, nib.Nifti2Image) and image.shape == (*SHAPE, 4) and not list(tmp_path.glob("out.bv*"))
    assert image.header["sform_code"] == 2 and image.header["qform_code"] == 0


# ---------------------------------------------------------------------------------------------------- wrong requests


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "one of the arguments --directions --target-bvecs --target-grad is required"),
        (["--directions", "5", "--target-bvecs", "x"], "not allowed with argument"),
        (["--directions", "0"], "not a whole number from 1"),
        (["--directions", "5", "--method", "sh", "--model", "a"], "spherical harmonics need no model"),
        (["--directions", "5", "--method", "sh", "--sh-order", "3"], "2, 4, 6"),
        (["--directions", "5", "--method", "sh", "--sh-order", "6"], "order 6 need 28 directions, not 14"),
        (["--directions", "5", "--residuals", "r.nii.gz"], "--residuals belongs to --report"),
        (["--directions", "5", "--report", "r.txt"], "does not end in .html"),
        (["--directions", "5", "--method", "sh", "--bvals", "none.bval"], "none.bval"),
        (["--target-bvecs", "none.bvec", "--method", "sh"], "none.bvec cannot be read"),
        (["--directions", "5", "--weights", "none"], "weights none do not exist"),
        (["--directions", "5", "--shell", "3000", "--method", "sh"], "no shell at b = 3000; it has 1000"),
        (["--directions", "5", "--method", "sh", "--mask", "none.nii.gz"], "none.nii.gz"),
    ],
)
def test_wrong_requests_end_with_a_sentence(scan, tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert run(scan, tmp_path / "out.nii.gz", *words) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert told in last and "Traceback" not in last
    assert sorted(tmp_path.iterdir()) == before


def test_bad_scans_end_with_a_sentence(tmp_path, capsys, network):
    scan = write_scan(tmp_path)
    affine = nib.load(scan).affine

    def fails(told, *words, image=scan):
        assert run(image, tmp_path / "out.nii.gz", "--directions", 4, "--weights", network, *words) == 2
        assert told in capsys.readouterr().err.splitlines()[-1]
        assert not list(tmp_path.glob("out.*"))

    flat = np.zeros((14, 3))
    flat[:, :2] = directions(14)[:, :2] / np.linalg.norm(directions(14)[:, :2], axis=1, keepdims=True)
    np.savetxt(tmp_path / "flat.bvec", np.concatenate([np.zeros((2, 3)), flat]).T)
    fails("lie on one plane", "--bvecs", tmp_path / "flat.bvec", "--bvals", tmp_path / "dwi.bval")
    other = Volume(np.ones((4, 5, 6), np.uint8), affine)
    write_volume(other, tmp_path / "other.nii.gz")
    fails("other.nii.gz is not on the grid", "--mask", tmp_path / "other.nii.gz")
    write_volume(Volume(np.zeros(SHAPE, np.uint8), affine), tmp_path / "empty.nii.gz")
    fails("empty.nii.gz is empty", "--mask", tmp_path / "empty.nii.gz")
    fails("has a single volume", image=tmp_path / "mask.nii.gz")
    write_volume(read_volume(scan, ndim=4), tmp_path / "alone.nii.gz")
    fails("has no gradients; give --bvecs and --bvals, or --grad", image=tmp_path / "alone.nii.gz")
    unweighted = write_scan(tmp_path, [1000] * 12, name="nob0")
    fails("a mask cannot be computed: the scan has no b = 0 volume", image=unweighted)
    few = write_scan(tmp_path, [0, *[1000] * 5], name="few")
    fails("6 directions are needed and 5 were measured", image=few)
    zero = read_volume(scan, ndim=4)
    write_volume(zero.with_data(0 * zero.data), tmp_path / "zero.nii.gz")
    words = ["--bvecs", tmp_path / "dwi.bvec", "--bvals", tmp_path / "dwi.bval", "--mask", tmp_path / "mask.nii.gz"]
    fails("no signal inside the mask", *words, image=tmp_path / "zero.nii.gz")


def test_signed_and_foreign_intensities_are_warned_of(scan, weights, tmp_path, capsys):
    image = read_volume(scan, ndim=4)
    write_volume(image.with_data(image.data / 4000 - 0.1), tmp_path / "scaled.nii.gz")
    words = ["--bvecs", tmp_path / "dwi.bvec", "--bvals", tmp_path / "dwi.bval", "--mask", tmp_path / "mask.nii.gz"]
    asked = ["--directions", 2, "--weights", weights(1, 6), "--device", "cpu"]
    assert run(tmp_path / "scaled.nii.gz", tmp_path / "out.nii.gz", *words, *asked) == 0
    told = capsys.readouterr().err
    assert "has negative values inside the mask" in told and "the model expects values up to about 4000" in told
    assert "the model was trained at 1.25 mm" in told


# ---------------------------------------------------------------------------------------------------- honest errors


def test_folds_leave_every_direction_out_once():
    for total, read in ((7, 6), (14, 10), (30, 10), (64, 6)):
        volumes = np.arange(100, 100 + total)
        folds = plan_folds(directions(total), volumes, read)
        held = np.concatenate([fold.held for fold in folds])
        assert sorted(held.tolist()) == volumes.tolist()
        for fold in folds:
            assert len(fold.context) == read and not set(fold.context) & set(fold.held)
            assert set(fold.others) == set(volumes) - set(fold.held)


def truth_scan(count, noise=0.0):
    affine = centred(np.diag([-2.0, 2.0, 2.0]), SHAPE)
    world = np.concatenate([np.zeros((1, 3)), directions(count)])
    bvals = np.array([0.0, *[1000] * count])
    data = fibres(SHAPE, affine, world, bvals)
    data += np.random.default_rng(0).normal(0, noise, data.shape).astype(np.float32)
    return DiffusionScan(Volume(data, affine), GradientTable(bvals, world))


def test_left_out_error_of_spherical_harmonics_is_the_true_one():
    """Order 4 predicts one tensor per voxel nearly exactly; leaving out must find an error as small."""
    upsampler = Upsampler(method="sh", sh_order=4, directions=20)
    result = upsample(truth_scan(40), upsampler=upsampler)
    check = leave_out(result, upsampler, Progress())
    assert check.scores["method"].percent < 1.0 < check.scores["mean"].percent
    assert check.level == "good" and check.change.fa < 0.01 and len(check.rows) == 40
    direct = fibres(SHAPE, result.image.affine, result.gradients.world[1:], np.full(20, 1000.0))
    error = np.abs(result.predicted.data - direct).mean() / direct.mean()
    assert 100 * error == pytest.approx(check.scores["method"].percent, rel=1.0)


def test_where_nothing_can_be_left_out_it_is_said(network):
    upsampler = Upsampler(weights=network, directions=4, device="cpu")
    mask = Volume(np.ones(SHAPE, np.uint8), truth_scan(6).image.affine)
    result = upsample(truth_scan(6), upsampler=upsampler, mask=mask)
    check = leave_out(result, upsampler, Progress())
    assert not check.scores and "is not known" in check.verdict and check.level == "doubtful"
    assert "no direction could be left out" in check.notes[0]


def test_fewer_are_read_where_the_network_knows_fewer(network):
    """Ten were measured and read; the file serves six as well, so four can be left out at a time."""
    upsampler = Upsampler(weights=network, directions=4, device="cpu")
    mask = Volume(np.ones(SHAPE, np.uint8), truth_scan(10).image.affine)
    check = leave_out(upsample(truth_scan(10), upsampler=upsampler, mask=mask), upsampler, Progress())
    assert (check.read, check.trained, len(check.rows)) == (6, True, 10)
    assert check.scores["sh"].mae < check.scores["method"].mae and "Spherical harmonics are better" in check.verdict


@pytest.mark.parametrize(
    ("count", "methods"), [(16, {"method", "sh", "sh_all", "mean"}), (11, {"method", "sh", "mean"})]
)
def test_every_method_is_judged_on_the_same_directions(network, count, methods):
    """Of 16 directions turns leave out 6, 5 and 5; spherical harmonics then have 10 or 11 left."""
    upsampler = Upsampler(weights=network, directions=4, device="cpu")
    scan = truth_scan(count, noise=20.0)
    mask = Volume(np.ones(SHAPE, np.uint8), scan.image.affine)
    check = leave_out(upsample(scan, upsampler=upsampler, mask=mask), upsampler, Progress())
    assert check.scores.keys() == methods
    for name, score in check.scores.items():
        assert score.mae == pytest.approx(np.mean([row.mae[name] for row in check.rows]), rel=1e-4), name
    if "sh_all" in methods:
        assert 0.6 < check.scores["sh_all"].mae / check.scores["sh"].mae < 1.05  # hardly more directions, hardly better


@pytest.mark.parametrize(
    ("smoothing", "added", "told", "level"),
    [(1e-7, 0.0, "Spherical harmonics are as good here", "doubtful"), (1e-7, 3.0, "are better here", "doubtful")],
)
def test_report_says_when_harmonics_are_as_good(tmp_path, smoothing, added, told, level):
    """A network that adds nothing to spherical harmonics is exactly as good; one that adds an offset is worse."""
    network = RCNN(1, 10, NARROW, spatial="batch", smoothing=smoothing)
    network.decoder.unit("dc4").weight.data.zero_()
    network.decoder.unit("dc4").bias.data.fill_(added)
    path = save_network(network, tmp_path / "net.safetensors", Facts((10,), 1000, percentile=True))
    upsampler = Upsampler(weights=path, directions=4, device="cpu")
    scan = truth_scan(11, noise=20.0)
    mask = Volume(np.ones(SHAPE, np.uint8), scan.image.affine)
    check = leave_out(upsample(scan, upsampler=upsampler, mask=mask), upsampler, Progress())
    assert told in check.verdict and "--method sh" in check.verdict and check.level == level
    ratio = check.scores["method"].mae / check.scores["sh"].mae
    assert ratio == pytest.approx(1, abs=0.01) if added == 0 else ratio > 1.5


def test_targets_are_given_once():
    with pytest.raises(RequestError, match="given twice"):
        upsample(truth_scan(8), method="sh", directions=4, target_bvecs=directions(3))
    with pytest.raises(RequestError, match="no target directions"):
        upsample(truth_scan(8), method="sh")


# -------------------------------------------------------------------------------------------------------- evaluation


def test_evaluation_finds_what_was_changed(tmp_path, capsys):
    scan = write_scan(tmp_path, noise=0.0)
    image = read_volume(scan, ndim=4)
    order = np.random.default_rng(3).permutation(16)
    bvecs, bvals = np.loadtxt(tmp_path / "dwi.bvec"), np.loadtxt(tmp_path / "dwi.bval")
    inside = read_volume(tmp_path / "mask.nii.gz").data > 0
    changed = image.data + np.where(inside[..., None], 20.0, -5.0) * (bvals > 50)
    write_volume(image.with_data(changed[..., order].astype(np.float32)), tmp_path / "found.nii.gz")
    np.savetxt(tmp_path / "found.bvec", -bvecs[:, order])  # the other ends of the same axes
    np.savetxt(tmp_path / "found.bval", bvals[None, order])
    words = [tmp_path / "dwi.nii.gz", tmp_path / "found.nii.gz", tmp_path / "e.csv", "--mask", tmp_path / "mask.nii.gz"]
    assert main(["evaluate", "dmri", *map(str, words)]) == 0
    rows = list(csv.DictReader((tmp_path / "e.csv").open()))
    assert len(rows) == 15 and rows[-1]["volume"] == "mean"
    for row in rows[:-1]:
        assert int(row["true_volume"]) == order[int(row["volume"])]
        assert float(row["mae_in"]) == pytest.approx(20, rel=1e-4) and float(row["mae_out"]) == pytest.approx(
            5, rel=1e-3
        )
    assert 0 < float(rows[-1]["fa_error"]) < 0.2 and float(rows[-1]["angle_degrees"]) < 3
    assert "14 volumes: mean absolute error 20 inside" in capsys.readouterr().out


def test_evaluation_refuses_what_cannot_be_compared(tmp_path, capsys):
    scan = write_scan(tmp_path)
    other = write_scan(tmp_path, seed=7, name="other")
    assert main(["evaluate", "dmri", str(scan), str(other), str(tmp_path / "e.csv")]) == 2
    assert "no direction of other.nii.gz is in dwi.nii.gz" in capsys.readouterr().err
    image = read_volume(scan, ndim=4)
    moved = image.affine.copy()
    moved[0, 3] += 5
    write_volume(Volume(image.data, moved), tmp_path / "other.nii.gz")
    assert main(["evaluate", "dmri", str(scan), str(other), str(tmp_path / "e.csv")]) == 2
    assert "other.nii.gz is not on the grid of dwi.nii.gz" in capsys.readouterr().err
    assert not (tmp_path / "e.csv").exists()
