"""Gradients through every format and orientation, judged by tensors in the world: the truth is known there.

The conventions of the formats are stated here a second time, in ``dmri_helpers`` and in the readers below, so that an
error in the program's own conversion cannot hide.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from dmri_helpers import AXES, centred, directions, fibres, fsl_of, region_of, rotation, world_of_fsl
from mri_deep_tools.cli import main
from mri_deep_tools.dmriupsample import GradientTable, upsample
from mri_deep_tools.dmriupsample.facts import Facts
from mri_deep_tools.dmriupsample.gradients import read_bvecs, read_fsl, read_mrtrix, read_nrrd_table
from mri_deep_tools.dmriupsample.network import RCNN
from mri_deep_tools.dmriupsample.weights import save_network
from mri_deep_tools.errors import InputError
from mri_deep_tools.geometry import all_orientations
from mri_deep_tools.progress import Progress
from mri_deep_tools.volume import Volume, read_volume, write_volume

SHAPE = (5, 6, 4)
WORLD = np.concatenate([np.zeros((2, 3)), directions(40)])
BVALS = np.concatenate([[0, 5], np.full(40, 1000.0)])
TARGETS = directions(30, seed=1)
ORIENTATIONS = ["".join(code) for code in all_orientations()]


def matrix_of(code: str, turn: np.ndarray | None = None) -> np.ndarray:
    """Return voxel axes that run as a code says, with unequal spacing, turned."""
    columns = [np.eye(3)["RLAPSI".index(letter) // 2] * (1 if letter in "RAS" else -1) for letter in code]
    return (np.eye(3) if turn is None else turn) @ np.stack(columns, axis=1) * [2.0, 1.5, 2.5]


def case(folder, affine, kind="fsl"):
    """Write a scan in one of the input conventions; return its path and the options that go with it."""
    data = fibres(SHAPE, affine, WORLD, BVALS)
    if kind in ("fsl", "columns", "mrtrix"):
        path = folder / "dwi.nii.gz"
        nib.save(nib.Nifti1Image(data, affine), path)
    if kind in ("fsl", "columns"):
        vectors = fsl_of(WORLD, affine)
        np.savetxt(folder / "dwi.bvec", vectors if kind == "columns" else vectors.T)
        np.savetxt(folder / "dwi.bval", BVALS[None])
        return path, []
    if kind == "mrtrix":
        np.savetxt(folder / "table.txt", np.c_[WORLD, BVALS], header="made by hand")
        return path, ["--grad", str(folder / "table.txt")]
    space = {"nrrd": "left-posterior-superior", "nrrd-ras": "right-anterior-superior"}[kind]
    return write_nrrd(folder / "dwi.nrrd", data, affine, space), []


def write_nrrd(path, data, affine, space):
    """Write a diffusion-weighted NRRD with a measurement frame that is not the identity, as a scanner's export has."""
    signs = np.array([-1, -1, 1]) if space.startswith("left") else np.ones(3)
    frame = rotation(9, 25)  # world (of the file) = frame @ stored
    stored = (WORLD * signs) @ frame * np.sqrt(BVALS / BVALS.max())[:, None]
    triple = lambda v: "(" + ",".join(f"{x:.9g}" for x in v) + ")"  # noqa: E731
    lines = [
        "NRRD0005",
        "type: float",
        "dimension: 4",
        f"space: {space}",
        "sizes: " + " ".join(map(str, data.shape)),
        "space directions: " + " ".join(triple(signs * affine[:3, k]) for k in range(3)) + " none",
        "kinds: space space space list",
        "endian: little",
        "encoding: raw",
        "space origin: " + triple(signs * affine[:3, 3]),
        "measurement frame: " + " ".join(triple(frame[:, k]) for k in range(3)),
        "modality:=DWMRI",
        f"DWMRI_b-value:={BVALS.max():g}",
        *(f"DWMRI_gradient_{k:04d}:={' '.join(f'{x:.9f}' for x in v)}" for k, v in enumerate(stored)),
    ]
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + data.astype("<f4").tobytes(order="F"))
    return path


