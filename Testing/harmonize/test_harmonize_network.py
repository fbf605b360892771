"""Networks of IGUANe against the published program's output (golden data), layer by layer and as a whole."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from mri_deep_tools.errors import InputError, WeightsError
from mri_deep_tools.harmonize import engine as engine_module
from mri_deep_tools.harmonize.engine import GeneratorEngine, engine_bytes
from mri_deep_tools.harmonize.network import DeviationNorm, Discriminator, Generator, GeneratorSpec, Predictor
from mri_deep_tools.harmonize.weights import load_generator, load_network, load_predictor, load_state


def torch_axes(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(array, -1, 1).copy())


def keras_axes(tensor: torch.Tensor) -> np.ndarray:
    return np.moveaxis(tensor.numpy(), 1, -1)


@pytest.fixture(scope="module")
def generator(weights_files, session_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRI_DEEP_TOOLS_CACHE", str(session_cache))
        return load_generator(weights_files["generator"])


# ------------------------------------------------------------------------------------------------------- golden data


def test_parameter_counts_are_the_published_ones():
    assert sum(p.numel() for p in Generator().parameters()) == 6_532_098
    assert sum(p.numel() for p in Discriminator().parameters()) == 2_633_217
    predictor = Predictor.for_shape((160, 192, 160))
    statistics = sum(b.numel() for name, b in predictor.named_buffers() if "running" in name)
    assert sum(p.numel() for p in predictor.parameters()) + statistics == 903_417


def test_normalisation(golden):
    data = golden("instance_norm.npz")
    norm = DeviationNorm(3)
    norm.load_state_dict({"scale": torch.from_numpy(data["scale"]), "offset": torch.from_numpy(data["offset"])})
    with torch.inference_mode():
        np.testing.assert_allclose(keras_axes(norm(torch_axes(data["x"]))), data["y"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [("x", "y"), ("x_batch", "y_batch")])
def test_generator(golden, generator, name):
    data = golden("generator_io.npz")
    with torch.inference_mode():
        made = keras_axes(generator(torch_axes(data[name[0]])))
    np.testing.assert_allclose(made, data[name[1]], rtol=0, atol=1e-4)


def test_every_layer_of_the_generator_fed_with_its_golden_input(golden, generator):
    data = golden("generator_layers.npz")
    names = {int(key[:2]): key for key in data if key[0].isdigit()}
    whole = {
        index: torch_axes(data[key]) for index, key in names.items() if data[key].shape[-1] > 6 or index in (23, 24)
    }
    image = torch_axes(data["input"])
    # Topological index in the published graph of each block and of its inputs; concatenations lie between.
    order = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 15, 16, 18, 19, 21]
    inputs = {12: (10, 7), 15: (13, 5), 18: (16, 3)}
    checked = 0
    with torch.inference_mode():
        for number, index in enumerate(order):
            before = inputs.get(index, (order[number - 1] if number else 0,))
            if index != 1 and not all(i in whole for i in before):
                continue
            fed = image if index == 1 else torch.cat([whole[i] for i in before], dim=1)
            made = generator.blocks[number](fed)[:, : data[names[index]].shape[-1]]
            np.testing.assert_allclose(keras_axes(made), data[names[index]], rtol=0, atol=1e-4, err_msg=names[index])
            checked += 1
        # Two voxels at the bottom of the network: float64 arithmetic differs from this record by 3.3e-3 at most.
        error = np.abs(keras_axes(generator(image)) - data["24_add"])
    assert error.mean() < 1e-3 and error.max() < 5e-3
    assert checked == 15


def test_discriminator_of_even_and_odd_sizes(golden, weights_files):
    data, network = golden("discriminator_io.npz"), load_network(weights_files["discriminator"])
    with torch.inference_mode():
        for number in "01":
            made = keras_axes(network(torch_axes(data[f"x{number}"])))
            np.testing.assert_allclose(made, data[f"y{number}"], rtol=0, atol=5e-5)


def test_predictor(golden, weights_files):
    data, network = golden("predictor_io.npz"), load_predictor(weights_files["predictor"])
    with torch.inference_mode():
        x = torch_axes(data["x"])
        np.testing.assert_allclose(keras_axes(network.features(x)), data["features_last_block"], rtol=0, atol=2e-5)
        np.testing.assert_allclose(network(x).numpy(), data["y"][:, 0], rtol=0, atol=2e-5)


# ------------------------------------------------------------------------------------------------------------ engine


@pytest.mark.parametrize("slab_bytes", [1 << 10, 24 << 20])
def test_engine_gives_the_golden_numbers_in_slabs_and_without(golden, generator, monkeypatch, slab_bytes):
    monkeypatch.setattr(engine_module, "_SLAB_BYTES", slab_bytes)
    monkeypatch.setattr(engine_module, "_PIECE", 1 << 12)
    data = golden("generator_io.npz")
    engine, shares = GeneratorEngine(generator), []
    for x, y in ((data["x"], data["y"]), (data["x_batch"], data["y_batch"])):
        for image, expected in zip(x[..., 0], y[..., 0], strict=True):
            made = engine.run(torch.from_numpy(image), shares.append)
            np.testing.assert_allclose(made.numpy(), expected, rtol=0, atol=1e-4)
    assert shares[:9] == sorted(shares[:9]) and shares[8] == 1.0


def test_engine_equals_other_widths_and_depths_too():
    torch.manual_seed(3)
    network = Generator(GeneratorSpec(width=4, levels=3)).eval()
    for name, value in network.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.normal_(value.data, 0.5, 0.3)
    image = torch.randn(24, 16, 40) * (torch.rand(24, 16, 40) > 0.3)
    with torch.inference_mode():
        expected = network(image[None, None])[0, 0]
    np.testing.assert_allclose(GeneratorEngine(network).run(image), expected, rtol=0, atol=2e-5)
    assert engine_bytes((160, 192, 160)) < 1.5e9


# ----------------------------------------------------------------------------------------------------- weights files


def test_state_survives_safetensors(weights_files, tmp_path):
    from safetensors.torch import save_file

    for name, path in weights_files.items():
        state = load_state(path)
        save_file(state, tmp_path / f"{name}.safetensors")
        again = load_state(tmp_path / f"{name}.safetensors")
        assert all(torch.equal(state[key], again[key]) for key in state)
        assert type(load_network(path)) is type(load_network(tmp_path / f"{name}.safetensors"))


def test_layers_are_taken_by_order_whatever_their_names(weights_files, tmp_path):
    """A second network of one Keras process has names that go on counting; the training program saves such files."""
    shifted = tmp_path / "genBwd_1.h5"
    with h5py.File(weights_files["generator"]) as source, h5py.File(shifted, "w") as target:
        names = [str(name) for name in source.attrs["layer_names"].astype(str)]
        renamed = {name: name.replace("sequential", "sequential_x").replace("_x_", "_9") for name in names}
        target.attrs["layer_names"] = [renamed[name].encode() for name in names]
        for name in names:
            source.copy(source[name], target, renamed[name])
    first, second = load_state(weights_files["generator"]), load_state(shifted)
    assert set(first) == set(second)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_files_of_other_networks_are_told(weights_files, shared, tmp_path):
    with pytest.raises(WeightsError, match=r"holds a discriminator .* not a harmonization generator"):
        load_generator(weights_files["discriminator"])
    with pytest.raises(WeightsError, match="holds a harmonization generator, not a prediction network"):
        load_predictor(weights_files["generator"])
    with pytest.raises(WeightsError, match="does not exist"):
        load_generator(tmp_path / "none.safetensors")
    short = tmp_path / "short.h5"
    with h5py.File(weights_files["generator"]) as source, h5py.File(short, "w") as target:
        names = [str(name) for name in source.attrs["layer_names"].astype(str)]
        target.attrs["layer_names"] = names[:-4]
        for name in names[:-4]:
            source.copy(source[name], target, name)
    with pytest.raises(WeightsError, match=r"short\.h5 holds no network of IGUANe"):
        load_generator(short)


def test_images_that_do_not_fit_are_refused(generator, weights_files):
    with pytest.raises(InputError, match=r"32x40x32 .* multiples of 16"):
        generator(torch.zeros(1, 1, 32, 40, 32))
    with pytest.raises(InputError, match="does not fit this prediction model"):
        load_predictor(weights_files["predictor"])(torch.zeros(1, 1, 96, 96, 64))
