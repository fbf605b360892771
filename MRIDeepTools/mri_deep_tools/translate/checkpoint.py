"""Files of one generator: the published ``.pth``, and safetensors with the same names of tensors.

A ``.pth`` is what ``torch.save(net.state_dict(), path)`` wrote, with any number of leading ``module.`` from parallel
training. It is read with ``weights_only=True``, so nothing in it can run. The numbers of the network are read off names
and shapes; every name and shape is then compared with the network that they make.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._atomic import atomic_path
from ..checkpoints._sniff import kind_of, remedy_for
from ..errors import RequestError, WeightsError
from .network import NCSNpp, NCSNppSpec

__all__ = ["check_tensors", "load_generator", "read_state", "save_generator"]

_FORMAT = "mri-deep-tools translate 1"
_WANTED = "give gen_diffusive_1_E.pth or gen_diffusive_2_E.pth, E being the epoch"
_OTHER_NETWORKS = (
    ("model.10.conv_block.1.weight", "a one-pass generator (gen_non_diffusive), which only the training uses"),
    ("start_conv.weight", "a discriminator of a training"),
    ("model.11.weight", "a discriminator of a training"),
)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read ``.pth`` or ``.safetensors``: tensors by name, without leading ``module.``, floating ones as float32.

    Raises
    ------
    WeightsError : the file is missing, damaged, or holds something else than a dictionary of tensors.

    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"weights file {path.name} does not exist", "check the name")
    content = _read_safetensors(path)[0] if path.suffix.lower() == ".safetensors" else _read_pth(path)
    state = {}
    for name, value in content.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError(f"the tensor {name} of {path.name} is not finite", "use another file")
        state[re.sub(r"^(module\.)+", "", name)] = value.float() if value.is_floating_point() else value
    return state


def load_generator(path: str | Path, image_size: int | None = None) -> NCSNpp:
    """Load a generator in evaluation mode on the CPU.

    Parameters
    ----------
    path : ``.pth`` or ``.safetensors``.
    image_size : side of the images of its training; None reads it off the file (see :meth:`.NCSNppSpec.from_state`).

    Raises
    ------
    WeightsError : the file is unreadable, or holds something else; the sentence says what.

    """
    path = Path(path)
    state = read_state(path)
    stated = _stated_spec(path) if path.suffix.lower() == ".safetensors" else None
    try:
        spec = stated if stated is not None and image_size is None else NCSNppSpec.from_state(state, image_size)
    except (WeightsError, RequestError) as error:
        other = next((what for name, what in _OTHER_NETWORKS if name in state), None)
        if other is not None:
            raise WeightsError(f"{path.name} holds {other}", _WANTED) from error
        raise WeightsError(f"{path.name}: {error.message}", _WANTED) from error
    with torch.device("meta"):
        network = NCSNpp(spec)
    check_tensors(network, state, path.name)
    network.load_state_dict(state, assign=True)
    return network.eval()


def check_tensors(network: torch.nn.Module, state: Mapping[str, Tensor], file_name: str) -> None:
    """Raise WeightsError for the first tensor that is missing, left over, or of another shape or type."""
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in state:
            raise WeightsError(f"{file_name} lacks the tensor {name}", "fetch the file again or use another one")
        found = state[name]
        if found.shape != tensor.shape:
            raise WeightsError(
                f"the tensor {name} of {file_name} has the shape {tuple(found.shape)}, not {tuple(tensor.shape)}",
                "use another file",
            )
        if found.is_floating_point() != tensor.is_floating_point():
            raise WeightsError(f"the tensor {name} of {file_name} has the type {found.dtype}", "use another file")
    left = next((name for name in state if name not in wanted), None)
    if left is not None:
        raise WeightsError(f"{file_name} has a tensor too many, {left}", "use another file")


def save_generator(network: NCSNpp, path: str | Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write a generator as safetensors, with its numbers in the metadata; appears whole or not at all.

    Raises
    ------
    OutputError : the file cannot be written.

    """
    from dataclasses import asdict

    from safetensors.torch import save

    path = Path(path)
    state = {name: value.detach().cpu().to(dtype).contiguous() for name, value in network.state_dict().items()}
    metadata = {"format": _FORMAT, "generator": json.dumps(asdict(network.spec))}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(state, metadata=metadata))
    return path


# ------------------------------------------------------------------------------------------------------------ reading


def _read_pth(path: Path) -> dict[str, Tensor]:
    """Read a ``.pth`` without running anything in it."""
    try:
        kind = kind_of(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if kind != "a PyTorch checkpoint" or not found:
            raise _unreadable(path, kind) from error
        message = f"{path.name} holds Python objects beside tensors ({found[1]}), which could run code; it is not read"
        raise WeightsError(message, _WANTED) from error
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, AttributeError, IndexError, TypeError) as error:
        raise _unreadable(path, kind) from error
    if isinstance(content, Mapping) and "gen_diffusive_1_dict" in content:
        raise WeightsError(f"{path.name} is the state of a training, not a generator", _WANTED)
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path.name} holds no dictionary of tensors", _WANTED)
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()):
        raise WeightsError(f"{path.name} holds no dictionary of tensors", _WANTED)
    return dict(content)


def _unreadable(path: Path, kind: str) -> WeightsError:
    what = "is damaged or cut short" if kind == "a PyTorch checkpoint" else f"is {kind}"
    remedy = remedy_for(kind) or "fetch the file again"
    return WeightsError(f"{path.name} cannot be read as PyTorch weights; it {what}", remedy)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
            return state, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path.name} is not a complete safetensors file", "fetch the file again") from error


def _stated_spec(path: Path) -> NCSNppSpec | None:
    """Return the numbers that our own file states; None for a file that states none."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("generator")
    if text is None:
        return None
    try:
        return NCSNppSpec(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"what {path.name} states of its network cannot be read", "fetch the file again") from error
