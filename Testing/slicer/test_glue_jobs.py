"""Jobs: real processes, real signals, real pipes; the application stays alive and nothing stays behind."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from glue_helpers import REPOSITORY, gone_within, is_alive, read_until, use_fake_core

HOME = str(Path.home())

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture
def jobs(host, monkeypatch, tmp_path):
    from MRIDeepToolsLib import jobs

    use_fake_core(monkeypatch, tmp_path)
    yield jobs
    left = jobs.running_jobs()
    for job in left:
        job.cancel()
        job.wait(5)
    assert left == []


class Told:
    """Remembers what a job told."""

    def __init__(self):
        self.progress, self.log, self.warnings, self.results, self.outcomes = [], [], [], [], []

    def callbacks(self):
        return {
            "on_progress": lambda fraction, stage, eta_s: self.progress.append((fraction, stage, eta_s)),
            "on_log": self.log.append,
            "on_warning": self.warnings.append,
            "on_result": self.results.append,
            "on_finished": self.outcomes.append,
        }


# --------------------------------------------------------------------------------------------------- the good case


@pytest.mark.parametrize("blocking", [True, False], ids=["wait", "event loop"])
def test_progress_log_and_result_arrive(host, jobs, blocking):
    told = Told()
    job = jobs.CoreJob(["work"], **told.callbacks()).start()
    assert job.running and job.outcome is None
    if blocking:
        assert job.wait(20) is job.outcome
    else:
        assert host.wait_until(lambda: not job.running, 20)
    assert told.outcomes == [job.outcome] and job.outcome.ok
    assert job.outcome.status == "done" and job.outcome.exit_code == 0
    fractions = [fraction for fraction, _stage, _eta in told.progress]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0 and len(fractions) >= 3
    assert {stage for _fraction, stage, _eta in told.progress} == {"read", "network"}
    assert told.progress[-1][2] == 0.0
    assert told.warnings == ["the scan is dark"] == job.outcome.warnings
    assert [result["scan"] for result in told.results] == ["scan.nii"]
    assert job.outcome.results == told.results and told.results[0]["volumes_mm3"] == {"left thalamus": 1.5}
    assert job.outcome.device == {"device": "cpu", "threads": 1}
    assert "step 4" in "\n".join(told.log) and "step 4" in job.log
    assert 0.3 < job.outcome.seconds < 20


def test_application_lives_during_wait(host, jobs):
    import qt

    beats = []
    timer = qt.QTimer()
    timer.setInterval(20)
    timer.connect("timeout()", lambda: beats.append(time.monotonic()))
    timer.start()
    assert jobs.CoreJob(["work"]).start().wait(20).ok
    timer.stop()
    gaps = [b - a for a, b in itertools.pairwise(beats)]
    assert len(beats) > 10 and max(gaps) < 0.5


def test_no_main_window_needed(host, jobs):
    host.set_main_window(False)
    assert jobs.CoreJob(["work"]).start().wait(20).ok


def test_temporary_folder_lives_until_the_end_of_on_finished(jobs):
    seen = []

    def arguments(folder):
        (folder / "input").write_text("x")
        return ["work", folder / "out"]

    job = jobs.CoreJob(arguments, on_finished=lambda outcome: seen.append((job.folder / "input").read_text()))
    job.start().wait(20)
    assert seen == ["x"] and not job.folder.exists()


def test_folders_of_a_crashed_slicer_are_removed(host, jobs):
    import slicer

    root = Path(slicer.app.temporaryPath)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folders = {name: root / f"mdt-{name}-x" for name in (str(ended.pid), str(os.getppid()), "old", "new")}
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / "scan.nii").write_text("a person")
    os.utime(folders["old"], (0, 0))
    job = jobs.CoreJob(["work"])
    assert job.folder.is_dir() and job.folder.stat().st_mode & 0o077 == 0
    assert [name for name, folder in folders.items() if folder.exists()] == [str(os.getppid()), "new"]
    assert job.start().wait(20).ok


def test_folder_goes_when_the_preparation_fails(jobs):
    def arguments(folder):
        raise ValueError("no volume")

    job = jobs.CoreJob(arguments)
    with pytest.raises(ValueError, match="no volume"):
        job.start()
    assert not job.folder.exists() and not job.running


def test_environment_of_the_child(jobs, monkeypatch):
    from MRIDeepToolsLib import settings

    settings.set_value("cacheFolder", "/some/where")
    settings.set_value("offline", True)
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    names = ["MRI_DEEP_TOOLS_CACHE", "MRI_DEEP_TOOLS_OFFLINE", "MRI_DEEP_TOOLS_PARENT_PID", "PYTHONUNBUFFERED"]
    names += ["PYTHONIOENCODING", "https_proxy", "MINE"]
    job = jobs.CoreJob(["environment", *names], environment={"MINE": "1"}).start()
    assert job.wait(20).ok
    line = next(line for line in job.log.splitlines() if line.startswith("environment "))
    wanted = ["/some/where", "1", str(os.getpid()), "1", "utf-8", "http://proxy:1", "1"]
    assert json.loads(line.partition(" ")[2]) == dict(zip(names, wanted, strict=True))


def test_log_tells_no_folders(jobs):
    def arguments(folder):
        return ["exit", "1", f"cannot read {folder}/scan.nii of {HOME}/secret", folder / "scan.nii"]

    job = jobs.CoreJob(arguments).start()
    outcome = job.wait(20)
    for text in (job.log, outcome.sentence, outcome.message):
        assert str(job.folder) not in text and HOME + "/" not in text
    assert "scan.nii" in job.log


def test_a_job_starts_once(jobs):
    job = jobs.CoreJob(["work"]).start()
    with pytest.raises(jobs.JobStartError, match="before"):
        job.start()
    job.wait(20)
    with pytest.raises(jobs.JobStartError, match="before"):
        job.start()


# ------------------------------------------------------------------------------------------------ how it can go wrong


def test_error_event_becomes_the_sentence(jobs):
    outcome = jobs.CoreJob(["fail"]).start().wait(20)
    assert (outcome.status, outcome.code, outcome.exit_code) == ("failed", "memory", 1)
    assert outcome.sentence == "The GPU is full. Choose the CPU."
    assert outcome.out_of_memory


def test_last_line_is_told_without_an_event(jobs):
    outcome = jobs.CoreJob(["words"]).start().wait(20)
    assert outcome.status == "failed" and outcome.code == "request"
    assert outcome.sentence == "The file is odd; look at it."


@pytest.mark.parametrize(
    ("words", "code", "piece"),
    [
        (["exit", "1", "ModuleNotFoundError: No module named 'torch'"], "not_installed", "Set up"),
        (["exit", "1", "PythonSlicer: No module named mri_deep_tools"], "not_installed", "Set up"),
        (["exit", "1", "ImportError: libcudart.so.12: cannot open shared object file"], "library", "repair"),
        (["exit", "1", "MemoryError"], "memory", "memory"),
        (["exit", "3"], "unexplained", "status 3"),
        (["exit", "137"], "likely_memory", "memory ran out"),
    ],
)
def test_likely_causes(jobs, words, code, piece):
    outcome = jobs.CoreJob(words).start().wait(20)
    assert outcome.code == code and piece in outcome.sentence and not outcome.ok


@pytest.mark.parametrize(
    ("number", "piece"),
    [
        (signal.SIGKILL, "memory ran out"),
        (signal.SIGSEGV, "crashed"),
        (signal.SIGABRT, "crashed"),
        (signal.SIGTERM, "from outside"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_crash_and_kill_tell_the_likely_cause(jobs, number, piece):
    outcome = jobs.CoreJob(["signal", str(int(number))]).start().wait(20)
    assert outcome.status == "crashed"
    assert piece in outcome.sentence and signal.Signals(number).name in outcome.sentence
    assert "network" in outcome.sentence  # the step in which it happened


def test_killed_from_outside_while_it_works(jobs):
    job = jobs.CoreJob(["sleep"]).start()
    read_until(job, "asleep")
    pid = next(pid for pid in _children(job) if is_alive(pid))
    os.kill(pid, signal.SIGKILL)
    outcome = job.wait(20)
    assert outcome.status == "crashed" and outcome.out_of_memory and not job.folder.exists()


def _children(job):
    from MRIDeepToolsLib import processes

    return list(processes.descendants(job._process.pid)) or [job._process.pid]


def test_garbage_does_no_harm(jobs):
    told = Told()
    outcome = jobs.CoreJob(["garbage"], **told.callbacks()).start()
    log = outcome.wait(20) and outcome.log
    assert outcome.outcome.status == "done"
    assert "broken \N{REPLACEMENT CHARACTER} bytes" in log and "\x00" not in log and "\x1b" not in log
    assert "{not json" in log and "[1]" in log  # what is no event is log
    assert "red 10%" not in log and " 100%" in log  # of a line that was drawn over, the last state
    assert "last line \u00e9\u4e2d" in log and len(log) <= jobs.LOG_LIMIT
    assert told.progress == [(0.0, "3", None)]


def test_100_000_lines(host, jobs):
    told = Told()
    begin = time.monotonic()
    job = jobs.CoreJob(["flood"], **told.callbacks()).start()
    longest = 0.0
    while job.running:
        before = time.monotonic()
        job._tick()
        longest = max(longest, time.monotonic() - before)
        host.pump(0.01)
    assert job.outcome.ok and told.results == [{"scan": "flood"}]
    assert time.monotonic() - begin < 30 and longest < 0.25
    assert len(job.log) <= jobs.LOG_LIMIT
    assert "first line of all" in job.log and "line 99999 of" in job.log and "the very last line" in job.log
    assert "lines left out" in job.log
    assert sum(map(len, told.log)) < 8_000_000 and max(map(len, told.log)) < 64_000


def test_missing_interpreter_is_named(host, monkeypatch, tmp_path):
    from MRIDeepToolsLib import jobs, processes

    monkeypatch.setenv("PATH", str(tmp_path))
    folder = tmp_path / "bin"
    monkeypatch.setattr(processes, "_beside_application", lambda: [tmp_path, folder])
    with pytest.raises(jobs.JobStartError, match="PythonSlicer"):
        jobs.CoreJob(["info"]).start()
    # Beside the application it is found.
    folder.mkdir()
    (folder / "PythonSlicer").write_text("#!/bin/sh\n")
    assert processes.python_slicer() == str(folder / "PythonSlicer")


def test_program_that_cannot_start(host, tmp_path):
    from MRIDeepToolsLib import jobs

    broken = tmp_path / "program"
    broken.write_text("no program")
    job = jobs.CoreJob([], command=[str(broken)])
    with pytest.raises(jobs.JobStartError, match="program could not be started"):
        job.start()
    assert not job.running and not job.folder.exists()


@pytest.mark.parametrize("blocking", [True, False], ids=["wait", "event loop"])
def test_exception_of_a_callback_is_not_lost(host, jobs, blocking):
    def fault(outcome):
        raise ZeroDivisionError("in the callback")

    told = Told()
    job = jobs.CoreJob(["work"], **{**told.callbacks(), "on_finished": fault}).start()
    if blocking:
        with pytest.raises(ZeroDivisionError):
            job.wait(20)
    else:
        assert host.wait_until(lambda: not job.running, 20)
        host.pump(0.1)
        assert any("in the callback" in text for text in host.findings)
        host.findings.clear()
    assert job.outcome.ok and not job.folder.exists() and told.results


# --------------------------------------------------------------------------------------------------------------- cancel


def test_polite_cancel_by_file(jobs):
    job = jobs.CoreJob(["polite"]).start()
    job.wait(0.5)
    begin = time.monotonic()
    job.cancel()
    outcome = job.wait(10)
    assert time.monotonic() - begin < 1.5
    assert outcome.status == "cancelled" and outcome.sentence.startswith("Cancelled") and not job.folder.exists()


def test_cancel_ends_the_whole_tree_in_two_seconds(jobs):
    job = jobs.CoreJob(["stubborn"]).start()
    pids = [int(word) for word in read_until(job, "pids").split()[1:]]
    assert len(pids) == 3 and all(is_alive(pid) for pid in pids)
    begin = time.monotonic()
    job.cancel()
    assert job.cancelling
    outcome = job.wait(10)
    assert time.monotonic() - begin < 2.0
    assert gone_within(pids, 2.0 - (time.monotonic() - begin))
    assert outcome.status == "cancelled" and not job.folder.exists() and not job.running


def test_cancel_comes_in_time_though_the_main_thread_is_busy(jobs):
    job = jobs.CoreJob(["stubborn"]).start()
    pids = [int(word) for word in read_until(job, "pids").split()[1:]]
    job.cancel()
    time.sleep(1.9)  # the event loop stands still
    assert not any(is_alive(pid) for pid in pids)
    assert job.wait(5).status == "cancelled"


def test_cancel_twice_and_after_the_end(jobs):
    told = Told()
    job = jobs.CoreJob(["sleep"], **told.callbacks()).start()
    job.cancel()
    job.cancel()
    assert job.wait(10).status == "cancelled"
    job.cancel()
    assert len(told.outcomes) == 1


def test_cancel_from_a_callback(jobs):
    job = jobs.CoreJob(["work"], on_progress=lambda *values: job.cancel())
    assert job.start().wait(10).status == "cancelled"


def test_child_that_stays_behind_is_ended(jobs):
    job = jobs.CoreJob(["orphan"]).start()
    pid = int(read_until(job, "pids").split()[1])
    outcome = job.wait(20)
    assert outcome.ok and outcome.results == [{"scan": "orphan"}] and outcome.seconds < 5
    assert gone_within([pid], 2)


def test_two_jobs_at_once(host, jobs):
    first, second = jobs.CoreJob(["work"]).start(), jobs.CoreJob(["sleep"]).start()
    assert first.folder != second.folder and len(jobs.running_jobs()) == 2
    assert first.wait(20).ok and second.running
    jobs.cancel_all()
    assert second.wait(10).status == "cancelled"


def test_end_of_the_interpreter_ends_the_program(tmp_path, host):
    """A child Slicer that ends with a job running leaves no process and no folder behind."""
    code = (
        f"import sys; sys.path[:0] = [{str(REPOSITORY / 'MRIDeepTools')!r}]; import slicer;"
        "slicer.mrmlScene = slicer.vtkMRMLScene();"
        "from MRIDeepToolsLib import jobs, processes;"
        "words = ['-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'];"
        f"job = jobs.CoreJob(words, command=[{sys.executable!r}]);"
        "job.start()\n"
        "while len(job.log.splitlines()) < 2: job.wait(0.05)\n"
        "print(job.log.splitlines()[1], job.folder)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    pid, _blank, folder = done.stdout.strip().splitlines()[-1].partition(" ")
    assert gone_within([int(pid)], 2) and not Path(folder).exists()


# ------------------------------------------------------------------------------------------------------------ the scene


def test_guard_knows_deleted_nodes_and_closed_scenes(host):
    import slicer
    from MRIDeepToolsLib.errors import SceneChangedError
    from MRIDeepToolsLib.jobs import SceneGuard

    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other")
    guard = SceneGuard(input=volume, output=other, extra=None)
    assert guard.node("input") is volume and guard.node("extra") is None and guard.exists("output")
    slicer.mrmlScene.RemoveNode(other)
    assert guard.node("input") is volume and not guard.exists("output")
    with pytest.raises(SceneChangedError, match="deleted"):
        guard.node("output")
    slicer.mrmlScene.Clear(0)
    again = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
    assert again.GetID() == "vtkMRMLScalarVolumeNode1"  # the same ID, another node
    assert guard.scene_closed and not guard.exists("input")
    with pytest.raises(SceneChangedError, match="closed"):
        guard.node("input")
    guard.release()
    guard.release()


@pytest.mark.parametrize("close", [True, False], ids=["scene closed", "input deleted"])
def test_results_are_dropped_safely(host, jobs, close):
    import slicer
    from MRIDeepToolsLib.errors import SceneChangedError

    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
    guard = jobs.SceneGuard(input=volume)
    told = []

    def finished(outcome):
        try:
            guard.node("input")
        except SceneChangedError as error:
            told.append(str(error))
        finally:
            guard.release()

    job = jobs.CoreJob(["work"], on_finished=finished).start()
    job.wait(0.2)
    if close:
        slicer.mrmlScene.Clear(0)
    else:
        slicer.mrmlScene.RemoveNode(volume)
    before = slicer.mrmlScene.GetNumberOfNodes()
    assert job.wait(20).ok and len(told) == 1 and "dropped" in told[0]
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_a_command_to_type_becomes_a_button_to_press(host):
    from MRIDeepToolsLib.outcomes import for_the_panel

    told = "a is used, because b is not installed; get the published one with 'mri-deep-tools models download b-2.0'"
    assert for_the_panel(told) == (
        "a is used, because b is not installed; get the published one with Download in the module MRI Deep Tools"
    )
    assert for_the_panel("no brain was found") == "no brain was found"
