"""Fixtures of the harmonization tests: golden data, weights files, a private cache."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def golden(shared):
    """Return a function that loads a golden .npz file."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(shared("fixtures", "iguane", name)) as data:
            return dict(data)

    return load


@pytest.fixture(scope="session")
def weights_files(shared, tmp_path_factory) -> dict[str, Path]:
    """Return the golden Keras files of the three networks, unpacked."""
    folder = tmp_path_factory.mktemp("iguane")
    files = {}
    for name in ("generator", "discriminator", "predictor"):
        files[name] = folder / f"{name}.h5"
        with gzip.open(shared("fixtures", "iguane", f"{name}_weights.h5.gz")) as source:
            files[name].write_bytes(source.read())
    return files


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory) -> Path:
    """Return a cache folder for converted weights that all tests of this process use."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(session_cache, monkeypatch) -> Path:
    """Keep every test away from the caches and the models of this machine; no network."""
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(session_cache))
    monkeypatch.setenv("MRI_DEEP_TOOLS_OFFLINE", "1")
    monkeypatch.delenv("MRI_DEEP_TOOLS_DEBUG", raising=False)
    return session_cache


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory) -> dict[str, Path]:
    """Return weights of narrow generators: one that changes nothing (its residual is 0), and a seeded random one."""
    import torch
    from mri_deep_tools.harmonize.network import Generator, GeneratorSpec
    from safetensors.torch import save_file

    folder, files = tmp_path_factory.mktemp("small"), {}
    for name, factor in (("identity", 0.0), ("random", 0.05)):
        torch.manual_seed(5)
        network = Generator(GeneratorSpec(width=2))
        network.head.weight.data *= factor
        files[name] = folder / f"{name}.safetensors"
        save_file(network.state_dict(), files[name])
    return files


@pytest.fixture(scope="session")
def template(shared):
    """Return FSL's template brain at 1 mm, float32."""
    from mri_deep_tools.volume import read_volume

    return read_volume(shared("data", "mni", "MNI152_T1_1mm_brain.nii.gz"), dtype=np.float32)


@pytest.fixture(scope="session")
def head(template, tmp_path_factory) -> dict[str, object]:
    """Return a scan of the template with a skull, turned and shifted, at 2 mm: files, and the true transform."""
    from mri_deep_tools.geometry import Reorient, resample_to
    from mri_deep_tools.volume import Volume, write_volume
    from scipy.ndimage import distance_transform_edt
    from scipy.spatial.transform import Rotation

    folder = tmp_path_factory.mktemp("head")
    away = distance_transform_edt(template.data == 0)
    values = np.where((away > 9) & (away < 16), 7000, np.where((away > 4) & (away <= 9), 800, template.data))
    truth, shape = np.eye(4), (100, 118, 104)
    truth[:3, :3] = Rotation.from_euler("xyz", [20, -10, 15], degrees=True).as_matrix()
    truth[:3, 3] = (10, 20, -15)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = truth[:3, :3] @ [0, -18, 8] + truth[:3, 3] - (np.array(shape) - 1)
    scan = resample_to(Volume(values.astype(np.float32), truth @ template.affine), shape, affine)
    brain = resample_to(Volume((template.data > 0).astype(np.uint8), truth @ template.affine), shape, affine, order=0)
    bias = 1 + 0.2 * np.linspace(-1, 1, shape[1])[None, :, None]
    turn = Reorient.to(scan, "PSR")
    files = {"scan": folder / "sub-01_T1w.nii.gz", "mask": folder / "mask.nii.gz"}
    write_volume(turn.apply(scan.with_data((scan.data * bias / 10).astype(np.int16))), files["scan"])
    write_volume(turn.apply(brain), files["mask"], intent="label")
    return {**files, "truth": truth}
