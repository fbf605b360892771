"""Random draws with one seed: small ones on the CPU, voxel noise on the device of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike

__all__ = ["Bounds", "Draws"]

Bounds: TypeAlias = float | Sequence[float] | Sequence[Sequence[float]] | Literal[False] | None
"""A number b (centre +- b), a pair [min, max] for all axes, a (2, n) table, None (the default) or False (off)."""


class Draws:
    """Uniform and normal draws; the same seed gives the same scan.

    Parameters
    ----------
    seed : any non-negative integer.
    device : where voxel noise is made. Scalars and small fields are drawn on the CPU whatever the device, so that two
        devices share everything but the noise of single voxels.

    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._small = torch.Generator().manual_seed(seed)
        self._large = torch.Generator(self.device).manual_seed(seed + 1)

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return float(torch.rand((), generator=self._small)) < probability

    def integer(self, stop: int) -> int:
        """Return an integer in [0, stop)."""
        return int(torch.randint(max(stop, 1), (), generator=self._small))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return one number from U(low, high)."""
        return low + (high - low) * float(torch.rand((), generator=self._small))

    def normal(self, std: float = 1.0) -> float:
        """Return one number from N(0, std)."""
        return std * float(torch.randn((), generator=self._small))

    def array(self, low: ArrayLike, high: ArrayLike, distribution: str = "uniform") -> np.ndarray:
        """Return independent draws, one per element: U(low, high), or N(mean=low, std=high) for ``"normal"``."""
        a, b = np.broadcast_arrays(np.asarray(low, float), np.asarray(high, float))
        if distribution == "uniform":
            unit = torch.rand(a.shape, generator=self._small, dtype=torch.float64).numpy()
            return a + (b - a) * unit
        unit = torch.randn(a.shape, generator=self._small, dtype=torch.float64).numpy()
        return a + b * unit

    def bounded(self, bounds: Bounds, count: int, centre: float, default: float) -> np.ndarray | None:
        """Draw ``count`` numbers within :data:`Bounds`; None when the bounds are False."""
        if bounds is False:
            return None
        if bounds is None:
            bounds = default
        table = np.asarray(bounds, float)
        if table.ndim == 0:
            low, high = np.full(count, centre - float(table)), np.full(count, centre + float(table))
        elif table.ndim == 1:
            low, high = np.full(count, table[0]), np.full(count, table[1])
        else:
            low, high = table[0], table[1]
        return self.array(low, high)

    def small_field(self, shape: Sequence[int], std: float) -> torch.Tensor:
        """Return a small field of N(0, std), drawn on the CPU and moved to the device."""
        return (torch.randn(tuple(shape), generator=self._small) * std).to(self.device)

    def chances(self, share: torch.Tensor) -> torch.Tensor:
        """Return, for each element, True with the probability that it gives; drawn on the device."""
        return torch.rand(share.shape, generator=self._large, device=self.device) < share

    def noise(self, shape: Sequence[int]) -> torch.Tensor:
        """Return voxel noise N(0, 1) on the device."""
        return torch.randn(tuple(shape), generator=self._large, device=self.device)
