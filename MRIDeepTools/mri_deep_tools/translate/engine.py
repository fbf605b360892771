"""Runs a generator through all steps of the diffusion in less time and memory than :class:`.network.NCSNpp`.

What is saved, and why it is exact to float32 rounding:

* On the CPU, tensors are in channels-last order, in which the convolutions of its library are fastest.
* Activations are normalised in pieces that stay in the cache, see :mod:`.passes`; skips are not joined beforehand.
* Steps and latents act on every image alike: what they add and scale is computed once for all layers, not in each.
* Divisions by the square root of two are part of the weights; sums of branches are made in place.
* A 1x1 convolution and a resampling filter may change places: each runs where the image is smaller.
* Only the first output channel is computed; the other is never used.
* On the CPU, large images are convolved with half the multiplications, see :mod:`.convolution`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..inference import available_memory
from .convolution import RowConvolution
from .diffusion import Draws, draw, sample
from .fir import fir_kernel
from .network import NORM_EPSILON, Attention, NCSNpp, NCSNppSpec, PyramidDown, ResBlock, groups_of, require_sides
from .passes import activate, rows_of
from .weights import Direction

__all__ = ["TranslationEngine", "engine_bytes"]

_HALF = 1 / math.sqrt(2)  # by which every sum of two branches is multiplied

_PIXELS = {"cpu": 256 * 256, "cuda": 32 * 256 * 256}  # of one batch; a CPU is filled by one usual image
_HOLES = 1.25  # share of memory with the holes that freed tensors leave, as measured
_SHARE = 0.5  # of the free memory for one batch


class TranslationEngine:
    """A direction of a model, ready to translate on one device.

    Parameters
    ----------
    direction : its generator's weights are copied.
    device : where to run.
    dtype : arithmetic of the generator; the diffusion itself is in float32.

    """

    def __init__(
        self, direction: Direction, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        network = direction.network
        self.spec, self.device, self.dtype = network.spec, torch.device(device), dtype
        self.schedule = direction.schedule.to(self.device)
        self._layout = network.layout
        self.rows = _channels_last(self.device)
        self._format = torch.channels_last if self.rows else torch.contiguous_format
        modules = network.all_modules
        blocks = {place: module for place, module in enumerate(modules) if isinstance(module, ResBlock)}
        self._styles = _Styles(network, list(blocks.values()), self)
        times = _step_biases(network, list(blocks.values()), direction.schedule.steps)
        self._parts: dict[int, _Block | _Attention | _Pyramid] = {}
        for number, (place, block) in enumerate(blocks.items()):
            self._parts[place] = _Block(block, times[number], number, self)
        for place, module in enumerate(modules):
            if isinstance(module, Attention):
                self._parts[place] = _Attention(module, self)
            elif isinstance(module, PyramidDown):
                self._parts[place] = _Pyramid(module, self)
        self._first = _Conv(modules[2], self)
        norm, head = cast(nn.GroupNorm, modules[self._layout.norm]), cast(nn.Conv2d, modules[self._layout.head])
        self._norm = self.ready(norm.weight)[None], self.ready(norm.bias)[None]
        self._head = self.ready(head.weight[:1]), self.ready(cast(Tensor, head.bias)[:1])

    @torch.inference_mode()
    def run(
        self,
        source: Tensor,
        draws: Draws | torch.Generator | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """Translate images by all steps.

        Parameters
        ----------
        source : (B, 1, H, W) float32 in [-1, 1]; H and W are multiples of ``spec.multiple``.
        draws : the normal numbers, or where to take them from; None is torch's own generator.
        progress : gets the share that is done.

        Returns
        -------
        (B, 1, H, W) float32 in [-1, 1] on the engine's device.

        Raises
        ------
        InputError : shapes do not fit.

        """
        if source.ndim != 4 or source.shape[1] != 1:
            raise InputError(f"images of shape {tuple(source.shape)}", "give (B, 1, H, W)")
        require_sides(self.spec, source.shape[-2:])
        batch, steps = len(source), self.schedule.steps
        if not isinstance(draws, Draws):
            draws = draw((batch, *source.shape[-2:]), steps, self.spec.latent, draws)
        start, latents, noises = (part.to(self.device, torch.float32) for part in _checked(draws, source, self))
        report, done = progress or (lambda share: None), 0

        def generate(x: Tensor, t: Tensor, z: Tensor) -> Tensor:
            nonlocal done
            clean = self.generate(x, steps - 1 - done, z)
            done += 1
            report(done / steps)
            return clean

        source = source.to(self.device, torch.float32)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return sample(generate, self.schedule, source, start=start, latents=latents, noises=noises)

    @torch.inference_mode()
    def generate(self, x: Tensor, step: int, z: Tensor) -> Tensor:
        """Return clean images (B, 1, H, W), float32, at one step.

        ``x`` is (noisy target, source) (B, 2, H, W) on the engine's device, ``step`` 0 to T - 1, ``z`` (B, latent).
        """
        require_sides(self.spec, x.shape[-2:])
        styles = self._styles(z)
        pyramid = x.to(self.dtype).contiguous(memory_format=self._format)
        h = self._first(pyramid)
        skips = [h]
        for level in self._layout.downs:
            for number, place in enumerate(level.blocks):
                h = self._block(place, h, None, step, styles)
                if level.attentions:
                    h = self._attend(level.attentions[number], h)
                skips.append(h)
            if level.down is not None and level.pyramid is not None:
                h = self._block(level.down, h, None, step, styles)
                pyramid = h = cast(_Pyramid, self._parts[level.pyramid])(pyramid).add_(h, alpha=_HALF)
                skips.append(h)
        del pyramid
        first, attend, second = self._layout.middle
        h = self._attend(attend, self._block(first, h, None, step, styles))
        h = self._block(second, h, None, step, styles)
        for up in self._layout.ups:
            for place in up.blocks:
                h = self._block(place, h, skips.pop(), step, styles)
            if up.attention is not None:
                h = self._attend(up.attention, h)
            if up.up is not None:
                h = self._block(up.up, h, None, step, styles)
        h = _activated((h,), *self._norm, rows=self.rows)
        return F.conv2d(h, *self._head, padding=1).float().tanh_()

    def batch_size(self, height: int, width: int) -> int:
        """Return how many images of H x W pixels should go through together: they fill the device, not its memory."""
        pixels = _PIXELS.get(self.device.type, _PIXELS["cuda"])
        needed = engine_bytes((1, height, width), self.spec, self.dtype.itemsize)
        fitting = int(_SHARE * available_memory(self.device) / needed)
        return max(1, min(pixels // (height * width), fitting))

    def ready(self, weight: Tensor, factor: float = 1.0) -> Tensor:
        """Return a copy of weights, times ``factor``, on the engine's device in its arithmetic and layout."""
        scaled = (weight.detach().double() * factor).to(self.dtype).to(self.device)
        return scaled.contiguous(memory_format=self._format) if scaled.ndim == 4 else scaled

    def _block(self, place: int, x: Tensor, skip: Tensor | None, step: int, styles: list[Tensor]) -> Tensor:
        return cast(_Block, self._parts[place])(x, skip, step, styles)

    def _attend(self, place: int, x: Tensor) -> Tensor:
        return cast(_Attention, self._parts[place])(x)


