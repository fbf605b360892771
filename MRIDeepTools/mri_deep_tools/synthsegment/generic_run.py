"""The stages of a segmentation with a model of one's own; see :mod:`.generic`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import OutOfMemoryError
from ..inference import Tile, available_memory, plan_tiles, require_memory, run_with_fallback
from ..progress import Progress
from ..volume import Volume
from .backend import Backend, PublishedBackend, ShareCallback
from .generator.morphology import sobel_magnitude
from .label_table import LabelTable
from .memory import engine_bytes, tile_memory
from .model_choice import Networks, SegmentOptions
from .network import UNet
from .pipeline import TILES_WARNING, SoftMap, _Run
from .postprocess import (
    SMOOTHING_SIGMA,
    channel_volumes,
    keep_brain_,
    keep_structures_,
    normalise_,
    smooth_,
    smoothing_weights,
)
from .preprocess import Prepared, prepare

if TYPE_CHECKING:
    from .generic import GenericOptions

__all__ = ["GenericBackend", "GenericRun", "gradient_magnitude", "smooth_with_"]

_HALO = 32  # voxels by which pieces of a volume overlap


class GenericBackend(PublishedBackend):
    """A U-Net of any depth, width, kernel and number of channels, on whatever grid its images come."""

    def __init__(
        self,
        network: UNet,
        table: LabelTable,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        sigma: float = SMOOTHING_SIGMA,
    ) -> None:
        super().__init__(network, table.codes, device, dtype)
        self._mirror, self._sigma = table.mirror, sigma
        self.in_channels = network.spec.in_channels
        self.multiple, self.min_size = 2**network.spec.levels, 1  # type: ignore[misc]

    def tiles(self, shape: Sequence[int], width: int, channels: int) -> list[Tile]:
        """Return the pieces in which the network runs; one piece when memory suffices."""
        if self.tile_bytes is None:
            return plan_tiles(shape, 0, 1, multiple=self.multiple, halo=0)
        fixed = tile_memory((0, 0, 0), width, channels)
        per_voxel = tile_memory((1, 1, 1), width, channels) - fixed
        room = self.tile_bytes - fixed
        return plan_tiles(shape, per_voxel, room, multiple=self.multiple, halo=max(_HALO, self.multiple))

    def posteriors(
        self, image: np.ndarray, affine: np.ndarray, *, flip: bool, smooth: bool, progress: ShareCallback | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Segment a prepared image (C_in, X, Y, Z); see :class:`.backend.Backend`."""
        out, affine = super().posteriors(image, affine, flip=flip, smooth=False, progress=progress)
        if smooth:
            smooth_with_(out, self._sigma)
        return out, affine


def smooth_with_(posteriors: np.ndarray, sigma: float) -> None:
    """Convolve each channel (C, X, Y, Z) with a Gaussian of ``sigma`` voxels, zero outside, in place; 0 = not."""
    from scipy.ndimage import correlate1d

    if sigma == SMOOTHING_SIGMA:
        smooth_(posteriors)
    elif sigma > 0:
        weights = smoothing_weights(sigma)
        for channel in posteriors:
            for axis in range(3):
                channel[...] = correlate1d(channel, weights, axis=axis, mode="constant")


def gradient_magnitude(image: np.ndarray) -> np.ndarray:
    """Return the Sobel gradient magnitude of each channel (C, X, Y, Z), scaled to 0 to 1 by minimum and maximum."""
    result = np.empty_like(image)
    for channel, target in zip(image, result, strict=True):
        values = sobel_magnitude(torch.from_numpy(channel)).numpy()
        low, high = values.min(), values.max()
        target[...] = (values - low) / (high - low + 1e-7)
    return result


class GenericRun(_Run):
    """One scan, as a 3-D volume per channel, on its way through the stages."""

    def __init__(
        self,
        scans: Sequence[Volume],
        load: Callable[[], Networks],
        options: SegmentOptions,
        own: GenericOptions,
        table: LabelTable,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self.scans, self.own, self.table = scans, own, table
        self.image = np.empty((0,), dtype=np.float32)
        super().__init__(scans[0], load, options, device, progress)

    def _load_within_memory(self, load: Callable[[], Networks]) -> Networks:
        """Load the network; its size is known then, and the memory is looked at when its input is."""
        return load()

    def _prepare(self, backend: Backend | None) -> Prepared:
        """Prepare each channel on its own; every output shares the network's grid."""
        if backend is None:
            return self.prepared
        parts = [
            prepare(
                scan,
                spacing=self.own.target_resolution,
                crop=self.options.crop_sides,
                min_size=self.own.padding or backend.min_size,
                multiple=backend.multiple,
                compatible=self.options.compatible,
            )
            for scan in self.scans
        ]
        self.image = np.stack([part.image for part in parts])
        if self.own.gradients:
            self.image = gradient_magnitude(self.image)
        self._plan_memory(backend)
        first = parts[0]
        if len(parts) == 1 or not self.options.resampled:
            return first
        stacked = np.stack([part.working.data for part in parts], axis=-1)
        return replace(first, working=first.working.with_data(stacked))

    def _plan_memory(self, backend: Backend) -> None:
        """Let the network run on pieces where memory is short; OutOfMemoryError where these do not fit either."""
        if not isinstance(backend, GenericBackend):
            return
        shape, free = self.image.shape[1:], available_memory()
        result = self.image[0].size * 4 * len(backend.codes)
        room = free - result if self.device.type == "cpu" else available_memory(self.device)
        backend.tile_bytes = None
        if result <= free and engine_bytes(shape, backend.width) <= room:
            return
        backend.tile_bytes = max(room, 1)
        try:
            backend.tiles(shape, backend.width, len(backend.codes))
        except OutOfMemoryError:
            needed = max(backend.memory_bytes(shape), free + 1)
            hint = "use --crop, a coarser --target-resolution, or a machine with more memory"
            require_memory(needed, free, f"segmenting {self.volume.source.name or 'the image'}", hint)
        self.progress.warn(TILES_WARNING)

    def _segment(self) -> tuple[SoftMap, np.ndarray | None]:
        """Run the network on all channels."""
        backend, affine = self.networks.backend, self.prepared.affine

        def work(device: torch.device) -> tuple[np.ndarray, np.ndarray]:
            if device != self.device:
                backend.to(device)
                self.device = device
            flip = not self.options.fast
            return backend.posteriors(self.image, affine, flip=flip, smooth=True, progress=self.progress.update)

        with self.progress.stage("segment"):
            values, grid = run_with_fallback(work, self.device, self.progress)
        return SoftMap(values, grid, backend.codes), None

    def _clean(self, raw: SoftMap) -> SoftMap:
        """Clean up as asked, take the padding off, and make posteriors sum to 1 if anything was cleaned.

        As published, the padding goes last where structures are cleaned, else first.
        """
        values, inside = raw.values, (slice(None), *self.prepared.inside)
        if not self.own.topology:
            values = values[inside]
        box = (slice(None), slice(None), slice(None))
        if self.own.keep_largest:
            box = keep_brain_(values)
        if self.own.topology and self.table.classes is not None:
            keep_structures_(values, self.table.classes, box)
            values = values[inside]
        if self.own.keep_largest or self.own.topology:
            normalise_(values, compatible=self.options.compatible)
        return SoftMap(values, self.prepared.inside_affine, raw.codes)

    def _volumes(self, soft: SoftMap) -> dict[str, float]:
        """Return soft volumes in mm^3 by the names of the label table, background left out."""
        values = channel_volumes(soft.values, self.prepared.voxel_volume)
        return dict(zip(self.table.names[1:], values.tolist(), strict=True))
