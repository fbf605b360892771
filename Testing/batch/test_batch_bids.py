"""BIDS data sets in and out: what belongs to a scan, and whether the names of the results are those of the standard."""

from __future__ import annotations

import csv
import fnmatch
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from batch_helpers import batch, write_dwi, write_gradients
from mri_deep_tools.batch.bids import Dataset, parse_name
from mri_deep_tools.batch.derivatives import describe_dataset, jobs_of_bids
from mri_deep_tools.batch.plan import Request
from mri_deep_tools.batch.tasks import TASKS
from mri_deep_tools.errors import InputError, RequestError


@pytest.fixture
def data(tmp_path):
    """Return a function that makes files of a data set and gives its folder."""
    root = tmp_path / "raw"

    def make(*names, participants="participant_id\tage\tsite\nsub-01\t31\tA\nsub-02\tn/a\tB\n"):
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"x")
        (root / "dataset_description.json").write_text('{"Name": "Tiny", "BIDSVersion": "1.8.0"}')
        (root / "participants.tsv").write_text(participants)
        return root

    return make


def valid(path):
    """Say whether the schema of the standard knows the name of a file in a derivative."""
    rules = pytest.importorskip("bidsschematools.rules")
    from bidsschematools import schema

    if not valid.patterns:
        found = schema.load_schema()
        for group in (found.rules.files.common, found.rules.files.deriv):
            valid.patterns += [item["regex"] for item in rules.regexify_filename_rules(group, found, level=2)]
    return any(re.fullmatch(pattern, path) for pattern in valid.patterns)


valid.patterns = []


def errors_of_the_validator(folder):
    """Return what the standard's own judge has against a data set, warnings left out."""
    program = Path(sys.executable).with_name("bids-validator-deno")
    if not program.exists():
        return []
    made = subprocess.run([program, folder, "--format", "json", "--ignoreWarnings"], capture_output=True, text=True)
    found = json.loads(made.stdout)["issues"]["issues"]
    return [(issue["code"], issue.get("location")) for issue in found if issue["severity"] == "error"]


def test_the_validator_can_find_errors(tmp_path):
    if not Path(sys.executable).with_name("bids-validator-deno").exists():
        pytest.skip("bids-validator-deno is not installed")
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    (tmp_path / "strange.txt").write_text("x")
    assert ("NOT_INCLUDED", "/strange.txt") in errors_of_the_validator(tmp_path)


def test_the_check_of_names_can_fail():
    assert valid("sub-01/anat/sub-01_space-T1w_desc-synthseg_dseg.nii.gz")
    for wrong in ("sub-01_run-1_acq-x_desc-a_T1w.nii.gz", "sub-01_desc-a_foo.nii.gz", "sub-01_desc-a_b_T1w.nii.gz"):
        assert not valid(f"sub-01/anat/{wrong}")


def test_names_are_parsed():
    found = parse_name(parse_path("sub-01_ses-b_acq-x_run-02_T1w.nii.gz"))
    assert dict(found.entities) == {"sub": "01", "ses": "b", "acq": "x", "run": "02"}
    assert (found.suffix, found.extension, found["dir"]) == ("T1w", ".nii.gz", "")
    for wrong in ("T1w.nii.gz", "sub-01.nii.gz", "sub-01_sub-02_T1w.nii", "sub_01_T1w.nii"):
        assert parse_name(parse_path(wrong)) is None


def parse_path(name):
    return Path(name)


