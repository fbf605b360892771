"""The glue with the real core: a segmentation from node to node, cancel, errors, what it says of the computer."""

from __future__ import annotations

import ast
import gzip
import subprocess
import sys
import time

import numpy as np
import pytest
from glue_helpers import REPOSITORY, add_volume, affine_of, gone_within, rotation


@pytest.fixture(scope="module")
def weights(shared, tmp_path_factory):
    """Return options that choose the bundled model, or the narrow networks of the golden data while it is not there."""
    from mri_deep_tools.models import model_status

    if model_status("synthseg-lite") == "bundled":
        return ["--model", "synthseg-lite"]
    folder = tmp_path_factory.mktemp("weights")
    for path in shared("fixtures", "synthseg", "weights").glob("*.h5.gz"):
        with gzip.open(path) as source:
            (folder / path.name.removesuffix(".gz")).write_bytes(source.read())
    return ["--weights", str(folder), "--crop", "32"]


@pytest.fixture
def scan(host, monkeypatch, tmp_path_factory):
    """Return an oblique scan of a bright ball, left-handed, in the scene."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    shape = (48, 44, 40)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) - (np.array(shape) - 1) / 2
    values = np.random.default_rng(0).normal(100, 10, shape) + 200 * (np.linalg.norm(index, axis=-1) < 15)
    affine = affine_of(rotation((5, -10, 15)) @ np.diag([-1, 1, 1]), (2, 2, 2.2), (30, -40, -20))
    return add_volume(values.astype(np.float32), affine)


def test_from_node_to_node(host, scan, weights):
    """The whole way: export, the real program, import of all results."""
    import slicer
    from MRIDeepToolsLib.jobs import CoreJob, SceneGuard
    from MRIDeepToolsLib.nodes import (
        export_volume,
        import_posteriors,
        import_segmentation,
        import_volumes_table,
        output_name,
        place_beside,
        set_provenance,
        structures_of,
        volumes_chart,
    )

    made = {}
    guard = SceneGuard(input=scan)

    def arguments(folder):
        export_volume(scan, folder / "scan.nii")
        extra = ["--volumes", folder / "v.csv", "--posteriors", folder / "p.nii.gz", "--threads", "1", "--fast"]
        return ["segment", folder / "scan.nii", folder / "out_dseg.nii", *weights, *extra]

    def finished(outcome):
        assert outcome.ok, f"{outcome.sentence}\n{job.log}"
        folder, volume = job.folder, guard.node("input")
        labels, table = folder / "out_dseg.nii", folder / "out_dseg.tsv"
        made["segmentation"] = import_segmentation(labels, table, volume, output_name(volume, "brain"))
        made["table"] = import_volumes_table(folder / "v.csv", "volumes")
        made["posteriors"] = import_posteriors(folder / "p.nii.gz", volume, "soft", table_path=table)
        made["chart"] = volumes_chart(made["table"], "chart")
        for node in (made["segmentation"], made["table"]):
            set_provenance(node, folder / "out_dseg.json")
            place_beside(node, volume)

    progress = []
    job = CoreJob(arguments, on_progress=lambda *values: progress.append(values), on_finished=finished)
    outcome = job.start().wait(120)
    guard.release()
    assert outcome.ok and not job.folder.exists()
    assert progress[-1][0] == 1.0 and [value[0] for value in progress] == sorted(value[0] for value in progress)
    assert outcome.device["device"] == "cpu"
    (result,) = outcome.results
    assert result["scan"] == "scan.nii"
    segmentation, table = made["segmentation"], made["table"]
    assert segmentation.GetName() == "scan - brain"
    assert len(segmentation.GetAttribute("MRIDeepTools.WeightsSHA256")) == 64
    assert segmentation.GetAttribute("MRIDeepTools.Command") == "segment"
    assert set(structures_of(segmentation)) <= set(result["volumes_mm3"])
    volumes = slicer.util.arrayFromTableColumn(table, "Volume")
    np.testing.assert_allclose(sorted(volumes), sorted(result["volumes_mm3"].values()), atol=1e-2)
    assert made["posteriors"].GetNumberOfDataNodes() == segmentation_channels()
    assert made["posteriors"].GetNthIndexValue(0) == "Background"
    # Soft maps add up to one in every voxel, on the scan's grid.
    maps = [made["posteriors"].GetNthDataNode(number) for number in range(segmentation_channels())]
    total = sum(slicer.util.arrayFromVolume(item).astype(float) for item in maps)
    np.testing.assert_allclose(total, 1, atol=0.02)


def segmentation_channels():
    from mri_deep_tools.synthsegment.labels import V2_CHANNELS

    return len(V2_CHANNELS)


def test_cancel_of_the_real_program(host, scan, weights):
    from MRIDeepToolsLib.jobs import CoreJob
    from MRIDeepToolsLib.nodes import export_volume
    from MRIDeepToolsLib.processes import descendants

    def arguments(folder):
        export_volume(scan, folder / "scan.nii")
        return ["segment", folder / "scan.nii", folder / "out_dseg.nii", *weights, "--threads", "1"]

    job = CoreJob(arguments).start()
    end = time.monotonic() + 60
    while job.fraction == 0 and job.running and time.monotonic() < end:
        job.wait(0.05)
    assert job.running, job.log
    pids = [job._process.pid, *descendants(job._process.pid)]
    begin = time.monotonic()
    job.cancel()
    outcome = job.wait(10)
    assert outcome.status == "cancelled" and time.monotonic() - begin < 2.2
    assert gone_within(pids, 1) and not job.folder.exists()


def test_errors_of_the_real_program_are_sentences(host, scan, tmp_path):
    from MRIDeepToolsLib.jobs import CoreJob

    (tmp_path / "scan.nii").write_text("no image")
    outcome = CoreJob(["segment", tmp_path / "scan.nii", tmp_path / "out_dseg.nii"]).start().wait(60)
    assert outcome.status == "failed" and outcome.code and outcome.exit_code == 2
    assert outcome.sentence[0].isupper() or outcome.sentence.startswith("scan.nii")
    assert str(tmp_path) not in outcome.sentence
    outcome = CoreJob(["segment", "--nonsense"]).start().wait(60)
    assert outcome.status == "failed" and outcome.exit_code == 2 and "nonsense" in outcome.sentence


def test_wrong_checksum_is_told(host, tmp_path):
    from MRIDeepToolsLib import settings
    from MRIDeepToolsLib.jobs import CoreJob

    settings.set_value("cacheFolder", str(tmp_path / "cache"))
    source = tmp_path / "source"
    source.mkdir()
    (source / "synthseg_2.0.h5").write_bytes(b"tampered")
    outcome = CoreJob(["models", "import", str(source)]).start().wait(60)
    assert not outcome.ok and outcome.status == "failed", outcome
    assert "synthseg" in outcome.sentence.lower() or "weights" in outcome.sentence.lower()
    assert not list((tmp_path / "cache").rglob("*.h5"))


def test_offline_setting_reaches_the_program(host, tmp_path):
    from MRIDeepToolsLib import settings
    from MRIDeepToolsLib.jobs import CoreJob

    settings.set_value("cacheFolder", str(tmp_path / "cache"))
    settings.set_value("offline", True)
    outcome = CoreJob(["models", "download", "synthseg-2.0"]).start().wait(60)
    assert outcome.status == "failed" and "network" in outcome.sentence.lower(), outcome


# ----------------------------------------------------------------------------------------- what the core says of itself


def test_info_is_asked_once(host, monkeypatch):
    from MRIDeepToolsLib import core_info, jobs

    core_info.forget()
    assert core_info.cached() is None
    assert [item["name"] for item in core_info.devices()] == ["cpu"] and core_info.models() == []
    found = core_info.info()
    assert found["torch"] and found["devices"][0]["name"] == "cpu"
    monkeypatch.setattr(jobs.CoreJob, "start", lambda self: pytest.fail("asked again"))
    assert core_info.info() is found and core_info.devices() == found["devices"]
    assert {item["name"] for item in core_info.models("segment")} >= {"synthseg-2.0", "synthseg-lite"}


def test_info_without_waiting(host):
    from MRIDeepToolsLib import core_info

    core_info.forget()
    told = []
    core_info.refresh(told.append, told.append)
    assert told == []
    assert host.wait_until(lambda: told, 60)
    assert told[0]["version"] == core_info.cached()["version"]


def test_failed_info_is_a_sentence(host, monkeypatch):
    from MRIDeepToolsLib import core_info, processes
    from MRIDeepToolsLib.errors import GlueError

    core_info.forget()
    for code, piece in (("import torch_not_here_mri_deep_tools", "log|gave|No module"), ("print('[]')", "unexpected")):
        command = [processes.python_slicer(), "-c", code]
        monkeypatch.setattr(processes, "core_command", lambda command=command: command)
        with pytest.raises(GlueError, match=piece):
            core_info.info()
        told, ready = [], []
        core_info.refresh(ready.append, told.append)
        assert host.wait_until(lambda told=told: told, 30) and ready == []
    assert "Core fault" in core_info.system_report()


def test_system_report_tells_no_names(host, tmp_path):
    from pathlib import Path

    from MRIDeepToolsLib import core_info, settings

    settings.set_value("cacheFolder", str(tmp_path / "Jane Doe"))
    core_info.forget()
    report = core_info.system_report()
    for line in ("Slicer: ", "Python: ", "Torch: ", "Device: cpu", "Model synthseg-2.0: ", "Settings: device auto"):
        assert line in report
    assert "Jane" not in report and str(tmp_path) not in report and str(Path.home()) + "/" not in report
    assert "cacheFolder set" in report and "wheelFolder not set" in report


# ------------------------------------------------------------------------------------------------------------- settings


def test_settings_are_kept_in_their_types(host):
    import slicer
    from MRIDeepToolsLib import settings

    assert settings.get("device") == "auto" and settings.get("threads") == 0 and settings.get("offline") is False
    assert settings.environment() == {} and settings.job_options() == []
    settings.set_value("device", "cuda:1")
    settings.set_value("threads", 2)
    settings.set_value("offline", True)
    settings.set_value("cacheFolder", "/data/cache")
    store = slicer.app.settings()
    store.sync()
    for name, text in (("threads", "2"), ("offline", "true")):  # what a settings file gives back after a restart
        store.setValue(settings.PREFIX + name, text)
    assert settings.get("threads") == 2 and settings.get("offline") is True
    assert settings.environment() == {
        "MRI_DEEP_TOOLS_CACHE": "/data/cache",
        "MRI_DEEP_TOOLS_OFFLINE": "1",
        "OMP_NUM_THREADS": "2",
    }
    assert settings.job_options() == ["--device", "cuda:1", "--threads", "2"]
    assert settings.job_options("cpu", 1) == ["--device", "cpu", "--threads", "1"]
    store.setValue(settings.PREFIX + "threads", "many")
    store.setValue(settings.PREFIX + "offline", "false")
    assert settings.get("threads") == 0 and settings.get("offline") is False
    settings.reset()
    assert settings.environment() == {} and settings.get("device") == "auto"
    with pytest.raises(KeyError):
        settings.get("colour")


# -------------------------------------------------------------------------------------------------------------- imports


def test_import_is_quick_and_brings_nothing_heavy(host):
    """In a fresh interpreter that has slicer: no third party, under 0.2 s together."""
    names = ["core_info", "jobs", "nodes", "packages", "processes", "settings", "setup_core"]
    code = (
        "import sys, time; import vtk, slicer, slicer.util; before = set(sys.modules); begin = time.process_time();"
        + "".join(f"import MRIDeepToolsLib.{name};" for name in names)
        + "seconds = time.process_time() - begin;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(seconds, sorted(new - set(sys.stdlib_module_names)))"
    )
    lines = []
    for _attempt in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=REPOSITORY / "MRIDeepTools",
        )
        lines.append(done.stdout.strip().splitlines()[-1].partition(" "))
    assert [line[2] for line in lines] == ["['MRIDeepToolsLib']"] * 2
    assert min(float(line[0]) for line in lines) < 0.2


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "MRIDeepTools" / "MRIDeepToolsLib").glob("*.py")), ids=lambda p: p.stem
)
def test_files_parse_on_python_3_9_and_import_no_third_party(path):
    """At file scope only slicer, qt, ctk, vtk and the standard library; torch and the core nowhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    allowed = {"slicer", "qt", "ctk", "vtk", *sys.stdlib_module_names}
    assert {name.partition(".")[0] for name in imported(tree.body)} <= allowed
    everywhere = {name.partition(".")[0] for name in imported(ast.walk(tree))}
    assert not {"torch", "mri_deep_tools", "nibabel", "pandas"} & everywhere


def imported(nodes):
    """Yield the absolute names that import statements among the nodes name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
