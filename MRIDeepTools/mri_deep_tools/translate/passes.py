"""Group normalisation and activation in passes over pieces that stay in the processor's cache (CPU, channels-last).

The CPU library's own group normalisation of channels-last tensors adds up in single precision and is off by 3e-5; here
sums of pieces, taken around a value near the mean, are added in double precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .network import NORM_EPSILON, groups_of

__all__ = ["activate", "rows_of"]

_PIECE = 1 << 17  # elements of one piece and thread: 0.5 MB, half of a usual second-level cache


def rows_of(x: Tensor) -> Tensor:
    """Return (B, C, H, W) in channels-last order as a view (B, H * W, C)."""
    return x.permute(0, 2, 3, 1).view(x.shape[0], -1, x.shape[1])


def activate(parts: Sequence[Tensor], scale: Tensor, shift: Tensor, *, in_place: bool = False) -> Tensor:
    """Return SiLU of the group normalisation of tensors that are taken as one, joined along their channels.

    Parameters
    ----------
    parts : one or more tensors (B, C_i, H, W), channels-last, float32 or bfloat16.
    scale, shift : (B, C) or (1, C), C being the sum of all C_i.
    in_place : write into the one part.

    Returns
    -------
    (B, C, H, W), channels-last.

    """
    first = parts[0]
    batch, _, height, width = first.shape
    channels = sum(part.shape[1] for part in parts)
    out = first if in_place else first.new_empty((batch, height, width, channels)).permute(0, 3, 1, 2)
    sources, target = [rows_of(part) for part in parts], rows_of(out)
    for number in range(batch):
        rows = [source[number] for source in sources]
        k = number if len(scale) > 1 else 0
        factor, offset = _coefficients(rows, scale[k], shift[k])
        _apply(rows, factor.to(out.dtype), offset.to(out.dtype), target[number])
    return out


def _coefficients(parts: Sequence[Tensor], scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Return factor and offset (C,), float32, of the normalisation of rows (N, C_i)."""
    moments = [_moments(rows) for rows in parts]
    mean, squares = (torch.cat(values) for values in zip(*moments, strict=True))
    groups = groups_of(len(mean))
    centre = mean.view(groups, -1).mean(1, keepdim=True)
    variance = squares.view(groups, -1).mean(1) / len(parts[0]) + (mean.view(groups, -1) - centre).square().mean(1)
    each = len(mean) // groups
    factor = (variance + NORM_EPSILON).rsqrt().repeat_interleave(each) * scale
    return factor.float(), (shift - centre.repeat_interleave(each) * factor).float()


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and sum of squared deviations of each column of (N, C), float64."""
    pieces = rows.split(_rows_at_once(rows))
    near = pieces[0][:: max(len(pieces[0]) // 64, 1)].float().mean(0)
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for piece in pieces:
        away = piece - near
        total += away.sum(0)
        squares += away.square_().sum(0)
    mean = total / len(rows)
    return mean + near, squares - len(rows) * mean.square()


def _apply(parts: Sequence[Tensor], factor: Tensor, offset: Tensor, target: Tensor) -> None:
    """Write SiLU of factor times rows plus offset into ``target`` (N, C)."""
    sizes = [rows.shape[1] for rows in parts]
    factors, offsets = factor.split(sizes), offset.split(sizes)
    step = _rows_at_once(target)
    for start in range(0, len(target), step):
        piece = target[start : start + step]
        for rows, column, own_factor, own_offset in zip(parts, piece.split(sizes, 1), factors, offsets, strict=True):
            torch.addcmul(own_offset, rows[start : start + step], own_factor, out=column)
        F.silu(piece, inplace=True)


def _rows_at_once(rows: Tensor) -> int:
    return max(_PIECE * torch.get_num_threads() // rows.shape[1], 1)
