"""3x3 convolutions of large images with half the multiplications: Toom and Cook's scheme along the rows.

Four rows of output need the three rows of a kernel four times, twelve products; taken as values of polynomials at the
points 0, 1, -1, 2, -2 and infinity, six suffice (Winograd, Arithmetic complexity of computations, 1980; Lavin and Gray,
arXiv 1509.09308, F(4, 3)). Each product is a 1x3 convolution, which the CPU library does at full speed. The rounding
error is about three times that of a plain convolution in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["RowConvolution"]

_ROWS = 4  # of output that are made together
# Values of a kernel of three rows at the six points, scaled so that the way back has whole numbers.
_POINTS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_CHUNK = 1 << 18  # elements of four rows that one thread turns over together: 1 MB, a usual second-level cache
_LARGE = 64 * 64  # pixels from which on the saved products outweigh the sums
_SLAB = 1 << 20  # elements of one of the six products


class RowConvolution:
    """A 3x3 convolution with zero padding for channels-last images whose height is a multiple of four.

    Parameters
    ----------
    weight : (out, in, 3, 3), float32.

    """

    def __init__(self, weight: Tensor) -> None:
        points = torch.tensor(_POINTS, dtype=torch.float64)
        kernels = torch.einsum("pk,oikw->poiw", points, weight.double()).float()
        self.kernels = [kernel[:, :, None].contiguous(memory_format=torch.channels_last) for kernel in kernels]

    @staticmethod
    def pays(x: Tensor, outputs: int) -> bool:
        """Say whether (B, C, H, W) is large enough that the saved products outweigh the sums."""
        return x.shape[2] % _ROWS == 0 and x.shape[2] * x.shape[3] >= _LARGE and min(x.shape[1], outputs) >= 32

    def __call__(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return (B, out, H, W), channels-last, of (B, in, H, W), channels-last, and a bias (out,)."""
        batch, inputs, height, width = x.shape
        outputs, sets = len(bias), height // _ROWS
        out = x.new_empty((batch, height, width, outputs))
        slab = min(max(_SLAB // (width * max(inputs, outputs)), 1), sets)
        values = x.new_empty((6, slab, width, inputs))
        for image, target in zip(x.permute(0, 2, 3, 1), out, strict=True):
            for start in range(0, sets, slab):
                count = min(slab, sets - start)
                _evaluate(image, start, values[:, :count])
                products = [
                    F.conv2d(value[None].permute(0, 3, 1, 2), kernel, bias if point == 1 else None, padding=(0, 1))
                    for point, (value, kernel) in enumerate(zip(values[:, :count], self.kernels, strict=True))
                ]
                rows = [product[0].permute(1, 2, 0) for product in products]
                _interpolate(rows, target.view(sets, _ROWS, width, outputs)[start : start + count])
        return out.permute(0, 3, 1, 2)


def _chunks(count: int, size: int) -> list[slice]:
    step = max(_CHUNK * torch.get_num_threads() // (_ROWS * size), 1)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _evaluate(image: Tensor, first: int, values: Tensor) -> None:
    """Write the values of sets of six rows (each set four rows further) at the points into (6, count, W, C)."""
    height = len(image)
    for part in _chunks(values.shape[1], values[0, 0].numel()):
        begin, end = (first + part.start) * _ROWS, (first + part.stop) * _ROWS
        d1, d2, d3, d4 = image[begin:end].unflatten(0, (-1, _ROWS)).unbind(1)
        # The rows before and after each set; zeros beyond the image.
        before = image[max(begin - 1, 3) : end - 1 : _ROWS]
        after = image[begin + _ROWS : min(end + 1, height) : _ROWS]
        v0, v1, v2, v3, v4, v5 = values[:, part]
        even, odd = torch.sub(d4, d2, alpha=4), torch.sub(d3, d1, alpha=4)
        torch.add(even, odd, out=v1)
        torch.sub(even, odd, out=v2)
        torch.sub(even, d2, out=v0)
        v0[len(v0) - len(before) :].add_(before, alpha=4)
        torch.sub(d4, d2, out=even)
        torch.sub(d3, d1, out=odd)
        torch.add(even, odd, alpha=2, out=v3)
        torch.sub(even, odd, alpha=2, out=v4)
        torch.add(d3, odd, alpha=4, out=v5).neg_()
        v5[: len(after)].add_(after)


def _interpolate(products: list[Tensor], target: Tensor) -> None:
    """Write four rows of output (count, 4, W, O) for each set of six products (count, W, O), which are lost."""
    for part in _chunks(len(target), target[0, 0].numel()):
        m0, m1, m2, m3, m4, m5 = (product[part] for product in products)
        out = target[part]
        near, far = torch.add(m1, m2), torch.add(m3, m4)
        m1.sub_(m2)
        m3.sub_(m4)
        torch.add(m0.add_(near), far, out=out[:, 0])
        torch.add(m1, m3, alpha=2, out=out[:, 1])
        torch.add(near, far, alpha=4, out=out[:, 2])
        torch.add(m1.add_(m5), m3, alpha=8, out=out[:, 3])