def read_result(path, save_grad=None):
    """Return data, affine and world directions of a result, by the written conventions alone."""
    volume = read_volume(path, ndim=4)
    if save_grad is not None:
        table = np.loadtxt(save_grad)
        return volume, table[:, 3], table[:, :3]
    if path.name.endswith(".nrrd"):
        head = path.read_bytes().split(b"\n\n")[0].decode("latin-1")
        assert re.search(r"^space: left-posterior-superior$", head, re.M)
        assert "measurement frame: (1,0,0) (0,1,0) (0,0,1)" in head and "modality:=DWMRI" in head
        rows = re.findall(r"^DWMRI_gradient_\d{4}:=(.*)$", head, re.M)
        stored = np.array([[float(word) for word in row.split()] for row in rows])
        share = np.linalg.norm(stored, axis=1) ** 2
        bvals = share * float(re.search(r"^DWMRI_b-value:=(.*)$", head, re.M)[1])
        return volume, bvals, stored / np.where(share > 0, np.sqrt(share), 1)[:, None] * [-1, -1, 1]
    stem = path.name.removesuffix(".nii.gz")
    vectors, bvals = np.loadtxt(path.with_name(f"{stem}.bvec")).T, np.loadtxt(path.with_name(f"{stem}.bval"))
    return volume, bvals, world_of_fsl(vectors, nib.load(path).affine)


def check_tensors(volume, bvals, world, degrees=1.0, spread=0.02):
    """Fit tensors to what was written and compare their main directions in the world with the truth."""
    dti, gradients = pytest.importorskip("dipy.reconst.dti"), pytest.importorskip("dipy.core.gradients")
    assert volume.data.shape[3] == len(bvals) == len(world)
    table = gradients.gradient_table(bvals, bvecs=world, b0_threshold=50)
    fit = dti.TensorModel(table).fit(volume.data.astype(np.float64))
    truth = AXES[region_of(volume.shape3, volume.affine)]
    cosine = np.abs((fit.evecs[..., 0] * truth).sum(axis=-1))
    assert np.degrees(np.arccos(np.clip(cosine, 0, 1))).max() < degrees
    np.testing.assert_allclose(fit.md, 2.2e-3 / 3, rtol=spread)


def run(folder, affine, kind="fsl", output="out.nii.gz", *more):
    path, options = case(folder, affine, kind)
    np.savetxt(folder / "wanted.bvec", fsl_of(TARGETS, affine).T)
    words = [str(path), str(folder / output), "--target-bvecs", str(folder / "wanted.bvec"), *options, *more]
    assert main(["upsample-dmri", *words, "--method", "sh", "--sh-order", "4", "--quiet"]) == 0
    return folder / output


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_tensors_stand_right_for_all_orientations(tmp_path, code):
    affine = centred(matrix_of(code), SHAPE)
    check_tensors(*read_result(run(tmp_path, affine)))


@pytest.mark.parametrize("code", ["LAS", "RAS", "PSR", "IRP"])
@pytest.mark.parametrize("degrees", [20.0, 75.0])
def test_tensors_stand_right_for_oblique_scans(tmp_path, code, degrees):
    affine = centred(matrix_of(code, rotation(3, degrees)), SHAPE)
    check_tensors(*read_result(run(tmp_path, affine)))


@pytest.mark.parametrize("code", ["LAS", "RAS", "SPL", "ASR"])
@pytest.mark.parametrize("kind", ["fsl", "columns", "mrtrix", "nrrd", "nrrd-ras"])
@pytest.mark.parametrize("output", ["out.nii.gz", "out.nrrd", "out.b"])
def test_tensors_stand_right_from_every_format_to_every_format(tmp_path, code, kind, output):
    affine = centred(matrix_of(code, rotation(5, 18)), SHAPE)
    if output == "out.b":
        path = run(tmp_path, affine, kind, "out.nii.gz", "--save-grad", str(tmp_path / output))
        check_tensors(*read_result(path, tmp_path / output))
    else:
        check_tensors(*read_result(run(tmp_path, affine, kind, output)))


def test_the_check_would_notice_a_wrong_sign(tmp_path):
    volume, bvals, world = read_result(run(tmp_path, centred(matrix_of("RAS"), SHAPE)))
    check_tensors(volume, bvals, world)
    with pytest.raises(AssertionError):
        check_tensors(volume, bvals, world * [-1, 1, 1])


def test_written_scans_can_be_read_again(tmp_path):
    affine = centred(matrix_of("SAL", rotation(5, 18)), SHAPE)
    for output in ("out.nii.gz", "out.nrrd"):
        path = run(tmp_path, affine, "fsl", output, "--overwrite")
        again = upsample(path, directions=12, method="sh", progress=Progress())
        assert again.shell == 1000 and again.kinds == ("b0",) * 2 + ("predicted",) * 12
        np.testing.assert_allclose(again.part.scan.table.world[2:], TARGETS, atol=1e-6)
        np.testing.assert_allclose(again.part.scan.table.bvals[2:], 1000, atol=0.01)


