"""Training sets from scans: whose slices go where, what is done to them, and what is stored for the model."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from mri_deep_tools.errors import InputError, RequestError
from mri_deep_tools.progress import Progress
from mri_deep_tools.translate.dataset import ContrastPairs
from mri_deep_tools.translate.dataset_scans import Scan, by_part, list_scans, pair_scans
from mri_deep_tools.translate.dataset_sources import read_mat
from mri_deep_tools.translate.dataset_split import Ratios
from mri_deep_tools.translate.dataset_volumes import SliceRules, measure, write_volume_sets
from mri_deep_tools.volume import Volume, write_volume

SHAPE = (18, 22, 12)
ALL, THIRDS = Ratios(1, 0, 0), Ratios(0.6, 0.2, 0.2)


def head(seed=0, scale=100.0, shape=SHAPE):
    """Return a bright ellipsoid with a texture; the lowest and the highest slices are empty."""
    rng = np.random.default_rng(seed)
    place = np.indices(shape) / (np.array(shape)[:, None, None, None] - 1) * 2 - 1
    inside = (place**2).sum(axis=0) < 0.72
    return (inside * scale * rng.uniform(0.5, 1.5, shape)).astype(np.float32)


def save(path, data, affine=None):
    return write_volume(Volume(data, np.diag([1.0, 1, 1, 1]) if affine is None else affine), path)


@pytest.fixture
def people(tmp_path):
    """Return folders with T1w and T2w scans of ten people; two more have one of them."""
    for k in range(10):
        save(tmp_path / f"T1/sub-{k:02d}_T1w.nii.gz", head(k, 100 + 10 * k))
        save(tmp_path / f"T2/sub-{k:02d}_T2w.nrrd", head(k, 30 + k))
    save(tmp_path / "T1/sub-30_T1w.nii.gz", head(30, 90))
    save(tmp_path / "T2/sub-31_T2w.mgz", head(31, 50))
    return {name: list_scans([tmp_path / name], name) for name in ("T1", "T2")}


# --------------------------------------------------------------------------------------------------- listing, splitting


def test_people_and_visits_are_read_from_names(tmp_path):
    names = ["in/IXI002-Guys-0828-T1.nii.gz", "in/sub-7_ses-1_T1w.nii", "in/sub-8/anat/x_t1.nrrd", "other.mgz"]
    for name in names:
        save(tmp_path / name, head())
    found = {scan.path.name: scan for scan in list_scans([tmp_path / "in", tmp_path / "other.mgz"], "T1")}
    assert {name: (scan.subject, scan.visit) for name, scan in found.items()} == {
        "IXI002-Guys-0828-T1.nii.gz": ("IXI002-Guys-0828", "IXI002-Guys-0828"),
        "sub-7_ses-1_T1w.nii": ("sub-7", "sub-7_ses-1"),
        "x_t1.nrrd": ("sub-8", "x"),
        "other.mgz": ("other", "other"),
    }


def test_tables_and_lists(tmp_path):
    save(tmp_path / "scans/a.nii.gz", head())
    save(tmp_path / "scans/b.nii.gz", head())
    save(tmp_path / "m.nii.gz", head())
    (tmp_path / "t.csv").write_text("path,subject,session,mask\nscans/a.nii.gz,P1,2,m.nii.gz\nscans/b.nii.gz,P1,3,\n")
    found = list_scans([tmp_path / "t.csv"], "T1")
    assert [(scan.subject, scan.visit) for scan in found] == [("P1", "P1_2"), ("P1", "P1_3")]
    assert found[0].mask == tmp_path / "m.nii.gz" and found[1].mask is None
    (tmp_path / "l.txt").write_text("# scans\nscans/a.nii.gz\n\nscans/b.nii.gz\n")
    assert [scan.path.name for scan in list_scans([tmp_path / "l.txt"], "T1")] == ["a.nii.gz", "b.nii.gz"]
    with pytest.raises(InputError, match=r"a\.nii\.gz is listed twice for T1"):
        list_scans([tmp_path / "l.txt", tmp_path / "scans"], "T1")
    (tmp_path / "l.txt").write_text("scans/c.nii.gz\n")
    with pytest.raises(InputError, match=r"c\.nii\.gz, named in l\.txt"):
        list_scans([tmp_path / "l.txt"], "T1")


def test_masks_are_found_by_name(tmp_path):
    for name in ("in/a_T1.nii.gz", "masks/a_T1_mask.nii.gz", "in/b_T1.nii.gz", "masks/b_brain.nii.gz"):
        save(tmp_path / name, head())
    found = list_scans([tmp_path / "in"], "T1", tmp_path / "masks")
    assert [scan.mask.name for scan in found] == ["a_T1_mask.nii.gz", "b_brain.nii.gz"]
    (tmp_path / "masks/b_brain.nii.gz").unlink()
    with pytest.raises(InputError, match=r"no mask for b_T1\.nii\.gz in masks"):
        list_scans([tmp_path / "in"], "T1", tmp_path / "masks")


def test_nobody_is_in_two_parts(people):
    parts = by_part(people, Ratios(0.6, 0.2, 0.2))
    who = {part: {scan.subject for listed in named.values() for scan in listed} for part, named in parts.items()}
    assert sorted(map(len, who.values())) == [2, 2, 8]  # ten with both as 6, 2, 2; two with one contrast for training
    assert not who["train"] & who["val"] | who["train"] & who["test"] | who["val"] & who["test"]
    assert {scan.subject for scan in parts["val"]["T1"]} == {scan.subject for scan in parts["val"]["T2"]}
    assert by_part({name: scans[::-1] for name, scans in people.items()}, Ratios(0.6, 0.2, 0.2)).keys() == parts.keys()
    assert list(by_part(people, Ratios(1, 0, 0))) == ["train"]
    with pytest.raises(InputError, match="2 people with T1 cannot be split: none is left for the part val"):
        by_part({name: scans[:2] for name, scans in people.items()}, Ratios())


def test_pairs_are_scans_of_one_visit(people):
    pairs, alone = pair_scans(people["T1"], people["T2"])
    assert len(pairs) == 10 and len(alone) == 2
    assert all(a.subject == b.subject for a, b in pairs)
    with pytest.raises(InputError, match="no scans of the two contrasts belong together"):
        pair_scans(people["T1"][:2], people["T2"][3:])
    with pytest.raises(InputError, match="belong to one visit"):
        pair_scans([*people["T1"], Scan(people["T1"][0].path, "sub-00", "sub-00")], people["T2"])


# ------------------------------------------------------------------------------------------------------------- slices


def written(people, folder, rules=None, *, ratios=THIRDS, compatible=False, **options):
    rules = rules or SliceRules()
    parts = by_part(people, ratios)
    constants, spacing = measure(parts, rules, compatible=compatible)
    outputs = {part: folder / f"set_{part}.hdf5" for part in parts}
    done = write_volume_sets(outputs, parts, rules, constants, spacing, **options)
    return parts, constants, spacing, done, outputs


def test_slices_are_the_scans_over_mean_and_constant(people, tmp_path):
    parts, constants, spacing, done, outputs = written(people, tmp_path)
    ratio = {}
    for scan in parts["train"]["T1"]:
        data = head(int(scan.subject[4:]), 90 if scan.subject == "sub-30" else 100 + 10 * int(scan.subject[4:]))
        ratio[scan.subject] = data.max() / data.mean(dtype=np.float64)
    assert constants["T1"] == pytest.approx(max(ratio.values()), rel=1e-6)
    assert spacing == 1
    with h5py.File(outputs["train"]) as file:
        group = file["T1"]
        assert group.attrs["constant"] == constants["T1"] and group.attrs["rule"] == "mean"
        assert group.attrs["slice_axis"] == "axial" and group.attrs["in_plane_spacing_mm"] == 1
        assert done.counts["train"]["T1"] == len(group)
        for entry in group.values():
            number = int(entry.attrs["subject"][4:])
            data = head(number, 90 if number == 30 else 100 + 10 * number)
            plane = data[::-1, ::-1, entry.attrs["slice"]].T / (data.mean(dtype=np.float64) * constants["T1"])
            np.testing.assert_allclose(entry[()], 255 * np.clip(plane, 0, 1), atol=1e-3)
            assert (plane > 0).any()
        assert max(entry[()].max() for entry in group.values()) == pytest.approx(255, abs=1e-3)
    assert done.clipped["T1"] < 0.01


def test_scans_in_any_orientation_give_the_same_slices(tmp_path):
    data = head(1)
    save(tmp_path / "a/sub-1_T1.nii.gz", data)
    turned = np.ascontiguousarray(data.transpose(1, 2, 0)[::-1, :, ::-1])
    affine = np.array([[0, 0, -1, 17], [-1, 0, 0, 21], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=float)
    save(tmp_path / "b/sub-1_T1.nii.gz", turned, affine)
    found = []
    for place in ("a", "b"):
        scans = {"T1": list_scans([tmp_path / place], "T1"), "T2": list_scans([tmp_path / place], "T2")}
        outputs = written(scans, tmp_path / place, ratios=ALL)[4]
        with h5py.File(outputs["train"]) as file:
            found.append([entry[()] for entry in file["T1"].values()])
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_slices_with_little_brain_are_left_out(people, tmp_path):
    few = {name: scans[:1] for name, scans in people.items()}
    counts = {}
    for share in (0.0, 0.3, 0.5):
        counts[share] = written(few, tmp_path, SliceRules(minimum_share=share), ratios=ALL)[3].counts["train"]["T1"]
    assert SHAPE[2] >= counts[0.0] > counts[0.3] > counts[0.5] > 0
    chosen = written(few, tmp_path, SliceRules(slices="5:7"), ratios=ALL)[3].counts
    assert chosen["train"] == {"T1": 2, "T2": 2}
    with pytest.raises(InputError, match="no slice of T1 shows enough"):
        written(few, tmp_path / "none", SliceRules(minimum_share=0.95), ratios=ALL)
    assert not (tmp_path / "none").exists()


def test_masks_say_where_the_mean_is_and_what_the_brain_is(tmp_path):
    data = head(3) + 5
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:14, 4:18, 5:8] = 1
    save(tmp_path / "in/a_T1.nii.gz", data)
    save(tmp_path / "m/a_T1.nii.gz", mask)
    scans = {name: list_scans([tmp_path / "in"], name, tmp_path / "m") for name in ("T1", "T2")}
    _, constants, _, done, outputs = written(scans, tmp_path, SliceRules(region="mask"), ratios=ALL)
    assert constants["T1"] == pytest.approx(data.max() / data[mask > 0].mean(dtype=np.float64), rel=1e-6)
    assert done.counts["train"]["T1"] == 3
    with h5py.File(outputs["train"]) as file:
        assert [entry.attrs["slice"] for entry in file["T1"].values()] == [5, 6, 7]
        assert file["T1"].attrs["region"] == "mask"
    with pytest.raises(InputError, match="no brain mask"):
        bare = {name: list_scans([tmp_path / "in"], name) for name in ("T1", "T2")}
        written(bare, tmp_path, SliceRules(region="mask"), ratios=ALL)


def test_pixels_are_resampled_to_one_side(tmp_path):
    save(tmp_path / "in/a_T1.nii.gz", head(1), np.diag([1.0, 1, 1, 1]))
    save(tmp_path / "in/b_T1.nii.gz", head(2), np.diag([2.0, 2, 1, 1]))
    scans = {name: list_scans([tmp_path / "in"], name) for name in ("T1", "T2")}
    _, _, spacing, _, outputs = written(scans, tmp_path, SliceRules(spacing_mm=1.0), ratios=ALL)
    assert spacing == 1.0
    with h5py.File(outputs["train"]) as file:
        shapes = {entry.attrs["subject"]: entry.shape for entry in file["T1"].values()}
    assert shapes == {"a": (22, 18), "b": (44, 36)}


def test_given_constants_and_percentiles(people, tmp_path):
    rules = SliceRules(constants={"T1": 6.8})
    _, constants, _, _, outputs = written(people, tmp_path, rules)
    assert constants["T1"] == 6.8 and constants["T2"] != 6.8
    pairs = ContrastPairs(outputs["train"], ("T1", "T2"), 16, training=False)
    facts = pairs.model_facts()
    assert facts["constants"] == constants and facts["slice_axis"] == "axial" and facts["rule"] == "mean"
    assert facts["in_plane_spacing_mm"] == 1.0 and not pairs.flips
    assert pairs.source.subjects("T1")[0].startswith("sub-")
    _, constants, _, _, outputs = written(people, tmp_path / "p", SliceRules(rule="percentile"))
    assert constants == {}
    assert ContrastPairs(outputs["val"], ("T1", "T2"), 16).model_facts()["rule"] == "percentile"
    everyone = written(people, tmp_path / "c", compatible=True)[1]
    assert everyone["T1"] >= written(people, tmp_path / "d")[1]["T1"]


def test_pairs_hold_the_same_slices(people, tmp_path):
    notes: list[str] = []
    moved = head(0, 40, (18, 22, 12))
    shifted = np.diag([1.0, 1, 1, 1])
    shifted[0, 3] = 3
    save(people["T2"][0].path, moved, shifted)
    progress = Progress(lambda event: notes.append(event.fields.get("message", "")))
    parts = by_part(people, Ratios(1, 0, 0))
    constants, spacing = measure(parts, SliceRules())
    outputs = {"train": tmp_path / "p.hdf5"}
    write_volume_sets(outputs, parts, SliceRules(), constants, spacing, paired=True, progress=progress)
    with h5py.File(outputs["train"]) as file:
        assert file.attrs["paired"]
        facts = [
            [(e.attrs["subject"], e.attrs["slice"]) for e in (file[n][str(k)] for k in range(len(file[n])))]
            for n in ("T1", "T2")
        ]
        assert facts[0] == facts[1]
        assert {subject for subject, _ in facts[0]} == {f"sub-{k:02d}" for k in range(10)}
        middle = next(k for k, fact in enumerate(facts[0]) if fact == ("sub-00", 6))
        there = np.zeros(SHAPE)
        there[3:] = moved[:-3]
        expected = 255 * np.clip(there[::-1, ::-1, 6].T / (there.mean() * constants["T2"]), 0, 1)
        np.testing.assert_allclose(file["T2"][str(middle)][()], expected, atol=1e-2)
    assert any("resampled to the grid of its partner" in note for note in notes)
    assert any("2 scans have no partner" in note for note in notes)
    assert len(ContrastPairs(outputs["train"], ("T1", "T2"), 16, paired=True)) == len(facts[0])


def test_eight_bits_and_mat_files_hold_the_same(people, tmp_path):
    whole = written(people, tmp_path, ratios=ALL)[4]["train"]
    grey = written(people, tmp_path / "g", ratios=ALL, eight_bit=True)[4]["train"]
    parts = by_part(people, Ratios(1, 0, 0))
    constants, spacing = measure(parts, SliceRules())
    mats = {name: tmp_path / f"data_train_{name}.mat" for name in parts["train"]}
    write_volume_sets({"train": mats}, parts, SliceRules(), constants, spacing, size=25)
    assert mats["T1"].read_bytes()[:19] == b"MATLAB 7.3 MAT-file" and mats["T1"].read_bytes()[124:128] == b"\0\2IM"
    stored = read_mat(mats["T1"], size=None, normalise=False)
    assert stored.shape[2:] == (25, 25)
    with h5py.File(whole) as file, h5py.File(grey) as eight:
        for k in (0, 7):
            plane = file["T1"][str(k)][()]
            assert eight["T1"][str(k)].dtype == np.uint8
            np.testing.assert_array_equal(eight["T1"][str(k)][()], np.rint(plane))
            np.testing.assert_allclose(stored[k, 0, 1:23, 3:21], plane / 255, atol=1e-6)
            assert not stored[k, 0, 23:].any()
    with pytest.raises(InputError, match="more than 16"):
        write_volume_sets({"train": mats}, parts, SliceRules(), constants, spacing, size=16)
    assert mats["T1"].exists()


def test_unusable_scans_are_told_by_name(tmp_path):
    save(tmp_path / "four.nii.gz", np.ones((8, 9, 7, 3), np.float32))
    save(tmp_path / "flat.nii.gz", np.full(SHAPE, 7, np.float32))
    save(tmp_path / "negative.nii.gz", -head(1))
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "negative.nii.gz").read_bytes()[:200])
    for name in ("four", "flat", "negative", "cut"):
        scans = {k: list_scans([tmp_path / f"{name}.nii.gz"], k) for k in ("T1", "T2")}
        with pytest.raises(InputError, match=rf"{name}\.nii\.gz"):
            written(scans, tmp_path / "out", ratios=ALL)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "options",
    [
        {"axis": "oblique"},
        {"spacing_mm": 0},
        {"minimum_share": 1},
        {"peak": 10},
        {"constants": {"T1": -1}},
        {"constants": {"T1": 2}, "rule": "percentile"},
    ],
)
def test_impossible_rules_are_refused(options):
    with pytest.raises(RequestError):
        SliceRules(**options)


def test_of_a_mixed_folder_the_named_scans_are_taken(tmp_path):
    for name in ("sub-1_T1w.nii.gz", "sub-1_T2w.nii.gz", "sub-2_T1w.nii.gz", "sub-1_mask.nii.gz"):
        save(tmp_path / name, head())
    notes: list[str] = []
    found = list_scans([tmp_path], "T1w", on_warning=notes.append)
    assert [scan.path.name for scan in found] == ["sub-1_T1w.nii.gz", "sub-2_T1w.nii.gz"]
    assert notes[0].startswith("2 of 4 scans in ") and "are named T1w" in notes[0]
    assert len(list_scans([tmp_path], "FLAIR", on_warning=notes.append)) == 4
    assert [scan.path.name for scan in list_scans([tmp_path / "sub-1_mask.nii.gz"], "T1")] == ["sub-1_mask.nii.gz"]
