"""The losses of SynDiff: diffusive discriminators, patch discriminators and the generators, in the published order.

Ozbey et al., IEEE Transactions on Medical Imaging 42 (2023) 3524, section III; adversarial terms are non-saturating.
Images are (B, 1, H, W) in [-1, 1]; networks go by their published names (``gen_diffusive_1`` makes contrast 1 from
noise and contrast 2). All draws of a step come from one :class:`StepDraws`, in the order of the published loop, so that
a recorded run can be replayed: time indices 1 and 2; for either contrast the noise of the second diffusion step, then
of the first; latents 1 and 2; the noise of posterior samples 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from .diffusion import Schedule

__all__ = [
    "GENERATORS",
    "JUDGES",
    "ONE_PASS",
    "PATCH_JUDGES",
    "GeneratorTerms",
    "JudgeTerms",
    "StepDraws",
    "Weights",
    "diffuse",
    "generator_terms",
    "judge_terms",
    "one_pass",
    "patch_terms",
]

Networks = Mapping[str, Callable[..., Any]]

GENERATORS = ("gen_diffusive_1", "gen_diffusive_2")
ONE_PASS = ("gen_non_diffusive_2to1", "gen_non_diffusive_1to2")
JUDGES = ("disc_diffusive_1", "disc_diffusive_2")
PATCH_JUDGES = ("disc_non_diffusive_cycle1", "disc_non_diffusive_cycle2")


class StepDraws(Protocol):
    """Where the random numbers of a batch come from."""

    def index(self, steps: int) -> Tensor:
        """Return (B,) int64, uniform on 0..steps-1."""

    def image(self) -> Tensor:
        """Return (B, 1, H, W), normal."""

    def latent(self) -> Tensor:
        """Return (B, latent), normal."""


@dataclass(frozen=True)
class Weights:
    """Weights of the terms; the defaults are the published ones (``l1`` weighs the cycle terms too)."""

    adversarial: float = 1.0
    l1: float = 0.5
    r1_gamma: float = 1.0


class Diffused(NamedTuple):
    """A contrast's images ``x0`` at diffusion times ``t`` (B,) and one step later."""

    x0: Tensor
    t: Tensor
    x_t: Tensor
    x_next: Tensor


@dataclass(frozen=True)
class JudgeTerms:
    """Terms of one pair of discriminators, both contrasts added; penalties only where R1 was asked for."""

    real: Tensor
    fake: Tensor
    penalties: tuple[Tensor, ...] = ()

    def total(self) -> Tensor:
        """Return the loss."""
        return self.real + self.fake + sum(self.penalties)

    def named(self, prefix: str) -> dict[str, Tensor]:
        """Return what is logged."""
        found = {f"{prefix}_real": self.real, f"{prefix}_fake": self.fake, prefix: self.real + self.fake}
        return found | {f"R1_{number + 1}": value for number, value in enumerate(self.penalties)}


@dataclass(frozen=True)
class GeneratorTerms:
    """Terms of the generators, both contrasts added, unweighted; those of the cycle only where it is trained."""

    l1: Tensor
    adversarial: Tensor | None = None
    cycle: Tensor | None = None
    cycle_adversarial: Tensor | None = None

    def total(self, weights: Weights) -> Tensor:
        """Return the loss of all generators."""
        loss = weights.l1 * self.l1
        if self.adversarial is not None:
            loss = loss + weights.adversarial * self.adversarial
        if self.cycle is not None and self.cycle_adversarial is not None:
            loss = loss + weights.adversarial * self.cycle_adversarial + weights.l1 * self.cycle
        return loss

    def named(self, weights: Weights) -> dict[str, Tensor]:
        """Return what is logged."""
        found = {
            "G_adv": self.adversarial,
            "G_cycle_adv": self.cycle_adversarial,
            "G_L1": self.l1,
            "G_cycle": self.cycle,
            "G": self.total(weights),
        }
        return {name: value for name, value in found.items() if value is not None}


def diffuse(schedule: Schedule, images: tuple[Tensor, Tensor], draws: StepDraws) -> list[Diffused]:
    """Return both contrasts at random times."""
    times = [draws.index(schedule.steps) for _ in images]
    found = []
    for x0, t in zip(images, times, strict=True):
        later, earlier = draws.image(), draws.image()
        x_t, x_next = schedule.pair(x0, t, earlier, later)
        found.append(Diffused(x0, t, x_t, x_next))
    return found


