"""Golden data of the published translation programs, and small networks with weights that are not near zero."""

from __future__ import annotations

import gzip
import shutil

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def golden_arrays(shared):
    """Return a function that reads an ``.npz`` of the golden data as tensors, floating ones as float32 or float64."""

    def read(name: str) -> dict[str, torch.Tensor]:
        with np.load(shared("fixtures", "syndiff", name)) as file:
            arrays = {key: torch.from_numpy(file[key]) for key in file.files}
        return {key: value.float() if value.dtype == torch.float16 else value for key, value in arrays.items()}

    return read


@pytest.fixture(scope="session")
def golden_weights(shared, tmp_path_factory):
    """Return a function that gives the path of an unpacked ``.pth`` of the golden data."""
    folder = tmp_path_factory.mktemp("weights")

    def path(name: str):
        target = folder / name
        if not target.exists():
            with gzip.open(shared("fixtures", "syndiff", f"{name}.gz")) as packed, target.open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        return target

    return path


@pytest.fixture(scope="session")
def awake():
    """Return a function that moves all weights of a network, so that no layer gives almost nothing."""

    def stir(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
        return network.eval()

    return stir
