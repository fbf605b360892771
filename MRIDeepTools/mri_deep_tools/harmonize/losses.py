"""The losses of IGUANe: adversarial (least squares), cycle and identity, and a term for pairs of one anatomy.

Roca et al., Medical Image Analysis 99 (2025) 103388. Images are (N, 1, X, Y, Z) in the networks' units, the background
of training images is -1. Whatever enters a network, real or made, is 0 outside the mask of the image that it comes
from; means run over the whole volume, background included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .augmentation import BACKGROUND

__all__ = ["GeneratorTerms", "Weights", "discriminator_loss", "fake", "generator_terms", "masked", "paired_loss"]

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Weights:
    """Weights of the terms of the generators' losses; the defaults are the published ones."""

    adversarial: float = 1.0
    cycle: float = 30.0
    identity: float = 15.0
    paired: float = 0.0


@dataclass(frozen=True)
class GeneratorTerms:
    """The terms of one pair: ``_ref`` of the universal generator, ``_src`` of the backward one, unweighted."""

    adversarial_ref: Tensor
    adversarial_src: Tensor
    cycle_ref: Tensor
    cycle_src: Tensor
    identity_ref: Tensor
    identity_src: Tensor
    paired: Tensor | None = None

    def total(self, weights: Weights) -> Tensor:
        """Return a loss whose gradient is, for either generator, that of its own published loss.

        The terms that belong to one generator do not depend on the other; the cycle terms are part of both losses.
        """
        loss = weights.adversarial * (self.adversarial_ref + self.adversarial_src)
        loss = loss + weights.cycle * (self.cycle_ref + self.cycle_src)
        loss = loss + weights.identity * (self.identity_ref + self.identity_src)
        return loss if self.paired is None else loss + weights.paired * self.paired


def masked(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return a training image with 0 for its background, and its mask as numbers 0 and 1."""
    mask = (image > BACKGROUND).to(image.dtype)
    return image * mask, mask


def fake(generator: Network, image: Tensor) -> Tensor:
    """Return what a generator makes of training images, 0 outside their masks; no gradient."""
    with torch.no_grad():
        inside, mask = masked(image)
        return generator(inside) * mask


def discriminator_loss(discriminator: Network, real: Tensor, made: Tensor) -> Tensor:
    """Return mean((D(real) - 1)^2) + mean(D(made)^2); ``real`` are training images, ``made`` is masked already."""
    return (discriminator(masked(real)[0]) - 1).square().mean() + discriminator(made).square().mean()


def paired_loss(universal: Network, src: Tensor, truth: Tensor) -> Tensor:
    """Return the mean absolute error against the reference image of the same anatomy, where both have brain."""
    (inside, mask), (wanted, other) = masked(src), masked(truth)
    return ((universal(inside) - wanted).abs() * (mask * other)).mean()


def generator_terms(
    universal: Network,
    backward: Network,
    disc_ref: Network,
    disc_src: Network,
    ref: Tensor,
    src: Tensor,
    truth: Tensor | None = None,
) -> GeneratorTerms:
    """Return the terms for a reference and a source image; ``truth`` is the source's anatomy in the reference style."""
    (ref, mask_ref), (src, mask_src) = masked(ref), masked(src)
    made_ref, made_src = universal(src) * mask_src, backward(ref) * mask_ref
    paired = None
    if truth is not None:
        wanted, other = masked(truth)
        paired = ((made_ref - wanted).abs() * (mask_src * other)).mean()
    return GeneratorTerms(
        adversarial_ref=(disc_ref(made_ref) - 1).square().mean(),
        adversarial_src=(disc_src(made_src) - 1).square().mean(),
        cycle_ref=(ref - universal(made_src) * mask_ref).abs().mean(),
        cycle_src=(src - backward(made_ref) * mask_src).abs().mean(),
        identity_ref=(ref - universal(ref) * mask_ref).abs().mean(),
        identity_src=(src - backward(src) * mask_src).abs().mean(),
        paired=paired,
    )
