"""What the tests of the modules share: a core that is quick and can misbehave, real weights, volumes, pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]

# Segments like the core, files and events and all, but by a rule of thumb: left and right of the middle, and a box in
# it. FAKE_CORE_MODE tells it how to misbehave. All other commands go to the real core.
FAKE_CORE = r"""
import json, os, runpy, signal, sys, time

words = sys.argv[1:]
if words[0] != "segment":
    sys.argv = ["mri-deep-tools", *words]
    runpy.run_module("mri_deep_tools", run_name="__main__")
    sys.exit(0)

mode = os.environ.get("FAKE_CORE_MODE", "good")

def event(kind, **fields):
    print("@mri-deep-tools " + json.dumps({"event": kind, **fields}), flush=True)

def option(name):
    return words[words.index(name) + 1] if name in words else None

event("device", device="cpu", threads=1)
event("progress", stage="segment", fraction=0.43, eta_s=21.0, elapsed_s=1.0)
print("fake core:", *[os.path.basename(word) for word in words[3:]], flush=True)
if mode == "slow":
    while not os.path.exists(os.environ["MRI_DEEP_TOOLS_CANCEL_FILE"]):
        time.sleep(0.02)
    event("error", code="cancelled", message="Cancelled", hint="nothing was written")
    sys.exit(1)
if mode == "step":
    end = time.monotonic() + 20
    while not os.path.exists(os.environ["FAKE_CORE_GO"]) and time.monotonic() < end:
        time.sleep(0.02)
if mode == "error":
    event("error", code="memory", message="the GPU is full", hint="choose the CPU")
    sys.exit(1)
if mode == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
if mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "garbage":
    sys.stdout.buffer.write(b"\xff\xfe\x00\xe9\n@mri-deep-tools {no json\n" + b"x" * 500_000 + b"\n")
if mode == "flood":
    for number in range(100_000):
        print("line", number, "of a very talkative library")

import nibabel, numpy
from pathlib import Path

NAMES = {2: ("left cerebral white matter", "#f5f5f5", "left", "68523003", "Cerebral White Matter"),
         17: ("left hippocampus", "#dcd814", "left", "5366008", "Hippocampus"),
         41: ("right cerebral white matter", "#f5f5f5", "right", "68523003", "Cerebral White Matter"),
         53: ("right hippocampus", "#dcd814", "right", "5366008", "Hippocampus")}

