"""Adam as Keras computes it, with a linear decay of its rate: the optimiser of the IGUANe trainings.

Keras adds epsilon to the root of the raw second moment, torch to that of the corrected one, so torch's value is divided
by sqrt(1 - beta2^t) before step t. The rate is a function of the updates that were made: steps that mixed precision
skips because a gradient overflowed do not advance it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

__all__ = ["KerasAdam", "linear_rate"]

EPSILON = 1e-7


def linear_rate(updates: int, total: int, first: float, last: float) -> float:
    """Return the learning rate after ``updates`` updates: from ``first`` to ``last`` over ``total``, then constant."""
    return (first - last) * (1 - min(updates, total) / max(total, 1)) + last


class KerasAdam(torch.optim.Adam):
    """Adam in Keras's form; ``rate(updates made so far)`` gives the learning rate of each update."""

    def __init__(
        self,
        parameters: Iterable[Any],
        rate: Callable[[int], float],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = EPSILON,
    ) -> None:
        super().__init__(parameters, lr=rate(0), betas=betas, eps=epsilon)
        self.rate, self.epsilon = rate, epsilon
        for group in self.param_groups:
            group["updates"] = 0

    @property
    def updates(self) -> int:
        """Number of updates made."""
        return int(self.param_groups[0]["updates"])

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make one update; see :meth:`torch.optim.Adam.step`."""
        for group in self.param_groups:
            group["lr"] = self.rate(group["updates"])
            group["updates"] += 1
            group["eps"] = self.epsilon / math.sqrt(1 - group["betas"][1] ** group["updates"])
        return super().step(closure)
