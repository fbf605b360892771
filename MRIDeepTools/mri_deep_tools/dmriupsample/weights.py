"""From weights files to networks: published TensorFlow checkpoints, and our own safetensors.

Our own files may hold networks of other widths than the published ones, with batch normalisation in the first layers,
or guided by spherical harmonics (a tensor ``smoothing``); all this is read from the tensors, and what cannot be seen
in them (:class:`Facts`) stands in the file's metadata. Tensors may be stored as float16.

A published checkpoint names its tensors ``layer_with_weights-N/layer_with_weights-M/<leaf>``: N is 0 for the encoder
and 1 for the decoder, M numbers the layers in the order in which they were made. Optimiser state is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ..checkpoints.cache import cached_state
from ..checkpoints.keras_h5 import conv_kernel_to_torch
from ..checkpoints.tf_bundle import bundle_files, bundle_prefix, read_bundle, read_bundle_index
from ..errors import WeightsError
from .facts import Facts, read_facts
from .network import PATCH, RCNN, ConvLSTM, ConvUnit, unit_names

__all__ = [
    "Facts",
    "check_index",
    "dims_of",
    "load_network",
    "load_state",
    "network_from_state",
    "read_facts",
    "save_network",
    "weight_keys",
]

_KIND = "dmri-rcnn"
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT = "/.OPTIMIZER_SLOT/"
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_LEAVES = {
    "conv_layer/layer/kernel": "weight",
    "conv_layer/layer/bias": "bias",
    "norm_layer/gamma": "norm.weight",
    "norm_layer/beta": "norm.bias",
    "norm_layer/moving_mean": "norm.running_mean",
    "norm_layer/moving_variance": "norm.running_var",
}
_CELL_LEAVES = {"cell/kernel": "weight", "cell/recurrent_kernel": "recurrent", "cell/bias": "bias"}
_HINT = "name the weights of a dMRI-RCNN model: its folder, its weights.index, or a .safetensors file"


def weight_keys(dims: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return checkpoint key -> (name in the network, shape in the checkpoint) of the ``dims``-D model (1 or 3)."""
    with torch.device("meta"):
        network = RCNN(dims)
    keys: dict[str, tuple[str, tuple[int, ...]]] = {}
    for number, part in enumerate(("encoder", "decoder")):
        layers = dict(getattr(network, part).named_children())
        for index, (name, layer) in enumerate(layers.items()):
            leaves = _CELL_LEAVES if isinstance(layer, ConvLSTM) else _LEAVES
            tensors = layer.state_dict() if isinstance(layer, (ConvLSTM, ConvUnit)) else {}
            for leaf, own in leaves.items():
                if own in tensors:
                    key = f"layer_with_weights-{number}/layer_with_weights-{index}/{leaf}{_SUFFIX}"
                    keys[key] = (f"{part}.{name}.{own}", _keras_shape(tuple(tensors[own].shape)))
    return keys


def _keras_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[2:], shape[1], shape[0]) if len(shape) == 5 else shape


def load_network(path: str | Path, device: torch.device | str = "cpu") -> RCNN:
    """Build the network that a file holds, in evaluation mode.

    Parameters
    ----------
    path :
        Prefix or ``.index`` of a checkpoint, the folder of one, a ``.safetensors`` file, or a folder with
        ``model.safetensors``.

    Raises
    ------
    WeightsError : the file cannot be read, is damaged, or belongs to another network.

    """
    return network_from_state(load_state(path), Path(path).name).to(device)


def network_from_state(state: dict[str, np.ndarray], name: str = "the state") -> RCNN:
    """Build a network from its state (names of the network), in evaluation mode. Raises WeightsError."""
    dims = dims_of(state, name)
    first = state["encoder.init.norm.weight"]
    network = RCNN(
        dims,
        int(first.shape[0]) if first.ndim == 3 else PATCH,
        _widths(state, dims),
        spatial="instance" if first.ndim == 3 else "batch",
        smoothing=float(state["smoothing"]) if "smoothing" in state else None,
    )
    expected = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    _compare(expected, {key: tuple(array.shape) for key, array in state.items()}, name)
    tensors = {key: torch.from_numpy(np.array(array, dtype=np.float32)) for key, array in state.items()}
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)


def dims_of(state: dict[str, np.ndarray], name: str = "the state") -> int:
    """Return 1 or 3, whichever network the names are of. Raises WeightsError for another network."""
    if "encoder.init.norm.weight" not in state or "decoder.dc4.weight" not in state:
        raise WeightsError(f"{name} does not hold a dMRI-RCNN network", _HINT)
    return 3 if "encoder.ecv13.weight" in state else 1


