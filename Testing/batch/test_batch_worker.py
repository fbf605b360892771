"""What one worker promises: one network for all, one computing at a time, whole results, and that it can be stopped."""

from __future__ import annotations

import pickle
import threading
import time
from pathlib import Path

import pytest
from batch_helpers import write_dwi
from mri_deep_tools import kept as keeping
from mri_deep_tools.batch import worker as work
from mri_deep_tools.batch.jobs import Job, Outcome, fingerprint
from mri_deep_tools.batch.plan import identifier
from mri_deep_tools.batch.state import State
from mri_deep_tools.batch.worker import LocalExecutor, Worker, run_job
from mri_deep_tools.errors import CancelledError, OutOfMemoryError

OPTIONS = ("--method=sh", "--directions=6", "--device=cpu", "--threads=1")


def make_job(folder, number=0):
    path = write_dwi(folder / f"in/s{number}_dwi.nii.gz", number)
    inputs = {"dwi": str(path)}
    outputs = {"output": f"sub/s{number}.nii.gz"}
    mark = fingerprint("upsample-dmri", inputs, OPTIONS)
    return Job(f"s{number}", "upsample-dmri", str(folder / "out"), inputs, outputs, OPTIONS, mark)


@pytest.fixture(autouse=True)
def _nothing_kept():
    yield
    keeping.keep_networks(0)


def test_job_and_outcome_travel(tmp_path):
    job = pickle.loads(pickle.dumps(make_job(tmp_path)))
    outcome = run_job(job)
    assert (outcome.state, outcome.outputs[0]) == ("done", "sub/s0.nii.gz")
    assert pickle.loads(pickle.dumps(outcome)) == outcome
    assert Outcome.from_record(outcome.as_record()) == outcome
    assert State(job.folder).outcome("s0") == outcome


def test_a_finished_job_is_not_done_again(tmp_path):
    job = make_job(tmp_path)
    first = run_job(job)
    image = tmp_path / "out/sub/s0.nii.gz"
    time_of = image.stat().st_mtime_ns
    assert run_job(job) == first
    assert image.stat().st_mtime_ns == time_of


def test_fingerprints_follow_content_and_options(tmp_path):
    job = make_job(tmp_path)
    assert fingerprint(job.task, job.inputs, OPTIONS) == job.fingerprint
    assert fingerprint(job.task, job.inputs, OPTIONS[:-1]) != job.fingerprint
    write_dwi(Path(job.inputs["dwi"]), 9)
    assert fingerprint(job.task, job.inputs, OPTIONS) != job.fingerprint
    series = tmp_path / "series"
    series.mkdir()
    (series / "1.dcm").write_bytes(b"a")
    before = fingerprint("segment", {"input": str(series)}, ())
    (series / "2.dcm").write_bytes(b"b")
    assert fingerprint("segment", {"input": str(series)}, ()) != before


@pytest.mark.parametrize("moment", ["before the record", "after the record"])
def test_a_kill_between_record_and_names(tmp_path, monkeypatch, moment):
    job = make_job(tmp_path)
    name = "_write" if moment == "before the record" else "_publish"

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(State, name, killed)
        with pytest.raises(Killed):
            run_job(job)
    state, image = State(job.folder), tmp_path / "out/sub/s0.nii.gz"
    assert not image.exists() and len(list((state.root / "staging").iterdir())) == 1
    assert state.recover() == (1 if moment == "after the record" else 0)
    assert image.exists() is (moment == "after the record")
    assert list((state.root / "staging").iterdir()) == []
    assert run_job(job).state == "done"
    assert image.exists() and image.with_name("s0.json").exists()


def test_what_is_left_of_a_record_that_was_being_written(tmp_path):
    job = make_job(tmp_path)
    outcome = run_job(job)
    state = State(job.folder)
    torn = next((state.root / "records").glob("*")) / f".mdt-{outcome.worker.split('-')[0]}-999999999-0123abcd.json"
    torn.write_text('{"outcome": {"id"')
    assert list(state.outcomes()) == [outcome]
    state.recover()
    assert not torn.exists()


def test_files_that_are_no_longer_made_go(tmp_path):
    job = make_job(tmp_path)
    run_job(Job(**{**job.__dict__, "outputs": {**job.outputs, "save_grad": "sub/s0.b"}}))
    assert (tmp_path / "out/sub/s0.b").exists()
    run_job(Job(**{**job.__dict__, "fingerprint": "other"}))
    assert not (tmp_path / "out/sub/s0.b").exists()
    assert (tmp_path / "out/sub/s0.nii.gz").exists()


