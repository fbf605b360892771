"""Whole trainings of IGUANe, small: files, resume, precision, several processes, simulated sites, wrong requests."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from mri_deep_tools.cli import main
from mri_deep_tools.config import config_from_mapping
from mri_deep_tools.errors import CancelledError, InputError, RequestError
from mri_deep_tools.harmonize.simulated_pairs import SimulatedPairs
from mri_deep_tools.harmonize.simulated_sites import REFERENCE, REFERENCE_UNIT, SitesConfig, SiteSimulator, draw_site
from mri_deep_tools.harmonize.template_maps import TemplateMap
from mri_deep_tools.harmonize.train import IguaneConfig, train
from mri_deep_tools.harmonize.weights import load_generator, load_network
from mri_deep_tools.progress import Progress
from mri_deep_tools.synthsegment.generator.draws import Draws
from mri_deep_tools.volume import Volume, write_volume

SHAPE = [24, 16, 16]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Return a table of three sites with five small brains each; persons travel."""
    folder, rng = tmp_path_factory.mktemp("sites"), np.random.default_rng(0)
    rows = []
    for person in range(5):
        anatomy = rng.standard_normal((16, 10, 12))
        for site, contrast in (("ref", 120), ("B", 60), ("C", 200)):
            image = np.zeros(SHAPE, np.float32)
            image[4:20, 3:13, 2:14] = np.clip(500 + contrast * anatomy, 20, 1500)
            write_volume(Volume(image, np.diag([-1.0, 1, 1, 1])), folder / f"{site}{person}.nii")
            rows.append([f"{site}{person}.nii", site, 20 + person, f"sub-{person}"])
    path = folder / "sites.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "site", "age", "subject"], *rows])
    return path


def small(table, output, **changes) -> IguaneConfig:
    run = {"output": str(output), "accelerator": "cpu", "devices": 1, "log_every": 1, "checkpoint_every": 2}
    run |= changes.pop("run", {})
    content = {
        "data": str(table),
        "reference": "ref",
        "shape": SHAPE,
        "width": 2,
        "backward_width": 2,
        "levels": 2,
        "discriminator_features": [2, 3, 4],
        "epochs": 2,
        "steps_per_epoch": 2,
        "score_every": 1,
        "validation": 0.2,
        "paired_weight": 5.0,
        "run": {**run, "threads": 1},
    }
    return config_from_mapping(IguaneConfig, {**content, **changes})


def losses(folder) -> list[dict[str, str]]:
    """Return the logged rows of a run, without the epoch counter of the trainer, by step."""
    rows: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("logs/*/metrics.csv")):
        with path.open() as stream:
            for row in csv.DictReader(stream):
                kept = {key: value for key, value in row.items() if value and key not in ("epoch", "step")}
                rows.setdefault(row["step"], {}).update(kept)
    return [rows[key] for key in sorted(rows, key=int)]


class Stopping(Progress):
    """Stops a training, as a signal does, when half of it is done (packing 15 images never is half done)."""

    def update(self, fraction):
        if fraction == 0.5:
            os.kill(os.getpid(), 15)


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory):
    """Return the folder of a training that ran through."""
    folder = tmp_path_factory.mktemp("whole")
    train(small(table, folder, average=0.9), Progress())
    return folder


def test_files_of_a_run(whole):
    names = {path.name for path in (whole / "weights").iterdir()}
    each = {f"{kind}_{k}.safetensors" for kind in ("genBwd", "discBwd", "discRef") for k in (1, 2)}
    assert names == {"best_genUniv.safetensors", "generator_univ.safetensors", *each}
    assert load_generator(whole / "weights" / "generator_univ.safetensors").spec.width == 2
    assert load_network(whole / "weights" / "discRef_1.safetensors").convs[2].weight.shape[0] == 4
    stats = json.loads((whole / "stats.json").read_text())
    logged = losses(whole)
    assert len(stats["score"]) == 2 and len(logged) == 8
    wanted = {"genFwd_idLoss", "paired_loss", "score"}
    for k in (1, 2):
        wanted |= {f"discRef_{k}_loss", f"discSrc_{k}_loss", f"genFwd_adv_loss_{k}", f"genBwd_adv_loss_{k}"}
        wanted |= {f"cycle_loss_refSref_{k}", f"cycle_loss_srcRsrc_{k}", f"genBwd_idLoss_{k}"}
    assert set(stats) == wanted and all(len(values) == 2 for values in stats.values())
    first = [float(row["genFwd_idLoss"]) for row in logged[:4]]
    assert stats["genFwd_idLoss"][0] == pytest.approx(np.mean(first), rel=1e-5)
    assert max(score for _, score in stats["score"]) == pytest.approx(
        torch.load(whole / "checkpoints" / "last.ckpt", weights_only=False)["iguane"]["book"]["best"]
    )