def one_pass(networks: Networks, images: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return what the one-pass generators make: contrast 1 from the images of 2, and contrast 2 from those of 1."""
    return networks[ONE_PASS[0]](images[1]), networks[ONE_PASS[1]](images[0])


def _denoised(
    networks: Networks, schedule: Schedule, states: list[Diffused], sources: tuple[Tensor, Tensor], draws: StepDraws
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the clean images that the diffusive generators see, and samples of the step before."""
    latents = [draws.latent() for _ in states]
    clean, before = [], []
    for name, state, source, latent in zip(GENERATORS, states, sources, latents, strict=True):
        made = networks[name](torch.cat([state.x_next, source], dim=1), state.t, latent)
        clean.append(made[:, :1].float())
    for x0, state in zip(clean, states, strict=True):
        before.append(schedule.posterior(x0, state.x_next, state.t, draws.image()))
    return clean, before


def _add(terms: list[Tensor]) -> Tensor:
    return terms[0] + terms[1]


def _called(judge: Callable[..., Any], *inputs: Tensor) -> Tensor:
    logits: Tensor = judge(*inputs)
    return logits.float()


def judge_terms(
    networks: Networks,
    schedule: Schedule,
    images: tuple[Tensor, Tensor],
    sources: tuple[Tensor, Tensor],
    draws: StepDraws,
    r1_gamma: float | None = None,
    precise: Callable[[], Any] | None = None,
) -> JudgeTerms:
    """Return the terms of the diffusive discriminators.

    Parameters
    ----------
    images : contrasts 1 and 2.
    sources : what the generators of 1 and 2 are given beside the noise; no gradient flows into any generator.
    r1_gamma : weight of the gradient penalty on real images (gamma / 2 times the mean squared norm); None: no penalty.
    precise : makes the context in which the penalised discriminators run; mixed precision ends there.

    """
    states = diffuse(schedule, images, draws)
    if r1_gamma is None:
        logits = [_called(networks[n], s.x_t, s.t, s.x_next) for n, s in zip(JUDGES, states, strict=True)]
        penalties: tuple[Tensor, ...] = ()
    else:
        with precise() if precise else torch.enable_grad():
            states = [state._replace(x_t=state.x_t.detach().requires_grad_()) for state in states]
            logits = [_called(networks[n], s.x_t, s.t, s.x_next) for n, s in zip(JUDGES, states, strict=True)]
            penalties = tuple(r1_gamma / 2 * squared_slope(v, s.x_t) for v, s in zip(logits, states, strict=True))
    real = _add([F.softplus(-value).mean() for value in logits])
    with torch.no_grad():
        _, before = _denoised(networks, schedule, states, sources, draws)
    fake = []
    for name, state, made in zip(JUDGES, states, before, strict=True):
        fake.append(F.softplus(_called(networks[name], made, state.t, state.x_next)).mean())
    return JudgeTerms(real, _add(fake), penalties)


def squared_slope(logits: Tensor, images: Tensor) -> Tensor:
    """Return the mean over samples of the squared norm of the gradient of the logits by the images."""
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return slope.flatten(1).square().sum(dim=1).mean()


def patch_terms(networks: Networks, images: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor]) -> JudgeTerms:
    """Return the terms of the patch discriminators: real contrasts 1 and 2 against ``made`` ones."""
    real, fake = [], []
    for name, image, other in zip(PATCH_JUDGES, images, made, strict=True):
        real.append(F.softplus(-_called(networks[name], image)).mean())
        fake.append(F.softplus(_called(networks[name], other.detach())).mean())
    return JudgeTerms(_add(real), _add(fake))


def generator_terms(
    networks: Networks,
    schedule: Schedule,
    images: tuple[Tensor, Tensor],
    draws: StepDraws,
    *,
    supervised: bool = False,
    adversarial: bool = True,
) -> GeneratorTerms:
    """Return the terms of all generators; the discriminators' weights should be frozen.

    The published training makes pseudo pairs: the generator of contrast 1 is given the contrast-2 image that the
    one-pass generator made of the same contrast-1 image. With ``supervised`` it is given the real partner of an aligned
    pair, and there is no cycle.
    """
    states = diffuse(schedule, images, draws)
    cycle = cycle_adversarial = None
    sources = (images[1], images[0])
    if not supervised:
        made = one_pass(networks, images)
        again = one_pass(networks, made)
        sources = (made[1], made[0])
        cycle = _add([(a.float() - x).abs().mean() for a, x in zip(again, images, strict=True)])
        judged = [_called(networks[name], m) for name, m in zip(PATCH_JUDGES, made, strict=True)]
        cycle_adversarial = _add([F.softplus(-value).mean() for value in judged])
    clean, before = _denoised(networks, schedule, states, sources, draws)
    fooled = None
    if adversarial:
        logits = [_called(networks[n], b, s.t, s.x_next) for n, b, s in zip(JUDGES, before, states, strict=True)]
        fooled = _add([F.softplus(-value).mean() for value in logits])
    l1 = _add([(x0 - x).abs().mean() for x0, x in zip(clean, images, strict=True)])
    return GeneratorTerms(l1, fooled, cycle, cycle_adversarial)
