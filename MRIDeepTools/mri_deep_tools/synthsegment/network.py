"""The published networks: one 3-D U-Net in several widths (v1, v2, S1, D, S2, S3) and the quality-control regressor.

Billot et al., Medical Image Analysis 86 (2023) 102789 and PNAS 120(9) (2023). Three details decide whether published
weights give published results: the ELU follows each convolution and batch normalisation comes once per level, after
both; the skip connection carries the tensor *before* batch normalisation; and the skip comes first in the
concatenation. Tensors are (N, C, X, Y, Z) with X, Y, Z = R, A, S.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import WeightsError

__all__ = ["BN_EPSILON", "BN_MOMENTUM", "QCRegressor", "QCSpec", "UNet", "UNetSpec", "build_network"]

BN_EPSILON = 1e-3
BN_MOMENTUM = 0.01  # Keras writes this as 0.99


@dataclass(frozen=True)
class UNetSpec:
    """The numbers that define a U-Net: ``width`` features at full resolution, doubled at each of ``levels`` levels.

    ``skipped`` counts the top decoder levels that have no skip connection (2 in the denoiser, else 0).
    """

    in_channels: int = 1
    out_channels: int = 33
    levels: int = 5
    width: int = 24
    kernel: int = 3
    skipped: int = 0
    convs: int = 2

    def features(self, level: int) -> int:
        """Return the number of features at encoder level ``level`` (0 = full resolution)."""
        return self.width * 2**level

    @property
    def multiple(self) -> int:
        """Return the number that each side of the input must be a multiple of."""
        return 2 ** (self.levels - 1)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> UNetSpec:
        """Read the numbers off the tensor shapes of a state dict; WeightsError when it is not such a U-Net's."""
        try:
            first, head = state["encoder.0.convs.0.weight"].shape, state["head.weight"].shape
            levels = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("encoder."))
            convs = 1 + max(int(key.split(".")[3]) for key in state if key.startswith("encoder.0.convs."))
            joined = sum(
                state[f"decoder.{j}.convs.0.weight"].shape[1] > first[0] * 2 ** (levels - 1 - j)
                for j in range(levels - 1)
            )
        except (KeyError, ValueError, IndexError) as error:
            raise WeightsError("the tensors are not those of a U-Net of this family") from error
        return cls(first[1], head[0], levels, first[0], first[2], levels - 1 - joined, convs)


