"""From weights files to networks: the published ``.pth``, and safetensors of our own trainings.

A ``.pth`` is what ``torch.save(net.state_dict(), path)`` wrote with the names of MONAI's ``UNet``. It is read with
``weights_only=True``, so nothing in it can run. The numbers of the network (levels, widths, convolutions per block)
are read off names and shapes. The file is converted once: the cache keeps the 46 of 379 million weights that cubes of
32 voxels reach, 0.18 GB in place of 1.5 GB.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoints._sniff import kind_of, remedy_for
from ..checkpoints.cache import cached_state
from ..errors import WeightsError
from .network import ResUNet, ResUNetSpec, build_network, reachable_state

__all__ = [
    "PATCH",
    "from_upstream",
    "load_network",
    "read_upstream",
    "save_network",
    "spec_of_upstream",
    "to_upstream",
    "upstream_names",
]

PATCH = 32
"""Side of the cubes that the published network was trained on and takes."""

_CACHE_KIND = "baby-ai-32"
_INNER = ".1.submodule"


def _prefix(level: int) -> str:
    return "model" + _INNER * level


def upstream_names(spec: ResUNetSpec) -> Iterator[tuple[str, str]]:
    """Yield (name in the published file, name here) of every tensor, in the order of the published file."""
    yield from _names_of_level(spec, 0)


def _names_of_level(spec: ResUNetSpec, level: int) -> Iterator[tuple[str, str]]:
    prefix = _prefix(level)
    if level == spec.depth:
        yield from _block_names(spec, prefix, "bottom", skip=spec.channels[-1] != spec.channels[-2])
        return
    yield from _block_names(spec, f"{prefix}.0", f"down.{level}", skip=True)
    yield from _names_of_level(spec, level + 1)
    parts = (f"{prefix}.2.0", f"up.{level}.up"), (f"{prefix}.2.1.conv.unit0", f"up.{level}.unit")
    for (theirs, ours), active in zip(parts, (True, level > 0), strict=True):
        yield from _unit_names(theirs, ours, active=active)


def _block_names(spec: ResUNetSpec, theirs: str, ours: str, *, skip: bool) -> Iterator[tuple[str, str]]:
    for unit in range(spec.units):
        yield from _unit_names(f"{theirs}.conv.unit{unit}", f"{ours}.units.{unit}", active=True)
    if skip:
        yield from ((f"{theirs}.residual.{part}", f"{ours}.skip.{part}") for part in ("weight", "bias"))


def _unit_names(theirs: str, ours: str, *, active: bool) -> Iterator[tuple[str, str]]:
    yield from ((f"{theirs}.conv.{part}", f"{ours}.conv.{part}") for part in ("weight", "bias"))
    if active:
        yield f"{theirs}.adn.A.weight", f"{ours}.slope"


def spec_of_upstream(state: Mapping[str, Tensor], file_name: str) -> ResUNetSpec:
    """Read the numbers of the network off names and shapes.

    Raises
    ------
    WeightsError : the tensors are not those of such a network for T1w and T2w; says which one does not fit.

    """
    depth = 0
    while f"{_prefix(depth)}.0.conv.unit0.conv.weight" in state:
        depth += 1
    bottom = f"{_prefix(depth)}.conv.unit0.conv.weight"
    if not depth or bottom not in state:
        wrong = next((name for name in state if not name.startswith("model.")), "")
        detail = f"it begins with the tensor {wrong}" if wrong else "its blocks are incomplete"
        raise WeightsError(
            f"{file_name} does not hold the residual U-Net of BABY-AI: {detail}", "use the published weights file"
        )
    norm = next((name for name in state if ".adn.N." in name), None)
    if norm:
        raise WeightsError(f"{file_name} has normalisation layers ({norm})", "use weights of a network without them")
    first = state[f"{_prefix(0)}.0.conv.unit0.conv.weight"]
    widths = [int(state[f"{_prefix(level)}.0.conv.unit0.conv.weight"].shape[0]) for level in range(depth)]
    widths.append(int(state[bottom].shape[0]))
    if int(first.shape[1]) != 2:
        raise WeightsError(
            f"{file_name} takes {int(first.shape[1])} input channels; T1w and T2w are 2", "use weights for this pair"
        )
    units = sum(1 for name in state if re.fullmatch(r"model\.0\.conv\.unit\d+\.conv\.weight", name))
    spec = ResUNetSpec(tuple(widths), units)
    _check_tensors(state, spec, file_name)
    return spec


def _check_tensors(state: Mapping[str, Tensor], spec: ResUNetSpec, file_name: str) -> None:
    """Raise WeightsError for the first tensor that is missing, left over, or of another shape."""
    names = dict(upstream_names(spec))
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in ResUNet(spec).state_dict().items()}
    for theirs, ours in names.items():
        if theirs not in state:
            raise WeightsError(f"{file_name} lacks the tensor {theirs}", "fetch the file again or use another one")
        found = tuple(state[theirs].shape)
        if found != wanted[ours]:
            raise WeightsError(
                f"the tensor {theirs} of {file_name} has the shape {found}, not {wanted[ours]}", "use another file"
            )
    left = [name for name in state if name not in names]
    if left:
        raise WeightsError(f"{file_name} has a tensor too many, {left[0]}", "use the published weights file")


def read_upstream(path: str | Path) -> dict[str, Tensor]:
    """Read a ``.pth`` file: tensors by their published names, float32, mapped from the file where it allows that.

    Raises
    ------
    WeightsError : the file is missing, damaged, or holds something else than a dictionary of tensors.

    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"weights file {path.name} does not exist", "check the name")
    try:
        kind = kind_of(path)
        content = _torch_load(path)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        remedy = remedy_for(kind) or "fetch the file again"
        what = "is damaged or cut short" if kind == "a PyTorch checkpoint" else f"is {kind}"
        raise WeightsError(f"{path.name} cannot be read as PyTorch weights; it {what}", remedy) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path.name} holds no dictionary of tensors", "save it with torch.save(net.state_dict())")
    return {str(name).removeprefix("module."): value.float() for name, value in content.items()}


