"""Subjects, records, packing and examples against the golden training data of the original."""

from __future__ import annotations

import gzip
import shutil

import nibabel as nib
import numpy as np
import pytest
from mri_deep_tools.dmriupsample.directions import angles_between, max_min_order
from mri_deep_tools.dmriupsample.packing import PackOptions, pack_subjects, percentile_of_largest
from mri_deep_tools.dmriupsample.records import read_record
from mri_deep_tools.dmriupsample.subjects import Subject, find_subjects, kept_planes, octants, open_subject
from mri_deep_tools.dmriupsample.training_data import PackedSource, Recipe, subjects_of
from mri_deep_tools.errors import InputError, RequestError
from mri_deep_tools.progress import Progress

SHELLS = (1000, 2000, 3000)
CASES = {
    "processor_fixed_noshuffle": (SHELLS, {"random_starts": False}),
    "processor_fixed_validation": ((2000,), {"reorder": False}),
    "processor_pcent_noshuffle": ((1000, 3000), {"random_starts": False, "percentile": True}),
}


@pytest.fixture(scope="module")
def records(golden, tmp_path_factory):
    """Return a folder with the golden record, uncompressed."""
    folder = tmp_path_factory.mktemp("records")
    with gzip.open(golden("train", "data.tfrecord.gz")) as source, (folder / "one.tfrecord").open("wb") as target:
        shutil.copyfileobj(source, target)
    return folder


@pytest.fixture(scope="module")
def table(golden, tmp_path_factory):
    """Return a table of the same subject as image files."""
    folder = tmp_path_factory.mktemp("table")
    with np.load(golden("train", "data.npz")) as data:
        affine = np.diag([-2.0, 2, 2, 1])
        nib.save(nib.Nifti1Image(data["dmri"], affine), folder / "one.nii.gz")
        nib.save(nib.Nifti1Image(data["mask"], affine), folder / "one_mask.nii.gz")
        np.savetxt(folder / "one.bvec", data["bvecs"], fmt="%.9f")
        np.savetxt(folder / "one.bval", data["bvals"][None], fmt="%g")
    (folder / "subjects.csv").write_text("subject,dwi,mask\none,one.nii.gz,one_mask.nii.gz\n")
    return folder / "subjects.csv"


def source(place, folder, shells, **changes) -> PackedSource:
    names = {name: changes.pop(name) for name in ("patches", "frame", "crop", "cut") if name in changes}
    options = PackOptions(shells, **{"crop": False, "frame": "stored", **names})
    path = pack_subjects(find_subjects(place), options, folder / "packed.h5", Progress())
    return PackedSource(path, Recipe(shells, 6, 10, **{"shuffle": False, **changes}))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["records", "table"])
def test_golden_examples(golden, request, tmp_path, case, kind):
    shells, changes = CASES[case]
    with np.load(golden("train", f"{case}.npz")) as expected:
        ours = source(request.getfixturevalue(kind), tmp_path, shells, **changes)
        assert len(ours) == int(expected["n"])
        batch = ours.batch(list(range(len(ours))))
        for name, key in (("images", "dmri_in"), ("bvecs_in", "bvec_in"), ("bvecs_out", "bvec_out")):
            np.testing.assert_allclose(getattr(batch, name).numpy(), expected[key], atol=1e-6)
        np.testing.assert_allclose(batch.target.numpy(), expected["dmri_out"], atol=1e-6)


@pytest.mark.parametrize("key", ["a", "b", "c", "s64"])
def test_golden_order_of_directions(golden, key):
    with np.load(golden("train", "reorder.npz")) as expected:
        vectors, (count_in, count_out) = expected[f"{key}_bvec"].T, expected[f"{key}_q"]
        np.testing.assert_array_equal(max_min_order(vectors, int(count_in), int(count_out)), expected[f"{key}_order"])
        if key == "a":
            np.testing.assert_allclose(angles_between(vectors), expected["a_dist"], atol=2e-3)


def test_golden_crop_and_octants(golden):
    with np.load(golden("train", "crop.npz")) as expected:
        dmri, mask = expected["dmri"], expected["mask"]
        count = dmri.shape[3]
        planes = kept_planes(Subject(np.zeros(count), np.zeros((count, 3)), mask, lambda k: dmri[..., k]))
        np.testing.assert_array_equal(dmri[np.ix_(*planes)], expected["crop_dmri"])
        np.testing.assert_array_equal(mask[np.ix_(*planes)], expected["crop_mask"])
        parts = [expected["crop_dmri"][part] for part in octants(expected["crop_mask"].shape)]
        np.testing.assert_array_equal([part.shape for part in parts], expected["octant_shapes"])
        np.testing.assert_allclose([part.sum(dtype=np.float64) for part in parts], expected["octant_sums"], rtol=1e-6)


