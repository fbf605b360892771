"""From weights files to networks: published Keras files, and our own safetensors.

Keras numbers its layers through the life of a process, so the names in a file say nothing: layers are taken in the
file's order, and the shapes of their tensors decide which network they are and whether they fit it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from .._atomic import atomic_path
from ..checkpoints.cache import cached_state
from ..checkpoints.keras_h5 import conv_kernel_to_torch, read_keras_h5
from ..errors import WeightsError
from .network import DISCRIMINATOR_FEATURES, PREDICTOR_FEATURES, Discriminator, Generator, Predictor, build_network

__all__ = [
    "NETWORK_NAMES",
    "convert_layers",
    "load_generator",
    "load_network",
    "load_predictor",
    "load_state",
    "save_network",
]

Network = Generator | Discriminator | Predictor
Tensors = Sequence[np.ndarray]
State = dict[str, np.ndarray]
N = TypeVar("N", Generator, Discriminator, Predictor)

NETWORK_NAMES: dict[type, str] = {
    Generator: "a harmonization generator",
    Discriminator: "a discriminator of a harmonization training",
    Predictor: "a prediction network",
}

_CACHE_KIND = "iguane"
_BLOCK = ("conv.weight", "conv.bias", "norm.scale", "norm.offset")
_OTHER = "give a weights file of IGUANe"


def load_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a ``.h5`` or ``.safetensors`` file as a state dict of float32 tensors; Keras files are converted once.

    Raises WeightsError when the file is unreadable or holds none of the networks.
    """
    path = Path(path)
    if path.suffix.lower() == ".safetensors":
        flat = _read_safetensors(path)
    else:
        flat = cached_state(path, lambda p: convert_layers(read_keras_h5(p), p.name), kind=_CACHE_KIND)
    arrays = {name: np.asarray(array) for name, array in flat.items()}
    return {name: torch.from_numpy(a if a.flags.writeable else a.copy()) for name, a in arrays.items()}


def load_network(path: str | Path) -> Network:
    """Build whichever network a file holds, in evaluation mode on the CPU; WeightsError as :func:`load_state`."""
    path = Path(path)
    try:
        return build_network(load_state(path))
    except WeightsError as error:
        if path.name in error.message:
            raise
        raise WeightsError(f"{path.name}: {error.message}", error.hint or _OTHER) from error


def load_generator(path: str | Path) -> Generator:
    """Build the generator of a file; WeightsError, saying what the file holds, when it is another network."""
    return _load_as(path, Generator)


def load_predictor(path: str | Path) -> Predictor:
    """Build the prediction network of a file; WeightsError, saying what the file holds, when it is another one."""
    return _load_as(path, Predictor)


def save_network(network: torch.nn.Module, path: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write a network's weights as ``.safetensors``, with what it is and its numbers in the metadata.

    Raises OutputError when the file cannot be written.
    """
    from safetensors.torch import save

    state = {name: value.detach().cpu().to(dtype).contiguous() for name, value in network.state_dict().items()}
    metadata = {"format": "mri-deep-tools iguane 1", "network": type(network).__name__.lower()}
    if isinstance(network, Generator):
        metadata |= {"width": str(network.spec.width), "levels": str(network.spec.levels)}
        metadata |= {"phases": str(network.spec.phases)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(state, metadata=metadata))
    return path


def convert_layers(layers: Mapping[str, Tensors], file_name: str) -> State:
    """Convert Keras layers (name -> tensors, in file order) to the state dict of the network that they are.

    Raises WeightsError when they are none of the networks, or one with layers too many, too few or of other shapes.
    """
    tensors: list[Tensors] = [list(parts) for parts in layers.values() if parts]
    first = tensors[0][0].shape if tensors else ()
    convert: Callable[[list[Tensors]], State]
    if tensors and len(first) == 5 and first[0] == 4:
        convert = _discriminator
    elif tensors and len(tensors[-1][0].shape) == 2:
        convert = _predictor
    elif tensors and len(first) == 5 and len(tensors) % 4 == 2:
        convert = _generator
    else:
        found = f"{len(tensors)} layers with weights"
        raise WeightsError(f"{file_name} holds no network of IGUANe ({found})", _OTHER)
    try:
        state = convert(tensors)
        build_network({name: torch.from_numpy(array) for name, array in state.items()})
    except (ValueError, IndexError, WeightsError) as error:
        detail = error.message if isinstance(error, WeightsError) else str(error)
        raise WeightsError(f"{file_name} holds no network of IGUANe ({detail})", _OTHER) from error
    return state


def _generator(tensors: list[Tensors]) -> State:
    state: State = {}
    for number, parts in enumerate(tensors[:-1]):
        # (x, y, z, in, out) of a convolution and (x, y, z, out, in) of a transposed one both become torch's order.
        state |= _named(f"blocks.{number}.", _BLOCK, parts)
    return state | _named("head.", ("weight", "bias"), tensors[-1])


def _discriminator(tensors: list[Tensors]) -> State:
    _require_count(tensors, len(DISCRIMINATOR_FEATURES) + 1)
    state = _named("convs.0.", ("weight",), tensors[0])
    for number, parts in enumerate(tensors[1:-1]):
        state |= _named("", (f"convs.{number + 1}.weight", f"norms.{number}.scale", f"norms.{number}.offset"), parts)
    return state | _named("head.", ("weight", "bias"), tensors[-1])


def _predictor(tensors: list[Tensors]) -> State:
    _require_count(tensors, len(PREDICTOR_FEATURES) + 1)
    norm = ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    state: State = {}
    for number, parts in enumerate(tensors[:-1]):
        state |= _named(f"blocks.{number}.", ("conv_0.weight", "conv_1.weight", *norm), parts)
        state[f"blocks.{number}.norm.num_batches_tracked"] = np.zeros((), dtype=np.int64)
    kernel, bias = tensors[-1]
    return state | {"dense.weight": np.ascontiguousarray(kernel.T), "dense.bias": np.asarray(bias)}


def _named(prefix: str, names: Sequence[str], parts: Tensors) -> State:
    """Give names to the tensors of a layer; kernels are turned into torch's order of axes."""
    if len(parts) != len(names):
        raise ValueError(f"a layer has {len(parts)} tensors in place of {len(names)}")
    arrays = (conv_kernel_to_torch(part) if part.ndim == 5 else np.asarray(part, dtype=np.float32) for part in parts)
    return {prefix + name: array for name, array in zip(names, arrays, strict=True)}


def _require_count(tensors: list[Tensors], count: int) -> None:
    if len(tensors) != count:
        raise ValueError(f"{len(tensors)} layers with weights in place of {count}")


def _load_as(path: str | Path, kind: type[N]) -> N:
    network = load_network(path)
    if not isinstance(network, kind):
        message = f"{Path(path).name} holds {NETWORK_NAMES[type(network)]}, not {NETWORK_NAMES[kind]}"
        raise WeightsError(message, "give the weights file that belongs to this command")
    return network


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise WeightsError(f"weights file {path.name} does not exist", "check the name")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path.name} is not a complete safetensors file", "fetch the file again") from error
