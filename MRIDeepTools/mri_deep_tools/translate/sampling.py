"""Sampling many slices or tiles: random numbers that belong to a piece and not to a batch, batches, mean and spread.

The numbers of a piece follow from the seed, the sample, and the piece's own number. So a result does not depend on the
size of batches, a slice of a preview is the slice of the whole run, and a repeated run gives the same values on the
same machine. The published program draws from one stream instead, piece after piece (``published_numbers``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .diffusion import Draws, draw

if TYPE_CHECKING:
    from .engine import TranslationEngine

__all__ = ["Numbers", "published_numbers", "run_pieces", "seeded_numbers", "stored_numbers"]

Numbers = Callable[[Sequence[int], int, tuple[int, int]], Draws]
"""Random numbers of one piece: (its numbers, such as slice and tile; sample; (H, W)) to draws of batch size 1."""

_SEED_BITS = (1 << 63) - 1


def seeded_numbers(seed: int, steps: int, latent: int, *, same: bool = False) -> Numbers:
    """Return numbers that follow from the seed, the sample and the piece; with ``same``, not from its first number.

    Parameters
    ----------
    seed : any whole number from 0.
    steps, latent : of the diffusion, and the length of a latent vector.
    same : all slices share their numbers, so that what differs between neighbours is what the scan shows.

    """

    def numbers(piece: Sequence[int], sample: int, shape: tuple[int, int]) -> Draws:
        words = [seed, sample, *((0, *piece[1:]) if same else piece)]
        state = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]) & _SEED_BITS
        return draw((1, *shape), steps, latent, torch.Generator().manual_seed(state))

    return numbers


def published_numbers(seed: int, steps: int, latent: int) -> Numbers:
    """Return numbers of one stream in the published order: one number for the data loader, then piece after piece."""
    stream = torch.Generator().manual_seed(seed)
    torch.empty((), dtype=torch.int64).random_(generator=stream)

    def numbers(piece: Sequence[int], sample: int, shape: tuple[int, int]) -> Draws:
        return draw((1, *shape), steps, latent, stream)

    return numbers


def stored_numbers(start: np.ndarray, latents: np.ndarray, noises: np.ndarray) -> Numbers:
    """Return numbers that were drawn elsewhere, used up one piece after the other.

    Parameters
    ----------
    start : (N, 1, 1, H, W). latents : (N, steps, 1, L). noises : (N, steps, 1, 1, H, W), that of the first step first.

    """
    pieces = iter(range(len(start)))

    def numbers(piece: Sequence[int], sample: int, shape: tuple[int, int]) -> Draws:
        k = next(pieces)
        return Draws(*(torch.from_numpy(np.asarray(part[k], dtype=np.float32)) for part in (start, latents, noises)))

    return numbers


def run_pieces(
    engine: TranslationEngine,
    pieces: np.ndarray,
    keys: Sequence[Sequence[int]],
    numbers: Numbers,
    *,
    samples: int = 1,
    batch: int = 1,
    done: Callable[[float], None] = lambda count: None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Translate pieces of one size.

    Parameters
    ----------
    engine : with the network.
    pieces : (N, H, W) float32 in [-1, 1].
    keys : numbers of each piece, for its random numbers.
    numbers : gives them.
    samples : how often each piece is translated.
    batch : pieces that go through the network together.
    done : told after each step how many passes (pieces times samples) are behind; what it raises ends the work.

    Returns
    -------
    Mean over the samples, (N, H, W) float32 in [-1, 1], and their standard deviation (that of a sample, divided by
    n - 1; None for one sample).

    """
    mean = np.empty(pieces.shape, dtype=np.float32)
    spread = np.empty(pieces.shape, dtype=np.float32) if samples > 1 else None
    shape = (pieces.shape[1], pieces.shape[2])
    passes = 0
    for begin in range(0, len(pieces), batch):
        chosen = slice(begin, min(begin + batch, len(pieces)))
        source = torch.from_numpy(np.ascontiguousarray(pieces[chosen]))[:, None]
        average = np.zeros(source.shape[:1] + shape, dtype=np.float64)
        squares = np.zeros_like(average)
        for sample in range(samples):
            draws = _together([numbers(key, sample, shape) for key in keys[chosen]])
            count = len(source)

            def within(share: float, behind: int = passes, count: int = count) -> None:
                done(behind + share * count)

            values = engine.run(source, draws, within)[:, 0].double().cpu().numpy()
            change = values - average  # Welford's update
            average += change / (sample + 1)
            squares += change * (values - average)
            passes += count
        mean[chosen] = average
        if spread is not None:
            spread[chosen] = np.sqrt(squares / (samples - 1))
    return mean, spread


def _together(draws: Sequence[Draws]) -> Draws:
    """Return the draws of single pieces as those of a batch."""
    return Draws(
        torch.cat([item.start for item in draws]),
        torch.cat([item.latents for item in draws], dim=1),
        torch.cat([item.noises for item in draws], dim=1),
    )
