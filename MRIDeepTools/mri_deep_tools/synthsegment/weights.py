"""From weights files to networks: published Keras files, upstream training checkpoints, and our own safetensors.

Layers are matched by name alone, and a missing layer or a foreign shape is an error. A file may hold several networks
(the robust file holds three); each is told by the prefix of its layer names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ..checkpoints.cache import cached_state
from ..checkpoints.keras_h5 import read_keras_h5
from ..errors import WeightsError
from .labels import V1_CHANNELS, V2_CHANNELS
from .network import QCRegressor, UNet, build_network

__all__ = [
    "NETWORK_NAMES",
    "check_version",
    "convert_layers",
    "load_regressor",
    "load_states",
    "load_unets",
    "segmentation_codes",
]

NETWORK_NAMES = {
    "unet": "segmentation U-Net",
    "l2l": "denoiser of the robust chain",
    "unet2": "second segmentation network of the robust chain",
    "unet_parc": "cortical parcellation network",
    "qc": "quality-control regressor",
}
"""What the prefix of the layer names says about a network."""

Layers = Mapping[str, Sequence[np.ndarray]]
States = dict[str, dict[str, torch.Tensor]]

_SEPARATOR = "/"  # between network prefix and tensor name in flat files
_CACHE_KIND = "synthseg"
_ROBUST = ("unet", "l2l", "unet2")


def load_states(path: str | Path) -> States:
    """Read every network of a ``.h5`` or ``.safetensors`` file as ``{prefix: state dict}`` of float32 tensors.

    A safetensors file with bare tensor names holds one network, filed under ``unet`` or ``qc``. Keras files are
    converted once and cached. Raises WeightsError when the file is unreadable or holds none of the networks.
    """
    path = Path(path)
    if path.suffix.lower() == ".safetensors":
        flat = _read_safetensors(path)
    else:
        flat = cached_state(path, _flatten, kind=_CACHE_KIND)
    states: States = {}
    for key, tensor in flat.items():
        prefix, _, name = key.rpartition(_SEPARATOR)
        array = np.asarray(tensor, dtype=np.float32)
        states.setdefault(prefix, {})[name] = torch.from_numpy(array if array.flags.writeable else array.copy())
    if "" in states:
        bare = states.pop("")
        states["qc" if "final_1.weight" in bare else "unet"] = bare
    return states


def load_unets(path: str | Path, prefixes: Sequence[str] = ("unet",)) -> list[UNet]:
    """Build the U-Nets with these prefixes from one file, in evaluation mode on the CPU.

    Raises WeightsError, saying what the file holds instead, when one of them is missing or does not fit.
    """
    return [network for network in _load(Path(path), prefixes) if isinstance(network, UNet)]


def load_regressor(path: str | Path) -> QCRegressor:
    """Build the quality-control regressor from a file; raises like :func:`load_unets`."""
    (network,) = _load(Path(path), ("qc",))
    if not isinstance(network, QCRegressor):
        raise WeightsError(f"{Path(path).name} does not hold the {NETWORK_NAMES['qc']}", "use another file")
    return network


def _load(path: Path, prefixes: Sequence[str]) -> list[UNet | QCRegressor]:
    states = load_states(path)
    missing = [prefix for prefix in prefixes if prefix not in states]
    if missing:
        wanted = " and ".join(f"the {NETWORK_NAMES.get(prefix, prefix)}" for prefix in missing)
        message = f"{path.name} does not hold {wanted}, but {_contents(states)}"
        raise WeightsError(message, "give the weights file that belongs to this option")
    try:
        return [build_network(states[prefix]) for prefix in prefixes]
    except WeightsError as error:
        raise WeightsError(f"{path.name}: {error.message}", "fetch the file again or use another one") from error


def segmentation_codes(network: UNet, file_name: str) -> tuple[int, ...]:
    """Return the label codes of a network's output channels: 33 are version 2's, 32 version 1's."""
    for codes in (V2_CHANNELS, V1_CHANNELS):
        if len(codes) == network.spec.out_channels:
            return codes
    message = f"{file_name} gives {network.spec.out_channels} structures; version 2.0 has 33 and version 1.0 has 32"
    raise WeightsError(message, "use a segmentation model of one of these versions")


def check_version(codes: Sequence[int], version: str | None, file_name: str) -> None:
    """Raise WeightsError when the weights are not of the requested version (``"1.0"``, ``"2.0"`` or None = any)."""
    found = "2.0" if tuple(codes) == V2_CHANNELS else "1.0"
    if version is not None and version != found:
        hint = "drop the option --v1" if found == "2.0" else "add the option --v1"
        raise WeightsError(f"{file_name} is of version {found}, not {version}", f"{hint} or give another weights file")


