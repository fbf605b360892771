"""NCSN++ with adaptive group normalisation: the generator that translates, with the published names of its tensors.

Sources: Ozbey et al., arXiv 2207.08208, section III; Song et al. (NCSN++), arXiv 2011.13456, appendix H; Xiao et al.
(latent and adaptive normalisation), arXiv 2112.07804, appendix C. Only the option set of the published models is here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, RequestError
from .fir import fir_down, fir_smooth, fir_up

__all__ = [
    "NO_SCALE",
    "AdaptiveNorm",
    "Attention",
    "Layout",
    "NCSNpp",
    "NCSNppSpec",
    "PyramidDown",
    "ResBlock",
    "sinusoids",
    "uniform_by_average",
    "uniform_by_outputs",
]

NORM_EPSILON = 1e-6
NO_SCALE = 1e-10
"""Scale of the first weights where a layer is to give almost nothing in the beginning."""

_PIXEL_EPSILON = 1e-8
_LONGEST_PERIOD = 10000.0
_MOST_GROUPS = 32
_FEWEST = 4  # features of a normalised layer: below, there is no group

# What the published models have, by the names that the published programs give their options.
_FIXED_OPTIONS: dict[str, Any] = {
    "resblock_type": "biggan",
    "progressive": "none",
    "progressive_input": "residual",
    "progressive_combine": "sum",
    "fir": True,
    "fir_kernel": [1, 3, 3, 1],
    "skip_rescale": True,
    "resamp_with_conv": True,
    "conditional": True,
    "centered": True,
    "embedding_type": "positional",
    "not_use_tanh": False,
}
_FREE_OPTIONS = {
    "image_size": "image_size",
    "num_channels": "channels",
    "num_channels_dae": "width",
    "ch_mult": "multipliers",
    "num_res_blocks": "blocks",
    "attn_resolutions": "attention",
    "nz": "latent",
    "latent_dim": "latent",
    "z_emb_dim": "embedding",
    "n_mlp": "mapping_layers",
    "dropout": "dropout",
}


@dataclass(frozen=True)
class NCSNppSpec:
    """Numbers of a generator; those of the published models by default.

    Attributes
    ----------
    image_size : side of the images in pixels; it only decides on which levels attention sits.
    channels : of input and output.
    width : features at full resolution.
    multipliers : features of each level, as multiples of ``width``.
    blocks : residual blocks per level.
    attention : sides of the images, in pixels, at which attention is used.
    latent, embedding, mapping_layers : size of the random vector, of its embedding, and layers of the mapping.
    dropout : share of features dropped in training.

    """

    image_size: int = 256
    channels: int = 2
    width: int = 64
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    latent: int = 100
    embedding: int = 256
    mapping_layers: int = 3
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers that make no network."""
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        object.__setattr__(self, "attention", tuple(self.attention))
        counts = (self.image_size, self.channels, self.blocks, self.latent, self.embedding, *self.multipliers)
        if not self.multipliers or min(counts) < 1 or self.mapping_layers < 0 or self.width < _FEWEST:
            raise RequestError(f"no generator has the numbers {self}", f"use positive ones, and a width of {_FEWEST}")
        if not 0 <= self.dropout < 1:
            raise RequestError(f"dropout of {self.dropout:g}", "use 0 or more, and less than 1")
        for features in self._normed():
            if features % groups_of(features):
                raise RequestError(
                    f"a width of {self.width} with multipliers {self.multipliers} gives {features} features, which "
                    f"cannot be normalised in {groups_of(features)} groups",
                    "use a width that is a multiple of 32",
                )

    @property
    def multiple(self) -> int:
        """Return the number of which both sides of an image must be multiples."""
        return int(2 ** (len(self.multipliers) - 1))

    def features(self, level: int) -> int:
        """Return the features of a level, 0 being full resolution."""
        return self.width * self.multipliers[level]

    def attends(self, level: int) -> bool:
        """Say whether attention is used on a level."""
        return self.image_size // 2**level in self.attention

    def skips(self) -> list[int]:
        """Return the features of the tensors that the way down leaves for the way up, in order."""
        skips = [self.width]
        for level in range(len(self.multipliers)):
            skips += [self.features(level)] * (self.blocks + (level + 1 < len(self.multipliers)))
        return skips

    def _normed(self) -> Iterator[int]:
        """Yield the features of every tensor that is normalised."""
        skips = self.skips()
        yield from skips
        features = self.features(-1)
        for level in reversed(range(len(self.multipliers))):
            for _ in range(self.blocks + 1):
                yield features + skips.pop()
                features = self.features(level)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> NCSNppSpec:
        """Read the options of the published programs (``num_channels_dae`` and so on); others are ignored.

        Raises
        ------
        RequestError : an option names a variant that no published model uses.

        """
        for name, wanted in _FIXED_OPTIONS.items():
            given = options.get(name, wanted)
            same = list(given) == wanted if isinstance(wanted, list) else given == wanted
            if not same:
                raise RequestError(f"networks with {name} = {given} are not supported", f"use {name} = {wanted}")
        known = {ours: options[theirs] for theirs, ours in _FREE_OPTIONS.items() if theirs in options}
        return cls(**known)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], image_size: int | None = None) -> NCSNppSpec:
        """Read the numbers off names and shapes (without leading ``module.``).

        The side of the images is not in a file, only the levels with attention. Unless it is given, the lowest of
        these is taken to have images of 16 pixels, as in all published models, and 256 where there is none.

        Raises
        ------
        WeightsError : the names are not those of such a network.

        """
        from .structure import read_structure

        return cls(**read_structure(state, image_size))


