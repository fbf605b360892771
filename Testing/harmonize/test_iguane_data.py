"""Data of IGUANe's training: bias sampling, records of the published program, packing, pairs."""

from __future__ import annotations

import csv
import gzip
import json
import struct

import h5py
import numpy as np
import pytest
import torch
from mri_deep_tools.checkpoints._crc32c import masked_crc32c
from mri_deep_tools.errors import InputError, RequestError
from mri_deep_tools.harmonize.augmentation import augment
from mri_deep_tools.harmonize.bias_sampling import age_groups, sampling_probabilities
from mri_deep_tools.harmonize.dataset import packed, read_contents
from mri_deep_tools.harmonize.packed_pairs import PackedPairs
from mri_deep_tools.harmonize.tfrecord import is_record_file, read_records
from mri_deep_tools.harmonize.visits import Plan, Visits
from mri_deep_tools.progress import Progress
from mri_deep_tools.volume import Volume, write_volume

SHAPE = (32, 32, 16)
AFFINE = np.diag([-1.0, 1.0, 1.0, 1.0])


def brain(seed: int, bright: float = 1.0) -> np.ndarray:
    """Return a prepared image, brain median 500, background 0."""
    rng = np.random.default_rng(seed)
    image = np.zeros(SHAPE, np.float32)
    image[6:26, 5:27, 3:13] = 500 + 100 * bright * rng.standard_normal((20, 22, 10)).astype(np.float32).clip(-3, 3)
    return image


def as_network(image: np.ndarray) -> np.ndarray:
    return np.where(image > 0, image / 500 - 1, -1).astype(np.float32)


# --- bias sampling ----------------------------------------------------------------------------------------------


def ages_of(counts, edges):
    return np.repeat((np.asarray(edges[:-1]) + np.asarray(edges[1:])) / 2, counts)


def test_probabilities_of_the_study(shared):
    facts = json.loads(shared("fixtures", "iguane", "bias_sampling.json").read_text())
    edges = facts["bins"]
    for domain in facts["domains"]:
        first, second = (ages_of(domain[key], edges) for key in ("count_ref", "count_src"))
        np.testing.assert_allclose(sampling_probabilities(first, second, edges), domain["probabilities"], atol=1e-9)
        np.testing.assert_allclose(sampling_probabilities(second, first, edges), domain["swapped"], atol=1e-9)
    for case in facts["synthetic"]:
        found = sampling_probabilities(case["agesA"], case["agesB"], case["bins"])
        np.testing.assert_allclose(found, case["probabilities"], atol=1e-9)


def test_age_ranges_take_ages_beyond_their_ends():
    assert age_groups([3, 18, 24.9, 25, 99], [18, 25, 30]).tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("first", "second", "edges", "words"),
    [
        ([20.0], [20.0], [18], "edges"),
        ([20.0], [20.0], [30, 18], "edges"),
        ([20.0, float("nan")], [20.0], [18, 30, 40], "age of every image"),
        ([], [20.0], [18, 30, 40], "no images"),
        ([20.0], [35.0], [18, 30, 40], "no age range"),
    ],
)
def test_ages_that_cannot_be_sampled(first, second, edges, words):
    with pytest.raises(RequestError, match=words):
        sampling_probabilities(first, second, edges)


# --- records ----------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def record(values: np.ndarray, feature: bytes = b"mri", *, one_by_one: bool = False) -> bytes:
    """Return a record as TensorFlow writes it (its own layout, from the format's description)."""
    raw = values.astype("<f4").tobytes()
    floats = b"".join(b"\x0d" + raw[k : k + 4] for k in range(0, len(raw), 4)) if one_by_one else field(1, raw)
    example = field(1, field(1, field(1, feature) + field(2, field(2, floats))))
    head = struct.pack("<Q", len(example))
    return b"".join([head, struct.pack("<I", masked_crc32c(head)), example, struct.pack("<I", masked_crc32c(example))])


@pytest.mark.parametrize("zipped", [True, False])
def test_records(tmp_path, zipped):
    images = [as_network(brain(k)) for k in range(2)]
    content = record(images[0]) + record(images[1], one_by_one=True)
    path = tmp_path / "site.tfrecord"
    path.write_bytes(gzip.compress(content) if zipped else content)
    found = list(read_records(path, SHAPE))
    assert len(found) == 2
    for mine, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(mine, image)
        assert mine.dtype == np.float32
    assert is_record_file("a.TFRECORDS.gz") and not is_record_file("a.nii.gz")


