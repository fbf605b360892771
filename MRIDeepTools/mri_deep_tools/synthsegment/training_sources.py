"""Where training samples come from: each source draws an input (C, X, Y, Z) and its target, fixed by the draws.

Segmentation targets are channel indices (X, Y, Z) int64; the quality-control source gives a score per group instead.
Section numbers are those of the published programs' description: generative model 5, robust parts 6.2, supervised 6.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as nnf

from ..errors import RequestError
from .generator import spatial
from .generator.draws import Draws
from .generator.intensity import apply_bias, draw_bias
from .generator.model import CODES, GeneratorConfig, LabelsToImage, LabelTables, output_and_crop_shape
from .generator.morphology import random_morphology
from .labels import PARCEL_CODES, V2_CHANNELS, qc_classes
from .training_maps import ImagePair, TrainingMap

__all__ = [
    "DenoiserSource",
    "ParcellationSource",
    "QCSource",
    "SecondStageSource",
    "Source",
    "SupervisedSource",
    "SyntheticSource",
]

DROP_CSF = 0.3
"""Share of samples in which maps named ``seg_cerebral`` lose their CSF label."""

CSF = 24
CORTEX = (3, 42)


class Source(Protocol):
    """Draws training samples."""

    in_channels: int
    codes: tuple[int, ...]

    def draw(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the network's input (C, X, Y, Z) float32 and its target."""
        ...