def groups_of(features: int) -> int:
    """Return in how many groups that many features are normalised."""
    return min(features // 4, _MOST_GROUPS)


# ----------------------------------------------------------------------------------------------------------- weights


def uniform_by_average(weight: Tensor, scale: float = 1.0) -> None:
    """Draw first weights whose variance is ``scale`` over the mean of the numbers of inputs and outputs."""
    places = weight[0, 0].numel()
    average = places * (weight.shape[0] + weight.shape[1]) / 2
    bound = math.sqrt(3 * scale / average)
    nn.init.uniform_(weight, -bound, bound)


def uniform_by_outputs(layer: nn.Linear | nn.Conv2d, scale: float = 1.0) -> None:
    """Draw first weights whose variance is ``scale`` over the number of outputs; biases are 0."""
    bound = math.sqrt(3 * scale / (layer.weight.shape[0] * layer.weight[0, 0].numel()))
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _conv(
    inner: int, outer: int, size: int = 3, scale: float = 1.0, stride: int = 1, padding: int | None = None
) -> nn.Conv2d:
    conv = nn.Conv2d(inner, outer, size, stride, size // 2 if padding is None else padding)
    uniform_by_average(conv.weight, scale)
    nn.init.zeros_(cast(Tensor, conv.bias))
    return conv


def _dense(inner: int, outer: int) -> nn.Linear:
    dense = nn.Linear(inner, outer)
    uniform_by_average(dense.weight)
    nn.init.zeros_(dense.bias)
    return dense


# ------------------------------------------------------------------------------------------------------------ blocks


def sinusoids(t: Tensor, size: int) -> Tensor:
    """Return the embedding (B, size), float32, of steps (B,): sines, cosines, and a zero where ``size`` is odd."""
    half = size // 2
    rates = torch.exp(torch.arange(half, device=t.device) * -(math.log(_LONGEST_PERIOD) / (half - 1)))
    angles = t.float()[:, None] * rates[None]
    out = torch.cat([angles.sin(), angles.cos()], dim=1)
    return F.pad(out, (0, 1)) if size % 2 else out


class PixelNorm(nn.Module):
    """Scales each vector (B, N) to a mean square of 1."""

    def forward(self, z: Tensor) -> Tensor:
        """Return (B, N)."""
        return z / (z.square().mean(dim=1, keepdim=True) + _PIXEL_EPSILON).sqrt()


class AdaptiveNorm(nn.Module):
    """Group normalisation whose scale and shift come from the embedded latent."""

    def __init__(self, features: int, embedding: int) -> None:
        super().__init__()
        self.groups = groups_of(features)
        self.style = nn.Linear(embedding, 2 * features)
        uniform_by_outputs(self.style)
        with torch.no_grad():
            self.style.bias[:features] = 1

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Normalise (B, C, H, W) with the style of (B, embedding)."""
        scale, shift = self.style(latent)[:, :, None, None].chunk(2, dim=1)
        return scale * F.group_norm(x, self.groups, eps=NORM_EPSILON) + shift


class ResBlock(nn.Module):
    """Two convolutions beside a skip, with step and latent; the resolution changes before the first convolution."""

    def __init__(self, spec: NCSNppSpec, inner: int, outer: int, resample: str = "") -> None:
        super().__init__()
        self.resample, self.dropout = resample, spec.dropout
        self.GroupNorm_0 = AdaptiveNorm(inner, spec.embedding)
        self.Conv_0 = _conv(inner, outer)
        self.Dense_0 = _dense(4 * spec.width, outer)
        self.GroupNorm_1 = AdaptiveNorm(outer, spec.embedding)
        self.Conv_1 = _conv(outer, outer, scale=NO_SCALE)
        self.Conv_2 = _conv(inner, outer, 1) if inner != outer or resample else None

    def forward(self, x: Tensor, time: Tensor, latent: Tensor) -> Tensor:
        """Return (B, outer, h, w) of (B, inner, H, W), time (B, 4 width) and latent (B, embedding)."""
        a = F.silu(self.GroupNorm_0(x, latent))
        if self.resample:
            change = fir_down if self.resample == "down" else fir_up
            a, x = change(a), change(x)
        a = self.Conv_0(a) + self.Dense_0(F.silu(time))[:, :, None, None]
        a = F.dropout(F.silu(self.GroupNorm_1(a, latent)), self.dropout, self.training)
        if self.Conv_2 is not None:
            x = self.Conv_2(x)
        out: Tensor = (x + self.Conv_1(a)) / math.sqrt(2)
        return out


class _Pointwise(nn.Module):
    """A layer on the features of every place; its weight is (inputs, outputs)."""

    def __init__(self, features: int, scale: float) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(features, features))
        self.b = nn.Parameter(torch.zeros(features))
        uniform_by_average(self.W, scale)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.W + self.b


class Attention(nn.Module):
    """Every place looks at all others, with one head."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.GroupNorm_0 = nn.GroupNorm(groups_of(features), features, eps=NORM_EPSILON)
        self.NIN_0, self.NIN_1, self.NIN_2 = (_Pointwise(features, 0.1) for _ in range(3))
        self.NIN_3 = _Pointwise(features, NO_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        places = self.GroupNorm_0(x).flatten(2).transpose(1, 2)
        query, key, value = (layer(places)[:, None] for layer in (self.NIN_0, self.NIN_1, self.NIN_2))
        found = self.NIN_3(F.scaled_dot_product_attention(query, key, value)[:, 0])
        out: Tensor = (x + found.transpose(1, 2).view_as(x)) / math.sqrt(2)
        return out


class PyramidDown(nn.Module):
    """Halves the resolution of the input that goes along the way down: filter, then convolution with stride 2."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.Conv2d_0 = _conv(inner, outer, stride=2, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outer, H / 2, W / 2) of (B, inner, H, W)."""
        out: Tensor = self.Conv2d_0(fir_smooth(x))
        return out


# ----------------------------------------------------------------------------------------------------------- network


@dataclass(frozen=True)
class DownLevel:
    """Places in the list of modules: blocks, attentions after them (or none), and what leads to the next level."""

    blocks: tuple[int, ...]
    attentions: tuple[int, ...]
    down: int | None
    pyramid: int | None


@dataclass(frozen=True)
class UpLevel:
    """Places in the list of modules: blocks that take a skip each, attention after them, what leads to the next."""

    blocks: tuple[int, ...]
    attention: int | None
    up: int | None


@dataclass(frozen=True)
class Layout:
    """Where in the list of modules each part of a network is; decided when it is built, never by an image."""

    downs: tuple[DownLevel, ...]
    middle: tuple[int, int, int]
    ups: tuple[UpLevel, ...]
    norm: int
    head: int


class NCSNpp(nn.Module):
    """The generator; RequestError where the numbers of ``spec`` make no network."""

    def __init__(self, spec: NCSNppSpec | None = None) -> None:
        super().__init__()
        self.spec = spec = spec or NCSNppSpec()
        self.all_modules = nn.ModuleList()
        self.layout = self._build(spec)
        mapping: list[nn.Module] = [PixelNorm()]
        for number in range(spec.mapping_layers + 1):
            dense = nn.Linear(spec.embedding if number else spec.latent, spec.embedding)
            uniform_by_outputs(dense)
            mapping += [dense, nn.SiLU()]
        self.z_transform = nn.Sequential(*mapping)

    def _add(self, module: nn.Module) -> int:
        self.all_modules.append(module)
        return len(self.all_modules) - 1

    def _build(self, spec: NCSNppSpec) -> Layout:
        self._add(_dense(spec.width, 4 * spec.width))
        self._add(_dense(4 * spec.width, 4 * spec.width))
        self._add(_conv(spec.channels, spec.width))
        levels, features, pyramid, downs, ups = len(spec.multipliers), spec.width, spec.channels, [], []
        for level in range(levels):
            outer, blocks, attentions = spec.features(level), [], []
            for _ in range(spec.blocks):
                blocks.append(self._add(ResBlock(spec, features, outer)))
                features = outer
                if spec.attends(level):
                    attentions.append(self._add(Attention(features)))
            last = level + 1 == levels
            down = None if last else self._add(ResBlock(spec, features, features, "down"))
            along = None if last else self._add(PyramidDown(pyramid, features))
            pyramid = features
            downs.append(DownLevel(tuple(blocks), tuple(attentions), down, along))
        first = self._add(ResBlock(spec, features, features))
        attend = self._add(Attention(features))
        middle = first, attend, self._add(ResBlock(spec, features, features))
        skips = spec.skips()
        for level in reversed(range(levels)):
            outer, blocks = spec.features(level), []
            for _ in range(spec.blocks + 1):
                blocks.append(self._add(ResBlock(spec, features + skips.pop(), outer)))
                features = outer
            attention = self._add(Attention(features)) if spec.attends(level) else None
            up = self._add(ResBlock(spec, features, features, "up")) if level else None
            ups.append(UpLevel(tuple(blocks), attention, up))
        norm = self._add(nn.GroupNorm(groups_of(features), features, eps=NORM_EPSILON))
        head = self._add(_conv(features, spec.channels, scale=NO_SCALE))
        return Layout(tuple(downs), middle, tuple(ups), norm, head)

    def embed_step(self, t: Tensor) -> Tensor:
        """Return the embedding (B, 4 width) of steps (B,)."""
        first, second = cast(nn.Linear, self.all_modules[0]), self.all_modules[1]
        out: Tensor = second(F.silu(first(sinusoids(t, self.spec.width).to(first.weight.dtype))))
        return out

    def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """Return clean images (B, channels, H, W), values -1 to 1; the first channel is the translated one.

        Parameters
        ----------
        x : noisy target and source (B, 2, H, W); H and W are multiples of ``spec.multiple``.
        t : steps (B,), int64, 0 to T - 1.
        z : latent (B, latent), normal numbers.

        Raises
        ------
        InputError : the sides do not fit.

        """
        require_sides(self.spec, x.shape[-2:])
        modules, layout = self.all_modules, self.layout
        latent, time = self.z_transform(z), self.embed_step(t)
        pyramid, h = x, modules[2](x)
        skips = [h]
        for level in layout.downs:
            for number, block in enumerate(level.blocks):
                h = modules[block](h, time, latent)
                if level.attentions:
                    h = modules[level.attentions[number]](h)
                skips.append(h)
            if level.down is not None and level.pyramid is not None:
                h = modules[level.down](h, time, latent)
                pyramid = h = (modules[level.pyramid](pyramid) + h) / math.sqrt(2)
                skips.append(h)
        first, attend, second = layout.middle
        h = modules[second](modules[attend](modules[first](h, time, latent)), time, latent)
        for up in layout.ups:
            for block in up.blocks:
                h = modules[block](torch.cat([h, skips.pop()], dim=1), time, latent)
            if up.attention is not None:
                h = modules[up.attention](h)
            if up.up is not None:
                h = modules[up.up](h, time, latent)
        return torch.tanh(modules[layout.head](F.silu(modules[layout.norm](h))))


def require_sides(spec: NCSNppSpec, sides: torch.Size | tuple[int, ...]) -> None:
    """Raise InputError unless both sides (H, W) are multiples of ``spec.multiple``."""
    if any(side < 1 or side % spec.multiple for side in sides):
        found = "x".join(map(str, sides))
        raise InputError(f"images of {found} pixels", f"both sides must be multiples of {spec.multiple}; pad them")
