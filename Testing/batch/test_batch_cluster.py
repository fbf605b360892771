"""Jobs on a Dask cluster: real schedulers and workers as processes of their own, which are killed and cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cluster_jobs
import mri_deep_tools
import pytest
from cluster_jobs import make_jobs, runs
from mri_deep_tools.batch import cluster_start
from mri_deep_tools.batch.cluster import ClusterExecutor
from mri_deep_tools.batch.cluster_start import parse_cluster
from mri_deep_tools.batch.state import State
from mri_deep_tools.errors import DependencyError, MRIDeepToolsError, RequestError
from mri_deep_tools.progress import Progress

pytest.importorskip("distributed", reason="the extra batch is not installed")
HERE = Path(__file__).parent


def listener(told):
    """Return a progress that notes what it is told: warnings as they are, other events as JSON."""
    return Progress(lambda event: told.append(event.message if event.event == "warning" else event.to_json()))


def run(request, jobs, do=cluster_jobs.work, on_outcome=lambda outcome: None):
    """Do jobs; return the outcomes by job, and what was told."""
    outcomes, told = [], []

    def heard(outcome):
        outcomes.append(outcome)
        on_outcome(outcome)

    ClusterExecutor(request, listener(told), do).run(jobs, heard)
    assert max(Counter(outcome.id for outcome in outcomes).values()) == 1
    return {outcome.id: outcome for outcome in outcomes}, told


def environment(*first):
    """Return the environment of workers; ``first`` are folders that come first among the modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*first, HERE)))}


@contextmanager
def process(*words, **changes):
    """Run a Dask process for a while."""
    command = [sys.executable, "-m", "distributed.cli." + words[0], *map(str, words[1:])]
    made = subprocess.Popen(command, **{"env": environment(), "stderr": subprocess.DEVNULL, **changes})
    try:
        yield made
    finally:
        made.terminate()
        made.wait(30)


@pytest.fixture
def scheduler(tmp_path):
    """Return the address of a scheduler that runs as a process of its own."""
    place = tmp_path / "scheduler.json"
    words = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", place)
    with process("dask_scheduler", *words):
        yield _address(place)


def _address(place):
    for _ in range(300):
        if place.exists() and place.read_text():
            return json.loads(place.read_text())["address"]
        time.sleep(0.1)
    raise AssertionError("the scheduler did not start")


def worker(address, *words, threads=1, **changes):
    options = ("--no-nanny", "--nthreads", threads, "--host", "127.0.0.1", "--no-dashboard", "--memory-limit", 0)
    return process("dask_worker", address, *options, *words, **changes)


# -------------------------------------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("locl:2", "there is no cluster 'locl:2'"),
        ("local", "use local:N"),
        ("local:0", "there is no cluster 'local:0'"),
        ("local:-1", "there is no cluster"),
        ("tcp://host", "there is no cluster"),
        ("host:8786", "tcp://HOST:PORT"),
        ("slurm:4", "there is no cluster 'slurm:4'"),
        ("", "there is no cluster ''"),
    ],
)
def test_words_that_name_no_cluster(text, sentence):
    with pytest.raises(RequestError, match=sentence):
        parse_cluster(text)


def test_a_configuration_is_for_batch_systems(tmp_path):
    (tmp_path / "c.yaml").write_text("cores: 2\n")
    with pytest.raises(RequestError, match="takes no configuration"):
        parse_cluster("local:2", tmp_path / "c.yaml")


@pytest.mark.parametrize(("text", "package"), [("local:2", "distributed"), ("slurm", "dask-jobqueue")])
def test_a_missing_extra_is_named(monkeypatch, text, package):
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
    with pytest.raises(DependencyError, match=rf"needs {package}.*mri-deep-tools\[batch\]"):
        parse_cluster(text)


def test_cores_are_shared_out(monkeypatch):
    monkeypatch.setattr("mri_deep_tools.inference.available_threads", lambda: 16)
    assert [parse_cluster(f"local:{n}").threads for n in (1, 4, 5, 32)] == [16, 4, 3, 1]


# --------------------------------------------------------------------------------------------------------- this machine