def test_a_run_that_was_stopped_goes_on_exactly(table, whole, tmp_path):
    config = small(table, tmp_path / "run", average=0.9)
    with pytest.raises(CancelledError):
        train(config, Stopping())
    assert 0 < len(losses(tmp_path / "run")) < 8
    assert not (tmp_path / "run" / "weights" / "generator_univ.safetensors").exists()
    train(small(table, tmp_path / "run", average=0.9, workers=2), Progress())  # processes change nothing
    for mine, theirs in zip(losses(tmp_path / "run"), losses(whole), strict=True):
        both = mine.keys() & theirs.keys()  # the logger repeats older values beside a score
        assert len(both) >= 9 and all(mine[key] == theirs[key] for key in both)
    for path in sorted((whole / "weights").iterdir()):
        other = load_network(tmp_path / "run" / "weights" / path.name).state_dict()
        for name, value in load_network(path).state_dict().items():
            assert torch.equal(value, other[name]), (path.name, name)
    assert (tmp_path / "run" / "stats.json").read_text() == (whole / "stats.json").read_text()


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_stays_near_single(table, whole, tmp_path, precision):
    config = small(table, tmp_path / "run", average=0.9, run={"precision": precision, "steps": 2})
    train(config, Progress())
    found, wanted = losses(tmp_path / "run"), losses(whole)
    for mine, theirs in zip(found[:1], wanted[:1], strict=True):
        for key, value in mine.items():
            assert float(value) == pytest.approx(float(theirs[key]), rel=0.1, abs=0.02), key
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)["iguane"]["scales"]
    assert all((scale["value"] > 1) is (precision == "16-mixed") for scale in kept.values())


def test_paired_start_and_ages_and_options(table, tmp_path):
    config = small(
        table, tmp_path / "run", paired_visits=3, age_bins=[20, 22, 30], batch=2, start="features", validation=0.0
    )
    config.run.steps = 5
    train(config, Progress())
    rows = losses(tmp_path / "run")
    assert [set(row) == {"paired_loss"} for row in rows] == [True, True, True, False, False]