READ_IN_SLICER = """
import json, sys
import numpy as np
import slicer, vtk
from vtk.util import numpy_support

storage, node = slicer.vtkMRMLNRRDStorageNode(), slicer.vtkMRMLDiffusionWeightedVolumeNode()
storage.SetFileName(sys.argv[1])
assert storage.ReadData(node)
count, frame, place = node.GetNumberOfGradients(), vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
node.GetMeasurementFrameMatrix(frame)
node.GetIJKToRASMatrix(place)
matrix = lambda m, n: np.array([[m.GetElement(i, j) for j in range(n)] for i in range(n)])
gradients = np.array([node.GetDiffusionGradient(i) for i in range(count)]) @ matrix(frame, 3).T
values = numpy_support.vtk_to_numpy(node.GetImageData().GetPointData().GetScalars())
print(json.dumps({"world": gradients.tolist(), "affine": matrix(place, 4).tolist(), "values": values.tolist(),
                  "bvals": [node.GetBValue(i) for i in range(count)]}))
"""


@pytest.mark.skipif(importlib.util.find_spec("slicer") is None, reason="slicer-core is not installed")
@pytest.mark.parametrize("code", ["LAS", "RAS", "SPL"])
def test_slicers_own_reader_sees_the_same(tmp_path, code):
    affine = centred(matrix_of(code, rotation(5, 18)), SHAPE)
    path = run(tmp_path, affine, "fsl", "out.nrrd")
    done = subprocess.run(
        [sys.executable, "-c", READ_IN_SLICER, str(path)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(np.array(seen["world"])[2:], TARGETS, atol=1e-6)
    np.testing.assert_allclose(seen["affine"], affine, atol=1e-5)
    np.testing.assert_allclose(seen["bvals"][2:], 1000, atol=0.01)
    data = read_volume(path, ndim=4).data
    np.testing.assert_array_equal(np.array(seen["values"]), data.transpose(2, 1, 0, 3).reshape(-1, data.shape[3]))


@pytest.fixture(scope="module")
def harmonic_network(tmp_path_factory):
    """A small network in a file that adds nothing to spherical harmonics: what goes in and out of networks shows."""
    network = RCNN(1, 10, {"init": 6, "ecv11": 8, "ecv21": 8, "conv_lstm": 7}, spatial="batch", smoothing=1e-6)
    network.decoder.unit("dc4").weight.data.zero_()
    facts = Facts((40,), 1000, percentile=True)
    return save_network(network, tmp_path_factory.mktemp("net") / "harmonics.safetensors", facts)


@pytest.mark.parametrize(
    "code", [pytest.param(c, marks=[pytest.mark.slow] if n % 5 else []) for n, c in enumerate(ORIENTATIONS)]
)
def test_tensors_of_a_network_stand_right_for_all_orientations(harmonic_network, tmp_path, code):
    affine = centred(matrix_of(code, rotation(7, 12)), SHAPE)
    path, _ = case(tmp_path, affine)
    write_volume(Volume(np.ones(SHAPE, np.uint8), affine), tmp_path / "mask.nii.gz")
    words = [
        "--directions",
        "30",
        "--weights",
        harmonic_network,
        "--mask",
        tmp_path / "mask.nii.gz",
        "--cpu",
        "--quiet",
    ]
    assert main(["upsample-dmri", str(path), str(tmp_path / "out.nii.gz"), *map(str, words)]) == 0
    check_tensors(*read_result(tmp_path / "out.nii.gz"), degrees=3.0, spread=0.05)


def test_network_gives_the_same_head_however_it_is_stored(weights):
    """The 1D network with golden weights; a permutation of stored axes changes nothing but the order of axes."""
    base = centred(matrix_of("LAS"), SHAPE)
    world, targets = directions(6, seed=4), directions(3, seed=5)
    signal = 3 * fibres(SHAPE, base, world, np.full(6, 1000.0))
    scan, inside = Volume(signal, base), Volume(np.ones(SHAPE, np.uint8), base)
    found = {}
    for code in ("LAS", "RAS", "SPL", "ASR", "IRP"):
        ornt = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("LAS"), nib.orientations.axcodes2ornt(tuple(code))
        )
        turned = nib.Nifti1Image(scan.data, base).as_reoriented(ornt)
        mask = nib.Nifti1Image(inside.data, base).as_reoriented(ornt)
        result = upsample(
            Volume(turned.get_fdata(dtype=np.float32), turned.affine),
            gradients=GradientTable(np.full(6, 1000.0), world),
            target_gradients=GradientTable(np.full(3, 1000.0), targets),
            mask=Volume(np.asarray(mask.dataobj), mask.affine),
            weights=weights(1, 6),
            device="cpu",
        )
        back = nib.Nifti1Image(result.image.data, result.image.affine)
        found[code] = nib.as_closest_canonical(back).get_fdata()
        np.testing.assert_allclose(found[code], found["LAS"], atol=1e-2)
    assert found["LAS"].std() > 1


# ------------------------------------------------------------------------------------------------------- bad tables


def written(tmp_path, name, values):
    np.savetxt(tmp_path / name, values)
    return tmp_path / name


def test_square_files_are_read_as_three_rows(tmp_path):
    vectors = directions(3)
    np.testing.assert_allclose(read_bvecs(written(tmp_path, "b", vectors.T)), vectors, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda v, b: (v[:-1], b), r"b\.bvec has 11 directions for 12 volumes"),
        (lambda v, b: (v, b[:-1]), r"b\.bval has 11 b-values for 12 volumes"),
        (lambda v, b: (v * 2, b), "not of unit length"),
        (
            lambda v, b: (np.where(np.arange(12)[:, None] == 5, np.nan, v), b),
            "the direction of volume 5 is not a number",
        ),
        (lambda v, b: (np.where(np.arange(12)[:, None] == 7, 0, v), b), "volume 7 has b = 1000 but no direction"),
        (lambda v, b: (v, -b), "negative"),
        (lambda v, b: (np.c_[v, v], b), "three of either are needed"),
    ],
)
def test_wrong_fsl_files_are_named(tmp_path, change, told):
    vectors, bvals = np.concatenate([np.zeros((2, 3)), directions(10)]), np.array([0.0, 5, *[1000] * 10])
    vectors, bvals = change(vectors, bvals)
    paths = written(tmp_path, "b.bvec", vectors.T), written(tmp_path, "b.bval", bvals[None])
    with pytest.raises(InputError, match=told):
        read_fsl(*paths, np.eye(4), 12, 1000)