def test_scans_are_found_by_suffix_session_and_entity(data):
    root = data(
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_acq-x_T1w.nii",
        "sub-01/ses-b/anat/sub-01_ses-b_desc-mine_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T1w.json",
        "sub-01/ses-b/anat/sub-02_ses-b_T1w.nii.gz",
        "sub-02/anat/sub-02_T2w.nii.gz",
        "derivatives/sub-01/anat/sub-01_T1w.nii.gz",
    )
    dataset = Dataset(root)
    names = [file.path.name for file in dataset.find(["T1w"])]
    assert names == ["sub-01_ses-a_T1w.nii.gz", "sub-01_ses-b_T1w.nii.gz", "sub-01_ses-b_acq-x_T1w.nii"] or sorted(
        names
    ) == sorted(["sub-01_ses-a_T1w.nii.gz", "sub-01_ses-b_T1w.nii.gz", "sub-01_ses-b_acq-x_T1w.nii"])
    assert "02 has no T1w of that kind" in dataset.warnings
    assert [file.stem for file in dataset.find(["T1w"], sessions=["ses-b"], entities={"acq": ""})] == ["sub-01_ses-b"]
    assert [file.subject for file in dataset.find(["T1w", "T2w"], participants=["02"])] == ["02"]
    for words, message in (
        ({"participants": ["9"]}, "no participant 9"),
        ({"sessions": ["z"]}, "no session z"),
        ({"entities": {"acq": "no"}}, "holds no T1w"),
    ):
        with pytest.raises(InputError, match=message):
            dataset.find(["T1w"], **words)


def test_people_without_data_are_told(data):
    root = data("sub-01/anat/sub-01_T1w.nii.gz", "sub-09/anat/sub-09_T1w.nii.gz")
    told = Dataset(root).warnings
    assert told == [
        "02 is in participants.tsv but has no folder",
        "09 has a folder but is not in participants.tsv",
    ]
    assert Dataset(data("sub-10/anat/sub-10_T1w.nii.gz")).warnings[1] == (
        "09, 10 have a folder but are not in participants.tsv"
    )


@pytest.mark.parametrize("change", ["participants", "description", "empty"])
def test_broken_data_sets(data, tmp_path, change):
    root = data("sub-01/anat/sub-01_T1w.nii.gz")
    if change == "participants":
        (root / "participants.tsv").write_text("name\nx\n")
    elif change == "description":
        (root / "dataset_description.json").write_text("{")
    else:
        root = tmp_path
    with pytest.raises(InputError):
        Dataset(root)


def test_gradients_are_inherited_from_the_nearest_fitting_file(data):
    root = data(
        "sub-01/dwi/sub-01_dir-AP_dwi.nii.gz",
        "sub-01/dwi/sub-01_dir-PA_dwi.nii.gz",
        "sub-02/dwi/sub-02_dwi.nii.gz",
        "dwi.bval",
        "dir-AP_dwi.bval",
        "sub-02/sub-02_dwi.bval",
        "sub-01/dwi/sub-01_dir-PA_dwi.bval",
        "sub-01/dwi/sub-01_T1w.bval",
    )
    dataset = Dataset(root)
    found = {file.path.name: dataset.inherited(file, ".bval") for file in dataset.find(["dwi"])}
    assert {name: path.relative_to(root).as_posix() for name, path in found.items()} == {
        "sub-01_dir-AP_dwi.nii.gz": "dir-AP_dwi.bval",
        "sub-01_dir-PA_dwi.nii.gz": "sub-01/dwi/sub-01_dir-PA_dwi.bval",
        "sub-02_dwi.nii.gz": "sub-02/sub-02_dwi.bval",
    }
    assert dataset.inherited(dataset.find(["dwi"])[0], ".bvec") is None


def test_a_t2w_scan_gets_the_t1w_scan_most_like_it(data):
    root = data(
        "sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_run-2_T2w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T2w.nii.gz",
    )
    found = jobs_of_bids(Dataset(root), Request(TASKS["superresolve"], root.parent / "out"))
    assert found[0].inputs["t1"].endswith("sub-01_ses-a_run-2_T1w.nii.gz")
    assert set(found[1].inputs) == {"t2"}
    assert found[0].outputs["output"].endswith("anat/sub-01_ses-a_run-2_space-T2w_res-1mm_desc-synthetic_T2w.nii.gz")


