"""Resampling by two with the kernel [1, 3, 3, 1], in plain PyTorch (Karras et al., StyleGAN2, arXiv 1912.04958).

The filters are depthwise convolutions with the outer product of the kernel; nothing is compiled for a device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["TAPS", "fir_down", "fir_kernel", "fir_smooth", "fir_up"]

TAPS = (1.0, 3.0, 3.0, 1.0)


def fir_kernel(channels: int, like: Tensor, gain: float = 1.0) -> Tensor:
    """Return the kernel (channels, 1, 4, 4), of sum ``gain`` each, with dtype and device of ``like``."""
    taps = torch.tensor(TAPS, dtype=torch.float64)
    kernel = torch.outer(taps, taps) * (gain / float(taps.sum()) ** 2)
    return kernel.to(like.device, like.dtype).expand(channels, 1, len(TAPS), len(TAPS))


def fir_down(x: Tensor) -> Tensor:
    """Filter (B, C, H, W) and keep every second sample: (B, C, H // 2, W // 2)."""
    channels = x.shape[1]
    return F.conv2d(x, fir_kernel(channels, x), stride=2, padding=1, groups=channels)


def fir_up(x: Tensor) -> Tensor:
    """Put a zero after every sample of (B, C, H, W) and filter with four times the kernel: (B, C, 2 H, 2 W)."""
    channels = x.shape[1]
    return F.conv_transpose2d(x, fir_kernel(channels, x, gain=4.0), stride=2, padding=1, groups=channels)


def fir_smooth(x: Tensor) -> Tensor:
    """Filter (B, C, H, W) between its samples, one more on each side: (B, C, H + 1, W + 1)."""
    channels = x.shape[1]
    return F.conv2d(x, fir_kernel(channels, x), padding=2, groups=channels)
