"""SynthSeg-robust 2.0: a coarse segmentation, a denoiser that repairs it, and a segmentation that sees both.

Billot et al., PNAS 120(9) (2023). No flip averaging and no smoothing, as published.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..inference import Tile
from .backend import ShareCallback, TiledBackend, collect_channels, collect_posteriors
from .engine import UNetEngine
from .memory import engine_bytes
from .network import UNet

__all__ = ["ROBUST_PREFIXES", "RobustBackend", "one_hot"]

ROBUST_PREFIXES = ("unet", "l2l", "unet2")
"""Prefixes of S1, the denoiser D and S2 in the robust weights file."""


def one_hot(channels: Tensor, count: int) -> Tensor:
    """Return (count, X, Y, Z) float32 indicators of a (X, Y, Z) map of channel indices."""
    return torch.stack([channels == number for number in range(count)]).float()


class RobustBackend(TiledBackend):
    """S1, D and S2 (in this order) on the 1 mm grid; there is no ``flip`` and no ``smooth`` in this mode."""

    clean = False

    def __init__(
        self,
        networks: Sequence[UNet],
        codes: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(codes, max(network.spec.width for network in networks), device, dtype)
        self._networks = tuple(networks)

    def to(self, device: torch.device) -> None:
        """Move the networks to another device."""
        self._device = device

    def posteriors(
        self, image: np.ndarray, affine: np.ndarray, *, flip: bool, smooth: bool, progress: ShareCallback | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Segment a prepared 1 mm image; see :class:`.backend.Backend`."""
        report = progress or (lambda done: None)
        tensor = torch.from_numpy(image)[None]
        groups = self.coarse(tensor, lambda done: report(0.35 * done))
        groups = self.denoise(groups, lambda done: report(0.35 + 0.3 * done))
        out = np.empty((len(self.codes), *image.shape), dtype=np.float32)
        joined = torch.cat([tensor, one_hot(groups, self._networks[1].spec.out_channels)])
        tiles = self._tiles(2, image.shape)
        share = lambda done: report(0.65 + 0.35 * done)  # noqa: E731
        collect_posteriors(self._engine(2), joined, torch.from_numpy(out), tiles, progress=share)
        return out, affine

    def coarse(self, image: Tensor, progress: ShareCallback | None = None) -> Tensor:
        """Return S1's arg-max group of each voxel, (X, Y, Z) uint8, for an image (1, X, Y, Z)."""
        return collect_channels(self._engine(0), image, self._tiles(0, image.shape[1:]), progress=progress)

    def denoise(self, groups: Tensor, progress: ShareCallback | None = None) -> Tensor:
        """Return D's arg-max group of each voxel for a map of groups (X, Y, Z)."""
        indicators = one_hot(groups, self._networks[1].spec.in_channels)
        return collect_channels(self._engine(1), indicators, self._tiles(1, groups.shape), progress=progress)

    def memory_bytes(self, shape: Sequence[int]) -> int:
        """Return the estimated peak of one run, result included."""
        result = math.prod(shape) * 4 * (len(self.codes) + self._networks[2].spec.in_channels)
        return result + engine_bytes(shape, self.width)

    def _tiles(self, number: int, shape: Sequence[int]) -> list[Tile]:
        spec = self._networks[number].spec
        return self.tiles(shape, spec.width, spec.out_channels)

    def _engine(self, number: int) -> UNetEngine:
        """Make the engine of one network; it is dropped after its pass, so that one is held at a time."""
        return UNetEngine(self._networks[number], self._device, self._dtype)