def label(scan, out, volumes, qc, posteriors):
    image = nibabel.load(scan)
    data = numpy.asarray(image.dataobj)
    positions = numpy.indices(data.shape).reshape(3, -1)
    right = (image.affine[0, :3] @ positions + image.affine[0, 3]).reshape(data.shape)
    labels = numpy.where(right < right.mean(), 2, 41).astype(numpy.int16)
    middle = tuple(slice(n // 3, n - n // 3) for n in data.shape)
    labels[middle] = numpy.where(labels[middle] == 2, 17, 53)
    labels[data < 150] = 0
    affine = image.affine.copy()
    if mode == "shifted":
        affine[0, 3] += 2
    nibabel.save(nibabel.Nifti1Image(labels, affine), out)
    stem = Path(out).with_suffix("")
    rows = ["index\tname\tcolor\tside\tcoding_scheme\tconcept_code\tconcept_meaning",
            "0\tbackground\t#000000\tneutral\tn/a\tn/a\tn/a"]
    rows += ["\t".join((str(code), item[0], item[1], item[2], "SCT", item[3], item[4])) for code, item in NAMES.items()]
    stem.with_suffix(".tsv").write_text("\n".join(rows) + "\n")
    record = {"GeneratedBy": [{"Version": "1.2.3", "Command": "segment"}], "Device": {"Name": "cpu"},
              "Models": [{"Name": "fake", "SHA256": "ab" * 32}], "Options": {"fast": "--fast" in words}}
    stem.with_suffix(".json").write_text(json.dumps(record))
    sizes = {item[0]: float((labels == code).sum()) for code, item in NAMES.items()}
    if volumes:
        Path(volumes).write_text("subject," + ",".join(f"{name} (mm^3)" for name in sizes) + "\nscan,"
                                 + ",".join(f"{size:.3f}" for size in sizes.values()) + "\n")
    if qc:
        Path(qc).write_text("subject,general white matter,cerebellum,thalamus\nscan,0.9000,0.7000,0.4000\n")
    if posteriors:
        soft = numpy.stack([labels == code for code in (0, *NAMES)], axis=-1).astype(numpy.float32)
        nibabel.save(nibabel.Nifti1Image(soft, affine), posteriors)
    event("result", scan="scan", outputs=[out], volumes_mm3=sizes, qc=None, model="fake")

def lines(path):
    return Path(path).read_text().split("\n")[:-1]

files = [words[1], words[2], option("--volumes"), option("--qc"), option("--posteriors")]
if words[1].endswith(".txt"):
    columns = [lines(path) if path else None for path in files]
    for number in range(len(columns[0])):
        label(*[column[number] if column else None for column in columns])
else:
    label(*files)
event("warning", message="the scan is dark")
"""


def use_fake_core(monkeypatch, folder: Path, mode: str = "good") -> None:
    """Put the quick core in place of the real one; PythonSlicer, the process and the files are real."""
    from MRIDeepToolsLib import processes

    program = folder / "fake_core.py"
    program.write_text(FAKE_CORE, encoding="utf-8")
    monkeypatch.setattr(processes, "core_command", lambda: [processes.python_slicer(), str(program)])
    monkeypatch.setenv("MRI_DEEP_TOOLS_FAKE", "1")
    set_mode(monkeypatch, mode)


def set_mode(monkeypatch, mode: str) -> None:
    """Tell the quick core how to behave from the next run on."""
    from MRIDeepToolsLib import settings

    original = getattr(settings.environment, "original", settings.environment)

    def environment() -> dict[str, str]:
        return {**original(), "FAKE_CORE_MODE": mode, "FAKE_CORE_GO": os.environ.get("FAKE_CORE_GO", "")}

    environment.original = original
    monkeypatch.setattr(settings, "environment", environment)


def add_volume(name: str = "Head", shape=(34, 36, 40), matrix=None, seed: int = 1):
    """Add a scalar volume: a bright box in noise; ``shape`` is k, j, i, ``matrix`` the 4 x 4 from IJK to RAS."""
    import slicer
    import vtk

    values = np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)
    values[4:-4, 4:-4, 4:-4] += 200
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(volume, values)
    to_ras = vtk.vtkMatrix4x4()
    matrix = np.diag([4.0, 4.0, 4.0, 1.0]) if matrix is None else np.asarray(matrix)
    for row in range(4):
        for column in range(4):
            to_ras.SetElement(row, column, matrix[row, column])
    volume.SetIJKToRASMatrix(to_ras)
    volume.CreateDefaultDisplayNodes()
    return volume


def results_of(class_name: str = "vtkMRMLNode") -> list:
    """Return the nodes in the scene that this extension made."""
    import slicer

    nodes = slicer.util.getNodesByClass(class_name)
    return [node for node in nodes if node.GetAttribute("MRIDeepTools.ResearchUseOnly") == "1"]


def grab_panel(host, handle, path: Path, width: int = 440) -> Path:
    """Write a picture of a panel as wide as Slicer's panels are, and as high as it wants to be."""
    container = handle.module.widgetRepresentation()
    host.pump(0.1)
    layout = container.layout()
    height = layout.totalHeightForWidth(width) if layout.hasHeightForWidth() else layout.totalSizeHint().height()
    return host.grab(handle, path, (width, max(height, layout.totalMinimumSize().height())))


def wait_idle(host, widget, seconds: float = 60) -> None:
    """Wait until a module's panel has nothing running any more."""
    panel = widget.panel
    assert host.wait_until(lambda: getattr(panel, "work", None) is None and panel._asking is None, seconds)
