"""Evenly spread directions against known energies; the published order of subsets; shells; which model serves."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from dmri_helpers import directions
from mri_deep_tools import _install
from mri_deep_tools.dmriupsample.directions import (
    choose_context,
    electrostatic_energy,
    even_directions,
    max_min_order,
    same_axis_angle,
    spread_order,
)
from mri_deep_tools.dmriupsample.facts import Facts, read_facts
from mri_deep_tools.dmriupsample.gradients import GradientTable
from mri_deep_tools.dmriupsample.model_choice import choose_model
from mri_deep_tools.dmriupsample.network import RCNN
from mri_deep_tools.dmriupsample.shells import find_shells, pick_shell
from mri_deep_tools.dmriupsample.weights import save_network
from mri_deep_tools.errors import InputError, RequestError, WeightsError

# ------------------------------------------------------------------------------------------------ evenly spread ones


@pytest.mark.parametrize(
    ("count", "energy"),
    [(1, 0.5), (3, 9.985281374), (6, 49.165253058), (16, 412.261274651)],
)
def test_symmetric_solutions_of_thomsons_problem_are_found(count, energy):
    """Octahedron, icosahedron and the solution for 32 charges are symmetric about the centre, so they must come out."""
    assert electrostatic_energy(even_directions(count)) == pytest.approx(energy, rel=1e-6)


@pytest.mark.parametrize(("count", "energy"), [(10, 150.881568), (12, 223.347074), (24, 968.713455), (30, 1543.830401)])
def test_energy_is_near_the_bound_of_free_charges(count, energy):
    """Charges that need not lie in pairs have the least energy known; pairs cost a little more."""
    found = electrostatic_energy(even_directions(count))
    assert energy * (1 - 1e-6) <= found < 1.006 * energy


@pytest.mark.parametrize("count", [45, 60, 90, 200])
def test_energy_follows_theory_for_many(count):
    """E = n^2/2 - 0.5523 n^1.5 + 0.0689 n^0.5 for n charges (Erber and Hockney 1991)."""
    n = 2 * count
    theory = n**2 / 2 - 0.5523 * n**1.5 + 0.0689 * n**0.5
    assert electrostatic_energy(even_directions(count)) == pytest.approx(theory, rel=1.5e-3)


@pytest.mark.parametrize("count", [1, 2, 6, 30, 61])
def test_even_directions_are_distinct_unit_and_always_the_same(count):
    vectors = even_directions(count)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-12)
    assert (vectors[:, 2] >= 0).all()
    np.testing.assert_array_equal(vectors, even_directions(count))
    if count > 1:
        angles = same_axis_angle(vectors, vectors) + 180 * np.eye(count)
        hexagonal = np.degrees(np.sqrt(8 * np.pi / np.sqrt(3) / (2 * count)))  # nearest neighbours of a perfect packing
        assert angles.min() > 0.75 * min(hexagonal, 90)
    with pytest.raises(RequestError, match="1 to 1000"):
        even_directions(0)


def test_even_set_beats_random_ones():
    best = min(electrostatic_energy(directions(30, seed)) for seed in range(20))
    assert electrostatic_energy(even_directions(30)) < 0.97 * best


# ---------------------------------------------------------------------------------------------------- published order


@pytest.mark.parametrize("key", ["a", "b", "c", "s64"])
def test_golden_order(golden, key):
    data = np.load(golden("train", "reorder.npz"))
    q_in, q_out = (int(n) for n in data[f"{key}_q"])
    vectors = data[f"{key}_bvec"].T
    np.testing.assert_array_equal(max_min_order(vectors, q_in, q_out), data[f"{key}_order"])
    if len(vectors) > q_in:
        np.testing.assert_array_equal(choose_context(vectors, q_in), data[f"{key}_order"][:q_in])


def test_context_keeps_the_files_order_when_all_are_read():
    np.testing.assert_array_equal(choose_context(directions(6), 6), np.arange(6))
    with pytest.raises(RequestError, match="10 directions are needed and 6 were measured"):
        choose_context(directions(6), 10)
    assert sorted(spread_order(directions(9)).tolist()) == list(range(9))


# ------------------------------------------------------------------------------------------------------------- shells


def table(*shells):
    bvals = np.concatenate([np.asarray(values, float) for values in shells])
    world = directions(len(bvals))
    return GradientTable(bvals, np.where(bvals[:, None] > 50, world, 0))


def test_shells_are_told_apart_and_b0_left_out():
    scan = table([0, 5, 0], 1000 + np.linspace(-30, 30, 7), [2000] * 5, [700] * 3)
    shells = find_shells(scan)
    assert {value: len(index) for value, index in shells.items()} == {700: 3, 1000: 7, 2000: 5}
    assert pick_shell(scan, 2005)[0] == 2000
    with pytest.raises(RequestError, match=r"several shells: 700 \(3 directions\), 1000 \(7 directions\), 2000"):
        pick_shell(scan, None)
    with pytest.raises(RequestError, match="no shell at b = 1500"):
        pick_shell(scan, 1500)
    with pytest.raises(InputError, match="no diffusion-weighted volume"):
        pick_shell(table([0, 5]), None)


# -------------------------------------------------------------------------------------------------------------- models

NARROW = {"init": 6, "ecv11": 8, "ecv21": 8, "ecvl1": 5, "ecvl2": 6, "conv_lstm": 7, "dcvl1": 6, "dcvl2": 8, "dcv11": 9}


def own(folder, facts, name="own.safetensors"):
    return save_network(RCNN(1, 4, NARROW), folder / name, facts, half=True)


def test_facts_travel_with_the_weights(tmp_path):
    facts = Facts((6, 10), 1000, percentile=True, spacing_mm=2.0, trained_on="simulated")
    path = own(tmp_path, facts)
    assert read_facts(path) == facts
    for measured, count in ((6, 6), (8, 6), (10, 10), (64, 10)):
        choice = choose_model(1000, measured, weights=path)
        assert (choice.directions, choice.percentile, choice.facts) == (count, True, facts)
    assert read_facts(own(tmp_path, None, "bare.safetensors")) is None
    (tmp_path / "broken.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{not json")
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        choose_model(1000, 6, weights=tmp_path / "broken.safetensors")


@pytest.mark.parametrize(
    ("asked", "error", "told"),
    [
        ({"shell": 1500, "measured": 10}, RequestError, "no model was trained for b = 1500"),
        ({"shell": 1000, "measured": 5}, RequestError, "5 directions were measured at b = 1000; models read 6, 10, 30"),
        ({"shell": 2000, "measured": 8}, RequestError, "models read 10"),
        ({"shell": 1000, "measured": 12, "all_directions": True}, RequestError, "give as many volumes"),
        ({"shell": 1000, "measured": 10, "dims": 1, "combined": True}, RequestError, "there is no 1D model"),
        ({"shell": 1000, "measured": 10, "model": "x"}, RequestError, "there is no diffusion model called x"),
        ({"shell": 1000, "measured": 10, "model": "a", "weights": "b"}, RequestError, "both given"),
        ({"shell": 3000, "measured": 12}, WeightsError, "or use --method sh, which needs no weights"),
        ({"shell": 2000, "measured": 12}, WeightsError, "models download dmri-rcnn-3d-b2000-q10"),
        ({"shell": 1010, "measured": 64, "model": "dmri-rcnn-1d-b1000-q30"}, WeightsError, "is not on this machine"),
        ({"shell": 1000, "measured": 10, "weights": "nowhere"}, WeightsError, "weights nowhere do not exist"),
    ],
)
def test_what_no_model_serves_is_said(asked, error, told):
    with pytest.raises(error) as failure:
        choose_model(asked.pop("shell"), asked.pop("measured"), **asked)
    assert told in str(failure.value)


def test_published_folders_say_what_they_hold(weights):
    choice = choose_model(1000, 40, weights=weights(1, 10))
    assert (choice.directions, choice.facts.shell, choice.facts.spacing_mm) == (10, 1000, 1.25)


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """Pretend that the package ships a small model of one file, which reads 6 or 10 directions at b = 1000."""
    monkeypatch.setattr(_install, "_PACKAGE_WEIGHTS", tmp_path)
    (tmp_path / "tiny").mkdir()
    path = own(tmp_path / "tiny", Facts((6, 10), 1000, percentile=True), "model.safetensors")
    file = {
        "name": path.name,
        "size": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    entry = {
        "name": "tiny",
        "task": "upsample-dmri",
        "description": "a model of the test",
        "bundled": True,
        "licence": "none",
        "citation": ["none"],
        "input_needs": {"contrast": "dwi", "spacing": "any", "dims": 3, "kernel_dims": 1},
        "files": [file],
    }
    (tmp_path / "list.json").write_text(json.dumps({"format": 1, "models": [entry]}))
    monkeypatch.setenv("MRI_DEEP_TOOLS_REGISTRY", str(tmp_path / "list.json"))
    return path


@pytest.mark.parametrize(("measured", "count", "published"), [(6, 6, "3d-b1000-q6"), (9, 6, "3d-b1000-q6")])
def test_the_bundled_model_is_the_default(bundled, measured, count, published):
    choice = choose_model(1000, measured, model="tiny")
    assert (choice.path, choice.directions, choice.percentile) == (bundled, count, True)
    choice = choose_model(1010, measured)
    assert choice.model in ("tiny", "dmri-rcnn-lite") and choice.directions == count
    assert f"models download dmri-rcnn-{published}" in choice.note


def test_the_bundled_model_serves_what_it_was_trained_for_alone(bundled):
    assert choose_model(1000, 64, model="tiny").directions == 10
    assert "dmri-rcnn-3d-b1000-q30 is not installed" in choose_model(1000, 64).note
    with pytest.raises(WeightsError, match="dmri-rcnn-3d-b2000-q10 is not on this machine"):
        choose_model(2000, 10)
    with pytest.raises(WeightsError, match="dmri-rcnn-3d-b1000-q10 is not on this machine"):
        choose_model(1000, 10, dims=3)
