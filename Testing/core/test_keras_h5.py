"""Reading Keras weights: both layouts, every form of attribute, and what a wrong file is told."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
import zipfile

import h5py
import numpy as np
import pytest
from mri_deep_tools.checkpoints.keras_h5 import conv_kernel_to_torch, keras_layers, match, read_keras_h5
from mri_deep_tools.errors import WeightsError

BIAS = np.array([0.5, -1.0], np.float32)
KERNEL = np.arange(54, dtype=np.float32).reshape(3, 3, 3, 1, 2)


@pytest.fixture
def unpacked(shared, tmp_path):
    """Return a function that gives a golden weights file, uncompressed."""

    def path(*parts):
        source = shared("fixtures", "synthseg", *parts)
        target = tmp_path / source.name.removesuffix(".gz")
        with gzip.open(source) as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain)
        return target

    return path


def write_weights(path, layers, *, inside="", texts="bytes"):
    """Write layers {name: [(weight name, array)]} as Keras does; ``texts`` is the form of the attributes."""

    def form(names):
        if texts == "bytes":
            return np.array([name.encode() for name in names])
        if texts == "object":
            return np.array(names, dtype=h5py.string_dtype())
        return names[0] if texts == "scalar" and len(names) == 1 else np.array([name.encode() for name in names], "O")

    with h5py.File(path, "w") as file:
        root = file.create_group(inside) if inside else file
        root.attrs["layer_names"] = form(list(layers))
        for layer, tensors in layers.items():
            group = root.create_group(layer)
            names = [name for name, _ in tensors]
            group.attrs["weight_names"] = form(names) if names else np.array([], dtype=np.float64)
            for name, array in tensors:
                group.create_dataset(name, data=array)
    return path


def small(name="conv"):
    return {"input": [], name: [(f"{name}/kernel:0", KERNEL), (f"{name}/bias:0", BIAS)]}


def test_golden_layers_and_shapes(shared, unpacked):
    listed = json.loads(shared("fixtures", "synthseg", "weights", "synthseg_2.0_layers.json").read_text())
    path = unpacked("weights", "synthseg_2.0.h5.gz")
    seen = keras_layers(path)
    tensors = read_keras_h5(path)
    assert list(seen) == [layer["name"] for layer in listed] == list(tensors)
    assert len(listed) == 42
    for layer in listed:
        expected = [(name, tuple(shape)) for name, shape in layer["weights"]]
        assert seen[layer["name"]] == expected
        assert [array.shape for array in tensors[layer["name"]]] == [shape for _, shape in expected]
    every = [array for arrays in tensors.values() for array in arrays]
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in every)


@pytest.mark.parametrize(
    ("name", "prefixes", "head", "channels"),
    [
        ("synthseg_1.0", {"unet"}, "unet_likelihood", 32),
        ("synthseg_2.0", {"unet"}, "unet_likelihood", 33),
        ("synthseg_robust_2.0", {"unet", "l2l", "unet2"}, "unet2_likelihood", 33),
        ("synthseg_parc_2.0", {"unet"}, "unet_parc_likelihood", 69),
        ("synthseg_qc_2.0", {"qc"}, "qc_final_conv_1", 9),
    ],
)
def test_golden_published_files(unpacked, name, prefixes, head, channels):
    layers = read_keras_h5(unpacked("weights", f"{name}.h5.gz"))
    assert {layer.split("_")[0] for layer, tensors in layers.items() if tensors} == prefixes
    assert layers[head][0].shape[-1] == channels == layers[head][1].size


@pytest.mark.parametrize("name", ["wl2_001", "dice_002"])
def test_golden_training_checkpoint(unpacked, name):
    path = unpacked("training_checkpoint", f"{name}.h5.gz")
    layers = read_keras_h5(path)
    with h5py.File(path) as file:  # every data set below model_weights, found without the reader
        stored = {}
        file["model_weights"].visititems(
            lambda key, item: stored.update({key: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
        assert "optimizer_weights" in file
    held = {key: tensors for key, tensors in layers.items() if tensors}
    assert "labels_input" in layers and not layers["labels_input"]
    assert all(key.startswith("unet_") for key in held) and len(held) == 16
    assert sum(len(tensors) for tensors in held.values()) == len(stored)
    for layer, tensors in held.items():
        for (inner, _), tensor in zip(keras_layers(path)[layer], tensors, strict=True):
            np.testing.assert_array_equal(tensor, stored[f"{layer}/{inner}"])
    assert held["unet_likelihood"][0].shape == (1, 1, 1, 4, 32)
    assert all(tensor.min() >= 0 for key, (*_, tensor) in held.items() if "_bn_" in key)  # moving variances come last


@pytest.mark.parametrize("texts", ["bytes", "object", "scalar", "mixed"])
@pytest.mark.parametrize("inside", ["", "model_weights"])
def test_forms_of_attributes(tmp_path, texts, inside):
    path = write_weights(tmp_path / "w.h5", small(), inside=inside, texts=texts)
    layers = read_keras_h5(path)
    assert list(layers) == ["input", "conv"] and layers["input"] == []
    np.testing.assert_array_equal(layers["conv"][0], KERNEL)
    np.testing.assert_array_equal(layers["conv"][1], BIAS)


def test_one_layer_with_one_tensor_as_plain_text(tmp_path):
    path = write_weights(tmp_path / "w.h5", {"scale": [("scale/factor:0", np.float64(2.5))]}, texts="scalar")
    (tensor,) = read_keras_h5(path)["scale"]
    assert tensor.shape == () and tensor.dtype == np.float32 and tensor == 2.5


def test_attributes_in_numbered_pieces(tmp_path):
    names = [f"dense_{k}" for k in range(7)]
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for piece, start in enumerate(range(0, 7, 3)):
            file.attrs[f"layer_names{piece}"] = np.array([name.encode() for name in names[start : start + 3]])
        for k, name in enumerate(names):
            group = file.create_group(name)
            group.attrs["weight_names0"] = np.array([f"{name}/kernel:0".encode()])
            group.attrs["weight_names1"] = np.array([f"{name}/bias:0".encode()])
            group[f"{name}/kernel:0"] = np.full((2, 2), k, np.float64)
            group[f"{name}/bias:0"] = np.full(2, -k, np.float16)
    layers = read_keras_h5(tmp_path / "w.h5")
    assert list(layers) == names
    assert [float(layers[name][1][0]) for name in names] == [-0.0, -1, -2, -3, -4, -5, -6]
    assert {tensor.dtype for tensors in layers.values() for tensor in tensors} == {np.dtype(np.float32)}


def test_inner_path_has_no_say(tmp_path):
    inner = {"conv": [("model_1/conv_1/kernel_1:0", KERNEL), ("model_1/conv_1/bias_1:0", BIAS)]}
    layers = read_keras_h5(write_weights(tmp_path / "w.h5", inner))
    np.testing.assert_array_equal(layers["conv"][0], KERNEL)
    np.testing.assert_array_equal(layers["conv"][1], BIAS)


def test_order_is_that_of_the_names_not_of_the_alphabet(tmp_path):
    order = ["gamma:0", "beta:0", "moving_mean:0", "moving_variance:0"]
    tensors = [(f"bn/{name}", np.full(3, k, np.float32)) for k, name in enumerate(order)]
    layers = read_keras_h5(write_weights(tmp_path / "w.h5", {"bn": tensors}))
    assert [float(tensor[0]) for tensor in layers["bn"]] == [0, 1, 2, 3]


def fake_files():
    page = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 53079152\n"
    annex = b"../.git/annex/objects/zP/vP/SHA256E-s53079152--f190.0.h5/SHA256E-s53079152--f190.0.h5"
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return {
        "page": (page, "a web page"),
        "lfs": (lfs, "Git LFS pointer"),
        "annex": (annex, "git-annex pointer"),
        "empty": (b"", "an empty file"),
        "zeros": (bytes(5000), "begins with zeros"),
        "gzip": (gzip.compress(b"data"), "gzip-compressed"),
        "safetensors": (len(header).to_bytes(8, "little") + header + bytes(4), "a safetensors file"),
        "pickle": (pickle.dumps({"a": 1}), "Python pickle"),
        "json": (b'{"error": "not found"}', "a JSON text"),
        "xml": (b"<?xml version='1.0'?><Error/>", "XML document"),
        "text": ("Größe: unbekannt".encode(), "a text file"),
        "noise": (np.random.default_rng(0).bytes(9000), "data of an unknown kind"),
        "npy": (b"\x93NUMPY\x01\x00", "a NumPy array"),
    }


@pytest.mark.parametrize("kind", fake_files())
def test_what_is_no_hdf5_is_named(tmp_path, kind):
    data, expected = fake_files()[kind]
    path = tmp_path / "synthseg_2.0.h5"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=expected) as caught:
        read_keras_h5(path)
    assert caught.value.message.startswith("synthseg_2.0.h5 is not a Keras weights file (HDF5): it is ")
    assert caught.value.hint and str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (["archive/data.pkl", "archive/data/0"], "a PyTorch checkpoint"),
        (["config.json", "model.weights.h5"], "a Keras 3 model archive"),
        (["a.npy", "b.npy"], "a NumPy archive"),
        (["readme.txt"], "a ZIP archive"),
    ],
)
def test_archives_are_told_apart(tmp_path, members, expected):
    path = tmp_path / "weights.h5"
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, b"x")
    with pytest.raises(WeightsError, match=f"it is {expected}"):
        read_keras_h5(path)


def test_missing_and_folder(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.h5 does not exist"):
        read_keras_h5(tmp_path / "none.h5")
    with pytest.raises(WeightsError, match="is a folder"):
        read_keras_h5(tmp_path)


def test_cut_file_says_how_much_is_there(unpacked):
    path = unpacked("weights", "synthseg_qc_2.0.h5.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"synthseg_qc_2\.0\.h5 is cut short: 823\.6 kB of 1\.6 MB are here"):
        read_keras_h5(path)
    path.write_bytes(whole[:40])
    with pytest.raises(WeightsError, match=r"synthseg_qc_2\.0\.h5 is (damaged|cut short|only the beginning)"):
        read_keras_h5(path)


@pytest.mark.parametrize("seed", range(8))
def test_scrambled_file_never_gives_a_foreign_error(tmp_path, seed):
    path = write_weights(tmp_path / "w.h5", small())
    data = bytearray(path.read_bytes())
    generator = np.random.default_rng(seed)
    for position in generator.integers(8, len(data), 60):
        data[position] = int(generator.integers(256))
    path.write_bytes(data)
    try:
        layers = read_keras_h5(path)
    except WeightsError as error:
        assert "w.h5" in error.message
    else:
        assert set(layers) <= {"input", "conv"} or layers


def test_hdf5_that_is_not_keras(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["volume"] = np.zeros(3)
    with pytest.raises(WeightsError, match=r"not one of Keras weights \(no layer names; it holds volume\)"):
        read_keras_h5(tmp_path / "other.h5")
    with h5py.File(tmp_path / "three.h5", "w") as file:
        file["layers/conv3d/vars/0"] = KERNEL
    with pytest.raises(WeightsError, match="written by Keras 3"):
        read_keras_h5(tmp_path / "three.h5")


def test_damage_inside(tmp_path):
    path = write_weights(tmp_path / "w.h5", small())
    with h5py.File(path, "a") as file:
        del file["conv/conv/bias:0"]
    with pytest.raises(WeightsError, match=r"w\.h5 is damaged: the tensor conv \(conv/bias:0\) is listed but not"):
        read_keras_h5(path)
    with h5py.File(path, "a") as file:
        del file["conv"]
    with pytest.raises(WeightsError, match="the layer conv is listed but not there"):
        read_keras_h5(path)


def test_values_must_be_finite_numbers(tmp_path):
    layers = {"dense": [("dense/bias:0", np.array([1, np.nan], np.float32))]}
    with pytest.raises(WeightsError, match=r"dense \(dense/bias:0\) holds values that are not finite"):
        read_keras_h5(write_weights(tmp_path / "w.h5", layers))
    layers = {"dense": [("dense/bias:0", np.array([b"a"]))]}
    with pytest.raises(WeightsError, match="does not hold numbers"):
        read_keras_h5(write_weights(tmp_path / "v.h5", layers))


def test_links_out_of_the_file_are_refused(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["data"] = BIAS
    path = write_weights(tmp_path / "w.h5", small())
    with h5py.File(path, "a") as file:
        del file["conv/conv/bias:0"]
        file["conv/conv/bias:0"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/data")
    with pytest.raises(WeightsError, match="points outside the file"):
        read_keras_h5(path)


def test_match_takes_what_is_needed_and_ignores_the_rest():
    layers = {"input": [], "conv": [KERNEL, BIAS], "generator": [BIAS], "act": []}
    found = match(layers, {"conv": [(3, 3, 3, 1, 2), (2,)], "act": []}, "w.h5")
    assert list(found) == ["conv", "act"] and found["conv"][0] is KERNEL


def test_match_names_the_first_missing_layers():
    needed = {f"unet_conv_{k}": [(2,)] for k in range(5)} | {"conv": [(3, 3, 3, 1, 2), (2,)]}
    with pytest.raises(WeightsError) as caught:
        match({"input": [], "conv": [KERNEL, BIAS]}, needed, "w.h5")
    assert caught.value.message == (
        "w.h5 belongs to another network: it lacks 5 of 6 layers: unet_conv_0, unet_conv_1, unet_conv_2 and 2 more "
        "(it has 1 layers with weights)"
    )


def test_match_tells_version_1_from_version_2(unpacked):
    v1 = read_keras_h5(unpacked("weights", "synthseg_1.0.h5.gz"))
    needed = {name: [tensor.shape for tensor in tensors] for name, tensors in v1.items()}
    needed["unet_likelihood"] = [(1, 1, 1, 8, 33), (33,)]
    with pytest.raises(WeightsError) as caught:
        match(v1, needed, "synthseg_1.0.h5")
    assert caught.value.message == (
        "synthseg_1.0.h5 belongs to another network: "
        "unet_likelihood has 1x1x1x8x32 + 32 where 1x1x1x8x33 + 33 is needed"
    )
    with pytest.raises(WeightsError, match=r"conv has no tensor|lacks the layer conv"):
        match({"conv": []}, {"conv": [(2,)]}, "w.h5")
    with pytest.raises(WeightsError, match=r"conv has 2 where 2 \+ 2 is needed"):
        match({"conv": [BIAS]}, {"conv": [(2,), (2,)]}, "w.h5")


@pytest.mark.parametrize("spatial", [(3,), (3, 2), (3, 2, 4)])
def test_kernel_to_torch_is_a_pure_permutation(spatial):
    kernel = np.arange(np.prod(spatial) * 10, dtype=np.float64).reshape(*spatial, 2, 5)
    turned = conv_kernel_to_torch(kernel)
    assert turned.shape == (5, 2, *spatial) and turned.flags.c_contiguous and turned.dtype == np.float32
    for index in np.ndindex(turned.shape):
        out, into, *where = index
        assert turned[index] == kernel[(*where, into, out)]
