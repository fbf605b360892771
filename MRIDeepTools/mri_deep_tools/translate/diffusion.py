"""The fast diffusion process: its coefficients, training pairs, posterior steps and sampling.

Source: Ozbey et al., Unsupervised medical image translation with adversarial diffusion models, IEEE TMI 2023,
arXiv 2207.08208, sections II and III; few large steps as in Xiao et al., arXiv 2112.07804.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import RequestError

__all__ = ["Draws", "Schedule", "draw", "sample"]

_FIRST_TIME = 0.001
_FIRST_BETA = 1e-8
_SMALLEST_VARIANCE = 1e-20
_MOST_STEPS = 1000


class Schedule:
    """Coefficients of a diffusion of ``steps`` steps.

    Parameters
    ----------
    steps : number of steps T.
    beta_min, beta_max : bounds of the noise rate; of the variance itself where ``geometric``.
    geometric : the variance grows as a power, not as that of a variance-preserving process.

    Attributes
    ----------
    times : (T + 1,), float64.
    betas, sigmas, a, a_cum, sigmas_cum : (T + 1,), float32; x_k = a[k] x_(k-1) + sigmas[k] n, and from x_0 with the
        cumulative ones.
    coef_clean, coef_noisy, variance, log_variance : (T,), float32, of the posterior of x_t given x_0 and x_(t+1).

    Raises
    ------
    RequestError : the numbers give no diffusion, as a variance of one or more.

    """

    def __init__(self, steps: int = 4, beta_min: float = 0.1, beta_max: float = 20.0, geometric: bool = False) -> None:
        if not 1 <= steps <= _MOST_STEPS:
            raise RequestError(f"a diffusion of {steps} steps", f"use 1 to {_MOST_STEPS}")
        if not 0 < beta_min < beta_max or (geometric and beta_max >= 1):
            limit = "; a geometric schedule needs a maximum below 1" if geometric else ""
            raise RequestError(
                f"beta from {beta_min:g} to {beta_max:g} gives no diffusion{limit}", "use 0 < beta_min < beta_max"
            )
        self.steps, self.beta_min, self.beta_max, self.geometric = steps, beta_min, beta_max, geometric
        self.times = _FIRST_TIME + (1 - _FIRST_TIME) * torch.arange(steps + 1, dtype=torch.float64) / steps
        self.betas = self._make_betas()
        self.sigmas, self.a = self.betas.sqrt(), (1 - self.betas).sqrt()
        self.a_cum = self.a.cumprod(0)
        self.sigmas_cum = (1 - self.a_cum**2).sqrt()
        beta = self.betas[1:]
        alpha = 1 - beta
        cum = alpha.cumprod(0)
        before = torch.cat([cum.new_ones(1), cum[:-1]])
        self.variance = beta * (1 - before) / (1 - cum)
        self.log_variance = self.variance.clamp_min(_SMALLEST_VARIANCE).log()
        self.coef_clean = beta * before.sqrt() / (1 - cum)
        self.coef_noisy = (1 - before) * alpha.sqrt() / (1 - cum)

    def _make_betas(self) -> Tensor:
        """Return (T + 1,), computed in float64 and rounded once to float32."""
        if self.geometric:
            variance = self.beta_min * (self.beta_max / self.beta_min) ** self.times
        else:
            log_mean = -0.25 * self.times**2 * (self.beta_max - self.beta_min) - 0.5 * self.times * self.beta_min
            variance = 1 - (2 * log_mean).exp()
        kept = 1 - variance
        first = torch.full((1,), _FIRST_BETA, dtype=torch.float64)
        return torch.cat([first, 1 - kept[1:] / kept[:-1]]).float()

    def options(self) -> dict[str, Any]:
        """Return the arguments that make this schedule again."""
        names = ("steps", "beta_min", "beta_max", "geometric")
        return {name: getattr(self, name) for name in names}

    def to(self, device: torch.device | str) -> Schedule:
        """Return the same schedule with its coefficients on ``device``; the times, in float64, stay where they are."""
        moved = object.__new__(Schedule)
        for name, value in self.__dict__.items():
            here = isinstance(value, Tensor) and value.dtype == torch.float32
            setattr(moved, name, value.to(device) if here else value)
        return moved

    def pair(self, x0: Tensor, t: Tensor, noise_t: Tensor, noise_pair: Tensor) -> tuple[Tensor, Tensor]:
        """Return noisy images at the steps ``t`` and ``t + 1``, both (B, 1, H, W).

        ``x0`` are clean images (B, 1, H, W), ``t`` steps (B,) of 0 to T - 1, ``noise_t`` the normal noise of the way
        to step t, ``noise_pair`` that of the step after it (drawn first in the published program).
        """
        x_t = _at(self.a_cum, t) * x0 + _at(self.sigmas_cum, t) * noise_t
        return x_t, _at(self.a, t + 1) * x_t + _at(self.sigmas, t + 1) * noise_pair

    def posterior(self, x0: Tensor, x_next: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return a sample x_t given clean images and those of step ``t + 1``, all (B, 1, H, W); ``t`` is (B,).

        At step 0 the noise is not used: the result is the clean image.
        """
        mean = _at(self.coef_clean, t) * x0 + _at(self.coef_noisy, t) * x_next
        width = (0.5 * self.log_variance).exp() * (torch.arange(self.steps, device=self.a.device) > 0)
        return mean + _at(width, t) * noise


def _at(table: Tensor, t: Tensor) -> Tensor:
    return table[t].view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Draws:
    """All normal numbers of one sampling.

    Attributes
    ----------
    start : first noise image (B, 1, H, W).
    latents : (steps, B, latent), that of step T - 1 first.
    noises : of the posterior steps (steps, B, 1, H, W); the last is not used.

    """

    start: Tensor
    latents: Tensor
    noises: Tensor


def draw(shape: tuple[int, int, int], steps: int, latent: int, generator: torch.Generator | None = None) -> Draws:
    """Draw the numbers of one sampling in the order of the published program; float32 on the generator's device.

    ``shape`` is (B, H, W). ``generator`` None means torch's own.
    """
    batch, height, width = shape
    device = generator.device if generator is not None else torch.device("cpu")

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device)

    start = normal(batch, 1, height, width)
    parts = [(normal(batch, latent), normal(batch, 1, height, width)) for _ in range(steps)]
    return Draws(start, torch.stack([z for z, _ in parts]), torch.stack([noise for _, noise in parts]))


def sample(
    generate: Callable[[Tensor, Tensor, Tensor], Tensor],
    schedule: Schedule,
    source: Tensor,
    *,
    start: Tensor,
    latents: Tensor,
    noises: Tensor,
) -> Tensor:
    """Translate ``source`` (B, 1, H, W), values -1 to 1, by all steps of ``schedule``; returns (B, 1, H, W).

    Parameters
    ----------
    generate : gives clean images in its first channel from (noisy target, source) (B, 2, H, W), step (B,), int64, and
        latent (B, latent).
    schedule, start, latents, noises : tensors on the device of ``source``; shapes as in :class:`Draws`.

    """
    x, batch = start, len(source)
    for number, step in enumerate(range(schedule.steps - 1, -1, -1)):
        t = torch.full((batch,), step, dtype=torch.int64, device=source.device)
        clean = generate(torch.cat([x, source], dim=1), t, latents[number])[:, :1]
        x = schedule.posterior(clean, x, t, noises[number])
    return x
