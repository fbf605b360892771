"""The whole generative model: configuration, look-up tables, and one call from label map to scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from ...errors import RequestError
from ..labels import GENERATION, swap_table
from . import intensity, resolution, spatial
from .draws import Draws
from .morphology import sobel_magnitude

__all__ = ["GeneratorConfig", "LabelTables", "LabelsToImage", "Sample", "output_and_crop_shape"]


CODES = 1 << 15
"""Size of look-up tables: every code that an int16 label map can hold."""


@dataclass
class GeneratorConfig:
    """Parameters of the generative model; the defaults are those of SynthSeg 1.0 (section 5.1 of its description).

    Sizes are in mm, angles in degrees, fields in voxels, intensities on a 0-255 scale before normalisation.
    """

    output_shape: int | Sequence[int] | None = field(
        default=160, metadata={"help": "shape of the scan in voxels, limited to the map and to a multiple of 2^levels"}
    )
    target_res: float | None = field(
        default=None, metadata={"help": "voxel size in mm of the scan; none: as the label map"}
    )
    flipping: bool = field(default=True, metadata={"help": "mirror half of the samples, exchanging left and right"})
    scaling: Any = field(default=0.2, metadata={"help": "bounds of the scaling (1 +- b)"})
    rotation: Any = field(default=15.0, metadata={"help": "bounds of the rotation in degrees"})
    shearing: Any = field(default=0.012, metadata={"help": "bounds of the shearing"})
    translation: Any = field(default=False, metadata={"help": "bounds of the translation in voxels; false: none"})
    nonlin_std: float = field(default=4.0, metadata={"help": "largest std of the velocity field, voxels"})
    nonlin_scale: float = field(default=0.04, metadata={"help": "size of the velocity field relative to the map"})
    channels: int = field(default=1, metadata={"help": "number of image channels, drawn independently"})
    classes: Literal["sided", "tissue"] = field(
        default="sided", metadata={"help": "which labels share a Gaussian: 48 sided or 25 tissue classes"}
    )
    prior_means: Any = field(default=None, metadata={"help": "prior of the Gaussian means: none, pair or table"})
    prior_stds: Any = field(default=None, metadata={"help": "prior of the standard deviations: none, pair or table"})
    prior_distribution: Literal["uniform", "normal"] = field(default="uniform", metadata={"help": "meaning of priors"})
    mix_prior_and_random: bool = field(default=False, metadata={"help": "use the default priors in half of the draws"})
    specific_stats_per_channel: bool = field(default=False, metadata={"help": "block c of the priors for channel c"})
    bias_field_std: float = field(default=0.7, metadata={"help": "largest standard deviation of the log bias field"})
    bias_scale: float = field(default=0.025, metadata={"help": "size of the small bias field relative to the map"})
    bias_probability: float = field(default=0.95, metadata={"help": "share of samples with a bias field"})
    noise_std: float = field(default=0.0, metadata={"help": "largest standard deviation of added noise (p = 0.95)"})
    gamma_std: float = field(default=0.5, metadata={"help": "standard deviation of the log exponent"})
    invert_contrast: float = field(default=0.0, metadata={"help": "probability of an inverted contrast"})
    randomise_res: bool = field(default=True, metadata={"help": "draw a resolution per sample"})
    max_res_iso: float = field(default=4.0, metadata={"help": "coarsest resolution when all axes are drawn, mm"})
    max_res_aniso: float = field(default=8.0, metadata={"help": "coarsest resolution along one axis, mm"})
    data_res: Any = field(default=None, metadata={"help": "fixed resolution in mm (randomise_res false)"})
    thickness: Any = field(default=None, metadata={"help": "fixed slice thickness in mm"})
    gradients: bool = field(default=False, metadata={"help": "replace the scan by its gradient magnitude"})


@dataclass(frozen=True)
class Sample:
    """One synthetic scan: image (C, X, Y, Z) float32 in 0-1, labels (X, Y, Z) int64 codes, and what was drawn."""

    image: torch.Tensor
    labels: torch.Tensor
    affine: np.ndarray
    drawn: dict[str, Any]


@dataclass(frozen=True)
class LabelTables:
    """Parallel lists of the generation labels: codes, Gaussian classes and target codes; neutral labels come first."""

    codes: tuple[int, ...]
    classes: tuple[int, ...]
    targets: tuple[int, ...]
    neutral: int

    @classmethod
    def published(
        cls, target: Literal["v1", "v2", "groups"] = "v2", classes: Literal["sided", "tissue"] = "sided"
    ) -> LabelTables:
        """Return the 54 labels of the published maps with the v1 or v2 structures or the five tissue groups."""
        attribute = {"v1": "target_v1", "v2": "target_v2", "groups": "robust_group"}[target]
        return cls(
            codes=tuple(item.code for item in GENERATION),
            classes=tuple(item.sided_class if classes == "sided" else item.tissue_class for item in GENERATION),
            targets=tuple(getattr(item, attribute) for item in GENERATION),
            neutral=sum(item.side == "neutral" for item in GENERATION),
        )

    def lookup(self, values: Sequence[int], device: torch.device | str = "cpu") -> torch.Tensor:
        """Return a table from label code to ``values``; codes that are not in the list map to the first entry."""
        table = torch.full((CODES,), int(values[0]), dtype=torch.long)
        table[torch.tensor(self.codes)] = torch.tensor(list(values), dtype=torch.long)
        return table.to(device)

    def swap(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Return a table from label code to the code of the other side."""
        pairs = swap_table(self.codes, self.neutral)
        return self.lookup([pairs[code] for code in self.codes], device)

    @property
    def class_count(self) -> int:
        """Number of Gaussian classes."""
        return max(self.classes) + 1