def test_small_b_counts_as_none_and_needs_no_direction(tmp_path):
    vectors, bvals = np.concatenate([np.zeros((2, 3)), directions(4)]), np.array([0.0, 5, *[995] * 4])
    table = read_fsl(
        written(tmp_path, "b.bvec", vectors.T), written(tmp_path, "b.bval", bvals[None]), np.eye(4), 6, 1000
    )
    assert table.is_b0.tolist() == [True, True, False, False, False, False]


def test_slightly_off_lengths_are_mended(tmp_path):
    table = read_fsl(
        written(tmp_path, "b.bvec", 0.97 * directions(8).T), written(tmp_path, "b.bval", np.full((1, 8), 1000)),
        np.eye(4), 8, 1000,
    )  # fmt: skip
    np.testing.assert_allclose(np.linalg.norm(table.world, axis=1), 1, atol=1e-12)


def test_mrtrix_lengths_scale_b(tmp_path):
    rows = np.c_[directions(6), np.full(6, 1000)]
    rows[3, :3] *= np.sqrt(0.5)
    table = read_mrtrix(written(tmp_path, "t.b", rows), 6)
    np.testing.assert_allclose(table.bvals, [1000, 1000, 1000, 500, 1000, 1000], rtol=1e-9)
    with pytest.raises(InputError, match="6 rows for 7 volumes"):
        read_mrtrix(tmp_path / "t.b", 7)
    with pytest.raises(InputError, match="3 columns; a MRtrix gradient table has four"):
        read_mrtrix(written(tmp_path, "t3.b", rows[:, :3]))


def test_nrrd_without_or_with_too_few_gradients(tmp_path):
    affine = centred(matrix_of("LAS"), SHAPE)
    path = write_nrrd(tmp_path / "d.nrrd", fibres(SHAPE, affine, WORLD, BVALS), affine, "left-posterior-superior")
    with pytest.raises(InputError, match="42 gradients for 50 volumes"):
        read_nrrd_table(path, 50)
    head, data = path.read_bytes().split(b"\n\n", 1)
    lines = [line for line in head.split(b"\n") if b"DWMRI" not in line]
    path.write_bytes(b"\n".join(lines) + b"\n\n" + data)
    with pytest.raises(InputError, match="has no gradient table"):
        read_nrrd_table(path, 42)
    path.write_bytes(head.replace(b"left-posterior-superior", b"scanner-xyz") + b"\n\n" + data)
    with pytest.raises(InputError, match="scanner-xyz"):
        read_nrrd_table(path, 42)


def test_text_that_is_no_table(tmp_path):
    (tmp_path / "b.bvec").write_text("one two three\n")
    with pytest.raises(InputError, match="not a number"):
        read_bvecs(tmp_path / "b.bvec")
    (tmp_path / "b.bvec").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="not a text file"):
        read_bvecs(tmp_path / "b.bvec")
    (tmp_path / "b.bvec").write_text("1 2 3\n4 5\n")
    with pytest.raises(InputError, match="rows differ in length"):
        read_bvecs(tmp_path / "b.bvec")
    with pytest.raises(InputError, match="cannot be read"):
        read_bvecs(tmp_path / "none.bvec")
