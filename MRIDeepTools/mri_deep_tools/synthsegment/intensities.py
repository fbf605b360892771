"""Sharpening of posteriors by the intensities of the very scan, as Bayesian segmentation does.

A compact network knows where structures lie better than where exactly they end. Its posteriors are taken as the prior
of a Gaussian mixture: each structure has a mean and a spread of log intensity in this scan (both sides share them), the
background has several, and a smooth bias field is common to all. Expectation-maximisation finds these numbers from the
scan; the posteriors of the mixture then follow the borders that can be seen and keep to the network where nothing can
be seen. It needs no training and holds for any contrast (Van Leemput et al., IEEE TMI 18, 1999; Puonti et al.,
NeuroImage 143, 2016, who use an atlas as the prior).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as nnf
from scipy import ndimage

from .labels import LABELS

__all__ = ["MixtureConfig", "sharpen_"]

BACKGROUNDS = 3
"""Gaussians of what is not brain: air, skull, soft tissue."""

STRIDE = 2
"""The mixture is fitted to every second voxel of each axis; all voxels are classified."""

POOL = 4
"""Fitted voxels per axis of one cell of the bias field's grid."""

SLAB_VOXELS = 400_000


@dataclass(frozen=True)
class MixtureConfig:
    """How the mixture is fitted.

    ``iterations`` of EM; ``trust`` in intensities, 1 = voxels are independent; ``bias_mm``, standard deviation of the
    kernel that makes the bias field smooth; ``offset`` added to intensities (0-1) before their logarithm; ``certain``,
    prior of the background above which a voxel is left alone; ``weight``, voxels' worth of belief in a common spread.
    """

    iterations: int = 12
    trust: float = 1.0
    bias_mm: float = 16.0
    offset: float = 0.05
    certain: float = 0.995
    weight: float = 50.0


def sharpen_(
    posteriors: torch.Tensor, image: torch.Tensor, codes: Sequence[int], config: MixtureConfig | None = None
) -> None:
    """Sharpen posteriors in place.

    Parameters
    ----------
    posteriors :
        (C, X, Y, Z) float32, contiguous, on a 1 mm grid, channel 0 the background, summing to 1.
    image :
        (X, Y, Z) float32 on the same grid, not negative; any scale.
    codes :
        label code of each channel.
    config :
        see :class:`MixtureConfig`.

    """
    config = config or MixtureConfig()
    coarse = (slice(None, None, STRIDE),) * 3
    prior = posteriors[(slice(None), *coarse)]
    inside = prior[0] < config.certain
    if int(inside.sum()) < 1000:
        return
    scale = _scale(image[coarse][prior[0] < 0.5])
    if scale is None:
        return
    mixture = _Mixture(_groups(codes), config)
    mixture.fit(prior, _log(image[coarse], scale, config), inside)
    mixture.classify_(posteriors, _log(image, scale, config))


def _groups(codes: Sequence[int]) -> torch.Tensor:
    """Return for each channel the number of its Gaussian: one per structure, whatever its side; 0 is the background."""
    names = [LABELS[code].name.removeprefix("left ").removeprefix("right ") for code in codes]
    unique = list(dict.fromkeys(names))
    return torch.tensor([unique.index(name) for name in names])


def _scale(values: torch.Tensor) -> tuple[float, float] | None:
    """Return the bounds of intensities inside the brain, or None where they are all the same."""
    if values.numel() < 100:
        return None
    low, high = np.percentile(values.cpu().numpy(), (0.5, 99.5)).tolist()
    return (low, high) if high > low else None


def _log(image: torch.Tensor, scale: tuple[float, float], config: MixtureConfig) -> torch.Tensor:
    low, high = scale
    return ((image - low) / (high - low)).clamp(0.0, 1.5).add_(config.offset).log_()


