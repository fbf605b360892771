"""What one visit of a site takes: images for its two discriminators and for its generators, fixed by its number.

Roca et al., Medical Image Analysis 99 (2025) 103388. Every step visits all source sites in an order drawn anew. A visit
takes four batches of pairs for the discriminators and one for the generators. Since a visit is a function of the seed
and of its number, a training that was stopped goes on with the same images, whatever the number of worker processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

__all__ = ["DISCRIMINATOR_BATCHES", "Pair", "PairSource", "Plan", "Visits"]

DISCRIMINATOR_BATCHES = 4


@dataclass(frozen=True)
class Pair:
    """A reference and a source image (X, Y, Z) float32, background -1; the source's anatomy in the reference style."""

    ref: Tensor
    src: Tensor
    truth: Tensor | None = None


class PairSource(Protocol):
    """Where images come from: packed files or simulated sites."""

    names: tuple[str, ...]
    """Of the source sites."""

    def pair(self, site: int, number: int, visit: int) -> Pair:
        """Return pair ``number`` of a site; ``visit`` tells how far the training is."""
        ...

    def traveller(self, site: int, number: int, visit: int) -> Pair:
        """Return a source image with its truth (``ref`` is the truth too); site -1 shows it in the reference style."""
        ...

    def score(self, universal: Callable[[Tensor], Tensor], visit: int) -> float | None:
        """Return how well held-out images are harmonized, larger is better; None without held-out images."""
        ...


@dataclass(frozen=True)
class Plan:
    """How visits are numbered.

    Attributes
    ----------
    sites : number of source sites.
    batch : images per batch.
    paired_visits : visits at the start that only have a source image and its truth, for the universal generator.
    seed : of the order of the sites.

    """

    sites: int
    batch: int = 1
    paired_visits: int = 0
    seed: int = 1

    def only_paired(self, number: int) -> bool:
        """Tell whether a visit is one of those at the start."""
        return number < self.paired_visits

    def site(self, number: int) -> int:
        """Return the source site of a visit; -1, among the visits at the start, is the reference itself."""
        if self.only_paired(number):
            return int(np.random.default_rng([self.seed, 7, number]).integers(-1, self.sites))
        step, place = divmod(number - self.paired_visits, self.sites)
        return int(np.random.default_rng([self.seed, 8, step]).permutation(self.sites)[place])

    def turn(self, number: int) -> int:
        """Return how often the site of a visit was visited before; the visits at the start are counted as a whole."""
        return number if self.only_paired(number) else (number - self.paired_visits) // self.sites


class Visits(IterableDataset[dict[str, Any]]):
    """Yields visits from ``start`` on, without end.

    Set ``start``, ``rank`` and ``world`` (processes of a training on several devices) before iterating. Each visit is
    ``number``, ``site`` and tensors (N, 1, X, Y, Z): ``ref`` and ``src`` with 5 batches, or, among the visits at the
    start, ``src`` with one batch; ``truth`` of the last batch where it is known.
    """

    def __init__(self, source: PairSource, plan: Plan) -> None:
        self.source, self.plan = source, plan
        self.start, self.rank, self.world = 0, 0, 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield visits; worker w of W makes every W-th."""
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        number = self.start + first
        while True:
            yield self.visit(number)
            number += stride

    def visit(self, number: int) -> dict[str, Any]:
        """Return a visit by its number."""
        plan = self.plan
        site, alone = plan.site(number), plan.only_paired(number)
        count = plan.batch * (1 if alone else DISCRIMINATOR_BATCHES + 1)
        make = self.source.traveller if alone else self.source.pair
        pairs = [make(site, pair, number) for pair in self._numbers(plan.turn(number), count)]
        made: dict[str, Any] = {"number": number, "site": site, "src": stacked([pair.src for pair in pairs])}
        if not alone:
            made["ref"] = stacked([pair.ref for pair in pairs])
        truths = [pair.truth for pair in pairs[-plan.batch :]]
        if all(truth is not None for truth in truths):
            made["truth"] = stacked([truth for truth in truths if truth is not None])
        return made

    def _numbers(self, turn: int, count: int) -> list[int]:
        """Return the numbers of this process's pairs: its part of each batch that all processes make together."""
        batch = self.plan.batch
        return [((turn * count + k - k % batch) * self.world) + self.rank * batch + k % batch for k in range(count)]


def stacked(images: list[Tensor]) -> Tensor:
    """Return (N, 1, X, Y, Z)."""
    return torch.stack(images)[:, None]
