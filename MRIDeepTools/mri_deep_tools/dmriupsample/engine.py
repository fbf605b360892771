"""Running a network on patches at low cost: the measured directions are encoded once, all targets decoded in batches.

What the decoder computes from the state alone is computed once per patch, a direction enters as a bias, and batch
normalisation is folded into the layer behind it wherever that is exact. The 1D decoder runs on single voxels, and on
those alone that are wanted. On a CPU the 3D decoder convolves in the frequency domain (:mod:`.spectral`) where the
work and the memory allow. Results differ from the plain network by rounding only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional

from ..errors import OutOfMemoryError
from ..inference import available_memory, format_bytes
from .network import EPSILON, GUIDES, RCNN, ConvUnit, KerasBatchNorm, lstm_step, sequential_moments
from .spectral import SpectralConv, Workspace, spectra_bytes

__all__ = ["MemoryPlan", "PatchEngine", "plan_memory"]

_ROWS = 1024  # voxels at a time, so that a layer's input and output stay in the cache
_BATCH = 40  # pairs of patch and target that the frequency domain needs to be worth its transforms
_DIRECT_BATCH = 8
_GPU_BATCH = 64
_SPECTRAL_PAIRS = 60  # fewer pairs than this are done sooner than the spectra of the kernels
_PAIR_FLOATS = 1000 * 1600  # largest arrays of the plain decoder, per pair
_SPECTRAL_PAIR_FLOATS = 1000 * (227 + 635 + 403 + 2 * 176) + 1452 * 635 + 1320 * 635 + 2904 * 392
_ENCODER_FLOATS = {1: 1000 * 2400, 3: 1000 * 4400}  # per volume of a patch, by dimensions; measured

Tick = Callable[[float], None]


@dataclass(frozen=True)
class MemoryPlan:
    """How a network is run: ``spectral`` or not, how many (patch, target) pairs and context volumes at a time."""

    spectral: bool
    pairs: int
    volumes: int
    bytes_needed: int


def plan_memory(
    network: RCNN, device: torch.device, pairs: int, limit: int | None = None, context: int = 1
) -> MemoryPlan:
    """Return how to run a network within a limit.

    Parameters
    ----------
    network :
        The network; its patch size and dimension count.
    device :
        Where it runs.
    pairs :
        Number of (patch, target) pairs in all.
    limit :
        Bytes that the work may take beside the images; None: 80 % of what is free.
    context :
        Volumes of a patch that are encoded at a time.

    Raises
    ------
    OutOfMemoryError : not even one patch, or one pair, at a time fits.

    """
    room = int(0.8 * available_memory(device)) if limit is None else limit
    scale = (network.patch / 10) ** 3
    per_pair, per_volume = int(4 * _PAIR_FLOATS * scale), int(4 * _ENCODER_FLOATS[network.dims] * scale)
    one_patch = context * per_volume
    if room < max(per_pair, one_patch):
        needed = format_bytes(max(per_pair, one_patch))
        raise OutOfMemoryError(
            f"the network needs {needed} but {format_bytes(room)} may be used", "allow more memory or close programs"
        )
    volumes = int(min(32, room // per_volume))
    if network.dims == 3 and not network.guided and device.type == "cpu" and pairs >= _SPECTRAL_PAIRS:
        fixed = sum(spectra_bytes(*channels, network.patch) for channels in _spectral_channels(network))
        each, fixed = int(4 * _SPECTRAL_PAIR_FLOATS * scale), int(1.2 * fixed)
        batch = min(_BATCH, (room - fixed - one_patch) // each)
        if batch >= _BATCH // 2:  # the spectra and their arrays stay while the next patches are encoded
            volumes = max(context, min(volumes, (room - fixed - batch * each) // per_volume))
            return MemoryPlan(True, batch, volumes, fixed + batch * each + volumes * per_volume)
    batch = int(min(_GPU_BATCH if device.type == "cuda" else _DIRECT_BATCH, room // per_pair))
    return MemoryPlan(False, batch, volumes, max(batch * per_pair, volumes * per_volume))


def _spectral_channels(network: RCNN) -> list[tuple[int, int]]:
    """Return (in, out) of the larger kernels of each block of the 3D decoder."""
    blocks = [[network.decoder.unit(item.name).weight for item in block] for block in network.decoder.blocks]
    return [(block[0].shape[1], sum(weight.shape[0] for weight in block[1:])) for block in blocks]


class PatchEngine:
    """A network that is ready to run on patches.

    Parameters
    ----------
    network :
        In evaluation mode, on its device.
    plan :
        See :func:`plan_memory`.

    """

    def __init__(self, network: RCNN, plan: MemoryPlan) -> None:
        self.network, self.plan, self.patch = network, plan, network.patch
        self.device = network.encoder.unit("init").weight.device
        self._pointwise = _PointwiseDecoder(network) if network.dims == 1 else None
        on_cpu = network.dims == 1 and self.device.type == "cpu"
        self._row_encoder = _PointwiseEncoder(network) if on_cpu else None
        self._spectral: _SpectralDecoder | None = None

    @torch.no_grad()
    def encode(self, patches: torch.Tensor, bvecs: torch.Tensor) -> torch.Tensor:
        """Return the states (P, state, x, y, z) of patches (P, q, x, y, z), all with the directions (q, 3)."""
        step = max(1, self.plan.volumes // patches.shape[1])
        states, bvecs = [], self.network.directions(bvecs)
        for start in range(0, patches.shape[0], step):
            part = self.network.prepared(patches[start : start + step].to(self.device))
            if self._row_encoder is not None:
                states.append(self._row_encoder(part, bvecs))
                continue
            states.append(self.network.encoder(part, bvecs.to(self.device).expand(part.shape[0], -1, -1)))
        return torch.cat(states)

    @torch.no_grad()
    def decode(
        self,
        states: torch.Tensor,
        bvecs: torch.Tensor,
        wanted: torch.Tensor | None = None,
        tick: Tick | None = None,
        guide: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return volumes (P, q, x, y, z) on the CPU from states (P, state, x, y, z) and directions (q, 3).

        Of a guided network, what it adds to the harmonics.

        Parameters
        ----------
        states, bvecs :
            What :meth:`encode` gave, and the wanted directions.
        wanted :
            (P, x, y, z) bool: voxels that are needed; what stands elsewhere is not defined. None: all.
        tick :
            Is told the share that is done, from 0 to 1.
        guide :
            (P, q, 3, x, y, z), see :meth:`.network.RCNN.guide`; for guided networks.

        """
        bvecs = self.network.directions(bvecs)
        if self._pointwise is not None:
            return self._pointwise(states, bvecs.to(states), wanted, tick, guide)
        if self.plan.spectral:
            if self._spectral is None:
                self._spectral = _SpectralDecoder(self.network, self.plan.pairs)
            return self._spectral(states, bvecs.to(states), tick)
        return self._direct(states, bvecs.to(states), tick, guide)

    def _direct(
        self, states: torch.Tensor, bvecs: torch.Tensor, tick: Tick | None, guide: torch.Tensor | None
    ) -> torch.Tensor:
        out = torch.empty((states.shape[0], bvecs.shape[0], *states.shape[2:]), dtype=torch.float32)
        pairs = out.view(-1, *states.shape[2:])
        for which, patch, target in _pair_batches(states.shape[0], bvecs.shape[0], self.plan.pairs):
            hints = None if guide is None else guide[patch, target][:, None].to(states)
            pairs[which] = self.network.decoder(states[patch], bvecs[target, None], hints)[:, 0].float().cpu()
            if tick:
                tick(which.stop / pairs.shape[0])
        return out


