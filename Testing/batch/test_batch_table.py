"""Tables of subjects: every column that is an option, and every fault with its row before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from batch_helpers import batch, make_table
from mri_deep_tools.batch.plan import Request
from mri_deep_tools.batch.table import jobs_of_table
from mri_deep_tools.batch.tasks import TASKS, command_parser, words
from mri_deep_tools.errors import InputError, RequestError


@pytest.fixture
def place(tmp_path):
    """Return a folder with files that exist."""
    for name in ("a_T1w.nii.gz", "b_T1w.nii.gz", "c.mgz", "mask.nii.gz", "own.h5"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def jobs(place, text, task="harmonize", options=(), extras=(), name="t.csv"):
    (place / name).write_text(text, encoding="utf-8")
    return jobs_of_table(place / name, Request(TASKS[task], place / "out", options, extras))


def test_outputs_are_named_after_scans(place):
    found = jobs(place, "input\na_T1w.nii.gz\nc.mgz\n")
    assert [job.outputs["output"] for job in found] == ["a_desc-harmonized_T1w.nii.gz", "c_desc-harmonized_T1w.mgz"]
    found = jobs(place, "input\na_T1w.nii.gz\n", task="segment", extras=("volumes", "report"))
    assert found[0].outputs == {
        "output": "a_T1w_desc-synthseg_dseg.nii.gz",
        "volumes": "a_T1w_desc-synthseg_volumes.csv",
        "report": "a_T1w_desc-synthseg_report.html",
    }


def test_further_outputs_are_named_after_a_result_that_the_table_names(place):
    first, second = jobs(
        place, "input,output\na_T1w.nii.gz,x/1.mgz\na_T1w.nii.gz,2.nii\n", "segment", extras=("qc", "resampled")
    )
    assert first.outputs == {
        "output": "x/1.mgz",
        "qc": "x/1_desc-synthseg_qc.csv",
        "resampled": "x/1_desc-resampled.mgz",
    }
    assert second.outputs["resampled"] == "2_desc-resampled.nii"


@pytest.mark.parametrize(("mark", "name"), [(",", "t.csv"), (";", "t.csv"), ("\t", "t.tsv")])
def test_columns_are_options(place, mark, name):
    rows = [
        ["id", "Input", "--output", "mask", "age", "no-bias-correction", "keep head", "#note"],
        ["p-1", "a_T1w.nii.gz", "x/1.nii.gz", "mask.nii.gz", "31.5", "yes", "no", "look"],
        ["p-2", "b_T1w.nii.gz", "", "", "", "", "x", ""],
    ]
    first, second = jobs(place, "\n".join(mark.join(row) for row in rows) + "\n", name=name)
    assert first.id == "p-1" and first.outputs == {"output": "x/1.nii.gz"}
    assert first.inputs == {"input": str(place / "a_T1w.nii.gz"), "mask": str(place / "mask.nii.gz")}
    assert first.options == ("--age=31.5", "--no-bias-correction")
    assert second.options == ("--keep-head",)
    args = command_parser("harmonize").parse_args(
        words(TASKS["harmonize"], {**first.inputs, **first.outputs}, first.options)
    )
    assert (args.age, args.bias_correction, args.mask) == (31.5, False, place / "mask.nii.gz")


def test_shared_files_are_found_beside_the_table_and_are_part_of_the_job(place):
    text = "input,weights\na_T1w.nii.gz,own.h5\n"
    before = jobs(place, text)[0]
    assert before.options == (f"--weights={place / 'own.h5'}",)
    (place / "own.h5").write_bytes(b"other weights")
    assert jobs(place, text)[0].fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("input\n", InputError, "t.csv holds no rows"),
        ("scan\na_T1w.nii.gz\n", RequestError, "a column 'scan', which is no option of harmonize"),
        ("input,agee\na_T1w.nii.gz,3\n", RequestError, "did you mean age?"),
        ("input,age\na_T1w.nii.gz,3\nb_T1w.nii.gz,old\n", RequestError, "row 3 of t.csv: argument --age"),
        ("input,space\na_T1w.nii.gz,moon\n", RequestError, "row 2 of t.csv: argument --space"),
        ("input,keep-head\na_T1w.nii.gz,perhaps\n", RequestError, "row 2 of t.csv: --keep-head is 'perhaps'"),
        (
            "input\na_T1w.nii.gz\n\nmissing.nii.gz\n",
            InputError,
            "row 4 of t.csv: missing.nii.gz (input) does not exist",
        ),
        ("input,mask\na_T1w.nii.gz,no.nii.gz\n", InputError, "row 2 of t.csv: no.nii.gz (mask) does not exist"),
        ("input,output\na_T1w.nii.gz,../x.nii.gz\n", RequestError, "lies outside of OUTPUT_DIR"),
        ("input,output\na_T1w.nii.gz,/tmp/x.nii.gz\n", RequestError, "lies outside of OUTPUT_DIR"),
        ("input,output\na_T1w.nii.gz,x.txt\n", RequestError, "has the wrong suffix"),
        (
            "input\na_T1w.nii.gz\na_T1w.nii.gz\n",
            RequestError,
            "row 2 of t.csv and row 3 of t.csv would both write a_desc",
        ),
        ("input,output\na_T1w.nii.gz,X.nii.gz\nb_T1w.nii.gz,x.nii.gz\n", RequestError, "would both write"),
        ("input,input\na_T1w.nii.gz,b_T1w.nii.gz\n", RequestError, "two columns for input"),
        ("input,age\na_T1w.nii.gz\n,4\n", InputError, "row 3 of t.csv names no input"),
        ("input\na_T1w.nii.gz,b\n", InputError, "row 2 of t.csv has 2 cells under 1 columns"),
        ("id,input\na--b,a_T1w.nii.gz\n", InputError, "the id 'a--b' cannot name a file"),
        ("input,figures\na_T1w.nii.gz,x.csv\n", RequestError, "is no option of harmonize"),
        ("input,quiet\na_T1w.nii.gz,yes\n", RequestError, "is no option of harmonize"),
        ("input,skull-stripped,mask\na_T1w.nii.gz,yes,mask.nii.gz\n", RequestError, "row 2 of t.csv: argument"),
        ("input,output\n" + 3 * "no.nii.gz,\n", InputError, "3 rows cannot be worked on: row 2 of t.csv: no.nii.gz"),
    ],
)
def test_faults_are_told_with_their_row(place, text, kind, message):
    with pytest.raises(kind) as caught:
        jobs(place, text)
    assert message in str(caught.value)


def test_nothing_is_done_when_a_row_is_wrong(tmp_path, capsys):
    table, out = make_table(tmp_path, 2), tmp_path / "out"
    table.write_text(table.read_text() + "in/none_dwi.nii.gz\n")
    assert batch("--table", table, out) == 2
    assert "row 4 of scans.csv: none_dwi.nii.gz (dwi) does not exist" in capsys.readouterr().err
    assert not out.exists()


def test_not_a_table(tmp_path, capsys):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00\x80input")
    assert batch("--table", tmp_path / "t.csv", tmp_path / "out") == 2
    assert "cannot be read as a table" in capsys.readouterr().err
    assert batch("--table", tmp_path / "none.csv", tmp_path / "out") == 2
    assert "none.csv does not exist" in capsys.readouterr().err


def test_same_names_in_different_folders_are_different_subjects(place):
    (place / "other").mkdir()
    (place / "other/a_T1w.nii.gz").write_bytes(b"y")
    text = "input,output\na_T1w.nii.gz,one/a.nii.gz\nother/a_T1w.nii.gz,two/a.nii.gz\n"
    first, second = jobs(place, text)
    assert first.id == "a" and second.id.startswith("a-") and "--" not in second.id
    assert [job.id for job in jobs(place, text)] == [first.id, second.id]


@pytest.mark.parametrize("task", [task for task in TASKS if task != "translate"])
def test_every_declaration_names_options_that_exist(task):
    declared = TASKS[task]
    known = {action.dest for action in command_parser(task)._actions}
    named = {declared.scan, declared.result, *declared.inputs, *declared.shared, *declared.outputs, *declared.refused}
    assert named <= known
    paths = {action.dest for action in command_parser(task)._actions if action.type is Path}
    assert paths <= named, "an option that takes a file is not declared"
