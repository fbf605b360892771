"""The published network: a deep residual 3-D U-Net on small cubes, and the same network without what a cube never sees.

BABY-AI (A. Lennartsson, master's thesis, Lund University) uses the residual U-Net of MONAI (Kerfoot et al. 2019) with
ten convolutions per down block. On cubes of 32 voxels the lowest levels work on one or two voxels, so most taps of
their 3x3x3 kernels meet zero padding alone. With ``ResUNetSpec.patch`` set, only the other taps exist: 46 of 379
million weights, the same output to float32 rounding, but for cubes of this size alone. Tensors are (N, C, X, Y, Z).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import WeightsError

__all__ = ["PUBLISHED", "ResUNet", "ResUNetSpec", "build_network", "reachable_state", "reachable_taps"]


@dataclass(frozen=True)
class ResUNetSpec:
    """The numbers that define the network.

    Attributes
    ----------
    channels : features of the levels, the bottom last; each level but the bottom halves the sides.
    units : convolutions of a down block and of the bottom.
    in_channels, out_channels : T1w and T2w; the isotropic T2w.
    patch : side of the only cubes that the network takes, where kernels are cut down to the taps that such cubes
        reach; None = whole kernels, any sides that are multiples of ``multiple``.
    residual : the network's answer is added to the T2w that it is given; the published one gives the image itself.
    t2_alone : the network was trained to work without a T1w (zeros in its channel) too.
    start : what the T2w channel holds, ``interpolated`` slices (published) or the ``guided`` estimate of
        :mod:`.guided`.

    """

    channels: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    units: int = 10
    in_channels: int = 2
    out_channels: int = 1
    patch: int | None = None
    residual: bool = False
    t2_alone: bool = False
    start: str = "interpolated"

    @property
    def depth(self) -> int:
        """Return the number of levels above the bottom."""
        return len(self.channels) - 1

    @property
    def multiple(self) -> int:
        """Return the number that each side of the input must be a multiple of."""
        return int(2**self.depth)

    def side(self, level: int) -> int | None:
        """Return the side of the input of down block ``level`` (``depth`` for the bottom); None for any side."""
        return None if self.patch is None else self.patch // 2**level

    def with_patch(self, patch: int | None) -> ResUNetSpec:
        """Return the numbers of the same network for cubes of one side; WeightsError when the side does not fit."""
        if patch is not None and (patch < 1 or patch % self.multiple):
            raise WeightsError(
                f"the network takes cubes whose side is a multiple of {self.multiple}, not {patch}",
                "choose another patch size or other weights",
            )
        return replace(self, patch=patch)


PUBLISHED = ResUNetSpec()
"""The published network: 379,053,826 parameters."""


def reachable_taps(side: int | None, stride: int, *, transposed: bool = False) -> slice:
    """Return the taps of a kernel of 3 (padding 1) that meet data where the input has ``side`` voxels."""
    if side is None:
        return slice(0, 3)
    if transposed:
        taps = [t for t in range(3) if any(0 <= stride * i + t - 1 < stride * side for i in range(side))]
    else:
        outputs = range((side - 1) // stride + 1)
        taps = [t for t in range(3) if any(0 <= stride * o + t - 1 < side for o in outputs)]
    return slice(taps[0], taps[-1] + 1)


def _conv(inputs: int, outputs: int, side: int | None, stride: int = 1) -> nn.Conv3d:
    taps = reachable_taps(side, stride)
    return nn.Conv3d(inputs, outputs, taps.stop - taps.start, stride, padding=1 - taps.start)


def _transposed(inputs: int, outputs: int, side: int | None) -> nn.ConvTranspose3d:
    taps = reachable_taps(side, 2, transposed=True)
    padding = 1 - taps.start
    return nn.ConvTranspose3d(inputs, outputs, taps.stop - taps.start, 2, padding=padding, output_padding=padding)


class Unit(nn.Module):
    """A convolution and, unless it is the last of all, a PReLU with one slope for all channels."""

    def __init__(self, conv: nn.Conv3d | nn.ConvTranspose3d, *, active: bool = True) -> None:
        super().__init__()
        self.conv = conv
        self.slope = nn.Parameter(torch.full((1,), 0.25)) if active else None

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and activate."""
        y = self.conv(x)
        return y if self.slope is None else F.prelu(y, self.slope)