def test_entities_are_in_the_order_of_the_standard(data):
    dataset = Dataset(data("sub-01/anat/sub-01_acq-x_part-mag_chunk-1_T1w.nii.gz"))
    request = Request(TASKS["harmonize"], dataset.root.parent / "out", (), ("save_preprocessed", "save_mask"))
    outputs = jobs_of_bids(dataset, request)[0].outputs
    start = "sub-01/anat/sub-01_acq-x_part-mag"
    assert outputs["output"] == f"{start}_space-T1w_chunk-1_desc-harmonized_T1w.nii.gz"
    assert outputs["save_preprocessed"] == f"{start}_space-MNI152_chunk-1_desc-preprocessed_T1w.nii.gz"
    assert outputs["save_mask"] == f"{start}_space-T1w_chunk-1_desc-brain_mask.nii.gz"


@pytest.mark.parametrize(
    ("options", "reference", "stripped"),
    [
        (("--space=template",), "https://www.bic.mni.mcgill.ca/ServicesAtlases/ICBM152NLin2009", True),
        (("--space=template", "--template=own.nii.gz"), "orig", True),
        (("--keep-head",), "bids:raw:sub-01/anat/sub-01_T1w.nii.gz", False),
    ],
)
def test_sidecars_tell_the_frame_and_whether_there_is_a_skull(data, options, reference, stripped):
    root = data("sub-01/anat/sub-01_T1w.nii.gz")
    job = jobs_of_bids(Dataset(root), Request(TASKS["harmonize"], root.parent / "out", options))[0]
    assert job.extra["sidecar"]["SpatialReference"] == reference
    assert job.extra["sidecar"]["SkullStripped"] is stripped


def test_further_images_inherit_one_sidecar_per_kind(data):
    root = data("sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")
    task = TASKS["harmonize"]
    request = Request(task, root.parent / "out", (), tuple(task.outputs))
    dataset = Dataset(root)
    describe_dataset(dataset, request, jobs_of_bids(dataset, request))
    made = {path.name: json.loads(path.read_text()) for path in request.folder.glob("*desc-*.json")}
    assert {name: (facts["SpatialReference"], facts.get("SkullStripped")) for name, facts in made.items()} == {
        "desc-brain_mask.json": ("orig", None),
        "desc-change_T1w.json": ("orig", True),
        "space-MNI152_desc-preprocessed_T1w.json": (
            "https://www.bic.mni.mcgill.ca/ServicesAtlases/ICBM152NLin2009",
            True,
        ),
    }


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("segment", ()),
        ("segment", ("--grid=1mm",)),
        ("harmonize", ()),
        ("harmonize", ("--space=template",)),
        ("superresolve", ()),
        ("upsample-dmri", ("--directions=6",)),
        ("translate", ("--to=T2",)),
    ],
)
def test_names_of_results_are_those_of_the_standard(data, task, options):
    root = data(
        "sub-01/ses-a/anat/sub-01_ses-a_acq-x_run-1_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz",
        "sub-01/ses-a/dwi/sub-01_ses-a_dir-AP_dwi.nii.gz",
    )
    declared = TASKS[task]
    request = Request(declared, root.parent / "out", options, tuple(declared.outputs))
    ignored = (*_ignored(), "*.json")
    for job in jobs_of_bids(Dataset(root), request):
        main = job.outputs[declared.result]
        assert valid(main), main
        assert valid(main.removesuffix(".nii.gz") + ".json")
        if task == "segment":
            assert valid(main.removesuffix(".nii.gz") + ".tsv")
        for path in job.outputs.values():
            assert valid(path) or any(fnmatch.fnmatch(path, pattern) for pattern in ignored), path
        assert len(set(job.outputs.values())) == len(job.outputs)


def _ignored():
    from mri_deep_tools.batch.derivatives import _IGNORED

    return _IGNORED