def output_and_crop_shape(
    labels_shape: Sequence[int],
    output_shape: int | Sequence[int] | None,
    atlas_res: Sequence[float],
    target_res: Sequence[float],
    multiple: int | None,
) -> tuple[list[int], list[int]]:
    """Return the scan's shape and the shape of the crop of the map that it is made of.

    The wanted shape is limited to the map's extent on the scan's grid and rounded down to ``multiple`` (2^levels).
    """
    factor = [a / t for a, t in zip(atlas_res, target_res, strict=True)]
    extent = [int(n * f) for n, f in zip(labels_shape, factor, strict=True)]
    if output_shape is None:
        wanted = extent
    else:
        given = [output_shape] * 3 if isinstance(output_shape, int) else list(output_shape)
        wanted = [min(w, e) for w, e in zip(given, extent, strict=True)]
    if multiple:
        wanted = [n // multiple * multiple for n in wanted]
    if min(wanted) < 1:
        raise RequestError(
            f"label maps of shape {tuple(labels_shape)} are too small for a network that halves its input "
            f"to a multiple of {multiple}",
            "use fewer levels or larger maps",
        )
    if all(f == 1 for f in factor):
        return wanted, list(wanted)
    if output_shape is None and not multiple:
        return wanted, list(labels_shape)
    return wanted, [min(round(w / f), n) for w, f, n in zip(wanted, factor, labels_shape, strict=True)]


class LabelsToImage:
    """Draws synthetic scans from label maps.

    Parameters
    ----------
    config : what to draw.
    tables : the labels and their roles.
    voxel_size : of the label maps, mm.
    levels : the network's number of halvings, which fixes the multiple of the output shape; None for any shape.

    """

    def __init__(
        self,
        config: GeneratorConfig,
        tables: LabelTables,
        *,
        voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
        levels: int | None = 5,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        self.tables = tables
        self.device = torch.device(device)
        self.voxel_size = tuple(float(v) for v in voxel_size)
        self.multiple = 2**levels if levels else None
        self._class_of = tables.lookup(tables.classes, device)
        self._target_of = tables.lookup(tables.targets, device)
        self._swap = tables.swap(device)

    def __call__(self, labels: torch.Tensor, draws: Draws, affine: np.ndarray | None = None) -> Sample:
        """Draw one scan from a RAS-ordered label map (X, Y, Z) of integer codes."""
        config = self.config
        target = [config.target_res or v for v in self.voxel_size]
        out_shape, crop_shape = output_and_crop_shape(
            labels.shape, config.output_shape, self.voxel_size, target, self.multiple
        )
        labels, _, start, drawn = self.warp(labels.to(self.device), crop_shape, draws)
        return self.render(labels, start, drawn, draws, affine, out_shape)

    def render(
        self,
        labels: torch.Tensor,
        start: np.ndarray,
        drawn: dict[str, Any],
        draws: Draws,
        affine: np.ndarray | None,
        out_shape: Sequence[int],
    ) -> Sample:
        """Draw the image of an already deformed label map."""
        config = self.config
        channels = [self._channel(labels, c, out_shape, draws, drawn) for c in range(config.channels)]
        targets = spatial.resize_nearest(self.targets(labels), out_shape)
        origin = np.eye(4) if affine is None else np.asarray(affine, float)
        new_affine = origin.copy()
        new_affine[:3, 3] = origin[:3, :3] @ start + origin[:3, 3]
        new_affine[:3, :3] = origin[:3, :3] * (np.asarray(labels.shape, float) / np.asarray(out_shape, float))
        return Sample(torch.stack(channels), targets, new_affine, drawn)

    def deform(self, shape: Sequence[int], draws: Draws) -> tuple[torch.Tensor | None, dict[str, Any]]:
        """Draw the pull-back positions (3, X, Y, Z) of a spatial deformation; None when nothing is deformed."""
        config = self.config
        scaling = draws.bounded(config.scaling, 3, 1.0, 0.15)
        rotation = draws.bounded(config.rotation, 3, 0.0, 15.0)
        shearing = draws.bounded(config.shearing, 6, 0.0, 0.01)
        translation = draws.bounded(config.translation, 3, 0.0, 5.0)
        drawn = {"scaling": scaling, "rotation_degrees": rotation, "shearing": shearing, "translation": translation}
        affine = None
        if any(item is not None for item in drawn.values()):
            affine = spatial.affine_matrix(rotation, shearing, scaling, translation)
        displacement = None
        if config.nonlin_std > 0:
            small = spatial.small_shape(shape, config.nonlin_scale)
            velocity = draws.small_field((3, *small), draws.uniform(0, config.nonlin_std))
            displacement = spatial.field_from_velocity(velocity, shape)
        if affine is None and displacement is None:
            return None, drawn
        return spatial.pull_back_positions(shape, affine, displacement, self.device), drawn

    def warp(
        self, labels: torch.Tensor, crop_shape: Sequence[int], draws: Draws, images: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, np.ndarray, dict[str, Any]]:
        """Deform, crop and mirror a label map (X, Y, Z), and images (C, X, Y, Z) along with it.

        Returns the labels, the images (linear interpolation), the first voxel of the crop, and what was drawn.
        """
        positions, drawn = self.deform(labels.shape, draws)
        start = [int(draws.uniform(0, n - c)) for n, c in zip(labels.shape, crop_shape, strict=True)]
        window = tuple(slice(a, a + c) for a, c in zip(start, crop_shape, strict=True))
        if positions is None:
            labels = labels[window]
            images = None if images is None else images[(slice(None), *window)]
        else:
            positions = positions[(slice(None), *window)]
            labels = spatial.sample_nearest(labels, positions)
            images = None if images is None else spatial.sample_linear(images, positions)
        drawn["flipped"] = self.config.flipping and draws.chance(0.5)
        if drawn["flipped"]:
            labels = spatial.flip_labels(labels, self._swap)
            images = None if images is None else images.flip(1)
        return labels, images, np.asarray(start, float), drawn

    def targets(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the target codes (int64) of a map of generation labels."""
        return self._target_of[labels.long()]

    def paint(self, labels: torch.Tensor, channel: int, draws: Draws) -> torch.Tensor:
        """Draw one channel's Gaussians and fill a label map (X, Y, Z) with them."""
        config = self.config
        mean, std = intensity.draw_class_statistics(
            self.tables.class_count,
            channel,
            draws,
            means=config.prior_means,
            stds=config.prior_stds,
            distribution=config.prior_distribution,
            mix=config.mix_prior_and_random,
            per_channel=config.specific_stats_per_channel,
        )
        mean_map, std_map = intensity.mean_and_std_maps(labels, self._class_of, mean, std)
        return std_map.mul_(draws.noise(labels.shape)).add_(mean_map)

    def add_bias(self, image: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Multiply (X, Y, Z) by a drawn bias field, in the configured share of samples."""
        config = self.config
        if config.bias_field_std > 0 and draws.chance(config.bias_probability):
            small = intensity.draw_bias(image.shape, config.bias_scale, config.bias_field_std, draws)
            image = intensity.apply_bias(image, small)
        return image

    def _channel(
        self, labels: torch.Tensor, channel: int, out_shape: Sequence[int], draws: Draws, drawn: dict[str, Any]
    ) -> torch.Tensor:
        config = self.config
        image = self.add_bias(self.paint(labels, channel, draws), draws)
        image = self.finish_intensity(image, draws)
        image, size, thickness = self.acquire(image, out_shape, draws)
        drawn.setdefault("resolution_mm", []).append(size)
        drawn.setdefault("thickness_mm", []).append(thickness)
        if config.gradients:
            image = intensity.normalise(sobel_magnitude(image), clip=(0.0, 10.0))
        return image

    def finish_intensity(
        self, image: torch.Tensor, draws: Draws, clip: tuple[float, float] | None = (0.0, intensity.CLIP)
    ) -> torch.Tensor:
        """Add noise, clip, scale to 0-1, apply gamma, and invert, as configured; (X, Y, Z)."""
        config = self.config
        if config.noise_std > 0 and draws.chance(0.95):
            image = image + draws.noise(image.shape) * draws.uniform(0, config.noise_std)
        gamma = draws.normal(config.gamma_std) if config.gamma_std > 0 else None
        image = intensity.normalise(image, clip=clip, gamma=gamma)
        if config.invert_contrast > 0 and draws.chance(config.invert_contrast):
            image = 1 - image
        return image

    def acquire(
        self, image: torch.Tensor, out_shape: Sequence[int], draws: Draws
    ) -> tuple[torch.Tensor, list[float], list[float]]:
        """Blur and re-sample one channel; returns it with the resolution and thickness in mm."""
        config, now = self.config, np.asarray(self.voxel_size)
        widest = None
        if config.randomise_res:
            size, thickness = resolution.draw_resolution(now, config.max_res_iso, config.max_res_aniso, draws)
            coarsest = np.maximum(config.max_res_iso, config.max_res_aniso)
            widest = 0.75 * np.full(3, coarsest) / now
        else:
            size = now if config.data_res is None else np.broadcast_to(np.asarray(config.data_res, float), 3)
            thickness = size if config.thickness is None else np.broadcast_to(np.asarray(config.thickness, float), 3)
        sigma = resolution.jitter(resolution.blurring_sigma(now, size, thickness), draws)
        # Taps beyond 2.5 sigma are below float32 rounding: the width of the drawn sigma is enough.
        limit = None if widest is None else np.minimum(widest, np.maximum(sigma * 3, 1.0))
        image = resolution.blur(image, sigma.tolist(), None if limit is None else limit.tolist())
        image = resolution.mimic_acquisition(image, now.tolist(), size.tolist(), out_shape)
        return image, [float(v) for v in size], [float(v) for v in thickness]