def _channels_last(device: torch.device) -> bool:
    """Say whether tensors are in channels-last order there, and passes are made of pieces."""
    return device.type == "cpu"


class _Styles:
    """The latent mapping, and one matrix for the scales and shifts of all blocks."""

    def __init__(self, network: NCSNpp, blocks: Sequence[ResBlock], engine: TranslationEngine) -> None:
        layers = [norm.style for block in blocks for norm in (block.GroupNorm_0, block.GroupNorm_1)]
        self.mapping = [
            (
                layer.weight.detach().to(engine.device, torch.float32),
                layer.bias.detach().to(engine.device, torch.float32),
            )
            for layer in network.z_transform
            if isinstance(layer, nn.Linear)
        ]
        self.weight = torch.cat([layer.weight.detach() for layer in layers]).to(engine.device, torch.float32)
        self.bias = torch.cat([layer.bias.detach() for layer in layers]).to(engine.device, torch.float32)
        self.sizes = [layer.out_features for layer in layers]
        self.norm, self.dtype = network.z_transform[0], engine.dtype

    def __call__(self, z: Tensor) -> list[Tensor]:
        """Return (B, 2 C) for every norm, two per block, from latents (B, latent)."""
        latent = self.norm(z)
        for weight, bias in self.mapping:
            latent = F.silu(F.linear(latent, weight, bias))
        return list(F.linear(latent, self.weight, self.bias).to(self.dtype).split(self.sizes, dim=1))


