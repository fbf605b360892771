"""What the tests of the glue share: volumes on any grid, label maps as the core writes them, a fake core program."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
for folder in (REPOSITORY / "MRIDeepTools", REPOSITORY / "Testing"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

FAKE_CORE = r"""
import json, os, signal, subprocess, sys, time

def event(kind, **fields):
    print("@mri-deep-tools " + json.dumps({"event": kind, **fields}), flush=True)

what = sys.argv[1]
if what == "work":
    event("device", device="cpu", threads=1)
    event("stage", stage="read")
    for step in range(5):
        event("progress", stage="network", fraction=step / 4, eta_s=4 - step, elapsed_s=step)
        print("step", step, flush=True)
        time.sleep(0.12)
    event("warning", message="the scan is dark")
    event("result", scan="scan.nii", outputs=["x"], volumes_mm3={"left thalamus": 1.5}, qc=None, model="fake")
elif what == "environment":
    print("environment " + json.dumps({name: os.environ.get(name) for name in sys.argv[2:-2]}), flush=True)
elif what == "fail":
    event("error", code="memory", message="the GPU is full", hint="choose the CPU")
    sys.exit(1)
elif what == "words":
    print("mri-deep-tools: error: the file is odd; look at it.", file=sys.stderr)
    sys.exit(2)
elif what == "missing":
    import torch_that_is_not_there_mri_deep_tools
elif what == "signal":
    event("progress", stage="network", fraction=0.3, eta_s=None, elapsed_s=1)
    os.kill(os.getpid(), int(sys.argv[2]))
    time.sleep(5)
elif what == "exit":
    print(" ".join(sys.argv[3:-2]), file=sys.stderr)
    sys.exit(int(sys.argv[2]))
elif what == "garbage":
    out = sys.stdout.buffer
    out.write(b"\xff\xfe\x00broken \xe9 bytes\n@mri-deep-tools {not json\n@mri-deep-tools [1]\n@mri-deep-tools {}\n")
    out.write(b"\x1b[31mred\x1b[0m 10%\r 50%\r 100%\n")
    out.write(b"x" * 3_000_000 + b"\n")
    out.write(b"@mri-deep-tools {\"event\": \"progress\", \"stage\": 3, \"fraction\": \"half\", \"eta_s\": [1]}\n")
    out.write(b"@mri-deep-tools {\"event\": \"nonsense\"}\n")
    out.write("last line \u00e9\u4e2d".encode() )
    out.flush()
elif what == "flood":
    print("first line of all", flush=True)
    for number in range(100_000):
        print("line", number, "of a very talkative library")
    event("result", scan="flood")
    print("the very last line", flush=True)
elif what in ("stubborn", "deaf"):
    # Ignores polite requests, with a child in a session of its own that does the same.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    children = [subprocess.Popen([sys.executable, "-c", code], start_new_session=own) for own in (True, False)]
    print("pids", os.getpid(), *(child.pid for child in children), flush=True)
    time.sleep(60)
elif what == "polite":
    while not os.path.exists(os.environ["MRI_DEEP_TOOLS_CANCEL_FILE"]):
        time.sleep(0.02)
    event("error", code="cancelled", message="Cancelled", hint="nothing was written")
    sys.exit(1)
elif what == "orphan":
    # Ends well, but leaves a child that keeps the pipes open.
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print("pids", child.pid, flush=True)
    event("result", scan="orphan")
elif what == "sleep":
    print("asleep", flush=True)
    time.sleep(60)
"""


def use_fake_core(monkeypatch, folder: Path) -> None:
    """Put the fake program in place of the core, run by the real PythonSlicer launcher."""
    from MRIDeepToolsLib import processes

    program = folder / "fake core.py"
    program.write_text(FAKE_CORE, encoding="utf-8")
    monkeypatch.setattr(processes, "core_command", lambda: [processes.python_slicer(), str(program)])


def is_alive(pid: int) -> bool:
    """Return True when a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def gone_within(pids: list[int], seconds: float) -> bool:
    """Wait until none of the processes is alive."""
    end = time.monotonic() + seconds
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def read_until(job, text: str, seconds: float = 10) -> str:
    """Drive a job until its log holds a text; return the line that holds it."""
    end = time.monotonic() + seconds
    while text not in job.log:
        assert job.running, job.log
        assert time.monotonic() < end, job.log
        job.wait(0.05)
    return next(line for line in job.log.splitlines() if text in line)


# -------------------------------------------------------------------------------------------------------- volumes


def orientations() -> list[tuple[str, np.ndarray]]:
    """Return the 48 ways to lay voxel axes along R, A, S: code and 3 x 3 matrix of directions (columns: axes)."""
    found = []
    letters = ("LR", "PA", "IS")
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = np.zeros((3, 3))
            for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
                matrix[world, axis] = sign
            code = "".join(letters[world][sign > 0] for world, sign in zip(order, signs, strict=True))
            found.append((code, matrix))
    return found


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """Return a rotation about R, A and S in turn."""
    result = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        turn = np.eye(3)
        first, second = [other for other in range(3) if other != axis]
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


def affine_of(directions: np.ndarray, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Return the affine (voxel index i, j, k to RAS, mm) of directions, spacing (mm) and the first voxel's position."""
    affine = np.eye(4)
    affine[:3, :3] = directions @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def add_volume(array: np.ndarray, affine: np.ndarray, name: str = "scan", class_name: str = "vtkMRMLScalarVolumeNode"):
    """Add a volume to the scene; the array is indexed i, j, k."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass(class_name, name)
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(array.transpose(2, 1, 0)))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(affine))
    node.CreateDefaultDisplayNodes()
    return node


def add_transform(matrix: np.ndarray, name: str = "moved"):
    """Add a linear transform to the scene; ``matrix`` takes RAS (mm) to the parent's RAS."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def write_labels(folder: Path, labels: np.ndarray, affine: np.ndarray, stem: str = "out") -> tuple[Path, Path]:
    """Write a label map and its table with the core's own code; return both paths."""
    from mri_deep_tools.commands.segment_tables import write_label_table
    from mri_deep_tools.synthsegment.labels import V2_CHANNELS
    from mri_deep_tools.volume import Volume, write_volume

    path, table = folder / f"{stem}_dseg.nii", folder / f"{stem}_dseg.tsv"
    write_volume(Volume(labels.astype(np.int32), affine), path, intent="label")
    write_label_table(table, V2_CHANNELS)
    return path, table
