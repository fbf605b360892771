"""The numbers of a generator, read off the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import WeightsError

__all__ = ["read_structure"]

_ATTENTION_SIDE = 16  # of every published model
_USUAL_SIDE = 256
_FIRST_MODULE = 3  # after two layers for the step and the first convolution
_KINDS = (("Conv_0.weight", "R"), ("NIN_0.W", "A"), ("Conv2d_0.weight", "P"))
_FEW_BLOCKS = "its list of modules is not that of such a network"


def read_structure(state: Mapping[str, Tensor], image_size: int | None = None) -> dict[str, Any]:
    """Return the fields of :class:`.network.NCSNppSpec` for tensors named without leading ``module.``.

    Raises
    ------
    WeightsError : the names are not those of such a network.

    """
    width = _size(state, "all_modules.0.weight", 1)
    channels = _size(state, "all_modules.2.weight", 1)
    kinds = _kinds(state)
    rows, blocks = _levels(kinds)
    multipliers = []
    for place in rows:
        features = _size(state, f"all_modules.{place}.Conv_0.weight", 0)
        if features % width:
            raise _not_a_generator(f"{features} features are no multiple of the width {width}")
        multipliers.append(features // width)
    attended = [level for level, place in enumerate(rows) if kinds[place - _FIRST_MODULE + 1 :].startswith("A")]
    if image_size is None:
        image_size = _ATTENTION_SIDE * 2 ** attended[-1] if attended else _USUAL_SIDE
    layers = [name for name in state if re.fullmatch(r"z_transform\.\d+\.weight", name)]
    return {
        "image_size": image_size,
        "channels": channels,
        "width": width,
        "multipliers": tuple(multipliers),
        "blocks": blocks,
        "attention": tuple(image_size // 2**level for level in attended),
        "latent": _size(state, "z_transform.1.weight", 1),
        "embedding": _size(state, "z_transform.1.weight", 0),
        "mapping_layers": len(layers) - 1,
    }


def _kinds(state: Mapping[str, Tensor]) -> str:
    """Return one letter per module after the first ones: R block, A attention, P pyramid."""
    letters: list[str] = []
    while True:
        prefix = f"all_modules.{_FIRST_MODULE + len(letters)}."
        kind = next((letter for name, letter in _KINDS if prefix + name in state), None)
        if kind is None:
            return "".join(letters)
        letters.append(kind)


def _levels(kinds: str) -> tuple[list[int], int]:
    """Return the place of the first block of each level in the list of modules, and the blocks per level."""
    blocks = (kinds.split("P")[0].count("R") - 1) if "P" in kinds else (kinds.count("R") - 3) // 2
    starts, place = [], 0
    for part in kinds.split("P"):
        starts.append(_FIRST_MODULE + place)
        place += len(part) + 1
    if blocks < 1:
        raise _not_a_generator(_FEW_BLOCKS)
    return starts, blocks


def _size(state: Mapping[str, Tensor], name: str, axis: int) -> int:
    """Return one side of a tensor's shape."""
    if name not in state:
        raise _not_a_generator(f"it lacks the tensor {name}")
    shape = state[name].shape
    if len(shape) <= axis or not shape[axis]:
        raise _not_a_generator(f"the tensor {name} has the shape {tuple(shape)}")
    return int(shape[axis])


def _not_a_generator(detail: str) -> WeightsError:
    return WeightsError(f"these are not the weights of a diffusive generator: {detail}", "use gen_diffusive_1 or _2")
