"""Two processes make the training of one: the same samples in each step, and the same losses.

Every ``train`` command runs twice with a tiny network: in one process with a batch of two, and as two processes (gloo)
with a batch of one each. ``make test-processes`` runs these tests alone.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from mri_deep_tools.cli import main
from mri_deep_tools.volume import Volume, write_volume

pytestmark = pytest.mark.slow
RUN = ["run.accelerator=cpu", "run.log_every=1", "run.threads=1"]
ONE, TWO = ["run.devices=1"], ["run.devices=2", "run.strategy=ddp"]


def words(system, folder, settings):
    options = [part for item in (*settings, *RUN) for part in ("--set", item)]
    return ["train", system, "--output", str(folder), "--progress", "none", *options]


def one(system, folder, settings):
    assert main(words(system, folder, [*settings, *ONE])) == 0
    return folder


def two(system, folder, settings):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "mri_deep_tools", *words(system, folder, [*settings, *TWO])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def logged(folder):
    """Return {step: {name: value}} of a run, but for the trainer's counter of epochs."""
    rows: dict[int, dict[str, float]] = {}
    for path in sorted(folder.glob("logs/*/metrics.csv")):
        with path.open() as stream:
            for row in csv.DictReader(stream):
                kept = {k: float(v) for k, v in row.items() if v and k not in ("epoch", "step")}
                rows.setdefault(int(row["step"]), {}).update(kept)
    return rows


def alike(first, second, rel=2e-4):
    """Compare all that two runs logged."""
    a, b = logged(first), logged(second)
    assert a.keys() == b.keys() and len(a) >= 4
    for step, values in a.items():
        assert values.keys() == b[step].keys(), step
        for name, value in values.items():
            assert b[step][name] == pytest.approx(value, rel=rel, abs=1e-6), (step, name)
    assert len({round(next(iter(values.values())), 7) for values in a.values()}) > 2  # something was learnt