class Level(nn.Module):
    """One resolution: convolutions, each followed by ELU, and a batch normalisation that the caller places."""

    def __init__(self, in_channels: int, features: int, spec: UNetSpec) -> None:
        super().__init__()
        inputs = [in_channels, *[features] * (spec.convs - 1)]
        self.convs = nn.ModuleList(nn.Conv3d(n, features, spec.kernel, padding=spec.kernel // 2) for n in inputs)
        self.norm = nn.BatchNorm3d(features, eps=BN_EPSILON, momentum=BN_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, X, Y, Z) to (N, features, X, Y, Z), not yet normalised."""
        for conv in self.convs:
            x = F.elu(conv(x))
        return x

    def kernels_and_biases(self) -> list[tuple[Tensor, Tensor]]:
        """Return the convolutions' (out, in, k, k, k) kernels and (out,) biases in order."""
        return [(conv.weight.detach(), cast(Tensor, conv.bias).detach()) for conv in cast(list[nn.Conv3d], self.convs)]

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return what batch normalisation in evaluation mode does to each channel, x * scale + shift, in float64."""
        variance, mean = cast(Tensor, self.norm.running_var).double(), cast(Tensor, self.norm.running_mean).double()
        scale = self.norm.weight.detach().double() / torch.sqrt(variance + self.norm.eps)
        return scale, self.norm.bias.detach().double() - mean * scale


class UNet(nn.Module):
    """The segmentation network; in evaluation mode its numbers agree with the published program to float32 noise."""

    def __init__(self, spec: UNetSpec | None = None) -> None:
        super().__init__()
        self.spec = spec = spec or UNetSpec()
        top = spec.levels - 1
        inputs = [spec.in_channels, *(spec.features(level - 1) for level in range(1, spec.levels))]
        self.encoder = nn.ModuleList(Level(n, spec.features(level), spec) for level, n in enumerate(inputs))
        self.decoder = nn.ModuleList()
        for j in range(top):
            own = spec.features(top - 1 - j)
            joined = own if j < top - spec.skipped else 0
            self.decoder.append(Level(joined + 2 * own, own, spec))
        self.head = nn.Conv3d(spec.width, spec.out_channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw Glorot-uniform kernels and zero biases, the published initialisation."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def levels(self) -> tuple[list[Level], list[Level]]:
        """Return the encoder's and the decoder's levels in the order in which they run."""
        return cast(list[Level], list(self.encoder)), cast(list[Level], list(self.decoder))

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (N, in_channels, X, Y, Z), float, sides multiples of ``spec.multiple``, to logits.

        Returns (N, out_channels, X, Y, Z) before the softmax.
        """
        skips: list[Tensor] = []
        encoder, decoder = self.levels()
        for index, level in enumerate(encoder):
            x = level(x)
            if index < self.spec.levels - 1:
                skips.append(x)
                x = F.max_pool3d(level.norm(x), 2)
        x = encoder[-1].norm(x)
        for j, level in enumerate(decoder):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            skip = skips.pop()
            if j < len(decoder) - self.spec.skipped:
                x = torch.cat([skip, x], dim=1)
            x = level.norm(level(x))
        return self.head(x)


@dataclass(frozen=True)
class QCSpec:
    """The numbers that define the quality-control regressor; ``scores`` counts its groups, background included."""

    in_channels: int = 9
    scores: int = 9
    levels: int = 4
    width: int = 24
    kernel: int = 5

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> QCSpec:
        """Read the numbers off the tensor shapes of a state dict; WeightsError when it is not a regressor's."""
        try:
            first, last = state["levels.0.conv_0.weight"].shape, state["final_1.weight"].shape
            levels = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("levels."))
        except (KeyError, ValueError, IndexError) as error:
            raise WeightsError("the tensors are not those of the quality-control regressor") from error
        return cls(first[1], last[0], levels, first[0], first[2])


class ResidualLevel(nn.Module):
    """Two convolutions beside one activated convolution of the input; sum, ReLU, batch normalisation."""

    def __init__(self, in_channels: int, features: int, kernel: int) -> None:
        super().__init__()
        half = kernel // 2
        self.conv_0 = nn.Conv3d(in_channels, features, kernel, padding=half)
        self.conv_1 = nn.Conv3d(features, features, kernel, padding=half)
        self.expand = nn.Conv3d(in_channels, features, kernel, padding=half)
        self.norm = nn.BatchNorm3d(features, eps=BN_EPSILON, momentum=BN_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, X, Y, Z) to (N, features, X, Y, Z)."""
        y = self.conv_1(F.relu(self.conv_0(x)))
        return self.norm(F.relu(F.relu(self.expand(x)) + y))


class QCRegressor(nn.Module):
    """Predicts, from a one-hot segmentation in 9 groups, the Dice score each group would reach."""

    def __init__(self, spec: QCSpec | None = None) -> None:
        super().__init__()
        self.spec = spec = spec or QCSpec()
        widths = [spec.in_channels, *(spec.width * 2**level for level in range(spec.levels))]
        self.levels = nn.ModuleList(ResidualLevel(a, b, spec.kernel) for a, b in itertools.pairwise(widths))
        self.final_0 = nn.Conv3d(widths[-1], spec.scores, spec.kernel, padding=spec.kernel // 2)
        self.final_1 = nn.Conv3d(spec.scores, spec.scores, spec.kernel, padding=spec.kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map one-hot groups (N, 9, X, Y, Z) to scores (N, 9), not clipped."""
        for level in self.stages():
            x = F.max_pool3d(level(x), 2)
        return self.score(x)

    def stages(self) -> list[ResidualLevel]:
        """Return the levels in the order in which they run; 2x2x2 max pooling follows each of them."""
        return cast(list[ResidualLevel], list(self.levels))

    def score(self, x: Tensor) -> Tensor:
        """Map the pooled output of the last level to scores (N, 9)."""
        return F.relu(self.final_1(F.relu(self.final_0(x)))).mean(dim=(2, 3, 4))


def build_network(state: Mapping[str, Tensor]) -> UNet | QCRegressor:
    """Build the network whose state dict this is, in evaluation mode; WeightsError when tensors are missing."""
    kind = QCRegressor if "final_1.weight" in state else UNet
    network = kind((QCSpec if kind is QCRegressor else UNetSpec).from_state(state))  # type: ignore[arg-type]
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip() if str(error) else ""
        raise WeightsError(f"the weights do not fit the network: {detail}") from error
    return network.eval().requires_grad_(False)