def test_only_one_computes_while_others_read_and_write(tmp_path, monkeypatch):
    """Three jobs with stages of known length: computing never overlaps, the rest does."""
    busy, most, beside = [], [], []

    def run(args, progress):
        with progress.stage("read"):
            time.sleep(0.1)
            beside.append(len(busy))
        for stage in ("prepare", "predict"):
            with progress.stage(stage):
                busy.append(stage)
                most.append(len(busy))
                time.sleep(0.1)
                busy.pop()
        with progress.stage("write"):
            time.sleep(0.1)
            beside.append(len(busy))
            args.output.write_bytes(b"made")

    monkeypatch.setattr(work, "command_run", lambda name: run)
    jobs = [make_job(tmp_path, number) for number in range(6)]
    outcomes = []
    LocalExecutor(Worker(lanes=3)).run(jobs, outcomes.append)
    assert [outcome.state for outcome in outcomes] == ["done"] * 6
    assert max(most) == 1
    assert sum(beside) > 4  # readers and writers saw a computation beside them
    assert all(0.35 < outcome.seconds < 1.5 for outcome in outcomes)  # waiting for others does not count


def test_memory_that_runs_out_beside_others_is_tried_alone(tmp_path, monkeypatch):
    tries, inside = [], []

    def run(args, progress):
        inside.append(1)
        try:
            tries.append(args.output.name)
            if len(inside) > 1 or tries.count(args.output.name) == 1:
                time.sleep(0.05)
                raise OutOfMemoryError("too large")
            args.output.write_bytes(b"made")
        finally:
            inside.pop()

    monkeypatch.setattr(work, "command_run", lambda name: run)
    outcomes = []
    LocalExecutor(Worker(lanes=3)).run([make_job(tmp_path, number) for number in range(4)], outcomes.append)
    assert sorted(outcome.state for outcome in outcomes) == ["done"] * 4
    assert len(tries) == 8


def test_any_fault_is_an_outcome(tmp_path, monkeypatch):
    def run(args, progress):
        raise KeyError("odd")

    monkeypatch.setattr(work, "command_run", lambda name: run)
    outcome = run_job(make_job(tmp_path))
    assert outcome.state == "failed" and "an unexpected fault, KeyError: 'odd'" in outcome.message
    assert list((tmp_path / "out/.batch/staging").iterdir()) == []


def test_a_stopped_worker_records_nothing(tmp_path):
    worker = Worker()
    worker.stop.set()
    assert run_job(make_job(tmp_path), worker).state == "cancelled"
    assert State(tmp_path / "out").outcome("s0") is None


def test_what_on_outcome_raises_ends_the_run(tmp_path):
    def enough(outcome):
        raise CancelledError("enough")

    worker = Worker()
    with pytest.raises(CancelledError, match="enough"):
        LocalExecutor(worker).run([make_job(tmp_path, number) for number in range(8)], enough)
    assert worker.stop.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batch-")]


def test_networks_are_loaded_once_and_the_last_ones_are_kept(tmp_path):
    loads = []

    def load(name):
        loads.append(name)
        return object()

    assert keeping.kept("a", lambda: load("a")) is not keeping.kept("a", lambda: load("a"))
    keeping.keep_networks(2)
    first = keeping.kept("a", lambda: load("a"))
    assert keeping.kept("a", lambda: load("a")) is first
    keeping.kept("b", lambda: load("b"))
    keeping.kept("a", lambda: load("a"))
    keeping.kept("c", lambda: load("c"))  # b was used longest ago
    assert keeping.kept("a", lambda: load("a")) is first
    keeping.kept("b", lambda: load("b"))
    assert loads == ["a", "a", "a", "b", "c", "b"]


def test_engines_share_one_network(tmp_path):
    from mri_deep_tools.synthsegment.predict import Segmenter

    alone = Segmenter(model="synthseg-lite", device="cpu")._load()
    keeping.keep_networks(2)
    one, other = (Segmenter(model="synthseg-lite", device="cpu")._load() for _ in range(2))
    assert one is other and one is not alone


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/sub-01_T1w.nii.gz", "sub-01_T1w"), ("x.csv", "x"), ("Ünï code.nii", "n-code-"), ("a--b.nii", "a-b-")],
)
def test_names_of_jobs_can_name_files(path, name):
    assert identifier(path).startswith(name)
    assert "--" not in identifier(path)