def test_age_comes_from_the_participants(data):
    root = data("sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")
    first, second = jobs_of_bids(Dataset(root), Request(TASKS["harmonize"], root.parent / "out"))
    assert first.options == ("--age=31",) and second.options == ()
    assert first.extra["columns"] == {"participant": "01", "session": "", "age": "31", "site": "A"}
    given = Request(TASKS["harmonize"], root.parent / "out", ("--age=5",))
    assert jobs_of_bids(Dataset(root), given)[0].options == ("--age=5",)


def test_columns_of_participants_that_the_summary_has_too(data):
    root = data("sub-01/anat/sub-01_T1w.nii.gz", participants="participant_id\tid\tmodel\tsite\nsub-01\t7\tPrisma\tA\n")
    job = jobs_of_bids(Dataset(root), Request(TASKS["harmonize"], root.parent / "out"))[0]
    told = {"participant": "01", "session": "", "participant_id": "7", "participant_model": "Prisma", "site": "A"}
    assert job.extra["columns"] == told


def test_the_data_set_itself_is_never_written_to(data):
    root = data("sub-01/anat/sub-01_T1w.nii.gz")
    with pytest.raises(RequestError, match="is the data set itself"):
        jobs_of_bids(Dataset(root), Request(TASKS["harmonize"], root))
    with pytest.raises(RequestError, match="does not take bold"):
        jobs_of_bids(Dataset(root), Request(TASKS["harmonize"], root.parent / "out"), suffixes=["bold"])


def test_a_whole_data_set(tmp_path):
    root, out = tmp_path / "raw", tmp_path / "raw" / "derivatives" / "more"
    for name in ("sub-01/ses-a/dwi/sub-01_ses-a_dwi.nii.gz", "sub-02/dwi/sub-02_acq-b_dwi.nii.gz"):
        write_dwi(root / name, gradients=False)
    write_gradients(root / "dwi")
    (root / "dataset_description.json").write_text('{"Name": "Tiny", "BIDSVersion": "1.8.0", "DatasetDOI": "doi:1"}')
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t31\nsub-02\tn/a\n")
    assert batch("--bids", root, out) == 0
    assert errors_of_the_validator(out) == []
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["GeneratedBy"][0]["Name"] == "mri-deep-tools"
    assert description["DatasetLinks"] == {"raw": "../.."} and description["SourceDatasets"] == [{"DOI": "doi:1"}]
    ignored = (out / ".bidsignore").read_text().split()
    for path in (path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out).as_posix()
        hidden = any(
            fnmatch.fnmatch(name, pattern) or name.startswith(pattern) for pattern in (*ignored, ".bidsignore")
        )
        assert hidden or valid(name), name
    sidecar = json.loads(next((out / "sub-01").rglob("*_dwi.json")).read_text())
    assert sidecar["Sources"] == [
        "bids:raw:sub-01/ses-a/dwi/sub-01_ses-a_dwi.nii.gz",
        "bids:raw:dwi.bvec",
        "bids:raw:dwi.bval",
    ]
    with (out / "batch.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [(row["participant"], row["session"], row["age"]) for row in rows] == [
        ("01", "a", "31"),
        ("02", "n/a", "n/a"),
    ]
    assert batch("--bids", root, out, "--resume") == 0


@pytest.mark.slow
def test_every_further_output_passes_the_validator(tmp_path):
    root, out = tmp_path / "raw", tmp_path / "out"
    write_dwi(root / "sub-01/ses-a/dwi/sub-01_ses-a_chunk-1_dwi.nii.gz")
    (root / "dataset_description.json").write_text('{"Name": "Tiny", "BIDSVersion": "1.8.0"}')
    assert batch("--bids", root, out, "--report", "--save-mask", "--save-grad", "--fa", "--md", "--residuals") == 0
    assert (out / "sub-01/ses-a/dwi/sub-01_ses-a_space-dwi_chunk-1_desc-residuals_dwimap.nii.gz").is_file()
    assert errors_of_the_validator(out) == []