def test_workers_of_this_machine_share_gpus_and_cores(tmp_path, monkeypatch):
    """Three processes on two GPUs: each sees one, no GPU has two more than another; the dashboard can be opened."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    pages = []

    def look(outcome):
        if not pages:
            link = next(json.loads(line)["dashboard"] for line in told if "dashboard" in line)
            with urllib.request.urlopen(link, timeout=20) as page:
                pages.append(page.status)

    told = []
    outcomes = []
    request = replace(parse_cluster("local:3"), threads=5)
    executor = ClusterExecutor(request, listener(told), cluster_jobs.work)
    executor.run(make_jobs(tmp_path, 24, ["sleep=0.3"]), lambda outcome: (outcomes.append(outcome), look(outcome)))
    assert sorted(outcome.id for outcome in outcomes) == [f"job-{n:03d}" for n in range(24)]
    assert {outcome.state for outcome in outcomes} == {"done"} and pages == [200]
    gpus = {outcome.worker: outcome.qc["gpu"] for outcome in outcomes}
    assert sorted(Counter(gpus.values())) == ["GPU-a", "GPU-b"] and sorted(Counter(gpus.values()).values()) == [1, 2]
    assert {outcome.qc["threads"] for outcome in outcomes} == {"5"}
    assert all(len({o.qc["worker"] for o in outcomes if o.worker == pid}) == 1 for pid in gpus)  # kept between jobs
    assert all(runs(tmp_path, outcome.id) == 1 for outcome in outcomes)
    assert not list((tmp_path / ".batch").glob("cluster-*"))
    assert not any(_alive(int(pid)) for pid in gpus)


def _alive(pid):
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.slow
def test_a_job_that_kills_its_worker_fails_alone(tmp_path):
    jobs = make_jobs(tmp_path, 9, ["sleep=0.1"])
    jobs[4] = replace(jobs[4], options=("sleep=0.1", "kill"))
    jobs[6] = replace(jobs[6], options=("fault",))
    outcomes, told = run(parse_cluster("local:2"), jobs)
    states = {name: outcome.state for name, outcome in outcomes.items()}
    assert states == {job.id: "failed" if job.id in ("job-004", "job-006") else "done" for job in jobs}
    assert outcomes["job-004"].message.startswith("its worker ended 3 times") and runs(tmp_path, "job-004") == 3
    assert outcomes["job-006"].message.startswith("KeyError: 'a fault'")
    assert State(tmp_path).outcome("job-004") == outcomes["job-004"]
    assert sum("job-004" in line for line in told) == 2
    assert all(runs(tmp_path, job.id) <= 2 for job in jobs if job.id != "job-004")


# ------------------------------------------------------------------------------------------------ schedulers elsewhere


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_loses_and_doubles_nothing(scheduler, tmp_path):
    """Two workers with two lanes each; one is killed, a third one joins."""
    folder, joined = tmp_path / "out", []
    folder.mkdir()
    jobs = make_jobs(folder, 40, ["sleep=0.2"])
    with worker(scheduler, threads=2) as first, worker(scheduler, threads=2) as second:

        def on_outcome(outcome):
            if len(list(folder.glob("run-*"))) > 12 and first.poll() is None:
                first.send_signal(signal.SIGKILL)
                joined.append(worker(scheduler, threads=2))
                joined[0].__enter__()

        outcomes, told = run(parse_cluster(scheduler), jobs, on_outcome=on_outcome)
        assert second.poll() is None  # what the batch did not start goes on
        joined[0].__exit__(None, None, None)
    assert sorted(outcomes) == [job.id for job in jobs]
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    assert {outcome.id for outcome in State(folder).outcomes()} == set(outcomes)
    again = [job.id for job in jobs if runs(folder, job.id) > 1]
    lost = next(line for line in told if "is gone" in line)
    # What the dead worker was at runs again, and what it had ended without having handed over its outcome.
    assert len(again) <= 4
    assert set(lost.rpartition(": ")[2].split(", ")) <= set(outcomes)
    assert any("dashboard" in line for line in told)


def test_no_scheduler_and_no_workers(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_start, "_CONNECT_SECONDS", 2)
    with pytest.raises(RequestError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1;"):
        run(parse_cluster("tcp://127.0.0.1:1"), make_jobs(tmp_path, 1))
    monkeypatch.setattr(cluster_start, "_PATIENCE", 2.0)
    with pytest.raises(MRIDeepToolsError, match="the cluster has no workers"):
        run(parse_cluster(scheduler), make_jobs(tmp_path, 1))


@pytest.mark.slow
def test_a_scheduler_that_ends_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_start, "_PATIENCE", 4.0)
    place = tmp_path / "scheduler.json"
    words = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", place)
    jobs, gone = make_jobs(tmp_path / "out", 500, ["sleep=0.1"]), r"the Dask scheduler is gone; .*--resume"
    with (
        process("dask_scheduler", *words) as mine,
        worker(_address(place)),
        pytest.raises(MRIDeepToolsError, match=gone),
    ):
        run(parse_cluster(_address(place)), jobs, on_outcome=lambda outcome: mine.send_signal(signal.SIGKILL))
    done = list(State(tmp_path / "out").outcomes())
    assert done and {outcome.state for outcome in done} == {"done"}


def other_version(folder):
    """Make a package like this one that says that it is of another version."""
    package, real = folder / "other" / "mri_deep_tools", Path(mri_deep_tools.__file__).parent
    package.mkdir(parents=True)
    for item in real.iterdir():
        if item.name != "__init__.py":
            (package / item.name).symlink_to(item)
    text = (real / "__init__.py").read_text().replace(mri_deep_tools.__version__, "0.0.7")
    (package / "__init__.py").write_text(text)
    return package.parent


@pytest.mark.slow
def test_workers_of_another_version_are_refused(scheduler, tmp_path):
    empty = tmp_path / "empty" / "mri_deep_tools"
    empty.mkdir(parents=True)
    (empty / "__init__.py").touch()
    with worker(scheduler, env=environment(other_version(tmp_path))):
        with pytest.raises(RequestError, match=rf"has MRI Deep Tools 0\.0\.7, this is {mri_deep_tools.__version__}"):
            run(parse_cluster(scheduler), make_jobs(tmp_path, 2))
        with worker(scheduler) as good, worker(scheduler, env=environment(empty.parent)):
            outcomes, told = run(parse_cluster(scheduler), make_jobs(tmp_path, 20, ["sleep=0.5"]))
            assert {outcome.worker for outcome in outcomes.values()} == {str(good.pid)}
        left = [line for line in told if "left out" in line]
        assert sum("0.0.7" in line for line in left) == 1
        assert sum("has no MRI Deep Tools of this version" in line for line in left) == 1


@pytest.mark.slow
def test_workers_that_do_not_see_the_files_are_refused(scheduler, tmp_path):
    """In a mount namespace of its own a worker finds another folder under the same path, as on a machine elsewhere."""
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "t1.nii").touch()
    apart = ["unshare", "--mount", "--map-root-user", "--user"]
    hidden = f"mount -t tmpfs none {folder} && exec "
    if subprocess.run([*apart, "sh", "-c", f"{hidden} true"], capture_output=True, check=False).returncode:
        pytest.skip("this system does not allow mount namespaces")
    command = f"{sys.executable} -m distributed.cli.dask_worker {scheduler} --no-nanny --no-dashboard --nthreads 1"
    words = [*apart, "sh", "-c", hidden + command]
    apart_worker = subprocess.Popen(words, env=environment(), stderr=subprocess.DEVNULL)
    try:
        jobs = make_jobs(tmp_path / "out", 2, inputs={"input": str(folder / "t1.nii")})
        with pytest.raises(
            RequestError, match=r"does not see t1\.nii; keep inputs in a folder that all machines share"
        ):
            run(parse_cluster(scheduler), jobs)
        with pytest.raises(RequestError, match="does not see the output folder"):
            run(parse_cluster(scheduler), make_jobs(folder, 2))
        later = [make_jobs(tmp_path / "out", 1)[0], replace(jobs[1], id="job-x")]
        outcomes, _ = run(parse_cluster(scheduler), later)
        assert outcomes["job-000"].state == "done" and outcomes["job-x"].state == "failed"
        assert outcomes["job-x"].message.startswith("t1.nii cannot be seen from ")
        assert State(tmp_path / "out").outcome("job-x").state == "failed"
    finally:
        apart_worker.terminate()
        apart_worker.wait(30)


# -------------------------------------------------------------------------------------------------------------- the end

DRIVER = """
import sys
from cluster_jobs import make_jobs, work
from mri_deep_tools.batch.cluster import ClusterExecutor
from mri_deep_tools.batch.cluster_start import parse_cluster
from mri_deep_tools.progress import Progress