def _pair_batches(patches: int, targets: int, size: int) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield (which pairs, their patches, their targets), ``size`` pairs at a time, patch by patch."""
    for start in range(0, patches * targets, size):
        index = torch.arange(start, min(start + size, patches * targets))
        yield slice(start, int(index[-1]) + 1), index // targets, index % targets


@dataclass
class _Dense:
    """A unit with 1x1x1 kernel as a matrix (in, out) with bias; the normalisation behind it as scale and shift."""

    weight: torch.Tensor
    bias: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor

    @classmethod
    def of(cls, unit: ConvUnit, before: _Dense | None = None, features: int = 0) -> _Dense:
        """Take a unit; ``before`` is the layer whose normalisation is folded in, into the first ``features`` inputs."""
        weight = unit.weight.detach().cpu().double().flatten(1).T.clone()  # on the CPU: not every GPU has float64
        bias = unit.bias.detach().cpu().double().clone()
        if before is not None:
            bias += before.shift @ weight[:features]
            weight[:features] *= before.scale[:, None]
        return cls(weight, bias, *_affine(unit))

    def float(self, device: torch.device | str = "cpu") -> _Dense:
        """Return the same in float32, contiguous, on a device."""
        tensors = (self.weight, self.bias, self.scale, self.shift)
        return _Dense(*(tensor.float().contiguous().to(device) for tensor in tensors))


def _affine(unit: ConvUnit) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scale and shift, float64, that a unit's batch normalisation is at inference."""
    if not isinstance(unit.norm, KerasBatchNorm):
        one = torch.ones(unit.bias.shape, dtype=torch.float64)
        return one, torch.zeros_like(one)
    state = {name: tensor.detach().cpu().double() for name, tensor in unit.norm.state_dict().items()}
    weight, bias, mean, variance = (state[name] for name in ("weight", "bias", "running_mean", "running_var"))
    scale = weight / torch.sqrt(variance + 1e-3)
    return scale, bias - mean * scale