def test_records_that_cannot_be_read(tmp_path):
    good = record(as_network(brain(1)))
    changed = bytearray(good)
    changed[len(good) // 2] ^= 1
    cases = {
        "checksum": bytes(changed),
        "cut short": good[:-100],
        "no feature 'mri'": record(as_network(brain(1)), b"image"),
        "holds no records": b"",
        "damaged": gzip.compress(good)[:-40],
    }
    for words, content in cases.items():
        path = tmp_path / "bad.tfrec"
        path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            list(read_records(path, SHAPE))
    path.write_bytes(good)
    with pytest.raises(InputError, match="voxels"):
        list(read_records(path, (16, 16, 16)))


# --- packing and pairs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Return a table of a reference and two sources; two persons of site B were at the reference too."""
    folder = tmp_path_factory.mktemp("sites")
    rows = []
    for number in range(14):
        site = "ref" if number < 6 else "B" if number < 10 else "C"
        name = f"{site}_{number}.nii.gz"
        write_volume(Volume(brain(number, 1.0 if site == "ref" else 0.5), AFFINE), folder / name)
        subject = f"sub-{number - 6 if site == 'B' and number < 8 else number}"
        rows.append([name, site, 20 + 4 * number if site == "ref" else 25 + 3 * (number - 6), subject])
    content = record(as_network(brain(40, 0.5))) + record(as_network(brain(41, 0.5)))
    (folder / "C.tfrecord").write_bytes(gzip.compress(content))
    rows.append(["C.tfrecord", "C", 33, ""])
    path = folder / "sites.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "site", "age", "subject"], *rows])
    return path


@pytest.fixture(scope="module")
def data(table, tmp_path_factory):
    return packed(table, tmp_path_factory.mktemp("packed") / "data.h5", SHAPE, Progress())


def test_packing(table, data):
    contents = read_contents(data)
    assert contents.shape == SHAPE and len(contents.sites) == 16
    assert contents.sites.count("C") == 6 and contents.names[-1] == "C.tfrecord#2"
    assert contents.ages[-1] == 33 and contents.subjects[6] == "sub-0"
    with h5py.File(data) as file:
        np.testing.assert_allclose(file["images"][2], as_network(brain(2)), atol=1e-6)
        np.testing.assert_array_equal(file["images"][15], as_network(brain(41, 0.5)))
    stamp = data.stat().st_mtime_ns
    packed(table, data, SHAPE, Progress())
    assert data.stat().st_mtime_ns == stamp  # nothing changed, nothing is packed again
    assert packed(data, data.with_name("other.h5"), SHAPE, Progress()) == data


def test_tables_that_cannot_be_packed(tmp_path, data):
    bad = np.full(SHAPE, np.nan, np.float32)
    bad[:4] = 500
    write_volume(Volume(np.zeros(SHAPE, np.float32), AFFINE), tmp_path / "empty.nii")
    cases = {
        "path,site\nempty.nii,a\n": "holds no brain",
        "path,site\nmissing.nii,a\n": "does not exist",
        "path,site\nempty.nii,\n": "has no site",
        "path,where\nempty.nii,a\n": "no column 'site'",
        "path,site,age\nempty.nii,a,old\n": "not a number",
    }
    for content, words in cases.items():
        (tmp_path / "t.csv").write_text(content)
        with pytest.raises(InputError, match=words):
            packed(tmp_path / "t.csv", tmp_path / "out.h5", SHAPE, Progress())
        assert not (tmp_path / "out.h5").exists()
    (tmp_path / "junk.h5").write_bytes(b"no")
    with pytest.raises(InputError, match="not a complete packed"):
        packed(tmp_path / "junk.h5", tmp_path / "out.h5", SHAPE, Progress())
    with pytest.raises(InputError, match="32x32x16"):
        packed(data, tmp_path / "out.h5", (32, 32, 32), Progress())


def numbers(source: PackedPairs, site: int, count: int) -> list[tuple[int, int]]:
    return [source._numbers(site, number) for number in range(count)]


def test_pairs_of_any_age(data):
    source = PackedPairs(data, "ref", augmentation="none")
    assert source.names == ("B", "C")
    found = numbers(source, 0, 12)  # three turns of the four images of B
    for turn in range(3):
        part = found[4 * turn : 4 * turn + 4]
        assert sorted(src for _, src in part) == [6, 7, 8, 9]
        assert len({ref for ref, _ in part}) == 4 and all(ref < 6 for ref, _ in part)
    assert found[:4] != found[4:8]
    assert found == numbers(PackedPairs(data, "ref", augmentation="none"), 0, 12)
    assert found != numbers(PackedPairs(data, "ref", seed=2, augmentation="none"), 0, 12)


def test_pairs_of_like_age(data):
    edges = [18, 30, 36, 50]
    source = PackedPairs(data, "ref", age_bins=edges, augmentation="none")
    ages = source.contents.ages
    found = numbers(source, 1, 3000)
    assert all(np.array_equal(age_groups(ages[[a, b]], edges)[0], age_groups(ages[[a, b]], edges)[1]) for a, b in found)
    share = np.bincount(age_groups(ages[[b for _, b in found]], edges), minlength=3) / 3000
    mine = np.array(source.contents.sites) == "C"
    wanted = sampling_probabilities(ages[np.array(source.contents.sites) == "ref"], ages[mine], edges)
    np.testing.assert_allclose(share, wanted, atol=0.03)
    assert found[2500] == PackedPairs(data, "ref", age_bins=edges, augmentation="none")._numbers(1, 2500)


def test_truth_moves_with_its_source(data):
    source = PackedPairs(data, "ref")
    pairs = [source.pair(0, number, 0) for number in range(8)]
    known = [pair for pair in pairs if pair.truth is not None]
    assert 0 < len(known) < 8
    for pair in known:
        assert torch.equal(pair.src > -1, pair.truth > -1)  # one rotation and one shift for both
    traveller = source.traveller(0, 3, 0)
    assert traveller.truth is not None and torch.equal(traveller.src > -1, traveller.truth > -1)
    home = source.traveller(-1, 3, 0)
    assert torch.equal(home.src, home.truth)
    with pytest.raises(RequestError, match="nobody was scanned"):
        source.traveller(1, 0, 0)


def test_augmentation_of_pairs_is_that_of_the_module(data):
    source = PackedPairs(data, "ref", augmentation="published", seed=5)
    _, src = source._numbers(1, 7)
    wanted = augment(source._raw(src), np.random.default_rng([5, 3, 1, 7, 1]), compatible=True)
    np.testing.assert_array_equal(source.pair(1, 7, 0).src.numpy(), wanted)


def test_score_prefers_the_reference_style(data):
    source = PackedPairs(data, "ref", validation=0.4)
    held = {s for s, h in zip(source.contents.subjects, source.held, strict=True) if h}
    kept = {s for s, h in zip(source.contents.subjects, source.held, strict=True) if not h}
    assert held and not held & kept
    assert 0.2 < source.held.mean() < 0.6
    plain = source.score(lambda image: image, 0)
    wider = source.score(lambda image: image * 2, 0)  # sites have half the contrast of the reference
    lost = source.score(lambda image: torch.zeros_like(image), 0)
    assert wider > plain > lost
    assert PackedPairs(data, "ref").score(lambda image: image, 0) is None


def test_pairs_that_cannot_be(data):
    with pytest.raises(RequestError, match="one of ref, B, C"):
        PackedPairs(data, "nowhere")
    with pytest.raises(RequestError, match="share"):
        PackedPairs(data, "ref", validation=1.0)
    with pytest.raises(RequestError, match="no images for training"):
        PackedPairs(data, "ref", validation=0.95)


def test_visits_are_fixed_by_their_number(data):
    plan = Plan(2, batch=1, seed=3)
    visits = Visits(PackedPairs(data, "ref", seed=3), plan)
    sites = [plan.site(number) for number in range(40)]
    assert all({*sites[k : k + 2]} == {0, 1} for k in range(0, 40, 2))
    assert set(sites[::2]) == {0, 1}
    first = visits.visit(5)
    assert first["ref"].shape == first["src"].shape == (5, 1, *SHAPE)
    again = Visits(PackedPairs(data, "ref", seed=3), plan).visit(5)
    assert torch.equal(first["src"], again["src"]) and torch.equal(first["ref"], again["ref"])
    visits.start = 5
    assert torch.equal(next(iter(visits))["src"], first["src"])
    visits.rank, visits.world = 1, 2
    assert not torch.equal(visits.visit(5)["src"], first["src"])


def test_visits_at_the_start_are_paired():
    plan = Plan(3, paired_visits=50)
    sites = [plan.site(number) for number in range(50)]
    assert set(sites) == {-1, 0, 1, 2} and plan.only_paired(49) and not plan.only_paired(50)
    assert sorted(plan.site(50 + k) for k in range(3)) == [0, 1, 2] and plan.turn(50) == 0