def state(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Return a folder of three label maps of nested balls."""
    folder = tmp_path_factory.mktemp("maps")
    axis = np.linspace(-1, 1, 32)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    for number in range(3):
        radius = np.sqrt((x * 1.1) ** 2 + y**2 + (z * (1.05 + 0.02 * number)) ** 2)
        labels = np.zeros((32,) * 3, np.int32)
        for limit, left, right in ((0.95, 506, 506), (0.8, 24, 24), (0.7, 3, 42), (0.55, 2, 41), (0.2, 4, 43)):
            labels[radius < limit] = np.where(x < 0, left, right)[radius < limit]
        image = nib.Nifti1Image(labels, np.diag([-1.0, 1, 1, 1]))
        image.to_filename(folder / f"map_{number}.nii.gz")
    return folder


def test_synthseg(heads, tmp_path):
    """Both losses, batch normalisation over both processes, and the validation."""
    settings = [f"labels={heads}", 'validation=["map_2"]', "levels=2", "width=2", "wl2_epochs=1", "dice_epochs=1"]
    settings += ["steps_per_epoch=3", "generator.output_shape=16", "run.validate_every=3", "learning_rate=0.01"]
    whole = one("synthseg", tmp_path / "one", [*settings, "batch=2"])
    alike(whole, two("synthseg", tmp_path / "two", [*settings, "batch=1"]))
    assert (tmp_path / "two" / "weights" / "dice_001.safetensors").exists()
    means = [name for name in state(whole) if name.endswith("running_var")]
    ours, theirs = state(whole), state(tmp_path / "two")
    assert means and all(torch.allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5) for name in means)


def test_compact_synthseg(heads, tmp_path):
    """Its batch is always one scan, so one process accumulates two, each normalised by itself."""
    settings = ["network=lite", f"labels={heads}", 'validation=["map_2"]', "widths=[4,8,8,8]", "decoder_blocks=1"]
    settings += ["run.steps=4", "warmup=0", "cooldown=0", "average=0.5", "run.validate_every=0"]
    settings += ["run.share_statistics=false", "generator.shape=[32,32,32]"]
    whole = one("synthseg", tmp_path / "one", [*settings, "run.accumulate=2"])
    parts = two("synthseg", tmp_path / "two", settings)
    start = one("synthseg", tmp_path / "start", [*settings, "run.steps=1", "learning_rate=0"])
    for part in ("network", "averaged"):
        found = []
        for folder in (whole, parts):
            now, before = state(folder), state(start)
            names = [n for n in now if n.startswith(part) and n.endswith(("weight", "bias"))]
            found.append(torch.cat([(now[name] - before[name]).flatten() for name in names]))
        assert float(found[0].norm()) > 1e-3
        assert float((found[0] - found[1]).norm() / found[0].norm()) < 0.02, part


def test_baby_ai(tmp_path):
    from scipy.ndimage import gaussian_filter

    for index, name in enumerate("abcd"):
        values = gaussian_filter(np.random.default_rng(index).normal(size=(16,) * 3), 1.2).astype(np.float32)
        scan = Volume((values - values.min() + 0.01) * 100, np.diag([-1.0, 1, 1, 1]))
        write_volume(scan, tmp_path / "data" / f"sub-{name}_T2w.nii.gz")
        write_volume(scan.with_data(scan.data.max() - scan.data + 1), tmp_path / "data" / f"sub-{name}_T1w.nii.gz")
    settings = [f"data={tmp_path / 'data'}", "channels=[2,4]", "units=1", "patch=8", "stride=8", "factors=[2,3]"]
    settings += ["train_share=0.5", "validation_share=0.25", "epochs=2", "steps_per_epoch=3", "learning_rate=0.01"]
    settings += ["validation_patches=5"]
    alike(
        one("baby-ai", tmp_path / "one", [*settings, "batch=4"]),
        two("baby-ai", tmp_path / "two", [*settings, "batch=2"]),
    )


def test_an_epoch_takes_every_patch_once_whatever_the_devices(tmp_path):
    from mri_deep_tools.training import RunOptions, processes

    assert processes(RunOptions(accelerator="cpu", devices=1)) == 1
    assert processes(RunOptions(accelerator="cpu", devices=3, nodes=2, strategy="ddp")) == 6


def test_dmri_rcnn(tmp_path):
    """Batches of one kind: two processes have the same number of measured directions in a step."""
    settings = ["source=simulated", "dims=1", "norm=batch", "width=0.05", "smoothing=0.005", "epochs=2"]
    settings += ["simulation.directions=[6,10]", "simulation.targets=4", "simulation.voxels=16", "average=0.5"]
    settings += ["steps_per_epoch=4", "validation_examples=16", "learning_rate=0.003"]
    alike(
        one("dmri-rcnn", tmp_path / "one", [*settings, "batch=4"]),
        two("dmri-rcnn", tmp_path / "two", [*settings, "batch=2"]),
    )


def test_iguane(tmp_path):
    shape, rng = (24, 16, 16), np.random.default_rng(0)
    lines = ["path,site,subject"]
    for person in range(5):
        anatomy = rng.standard_normal((16, 10, 12))
        for site, contrast in (("ref", 120), ("B", 60), ("C", 200)):
            image = np.zeros(shape, np.float32)
            image[4:20, 3:13, 2:14] = np.clip(500 + contrast * anatomy, 20, 1500)
            write_volume(Volume(image, np.diag([-1.0, 1, 1, 1])), tmp_path / f"{site}{person}.nii")
            lines.append(f"{site}{person}.nii,{site},sub-{person}")
    (tmp_path / "sites.csv").write_text("\n".join(lines))
    settings = [f"data={tmp_path / 'sites.csv'}", "reference=ref", "shape=[24,16,16]", "width=2", "backward_width=2"]
    settings += ["levels=2", "discriminator_features=[2,3,4]", "epochs=2", "steps_per_epoch=2", "score_every=1"]
    settings += ["validation=0.2", "paired_weight=5"]
    whole = one("iguane", tmp_path / "one", [*settings, "batch=2"])
    parts = two("iguane", tmp_path / "two", [*settings, "batch=1"])
    alike(whole, parts, rel=1e-3)


def test_predictor(tmp_path):
    rng, lines = np.random.default_rng(0), ["path,age"]
    for index in range(10):
        values = np.where(rng.random((32,) * 3) < 0.6, rng.normal(500, 40 + 5 * index, (32,) * 3), 0)
        write_volume(Volume(values.astype(np.float32), np.diag([-1.0, 1, 1, 1])), tmp_path / f"{index}.nii.gz")
        lines.append(f"{index}.nii.gz,{20 + 5 * index}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    settings = [f"data={tmp_path / 'table.csv'}", "target=age", "batch=2", "epochs=2", "validation_share=0.1"]
    alike(one("predictor", tmp_path / "one", settings), two("predictor", tmp_path / "two", settings), rel=1e-3)


def test_syndiff(tmp_path):
    """One process takes the images of a step in two parts: the discriminators look at how images of a part differ."""
    import h5py

    (tmp_path / "data").mkdir()
    for part, count in (("train", 8), ("val", 3)):
        with h5py.File(tmp_path / "data" / f"dataset_{part}.hdf5", "w") as file:
            for number in range(count):
                image = np.random.default_rng(number).integers(0, 256, (36, 36))
                file[f"T1/{number}"], file[f"T2/{number}"] = np.uint8(image), np.uint8(255 - image)
    network = {"width": 8, "multipliers": "[1,2]", "blocks": 1, "latent": 4, "embedding": 8, "one_pass_width": 4}
    network |= {"one_pass_blocks": 1, "patch_width": 4, "judge": "small", "judge_width": 4, "time_embedding": 8}
    settings = [f"data={tmp_path / 'data'}", "image_size=32", "epochs=1", "batch=1", "lazy_reg=2", "paired=true"]
    settings += ["pictures=1", *(f"network.{key}={value}" for key, value in network.items())]
    whole = one("syndiff", tmp_path / "one", [*settings, "run.accumulate=2"])
    alike(whole, two("syndiff", tmp_path / "two", settings))
    ours, theirs = state(whole), state(tmp_path / "two")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)
