"""Runs a trained U-Net slab by slab: the same numbers as :class:`~.network.UNet`, less time and less memory.

What is saved, and why it is exact to float32 rounding:

* Nearest up-sampling followed by a convolution equals, for each of the 8 output parities, a smaller convolution at low
  resolution with summed kernel entries (kernel 3: 8 x 2x2x2 in place of 27 products a voxel).
* A convolution of a concatenation is the sum of two convolutions, so skip and up-sampled tensors are never joined.
* Batch normalisation acts per channel with fixed numbers, so it is applied after pooling (8 times fewer voxels) where
  its scale is positive, and is part of the head's weights at the last level.
* The two full-resolution levels run in slabs of planes along the first axis; each convolution keeps the last planes
  of its input, so nothing is computed twice, and activations are written where the next convolution reads them.
* The left-right mirrored pass of flip averaging runs on the same image with mirrored kernels and exchanged output
  channels, so its result needs no flip.

Tensors are (1, C, X, Y, Z) in channels-last memory order on the CPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from .network import Level, UNet

__all__ = ["UNetEngine", "phase_kernels"]

_SLAB_BYTES = 24 << 20  # of one full-resolution tensor: small enough for the allocator to use it again and again
_GPU_SLAB_BYTES = 512 << 20
_HEAD_VOXELS = 4096  # logits of one piece stay in the processor's cache
_ALL = slice(None)

Sink = Callable[[int, int, Tensor], None]
Triple = tuple[int, int, int]
Phase = tuple[Triple, Triple, Tensor]


def phase_kernels(weight: Tensor) -> list[Phase]:
    """Split a kernel that follows nearest x2 up-sampling into 8 kernels at low resolution.

    Returns (parity, offset of the first low-resolution voxel, kernel) for each output parity along X, Y, Z; ``weight``
    is (out, in, k, k, k) with odd k. Zero padding at low resolution equals zero padding at full resolution.
    """
    half = weight.shape[2] // 2
    result = []
    for parity in itertools.product((0, 1), repeat=3):
        kernel, first = weight, []
        for axis, p in enumerate(parity, start=2):
            offsets = [(p + tap - half) // 2 for tap in range(2 * half + 1)]
            groups = [
                kernel.narrow(axis, offsets.index(low), offsets.count(low)).sum(axis, keepdim=True)
                for low in range(offsets[0], offsets[-1] + 1)
            ]
            kernel = torch.cat(groups, dim=axis)
            first.append(offsets[0])
        result.append((cast(Triple, parity), cast(Triple, tuple(first)), kernel))
    return result


class UNetEngine:
    """A U-Net ready to run on one device.

    Parameters
    ----------
    network : trained network; its weights are copied.
    device, dtype : where and with which arithmetic it runs; the head always works in float32.
    mirror : channel permutation of the left-right exchange. With it the engine computes, for an image, what the
        network gives for the mirrored image, mirrored back and with left and right channels exchanged.
    slab_bytes : size of one full-resolution feature slab; None chooses by device.

    """

    def __init__(
        self,
        network: UNet,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        mirror: Sequence[int] | None = None,
        slab_bytes: int | None = None,
    ) -> None:
        self.spec, self.device, self.dtype = network.spec, torch.device(device), dtype
        self._half, self._mirror = network.spec.kernel // 2, mirror is not None
        self._slab_bytes = slab_bytes or (_SLAB_BYTES if self.device.type == "cpu" else _GPU_SLAB_BYTES)
        with torch.inference_mode():
            encoder, decoder = network.levels()
            self._encoder = [self._level(level) for level in encoder]
            joined = len(decoder) - network.spec.skipped
            self._decoder = [self._level(level, joined=j < joined, up=True) for j, level in enumerate(decoder)]
            self._head = self._folded_head(network, mirror)

    # ------------------------------------------------------------------------------------------------ preparation

    def _weight(self, weight: Tensor) -> Tensor:
        """Bring a kernel to the device in the layout of the tensors."""
        return weight.detach().to(self.device, self.dtype).contiguous(memory_format=torch.channels_last_3d)

    def _level(self, level: Level, *, joined: bool = False, up: bool = False) -> _LevelWeights:
        pairs = level.kernels_and_biases()
        kernels = [kernel.flip(2) if self._mirror else kernel for kernel, _ in pairs]
        biases = [bias.to(self.device, self.dtype) for _, bias in pairs]
        skip, phases = None, []
        if up:
            own = kernels[0].shape[0] if joined else 0
            skip = self._weight(kernels[0][:, :own]) if joined else None
            phases = [_PhaseGroup(x, self._weight, kernels[0][:, own:].double()) for x in (0, 1)]
            kernels[0] = kernels[0][:0]  # its parts take its place
        scale, shift = (v.to(self.device, self.dtype).view(1, -1, 1, 1, 1) for v in level.scale_and_shift())
        return _LevelWeights([self._weight(k) for k in kernels], biases, skip, phases, scale, shift)

    def _folded_head(self, network: UNet, mirror: Sequence[int] | None) -> tuple[Tensor, Tensor]:
        """Return the head as a (C, features) matrix and (C, 1) bias with the last batch normalisation inside."""
        weight = network.head.weight.detach().flatten(1).double()
        bias = cast(Tensor, network.head.bias).detach().double()
        encoder, decoder = network.levels()
        scale, shift = (decoder or encoder)[-1].scale_and_shift()
        weight, bias = weight * scale, bias + weight @ shift
        if mirror is not None:
            order = torch.as_tensor(list(mirror))
            weight, bias = weight[order], bias[order]
        return weight.float().to(self.device), bias.float().to(self.device)[:, None]

    # -------------------------------------------------------------------------------------------------- the run

    @torch.inference_mode()
    def run(self, image: Tensor, sink: Sink, progress: Callable[[float], None] | None = None) -> None:
        """Run the network on an image (in_channels, X, Y, Z) and hand the logits to ``sink`` slab by slab.

        ``sink(start, stop, logits)`` gets (out_channels, N), N = (stop - start) voxels of the first three axes
        flattened, in order; ``start`` and ``stop`` count flattened voxels. ``progress`` gets the share that is done.
        """
        report = progress or (lambda done: None)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # labels must not depend on the device
            self._run(image, sink, report)

    def _run(self, image: Tensor, sink: Sink, report: Callable[[float], None]) -> None:
        top = self._encode_top(image, lambda done: report(0.2 * done))
        x = self._pool(top[:, :, self._half : top.shape[2] - self._half], self._encoder[0])
        skips: list[Tensor | None] = []
        for index, weights in enumerate(self._encoder[1:], start=1):
            x = self._convs(x, weights)
            if index < self.spec.levels - 1:
                skips.append(x)
                x = self._pool(x, weights)
        x = _normalise(x, self._encoder[-1])
        report(0.3)
        for j, weights in enumerate(self._decoder[:-1]):
            x = F.elu_(self._join(skips.pop(), x, weights))
            x = _normalise(self._convs(x, weights, first=1), weights)
            report(0.3 + 0.15 * (j + 1) / len(self._decoder))
        self._decode_top(top, x, sink, lambda done: report(0.45 + 0.55 * done))

    def _convs(self, x: Tensor, weights: _LevelWeights, first: int = 0) -> Tensor:
        """Apply a level's convolutions and activations from number ``first`` on."""
        for kernel, bias in zip(weights.kernels[first:], weights.biases[first:], strict=True):
            x = F.elu_(F.conv3d(x, kernel, bias, padding=self._half))
        return x

    def _pool(self, x: Tensor, weights: _LevelWeights) -> Tensor:
        """Normalise and pool; pooling comes first where the scale is positive, since it then changes nothing."""
        first = bool((weights.scale > 0).all())
        pooled = self._empty(x.shape[1], [n // 2 for n in x.shape[2:]])
        step = max(2, _SLAB_BYTES // (x[:, :, :1].numel() * 4) // 2 * 2)
        for a in range(0, x.shape[2], step):
            piece = x[:, :, a : a + step]
            piece = piece if first else _normalise(piece.clone(), weights)
            piece = torch.maximum(piece[:, :, ::2], piece[:, :, 1::2])
            piece = torch.maximum(piece[:, :, :, ::2], piece[:, :, :, 1::2])
            target = pooled[:, :, a // 2 : a // 2 + piece.shape[2]]
            torch.maximum(piece[..., ::2], piece[..., 1::2], out=target)
        return _normalise(pooled, weights) if first else pooled

    def _join(self, skip: Tensor | None, low: Tensor, weights: _LevelWeights) -> Tensor:
        """Return the first decoder convolution, before its activation, over a whole level."""
        if weights.skip is not None and skip is not None:
            out = F.conv3d(skip, weights.skip, weights.biases[0], padding=self._half)
        else:
            out = self._biased(weights, [2 * n for n in low.shape[2:]])
        for group in weights.phases:
            group.add(out, low, pad_x=True)
        return out

    def _empty(self, channels: int, shape: Sequence[int]) -> Tensor:
        size = (1, channels, *shape)
        return torch.empty(size, device=self.device, dtype=self.dtype, memory_format=torch.channels_last_3d)

    def _biased(self, weights: _LevelWeights, shape: Sequence[int]) -> Tensor:
        out = self._empty(len(weights.biases[0]), shape)
        return out.copy_(weights.biases[0].view(1, -1, 1, 1, 1).expand_as(out))

    def _slabs(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        """Split the first of three axes into slabs of an even number of planes, enough for a chain to give some."""
        rest = shape[1] * shape[2] * self.spec.width * 4
        least = self.spec.convs * self._half + 2
        step = (max(least, min(shape[0], self._slab_bytes // rest)) + 1) // 2 * 2
        return [(a, min(a + step, shape[0])) for a in range(0, shape[0], step)]

    def _encode_top(self, image: Tensor, report: Callable[[float], None]) -> Tensor:
        """Run the first level in slabs; returns its skip tensor with planes of zeros before and after."""
        half, (planes, y, z) = self._half, image.shape[1:]
        slabs = self._slabs((planes, y, z))
        skip = self._empty(self.spec.width, (planes + 2 * half, y, z))
        skip[:, :, :half], skip[:, :, planes + half :] = 0, 0
        chain = _Chain(self._encoder[0], 0, half, self._empty, (slabs[0][1], y, z))
        written = half
        for a, b in slabs:
            chain.room(b - a).copy_(image[None, :, a:b])
            out = chain.run(last=b == planes)
            _elu_into(skip[:, :, written : written + out.shape[2]], out)
            written += out.shape[2]
            report(b / planes)
        return skip

    def _decode_top(self, skip: Tensor, low: Tensor, sink: Sink, report: Callable[[float], None]) -> None:
        """Run the last decoder level and the head in slabs; ``skip`` has planes of zeros before and after."""
        weights, half = self._decoder[-1], self._half
        planes, y, z = (2 * n for n in low.shape[2:])
        slabs = self._slabs((planes, y, z))
        chain = _Chain(weights, 1, half, self._empty, (slabs[0][1], y, z))
        margin, written = _margin(half), 0
        for a, b in slabs:
            if weights.skip is not None:
                out = F.conv3d(skip[:, :, a : b + 2 * half], weights.skip, weights.biases[0], padding=(0, half, half))
            else:
                out = self._biased(weights, (b - a, y, z))
            x0, x1 = a // 2 - margin, b // 2 + margin
            piece = low[:, :, max(x0, 0) : x1]
            if x0 < 0 or x1 > low.shape[2]:
                piece = F.pad(piece, (0, 0, 0, 0, max(-x0, 0), max(x1 - low.shape[2], 0)))
            for group in weights.phases:
                group.add(out, piece, pad_x=False)
            out = self._finish(chain, out, last=b == planes)
            rows = out.permute(0, 2, 3, 4, 1).reshape(-1, self.spec.width)
            self._apply_head(rows, written * y * z, sink)
            written += out.shape[2]
            report(b / planes)

    def _finish(self, chain: _Chain, out: Tensor, *, last: bool) -> Tensor:
        """Run what follows the first convolution of the last level."""
        if not chain.layers:
            return F.elu_(out)
        _elu_into(chain.room(out.shape[2]), out)
        return F.elu_(chain.run(last=last))

    def _apply_head(self, rows: Tensor, start: int, sink: Sink) -> None:
        weight, bias = self._head
        step = _HEAD_VOXELS if self.device.type == "cpu" else len(rows)
        for i in range(0, len(rows), step):
            piece = rows[i : i + step].float()
            sink(start + i, start + i + len(piece), torch.addmm(bias, weight, piece.T))


@dataclass(frozen=True)
class _LevelWeights:
    """The tensors of one level, ready to use; of a decoder level the first kernel is in ``skip`` and ``phases``."""

    kernels: list[Tensor]
    biases: list[Tensor]
    skip: Tensor | None
    phases: list[_PhaseGroup]
    scale: Tensor
    shift: Tensor


class _PhaseGroup:
    """The four kernels of one parity along X, in one convolution of a low-resolution tensor."""

    def __init__(self, parity_x: int, ready: Callable[[Tensor], Tensor], weight: Tensor) -> None:
        self._features, self._margin = weight.shape[0], _margin(weight.shape[2] // 2)
        phases = [phase for phase in phase_kernels(weight) if phase[0][0] == parity_x]
        self._places = [(parity, [o + self._margin for o in offset]) for parity, offset, _ in phases]
        self._kernel = ready(torch.cat([kernel for _, _, kernel in phases]))

    def add(self, out: Tensor, low: Tensor, *, pad_x: bool) -> None:
        """Add to every second plane of ``out`` the convolution of ``low``, up-sampled.

        ``low`` is padded with zeros here along Y and Z, and along X with ``pad_x``; else it has its margins there.
        """
        m = self._margin
        if pad_x:
            parts = F.conv3d(low, self._kernel, padding=m)
        else:
            first = self._places[0][1][0]
            span = out.shape[2] // 2 + self._kernel.shape[2] - 1
            parts = F.conv3d(low[:, :, first : first + span], self._kernel, padding=(0, m, m))
        for number, (parity, start) in enumerate(self._places):
            target = out[(_ALL, _ALL, *(slice(p, None, 2) for p in parity))]
            begin = [start[0] if pad_x else 0, *start[1:]]
            index = (slice(a, a + n) for a, n in zip(begin, target.shape[2:], strict=True))
            features = slice(number * self._features, (number + 1) * self._features)
            target += parts[(_ALL, features, *index)]


class _Chain:
    """Convolutions over slabs that arrive one after the other along X, with activations between them.

    Each convolution keeps the last planes of its input, so a slab's result lags behind by half a kernel per
    convolution, and the last call catches up. Planes of zeros stand before the first and after the last slab.
    """

    def __init__(
        self,
        weights: _LevelWeights,
        first: int,
        half: int,
        empty: Callable[[int, Sequence[int]], Tensor],
        slab: tuple[int, int, int],
    ) -> None:
        self.layers = list(zip(weights.kernels[first:], weights.biases[first:], strict=True))
        self._half, count = half, len(self.layers)
        planes = slab[0] + (3 + count) * half  # kept planes, a last slab that catches up, zeros behind it
        self._inputs = [empty(kernel.shape[1], (planes, *slab[1:])) for kernel, _ in self.layers]
        self._filled = [half] * count
        for buffer in self._inputs:
            buffer[:, :, :half] = 0

    def room(self, planes: int, layer: int = 0) -> Tensor:
        """Return the place (1, C, planes, Y, Z) into which the next planes of a layer's input are written."""
        filled = self._filled[layer]
        self._filled[layer] += planes
        return self._inputs[layer][:, :, filled : filled + planes]

    def run(self, *, last: bool) -> Tensor:
        """Run all layers on what has arrived; returns the complete planes, the last activation not yet applied."""
        half, out = self._half, torch.empty(0)
        for index, (kernel, bias) in enumerate(self.layers):
            if index:
                _elu_into(self.room(out.shape[2], index), out)
            if last:
                self.room(half, index).zero_()
            x = self._inputs[index][:, :, : self._filled[index]]
            out = F.conv3d(x, kernel, bias, padding=(0, half, half))
            self._inputs[index][:, :, : 2 * half] = x[:, :, x.shape[2] - 2 * half :].clone()
            self._filled[index] = 2 * half
        return out


def _elu_into(target: Tensor, x: Tensor) -> None:
    """Write the ELU of ``x`` into ``target``."""
    torch.ops.aten.elu.out(x, out=target)


def _normalise(x: Tensor, weights: _LevelWeights) -> Tensor:
    """Apply batch normalisation in place, with one rounding."""
    return torch.addcmul(weights.shift, x, weights.scale, out=x)


def _margin(half: int) -> int:
    """Return how many low-resolution voxels a kernel of this half width reaches beyond its own."""
    return (half + 1) // 2