def _widths(state: Mapping[str, np.ndarray], dims: int) -> dict[str, int]:
    """Return the width of each layer from the shapes of the tensors; a layer that is missing is found out later."""
    widths: dict[str, int] = {}
    for unit in unit_names(dims):
        for part in ("encoder", "decoder"):
            weight = state.get(f"{part}.{unit}.recurrent", state.get(f"{part}.{unit}.weight"))
            if weight is not None and weight.ndim == 5:
                widths[unit] = int(weight.shape[1] if unit == "conv_lstm" else weight.shape[0])
    return widths


def load_state(path: str | Path) -> dict[str, np.ndarray]:
    """Return the tensors of a weights file under the network's names, float32, in PyTorch's axis order.

    A checkpoint is converted once and the copy kept in the cache, under the checksum of its index file, which holds
    the checksums of all tensors. Raises WeightsError.
    """
    path = Path(path)
    if path.is_dir() and (path / "model.safetensors").is_file():
        path = path / "model.safetensors"
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    index = bundle_files(path)[0]
    return cached_state(index, _convert, kind=_KIND)


def save_network(network: RCNN, path: str | Path, facts: Facts | None = None, *, half: bool = False) -> Path:
    """Write a network's weights as safetensors, all or nothing.

    Parameters
    ----------
    network :
        Of any widths.
    path :
        A ``.safetensors`` file.
    facts :
        What the network was trained for; goes into the file's metadata and decides for which scans it is taken.
    half :
        Store float16, which is half as large; results then differ by about 1e-3 of their range.

    Raises
    ------
    OutputError : the file cannot be written.

    """
    from safetensors.torch import save_file

    from ..volume import atomic_path

    path, kind = Path(path), torch.float16 if half else torch.float32
    metadata = {"network": "dmri-rcnn", "dims": str(network.dims)} | (facts.as_metadata() if facts else {})
    with atomic_path(path) as temporary:
        state = {
            name: tensor.detach().to("cpu", kind if tensor.ndim else torch.float32).contiguous()
            for name, tensor in network.state_dict().items()
        }
        save_file(state, temporary, metadata=metadata)
    return path


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return {name: np.asarray(array, dtype=np.float32) for name, array in load_file(path).items()}
    except FileNotFoundError:
        raise WeightsError(f"{path.name} does not exist", _HINT) from None
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"{path.name} cannot be read as safetensors ({error})", "copy it again") from None


def _convert(index: Path) -> dict[str, np.ndarray]:
    """Return the network's tensors from a checkpoint that holds exactly these, optimiser state aside."""
    entries = read_bundle_index(index)
    stored = {key for key in entries if _is_weight(key)}
    dims = 3 if any("layer_with_weights-9/" in key for key in stored) else 1
    keys = weight_keys(dims)
    expected = {key: shape for key, (_, shape) in keys.items()}
    _compare(expected, {key: entries[key].shape for key in stored}, bundle_prefix(index).name)
    tensors = read_bundle(index, keys.__contains__)
    state = {}
    for key, (name, _) in keys.items():
        array = tensors[key]
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise WeightsError(f"{index.name}: {name} does not hold finite float32 numbers", "copy it again")
        state[name] = conv_kernel_to_torch(array) if array.ndim == 5 else array
    return state


def check_index(path: Path, dims: int) -> None:
    """Raise WeightsError where the index of a checkpoint is not that of the ``dims``-D network; other files pass.

    The other files of a checkpoint are checked when it is read, by the checksums in its index.
    """
    if path.suffix != ".index":
        return
    entries = read_bundle_index(path)
    stored = {key: entry.shape for key, entry in entries.items() if _is_weight(key)}
    _compare({key: shape for key, (_, shape) in weight_keys(dims).items()}, stored, path.name)


def _is_weight(key: str) -> bool:
    return not (key == _GRAPH or key.startswith(("optimizer/", "save_counter/")) or _SLOT in key)


def _compare(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], name: str) -> None:
    """Raise WeightsError unless names and shapes are the expected ones."""
    missing, foreign = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    wrong = sorted(key for key in set(expected) & set(found) if expected[key] != found[key])
    for keys, what in ((missing, "lacks"), (foreign, "also holds"), (wrong, "has another shape of")):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise WeightsError(f"{name} belongs to another network: it {what} {keys[0]}{more}", _HINT)