class _Mixture:
    """Means, variances and bias field of one scan; ``groups`` maps channels to Gaussians."""

    def __init__(self, groups: torch.Tensor, config: MixtureConfig) -> None:
        self.groups, self.config = groups, config
        self.bias: torch.Tensor | None = None

    def fit(self, prior: torch.Tensor, value: torch.Tensor, inside: torch.Tensor) -> None:
        """Estimate all numbers from priors (C, x, y, z) and log intensities (x, y, z) where ``inside`` is true."""
        y = value[inside]
        parts = torch.zeros(int(self.groups.max()) + 1, len(y), device=y.device)
        parts.index_add_(0, self.groups.to(y.device), prior[:, inside])
        parts += 1e-3
        self.spread = float(y.var())
        self.mean, self.variance, weight = self._moments(parts, y)
        outside = y[parts[0] > 0.5] if int((parts[0] > 0.5).sum()) > 100 else y
        marks = np.percentile(outside.cpu().numpy(), np.linspace(10, 90, BACKGROUNDS)).tolist()
        self.outer_mean = torch.tensor(marks, device=y.device)
        self.outer_variance = torch.full_like(self.outer_mean, self.spread / BACKGROUNDS)
        self.outer_share = torch.full_like(self.outer_mean, 1 / BACKGROUNDS)
        field = torch.zeros_like(y)
        log_prior = parts.log_()
        for _ in range(self.config.iterations):
            residual = y - field
            self.variance = self._held(self.variance, weight)
            outer = self._outer(residual)
            likelihood = self._likelihood(residual, outer)
            share = torch.softmax(log_prior + self.config.trust * likelihood, 0)
            self._update_outer(share[0] * torch.softmax(outer, 0), residual)
            self.mean, self.variance, weight = self._moments(share, residual)
            field = self._update_bias(share, y, inside)
        self.variance = self._held(self.variance, weight)

    def classify_(self, posteriors: torch.Tensor, value: torch.Tensor) -> None:
        """Multiply priors (C, X, Y, Z) by the likelihood of log intensities (X, Y, Z), in place, slab by slab."""
        bias = self._bias_on(value.shape)
        depth = max(1, SLAB_VOXELS // math.prod(value.shape[1:]))
        groups = self.groups.to(value.device)
        for begin in range(0, value.shape[0], depth):
            part = posteriors[:, begin : begin + depth].view(len(posteriors), -1)
            changed = (part[0] < self.config.certain).nonzero()[:, 0]
            y = (value[begin : begin + depth] - bias[begin : begin + depth]).flatten()[changed]
            if not len(y):
                continue
            likelihood = self.config.trust * self._likelihood(y, self._outer(y))
            prior = part[:, changed].clamp_(min=1e-8).log_()
            part[:, changed] = torch.softmax(prior + likelihood[groups], 0)

    # ------------------------------------------------------------------------------------------ one step each

    @staticmethod
    def _moments(share: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        weight = share.sum(1) + 1e-6
        mean = (share @ y) / weight
        return mean, ((share @ y.square()) / weight - mean.square()).clamp(min=1e-6), weight

    def _held(self, variance: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Pull the variances of small structures towards a common one, lest they collapse onto a few voxels."""
        belief = self.config.weight
        return (variance * weight + belief * 0.02 * self.spread) / (weight + belief)

    def _outer(self, y: torch.Tensor) -> torch.Tensor:
        """Return the weighted log densities of the background's Gaussians, (K, N)."""
        return self.outer_share.log()[:, None] + _log_density(y, self.outer_mean, self.outer_variance)

    def _likelihood(self, y: torch.Tensor, outer: torch.Tensor) -> torch.Tensor:
        """Return the log density of each group, (G, N)."""
        result = _log_density(y, self.mean, self.variance)
        result[0] = torch.logsumexp(outer, 0)
        return result

    def _update_outer(self, share: torch.Tensor, y: torch.Tensor) -> None:
        weight = share.sum(1) + 1e-3
        self.outer_mean = (share @ y) / weight
        variance = (share @ y.square()) / weight - self.outer_mean.square()
        self.outer_variance = variance.clamp(min=0.002 * self.spread + 1e-6)
        self.outer_share = weight / weight.sum()

    def _update_bias(self, share: torch.Tensor, y: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Return the field at the fitted voxels: smoothed deviations from the means, weighted by their precision."""
        precision = share[1:] / self.variance[1:, None]
        total = precision.sum(0)
        maps = torch.zeros((2, *inside.shape), device=y.device)
        maps[0][inside] = (precision * (y[None] - self.mean[1:, None])).sum(0)
        maps[1][inside] = total
        cells = nnf.avg_pool3d(maps[None], POOL, ceil_mode=True, count_include_pad=False)[0].cpu().numpy()
        sigma = self.config.bias_mm / (STRIDE * POOL)
        top, bottom = (ndimage.gaussian_filter(cell, sigma, mode="nearest", truncate=3.0) for cell in cells)
        field = torch.from_numpy(top / (bottom + max(float(cells[1].mean()), 1e-6))).to(y.device)
        self._extent = tuple(n * POOL * STRIDE for n in field.shape)
        self.bias = field
        at_voxels = self._bias_on([n * STRIDE for n in inside.shape])[(slice(None, None, STRIDE),) * 3][inside]
        level = (at_voxels * total).sum() / total.sum().clamp(min=1e-6)
        self.bias = field - level
        return at_voxels - level

    def _bias_on(self, shape: Sequence[int]) -> torch.Tensor:
        """Return the field on the fine grid."""
        if self.bias is None:
            return torch.zeros(tuple(shape))
        whole = nnf.interpolate(self.bias[None, None], size=self._extent, mode="trilinear")[0, 0]
        return whole[: shape[0], : shape[1], : shape[2]]


def _log_density(y: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Return log densities (K, N) of Gaussians up to a common constant."""
    return -0.5 * ((y[None] - mean[:, None]).square() / variance[:, None] + variance.log()[:, None])