def _floor(network: RCNN) -> float:
    """Return the smallest value that a decoder gives: 0, or none where it only adds to something else."""
    return -float("inf") if network.guided else 0.0


class _PointwiseEncoder:
    """The 1D encoder on rows (voxel, volume), one patch at a time; only its two normalisations see whole patches."""

    def __init__(self, network: RCNN) -> None:
        unit = network.encoder.unit
        self.norms = [unit(name).norm for name in ("init", "ecv11")]
        second = _Dense.of(unit("ecv21"))
        third = _Dense.of(unit("ecvl1"), second, second.weight.shape[1])
        fourth = _Dense.of(unit("ecvl2"), third, third.weight.shape[1])
        self.layers = [
            layer.float() for layer in (_Dense.of(unit("init")), _Dense.of(unit("ecv11")), second, third, fourth)
        ]
        cell = network.encoder.conv_lstm
        weight = cell.weight.detach().double().flatten(1).T
        self.gates = (fourth.scale[:, None] * weight).float().contiguous()
        self.gate_bias = (cell.bias.detach().double() + fourth.shift @ weight).float()
        self.recurrent = cell.recurrent.detach().flatten(1).T.contiguous()

    def __call__(self, patches: torch.Tensor, bvecs: torch.Tensor) -> torch.Tensor:
        """Return the states (P, state, x, y, z) of patches (P, q, x, y, z) with the directions (q, 3)."""
        return torch.stack([self._one(patch, bvecs) for patch in patches])

    def _one(self, patch: torch.Tensor, bvecs: torch.Tensor) -> torch.Tensor:
        count, voxels = patch.shape[0], patch[0].numel()
        samples = torch.cat([patch.flatten(1).T[..., None], bvecs.expand(voxels, -1, -1)], dim=2)
        samples = samples.view(-1, samples.shape[2])
        x = self._normalised(self._swish(samples, 0), 0, voxels)
        x = self._normalised(self._swish(x, 1), 1, voxels)
        gates = torch.empty(voxels * count, self.gates.shape[1])
        for start in range(0, voxels * count, _ROWS):
            rows = slice(start, start + _ROWS)
            y = torch.cat([x[rows], samples[rows]], dim=1)
            y = torch.cat([self._swish(y, 2), samples[rows]], dim=1)
            gates[rows] = torch.addmm(self.gate_bias, self._swish(self._swish(y, 3), 4), self.gates)
        gates = gates.view(voxels, count, -1)
        width = self.recurrent.shape[0]
        hidden = cell = torch.zeros(voxels, width)
        for step in range(count):
            hidden, cell = lstm_step(torch.addmm(gates[:, step], hidden, self.recurrent), cell, width)
        return hidden.T.reshape(-1, *patch.shape[1:])

    def _swish(self, x: torch.Tensor, index: int) -> torch.Tensor:
        layer = self.layers[index]
        return functional.silu(torch.addmm(layer.bias, x, layer.weight), inplace=True)

    def _normalised(self, x: torch.Tensor, index: int, voxels: int) -> torch.Tensor:
        """Normalise rows (voxel volume, channel): over the voxels (:class:`.network.SpatialNorm`), or as learned."""
        norm, width = self.norms[index], x.shape[1]
        if isinstance(norm, KerasBatchNorm):
            return torch.addcmul(self.layers[index].shift, x, self.layers[index].scale, out=x)
        columns = x.view(voxels, -1)
        mean, variance = sequential_moments(columns)
        columns.sub_(mean).mul_(torch.rsqrt(variance + EPSILON))
        x = columns.view(voxels, -1, width)
        weight, bias = (norm.state_dict()[name].view(voxels, 1, 1) for name in ("weight", "bias"))
        return torch.addcmul(bias, x, weight, out=x).view(-1, width)


