"""What turns a prepared image into posteriors: the seam between the pipeline and its networks.

The pipeline (:mod:`.predict`) prepares the image, asks a backend for posteriors on a grid of the backend's choice, and
does the rest: clean-up, volumes, the way back to the scan's own grid. The published networks are one backend; any
network that gives posteriors on some grid can be another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..inference import Tile, plan_tiles
from .engine import UNetEngine
from .labels import left_right_permutation
from .memory import engine_bytes, tiles_within
from .network import UNet
from .postprocess import smooth_
from .preprocess import MIN_SIZE, MULTIPLE

__all__ = [
    "Backend",
    "PublishedBackend",
    "ShareCallback",
    "TiledBackend",
    "collect_channels",
    "collect_posteriors",
]

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


class TiledBackend:
    """What the backends made of U-Nets share: the published grid, and tiles where memory is short.

    ``tile_bytes`` is the memory that one pass may take beside its result, None = as much as it needs. Tiles overlap by
    32 voxels, yet labels near their seams may differ from those of a pass over the whole volume.
    """

    spacing, multiple, min_size = 1.0, MULTIPLE, MIN_SIZE
    tile_bytes: int | None = None

    def __init__(self, codes: Sequence[int], width: int, device: torch.device | str, dtype: torch.dtype) -> None:
        self.codes, self.width = tuple(codes), width
        self._device, self._dtype = torch.device(device), dtype

    def tiles(self, shape: Sequence[int], width: int, channels: int) -> list[Tile]:
        """Return the pieces in which a network of this width runs; one piece when memory suffices."""
        if self.tile_bytes is None:
            return plan_tiles(shape, 0, 1, multiple=MULTIPLE, halo=0)
        return tiles_within(shape, width, channels, self.tile_bytes)


class PublishedBackend(TiledBackend):
    """SynthSeg 1.0 or 2.0: one U-Net, flip averaging, Gaussian smoothing of posteriors, on the 1 mm grid."""

    clean = True

    def __init__(
        self,
        network: UNet,
        codes: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(codes, network.spec.width, device, dtype)
        self._network = network
        self._mirror: Sequence[int] | None = None  # None: as the published labels pair
        self._engines: dict[bool, UNetEngine] = {}

    def to(self, device: torch.device) -> None:
        """Move the network to another device."""
        self._device = device
        self._engines.clear()

    def posteriors(
        self, image: np.ndarray, affine: np.ndarray, *, flip: bool, smooth: bool, progress: ShareCallback | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Segment a prepared 1 mm image; see :class:`Backend`. Result and image share the grid.

        A network of several input channels takes them as (C_in, X, Y, Z).

        Smoothing is linear and symmetric, so it is done once, after both passes are averaged.
        """
        report = progress or (lambda done: None)
        inputs = torch.from_numpy(image if image.ndim == 4 else image[None])
        shape = inputs.shape[1:]
        out = np.empty((len(self.codes), *shape), dtype=np.float32)
        tiles = self.tiles(shape, self._network.spec.width, len(self.codes))
        passes = 1 + flip
        for number in range(passes):
            collect_posteriors(
                self._engine(mirrored=number == 1),
                inputs,
                torch.from_numpy(out),
                tiles,
                add=number == 1,
                progress=_part(report, number / passes, 1 / passes),
            )
        if smooth:
            smooth_(out, factor=1 / passes)
        elif flip:
            out *= 0.5
        return out, affine

    def memory_bytes(self, shape: Sequence[int]) -> int:
        """Return the estimated peak of one run, result included."""
        return math.prod(shape) * 4 * len(self.codes) + engine_bytes(shape, self.width)

    def _engine(self, *, mirrored: bool) -> UNetEngine:
        if mirrored not in self._engines:
            order = (self._mirror or left_right_permutation(self.codes)) if mirrored else None
            self._engines[mirrored] = UNetEngine(self._network, self._device, self._dtype, mirror=order)
        return self._engines[mirrored]


def _part(report: ShareCallback, begin: float, width: float) -> ShareCallback:
    """Return a callback for a part of the work that fills ``width`` from ``begin`` on."""
    return lambda done: report(begin + width * done)


def collect_posteriors(
    engine: UNetEngine,
    image: Tensor,
    out: Tensor,
    tiles: Sequence[Tile],
    *,
    add: bool = False,
    progress: ShareCallback | None = None,
) -> None:
    """Write (or add) the softmax of the network's output for an image (C_in, X, Y, Z) into ``out`` (C, X, Y, Z)."""

    def write(target: Tensor, start: int, stop: int, logits: Tensor, *, adding: bool) -> None:
        values = torch.softmax(logits, dim=0).to(target.device)
        if adding:
            target[:, start:stop] += values
        else:
            target[:, start:stop] = values

    if len(tiles) == 1:
        engine.run(image, partial(write, out.flatten(1), adding=add), progress)
        return
    for number, tile in enumerate(tiles):
        piece = image[(slice(None), *tile.source)]
        result = torch.empty((out.shape[0], *piece.shape[1:]))
        share = _part(progress, number / len(tiles), 1 / len(tiles)) if progress else None
        engine.run(piece, partial(write, result.flatten(1), adding=False), share)
        target, inner = out[(slice(None), *tile.target)], result[(slice(None), *tile.inner)]
        target.copy_(target + inner if add else inner)


def _write_best(target: Tensor, start: int, stop: int, logits: Tensor) -> None:
    target[start:stop] = logits.argmax(dim=0).to("cpu", torch.uint8)


def collect_channels(
    engine: UNetEngine, image: Tensor, tiles: Sequence[Tile], *, progress: ShareCallback | None = None
) -> Tensor:
    """Return the arg-max channel of each voxel of an image (C_in, X, Y, Z), (X, Y, Z) uint8 on the CPU."""
    out = torch.empty(image.shape[1:], dtype=torch.uint8)
    for number, tile in enumerate(tiles):
        piece = image[(slice(None), *tile.source)]
        result = torch.empty(piece.shape[1:], dtype=torch.uint8)
        engine.run(
            piece,
            partial(_write_best, result.flatten()),
            _part(progress, number / len(tiles), 1 / len(tiles)) if progress else None,
        )
        out[tile.target] = result[tile.inner]
    return out