def test_golden_record_holds_the_subject(golden, records):
    record = read_record(records / "one.tfrecord")
    with np.load(golden("train", "data.npz")) as data:
        np.testing.assert_array_equal(record.dmri, data["dmri"].astype(np.float32))
        np.testing.assert_array_equal(record.bvec, data["bvecs"].T)
        np.testing.assert_array_equal(record.bval, data["bvals"])
        np.testing.assert_array_equal(record.mask, data["mask"])
    again = read_record(golden("train", "data.tfrecord.gz"))
    np.testing.assert_array_equal(again.dmri, record.dmri)


def test_damaged_records_are_named(records, tmp_path):
    content = bytearray((records / "one.tfrecord").read_bytes())
    cases = {"cut": content[:5000], "empty": b"", "twice": content + content}
    content[4000] ^= 1
    cases |= {"flipped": content, "text": b"this is not a record at all"}
    for name, data in cases.items():
        path = tmp_path / f"{name}.tfrecord"
        path.write_bytes(bytes(data))
        with pytest.raises(InputError, match=f"{name}.tfrecord is not a whole"):
            read_record(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_record(tmp_path / "none.tfrecord")


def test_the_network_frame_follows_the_axes_of_the_scan(table, tmp_path):
    """A subject stored along other axes gives the same examples in the network's frame."""
    image, mask = nib.load(table.with_name("one.nii.gz")), nib.load(table.with_name("one_mask.nii.gz"))
    vectors = np.loadtxt(table.with_name("one.bvec"))
    for item, name in ((image, "two.nii.gz"), (mask, "two_mask.nii.gz")):
        data = np.asarray(item.dataobj)[::-1].swapaxes(0, 1)
        shift = np.eye(4)
        shift[0, 0], shift[0, 3] = -1, item.shape[0] - 1
        nib.save(nib.Nifti1Image(data, item.affine @ shift @ np.eye(4)[[1, 0, 2, 3]]), tmp_path / name)
    # Reversed and swapped, the axes are left-handed as before: FSL's vectors are along the voxel axes.
    np.savetxt(tmp_path / "two.bvec", (vectors * [[-1], [1], [1]])[[1, 0, 2]] * [[1], [1], [1]], fmt="%.9f")
    shutil.copy(table.with_name("one.bval"), tmp_path / "two.bval")
    (tmp_path / "subjects.csv").write_text("dwi,mask\ntwo.nii.gz,two_mask.nii.gz\n")
    handed = np.linalg.det(nib.load(tmp_path / "two.nii.gz").affine) > 0
    if handed:  # FSL's rule: right-handed images have the first component negated
        own = np.loadtxt(tmp_path / "two.bvec")
        np.savetxt(tmp_path / "two.bvec", own * [[-1], [1], [1]], fmt="%.9f")
    (tmp_path / "a").mkdir()
    first = source(table, tmp_path / "a", SHELLS, frame="network", random_starts=False)
    second = source(tmp_path / "subjects.csv", tmp_path, SHELLS, frame="network", random_starts=False)
    numbers = list(range(len(first)))
    one, two = first.batch(numbers), second.batch(numbers)
    for name in ("images", "bvecs_in", "bvecs_out", "target"):
        np.testing.assert_allclose(getattr(one, name).numpy(), getattr(two, name).numpy(), atol=1e-5)


def test_blocks_of_voxels_hold_the_mask(golden, table, tmp_path):
    ours = source(table, tmp_path, (1000,), patches=False, reorder=False)
    with np.load(golden("train", "data.npz")) as data:
        inside = data["dmri"][data["mask"] != 0].astype(np.float32)
        volumes = np.flatnonzero(np.abs(data["bvals"] - 1000) <= 30)
        context, given, _, target = ours.example(0)
        count = min(1000, len(inside))
        assert context.shape == (6, 1000, 1, 1) and target.shape == (10, 1000, 1, 1)
        np.testing.assert_allclose(context[:, :count, 0, 0].T, inside[:count][:, volumes[:6]] / 4000, atol=1e-6)
        np.testing.assert_allclose(given, data["bvecs"].T[volumes[:6]], atol=1e-6)


def test_examples_depend_on_seed_and_number_alone(table, tmp_path):
    changes = {"shuffle": True, "sign_flips": 0.3, "noise": 0.05}
    first, second = (source(table, tmp_path, SHELLS, seed=4, **changes) for _ in range(2))
    for number in (7, 0, 12):
        for a, b in zip(first.example(number), second.example(number), strict=True):
            np.testing.assert_array_equal(a, b)
    epochs = [[first.example(k)[1].tobytes() for k in range(e * len(first), (e + 1) * len(first))] for e in (0, 1)]
    assert set(epochs[0]) != set(epochs[1])  # directions are put in a new order
    other = source(table, tmp_path, SHELLS, seed=5, **changes)
    assert any(not np.array_equal(first.example(k)[0], other.example(k)[0]) for k in range(3))


def test_turning_directions_round_is_the_only_change_of_flips(table, tmp_path):
    plain, flipped = (source(table, tmp_path, (1000,), seed=2, sign_flips=share) for share in (0.0, 0.5))
    one, two = plain.example(0), flipped.example(0)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[3], two[3])
    np.testing.assert_allclose(np.abs(one[1]), np.abs(two[1]))
    ratio = np.concatenate([(a * b).sum(axis=1) for a, b in ((one[1], two[1]), (one[2], two[2]))])
    assert (ratio < 0).any() and (ratio > 0).any()