class _PointwiseDecoder:
    """The 1D decoder on rows of voxels: a chain of matrices, directions as biases."""

    def __init__(self, network: RCNN) -> None:
        names = ["dcvl1", "dcvl2", "dcv11", "dcv21", "dcv3", "dc4"]
        layers: list[_Dense] = []
        for name in names:
            unit = network.decoder.unit(name)
            before = layers[-1] if layers else None
            layers.append(_Dense.of(unit, before, before.weight.shape[1] if before else 0))
        device = network.decoder.unit("dc4").weight.device
        self.layers = [layer.float(device) for layer in layers]
        self.state, self.floor = network.state_channels, _floor(network)
        self.features = [self.state, *(layer.weight.shape[1] for layer in self.layers[:-1])]

    def __call__(
        self,
        states: torch.Tensor,
        bvecs: torch.Tensor,
        wanted: torch.Tensor | None,
        tick: Tick | None,
        guide: torch.Tensor | None = None,
    ) -> torch.Tensor:
        count, targets = states.shape[0], bvecs.shape[0]
        rows = states.permute(0, 2, 3, 4, 1).reshape(-1, self.state)
        kept = None if wanted is None else wanted.reshape(-1).nonzero()[:, 0].to(rows.device)
        hints = None if guide is None else guide.to(rows).permute(0, 3, 4, 5, 1, 2).reshape(-1, targets, GUIDES)
        if kept is not None:
            rows, hints = rows[kept], None if hints is None else hints[kept]
        vector = bvecs.shape[1]
        biases = [
            layer.bias + bvecs @ layer.weight[inside : inside + vector]
            if layer.weight.shape[0] > inside
            else layer.bias.expand(targets, -1)
            for layer, inside in zip(self.layers, self.features, strict=True)
        ]
        out = torch.empty((rows.shape[0], targets), device=rows.device)
        space = Workspace(rows.device)
        size = _ROWS if rows.device.type == "cpu" else 1 << 16
        for start in range(0, rows.shape[0], size):
            part = slice(start, start + size)
            self._chunk(rows[part], biases, out[part], space, None if hints is None else hints[part])
            if tick:
                tick(min(start + size, rows.shape[0]) / rows.shape[0])
        if kept is not None:
            out = torch.zeros((states[:, 0].numel(), targets), device=out.device).index_copy_(0, kept, out)
        return out.view(count, *states.shape[2:], targets).movedim(-1, 1).float().cpu()

    def _chunk(
        self,
        rows: torch.Tensor,
        biases: list[torch.Tensor],
        out: torch.Tensor,
        space: Workspace,
        hints: torch.Tensor | None,
    ) -> None:
        count = rows.shape[0]
        base = rows @ self.layers[0].weight[: self.state]
        for target in range(out.shape[1]):
            x = torch.add(base, biases[0][target], out=space.take("first", count, base.shape[1]))
            self._hint(x, 0, hints, target)
            for index, (layer, inside) in enumerate(zip(self.layers[1:], self.features[1:], strict=True), start=1):
                functional.silu(x, inplace=True)
                y = space.take(f"layer{index}", count, layer.weight.shape[1])
                x = torch.addmm(biases[index][target], x, layer.weight[:inside], out=y)
                self._hint(x, index, hints, target)
            out[:, target] = x[:, 0].clamp_min(self.floor)

    def _hint(self, x: torch.Tensor, index: int, hints: torch.Tensor | None, target: int) -> None:
        """Add what the guide, the last channels of a layer's input, gives to a layer's sums."""
        weight = self.layers[index].weight
        if hints is not None and weight.shape[0] > self.features[index]:
            x.addmm_(hints[:, target], weight[-GUIDES:])


