"""The recurrent convolutional autoencoder of Lyon, Armitage and Álvarez (MIDL 2022, arXiv 2203.15598), 1D and 3D.

The encoder reads the measured volumes of a patch of 10x10x10 voxels with their directions, one after the other, into
one state; the decoder makes one volume from the state and a wanted direction. "1D" means that all kernels are 1x1x1.
Every convolution is followed by its activation and then by its normalisation. Axes here are (batch, channel, x, y, z);
the axis of directions q is folded into the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .harmonics import predict_damped

__all__ = [
    "PATCH",
    "RCNN",
    "STATE_CHANNELS",
    "Block",
    "ConvLSTM",
    "ConvUnit",
    "Decoder",
    "Encoder",
    "SpatialNorm",
    "unit_names",
]

PATCH = 10
"""Edge of a patch in voxels; the published scale and shift per voxel position fix it."""
STATE_CHANNELS = 48
"""Width of the published state."""
GUIDES = 3
"""Channels of the guide of a guided network."""
_LEAST_SPREAD = 0.02
_SPREAD_SCALE = 10.0  # brings the spread, as an input, to the size of the others
EPSILON = 1e-3
KERAS_MOMENTUM = 0.01
"""Share of the new batch in the running statistics (Keras: momentum 0.99)."""

Norm = Literal["instance", "batch", "none"]


@dataclass(frozen=True)
class Unit:
    """Name, output channels, kernel edge and normalisation of a convolution unit."""

    name: str
    channels: int
    kernel: int
    norm: Norm = "batch"


Block = tuple[Unit, ...]
"""Units that read the same input side by side; their outputs are concatenated in this order."""

_ENCODERS: dict[int, tuple[Block, ...]] = {
    1: ((Unit("ecv11", 376, 1, "instance"),), (Unit("ecv21", 664, 1),)),
    3: (
        (Unit("ecv11", 104, 1, "instance"), Unit("ecv12", 200, 2, "instance"), Unit("ecv13", 72, 3, "instance")),
        (Unit("ecv21", 280, 1), Unit("ecv22", 240, 2), Unit("ecv23", 144, 3)),
    ),
}
_DECODERS: dict[int, tuple[Block, ...]] = {
    1: ((Unit("dcv11", 632, 1),), (Unit("dcv21", 400, 1),)),
    3: (
        (Unit("dcv11", 240, 1), Unit("dcv12", 256, 2), Unit("dcv13", 136, 3)),
        (Unit("dcv21", 176, 1), Unit("dcv22", 136, 2), Unit("dcv23", 88, 3)),
    ),
}

_FIRST: Block = (Unit("init", 200, 1, "instance"),)
_NARROW: tuple[Block, ...] = ((Unit("ecvl1", 32, 1),), (Unit("ecvl2", 88, 1),))
_WIDEN: tuple[Block, ...] = ((Unit("dcvl1", 176, 1),), (Unit("dcvl2", 224, 1),))
_LAST: tuple[Block, ...] = ((Unit("dcv3", 16, 1, "none"),), (Unit("dc4", 1, 1, "none"),))


def unit_names(dims: int) -> tuple[str, ...]:
    """Return the names of the layers of the ``dims``-D network whose width can be chosen: all but the last."""
    encoder = [_FIRST, *_ENCODERS[dims], *_NARROW]
    decoder = [*_WIDEN, *_DECODERS[dims], _LAST[0]]
    return (*(u.name for block in encoder for u in block), "conv_lstm", *(u.name for block in decoder for u in block))


def _sized(
    blocks: tuple[Block, ...], widths: Mapping[str, int] | None, spatial: Norm = "instance"
) -> tuple[Block, ...]:
    """Return blocks with other widths, by unit name, and ``spatial`` where the norm is that of patches."""

    def sized(unit: Unit) -> Unit:
        channels = int((widths or {}).get(unit.name, unit.channels))
        return replace(unit, channels=channels, norm=spatial if unit.norm == "instance" else unit.norm)

    return tuple(tuple(sized(unit) for unit in block) for block in blocks)


def same_conv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Convolve with zero padding such that sizes stay; even kernels get the extra zero behind, as in TensorFlow."""
    kernel = weight.shape[-1]
    if kernel % 2 == 0:
        before = (kernel - 1) // 2
        return functional.conv3d(functional.pad(x, (before, kernel - 1 - before) * 3), weight, bias)
    return functional.conv3d(x, weight, bias, padding=kernel // 2)


class SpatialNorm(nn.Module):
    """Keras' LayerNormalization over the three axes of space: one scale and shift per voxel, for all channels.

    Mean and population variance are those of one sample and channel. This is not PyTorch's instance normalisation,
    whose scale and shift are per channel.
    """

    def __init__(self, patch: int = PATCH) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(patch, patch, patch))
        self.bias = nn.Parameter(torch.zeros(patch, patch, patch))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, x, y, z)."""
        mean, variance = _sequential_moments(x) if _is_plain(x) else _moments(x)
        scale = torch.rsqrt(variance + EPSILON) * self.weight
        return x * scale + (self.bias - mean * scale)


def _is_plain(x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and not (torch.is_grad_enabled() and x.requires_grad)


def _moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    variance, mean = torch.var_mean(x, dim=(2, 3, 4), keepdim=True, correction=0)
    return mean, variance


def _sequential_moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (*x.shape[:2], 1, 1, 1)
    mean, variance = sequential_moments(x.permute(2, 3, 4, 0, 1).reshape(-1, x.shape[0] * x.shape[1]))
    return mean.view(shape), variance.view(shape)


def sequential_moments(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance of columns (voxel, column), float32, summed row after row as the original sums them.

    In a patch that is mostly background a thousand equal numbers are added, whose rounding errors do not cancel. They
    move the original's output by up to 7e-5 of its range against exact sums; in the same order they are the same.
    """
    values = np.ascontiguousarray(rows.detach().numpy())  # NumPy adds along the first axis one row at a time
    count = np.float32(len(values))
    mean = np.add.reduce(values, axis=0) / count
    variance = np.add.reduce(np.square(values - mean), axis=0) / count
    return torch.from_numpy(mean), torch.from_numpy(variance)


