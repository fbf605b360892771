"""The compact network of ``synthseg-lite``: a U-Net on 4 mm cells with a 2 mm output.

The scan on a 2 mm grid is folded 2x2x2 into channels, so that all convolutions run on 4 mm cells; a 1x1x1 head gives
the eight 2 mm voxels of each cell back. What comes up from below is narrowed before it meets the skip, to save work. A
CPU can train it in hours and run it in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import nn

__all__ = ["FOLD", "LiteConfig", "LiteNetwork", "fold", "unfold"]

FOLD = 2
"""Voxels per cell and axis."""


@dataclass(frozen=True)
class LiteConfig:
    """Shape of the network: output channels and features per level (4, 8, 16, 32 mm cells)."""

    channels: int = 33
    widths: tuple[int, ...] = (32, 64, 128, 192)
    decoder_blocks: int = 2


def fold(volume: torch.Tensor) -> torch.Tensor:
    """Fold (B, C, X, Y, Z) into (B, 8C, X/2, Y/2, Z/2); sizes must be even."""
    batch, channels, x, y, z = volume.shape
    parts = volume.reshape(batch, channels, x // 2, 2, y // 2, 2, z // 2, 2)
    return parts.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, channels * 8, x // 2, y // 2, z // 2)


def unfold(cells: torch.Tensor) -> torch.Tensor:
    """Undo :func:`fold`."""
    batch, channels, x, y, z = cells.shape
    parts = cells.reshape(batch, channels // 8, 2, 2, 2, x, y, z)
    return parts.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(batch, channels // 8, 2 * x, 2 * y, 2 * z)


class _Convolution(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv3d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)
        )


class LiteNetwork(nn.Module):
    """Maps a scan (B, 1, X, Y, Z) on a 2 mm grid, values 0-1, to logits; X, Y, Z multiples of 2^(levels).

    :meth:`features` gives the last feature map on 4 mm cells and :meth:`head` its logits, so that a training can
    evaluate the costly head on a part of the cells.
    """

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.encoder = nn.ModuleList()
        inputs = FOLD**3
        for width in widths:
            self.encoder.append(nn.Sequential(_Convolution(inputs, width), _Convolution(width, width)))
            inputs = width
        self.project = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for width in widths[-2::-1]:
            self.project.append(nn.Conv3d(inputs, width, 1))
            inputs_of = [2 * width, *[width] * (config.decoder_blocks - 1)]
            self.decoder.append(nn.Sequential(*(_Convolution(n, width) for n in inputs_of)))
            inputs = width
        self.head = nn.Conv3d(inputs, config.channels * FOLD**3, 1)

    @property
    def multiple(self) -> int:
        """What the input's sizes must be a multiple of, in 2 mm voxels."""
        return FOLD * 2 ** (len(self.config.widths) - 1)

    def features(self, scan: torch.Tensor) -> torch.Tensor:
        """Return (B, F, X/2, Y/2, Z/2) features."""
        x = fold(scan).contiguous(memory_format=torch.channels_last_3d)
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(x)
            if level < len(self.encoder) - 1:
                skips.append(x)
                x = nnf.max_pool3d(x, 2)
        for project, block in zip(self.project, self.decoder, strict=True):
            x = nnf.interpolate(project(x), scale_factor=2.0, mode="nearest")
            x = block(torch.cat([skips.pop(), x], 1))
        return x

    def forward(self, scan: torch.Tensor) -> torch.Tensor:
        """Return logits (B, C, X, Y, Z) on the 2 mm grid."""
        return unfold(self.head(self.features(scan)))

    def logits_of_cells(self, features: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Return logits (N, 8, C) of the chosen cells of a batch of one; ``cells`` are flat indices (N,)."""
        flat = features[0].permute(1, 2, 3, 0).reshape(-1, features.shape[1])[cells]
        weight = self.head.weight.reshape(self.head.weight.shape[0], -1)
        logits = nnf.linear(flat, weight, self.head.bias)
        return logits.reshape(len(cells), self.config.channels, FOLD**3).transpose(1, 2)


def labels_of_cells(labels: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Return the label indices (N, 8) of chosen cells of a map (X, Y, Z)."""
    return fold(labels[None, None])[0].reshape(FOLD**3, -1)[:, cells].t()
