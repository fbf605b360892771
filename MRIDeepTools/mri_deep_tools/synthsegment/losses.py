"""Training losses (section 6.1 of the description): soft Dice and the weighted L2 that starts a training.

Tensors are (B, C, X, Y, Z) or (B, C, N) float32; targets are one-hot with the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as nnf

__all__ = ["cross_entropy_and_dice", "dice_loss", "mean_dice", "wl2_loss"]

EPSILON = 1e-7
WL2_TARGET = 5.0


def _space(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(range(2, tensor.ndim))


def _unit(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor / (tensor.sum(1, keepdim=True) + EPSILON)).clamp(0, 1)


def _boundary_map(target: torch.Tensor, weight: float, distance: int, keep_background: bool) -> torch.Tensor:
    """Return 1 + weight near the border of each label, 1 elsewhere; the background is left out by default."""
    window = 2 * distance + 1
    average = nnf.avg_pool3d(target, window, stride=1, padding=distance, count_include_pad=False)
    near = (average > 0) & (average < 1 / 3 - 1e-4)
    result = 1 + weight * near.to(target.dtype)
    if not keep_background:
        result[:, 0] = 1
    return result


def dice_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    *,
    class_weights: Sequence[float] | int | None = None,
    boundary_weight: float = 0.0,
    boundary_distance: int = 3,
    boundary_background: bool = False,
) -> torch.Tensor:
    """Return the mean over samples and labels, background included, of one minus soft Dice.

    Parameters
    ----------
    prediction, target : posteriors and one-hot labels (B, C, X, Y, Z).
    class_weights : one number per label, or -1 for the inverse of the target's volumes; normalised to sum 1. An absent
        label gets weight 0 (the original divides by zero there).
    boundary_weight, boundary_distance : extra weight of voxels near a border and how near, in voxels.

    """
    p, g = _unit(prediction), _unit(target)
    space = _space(p)
    if boundary_weight > 0:
        weights = _boundary_map(target, boundary_weight, boundary_distance, boundary_background)
        top, bottom = (2 * g * p * weights).sum(space), ((g.square() + p.square()) * weights).sum(space)
    else:
        top, bottom = (2 * g * p).sum(space), (g.square() + p.square()).sum(space)
    loss = 1 - (top + EPSILON) / (bottom + EPSILON)
    if class_weights is None:
        return loss.mean()
    if isinstance(class_weights, int):
        volumes = g.sum(space)
        weight = torch.where(volumes > 0, 1 / volumes.clamp(min=EPSILON), torch.zeros_like(volumes))
    else:
        weight = torch.as_tensor(list(class_weights), dtype=p.dtype, device=p.device)[None].expand_as(loss)
    weight = weight / weight.sum(1, keepdim=True)
    return (weight * loss).sum(1).mean()


def wl2_loss(
    likelihood: torch.Tensor,
    target: torch.Tensor,
    mean_of_all: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return the squared distance of pre-softmax values to +-5, weighted so that background hardly counts.

    ``mean_of_all`` takes a number to its mean over the processes of a training: the weights of a batch that is spread
    over them are then those of the whole batch, and so is the mean of their losses.
    """
    weight = 1 - target[:, :1] + 1e-8
    wanted, total = WL2_TARGET * (2 * target - 1), weight.sum()
    total = mean_of_all(total) if mean_of_all else total
    return (weight * (likelihood - wanted).square()).sum() / (total * target.shape[1])


def cross_entropy_and_dice(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return cross-entropy plus soft Dice over labels that are present; for compact networks on a subset of voxels.

    Parameters
    ----------
    logits : (N, C) float32.
    target : (N,) int64 channel indices.

    """
    log_posterior = logits.log_softmax(1)
    entropy = nnf.nll_loss(log_posterior, target)
    posterior = log_posterior.exp()
    one_hot = nnf.one_hot(target, logits.shape[1]).to(posterior.dtype)
    volumes = one_hot.sum(0)
    top = 2 * (one_hot * posterior).sum(0)
    bottom = volumes + posterior.sum(0)
    present = volumes > 0
    return entropy + (1 - (top[present] + 1) / (bottom[present] + 1)).mean()


def mean_dice(found: torch.Tensor, truth: torch.Tensor, channels: int) -> float:
    """Return the mean Dice over the labels above 0 that occur in the truth."""
    counts = torch.bincount(truth.reshape(-1) * channels + found.reshape(-1), minlength=channels**2)
    table = counts.reshape(channels, channels).double()
    dice = 2 * table.diagonal() / (table.sum(0) + table.sum(1)).clamp(min=1)
    present = table.sum(1)[1:] > 0
    return float(dice[1:][present].mean()) if present.any() else 1.0
