"""Simulated T1w and T2w pairs: one anatomy, one grid, contrasts as asked, reproducible, ready for training."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.superresolve.simulate_pairs import PairConfig, simulate_pair
from mri_deep_tools.superresolve.training_data import find_pairs, split_pairs
from mri_deep_tools.volume import Volume, read_volume, write_volume

AFFINE = np.array([[-1.0, 0, 0, 20], [0, 0, 1, -10], [0, -1, 0, 30], [0, 0, 0, 1]])  # L, I, A as the published maps


def head(shape=(40, 48, 44)):
    """Return a label map: scalp around fluid around cortex around white matter, and a ventricle."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in grid))
    labels = np.zeros(shape, dtype=np.int32)
    for limit, code in ((0.95, 516), (0.85, 24), (0.78, 3), (0.6, 2), (0.25, 4)):
        labels[radius < limit] = code
    return Volume(labels, AFFINE)


def still(**changes):
    return PairConfig(output_shape=[40, 44, 48], scaling=[1.0, 1.0], **changes)


def test_both_scans_show_one_anatomy_on_one_grid():
    pair = simulate_pair(head(), 3, still(random_contrast=0.0))
    assert pair.t1.shape3 == pair.t2.shape3 == (40, 44, 48)
    assert pair.t1.axcodes == ("R", "A", "S")
    np.testing.assert_array_equal(pair.t1.affine, pair.t2.affine)
    assert pair.t1.data.dtype == np.float32
    assert pair.t1.data.min() >= 0 and pair.t1.data.max() <= 255
    table, _, _ = np.histogram2d(pair.t1.data.ravel(), pair.t2.data.ravel(), bins=24)
    share = table / table.sum()
    known = share[share > 0]
    independent = np.outer(share.sum(1), share.sum(0))[share > 0]
    assert (known * np.log(known / independent)).sum() > 0.5  # nats of mutual information; 0 for unrelated scans


def test_fluid_is_dark_in_t1w_and_bright_in_t2w():
    fluid_and_white = head().with_data(np.where(head().data == 2, 2, 24).astype(np.int32))
    for seed in range(6):
        pair = simulate_pair(fluid_and_white, seed, still(random_contrast=0.0))
        assert np.corrcoef(pair.t1.data.ravel(), pair.t2.data.ravel())[0, 1] < -0.3  # bias fields weaken it


def test_adults_have_the_usual_order_of_tissues():
    """White matter above grey above fluid in T1w, the reverse in T2w, in every person."""
    for seed in range(4):
        config = still(contrast="adult", texture=[0.0, 0.0], bias=0.0, gamma=0.0, noise=0.0, blur=[0.1, 0.1])
        pair = simulate_pair(head(), seed, config)
        found = []
        for scan in (pair.t1.data, pair.t2.data):
            middle = scan[20, 22]  # along I-S: fluid outside, cortex, white matter, ventricle
            found.append([float(middle[k]) for k in (24, 33, 40)])  # ventricle, white matter, cortex
        assert found[0][1] > found[0][2] > found[0][0] and found[1][1] < found[1][2] < found[1][0]


def test_a_seed_fixes_every_draw():
    first, again, other = (simulate_pair(head(), seed, still()) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.t2.data, again.t2.data)
    assert np.abs(first.t2.data - other.t2.data).mean() > 1


def test_misalignment_moves_the_t1w_alone():
    straight, moved = (simulate_pair(head(), 2, still(misalignment=size)) for size in (0.0, 1.5))
    np.testing.assert_array_equal(straight.t2.data, moved.t2.data)
    assert np.abs(straight.t1.data - moved.t1.data).mean() > 1


def test_the_command_writes_what_training_reads(tmp_path, capsys):
    for name in ("map_a", "map_b"):
        write_volume(head(), tmp_path / "maps" / f"{name}.nii.gz")
    call = ["simulate", "contrast-pairs", str(tmp_path / "maps"), str(tmp_path / "pairs"), "--number", "2"]
    assert main([*call, "--set", "output_shape=[32,32,32]", "--quiet"]) == 0
    pairs = find_pairs(tmp_path / "pairs")
    assert [pair.t2.name for pair in pairs][:2] == [f"sub-mapa_run-00{k}_desc-synthetic_T2w.nii.gz" for k in (1, 2)]
    train, held, _ = split_pairs(pairs, 0.5, 0.5)
    assert {pair.subject for pair in train} == {"mapa"}
    assert {pair.subject for pair in held} == {"mapb"}
    assert read_volume(pairs[0].t1).shape3 == (32, 32, 32)
    record = json.loads(pairs[0].t2.with_suffix("").with_suffix(".json").read_text())
    assert record["Synthetic"] is True
    assert record["Options"]["seed"] == 0
    capsys.readouterr()
    assert main([*call, "--quiet"]) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["{maps}"], "LABELS and FOLDER are needed"),
        (["{none}", "{out}"], "does not exist"),
        (["{maps}", "{out}.nii.gz"], "name a folder"),
        (["{maps}", "{out}", "--set", "textures=1"], "textures"),
        (["{fractions}", "{out}"], "whole label numbers"),
    ],
)
def test_wrong_requests(tmp_path, capsys, words, expected):
    write_volume(head((12, 12, 12)), tmp_path / "maps" / "a.nii.gz")
    write_volume(Volume(np.full((12, 12, 12), 0.5, np.float32), AFFINE), tmp_path / "fractions.nii.gz")
    known = {"maps": tmp_path / "maps", "none": tmp_path / "none", "out": tmp_path / "out"}
    known["fractions"] = tmp_path / "fractions.nii.gz"
    assert main(["simulate", "contrast-pairs", *(word.format(**known) for word in words)]) in (1, 2)
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
