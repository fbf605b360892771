"""What bad input, broken weights, full disks, signals and tight memory get from `mri-deep-tools segment`.

One clear sentence, the right exit status, nothing half-written, and no result of an earlier run that could be taken
for new. What depends on the process (signals, limits, exit) runs the program in a process of its own.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import struct
import sys

import nibabel as nib
import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.progress import EVENT_TOKEN
from segment_command import QUICK, command, labels_of, remains, save, scan_values, sentence, start

pytestmark = pytest.mark.usefixtures("own_cache")
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits and signals")


def inside(capsys, *words):
    """Run the command in this process; return status, standard output and standard error."""
    status = main(list(map(str, words)))
    out, err = capsys.readouterr()
    return status, out, err


def patched(path, offset: int, form: str, *values):
    """Overwrite a few bytes of a NIfTI header inside the gzip file."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(form, data, offset, *values)
    path.write_bytes(gzip.compress(bytes(data), 1))
    return path


def rgb(path):
    values = np.zeros((20, 20, 20), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)


def truncated(path):
    save(path)
    path.write_bytes(path.read_bytes()[:60_000])


def sheared(path):
    affine = np.eye(4)
    affine[0, 1] = 0.2
    save(path, affine=affine)
    patched(path, 252, "<hh", 0, 1)  # the sform alone, which can hold a shear


def singular(path):
    patched(save(path), 280, "<12f", *([0.0] * 12))
    patched(path, 252, "<hh", 0, 1)