def test_octants_are_parts_with_percentiles_of_their_own(golden, table, tmp_path):
    ours = source(table, tmp_path, (1000,), cut=True, percentile=True)
    with np.load(golden("train", "data.npz")) as data:
        volumes = np.abs(data["bvals"] - 1000) <= 30
        wanted = {}
        for number, part in enumerate(octants(data["mask"].shape)):
            inside = data["mask"][part] != 0
            if inside.any():
                wanted[f"one.{number}"] = np.percentile(data["dmri"][part][inside][:, volumes].astype(np.float32), 99)
    assert subjects_of(ours.path) == ["one"] and len(wanted) > 1
    found = {run.part: ours._opened()[run.part].attrs["percentile_1000"] for run in ours.runs}
    assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("count", "percent"), [(1, 99), (2, 99), (57, 99), (10_001, 99), (5000, 90)])
def test_percentile_of_parts_is_that_of_the_whole(count, percent):
    values = np.random.default_rng(count).gamma(2, 100, count).astype(np.float32)
    parts = np.array_split(values, 7)
    assert percentile_of_largest(iter(parts), count, percent) == pytest.approx(
        float(np.percentile(values, percent)), rel=2e-6
    )


def test_packing_is_bounded_and_not_repeated(table, tmp_path, monkeypatch):
    subjects = find_subjects(table)
    path = pack_subjects(subjects, PackOptions((1000,)), tmp_path / "packed.h5", Progress())
    stamp = path.stat().st_mtime_ns
    assert pack_subjects(subjects, PackOptions((1000,)), path, Progress()).stat().st_mtime_ns == stamp
    assert pack_subjects(subjects, PackOptions((2000,)), path, Progress()).stat().st_mtime_ns != stamp
    subject = open_subject(subjects[0], "network", Progress())
    assert subject.volume(0).shape == subject.mask.shape  # one volume, never the series


def test_bad_subjects_are_named_and_nothing_is_written(table, tmp_path):
    folder = table.parent
    broken = tmp_path / "cut.nii.gz"
    broken.write_bytes((folder / "one.nii.gz").read_bytes()[:3000])
    shutil.copy(folder / "one.bvec", tmp_path / "cut.bvec")
    shutil.copy(folder / "one.bval", tmp_path / "cut.bval")
    other = tmp_path / "other_mask.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((5, 5, 5), np.uint8), np.eye(4)), other)
    mask, dwi = folder / "one_mask.nii.gz", folder / "one.nii.gz"
    cases = {
        f"subject,dwi,mask\ns1,{broken},{mask}\n": "subject s1: cut.nii.gz is not complete",
        f"subject,dwi,mask\ns2,{dwi},{other}\n": "subject s2: other_mask.nii.gz is not on the grid",
        f"subject,dwi,mask\ns3,{mask},{mask}\n": "one_mask.bval, named in",
        f"subject,dwi,mask,bvals,bvecs\ns3,{mask},{mask},{folder}/one.bval,{folder}/one.bvec\n": "not a series",
        f"subject,dwi,mask\na,{dwi},{mask}\na,{dwi},{mask}\n": "two subjects called a",
        f"dwi,mask\n{dwi},\n": "line 2: dwi or mask is empty",
        "dwi\nx\n": "lacks the columns",
        "": "holds no subjects",
    }
    for number, (text, sentence) in enumerate(cases.items()):
        path = tmp_path / f"table{number}.csv"
        path.write_text(text)
        with pytest.raises(InputError, match=sentence):
            pack_subjects(find_subjects(path), PackOptions((1000,)), tmp_path / "packed.h5", Progress())
    with pytest.raises(InputError, match="no volumes at b = 700"):
        pack_subjects(find_subjects(table), PackOptions((700,)), tmp_path / "packed.h5", Progress())
    assert not list(tmp_path.glob("*.h5")) and not list(tmp_path.glob(".mdt*"))
    with pytest.raises(InputError, match="no subject has 86 directions"):
        path = pack_subjects(find_subjects(table), PackOptions((1000,)), tmp_path / "packed.h5", Progress())
        PackedSource(path, Recipe((1000,), 6, 80))
    with pytest.raises(InputError, match="no packed file"):
        import h5py

        h5py.File(tmp_path / "foreign.h5", "w").close()
        subjects_of(tmp_path / "foreign.h5")
    with pytest.raises(RequestError, match="no subject nobody"):
        from mri_deep_tools.dmriupsample.training_data import _held_out

        _held_out(["a", "b"], ["nobody"], 0.1)
