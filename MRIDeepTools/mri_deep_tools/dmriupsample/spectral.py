"""Convolutions of small patches in the frequency domain: the same numbers as the direct form for far fewer products.

With kernels of edge 2 or 3 and zero padding, a patch of edge n is a period of length n + 1 whose last element is
zero: the single zero serves both ends, so the cyclic convolution of length n + 1 is the padded one exactly. Per pair
of channels a 10x10x10 patch then costs 726 complex products instead of 27,000 real ones (kernel 3) or 8,000 (kernel
2), and units that read the same input share its transform. The transforms are products with small matrices, axis by
axis, on arrays laid out as (x, y, z, batch, channel), in which every step finds its operands side by side in memory.
The Fourier matrices are unitary up to scale, so rounding errors stay those of float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

__all__ = ["SpectralConv", "Workspace", "spectra_bytes"]


def spectra_bytes(channels_in: int, channels_out: int, patch: int) -> int:
    """Return the memory that the spectra of the kernels take."""
    return _frequencies(patch) * channels_in * channels_out * 2 * 4


def _frequencies(patch: int) -> int:
    period = patch + 1
    return (period // 2 + 1) * period**2


class Workspace:
    """Memory that is used again: fresh pages from the system cost more than the arithmetic that fills them."""

    def __init__(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self._buffers: dict[str, torch.Tensor] = {}

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """Return an array of this shape with arbitrary values; the next call with the same name overwrites it."""
        size = prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name] = torch.empty(size, device=self.device, dtype=self.dtype)
        return buffer[:size].view(shape)


class SpectralConv:
    """Same-size convolutions (cross-correlations, zero padding) of one input with several kernels of edge 2 or 3.

    Parameters
    ----------
    weights :
        Kernels (out, in, k, k, k), all with the same ``in``; their outputs are concatenated.
    patch :
        Edge of the patches.
    workspace :
        Where intermediate arrays are kept; the result is in it too, until the next call.

    """

    def __init__(self, weights: Sequence[torch.Tensor], patch: int, workspace: Workspace | None = None) -> None:
        self.patch = patch
        self.workspace = workspace or Workspace(weights[0].device, weights[0].dtype)
        self._forward, self._inverse = _matrices(patch, weights[0].device, weights[0].dtype)
        self.channels = sum(weight.shape[0] for weight in weights)
        widths, start = [weight.shape[0] for weight in weights], 0
        self._spectra = torch.empty(
            (_frequencies(patch), weights[0].shape[1], 2, self.channels),
            device=weights[0].device,
            dtype=weights[0].dtype,
        )
        for weight, width in zip(weights, widths, strict=True):
            _fill_spectrum(self._spectra[..., start : start + width], weight, patch)
            start += width

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return (x, y, z, B, out), in the workspace, from (x, y, z, B, in); without gradients."""
        n, batch, inside, out = self.patch, x.shape[3], x.shape[4], self.channels
        half, period = (n + 1) // 2 + 1, n + 1
        take, (first, other) = self.workspace.take, self._forward
        a = torch.matmul(first, x.reshape(n, -1), out=take("even", 2 * half, n * n * batch * inside))
        b = take("odd", half, 2 * period, n * batch * inside)
        torch.matmul(other, a.view(half, 2 * n, -1), out=b)
        a = take("even", half * period, 2 * period, batch * inside)
        torch.matmul(other, b.view(half * period, 2 * n, -1), out=a)
        c = take("product", half * period**2, 2 * batch, 2 * out)
        torch.bmm(a.view(half * period**2, 2 * batch, inside), self._spectra.flatten(2), out=c)
        c = c.view(-1, 2, batch, 2, out)
        a = take("even", half * period**2, 2, batch, out)
        torch.sub(c[:, 0, :, 0], c[:, 1, :, 1], out=a[:, 0])
        torch.add(c[:, 1, :, 0], c[:, 0, :, 1], out=a[:, 1])
        last, other = self._inverse
        b = take("odd", half * period, 2 * n, batch * out)
        torch.matmul(other, a.view(half * period, 2 * period, -1), out=b)
        a = take("even", half, 2 * n, n * batch * out)
        torch.matmul(other, b.view(half, 2 * period, -1), out=a)
        b = torch.matmul(last, a.view(2 * half, -1), out=take("odd", n, n * n * batch * out))
        return b.view(n, n, n, batch, out)


def _matrices(
    patch: int, device: torch.device, dtype: torch.dtype
) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Return the real matrices of the transforms and of their inverses: for real values (x), and for complex ones.

    Complex numbers stand as pairs of rows. Forward: rows (frequency, part), columns (part, place); inverse: rows
    (part, place), columns (frequency, part).
    """
    period, half = patch + 1, (patch + 1) // 2 + 1
    place = torch.arange(patch, dtype=torch.float64)
    angle = 2 * torch.pi / period * torch.arange(period, dtype=torch.float64)[:, None] * place
    cos, sin = torch.cos(angle), torch.sin(angle)  # (frequency, place)
    first = torch.stack([cos, -sin], dim=1)[:half].reshape(2 * half, patch)
    real, imaginary = torch.stack([cos, sin], dim=1), torch.stack([-sin, cos], dim=1)  # each (frequency, 2, place)
    forward = torch.stack([real, imaginary], dim=1).reshape(2 * period, 2 * patch)
    back = torch.stack([torch.stack([cos.T, -sin.T], dim=2), torch.stack([sin.T, cos.T], dim=2)]) / period
    weight = torch.full((half,), 2.0, dtype=torch.float64)
    weight[0] = 1.0
    if period % 2 == 0:
        weight[-1] = 1.0
    last = torch.stack([cos[:half].T * weight, -sin[:half].T * weight], dim=2).reshape(patch, 2 * half) / period

    def cast(matrix: torch.Tensor) -> torch.Tensor:
        return matrix.to(device=device, dtype=dtype).contiguous()

    return (cast(first), cast(forward)), (cast(last), cast(back.reshape(2 * patch, 2 * period)))


def _fill_spectrum(target: torch.Tensor, weight: torch.Tensor, patch: int) -> None:
    """Put the spectrum of a kernel (out, in, k, k, k), for cross-correlation, into (F, in, 2, out): real, imaginary."""
    period, kernel = patch + 1, weight.shape[-1]
    offset = torch.arange(kernel, dtype=torch.float64) - (kernel - 1) // 2
    angle = 2 * torch.pi / period * torch.arange(period, dtype=torch.float64)[:, None] * offset
    phase = torch.polar(torch.ones_like(angle), angle)  # (frequency, tap)
    full = torch.einsum("ax,by,cz->abcxyz", phase[: period // 2 + 1], phase, phase).reshape(-1, kernel**3)
    taps = weight.permute(2, 3, 4, 1, 0).reshape(kernel**3, -1)
    for index, part in enumerate((full.real, full.imag)):
        values = torch.matmul(part.to(device=weight.device, dtype=weight.dtype), taps)
        target[:, :, index] = values.view(-1, weight.shape[1], weight.shape[0])