def _step_biases(network: NCSNpp, blocks: Sequence[ResBlock], steps: int) -> list[Tensor]:
    """Return (steps, outer) for every block: what the step adds after its first convolution."""
    with torch.no_grad():
        device = next(network.parameters()).device
        time = F.silu(network.embed_step(torch.arange(steps, device=device)))
        return [block.Dense_0(time) for block in blocks]


class _Conv:
    """A 3x3 convolution with zero padding, ready to use."""

    def __init__(self, conv: nn.Module, engine: TranslationEngine, factor: float = 1.0) -> None:
        conv = cast(nn.Conv2d, conv)
        self.weight = engine.ready(conv.weight, factor)
        self.bias = engine.ready(cast(Tensor, conv.bias), factor)
        self._in_rows = engine.rows and engine.dtype == torch.float32
        self._large: RowConvolution | None = None  # made when the first large image comes

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        bias = self.bias if bias is None else bias
        if not (self._in_rows and RowConvolution.pays(x, len(bias))):
            return F.conv2d(x, self.weight, bias, padding=1)
        self._large = self._large or RowConvolution(self.weight)
        return self._large(x, bias)


class _Block:
    """A residual block; see :class:`.network.ResBlock`."""

    def __init__(self, block: ResBlock, time: Tensor, number: int, engine: TranslationEngine) -> None:
        inner, outer = block.Conv_0.in_channels, block.Conv_0.out_channels
        self.number, self.resample, self.rows = number, block.resample, engine.rows
        self.conv_0 = _Conv(block.Conv_0, engine)
        self.biases = engine.ready(time + cast(Tensor, block.Conv_0.bias).detach())
        self.conv_1 = _Conv(block.Conv_1, engine, _HALF)
        self.skip = None
        if block.Conv_2 is not None:
            self.skip = engine.ready(block.Conv_2.weight[:, :, 0, 0], _HALF)
            self.conv_1.bias += engine.ready(cast(Tensor, block.Conv_2.bias), _HALF)
        empty = torch.empty(0, dtype=engine.dtype, device=engine.device)
        gain = 4.0 if self.resample == "up" else 1.0
        self.filters = {size: fir_kernel(size, empty, gain).contiguous() for size in {inner, outer} if self.resample}

    def __call__(self, x: Tensor, skip: Tensor | None, step: int, styles: list[Tensor]) -> Tensor:
        parts = (x,) if skip is None else (x, skip)
        a = self._activated(parts, styles[2 * self.number])
        a = self.conv_0(self._resampled(a), self.biases[step])
        a = self.conv_1(self._activated((a,), styles[2 * self.number + 1], in_place=True))
        if self.skip is None:
            return a.add_(x, alpha=_HALF)
        if self.resample == "up":
            return a.add_(self._resampled(self._mixed(parts)))
        return self._mixed([self._resampled(part) for part in parts], a)

    def _activated(self, parts: Sequence[Tensor], style: Tensor, *, in_place: bool = False) -> Tensor:
        scale, shift = style.chunk(2, dim=1)
        return _activated(parts, scale, shift, rows=self.rows, in_place=in_place)

    def _mixed(self, parts: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
        """Return the 1x1 convolution of joined parts (B, C_i, H, W), added to ``out`` in place where there is one."""
        weights = cast(Tensor, self.skip).split([part.shape[1] for part in parts], dim=1)
        if not self.rows:
            made = F.conv2d(torch.cat(list(parts), dim=1), cast(Tensor, self.skip)[:, :, None, None])
            return made if out is None else out.add_(made)
        if out is None:
            batch, _, height, width = parts[0].shape
            out = parts[0].new_zeros((batch, height, width, len(weights[0]))).permute(0, 3, 1, 2)
        target = rows_of(out).view(-1, out.shape[1])
        for part, weight in zip(parts, weights, strict=True):
            target.addmm_(rows_of(part).view(-1, part.shape[1]), weight.T)
        return out

    def _resampled(self, x: Tensor) -> Tensor:
        if not self.resample:
            return x
        change = F.conv2d if self.resample == "down" else F.conv_transpose2d
        return change(x, self.filters[x.shape[1]], stride=2, padding=1, groups=x.shape[1])


class _Pyramid:
    """What leads the input down one level, times a factor; see :class:`.network.PyramidDown`."""

    def __init__(self, module: PyramidDown, engine: TranslationEngine) -> None:
        conv = module.Conv2d_0
        self.weight = engine.ready(conv.weight, _HALF)
        self.bias = engine.ready(cast(Tensor, conv.bias), _HALF)
        self.filter = fir_kernel(conv.in_channels, self.bias).contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        smooth = F.conv2d(x, self.filter, padding=2, groups=x.shape[1])
        return F.conv2d(smooth, self.weight, self.bias, stride=2)


class _Attention:
    """Attention with its three layers as one; see :class:`.network.Attention`."""

    def __init__(self, module: Attention, engine: TranslationEngine) -> None:
        layers = (module.NIN_0, module.NIN_1, module.NIN_2)
        self.norm = engine.ready(module.GroupNorm_0.weight)[None], engine.ready(module.GroupNorm_0.bias)[None]
        self.weight = engine.ready(torch.cat([layer.W.T for layer in layers]))
        self.bias = engine.ready(torch.cat([layer.b for layer in layers]))
        self.last = engine.ready(module.NIN_3.W.T, _HALF), engine.ready(module.NIN_3.b, _HALF)

    def __call__(self, x: Tensor) -> Tensor:
        places = _normalised(x, *self.norm).flatten(2).transpose(1, 2)
        query, key, value = F.linear(places, self.weight, self.bias)[:, None].chunk(3, dim=-1)
        found = F.linear(F.scaled_dot_product_attention(query, key, value)[:, 0], *self.last)
        return torch.add(found.transpose(1, 2).unflatten(2, x.shape[-2:]), x, alpha=_HALF)


def _activated(parts: Sequence[Tensor], scale: Tensor, shift: Tensor, *, rows: bool, in_place: bool = False) -> Tensor:
    """Return SiLU of joined parts (B, C_i, H, W), normalised with scale and shift (B or 1, C)."""
    if rows:
        return activate(parts, scale, shift, in_place=in_place)
    return F.silu(_normalised(torch.cat(list(parts), dim=1), scale, shift), inplace=True)


def _normalised(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return (B, C, H, W), contiguous, with group normalisation, scale and shift (B or 1, C)."""
    x, groups = x.contiguous(), groups_of(x.shape[1])
    if len(scale) == 1:
        return F.group_norm(x, groups, scale[0], shift[0], NORM_EPSILON)
    out = F.group_norm(x, groups, eps=NORM_EPSILON)
    return torch.addcmul(shift[:, :, None, None], out, scale[:, :, None, None], out=out)


def _checked(draws: Draws, source: Tensor, engine: TranslationEngine) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tensors of draws; InputError where they do not fit the images."""
    batch, steps = len(source), engine.schedule.steps
    wanted = (tuple(source.shape), (steps, batch, engine.spec.latent), (steps, *source.shape))
    parts = draws.start, draws.latents, draws.noises
    for part, shape in zip(parts, wanted, strict=True):
        if tuple(part.shape) != shape:
            raise InputError(f"random numbers of shape {tuple(part.shape)} in place of {shape}", "draw them anew")
    return parts


def engine_bytes(shape: tuple[int, int, int], spec: NCSNppSpec | None = None, dtype_bytes: int = 4) -> int:
    """Return about what one run of (B, H, W) images takes beside weights and input.

    The most is needed at full resolution on the way up: the skips of that level, and the tensors of one block.
    """
    spec = spec or NCSNppSpec()
    full, below = spec.features(0), spec.features(min(1, len(spec.multipliers) - 1))
    skips = (spec.blocks + 1) * full
    joining, coming_up = 2 * (full + below) + full, 3 * below
    return int(_HOLES * math.prod(shape) * dtype_bytes * (skips + max(joining, coming_up)))