class ResidualBlock(nn.Module):
    """Convolutions beside one convolution of the input (or the input itself); their sum is not activated."""

    def __init__(self, inputs: int, outputs: int, units: int, side: int | None, stride: int) -> None:
        super().__init__()
        below = None if side is None else side // stride
        self.units = nn.ModuleList([Unit(_conv(inputs, outputs, side, stride))])
        self.units.extend(Unit(_conv(outputs, outputs, below)) for _ in range(units - 1))
        self.skip: nn.Module | None = None
        if stride > 1:
            self.skip = _conv(inputs, outputs, side, stride)
        elif inputs != outputs:
            self.skip = nn.Conv3d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, X, Y, Z) to (N, outputs, X / stride, ...)."""
        y = x
        for unit in self.units:
            y = unit(y)
        return y + (x if self.skip is None else self.skip(x))


class UpBlock(nn.Module):
    """A transposed convolution to twice the sides, then one convolution beside the identity."""

    def __init__(self, inputs: int, outputs: int, side: int | None, *, top: bool) -> None:
        super().__init__()
        self.up = Unit(_transposed(inputs, outputs, side))
        self.unit = Unit(_conv(outputs, outputs, None if side is None else 2 * side), active=not top)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, X, Y, Z) to (N, outputs, 2 X, 2 Y, 2 Z)."""
        x = self.up(x)
        return self.unit(x) + x


class ResUNet(nn.Module):
    """The network; numbers agree with the published program to float32 rounding."""

    def __init__(self, spec: ResUNetSpec = PUBLISHED) -> None:
        super().__init__()
        self.spec = spec
        widths = (spec.in_channels, *spec.channels)
        depth = spec.depth
        self.down = nn.ModuleList(
            ResidualBlock(widths[k], widths[k + 1], spec.units, spec.side(k), 2) for k in range(depth)
        )
        self.bottom = ResidualBlock(widths[depth], widths[depth + 1], spec.units, spec.side(depth), 1)
        self.up = nn.ModuleList()
        for level in range(depth):
            lower = spec.channels[-1] if level == depth - 1 else spec.channels[level]
            outputs = spec.out_channels if level == 0 else spec.channels[level - 1]
            side = spec.side(level + 1)
            self.up.append(UpBlock(spec.channels[level] + lower, outputs, side, top=level == 0))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 2, X, Y, Z), channel 0 T1w and channel 1 thick-slice T2w on 0..1, to T2w (N, 1, X, Y, Z).

        Sides are multiples of ``spec.multiple``, or ``spec.patch`` where that is set. The output is not clipped.
        """
        given, passed = x[:, 1:2], []
        for block in self.down:
            x = block(x)
            passed.append(x)
        x = self.bottom(x)
        for level in reversed(range(self.spec.depth)):
            x = self.up[level](torch.cat([passed[level], x], dim=1))
        return given + x if self.spec.residual else x

    def layers(self) -> Iterator[tuple[str, nn.Conv3d | nn.ConvTranspose3d, slice]]:
        """Yield name, convolution and reachable taps (along each axis) of every convolution."""
        for level, block in enumerate(cast(list[ResidualBlock], [*self.down, self.bottom])):
            stride = 2 if level < self.spec.depth else 1
            side = self.spec.side(level)
            below = None if side is None else side // stride
            prefix = f"down.{level}" if level < self.spec.depth else "bottom"
            for index, unit in enumerate(block.units):
                taps = reachable_taps(side, stride) if index == 0 else reachable_taps(below, 1)
                yield f"{prefix}.units.{index}.conv", cast(nn.Conv3d, unit.conv), taps
            if block.skip is not None:
                taps = reachable_taps(side, 2) if stride == 2 else slice(0, 1)
                yield f"{prefix}.skip", cast(nn.Conv3d, block.skip), taps
        for level, up in enumerate(cast(list[UpBlock], list(self.up))):
            side = self.spec.side(level + 1)
            taps = reachable_taps(side, 2, transposed=True)
            yield f"up.{level}.up.conv", cast(nn.ConvTranspose3d, up.up.conv), taps
            wide = reachable_taps(None if side is None else 2 * side, 1)
            yield f"up.{level}.unit.conv", cast(nn.Conv3d, up.unit.conv), wide


def reachable_state(state: Mapping[str, Tensor], spec: ResUNetSpec) -> dict[str, Tensor]:
    """Return the state dict of the network ``spec`` (with ``patch``) cut out of that of the whole network.

    Taps that are left out meet zero padding at every position, so nothing is lost for cubes of side ``spec.patch``.
    """
    with torch.device("meta"):
        taps = {f"{name}.weight": part for name, _, part in ResUNet(spec).layers()}
    return {
        name: tensor[..., taps[name], taps[name], taps[name]] if name in taps else tensor
        for name, tensor in state.items()
    }


def build_network(state: Mapping[str, Tensor], spec: ResUNetSpec) -> ResUNet:
    """Build the network around the tensors of its state dict (not copied), in evaluation mode.

    Raises
    ------
    WeightsError : a tensor is missing, left over, or of another shape.

    """
    with torch.device("meta"):
        network = ResUNet(spec)
    try:
        network.load_state_dict(dict(state), strict=True, assign=True)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise WeightsError(f"the weights do not fit the network: {detail}", "use another file") from error
    return cast(Any, network).eval().requires_grad_(False)