if __name__ == "__main__":
    executor = ClusterExecutor(parse_cluster(sys.argv[1]), Progress(), work)
    try:
        executor.run(make_jobs(sys.argv[2], 20, [f"sleep={sys.argv[3]}"]), lambda o: print(o.worker, flush=True))
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


@pytest.mark.parametrize("kind", ["local", pytest.param("scheduler", marks=pytest.mark.slow)])
def test_control_c_stops_and_frees_the_cluster(kind, tmp_path, request):
    """The signal goes to the whole group of processes, as a terminal sends it; long jobs end within seconds."""
    (tmp_path / "driver.py").write_text(DRIVER)
    folder = tmp_path / "out"
    folder.mkdir()
    if kind == "local":
        _interrupted("local:2", tmp_path, folder)
        return
    scheduler = request.getfixturevalue("scheduler")
    with worker(scheduler) as mine:
        _interrupted(scheduler, tmp_path, folder)
        outcomes, _ = run(parse_cluster(scheduler), make_jobs(tmp_path / "next", 1))  # not behind what was stopped
        assert outcomes["job-000"].worker == str(mine.pid)


def _interrupted(where, place, folder):
    command = [sys.executable, str(place / "driver.py"), where, str(folder), "60"]
    options = {"env": environment(), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    driver = subprocess.Popen(command, start_new_session=True, **options)
    for _ in range(600):
        if list(folder.glob("run-*")):
            break
        time.sleep(0.1)
    time.sleep(0.5)
    os.killpg(driver.pid, signal.SIGINT)
    out, errors = driver.communicate(timeout=40)
    assert out.splitlines()[-1] == "stopped" and not errors, errors
    assert not list((folder / ".batch").glob("cluster-*")) and not list(State(folder).outcomes())
    for _ in range(100):
        if not _group(driver.pid):
            return
        time.sleep(0.1)
    raise AssertionError(f"processes are left: {_group(driver.pid)}")


def _group(number):
    """Return the processes of a session."""
    import psutil

    found = []
    for one in psutil.process_iter():
        try:
            if os.getsid(one.pid) == number and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one.pid)
        except (ProcessLookupError, psutil.Error):
            continue
    return found


def test_nothing_to_do_starts_nothing(tmp_path):
    ClusterExecutor(parse_cluster("tcp://127.0.0.1:1"), Progress()).run([], lambda outcome: None)