def _torch_load(path: Path) -> Any:
    """Load without running anything; files of torch before 1.6 cannot be mapped."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
    return torch.load(path, map_location="cpu", weights_only=True)


def from_upstream(state: Mapping[str, Tensor], spec: ResUNetSpec) -> dict[str, Tensor]:
    """Return a state dict under the names of :class:`.network.ResUNet`."""
    return {ours: state[theirs] for theirs, ours in upstream_names(spec)}


def to_upstream(state: Mapping[str, Tensor], spec: ResUNetSpec) -> dict[str, Tensor]:
    """Return a state dict under the published names, in the published order."""
    return {theirs: state[ours] for theirs, ours in upstream_names(spec)}


def load_network(path: str | Path, *, whole: bool = False) -> ResUNet:
    """Load a network in evaluation mode on the CPU.

    Parameters
    ----------
    path : ``.pth`` (or ``.pt``, ``.ckpt``) with the published names, or ``.safetensors`` of :func:`save_network`.
    whole : keep the whole kernels; else those of a ``.pth`` are cut down to what cubes of 32 voxels reach, once, and
        cached; the output for such cubes is the same.

    Raises
    ------
    WeightsError : the file is unreadable, or belongs to another network.

    """
    path = Path(path)
    if path.suffix.lower() == ".safetensors":
        state, spec = _read_safetensors(path)
        patch = spec.patch
        if whole or patch is None:
            return build_network(state, spec.with_patch(None))
        return build_network(reachable_state(state, spec), spec)
    if whole:
        published = read_upstream(path)
        spec = spec_of_upstream(published, path.name)
        return build_network(from_upstream(published, spec), spec)
    flat = cached_state(path, _convert, kind=_CACHE_KIND)
    spec = ResUNetSpec(tuple(int(n) for n in flat.pop("channels")), int(flat.pop("units")[0]), patch=PATCH)
    return build_network({name: torch.from_numpy(array) for name, array in flat.items()}, spec)


def _convert(path: Path) -> dict[str, np.ndarray]:
    """Return the reachable weights of a published file, and the numbers of its network."""
    published = read_upstream(path)
    spec = spec_of_upstream(published, path.name).with_patch(PATCH)
    state = reachable_state(from_upstream(published, spec), spec)
    arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in state.items()}
    return arrays | {"channels": np.array(spec.channels), "units": np.array([spec.units])}


def save_network(network: ResUNet, path: str | Path, patch: int) -> Path:
    """Write a network with whole kernels as safetensors that names the cubes (side ``patch``) it was trained on."""
    from safetensors.torch import save_file

    from ..volume import atomic_path

    path = Path(path)
    facts = asdict(network.spec) | {"patch": patch}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"resunet": json.dumps(facts)})
    return path


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], ResUNetSpec]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"weights file {path.name} does not exist", "check the name")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("resunet", "null"))
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path.name} is not a complete safetensors file", "fetch the file again") from error
    if not isinstance(facts, dict):
        raise WeightsError(f"{path.name} does not hold a network of this room", "use weights written by its training")
    return state, ResUNetSpec(**{**facts, "channels": tuple(facts["channels"])})
