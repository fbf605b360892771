"""Pairs for training from simulated sites; see :mod:`.simulated_sites`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..synthsegment.generator.draws import Draws
from .losses import masked
from .simulated_sites import REFERENCE, REFERENCE_UNIT, Anatomy, Site, SiteSimulator
from .visits import Pair

__all__ = ["SimulatedPairs"]

_STRIDE = 1_000_003  # keeps the draws of sites and seeds apart
_HELD_SEED = 900_000_007
HELD_SCANS = 3  # sites that each held-out map is seen at


class SimulatedPairs:
    """A :class:`~.visits.PairSource` of simulated sites; the truth is always known.

    Parameters
    ----------
    simulator : see :class:`SiteSimulator`.
    seed : of the anatomies and of the scans.

    """

    def __init__(self, simulator: SiteSimulator, seed: int) -> None:
        self.simulator, self.seed = simulator, seed
        self.names = tuple(f"simulated-{number + 1}" for number in range(len(simulator.sites)))

    def pair(self, site: int, number: int, visit: int) -> Pair:
        """Return two persons, one at the reference site, and the second one's truth."""
        draws = self._draws(site, number)
        other = self.simulator.show(self._person(draws, visit), REFERENCE, draws, REFERENCE_UNIT)
        src, truth = self._travel(self._person(draws, visit), self.simulator.sites[site], draws)
        return Pair(other, src, truth)

    def traveller(self, site: int, number: int, visit: int) -> Pair:
        """Return one person at a site and at the reference site."""
        draws = self._draws(site, number)
        chosen = REFERENCE if site < 0 else self.simulator.sites[site]
        src, truth = self._travel(self._person(draws, visit), chosen, draws)
        return Pair(truth, src, truth)

    def score(self, universal: Callable[[Tensor], Tensor], visit: int) -> float | None:
        """Return minus the mean absolute error inside the brain over fixed scans of the held-out maps."""
        errors = []
        for number, chosen in enumerate(self.simulator.held):
            for scan in range(HELD_SCANS):
                draws = Draws(_HELD_SEED + number * _STRIDE + scan, self.simulator.device)
                person = self.simulator.anatomy(chosen, draws, self.simulator.config.view(visit)[0])
                site = self.simulator.sites[(number * HELD_SCANS + scan) % len(self.simulator.sites)]
                src, truth = self._travel(person, site, draws)
                inside, mask = masked(src[None, None])
                error = (universal(inside) - masked(truth[None, None])[0]).abs() * mask
                errors.append(float(error.sum() / mask.sum()))
        return -sum(errors) / len(errors) if errors else None

    def _draws(self, site: int, number: int) -> Draws:
        return Draws(((self.seed * _STRIDE + site + 1) * _STRIDE + number) % (1 << 62), self.simulator.device)

    def _person(self, draws: Draws, visit: int) -> Anatomy:
        maps = self.simulator.train
        return self.simulator.anatomy(maps[draws.integer(len(maps))], draws, *self.simulator.config.view(visit))

    @torch.no_grad()
    def _travel(self, person: Anatomy, site: Site, draws: Draws) -> tuple[Tensor, Tensor]:
        return self.simulator.show(person, site, draws), self.simulator.show(person, REFERENCE, draws, REFERENCE_UNIT)