class KerasBatchNorm(nn.Module):
    """Batch normalisation as Keras' non-fused path does it: the running variance is the population variance.

    With ``shared`` set, a batch in training is that of all processes (:mod:`..shared_statistics`).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shared = False
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, x, y, z) over all axes but C; in training by the batch, which updates the running values."""
        mean, variance = cast(torch.Tensor, self.running_mean), cast(torch.Tensor, self.running_var)
        if self.training and self.shared:
            return self._shared(x)
        if self.training:
            out, batch_mean, inverse = torch.native_batch_norm(
                x, self.weight, self.bias, None, None, True, 0.0, EPSILON
            )
            with torch.no_grad():
                mean.lerp_(batch_mean, KERAS_MOMENTUM)
                variance.lerp_(inverse.pow(-2) - EPSILON, KERAS_MOMENTUM)
            return out
        scale = self.weight * torch.rsqrt(variance + EPSILON)
        return self._scaled(x, mean, scale)

    def _scaled(self, x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        shape = (1, -1, 1, 1, 1)
        return x * scale.view(shape) + (self.bias - mean * scale).view(shape)

    def _shared(self, x: torch.Tensor) -> torch.Tensor:
        from ..shared_statistics import moments_of_all

        mean, variance, _ = moments_of_all(x)
        with torch.no_grad():
            cast(torch.Tensor, self.running_mean).lerp_(mean, KERAS_MOMENTUM)
            cast(torch.Tensor, self.running_var).lerp_(variance, KERAS_MOMENTUM)
        return self._scaled(x, mean, self.weight * torch.rsqrt(variance + EPSILON))


class ConvUnit(nn.Module):
    """Convolution, activation (swish; ReLU for the last layer), normalisation, in this order.

    ``linear`` set leaves the activation out.
    """

    def __init__(self, channels_in: int, unit: Unit, *, last: bool = False, patch: int = PATCH) -> None:
        super().__init__()
        self.unit, self.last, self.linear = unit, last, False
        shape = (unit.channels, channels_in, unit.kernel, unit.kernel, unit.kernel)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(unit.channels))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")  # Keras' he_uniform
        norms = {"instance": lambda: SpatialNorm(patch), "batch": lambda: KerasBatchNorm(unit.channels)}
        self.norm = norms.get(unit.norm, nn.Identity)()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the unit to (N, C, x, y, z)."""
        x = same_conv(x, self.weight, self.bias)
        if not self.linear:
            x = torch.relu(x) if self.last else functional.silu(x)
        return cast(torch.Tensor, self.norm(x))


class ConvLSTM(nn.Module):
    """Keras' ConvLSTM3D with 1x1x1 kernels and its hard sigmoid, clip(0.2 v + 0.5, 0, 1); gates in order i, f, g, o."""

    def __init__(self, channels_in: int, channels: int = STATE_CHANNELS) -> None:
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(torch.empty(4 * channels, channels_in, 1, 1, 1))
        self.recurrent = nn.Parameter(torch.empty(4 * channels, channels, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(4 * channels))
        nn.init.xavier_uniform_(self.weight)
        nn.init.orthogonal_(self.recurrent)
        nn.init.ones_(self.bias.data[channels : 2 * channels])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last hidden state (B, 48, x, y, z) of a sequence (B, q, C, x, y, z), read in its order."""
        batch, count = x.shape[:2]
        inputs = functional.conv3d(x.flatten(0, 1), self.weight, self.bias).unflatten(0, (batch, count))
        hidden = cell = torch.zeros_like(inputs[:, 0, : self.channels])
        for step in range(count):
            gates = inputs[:, step] if step == 0 else inputs[:, step] + functional.conv3d(hidden, self.recurrent)
            hidden, cell = lstm_step(gates, cell, self.channels)
        return hidden


def lstm_step(gates: torch.Tensor, cell: torch.Tensor, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (hidden, cell) after one step, from the summed gates with the channels in axis 1."""
    i, f, g, o = gates.split(channels, dim=1)
    cell = hard_sigmoid(f) * cell + hard_sigmoid(i) * torch.tanh(g)
    return hard_sigmoid(o) * torch.tanh(cell), cell


def hard_sigmoid(v: torch.Tensor) -> torch.Tensor:
    """Return clip(0.2 v + 0.5, 0, 1): Keras 2's, not PyTorch's, whose slope is 1/6."""
    return (0.2 * v + 0.5).clamp(0, 1)


class _Stack(nn.Module):
    """Units by name, and blocks of them; each block's input is concatenated behind by the same extra channels."""

    def add(self, channels_in: int, units: Block, patch: int = PATCH) -> int:
        for unit in units:
            self.add_module(unit.name, ConvUnit(channels_in, unit, last=unit.name == "dc4", patch=patch))
        return sum(unit.channels for unit in units)

    def unit(self, name: str) -> ConvUnit:
        """Return the unit of this name."""
        return cast(ConvUnit, getattr(self, name))

    def block(self, x: torch.Tensor, units: Block, extra: torch.Tensor) -> torch.Tensor:
        """Return the outputs of a block with ``extra`` behind them."""
        return torch.cat([*(self.unit(item.name)(x) for item in units), extra], dim=1)


class Encoder(_Stack):
    """Measured volumes with directions to a state."""

    def __init__(
        self,
        dims: int,
        patch: int = PATCH,
        widths: Mapping[str, int] | None = None,
        spatial: Norm = "instance",
        vector: int = 3,
    ) -> None:
        super().__init__()
        self.blocks = _sized(_ENCODERS[dims], widths, spatial)
        channels = self.add(1 + vector, _sized((_FIRST,), widths, spatial)[0], patch)
        for block in self.blocks:
            channels = self.add(channels, block, patch) + 1 + vector
        for block in _sized(_NARROW, widths):
            channels = self.add(channels, block)
        self.conv_lstm = ConvLSTM(channels, int((widths or {}).get("conv_lstm", STATE_CHANNELS)))

    def forward(self, images: torch.Tensor, bvecs: torch.Tensor) -> torch.Tensor:
        """Return (B, 48, x, y, z) from images (B, q, x, y, z) and directions (B, q, 3), in the order given."""
        batch, count = images.shape[:2]
        vectors = bvecs.reshape(-1, bvecs.shape[2], 1, 1, 1).expand(-1, -1, *images.shape[2:])
        samples = torch.cat([images.reshape(-1, 1, *images.shape[2:]), vectors], dim=1)
        x = self.unit("init")(samples)
        for block in self.blocks:
            x = self.block(x, block, samples)
        x = self.unit("ecvl2")(self.unit("ecvl1")(x))
        return cast(torch.Tensor, self.conv_lstm(x.unflatten(0, (batch, count))))


class Decoder(_Stack):
    """A state and a direction to a volume."""

    def __init__(
        self, dims: int, state: int = STATE_CHANNELS, widths: Mapping[str, int] | None = None, extra: int = 3
    ) -> None:
        super().__init__()
        self.blocks = _sized(_DECODERS[dims], widths)
        channels = state + extra
        for block in _sized(_WIDEN, widths):
            channels = self.add(channels, block)
        channels += extra
        for block in self.blocks:
            channels = self.add(channels, block) + extra
        for block in _sized(_LAST, widths):
            channels = self.add(channels, block)

    def forward(self, state: torch.Tensor, bvecs: torch.Tensor, guide: torch.Tensor | None = None) -> torch.Tensor:
        """Return (B, q, x, y, z), not negative, from states (B, 48, x, y, z) and directions (B, q, 3).

        A guided network (:class:`RCNN`) takes its guide (B, q, 3, x, y, z) too, and what it gives may be negative.
        """
        batch, count = bvecs.shape[:2]
        vectors = bvecs.reshape(-1, bvecs.shape[2], 1, 1, 1).expand(-1, -1, *state.shape[2:])
        if guide is not None:
            vectors = torch.cat([vectors, guide.flatten(0, 1)], dim=1)
        x = torch.cat([state.repeat_interleave(count, dim=0), vectors], dim=1)
        x = torch.cat([self.unit("dcvl2")(self.unit("dcvl1")(x)), vectors], dim=1)
        for block in self.blocks:
            x = self.block(x, block, vectors)
        return cast(torch.Tensor, self.unit("dc4")(self.unit("dcv3")(x)).squeeze(1).unflatten(0, (batch, count)))


class RCNN(nn.Module):
    """The whole network.

    Parameters
    ----------
    dims :
        1 or 3.
    patch :
        Edge of a patch in voxels.
    widths :
        Channels of layers by name (:func:`unit_names`) where they differ from the published ones.
    spatial :
        Norm of the first layers: ``instance`` over a patch, as published, or ``batch``; with it a voxel of the 1D
        network depends on itself alone, whatever lies around it, and there are no seams between patches.
    smoothing :
        None: as published. A number: the network is guided. It adds to spherical harmonics damped by so much
        (:mod:`.harmonics`), reads directions as their six products, in which opposite ones are the same, and measured
        values by their mean and spread in each voxel, which its decoder is told together with the harmonics.

    """

    def __init__(
        self,
        dims: int,
        patch: int = PATCH,
        widths: Mapping[str, int] | None = None,
        *,
        spatial: Norm = "instance",
        smoothing: float | None = None,
    ) -> None:
        super().__init__()
        self.dims, self.patch = dims, patch
        vector = 3 if smoothing is None else 6
        self.encoder = Encoder(dims, patch, widths, spatial, vector)
        extra = vector if smoothing is None else vector + GUIDES
        self.decoder = Decoder(dims, self.encoder.conv_lstm.channels, widths, extra)
        if smoothing is not None:
            self.register_buffer("smoothing", torch.tensor(float(smoothing)))
            self.decoder.unit("dc4").linear = True

    @property
    def guided(self) -> bool:
        """Whether the network adds to spherical harmonics; see :meth:`guide` and :meth:`finished`."""
        return "smoothing" in self._buffers

    def directions(self, bvecs: torch.Tensor) -> torch.Tensor:
        """Return directions (..., 3) as encoder and decoder read them: themselves, or products (..., 6) if guided."""
        if not self.guided:
            return bvecs
        x, y, z = bvecs.unbind(-1)
        return torch.stack([x * x, y * y, z * z, x * y, x * z, y * z], dim=-1)

    def prepared(self, images: torch.Tensor) -> torch.Tensor:
        """Return volumes (B, q, x, y, z) as the encoder reads them: themselves, or standardised per voxel if guided."""
        if not self.guided:
            return images
        mean, spread = _mean_and_spread(images)
        return (images - mean) / spread

    def guide(self, images: torch.Tensor, bvecs_in: torch.Tensor, bvecs_out: torch.Tensor) -> torch.Tensor:
        """Return (B, q_out, 3, x, y, z): standardised damped harmonics, mean and spread of the measured volumes.

        Arguments as of the network itself.
        """
        values = predict_damped(images, bvecs_in, bvecs_out, float(cast(torch.Tensor, self.smoothing)))
        mean, spread = _mean_and_spread(images)
        parts = ((values - mean) / spread, mean.expand_as(values), (_SPREAD_SCALE * spread).expand_as(values))
        return torch.stack(parts, dim=2)

    def finished(self, out: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
        """Return volumes (B, q, x, y, z), not negative, from what the decoder of a guided network gave."""
        harmonics, mean, spread = guide.unbind(dim=2)
        return torch.relu(mean + spread / _SPREAD_SCALE * (harmonics + out))

    @property
    def state_channels(self) -> int:
        """Width of the state between encoder and decoder."""
        return self.encoder.conv_lstm.channels

    def forward(self, images: torch.Tensor, bvecs_in: torch.Tensor, bvecs_out: torch.Tensor) -> torch.Tensor:
        """Return volumes (B, q_out, x, y, z) from volumes (B, q_in, x, y, z) and directions (B, q, 3) of both."""
        state = self.encoder(self.prepared(images), self.directions(bvecs_in))
        if not self.guided:
            return cast(torch.Tensor, self.decoder(state, bvecs_out))
        guide = self.guide(images, bvecs_in, bvecs_out)
        return self.finished(self.decoder(state, self.directions(bvecs_out), guide), guide)


def _mean_and_spread(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and spread (B, 1, x, y, z) over the volumes (B, q, x, y, z)."""
    variance, mean = torch.var_mean(images, dim=1, keepdim=True, correction=0)
    return mean, (variance + _LEAST_SPREAD**2).sqrt()
