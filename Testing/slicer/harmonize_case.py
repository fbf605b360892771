"""What the tests of the module Harmonize share: the module with a quick core behind it, its panel, and positions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from module_helpers import add_volume, use_fake_core, wait_idle
from synthsegment_case import model

FAKE = Path(__file__).with_name("fake_harmonize.py")

BOTH = {"input_needs": {"directions": [["T1w", "T2w"], ["T2w", "T1w"]]}}
MODELS = [
    model("iguane", "harmonize", "installed"),
    model("iguane-lite", "harmonize", "bundled"),
    model("iguane-next", "harmonize", "absent"),
    model("synthseg-lite", "segment", "bundled"),
    {**model("syndiff-lite", "translate", "bundled"), **BOTH},
    {**model("syndiff-next", "translate", "absent"), **BOTH},
]


def use_fake(monkeypatch, mode: str = "good") -> None:
    from MRIDeepToolsLib import processes

    use_fake_core(monkeypatch, mode)
    monkeypatch.setattr(processes, "core_command", lambda: [processes.python_slicer(), str(FAKE)])


@pytest.fixture
def module(host, tmp_path, monkeypatch):
    """Return the handle of the module, with the quick core behind it and models that nothing needs to fetch."""
    handle = host.load("Harmonize")
    from MRIDeepToolsLib import core_info

    use_fake(monkeypatch)
    monkeypatch.setattr(core_info, "_known", {"version": "1.2.3", "devices": [{"name": "cpu"}], "models": MODELS})
    return handle


@pytest.fixture
def widget(host, module):
    """Return the panel's widget, bound to a scene with one volume."""
    add_volume("Head T1w")
    shown = module.widget()
    wait_idle(host, shown)
    return shown


@dataclass(frozen=True)
class Way:
    """One method of the module, for tests that both must pass."""

    name: str
    stage: str
    """Words of the stage at which the quick core stops when told to."""
    second: str
    """Parameter of the second output."""
    switch: str
    """Parameter that asks for it."""
    model: str
    """Parameter that names the model."""
    absent: str
    """Model that has to be fetched first."""
    refused: str
    """What is told when the quick core refuses the scan."""


WAYS = (
    Way(
        *("iguane", "Harmonizing", "changeMap", "makeChangeMap", "model", "iguane-next"),
        "The scan does not look like a T1w scan",
    ),
    Way(
        *("syndiff", "Translating", "spread", "makeSpread", "translator", "syndiff-next"),
        "The scan has no slice that shows more than background. Check the scan, or the range of slices",
    ),
)


_ALWAYS = ("syndiff",)  # one of the methods is enough for every time: their code is the same
_PARAMETERS = [pytest.param(way, id=way.name, marks=[] if way.name in _ALWAYS else pytest.mark.slow) for way in WAYS]


@pytest.fixture(params=_PARAMETERS)
def way(request, widget):
    """Set the panel to each of the methods in turn, with both outputs."""
    choose_method(widget, request.param.name)
    return request.param


def choose_method(widget, name: str) -> None:
    """Choose a method in the panel; a translation with two samples and their standard deviation."""
    parameters = widget.panel.parameters
    parameters.method = type(parameters.method)(name)
    if name == "syndiff":
        parameters.samples, parameters.makeSpread = 2, True


def numbers(matrix) -> np.ndarray:
    """Return a vtkMatrix4x4 as an array."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def vtk_matrix(values):
    """Return a 4 x 4 array as vtkMatrix4x4."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            matrix.SetElement(row, column, float(values[row][column]))
    return matrix


def transform_node(values, name: str = "Place"):
    """Add a linear transform node with a matrix to its parent."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(vtk_matrix(values))
    return node


def rigid(angles_degrees, shift) -> np.ndarray:
    """Return a rotation about x, y, z and a shift, 4 x 4."""
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles_degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def to_world(node) -> np.ndarray:
    """Return the 4 x 4 of all transforms above a node."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    if node.GetParentTransformNode() is not None:
        node.GetParentTransformNode().GetMatrixTransformToWorld(matrix)
    return numbers(matrix)


def voxel_to_world(volume) -> np.ndarray:
    """Return the 4 x 4 from the voxel index (i, j, k) of a volume to the world, all transforms included."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return to_world(volume) @ numbers(matrix)


def orientations() -> list[np.ndarray]:
    """Return the 48 ways to store the axes of a volume, as matrices of signs."""
    from itertools import permutations, product

    found = []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            for axis, (target, sign) in enumerate(zip(order, signs, strict=True)):
                matrix[target, axis] = sign
            found.append(matrix)
    return found
