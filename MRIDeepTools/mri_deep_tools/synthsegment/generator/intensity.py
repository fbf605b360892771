"""Intensities: Gaussian mixture, bias field, clipping, normalisation and gamma (section 5, steps 4 to 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from .draws import Draws
from .spatial import resize_linear, small_shape

__all__ = ["apply_bias", "draw_class_statistics", "mean_and_std_maps", "normalise", "percentile_bounds"]

UNIFORM_MEANS = (0.0, 250.0)
UNIFORM_STDS = (0.0, 30.0)
CLIP = 300.0

Prior = Sequence[float] | np.ndarray | None


def _draw(prior: Prior, classes: int, fallback: tuple[float, float], mix: bool, kind: str, draws: Draws) -> np.ndarray:
    """Draw one value per class from a prior: None, a pair, or a (2, K) table."""
    if prior is None or (mix and draws.chance(0.5)):
        table = np.repeat(np.asarray(fallback, float)[:, None], classes, axis=1)
        kind = "uniform" if prior is None else kind
    else:
        table = np.asarray(prior, float)
        if table.ndim == 1:
            table = np.repeat(table[:, None], classes, axis=1)
    return np.maximum(draws.array(table[0], table[1], kind), 0.0)


def _block(prior: Prior, block: int) -> Prior:
    """Return block ``block`` (two rows) of a stacked (2m, K) prior."""
    if prior is None or np.ndim(prior) != 2 or np.shape(prior)[0] == 2:
        return prior
    return np.asarray(prior)[2 * block : 2 * block + 2]


def _blocks(prior: Prior) -> int:
    return np.shape(prior)[0] // 2 if prior is not None and np.ndim(prior) == 2 else 1


def draw_class_statistics(
    classes: int,
    channel: int,
    draws: Draws,
    *,
    means: Prior = None,
    stds: Prior = None,
    distribution: Literal["uniform", "normal"] = "uniform",
    mix: bool = False,
    per_channel: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the mean and standard deviation of every class of one channel.

    Parameters
    ----------
    classes : number K of generation classes; class 0 is the background and follows its own rule: in 5 % of draws it is
        exactly zero, in another 25 % dark (mean U(0, 15), std U(0, 5)).
    means, stds : None for U(0, 250) and U(0, 30); two numbers for all classes; a (2, K) table; or stacked blocks
        (2m, K) of which one is taken at random, for means and stds apart, or block ``channel`` when ``per_channel``.
    distribution : what the two rows mean: bounds of a uniform draw, or mean and standard deviation of a normal one.
    mix : replace means, and apart from it stds, by the default draw with probability 0.5.

    """
    pick_means = channel if per_channel else draws.integer(_blocks(means))
    pick_stds = channel if per_channel else draws.integer(_blocks(stds))
    mean = _draw(_block(means, pick_means), classes, UNIFORM_MEANS, mix, distribution, draws)
    std = _draw(_block(stds, pick_stds), classes, UNIFORM_STDS, mix, distribution, draws)
    rule = draws.uniform()
    if rule > 0.95:
        mean[0] = std[0] = 0.0
    elif rule > 0.7:
        mean[0], std[0] = draws.uniform(0, 15), draws.uniform(0, 5)
    return mean, std


def mean_and_std_maps(
    labels: torch.Tensor, class_of: torch.Tensor, mean: np.ndarray, std: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the float32 maps of class means and standard deviations of a label map (any shape).

    ``class_of`` is a lookup table from label value to generation class.
    """
    device = labels.device
    mean_table = torch.as_tensor(mean, dtype=torch.float32, device=device)[class_of]
    std_table = torch.as_tensor(std, dtype=torch.float32, device=device)[class_of]
    index = labels.long()
    return mean_table[index], std_table[index]


def apply_bias(image: torch.Tensor, small: torch.Tensor) -> torch.Tensor:
    """Multiply an image (X, Y, Z) by the exponential of a small field resized to it."""
    return image * resize_linear(small, image.shape).exp_()


def draw_bias(shape: Sequence[int], scale: float, std: float, draws: Draws) -> torch.Tensor:
    """Draw the small field of a bias field."""
    return draws.small_field(small_shape(shape, scale), draws.uniform(0, std))


def percentile_bounds(image: torch.Tensor, low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sorted values at int(low * n) and int(high * n), the upper index limited to n - 1."""
    values = image.reshape(-1).sort().values
    count = values.numel()
    return values[int(low * count)], values[min(int(high * count), count - 1)]


def normalise(
    image: torch.Tensor,
    *,
    clip: tuple[float, float] | None = (0.0, CLIP),
    percentiles: tuple[float, float] | None = None,
    gamma: float | None = None,
) -> torch.Tensor:
    """Clip, scale to 0-1 by minimum and maximum (or percentiles), and raise to the power exp(gamma)."""
    if clip is not None:
        image = image.clamp(*clip)
    if percentiles is None:
        low, high = image.min(), image.max()
    else:
        low, high = percentile_bounds(image, *percentiles)
        image = image.clamp(low, high)
    image = (image - low) / (high - low + 1e-7)
    return image if gamma is None else image.pow(float(np.exp(gamma)))