def channel_table(tables: LabelTables, codes: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return a table from target code to channel index; codes that are not channels become background."""
    table = torch.zeros(CODES, dtype=torch.long)
    table[torch.tensor(list(codes))] = torch.arange(len(codes))
    return table.to(device)


class SyntheticSource:
    """Synthetic scans from label maps (section 5)."""

    def __init__(
        self,
        maps: Sequence[TrainingMap],
        config: GeneratorConfig,
        tables: LabelTables,
        codes: Sequence[int],
        levels: int,
        device: torch.device,
        probabilities: Sequence[float] | None = None,
    ) -> None:
        self.maps, self.codes, self.device = list(maps), tuple(codes), device
        self.in_channels = config.channels
        sizes = {tuple(round(v, 3) for v in item.voxel_size) for item in maps}
        if len(sizes) > 1:
            raise RequestError(f"the label maps have different voxel sizes: {sorted(sizes)} mm", "resample them first")
        self.generator = LabelsToImage(config, tables, voxel_size=maps[0].voxel_size, levels=levels, device=device)
        self.channel = channel_table(tables, codes, device)
        weights = np.ones(len(maps)) if probabilities is None else np.asarray(probabilities, float)
        if len(weights) != len(maps):
            raise RequestError(f"{len(weights)} probabilities for {len(maps)} label maps", "give one per map")
        self._cumulative = np.cumsum(weights / weights.sum())
        self.common = [max(n) for n in zip(*(item.labels.shape for item in maps), strict=True)]

    def pick(self, draws: Draws) -> torch.Tensor:
        """Return one label map on the device, padded to the common shape."""
        item = self.maps[
            int(np.searchsorted(self._cumulative, draws.uniform(), side="right").clip(0, len(self.maps) - 1))
        ]
        labels = item.labels
        if "seg_cerebral" in item.name and draws.chance(DROP_CSF):
            labels = torch.where(labels == CSF, torch.zeros_like(labels), labels)
        return pad_to(labels, self.common).to(self.device)

    def draw(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a scan and its channel indices."""
        sample = self.generator(self.pick(draws), draws)
        return sample.image, self.channel[sample.labels]


def pad_to(labels: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Pad a map (X, Y, Z) with background to a common shape, evenly on both sides."""
    padding: list[int] = []
    for n, wanted in zip(reversed(labels.shape), reversed(list(shape)), strict=True):
        before = (wanted - n) // 2
        padding += [before, wanted - n - before]
    return nnf.pad(labels, padding) if any(padding) else labels


class ParcellationSource(SyntheticSource):
    """Scan plus one-hot cortex mask to cortical parcels (S3); maps carry parcel codes in place of the cortex."""

    def __init__(
        self,
        maps: Sequence[TrainingMap],
        config: GeneratorConfig,
        levels: int,
        device: torch.device,
    ) -> None:
        super().__init__(maps, config, parcel_tables(config.classes), PARCEL_CODES, levels, device)
        self.in_channels = config.channels + 2

    def draw(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scan with its not-cortex and cortex channels, and parcel indices."""
        image, parcels = super().draw(draws)
        cortex = (parcels > 0).float()[None]
        return torch.cat([image, 1 - cortex, cortex]), parcels


def parcel_tables(classes: str) -> LabelTables:
    """Return the published tables with 34 parcels per side in place of the cortex, which lend it their Gaussian."""
    base = LabelTables.published("v2", classes)  # type: ignore[arg-type]
    codes, kinds, targets = [], [], []
    for code, kind in zip(base.codes, base.classes, strict=True):
        own = [code]
        if code in CORTEX:
            own = [c for c in PARCEL_CODES[1:] if (c < 2000) == (code == CORTEX[0])]
        codes += own
        kinds += [kind] * len(own)
        targets += own if code in CORTEX else [0]
    return LabelTables(tuple(codes), tuple(kinds), tuple(targets), base.neutral)


class SecondStageSource(SyntheticSource):
    """Scan plus five degraded group maps to structures (S2, section 6.2)."""

    def __init__(self, maps: Sequence[TrainingMap], config: GeneratorConfig, levels: int, device: torch.device) -> None:
        super().__init__(maps, config, LabelTables.published("v2", config.classes), V2_CHANNELS, levels, device)
        groups = LabelTables.published("groups", config.classes)
        self.group_of = groups.lookup(groups.targets, device)
        self.in_channels = config.channels + 5
        self.extra = LabelsToImage(
            GeneratorConfig(
                flipping=False, scaling=0.05, rotation=3.0, shearing=0.007, translation=2.0, nonlin_std=1.5
            ),
            groups,
            levels=None,
            device=device,
        )

    def draw(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scan with five group channels, and channel indices."""
        generator = self.generator
        labels = self.pick(draws)
        size = generator.voxel_size
        target = [generator.config.target_res or v for v in size]
        shape, crop = output_and_crop_shape(
            labels.shape, generator.config.output_shape, size, target, generator.multiple
        )
        labels, _, start, drawn = generator.warp(labels, crop, draws)
        sample = generator.render(labels, start, drawn, draws, None, shape)
        groups = spatial.resize_nearest(self.group_of[labels.long()], shape)
        if draws.chance(0.9):
            positions, _ = self.extra.deform(groups.shape, draws)
            groups = groups if positions is None else spatial.sample_nearest(groups, positions)
        masks = [random_morphology(groups == g, draws, probability=0.9) for g in range(5)]
        return torch.cat([sample.image, torch.stack(masks).float()]), self.channel[sample.labels]


def spatial_only(**changes: object) -> GeneratorConfig:
    """Return a configuration of which only the spatial part is used."""
    return GeneratorConfig(**changes)  # type: ignore[arg-type]


class DenoiserSource:
    """Noisy group map to clean group map (D, section 6.2); pairs hold S1's arg-max map and the true groups."""

    in_channels = 5
    codes: tuple[int, ...] = (0, 1, 2, 3, 4)

    def __init__(self, pairs: Sequence[ImagePair], crop: int, levels: int, device: torch.device) -> None:
        config = spatial_only(scaling=0.2, rotation=15.0, shearing=0.012, nonlin_std=3.0, flipping=False)
        self.pairs, self.device, self.crop, self.multiple = list(pairs), device, crop, 2**levels
        identity = LabelTables(self.codes, self.codes, self.codes, 5)
        self.warper = LabelsToImage(config, identity, levels=None, device=device)

    def draw(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the one-hot noisy groups, eroded in some samples, and clean group indices."""
        pair = self.pairs[draws.integer(len(self.pairs))]
        noisy, clean = pair.image[0].long().to(self.device), pair.map.labels.long().to(self.device)
        positions, _ = self.warper.deform(clean.shape, draws)
        _, crop = output_and_crop_shape(clean.shape, self.crop, [1.0] * 3, [1.0] * 3, self.multiple)
        start = [int(draws.uniform(0, n - c)) for n, c in zip(clean.shape, crop, strict=True)]
        window = tuple(slice(a, a + c) for a, c in zip(start, crop, strict=True))
        if positions is not None:
            positions = positions[(slice(None), *window)]
            noisy, clean = spatial.sample_nearest(noisy, positions), spatial.sample_nearest(clean, positions)
        else:
            noisy, clean = noisy[window], clean[window]
        inside = random_morphology(noisy > 0, draws, probability=0.3, min_radius=4, max_radius=4)
        noisy = noisy * inside  # a dilated mask changes nothing: only erosion acts, as published
        return nnf.one_hot(noisy, 5).permute(3, 0, 1, 2).float(), clean


class SupervisedSource:
    """Real images with their label maps (section 6.3)."""

    def __init__(
        self,
        pairs: Sequence[ImagePair],
        config: GeneratorConfig,
        tables: LabelTables,
        codes: Sequence[int],
        levels: int,
        device: torch.device,
    ) -> None:
        self.pairs, self.codes, self.device = list(pairs), tuple(codes), device
        self.in_channels = pairs[0].image.shape[0]
        self.generator = LabelsToImage(config, tables, voxel_size=pairs[0].map.voxel_size, levels=levels, device=device)
        self.channel = channel_table(tables, codes, device)

    def draw(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Return an augmented image and its channel indices."""
        pair = self.pairs[draws.integer(len(self.pairs))]
        generator, config = self.generator, self.generator.config
        labels = pair.map.labels.to(self.device)
        shape, crop = output_and_crop_shape(
            labels.shape, config.output_shape, generator.voxel_size, generator.voxel_size, generator.multiple
        )
        labels, image, _, _ = generator.warp(labels, crop, draws, pair.image.to(self.device))
        channels = []
        for channel in image if image is not None else ():
            if config.bias_field_std > 0 and draws.chance(config.bias_probability):
                channel = apply_bias(channel, draw_bias(channel.shape, config.bias_scale, config.bias_field_std, draws))
            channel = generator.finish_intensity(channel, draws, clip=None)
            if config.data_res is not None or config.randomise_res:
                channel, _, _ = generator.acquire(channel, shape, draws)
            channels.append(channel)
        return torch.stack(channels), self.channel[generator.targets(labels)]


class QCSource:
    """Noisy segmentation in nine groups to the Dice score of each group (section 6.2)."""

    in_channels = 9
    codes: tuple[int, ...] = tuple(range(9))
    min_box = 70

    def __init__(self, pairs: Sequence[ImagePair], crop: int, levels: int, device: torch.device) -> None:
        config = spatial_only(scaling=0.2, rotation=15.0, shearing=0.012, nonlin_std=3.0, flipping=False)
        self.pairs, self.device, self.crop, self.multiple = list(pairs), device, crop, 2**levels
        self.warper = LabelsToImage(config, LabelTables((0,), (0,), (0,), 1), levels=None, device=device)
        group = torch.zeros(CODES, dtype=torch.long)
        group[torch.tensor(V2_CHANNELS)] = torch.tensor(qc_classes(V2_CHANNELS))
        self.group_of = group.to(device)

    def draw(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one-hot groups (9, n, n, n) and the nine Dice scores."""
        pair = self.pairs[draws.integer(len(self.pairs))]
        noisy = self.group_of[pair.image[0].long().to(self.device)]
        truth = self.group_of[pair.map.labels.long().to(self.device)]
        positions, _ = self.warper.deform(truth.shape, draws)
        if positions is not None:
            noisy, truth = spatial.sample_nearest(noisy, positions), spatial.sample_nearest(truth, positions)
        if draws.chance(0.3):
            noisy = self._keep_box(noisy, draws)
        scores = group_dice(noisy, truth)
        _, crop = output_and_crop_shape(noisy.shape, self.crop, [1.0] * 3, [1.0] * 3, self.multiple)
        start = [int(draws.uniform(0, n - c)) for n, c in zip(noisy.shape, crop, strict=True)]
        window = tuple(slice(a, a + c) for a, c in zip(start, crop, strict=True))
        return nnf.one_hot(noisy[window], 9).permute(3, 0, 1, 2).float(), scores

    def _keep_box(self, noisy: torch.Tensor, draws: Draws) -> torch.Tensor:
        keep = torch.zeros_like(noisy, dtype=torch.bool)
        window = []
        for n in noisy.shape:
            side = min(self.min_box + draws.integer(max(n - self.min_box, 1)), n)
            begin = draws.integer(n - side + 1)
            window.append(slice(begin, begin + side))
        keep[tuple(window)] = True
        return noisy * keep


def group_dice(a: torch.Tensor, b: torch.Tensor, groups: int = 9) -> torch.Tensor:
    """Return the Dice score of each group of two index maps, (groups,) float32."""
    counts = torch.bincount(a.reshape(-1) * groups + b.reshape(-1), minlength=groups**2).reshape(groups, groups)
    return (2 * counts.diagonal() / (counts.sum(0) + counts.sum(1) + 1e-7)).float()
