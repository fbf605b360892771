"""Running average of weights, and the learning rates of a SynDiff training."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

__all__ = ["RunningAverage", "cosine_rate"]


class RunningAverage(nn.Module):
    """Copies of networks whose weights follow theirs: after each update, average = decay * average + (1 - decay) * new.

    The first update copies: there is no warm-up. The copies take no gradient and are part of the state of a training.
    """

    updates: torch.Tensor

    def __init__(self, networks: dict[str, nn.Module], decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.networks = nn.ModuleDict({name: copy.deepcopy(network) for name, network in networks.items()})
        self.networks.requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, networks: dict[str, nn.Module]) -> None:
        """Follow the networks, by name."""
        first = int(self.updates) == 0
        for name, mine in self.networks.items():
            for average, new in zip(mine.parameters(), networks[name].parameters(), strict=True):
                if first:
                    average.copy_(new)
                average.mul_(self.decay).add_(new, alpha=1 - self.decay)
        self.updates += 1


def cosine_rate(epoch: int, epochs: int, first: float, last: float) -> float:
    """Return the learning rate of an epoch (from 0): ``first`` in epoch 0, ``last`` after ``epochs``, a half cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * epoch / max(epochs, 1))) / 2
