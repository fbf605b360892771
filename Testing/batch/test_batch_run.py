"""A batch from a table, from its first subject to its last: what fails, what is resumed, what is refused."""

from __future__ import annotations

import csv
import json
import signal
import time
from pathlib import Path

import pytest
from batch_helpers import WORDS, batch, batch_process, make_table, records, results, write_dwi
from mri_deep_tools.batch.state import State
from mri_deep_tools.cli import main


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="," if path.suffix == ".csv" else "\t"))


def test_all_rows_are_done_and_tabled(tmp_path, capsys):
    table, out = make_table(tmp_path, 4), tmp_path / "out"
    assert batch("--table", table, out, "--save-grad") == 0
    found = rows(out / "batch.csv")
    assert [row["state"] for row in found] == ["done"] * 4
    assert [row["id"] for row in found] == [f"s{n:03d}_desc-upsampled_dwi" for n in range(4)]
    assert all(0 < float(row["seconds"]) < 60 for row in found)
    for row in found:
        stem = (out / row["output"]).as_posix().removesuffix(".nii.gz")
        for end in (".nii.gz", ".json", ".bval", ".bvec", ".b"):
            assert Path(stem + end).stat().st_size > 0
        assert (out / "batch_pictures" / f"{row['id']}.jpg").stat().st_size > 500
    assert "batch.csv" in (out / "batch.html").read_text()
    assert list((out / ".batch/staging").iterdir()) == []
    assert not list(out.rglob(".mdt-*"))


def test_the_result_is_that_of_the_single_command(tmp_path):
    table, out = make_table(tmp_path, 1), tmp_path / "out"
    assert batch("--table", table, out) == 0
    single = tmp_path / "single.nii.gz"
    assert main(["upsample-dmri", str(tmp_path / "in/s000_dwi.nii.gz"), str(single), *WORDS, "--quiet"]) == 0
    assert (out / "s000_desc-upsampled_dwi.nii.gz").read_bytes() == single.read_bytes()
    one, many = (json.loads(path.read_text()) for path in (single.with_name("single.json"), *out.glob("s000*.json")))
    assert one["Options"] == many["Options"]
    assert one["Inputs"] == many["Inputs"]


def test_a_failed_subject_is_recorded_and_the_rest_goes_on(tmp_path, capsys):
    table, out = make_table(tmp_path, 4), tmp_path / "out"
    broken = tmp_path / "in/s002_dwi.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    assert batch("--table", table, out) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert "s002_desc-upsampled_dwi failed: s002_dwi.nii.gz" in "\n".join(told)
    assert told[-1].startswith("mri-deep-tools: error: 1 of 4 subjects failed (s002_desc-upsampled_dwi)")
    failed = rows(out / "batch.csv")[2]
    assert failed["state"] == "failed" and "s002_dwi.nii.gz" in failed["message"]
    assert not list(out.glob("s002*")) and len(results(out)) == 3

    before = results(out)
    assert batch("--table", table, out, "--resume", "--skip-failed") == 1
    broken.write_bytes(whole)
    assert batch("--table", table, out, "--resume") == 0
    after = results(out)
    assert len(after) == 4 and {name: after[name] for name in before} == before
    assert rows(out / "batch.csv")[2]["message"] == ""


def test_changed_inputs_are_done_again_and_only_they(tmp_path, capsys):
    table, out = make_table(tmp_path, 3), tmp_path / "out"
    assert batch("--table", table, out) == 0
    before = results(out)
    write_dwi(tmp_path / "in/s001_dwi.nii.gz", 77)
    capsys.readouterr()
    assert batch("--table", table, out, "--resume") == 0
    assert "inputs or options of 1 subjects have changed; they are redone (s001" in capsys.readouterr().err
    after = results(out)
    assert {name for name in before if before[name] != after[name]} == {"s001_desc-upsampled_dwi.nii.gz"}


def test_rows_may_be_added(tmp_path):
    table, out = make_table(tmp_path, 2), tmp_path / "out"
    assert batch("--table", table, out) == 0
    before = results(out)
    make_table(tmp_path / "more", 3)
    table.write_text(table.read_text() + "more/in/s002_dwi.nii.gz\n")
    assert batch("--table", table, out, "--resume") == 0
    after = results(out)
    assert len(after) == 3 and all(after[name] == before[name] for name in before)


