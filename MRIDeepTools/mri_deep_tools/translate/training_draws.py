"""The random numbers of a SynDiff training: each a function of the seed and of the number of the sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["SampleDraws", "generator_of"]


def generator_of(seed: int, *numbers: int) -> torch.Generator:
    """Return a generator on the CPU whose numbers are fixed by ``seed`` and ``numbers``."""
    state = np.random.SeedSequence([seed, *numbers]).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


class SampleDraws:
    """Draws of a batch (:class:`.losses.StepDraws`), in which every sample has a generator of its own.

    So a sample is diffused in the same way on any device, in any batch, and after any interruption.

    Parameters
    ----------
    seed : of the training.
    numbers : of the samples, counted over all epochs.
    shape : of an image, (H, W).
    latent : size of the latent vector.
    device : where the numbers are wanted.

    """

    def __init__(
        self,
        seed: int,
        numbers: Sequence[int],
        shape: tuple[int, int],
        latent: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._generators = [generator_of(seed, 11, number) for number in numbers]
        self._shape, self._latent, self._device = shape, latent, device

    def index(self, steps: int) -> Tensor:
        """Return (B,) int64, uniform on 0..steps-1."""
        found = [torch.randint(steps, (), generator=generator) for generator in self._generators]
        return torch.stack(found).to(self._device)

    def image(self) -> Tensor:
        """Return (B, 1, H, W), normal."""
        return self._normal(1, *self._shape)

    def latent(self) -> Tensor:
        """Return (B, latent), normal."""
        return self._normal(self._latent)

    def _normal(self, *size: int) -> Tensor:
        return torch.stack([torch.randn(size, generator=g) for g in self._generators]).to(self._device)
