"""The stages of a segmentation, from a scan in memory to labels, volumes and soft maps on the chosen grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import WeightsError
from ..geometry import AFFINE_ATOL, Grid, Resample, resample_argmax
from ..inference import format_bytes, pick_precision, run_with_fallback, within_memory
from ..progress import Progress
from ..volume import Volume
from .backend import Backend, TiledBackend
from .engine import UNetEngine
from .labels import PARCEL_NAMES, channel_names, topological_classes
from .memory import plan_memory
from .model_choice import LITE_MODEL, Networks, SegmentOptions
from .parcellation import CORTEX_CODES, Parcels, paint_parcels, parcellate
from .postprocess import (
    argmax_channels,
    channel_volumes,
    hard_labels,
    keep_brain_,
    keep_structures_,
    normalise_,
    smooth_,
    threshold_,
)
from .preprocess import MIN_SIZE, MULTIPLE, Prepared, prepare
from .qc import qc_groups, qc_scores

__all__ = ["Outcome", "run"]

TILES_WARNING = "memory is short, so the network runs on overlapping pieces; labels near their seams may differ"
QC_WARNING = 0.65  # below this the authors' rule of thumb rejects a segmentation
CSF_CODE = 24  # present in version 2 only, which then reports a total intracranial volume
TOTAL_NAME = "total intracranial"
LEAST_FIELD_OF_VIEW = 60.0  # mm; a brain does not fit into less
LARGEST_SPACING = 10.0  # mm; the published limit of usefulness


@dataclass(frozen=True)
class Outcome:
    """What the stages made; see :class:`.predict.SegmentationResult`."""

    labels: Volume
    volumes: dict[str, float]
    qc: dict[str, float] | None
    posteriors: Volume | None
    resampled: Volume | None
    codes: tuple[int, ...]
    device: str


@dataclass(frozen=True)
class SoftMap:
    """Posteriors (C, X, Y, Z), RAS-ordered, and the affine (4, 4) of their grid."""

    values: np.ndarray
    affine: np.ndarray
    codes: tuple[int, ...]

    def labels_on(self, shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
        """Return the labels on another grid: posteriors interpolated linearly, then arg-max; background outside."""
        return resample_argmax(np.moveaxis(self.values, 0, -1), self.affine, shape, affine, self.codes)

    def lies_on(self, prepared: Prepared, *, padded: bool) -> bool:
        """Say whether the grid is that of a prepared image, with or without its padding."""
        sides = prepared.image.shape if padded else prepared.image[prepared.inside].shape
        affine = prepared.affine if padded else prepared.inside_affine
        return self.values.shape[1:] == sides and np.allclose(self.affine, affine, rtol=0, atol=AFFINE_ATOL)


def run(
    volume: Volume, load: Callable[[], Networks], options: SegmentOptions, device: torch.device, progress: Progress
) -> Outcome:
    """Segment a 3-D volume with finite values; ``load`` gives the networks and is called after the memory check."""
    return within_memory(lambda: _Run(volume, load, options, device, progress).outcome())


class _Run:
    """One scan on its way through the stages."""

    def __init__(
        self,
        volume: Volume,
        load: Callable[[], Networks],
        options: SegmentOptions,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self.volume, self.options, self.device, self.progress = volume, options, device, progress
        with progress.stage("prepare"):
            _check_scan(volume, progress)
            self.networks = self._load_within_memory(load)
            self.prepared = self._prepare(self.networks.backend)
            # The parts that need 1 mm voxels share the segmentation's image unless that has another grid.
            fine = options.qc or options.parcellation or options.resampled or self._one_millimetre
            self.fine = self._prepare(None) if fine else self.prepared

    def _load_within_memory(self, load: Callable[[], Networks]) -> Networks:
        """Load the networks, after a look at the memory if their size is known by name, else before it."""
        options = self.options
        known = options.weights is None
        plan = plan_memory(self.volume, options, self.device) if known and options.model != LITE_MODEL else None
        networks = load()
        backend = networks.backend
        if isinstance(backend, TiledBackend):
            if plan is None:
                sizes = {"channels": len(backend.codes), "width": backend.width}
                plan = plan_memory(self.volume, options, self.device, **sizes)
            backend.tile_bytes = plan.tile_bytes
            figures = {"memory_needed": format_bytes(plan.needed), "memory_free": format_bytes(plan.free)}
            self.progress.device(str(self.device), plan="tiles" if plan.tile_bytes else "whole", **figures)
            if plan.tile_bytes is not None:
                self.progress.warn(f"{TILES_WARNING} ({figures['memory_free']} free)")
        return networks

    def _prepare(self, backend: Backend | None) -> Prepared:
        if backend is None and self.networks.backend.spacing == 1.0:
            return self.prepared
        spacing = backend.spacing if backend else 1.0
        sides = self.options.crop_sides
        return prepare(
            self.volume,
            spacing=spacing,
            crop=None if sides is None else [math.ceil(side / spacing) for side in sides],
            ct=self.options.ct,
            min_size=backend.min_size if backend else MIN_SIZE,
            multiple=backend.multiple if backend else MULTIPLE,
            compatible=self.options.compatible,
        )

    def outcome(self) -> Outcome:
        """Run all stages."""
        options, progress = self.options, self.progress
        raw, channels = self._segment()
        scores = self._quality(channels) if options.qc and channels is not None else None
        with progress.stage("clean up"):
            soft = self._clean(raw)
            labels = hard_labels(soft.values, soft.codes)
            volumes = self._volumes(soft)
            if not labels.any():
                progress.warn("no brain was found; check that the scan shows a head and that its orientation is right")
        parcels = None
        if options.parcellation and channels is not None:
            fine_labels = labels if soft.lies_on(self.fine, padded=False) else soft.labels_on(*self._fine_grid())
            parcels = self._parcellate(channels, fine_labels)
            volumes |= self._parcel_volumes(parcels, volumes, soft.codes)
        with progress.stage("grid"):
            return Outcome(
                labels=self._place_labels(soft, labels, parcels),
                volumes={name: round(value, 3) for name, value in volumes.items()},
                qc=scores,
                posteriors=self._place_posteriors(soft) if options.posteriors else None,
                resampled=self.fine.working if options.resampled else None,
                codes=soft.codes,
                device=str(self.device),
            )

    def _segment(self) -> tuple[SoftMap, np.ndarray | None]:
        """Run the segmentation network; also return the arg-max channels (padded 1 mm grid) for other networks.

        The published program hands on unsmoothed posteriors in fast mode when other networks run, though these see
        the smoothed ones.
        """
        options, backend, image = self.options, self.networks.backend, self.prepared
        needed = options.qc or options.parcellation
        unsmoothed = options.compatible and options.fast and needed and not options.is_robust

        def work(device: torch.device) -> tuple[np.ndarray, np.ndarray]:
            if device != self.device:
                backend.to(device)
                self.device = device
            return backend.posteriors(
                image.image,
                image.affine,
                flip=not options.fast,
                smooth=not unsmoothed,
                progress=self.progress.update,
            )

        with self.progress.stage("segment"):
            raw = SoftMap(*run_with_fallback(work, self.device, self.progress), backend.codes)
            if not needed:
                return raw, None
            seen = raw
            if unsmoothed:
                seen = SoftMap(raw.values.copy(), raw.affine, raw.codes)
                smooth_(seen.values)
            return raw, self._fine_channels(seen)

    def _fine_channels(self, raw: SoftMap) -> np.ndarray:
        """Return the arg-max channel on the padded 1 mm grid, (X, Y, Z) uint8."""
        if raw.lies_on(self.fine, padded=True):
            return argmax_channels(raw.values)
        labels = raw.labels_on(self.fine.image.shape, self.fine.affine)
        return np.searchsorted(raw.codes, labels).astype(np.uint8)

    def _fine_grid(self) -> tuple[tuple[int, ...], np.ndarray]:
        """Return shape and affine of the 1 mm grid without padding."""
        return self.fine.image[self.fine.inside].shape, self.fine.inside_affine

    def _quality(self, channels: np.ndarray) -> dict[str, float]:
        network = self.networks.qc
        if network is None:
            raise WeightsError("the quality-control network is not loaded")
        with self.progress.stage("quality"):
            groups = qc_groups(channels, self.networks.backend.codes, self.options.qc_box)
            scores = run_with_fallback(lambda device: qc_scores(network, groups, device), self.device, self.progress)
        poor = [name for name, score in scores.items() if score < QC_WARNING]
        if poor:
            self.progress.warn(f"low quality scores for {', '.join(poor)}: look at the result before using it")
        return scores

    def _clean(self, raw: SoftMap) -> SoftMap:
        """Clean up posteriors in place, take the padding off, and make them sum to 1."""
        values, affine = raw.values, raw.affine
        inside = (slice(None), *self.prepared.inside)
        padded = raw.lies_on(self.prepared, padded=True)
        if padded:
            affine = self.prepared.inside_affine
        if self.options.fast or not self.networks.backend.clean:
            values = values[inside] if padded else values
            threshold_(values, keep_brain_(values))
        else:
            keep_structures_(values, topological_classes(raw.codes), keep_brain_(values))
            values = values[inside] if padded else values
        normalise_(values, compatible=self.options.compatible)
        return SoftMap(values, affine, raw.codes)

    def _volumes(self, soft: SoftMap) -> dict[str, float]:
        """Return soft volumes in mm^3, the total of version 2 first."""
        change = abs(np.linalg.det(soft.affine[:3, :3]) / np.linalg.det(self.prepared.affine[:3, :3]))
        values = channel_volumes(soft.values, self.prepared.voxel_volume * float(change))
        volumes = dict(zip(channel_names(soft.codes[1:]), values.tolist(), strict=True))
        return {TOTAL_NAME: float(values.sum()), **volumes} if CSF_CODE in soft.codes else volumes

    def _parcellate(self, channels: np.ndarray, labels: np.ndarray) -> Parcels:
        network, options, codes = self.networks.parcellation, self.options, self.networks.backend.codes
        if network is None:
            raise WeightsError("the cortical parcellation network is not loaded")
        cortex = np.isin(np.asarray(codes)[channels], CORTEX_CODES)
        dtype = pick_precision(options.precision, self.device)

        def work(device: torch.device) -> Parcels:
            return parcellate(
                UNetEngine(network, device, dtype if device == self.device else torch.float32),
                self.fine.image,
                cortex,
                labels,
                self.fine.inside,
                smooth=not (options.compatible and options.qc),
                keep=not self._on_fine_grid,
                progress=self.progress.update,
            )

        with self.progress.stage("parcels"):
            return run_with_fallback(work, self.device, self.progress)

    def _parcel_volumes(self, parcels: Parcels, volumes: dict[str, float], codes: Sequence[int]) -> dict[str, float]:
        """Scale the parcels' soft volumes so that those of a hemisphere add up to its cortex.

        The published program scales all of them to the cortex of both sides in version 1, and in version 2, where its
        index is off by one, to the white matter.
        """
        half, names = len(parcels.sums) // 2, PARCEL_NAMES[1:]
        left, right = (f"{side} cerebral cortex" for side in ("left", "right"))
        if self.options.compatible:
            if CSF_CODE in codes:
                left, right = (f"{side} cerebral white matter" for side in ("left", "right"))
            scaled = _scaled(parcels.sums, volumes[left] + volumes[right])
        else:
            parts = _scaled(parcels.sums[:half], volumes[left]), _scaled(parcels.sums[half:], volumes[right])
            scaled = np.concatenate(parts)
        return dict(zip(names, scaled.tolist(), strict=True))

    # ------------------------------------------------------------------------------------------ the way back

    @property
    def _on_fine_grid(self) -> bool:
        """Say whether the labels asked for lie on the 1 mm grid, which is the scan's own if it was not resampled."""
        return self._one_millimetre or (not self.fine.resampled and self.fine.working.shape3 == self.volume.shape3)

    @property
    def _one_millimetre(self) -> bool:
        return self.options.grid == "1mm" or self.options.compatible

    def _place_labels(self, soft: SoftMap, labels: np.ndarray, parcels: Parcels | None) -> Volume:
        """Bring labels, RAS-ordered on the unpadded posteriors' grid, to the grid asked for; parcels on top."""
        if self._on_fine_grid:
            if not soft.lies_on(self.fine, padded=False):
                labels = soft.labels_on(*self._fine_grid())
            if parcels is not None:
                paint_parcels(labels, parcels.channels)
            full = np.zeros(self.fine.full_shape, dtype=np.int32)
            full[self.fine.patch] = labels
            return self._undo(full)
        result = soft.labels_on(self.volume.shape3, self.volume.affine)
        if parcels is not None and parcels.store is not None:
            cortex = np.isin(result, CORTEX_CODES)
            to_fine = np.linalg.inv(self.fine.inside_affine) @ self.volume.affine
            points = np.argwhere(cortex) @ to_fine[:3, :3].T + to_fine[:3, 3]
            channels = np.zeros(result.shape, dtype=np.uint8)
            channels[cortex] = parcels.store.best(points)
            paint_parcels(result, channels)
        return Volume(result, self.volume.affine, self.volume.source)

    def _place_posteriors(self, soft: SoftMap) -> Volume:
        """Bring posteriors to the grid asked for: (X, Y, Z, C) float32, background 1 where nothing is known."""
        last = Volume(np.moveaxis(soft.values, 0, -1), soft.affine, self.volume.source)
        if not self._on_fine_grid:
            return Resample(Grid.of(self.volume), Grid.of(last)).undo(last, kind="posterior")
        if not soft.lies_on(self.fine, padded=False):
            shape, affine = self._fine_grid()
            fine = Grid((shape[0], shape[1], shape[2]), affine)
            last = Resample(fine, Grid.of(last)).undo(last, kind="posterior")
        if self.fine.crop is None:
            return self._undo(last.data)
        full = np.zeros((last.data.shape[3], *self.fine.full_shape), dtype=np.float32)
        full[0] = 1
        full[(slice(None), *self.fine.patch)] = np.moveaxis(last.data, -1, 0)
        return self._undo(np.moveaxis(full, 0, -1))

    def _undo(self, full: np.ndarray) -> Volume:
        """Give an array on the full RAS-ordered 1 mm grid the axis order of the scan."""
        placed = self.fine.reorient.undo(Volume(full, self.fine.full_affine, self.volume.source))
        return Volume(placed.data, self.fine.working.affine, self.volume.source)  # the very affine, not a rounded one


def _scaled(values: np.ndarray, total: float) -> np.ndarray:
    """Scale values so that they add up to ``total``; zeros stay zeros."""
    found = float(values.sum())
    return values * (total / found) if found > 0 else np.zeros_like(values)


def _check_scan(volume: Volume, progress: Progress) -> None:
    """Warn of scans that cannot hold a brain, and of voxels beyond what the network was made for."""
    name = volume.source.name or "the image"
    view = [n * size for n, size in zip(volume.shape3, volume.spacing, strict=True)]
    if min(view) < LEAST_FIELD_OF_VIEW:
        progress.warn(f"{name} covers only {min(view):.0f} mm along one axis, less than a brain needs")
    if max(volume.spacing) > LARGEST_SPACING:
        progress.warn(f"{name} has voxels of {max(volume.spacing):.3g} mm; beyond 10 mm labels are not reliable")
