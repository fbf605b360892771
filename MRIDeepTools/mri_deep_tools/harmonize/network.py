"""The networks of IGUANe: generator, patch discriminator, and the prediction network for age or diagnosis.

Roca et al., Medical Image Analysis 99 (2025) 103388. Three details decide whether published weights give published
results: the normalisation divides by the mean absolute deviation and not by the standard deviation; in the generator it
comes after the activation, in the discriminator before it; and joined tensors carry the decoder's features first.
Tensors are (N, C, X, Y, Z) in the axis order of the file, on the MNI grid: X runs to the left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, WeightsError

__all__ = [
    "BACKGROUND",
    "DEVIATION_EPSILON",
    "DeviationNorm",
    "Discriminator",
    "Generator",
    "GeneratorSpec",
    "Predictor",
    "build_network",
]

DEVIATION_EPSILON = 1e-3  # added to the deviation itself
BACKGROUND = -1.0  # what discriminator and predictor see beyond the image
BN_EPSILON = 1e-3
BN_MOMENTUM = 0.3  # Keras writes this as 0.7
PREDICTOR_FEATURES = (8, 16, 32, 64, 128)
DISCRIMINATOR_FEATURES = (64, 128, 256)
_SLOPE = 0.2
_NEIGHBOURHOOD = 2.0  # voxels: a lattice of 4 is down to 1 % in means over it
_FLAT = 1e-3  # variance below which an image is flat (1 = 500 units of intensity, squared)
_LEAST_SHARE = 1e-3
_SPACE = (2, 3, 4)


class DeviationNorm(nn.Module):
    """Normalise each sample and channel by its mean and mean absolute deviation over space; always in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.offset = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, X, Y, Z) to the same shape: scale * (x - mean) / (mean|x - mean| + 0.001) + offset."""
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            centred = x - x.mean(_SPACE, keepdim=True)
            deviation = centred.abs().mean(_SPACE, keepdim=True) + DEVIATION_EPSILON
            return centred * (self.scale.view(1, -1, 1, 1, 1) / deviation) + self.offset.view(1, -1, 1, 1, 1)


@dataclass(frozen=True)
class GeneratorSpec:
    """The numbers that define a generator: ``width`` features at full resolution, doubled at each of ``levels``.

    With ``phases`` p above 1 an image is taken apart into p^3 images of every p-th voxel along each axis, each is
    harmonized on its own, and the results are put together again: a network that was trained on coarse grids, for
    images p times as fine. Images of any size are then padded with background.
    """

    width: int = 16
    levels: int = 4
    phases: int = 1

    @property
    def multiple(self) -> int:
        """Return the number that each side of the input must be a multiple of."""
        return 2**self.levels if self.phases == 1 else 1

    def padding(self, shape: Sequence[int]) -> list[int]:
        """Return what an image (X, Y, Z) with phases lacks at the end of each axis."""
        whole = 2**self.levels * self.phases
        return [-side % whole if self.phases > 1 else 0 for side in shape]

    def require_sides(self, shape: Sequence[int], name: str = "an image") -> None:
        """Raise InputError when the sides of an image (X, Y, Z) are no multiples of :attr:`multiple`."""
        if any(side % self.multiple or not side for side in shape):
            sides = "x".join(str(side) for side in shape)
            fault = f"{name} of {sides} voxels does not fit; sides must be multiples of {self.multiple}"
            raise InputError(fault, "crop or pad it")

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> GeneratorSpec:
        """Read the numbers off the tensor shapes of a state dict; WeightsError when it is not a generator's."""
        try:
            blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
            phases = int(state["phases"]) if "phases" in state else 1
            spec = cls(state["blocks.0.conv.weight"].shape[0], (blocks - 1) // 4, phases)
        except (KeyError, ValueError, IndexError) as error:
            raise WeightsError("the tensors are not those of a harmonization generator") from error
        return spec


class Block(nn.Module):
    """Convolution with bias, ReLU, normalisation, in this order."""

    def __init__(self, conv: nn.Conv3d | nn.ConvTranspose3d) -> None:
        super().__init__()
        self.conv = conv
        self.norm = DeviationNorm(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, X, Y, Z) to (N, features, X', Y', Z')."""
        return self.norm(F.relu(self.conv(x)))


class Generator(nn.Module):
    """The harmonization network: input image plus a residual in (-1, 1).

    ``blocks`` holds, in the order of the published file: for each level a convolution (the skip) and one of stride 2;
    the bottom; then for each level upwards a transposed convolution and a convolution of [decoder, skip].
    """

    def __init__(self, spec: GeneratorSpec | None = None) -> None:
        super().__init__()
        self.spec = spec = spec or GeneratorSpec()
        widths = [spec.width * 2**level for level in range(spec.levels + 1)]
        blocks = []
        before = 1
        for own in widths[:-1]:
            blocks += [Block(nn.Conv3d(before, own, 3, padding=1)), Block(nn.Conv3d(own, own, 4, 2, padding=1))]
            before = own
        blocks.append(Block(nn.Conv3d(before, widths[-1], 3, padding=1)))
        for level in reversed(range(spec.levels)):
            own = widths[level]
            blocks.append(Block(nn.ConvTranspose3d(widths[level + 1], own, 4, 2, padding=1)))
            blocks.append(Block(nn.Conv3d(2 * own, own, 3, padding=1)))
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Conv3d(spec.width + 1, 1, 1)
        if spec.phases > 1:
            self.register_buffer("phases", torch.tensor(spec.phases))
        _glorot(self)

    def forward(self, image: Tensor) -> Tensor:
        """Map an image (N, 1, X, Y, Z), background 0, sides multiples of ``spec.multiple``, to one of the same shape.

        InputError when the sides do not fit.
        """
        self.spec.require_sides(image.shape[2:])
        if self.spec.phases == 1:
            return self._one_phase(image)
        shape, lacking = image.shape, self.spec.padding(image.shape[2:])
        padded = F.pad(image, [part for end in reversed(lacking) for part in (0, end)])
        made = together(self._one_phase(apart(padded, self.spec.phases)), self.spec.phases)
        return without_lattice(image, made[:, :, : shape[2], : shape[3], : shape[4]])

    def _one_phase(self, image: Tensor) -> Tensor:
        blocks = cast(list[Block], list(self.blocks))
        levels, x = self.spec.levels, image
        skips = []
        for level in range(levels):
            skips.append(blocks[2 * level](x))
            x = blocks[2 * level + 1](skips[-1])
        x = blocks[2 * levels](x)
        for number in range(2 * levels + 1, 4 * levels + 1, 2):
            x = blocks[number + 1](torch.cat([blocks[number](x), skips.pop()], dim=1))
        residual = torch.tanh(self.head(torch.cat([x, image.to(x.dtype)], dim=1)))
        return residual.to(image.dtype) + image


def apart(image: Tensor, phases: int) -> Tensor:
    """Take (N, 1, X, Y, Z) apart into (N * phases^3, 1, X / phases, Y / phases, Z / phases), every p-th voxel each."""
    p, (count, _, x, y, z) = phases, image.shape
    split = image.reshape(count, x // p, p, y // p, p, z // p, p).permute(0, 2, 4, 6, 1, 3, 5)
    return split.reshape(-1, 1, x // p, y // p, z // p)


def together(parts: Tensor, phases: int) -> Tensor:
    """Undo :func:`apart`."""
    p, (count, _, x, y, z) = phases, parts.shape
    split = parts.reshape(count // p**3, p, p, p, x, y, z).permute(0, 4, 1, 5, 2, 6, 3)
    return split.reshape(-1, 1, x * p, y * p, z * p)


def without_lattice(image: Tensor, made: Tensor) -> Tensor:
    """Return what phases made, (N, 1, X, Y, Z), without the lattice in which neighbouring phases differ.

    Around every voxel the result is fitted to the image as a straight line, and the lines are averaged (the guided
    filter of He et al., IEEE TPAMI 35 (2013) 1397), so borders stay as sharp as those of the image. Both are float32;
    the background of the image is 0.
    """
    inside = (image != 0).float()
    weight = _around(inside).clamp_min(_LEAST_SHARE)

    def mean(values: Tensor) -> Tensor:
        return _around(values * inside) / weight

    x, y = mean(image), mean(made)
    slope = (mean(image * made) - x * y) / (mean(image * image) - x * x + _FLAT)
    return torch.where(inside > 0, mean(slope) * image + mean(y - slope * x), made)


def _around(values: Tensor) -> Tensor:
    """Return Gaussian means, standard deviation 2 voxels, of (N, 1, X, Y, Z)."""
    taps = torch.arange(-6, 7, dtype=values.dtype, device=values.device)
    kernel = torch.exp(-(taps**2) / (2 * _NEIGHBOURHOOD**2))
    kernel = kernel / kernel.sum()
    for axis in range(3):
        shape, padding = [1, 1, 1, 1, 1], [0, 0, 0]
        shape[2 + axis], padding[axis] = len(taps), len(taps) // 2
        values = F.conv3d(values, kernel.view(shape), padding=padding)
    return values


class Discriminator(nn.Module):
    """Tells patches of real images from made ones; no sigmoid. Any size of at least 8 voxels a side."""

    def __init__(self, features: Sequence[int] = DISCRIMINATOR_FEATURES) -> None:
        super().__init__()
        inputs = (1, *features[:-1])
        pairs = zip(inputs, features, strict=True)
        self.convs = nn.ModuleList(nn.Conv3d(a, b, 4, 2, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(DeviationNorm(own) for own in features[1:])
        self.head = nn.Conv3d(features[-1], 1, 3, padding=1)
        _glorot(self)

    def forward(self, image: Tensor) -> Tensor:
        """Map an image (N, 1, X, Y, Z), background 0, to scores (N, 1, about X/8, Y/8, Z/8)."""
        x = F.pad(image, (1,) * 6, value=BACKGROUND)
        x = F.leaky_relu(self.convs[0](x), _SLOPE)
        for conv, norm in zip(self.convs[1:], self.norms, strict=True):
            x = F.leaky_relu(norm(conv(_same_padded(x))), _SLOPE)
        return self.head(x).to(image.dtype)


class PredictorBlock(nn.Module):
    """Two convolutions, batch normalisation between the second and its ReLU, max pooling."""

    def __init__(self, in_channels: int, features: int, padding: int) -> None:
        super().__init__()
        self.conv_0 = nn.Conv3d(in_channels, features, 3, padding=padding, bias=False)
        self.conv_1 = nn.Conv3d(features, features, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(features, eps=BN_EPSILON, momentum=BN_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, X, Y, Z) to (N, features, X/2, Y/2, Z/2), rounded down."""
        return F.max_pool3d(F.relu(self.norm(self.conv_1(F.relu(self.conv_0(x))))), 2)


class Predictor(nn.Module):
    """Predicts one number from an image: an age in years, or the logit of a diagnosis.

    ``flat`` is the number of features that enter the dense layer; it fixes the size of the images.
    """

    def __init__(self, flat: int) -> None:
        super().__init__()
        self.flat = flat
        inputs = (1, *PREDICTOR_FEATURES[:-1])
        pairs = enumerate(zip(inputs, PREDICTOR_FEATURES, strict=True))
        self.blocks = nn.ModuleList(PredictorBlock(a, b, 0 if number == 0 else 1) for number, (a, b) in pairs)
        self.dense = nn.Linear(flat, 1)
        _glorot(self)

    @classmethod
    def for_shape(cls, shape: Sequence[int]) -> Predictor:
        """Make a predictor for images of ``shape`` (X, Y, Z); InputError when a side is shorter than 32 voxels."""
        return cls(cls.flat_size(shape))

    @staticmethod
    def flat_size(shape: Sequence[int]) -> int:
        """Return the number of features that images of ``shape`` (X, Y, Z) give."""
        size = PREDICTOR_FEATURES[-1]
        for side in shape:
            size *= side // 2 ** len(PREDICTOR_FEATURES)
        if not size:
            raise InputError(f"images of {tuple(shape)} voxels are too small to predict from", "use 32 voxels or more")
        return size

    def features(self, image: Tensor) -> Tensor:
        """Return what enters the dense layer before it is flattened, (N, 128, X/32, Y/32, Z/32)."""
        x = F.pad(image, (1,) * 6, value=BACKGROUND)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, image: Tensor) -> Tensor:
        """Map an image (N, 1, X, Y, Z), background -1, to predictions (N,)."""
        if self.flat_size(image.shape[2:]) != self.flat:
            sides = "x".join(str(side) for side in image.shape[2:])
            hint = "give an image of the size that the model was trained on"
            raise InputError(f"an image of {sides} voxels does not fit this prediction model", hint)
        # Published weights count the flattened features with the channel as the fastest axis.
        flat = self.features(image).permute(0, 2, 3, 4, 1).flatten(1)
        return self.dense(flat).to(image.dtype)[:, 0]


def build_network(state: Mapping[str, Tensor]) -> Generator | Discriminator | Predictor:
    """Build the network whose state dict this is, in evaluation mode; WeightsError when tensors do not fit."""
    network: Generator | Discriminator | Predictor
    if "dense.weight" in state:
        network = Predictor(state["dense.weight"].shape[1])
    elif "convs.0.weight" in state:
        found = sorted(key for key in state if key.startswith("convs."))
        network = Discriminator([state[key].shape[0] for key in found])
    else:
        network = Generator(GeneratorSpec.from_state(state))
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip() if str(error) else ""
        raise WeightsError(f"the weights do not fit the network: {detail}") from error
    return network.eval().requires_grad_(False)


def _same_padded(x: Tensor, kernel: int = 4, stride: int = 2) -> Tensor:
    """Pad with zeros as TensorFlow's "same" does: the smaller half before."""
    margins: list[int] = []
    for side in reversed(x.shape[2:]):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        margins += [total // 2, total - total // 2]
    return F.pad(x, margins)


def _glorot(network: nn.Module) -> None:
    """Draw Glorot-uniform kernels and zero biases, the published initialisation."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