def _contents(states: States) -> str:
    role = [NETWORK_NAMES.get(prefix, prefix) for prefix in states]
    if all(prefix in states for prefix in _ROBUST):
        return "the three networks of the robust chain"
    return "the " + " and the ".join(role) if role else "no network of this family"


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise WeightsError(f"weights file {path.name} does not exist", "check the name")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path.name} is not a complete safetensors file", "fetch the file again") from error


def _flatten(path: Path) -> dict[str, np.ndarray]:
    """Convert every network of a Keras file to ``prefix/tensor name`` -> array."""
    networks = convert_layers(read_keras_h5(path), path.name)
    return {f"{prefix}{_SEPARATOR}{name}": a for prefix, state in networks.items() for name, a in state.items()}


def convert_layers(layers: Layers, file_name: str) -> dict[str, dict[str, np.ndarray]]:
    """Convert Keras layers (name -> tensors in file order) to state dicts by network prefix; other layers are ignored.

    Raises WeightsError when the layers hold no network of this family or a network lacks one of its layers.
    """
    pattern = re.compile(r"(.+)_conv_downarm_0_0")
    prefixes = [match.group(1) for name in layers if (match := pattern.fullmatch(name))]
    if not prefixes:
        raise WeightsError(f"{file_name} holds no SynthSeg network", "give a weights file of SynthSeg 1.0 or 2.0")
    reader = _LayerReader(layers, file_name)
    states = {}
    for prefix in prefixes:
        is_qc = f"{prefix}_expand_down_merge_0" in layers or f"{prefix}_final_conv_0" in layers
        states[prefix] = reader.qc(prefix) if is_qc else reader.unet(prefix)
    return states


class _LayerReader:
    """Takes layers by name and turns their tensors into torch's order of axes."""

    def __init__(self, layers: Layers, file_name: str) -> None:
        self.layers, self.file_name = layers, file_name

    def unet(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the state dict of the U-Net with this prefix."""
        levels, convs = self._count(f"{prefix}_conv_downarm_{{}}_0"), self._count(f"{prefix}_conv_downarm_0_{{}}")
        state: dict[str, np.ndarray] = {}
        for level in range(levels):
            for i in range(convs):
                state |= self._conv(f"{prefix}_conv_downarm_{level}_{i}", f"encoder.{level}.convs.{i}")
            state |= self._norm(f"{prefix}_bn_down_{level}", f"encoder.{level}.norm")
        for j in range(levels - 1):
            for i in range(convs):
                state |= self._conv(f"{prefix}_conv_uparm_{levels + j}_{i}", f"decoder.{j}.convs.{i}")
            state |= self._norm(f"{prefix}_bn_up_{j}", f"decoder.{j}.norm")
        return state | self._conv(f"{prefix}_likelihood", "head")

    def qc(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the state dict of the quality-control regressor with this prefix."""
        state: dict[str, np.ndarray] = {}
        for level in range(self._count(f"{prefix}_conv_downarm_{{}}_0")):
            state |= self._conv(f"{prefix}_conv_downarm_{level}_0", f"levels.{level}.conv_0")
            state |= self._conv(f"{prefix}_conv_downarm_{level}_1", f"levels.{level}.conv_1")
            state |= self._conv(f"{prefix}_expand_down_merge_{level}", f"levels.{level}.expand")
            state |= self._norm(f"{prefix}_bn_down_{level}", f"levels.{level}.norm")
        state |= self._conv(f"{prefix}_final_conv_0", "final_0")
        return state | self._conv(f"{prefix}_final_conv_1", "final_1")

    def _count(self, template: str) -> int:
        count = 0
        while template.format(count) in self.layers:
            count += 1
        return count

    def _tensors(self, layer: str, shapes: tuple[int, ...]) -> list[np.ndarray]:
        if layer not in self.layers:
            raise WeightsError(f"layer {layer} is missing in {self.file_name}", "fetch the file again")
        tensors = [np.asarray(tensor, dtype=np.float32) for tensor in self.layers[layer]]
        if tuple(tensor.ndim for tensor in tensors) != shapes:
            found = [tuple(tensor.shape) for tensor in tensors]
            raise WeightsError(f"layer {layer} of {self.file_name} has tensors of shapes {found}", "use another file")
        return tensors

    def _conv(self, layer: str, name: str) -> dict[str, np.ndarray]:
        kernel, bias = self._tensors(layer, (5, 1))
        weight = np.ascontiguousarray(kernel.transpose(4, 3, 0, 1, 2))  # (x, y, z, in, out) -> (out, in, x, y, z)
        return {f"{name}.weight": weight, f"{name}.bias": bias}

    def _norm(self, layer: str, name: str) -> dict[str, np.ndarray]:
        parts = ("weight", "bias", "running_mean", "running_var")
        tensors = self._tensors(layer, (1, 1, 1, 1))
        return {f"{name}.{part}": tensor for part, tensor in zip(parts, tensors, strict=True)}
