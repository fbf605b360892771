"""What turns a prepared image into posteriors: the seam between the pipeline and its networks.

The pipeline (:mod:`.predict`) prepares the image, asks a backend for posteriors on a grid of the backend's choice, and
does the rest: clean-up, volumes, the way back to the scan's own grid. The published networks are one backend; any
network that gives posteriors on some grid can be another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from .engine import UNetEngine
from .labels import left_right_permutation
from .network import UNet
from .postprocess import smooth_
from .preprocess import MIN_SIZE, MULTIPLE

__all__ = ["Backend", "PublishedBackend", "ShareCallback", "collect_channels", "collect_posteriors"]

ShareCallback = Callable[[float], None]


@runtime_checkable
class Backend(Protocol):
    """A segmentation network and the grid it works on.

    Attributes
    ----------
    codes : label code of each output channel, background first.
    spacing : voxel size in mm of the grid on which the image must come.
    multiple, min_size : sides of the image are multiples of ``multiple`` and at least ``min_size`` voxels.
    clean : whether the topological clean-up of the default mode suits its posteriors (else the fast rules).

    """

    codes: tuple[int, ...]
    spacing: float
    multiple: int
    min_size: int
    clean: bool

    def posteriors(
        self, image: np.ndarray, affine: np.ndarray, *, flip: bool, smooth: bool, progress: ShareCallback | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Segment a prepared image.

        Parameters
        ----------
        image : (X, Y, Z) float32, axes nearest to R, A, S, values 0 to 1, zero-padded.
        affine : (4, 4), voxel to RAS mm.
        flip : average with the left-right mirrored image.
        smooth : smooth posteriors as the published default does.
        progress : is told the share that is done, 0 to 1.

        Returns
        -------
        posteriors : (C, X', Y', Z') float32, C-contiguous, summing to about 1 over channels; a fresh, writable array.
        affine : (4, 4) of that grid, whose axes point along the image's (it may be coarser and need not be padded).

        """
        ...

    def memory_bytes(self, shape: Sequence[int]) -> int:
        """Return the peak memory in bytes that ``posteriors`` takes for an image of ``shape``, its result included."""
        ...

    def to(self, device: torch.device) -> None:
        """Move the networks to another device."""
        ...


class PublishedBackend:
    """SynthSeg 1.0 or 2.0: one U-Net, flip averaging, Gaussian smoothing of posteriors, on the 1 mm grid."""

    spacing, multiple, min_size, clean = 1.0, MULTIPLE, MIN_SIZE, True

    def __init__(
        self,
        network: UNet,
        codes: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.codes = tuple(codes)
        self._network, self._device, self._dtype = network, torch.device(device), dtype
        self._engines: dict[bool, UNetEngine] = {}

    def to(self, device: torch.device) -> None:
        """Move the network to another device."""
        self._device = device
        self._engines.clear()

    def posteriors(
        self, image: np.ndarray, affine: np.ndarray, *, flip: bool, smooth: bool, progress: ShareCallback | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Segment a prepared 1 mm image; see :class:`Backend`. Result and image share the grid.

        Smoothing is linear and symmetric, so it is done once, after both passes are averaged.
        """
        report = progress or (lambda done: None)
        out = np.empty((len(self.codes), *image.shape), dtype=np.float32)
        tensor, flat = torch.from_numpy(image)[None], torch.from_numpy(out).flatten(1)
        passes = 1 + flip
        for number in range(passes):
            begin = number / passes
            collect_posteriors(
                self._engine(mirrored=number == 1),
                tensor,
                flat,
                add=number == 1,
                progress=lambda done, begin=begin: report(0.95 * (begin + done / passes)),  # type: ignore[misc]
            )
        if smooth:
            smooth_(out, factor=1 / passes)
        elif flip:
            out *= 0.5
        report(1.0)
        return out, affine

    def memory_bytes(self, shape: Sequence[int]) -> int:
        """Return the estimated peak of one run, result included."""
        return math.prod(shape) * 4 * len(self.codes) + engine_bytes(self._network, shape)

    def _engine(self, *, mirrored: bool) -> UNetEngine:
        if mirrored not in self._engines:
            order = left_right_permutation(self.codes) if mirrored else None
            self._engines[mirrored] = UNetEngine(self._network, self._device, self._dtype, mirror=order)
        return self._engines[mirrored]


def engine_bytes(network: UNet, shape: Sequence[int]) -> int:
    """Return what an engine takes beside its result: the full-resolution skip, the next level's tensors, slabs."""
    voxels, spec = math.prod(shape), network.spec
    skip = voxels * spec.width * 4
    lower = 4 * skip // 4  # about four tensors of twice the features on an eighth of the voxels
    slabs = 6 * (64 << 20)
    weights = 4 * 4 * sum(parameter.numel() for parameter in network.parameters())
    return skip + lower + slabs + weights


def collect_posteriors(
    engine: UNetEngine, image: Tensor, out: Tensor, *, add: bool = False, progress: ShareCallback | None = None
) -> None:
    """Write (or add) the softmax of the network's output for an image (C_in, X, Y, Z) into ``out`` (C, X*Y*Z)."""

    def sink(start: int, stop: int, logits: Tensor) -> None:
        values = torch.softmax(logits, dim=0)
        if add:
            out[:, start:stop] += values.to(out.device)
        else:
            out[:, start:stop] = values

    engine.run(image, sink, progress)


def collect_channels(engine: UNetEngine, image: Tensor, *, progress: ShareCallback | None = None) -> Tensor:
    """Return the arg-max channel of each voxel, (X, Y, Z) uint8 on the CPU; of equal ones the lowest."""
    out = torch.empty(image[0].numel(), dtype=torch.uint8)

    def sink(start: int, stop: int, logits: Tensor) -> None:
        out[start:stop] = logits.argmax(dim=0).to(torch.uint8)

    engine.run(image, sink, progress)
    return out.view(image.shape[1:])