def test_rows_that_are_gone_are_told(tmp_path, capsys):
    table, out = make_table(tmp_path, 3), tmp_path / "out"
    assert batch("--table", table, out) == 0
    before = results(out)
    table.write_text("input\nin/s001_dwi.nii.gz\n")
    capsys.readouterr()
    assert batch("--table", table, out, "--resume") == 0
    told = capsys.readouterr().err
    assert "2 subjects of earlier runs are not asked for now" in told and "s000" in told and "s001" not in told
    assert results(out) == before and [row["state"] for row in rows(out / "batch.csv")] == ["done"]


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        ((), WORDS, "holds a batch already"),
        (("--resume",), (*WORDS[:2], "--directions", "7", *WORDS[4:]), "begun with other options (--directions=6"),
        (("--resume", "--fa"), WORDS, "begun with other outputs (fa)"),
        (("--resume", "--overwrite"), WORDS, "give one of them"),
        (("--skip-failed",), WORDS, "add --resume"),
    ],
)
def test_another_batch_is_not_mixed_in(tmp_path, capsys, words, options, message):
    table, out = make_table(tmp_path, 1), tmp_path / "out"
    assert batch("--table", table, out) == 0
    before = results(out)
    capsys.readouterr()
    assert batch("--table", table, out, *words, options=options) == 2
    assert message in capsys.readouterr().err
    assert results(out) == before


def test_overwrite_begins_anew(tmp_path):
    table, out = make_table(tmp_path, 2), tmp_path / "out"
    assert batch("--table", table, out, "--save-grad") == 0
    before = results(out)
    table.write_text("input\nin/s000_dwi.nii.gz\n")
    assert batch("--table", table, out, "--overwrite") == 0
    after = results(out)
    assert set(after) == {"s000_desc-upsampled_dwi.nii.gz"} and after != before
    assert not list(out.glob("*.b")) and len(records(out)) == 1


def test_files_of_others_are_not_replaced(tmp_path, capsys):
    table, out = make_table(tmp_path, 1), tmp_path / "out"
    out.mkdir()
    mine = out / "s000_desc-upsampled_dwi.nii.gz"
    mine.write_text("mine")
    assert batch("--table", table, out) == 1
    assert "exists already" in capsys.readouterr().err
    assert mine.read_text() == "mine" and list(out.iterdir()) == [mine]


def test_a_batch_that_none_of_its_subjects_can_begin_leaves_nothing(tmp_path, capsys):
    table, out = make_table(tmp_path, 3), tmp_path / "new" / "out"
    wrong = ("--model", str(tmp_path / "gone"), *WORDS[2:])
    assert batch("--table", table, out, options=wrong) in (1, 2)
    assert "gone" in capsys.readouterr().err
    assert not out.parent.exists()
    assert batch("--table", table, out) == 0 and len(records(out)) == 3


def test_a_request_that_is_wrong_for_one_subject_does_not_end_the_batch(tmp_path, capsys):
    table, out = make_table(tmp_path, 4), tmp_path / "out"
    (tmp_path / "in/s000_dwi.bval").write_text("0" + " 3000" * 12)
    assert batch("--table", table, out, "--at-once", "1", options=(*WORDS, "--shell", "1000")) == 1
    assert "1 of 4 subjects failed (s000" in capsys.readouterr().err
    assert [row["state"] for row in rows(out / "batch.csv")] == ["failed", "done", "done", "done"]


def test_a_request_that_is_wrong_for_all_is_told_once(tmp_path, capsys):
    table, out = make_table(tmp_path, 6), tmp_path / "out"
    assert batch("--table", table, out, options=(*WORDS, "--shell", "2000")) == 2
    assert "has no shell at b = 2000" in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


def test_two_batches_cannot_share_a_folder(tmp_path, capsys):
    table, out = make_table(tmp_path, 1), tmp_path / "out"
    with State(out).locked():
        assert batch("--table", table, out) == 2
        assert "another batch is at work in out" in capsys.readouterr().err
        other = batch_process("--table", table, out)
        assert "another batch is at work" in other.communicate()[1]
        assert other.returncode == 2
    assert batch("--table", table, out) == 0


def test_interrupt_keeps_what_is_done(tmp_path):
    table, out = make_table(tmp_path, 60), tmp_path / "out"
    process = batch_process("--table", table, out)
    end = time.monotonic() + 90
    while len(records(out)) < 3 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "continue with --resume" in told.splitlines()[-1]
    kept = len(records(out))
    assert 3 <= kept < 60
    states = [row["state"] for row in rows(out / "batch.csv")]
    assert states.count("done") == kept and states.count("not done") == 60 - kept
    assert f"{kept} of 60 subjects are finished" in told


def test_time_left_is_told(tmp_path, capsys):
    table, out = make_table(tmp_path, 5), tmp_path / "out"
    assert main(["batch", "upsample-dmri", "--table", str(table), str(out), *WORDS, "--progress", "json"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("@mri-deep-tools")]
    events = [json.loads(line.split(" ", 1)[1]) for line in lines]
    told = [event for event in events if "subject" in event]
    assert [round(event["fraction"], 2) for event in told] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert told[-1]["eta_s"] == 0 and all(event["eta_s"] >= 0 for event in told[:-1])  # rounded
    assert {event["subject"]["state"] for event in told} == {"done"}
    assert events[-1]["event"] == "result" and events[-1]["done"] == 5