class _SpectralDecoder:
    """The 3D decoder on arrays (x, y, z, pair, channel), with the larger kernels in the frequency domain."""

    def __init__(self, network: RCNN, batch: int) -> None:
        self.patch, self.batch, unit = network.patch, batch, network.decoder.unit
        self.state, self.floor = network.state_channels, _floor(network)
        first = _Dense.of(unit("dcvl1"))
        second = _Dense.of(unit("dcvl2"), first, first.weight.shape[1])
        self.first, self.second = first.float(), second.float()
        self.space = Workspace(unit("dcvl1").weight.device)
        self.blocks = [
            _SpectralBlock([unit(u.name) for u in block], self.patch, self.space) for block in network.decoder.blocks
        ]
        last_in = [_affine(unit(u.name)) for u in network.decoder.blocks[-1]]
        norm = _Dense(
            torch.empty(0), torch.empty(0), torch.cat([a for a, _ in last_in]), torch.cat([b for _, b in last_in])
        )
        self.third = _Dense.of(unit("dcv3"), norm, norm.scale.numel()).float()
        self.last = _Dense.of(unit("dc4")).float()
        self.blocks[-1].drop_norm()

    def __call__(self, states: torch.Tensor, bvecs: torch.Tensor, tick: Tick | None) -> torch.Tensor:
        n, patches, targets = self.patch, states.shape[0], bvecs.shape[0]
        out = torch.empty((patches * targets, n**3))
        turn = self.first.weight[self.state :]
        offsets = bvecs @ turn + self.first.bias
        bases: dict[int, torch.Tensor] = {}
        for which, patch, target in _pair_batches(patches, targets, self.batch):
            needed = patch.unique().tolist()
            for index in needed:
                if index not in bases:
                    bases[index] = states[index].flatten(1).T @ self.first.weight[: self.state]
            bases = {index: bases[index] for index in needed}
            x = self._start(bases, patch.tolist(), offsets[target], bvecs[target])
            for block in self.blocks:
                x = block(x, bvecs[target])
            out[which] = self._finish(x).T
            if tick:
                tick(which.stop / out.shape[0])
        return out.view(patches, targets, n, n, n)

    def _start(
        self, bases: dict[int, torch.Tensor], patch: list[int], offsets: torch.Tensor, bvecs: torch.Tensor
    ) -> torch.Tensor:
        """Return the input of the first block, (x y z, pair, 227)."""
        voxels, width, inside = self.patch**3, self.second.weight.shape[1], offsets.shape[1]
        x = self.space.take("in", voxels, len(patch), width + 3)
        x[..., width:] = bvecs
        step = max(1, _ROWS // len(patch))
        for start in range(0, voxels, step):
            rows = slice(start, min(start + step, voxels))
            count = (rows.stop - start) * len(patch)
            y = self.space.take("rows", rows.stop - start, len(patch), inside)
            for pair, index in enumerate(patch):
                torch.add(bases[index][rows], offsets[pair], out=y[:, pair])
            functional.silu(y, inplace=True)
            z = self.space.take("more rows", count, width)
            functional.silu(
                torch.addmm(self.second.bias, y.view(count, inside), self.second.weight, out=z), inplace=True
            )
            target = x.view(-1, width + 3)[start * len(patch) : start * len(patch) + count, :width]
            torch.addcmul(self.second.shift, z, self.second.scale, out=target)
        return x

    def _finish(self, x: torch.Tensor) -> torch.Tensor:
        """Return the values (x y z, pair) from the output of the last block."""
        rows, out = x.flatten(0, -2), torch.empty(x.shape[:-1])
        flat = out.view(-1)
        for start in range(0, rows.shape[0], _ROWS):
            y = torch.addmm(self.third.bias, rows[start : start + _ROWS], self.third.weight)
            y = torch.addmm(self.last.bias, functional.silu(y, inplace=True), self.last.weight)
            flat[start : start + _ROWS] = y[:, 0].clamp_min(self.floor)
        return out.view(self.patch**3, -1)


class _SpectralBlock:
    """Units side by side on one input: the first with kernel 1, the others larger."""

    def __init__(self, units: list[ConvUnit], patch: int, space: Workspace) -> None:
        self.patch, self.space = patch, space
        self.dense = _Dense.of(units[0]).float()
        self.conv = SpectralConv([unit.weight.detach() for unit in units[1:]], patch, space)
        self.bias = torch.cat([unit.bias.detach() for unit in units[1:]])
        pairs = [_affine(unit) for unit in units[1:]]
        self.scale = torch.cat([scale for scale, _ in pairs]).float()
        self.shift = torch.cat([shift for _, shift in pairs]).float()

    def drop_norm(self) -> None:
        """Leave the normalisation out: the next layer has it in its weights."""
        for tensor, value in ((self.scale, 1), (self.shift, 0), (self.dense.scale, 1), (self.dense.shift, 0)):
            tensor.fill_(value)

    def __call__(self, x: torch.Tensor, bvecs: torch.Tensor) -> torch.Tensor:
        """Return (x y z, pair, channels + 3) from (x y z, pair, channels), with the directions (pair, 3) behind."""
        n, batch, first = self.patch, x.shape[1], self.dense.weight.shape[1]
        width = first + self.conv.channels
        out = self.space.take(f"out {width}", n**3, batch, width + 3)
        out[..., width:] = bvecs
        rows, target = x.view(-1, x.shape[2]), out.view(-1, width + 3)
        other = self.conv(x.view(n, n, n, batch, -1)).view(-1, self.conv.channels)
        for start in range(0, rows.shape[0], _ROWS):
            part = slice(start, start + _ROWS)
            y = self.space.take("rows", min(_ROWS, rows.shape[0] - start), first)
            functional.silu(torch.addmm(self.dense.bias, rows[part], self.dense.weight, out=y), inplace=True)
            torch.addcmul(self.dense.shift, y, self.dense.scale, out=target[part, :first])
            z = functional.silu(other[part].add_(self.bias), inplace=True)
            torch.addcmul(self.shift, z, self.scale, out=target[part, first:width])
        return out
