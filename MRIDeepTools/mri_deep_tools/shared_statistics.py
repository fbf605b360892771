"""Batch normalisation over all processes of a training, so that many devices make the steps of one with all samples.

Ioffe & Szegedy, ICML 2015, normalise by the mean and variance of the batch. Where a batch is spread over processes,
each sees its own part; the sums are added up here. PyTorch has this for CUDA alone (``SyncBatchNorm``, which is used
there); on other devices the layers take the sums below.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.layer_sync import LayerSync, TorchSyncBatchNorm
from torch import Tensor, nn

__all__ = ["SharedStatistics", "moments_of_all"]


def moments_of_all(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (C,), population variance (C,) and number of values per channel over the samples of all processes.

    Parameters
    ----------
    x : (N, C, ...) of this process; gradients flow to the samples of all processes.

    """
    from torch.distributed.nn.functional import all_reduce

    axes = [0, *range(2, x.ndim)]
    values = x.float()
    count = values.new_tensor([x.numel() / x.shape[1]])
    sums = all_reduce(torch.cat([values.sum(axes), count]))
    mean, number = sums[:-1] / sums[-1].detach(), sums[-1].detach()
    shape = (1, -1, *[1] * (x.ndim - 2))
    variance = all_reduce((values - mean.view(shape)).square().sum(axes)) / number
    return mean, variance, number


class _SharedBatchNorm3d(nn.BatchNorm3d):
    """Batch normalisation of (N, C, X, Y, Z) whose statistics in training are those of all processes."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.momentum is None or not self.track_running_stats:
            return super().forward(input)
        mean, variance, number = moments_of_all(input)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr]
            self.running_var.lerp_(variance * number / (number - 1), self.momentum)  # type: ignore[union-attr]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale = torch.rsqrt(variance + self.eps) * self.weight
        shape = (1, -1, 1, 1, 1)
        return (input.float() * scale.view(shape) + (self.bias - mean * scale).view(shape)).to(input.dtype)


class SharedStatistics(LayerSync):  # type: ignore[misc]
    """Lets the layers of a training share their statistics, and takes that back at its end.

    Layers of other kinds that have an attribute ``shared`` (bool) are told by it.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Begin to share."""
        native = dist.is_initialized() and dist.get_backend() == "nccl"
        for layer in model.modules():
            if hasattr(layer, "shared"):
                setattr(layer, "shared", True)  # noqa: B010  (not every Module has it)
            elif type(layer) is nn.BatchNorm3d and not native:
                layer.__class__ = _SharedBatchNorm3d  # the same object: optimisers and weights' names stay as they are
        return TorchSyncBatchNorm().apply(model) if native else model

    def revert(self, model: nn.Module) -> nn.Module:
        """Share no longer."""
        for layer in model.modules():
            if hasattr(layer, "shared"):
                setattr(layer, "shared", False)  # noqa: B010
            elif type(layer) is _SharedBatchNorm3d:
                layer.__class__ = nn.BatchNorm3d  # type: ignore[assignment]
        return TorchSyncBatchNorm().revert(model)