@pytest.mark.slow
def test_two_processes_make_one_training(table, tmp_path):
    """Both processes keep the same weights, and each sees its own pairs."""
    script = tmp_path / "go.py"
    script.write_text(
        "import sys\nfrom mri_deep_tools.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
    )
    content = [f"data={table}", "reference=ref", f"shape={SHAPE}", "width=2", "backward_width=2", "levels=2"]
    content += ["discriminator_features=[2,3,4]", "epochs=1", "steps_per_epoch=2", "score_every=0", "run.devices=2"]
    content += ["run.accelerator=cpu", "run.strategy=ddp", "run.log_every=1", "run.threads=1"]
    options = [part for item in content for part in ("--set", item)]
    command = [sys.executable, str(script), "train", "iguane", "--output", str(tmp_path / "run"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    train(small(table, tmp_path / "one", epochs=1, score_every=0, paired_weight=0.0), Progress())
    mine, other = (load_generator(tmp_path / n / "weights" / "generator_univ.safetensors") for n in ("run", "one"))
    same = [torch.equal(a, b) for a, b in zip(mine.parameters(), other.parameters(), strict=True)]
    assert not all(same)  # the second process had a say


# --- simulated sites --------------------------------------------------------------------------------------------


def toy_map() -> TemplateMap:
    """Return a map of nested boxes: cortex, white matter, a ventricle."""
    labels = torch.zeros((160, 192, 160), dtype=torch.int16)
    labels[25:135, 30:160, 30:130] = 3
    labels[35:125, 42:148, 40:120] = 2
    labels[70:90, 80:110, 70:90] = 4
    return TemplateMap("toy.nii.gz", labels)


@pytest.fixture
def simulator(monkeypatch):
    monkeypatch.setattr(
        "mri_deep_tools.harmonize.simulated_sites.load_template_maps", lambda folder, cache: [toy_map(), toy_map()]
    )
    return SiteSimulator(SitesConfig(labels="x", count=3, coarse=[[4, 10], [2, 5]], slabs=[48, 4]))


def test_sites_are_fixed_by_their_seed_and_scans_differ(simulator):
    first, again = (draw_site(np.random.default_rng([1, 2])) for _ in range(2))
    assert first.gamma == again.gamma and np.array_equal(first.bias, again.bias)
    assert len({site.gamma for site in simulator.sites}) == 3
    for site in simulator.sites:
        assert (np.diff(site.curve(np.linspace(0, 1.3, 200))) > 0).all()  # no two tissues change places
    pairs = SimulatedPairs(simulator, 1)
    views = [simulator.config.view(visit) for visit in (0, 9, 10, 14, 15, 18, 19)]
    assert views == [(4, 0), (4, 0), (2, 0), (2, 0), (1, 48), (1, 48), (1, 0)]
    one, two = pairs.traveller(1, 5, 0), pairs.traveller(1, 5, 0)
    assert torch.equal(one.src, two.src) and one.src.shape == (40, 48, 40)
    other = pairs.traveller(2, 5, 0)
    assert not torch.equal(one.src, other.src)
    assert torch.equal(one.src > -1, one.truth > -1)
    pair = pairs.pair(0, 3, 0)
    assert not torch.equal(pair.ref > -1, pair.src > -1)  # two persons


def test_scans_follow_the_convention_and_the_reference_is_clean(simulator):
    draws = Draws(3)
    person = simulator.anatomy(simulator.train[0], draws, 2)
    scan = simulator.show(person, simulator.sites[0], draws)
    assert abs(float(scan[person.inside].median())) < 1e-3 and (scan[~person.inside] == -1).all()
    truth = simulator.show(person, REFERENCE, draws, REFERENCE_UNIT)
    assert torch.equal(truth, simulator.show(person, REFERENCE, draws, REFERENCE_UNIT))
    means = [float(truth[person.inside & (person.tissues == k)].mean()) for k in (1, 3, 2)]
    assert means[0] < means[1] < means[2]  # fluid, grey, white


# --- wrong requests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": ""}, "names no data"),
        ({"shape": [24, 16, 18]}, "do not fit"),
        ({"width": 0}, "1 at least"),
        ({"discriminator_features": [2, 3]}, "three layers"),
        ({"paired_weight": 0.0, "paired_visits": 2}, "paired_weight"),
        ({"run": {"accumulate": 2}}, "neither accumulates"),
        ({"run": {"precision": "64-true"}}, "unknown precision"),
        ({"reference": "nowhere"}, "one of ref, B, C"),
        ({"simulation": {"labels": "x"}}, "both data and simulated"),
    ],
)
def test_requests_that_cannot_be(table, tmp_path, changes, words):
    with pytest.raises(RequestError, match=words):
        train(small(table, tmp_path / "run", **changes), Progress())


def test_weights_of_another_form_are_refused(table, whole, tmp_path):
    start = whole / "weights" / "generator_univ.safetensors"
    with pytest.raises(RequestError, match="width 2 and 2 levels"):
        train(small(table, tmp_path / "run", initial_weights=str(start), width=3), Progress())


def test_command(table, tmp_path, capsys):
    assert main(["train", "iguane", "--print-config"]) == 0
    shown = capsys.readouterr().out
    assert "cycle_weight: 30.0" in shown and "identity_weight: 15.0" in shown and "steps_per_epoch: 200" in shown
    assert main(["train", "iguane", "--set", "data=missing.csv", "--output", str(tmp_path / "run")]) == 2
    assert "missing.csv" in capsys.readouterr().err
    with pytest.raises(InputError, match="no column"):
        (tmp_path / "t.csv").write_text("path,place\na.nii,x\n")
        (tmp_path / "a.nii").write_bytes(b"")
        train(small(tmp_path / "t.csv", tmp_path / "run"), Progress())