# What is refused, and a piece of the sentence.
REFUSED = {
    "truncated": (truncated, "scan.nii.gz"),
    "fake gzip": (lambda path: path.write_bytes(b"no gzip at all"), "scan.nii.gz"),
    "empty": (lambda path: path.write_bytes(b""), "scan.nii.gz"),
    "2-D": (lambda path: save(path, scan_values((40, 36, 34))[:, :, 0]), "scan.nii.gz is one slice (40 x 36"),
    "RGB": (rgb, "scan.nii.gz"),
    "complex": (lambda path: save(path, scan_values().astype(np.complex64)), "scan.nii.gz"),
    "sheared": (sheared, "scan.nii.gz"),
    "singular": (singular, "scan.nii.gz"),
    "constant": (lambda path: save(path, np.full((40, 36, 34), 7.0, np.float32)), "scan"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_sentence(tmp_path, narrow_weights, capsys, case):
    make, expected = REFUSED[case]
    make(tmp_path / "scan.nii.gz")
    old = tmp_path / "out" / "labels.nii.gz"
    old.parent.mkdir()
    old.write_text("a result of yesterday")
    words = ("segment", tmp_path / "scan.nii.gz", old, "--weights", narrow_weights, *QUICK, "--overwrite")
    status, _, err = inside(capsys, *words)
    assert status == 2, err
    assert expected in sentence(err)
    assert str(tmp_path) not in err
    assert remains(old.parent) == []


def test_refused_by_the_program_in_its_own_process(tmp_path, narrow_weights):
    truncated(tmp_path / "scan.nii.gz")
    done = command("segment", tmp_path / "scan.nii.gz", tmp_path / "x.nii.gz", "--weights", narrow_weights)
    assert done.returncode == 2
    assert "scan.nii.gz" in sentence(done.stderr)
    assert remains(tmp_path) == ["scan.nii.gz"]


def with_nan(path):
    values = scan_values()
    values[0, 0, :5] = np.nan
    values[0, 0, 5] = np.inf
    save(path, values)


def conflict(path):
    save(path)
    patched(path, 252, "<hh", 1, 1)
    patched(path, 268, "<f", 9.0)  # qform offset x: 9 mm away from the sform


def zero_slope(path, slope=0.0):
    save(path, scan_values().astype(np.int16))
    patched(path, 112, "<ff", slope, 3.0)


# What is segmented, and a piece of the warning that the person reads (None: none is needed).
ACCEPTED = {
    "NaN and infinity": (with_nan, "6 of 48960 voxels are NaN or infinite"),
    "4-D": (lambda path: save(path, np.stack([scan_values()] * 12, axis=-1)), "12 frames"),
    "4-D of one frame": (lambda path: save(path, scan_values()[..., None]), None),
    "int64": (
        lambda path: nib.save(nib.Nifti1Image(scan_values().astype(np.int64), np.eye(4), dtype=np.int64), path),
        None,
    ),
    "big-endian": (
        lambda path: nib.save(nib.Nifti1Image(scan_values(), np.eye(4), nib.Nifti1Header(endianness=">")), path),
        None,
    ),
    "slope 0": (zero_slope, None),
    "slope NaN": (lambda path: zero_slope(path, float("nan")), None),
    "two forms": (conflict, "sform"),
    "left-handed": (lambda path: save(path, affine=np.diag([-1.0, 1, 1, 1])), None),
    "0.05 mm": (lambda path: save(path, affine=np.diag([0.05, 0.05, 0.05, 1])), "covers only 2 mm"),
    "12 mm slices": (lambda path: save(path, scan_values((60, 60, 20)), np.diag([1.0, 1, 12, 1])), "12 mm"),
    "20 slices": (lambda path: save(path, scan_values((90, 90, 20))), "covers only 20 mm"),
    "half a head": (lambda path: save(path, scan_values((40, 90, 90))), "covers only 40 mm"),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_unusual_but_usable_scans(tmp_path, narrow_weights, capsys, case):
    make, warning = ACCEPTED[case]
    scan, out = tmp_path / "scan.nii.gz", tmp_path / "out" / "labels.nii.gz"
    make(scan)
    words = ("segment", scan, out, "--weights", narrow_weights, *QUICK, "--fast", "--progress", "json")
    status, stdout, err = inside(capsys, *words)
    assert status == 0, err
    assert "Traceback" not in err
    image = nib.load(scan)
    assert labels_of(out).shape == image.shape[:3]
    np.testing.assert_allclose(nib.load(out).affine, image.affine, atol=1e-4)
    events = [json.loads(line[len(EVENT_TOKEN) :]) for line in stdout.splitlines() if line.startswith(EVENT_TOKEN)]
    warnings = " ".join(event["message"] for event in events if event["event"] == "warning")
    if warning:
        assert warning in warnings
    assert str(tmp_path) not in warnings
    record = json.loads((out.parent / "labels.json").read_text())
    assert " ".join(record["Warnings"]) == warnings


# ------------------------------------------------------------------------------------------------------------ weights


WRONG_WEIGHTS = {
    "missing": (lambda weights, folder: folder / "nowhere.h5", "nowhere.h5"),
    "not HDF5": (lambda weights, folder: save(folder.with_suffix(".nii.gz")), "weights.nii.gz"),
    "of another network": (lambda weights, folder: weights / "synthseg_qc_2.0.h5", "quality-control regressor"),
    "of the robust chain": (lambda weights, folder: weights / "synthseg_robust_2.0.h5", "--robust"),
    "of version 1": (lambda weights, folder: weights / "synthseg_1.0.h5", None),
}


@pytest.mark.parametrize("case", WRONG_WEIGHTS)
def test_wrong_weights(tmp_path, narrow_weights, capsys, case):
    make, expected = WRONG_WEIGHTS[case]
    scan = save(tmp_path / "scan.nii.gz")
    path = make(narrow_weights, tmp_path / "weights")
    status, _, err = inside(capsys, "segment", scan, tmp_path / "x.nii.gz", "--weights", path, *QUICK, "--fast")
    if expected is None:  # version 1 by its file, as its width says
        assert status == 0
        return
    assert status == 2
    assert expected in sentence(err)
    assert not (tmp_path / "x.nii.gz").exists()


def test_cut_weights(tmp_path, narrow_weights, capsys):
    scan = save(tmp_path / "scan.nii.gz")
    path = tmp_path / "cut.h5"
    path.write_bytes((narrow_weights / "synthseg_2.0.h5").read_bytes()[:2_000_000])
    status, _, err = inside(capsys, "segment", scan, tmp_path / "x.nii.gz", "--weights", path, *QUICK)
    assert status == 2
    assert "cut.h5" in sentence(err)
    assert remains(tmp_path) == ["cut.h5", "scan.nii.gz"]


def test_no_weights_and_no_network(tmp_path, capsys):
    scan = save(tmp_path / "scan.nii.gz")
    status, _, err = inside(capsys, "segment", scan, tmp_path / "x.nii.gz", "--model", "synthseg-2.0")
    assert status == 2
    assert "models download synthseg-2.0" in sentence(err)
    status, _, err = inside(capsys, "models", "download", "synthseg-2.0")
    assert status == 1
    assert "the network is switched off" in sentence(err)


# ------------------------------------------------------------------------------------------------------------- places


@posix
def test_a_place_that_cannot_be_written(tmp_path, narrow_weights, capsys):
    scan = save(tmp_path / "scan.nii.gz")
    words = ("segment", scan, "/proc/labels.nii.gz", "--weights", narrow_weights, "--progress", "json")
    status, out, err = inside(capsys, *words)
    assert status == 1
    assert "labels.nii.gz cannot be written" in sentence(err)
    assert '"event": "stage"' not in out  # known before the work


@posix
@pytest.mark.parametrize("room", [100, 20_000], ids=["nothing fits", "some files fit"])
def test_full_place(tmp_path, narrow_weights, room):
    """A limit on the size of files stands for a full disk: the same error at the same places."""
    import resource

    scan, out = save(tmp_path / "scan.nii.gz"), tmp_path / "out"
    words = ("segment", scan, out / "x.nii.gz", "--weights", narrow_weights, *QUICK, "--fast")
    assert main([*map(str, words), "--quiet"]) == 0  # weights are converted now
    done = command(
        *words,
        "--overwrite",
        *("--vol", out / "v.csv", "--post", out / "soft.nii.gz"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    assert done.returncode == 1
    assert "cannot be written" in sentence(done.stderr)
    assert remains(out) == []


@posix
def test_tight_memory(tmp_path, narrow_weights):
    import resource

    scan = save(tmp_path / "scan.nii.gz", scan_values((260, 260, 260)).astype(np.uint8))
    limit = 5 << 29  # 2.5 GiB of address space, of which PyTorch takes more than half
    done = command(
        *("segment", scan, tmp_path / "x.nii.gz", "--weights", narrow_weights, "--threads", "1"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 1
    assert "memory" in sentence(done.stderr)
    assert remains(tmp_path) == ["scan.nii.gz"]


def test_two_runs_at_once(tmp_path, narrow_weights):
    scan, out = save(tmp_path / "scan.nii.gz"), tmp_path / "out"
    words = ("segment", scan, out / "x.nii.gz", "--weights", narrow_weights, *QUICK, "--overwrite", "--vol", out / "v")
    runs = [start(*words) for _ in range(2)]
    for process in runs:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert remains(out) == ["v.csv", "x.json", "x.nii.gz"]
    assert len((out / "v.csv").read_text().splitlines()) == 2
    assert labels_of(out / "x.nii.gz").shape == (40, 36, 34)


# ------------------------------------------------------------------------------------------------------------ signals


def run_until(stage: str, number: int, *words):
    """Start the command, send a signal when it announces a stage, and return how it ended."""
    process = start(*words, "--progress", "json")
    for line in process.stdout:
        if f'"stage", "stage": "{stage}"' in line:
            process.send_signal(number)
            break
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@posix
@pytest.mark.parametrize("stage", ["prepare", "segment", "write"])
def test_interrupted_at_any_stage(tmp_path, narrow_weights, stage):
    scan, out = save(tmp_path / "scan.nii.gz"), tmp_path / "out"
    words = ("segment", scan, out / "x.nii.gz", "--weights", narrow_weights, *QUICK, "--post", out / "p.nii.gz")
    number = signal.SIGINT if stage == "segment" else signal.SIGTERM
    status, err = run_until(stage, number, *words)
    assert status == 1
    assert "Cancelled; nothing was written." in sentence(err)
    assert remains(tmp_path) == ["scan.nii.gz"]


@posix
def test_killed_in_the_middle(tmp_path, narrow_weights):
    """SIGKILL leaves at most a hidden temporary file, which the next run removes; no result, old or new."""
    scan, out = save(tmp_path / "scan.nii.gz"), tmp_path / "out"
    words = ("segment", scan, out / "x.nii.gz", "--weights", narrow_weights, *QUICK, "--fast", "--overwrite")
    for stage in ("segment", "write"):
        out.mkdir(exist_ok=True)
        (out / "x.nii.gz").write_text("a result of yesterday")
        status, _ = run_until(stage, signal.SIGKILL, *words)
        assert status == -signal.SIGKILL
        assert [name for name in remains(out) if not name.startswith(".mdt-")] == []
    assert main([*map(str, words), "--quiet"]) == 0
    assert remains(out) == ["x.json", "x.nii.gz"]


@posix
def test_cancelled_between_scans_keeps_what_is_complete(tmp_path, narrow_weights):
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for name in "abc":
        save(scans / f"{name}.nii.gz")
    process = start("segment", scans, out, "--weights", narrow_weights, *QUICK, "--fast", "--progress", "json")
    for line in process.stdout:
        if '"event": "result"' in line:
            process.send_signal(signal.SIGINT)
            break
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Cancelled; the results of 1 of 3 scans are complete and are kept." in sentence(err)
    assert remains(out) == ["a_synthseg.json", "a_synthseg.nii.gz"]


def test_whoever_reads_the_events_may_leave(tmp_path, narrow_weights):
    scan, out = save(tmp_path / "scan.nii.gz"), tmp_path / "out"
    process = start("segment", scan, out / "x.nii.gz", "--weights", narrow_weights, *QUICK, "--progress", "json")
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 1
    assert "Traceback" not in err
    assert remains(tmp_path) == ["scan.nii.gz"]


def test_environment_of_another_country(tmp_path, narrow_weights):
    scan = save(tmp_path / "scan.nii.gz")
    environment = {**os.environ, "LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8"}
    words = ("segment", scan, tmp_path / "x.nii.gz", "--weights", narrow_weights, *QUICK, "--fast")
    done = command(*words, "--vol", tmp_path / "v.csv", env=environment)
    assert done.returncode == 0, done.stderr
    values = (tmp_path / "v.csv").read_text().splitlines()[1].split(",")
    assert len(values) == 34
    assert all(float(value) >= 0 for value in values[1:])
