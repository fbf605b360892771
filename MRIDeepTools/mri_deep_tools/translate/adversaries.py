"""Networks that only the training uses: one-pass generators and discriminators, with the published tensor names.

Sources: Ozbey et al., arXiv 2207.08208, section III; Zhu et al. (cycle-consistent generators and patch discriminators),
arXiv 1703.10593; Xiao et al. (time-conditioned discriminators), arXiv 2112.07804.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .fir import fir_down
from .network import NO_SCALE, sinusoids, uniform_by_outputs

__all__ = ["PatchDiscriminator", "ResnetGenerator", "TimeDiscriminator"]

_LEAK = 0.2
_DEVIATION = 0.02
_GROUP = 4
_VARIANCE_EPSILON = 1e-8


def _normal_start(module: nn.Module) -> None:
    """Draw convolutions from a normal distribution, standard deviation 0.02, and set their biases to 0."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(part.weight, 0.0, _DEVIATION)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class _ResnetBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(2):
            parts += [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width), nn.ReLU()]
        self.conv_block = nn.Sequential(*parts[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class ResnetGenerator(nn.Module):
    """One contrast to the other in one pass (gen_non_diffusive), values -1 to 1.

    Parameters
    ----------
    channels : of input and output.
    width : features at full resolution, twice and four times as many below.
    blocks : residual blocks at a quarter of the resolution.

    """

    def __init__(self, channels: int = 1, width: int = 64, blocks: int = 6) -> None:
        super().__init__()

        def normed(conv: nn.Module, features: int) -> list[nn.Module]:
            return [conv, nn.InstanceNorm2d(features), nn.ReLU()]

        parts: list[nn.Module] = [nn.ReflectionPad2d(3), *normed(nn.Conv2d(channels, width, 7), width)]
        for factor in (1, 2):
            inner = width * factor
            parts += normed(nn.Conv2d(inner, 2 * inner, 3, stride=2, padding=1), 2 * inner)
        parts += [_ResnetBlock(4 * width) for _ in range(blocks)]
        for factor in (4, 2):
            inner = width * factor
            up = nn.ConvTranspose2d(inner, inner // 2, 3, stride=2, padding=1, output_padding=1)
            parts += normed(up, inner // 2)
        parts += [nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7), nn.Tanh()]
        self.model = nn.Sequential(*parts)
        _normal_start(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate (B, channels, H, W), H and W multiples of 4; InputError where they are not."""
        if any(side % 4 for side in x.shape[-2:]):
            raise InputError(f"images of {x.shape[-2]}x{x.shape[-1]} pixels: sides must be multiples of 4", "pad them")
        out: Tensor = self.model(x)
        return out


class PatchDiscriminator(nn.Module):
    """Real or made, patch by patch (disc_non_diffusive_cycle): (B, channels, H, W) to logits, 256x256 to 30x30."""

    def __init__(self, channels: int = 1, width: int = 64) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(_LEAK)]
        for factor, stride in ((2, 2), (4, 2), (8, 1)):
            inner, outer = width * factor // 2, width * factor
            conv = nn.Conv2d(inner, outer, 4, stride=stride, padding=1)
            parts += [conv, nn.InstanceNorm2d(outer), nn.LeakyReLU(_LEAK)]
        parts.append(nn.Conv2d(8 * width, 1, 4, padding=1))
        self.model = nn.Sequential(*parts)
        _normal_start(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 1, h, w)."""
        out: Tensor = self.model(x)
        return out


class _TimeEmbedding(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.main = nn.Sequential(_dense(size, size), nn.LeakyReLU(_LEAK), _dense(size, size))

    def forward(self, t: Tensor) -> Tensor:
        return F.leaky_relu(self.main(sinusoids(t, self.size)), _LEAK)


class _Block(nn.Module):
    """Two convolutions beside a skip; the time is added between them; the resolution is halved where ``down``."""

    def __init__(self, inner: int, outer: int, time: int, *, down: bool = True) -> None:
        super().__init__()
        self.down = down
        self.conv1 = nn.Sequential(_conv(inner, outer, 3))
        self.conv2 = nn.Sequential(_conv(outer, outer, 3, scale=NO_SCALE))
        self.dense_t1 = _dense(time, outer)
        self.skip = nn.Sequential(_conv(inner, outer, 1, bias=False))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        a = self.conv1(F.leaky_relu(x, _LEAK)) + self.dense_t1(time)[:, :, None, None]
        a = F.leaky_relu(a, _LEAK)
        if self.down:
            a, x = fir_down(a), fir_down(x)
        out: Tensor = (self.conv2(a) + self.skip(x)) / math.sqrt(2)
        return out


class TimeDiscriminator(nn.Module):
    """Real or made, for pairs of images one diffusion step apart (disc_diffusive).

    Parameters
    ----------
    width : features of the first convolution are twice as many, of the last blocks eight times.
    channels : of both images together.
    time_embedding : size of the embedding of the step.
    small : the small variant, of four blocks, for small images.

    """

    def __init__(self, width: int = 64, channels: int = 2, time_embedding: int = 256, small: bool = False) -> None:
        super().__init__()
        factors = (2, 2, 4, 8, 8) if small else (2, 4, 8, 8, 8, 8, 8)
        self.factor = 2 ** (len(factors) - (2 if small else 1))
        self.t_embed = _TimeEmbedding(time_embedding)
        self.start_conv = _conv(channels, 2 * width, 1)
        blocks = OrderedDict(
            (f"conv{number}", _Block(inner * width, outer * width, time_embedding, down=not small or number > 1))
            for number, (inner, outer) in enumerate(itertools.pairwise(factors), 1)
        )
        self._names = tuple(blocks)
        for name, block in blocks.items():
            self.add_module(name, block)
        self.final_conv = _conv(8 * width + 1, 8 * width, 3, scale=NO_SCALE if small else 1.0)
        self.end_linear = _dense(8 * width, 1)

    def forward(self, x_t: Tensor, t: Tensor, x_next: Tensor) -> Tensor:
        """Return logits (B, 1) of images (B, 1, H, W) at the steps t (B,) and t + 1.

        Raises
        ------
        InputError : the images are too small, or the batch is larger than 4 and no multiple of 4.

        """
        batch, sides = len(x_t), x_t.shape[-2:]
        if min(sides) < self.factor:
            raise InputError(f"images of {sides[0]}x{sides[1]} pixels", f"sides must be at least {self.factor}")
        if batch % min(batch, _GROUP):
            raise InputError(f"a batch of {batch} images", f"use 1 to {_GROUP}, or a multiple of {_GROUP}")
        time = self.t_embed(t)
        h = self.start_conv(torch.cat([x_t, x_next], dim=1))
        for name in self._names:
            h = self.get_submodule(name)(h, time)
        h = F.leaky_relu(self.final_conv(torch.cat([h, _batch_deviation(h)], dim=1)), _LEAK)
        out: Tensor = self.end_linear(h.sum(dim=(2, 3)))
        return out


def _batch_deviation(x: Tensor) -> Tensor:
    """Return (B, 1, h, w): how far the images of a group of up to four differ, the same at every place."""
    batch, _, height, width = x.shape
    group = min(batch, _GROUP)
    parts = x.reshape(group, batch // group, *x.shape[1:])
    variance = (parts - parts.mean(dim=0)).square().mean(dim=0)
    deviation = (variance + _VARIANCE_EPSILON).sqrt().mean(dim=(1, 2, 3))
    return deviation.repeat(group).view(batch, 1, 1, 1).expand(batch, 1, height, width)


def _conv(inner: int, outer: int, size: int, *, bias: bool = True, scale: float = 1.0) -> nn.Conv2d:
    conv = nn.Conv2d(inner, outer, size, padding=size // 2, bias=bias)
    uniform_by_outputs(conv, scale)
    return conv


def _dense(inner: int, outer: int) -> nn.Linear:
    dense = nn.Linear(inner, outer)
    uniform_by_outputs(dense)
    return dense
