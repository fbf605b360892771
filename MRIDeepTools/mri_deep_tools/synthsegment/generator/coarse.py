"""A quick form of the generative model that draws directly on a coarse grid, for compact networks.

The published model works on the fine grid of the label maps and is then re-sampled. Here each coarse voxel reads its
labels at a few positions inside it, which gives partial volume for a fraction of the cost; deformation, bias, gamma and
resolution are drawn as published. Further: scans without skull, contrasts like T1 from measured priors, and noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..labels import read_table
from . import intensity, resolution, spatial
from .draws import Draws
from .model import LabelTables

__all__ = ["CoarseConfig", "CoarseLabelsToImage", "t1_priors"]

KEPT_WITHOUT_SKULL = (24, 30, 62, 72, 85)
"""Codes outside the structures that a brain extraction keeps: CSF, vessels, fifth ventricle, optic chiasm."""


@dataclass
class CoarseConfig:
    """Parameters of the coarse generator; sizes in mm, angles in degrees."""

    grid_mm: float = field(default=2.0, metadata={"help": "voxel size of the scan in mm"})
    shape: Sequence[int] = field(default=(80, 96, 80), metadata={"help": "shape of the scan in voxels"})
    subsamples: int = field(default=3, metadata={"help": "labels read inside each voxel, for partial volume"})
    shift_mm: float = field(default=12.0, metadata={"help": "largest shift of the brain from the centre, mm"})
    scaling: float = field(default=0.2, metadata={"help": "bounds of the scaling (1 +- b)"})
    rotation: float = field(default=15.0, metadata={"help": "bounds of the rotation in degrees"})
    shearing: float = field(default=0.012, metadata={"help": "bounds of the shearing"})
    nonlin_std_mm: float = field(default=4.0, metadata={"help": "largest standard deviation of the velocity field, mm"})
    nonlin_points: Sequence[int] = field(default=(8, 9, 8), metadata={"help": "shape of the small velocity field"})
    t1_probability: float = field(default=0.25, metadata={"help": "share of scans with T1-like contrast"})
    skull_strip_probability: float = field(
        default=0.25, metadata={"help": "share of scans without extra-cerebral tissue"}
    )
    bias_field_std: float = field(default=0.6, metadata={"help": "largest standard deviation of the log bias field"})
    bias_points: Sequence[int] = field(default=(5, 6, 5), metadata={"help": "shape of the small bias field"})
    gamma_std: float = field(default=0.45, metadata={"help": "standard deviation of the log exponent"})
    max_res_iso: float = field(default=4.0, metadata={"help": "coarsest resolution when all axes are drawn, mm"})
    max_res_aniso: float = field(default=8.0, metadata={"help": "coarsest resolution along one axis, mm"})
    fine_probability: float = field(default=0.35, metadata={"help": "share of scans at full resolution"})


def t1_priors() -> tuple[np.ndarray, np.ndarray]:
    """Return the published T1 priors: (2, 25) means and (2, 25) standard deviations (rows: mean, spread)."""
    rows = read_table("priors_t1.csv")
    column = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    means = np.stack([column["mean_of_mean"], column["std_of_mean"]])
    return means, np.stack([column["mean_of_std"], column["std_of_std"]])


class CoarseLabelsToImage:
    """Draws scans on a coarse grid; call it with a label map, the centre of its brain and draws."""

    def __init__(
        self,
        config: CoarseConfig,
        target_codes: Sequence[int],
        target: str = "v2",
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.sided = LabelTables.published(target, "sided")  # type: ignore[arg-type]
        self.tissue = LabelTables.published(target, "tissue")  # type: ignore[arg-type]
        tables = self.sided
        self._classes = {
            "sided": tables.lookup(tables.classes, device),
            "tissue": tables.lookup(self.tissue.classes, device),
        }
        channel = {code: index for index, code in enumerate(target_codes)}
        self._channel_of = tables.lookup([channel[code] for code in tables.targets], device)
        inside = [
            c if t != 0 or c in KEPT_WITHOUT_SKULL else 0 for c, t in zip(tables.codes, tables.targets, strict=True)
        ]
        self._strip = tables.lookup(inside, device)
        self._swap = tables.swap(device)
        self._t1 = t1_priors()

    def __call__(
        self, labels: torch.Tensor, centre: Sequence[float], draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a scan (X, Y, Z) float32 in 0-1 and its channel indices (X, Y, Z) int64.

        ``labels`` is a RAS-ordered 1 mm map, ``centre`` the voxel position of its brain's centre.
        """
        config = self.config
        positions = self._positions(centre, draws)
        flipped = draws.chance(0.5)
        strip = draws.chance(config.skull_strip_probability)
        target = self._read(labels, positions, flipped)
        mean, std, class_of = self._statistics(draws)
        image = torch.zeros(target.shape, device=self.device)
        # Noise of a voxel is the mean of the noise of what it covers: its spread falls with the number of sub-samples.
        for _ in range(config.subsamples):
            inside = torch.as_tensor(draws.array(np.full(3, -0.5), 0.5), dtype=torch.float32, device=self.device)
            offset = self._linear @ (inside * config.grid_mm)
            part = self._read(labels, positions + offset.view(3, 1, 1, 1), flipped)
            if strip:
                part = self._strip[part.long()]
            mean_map, std_map = intensity.mean_and_std_maps(part, class_of, mean, std)
            image += std_map.mul_(draws.noise(part.shape)).add_(mean_map)
        image /= config.subsamples
        return self._degrade(image, draws), self._channel_of[target.long()]

    def _read(self, labels: torch.Tensor, positions: torch.Tensor, flipped: bool) -> torch.Tensor:
        part = spatial.sample_nearest(labels, positions)
        return spatial.flip_labels(part, self._swap) if flipped else part

    def _positions(self, centre: Sequence[float], draws: Draws) -> torch.Tensor:
        config = self.config
        affine = spatial.affine_matrix(
            draws.bounded(config.rotation, 3, 0.0, 15.0),
            draws.bounded(config.shearing, 6, 0.0, 0.01),
            draws.bounded(config.scaling, 3, 1.0, 0.15),
        )
        small = draws.small_field((3, *config.nonlin_points), draws.uniform(0, config.nonlin_std_mm))
        quarter = [n // 2 for n in config.shape]
        # The velocity is in mm; one voxel of this grid is two grid steps.
        step = 2 * config.grid_mm
        field_ = spatial.integrate_velocity(spatial.resize_linear(small, quarter) / step) * step
        field_ = spatial.resize_linear(field_, config.shape)
        grid = spatial.identity_grid(config.shape, self.device)
        middle = torch.tensor([(n - 1) / 2 for n in config.shape], device=self.device).view(3, 1, 1, 1)
        relative = (grid - middle) * config.grid_mm + field_
        self._linear = torch.as_tensor(affine[:3, :3], dtype=torch.float32, device=self.device)
        shift = torch.as_tensor(draws.array(np.full(3, -config.shift_mm), config.shift_mm), dtype=torch.float32)
        origin = torch.as_tensor(np.asarray(centre), dtype=torch.float32) + shift
        turned = (self._linear @ relative.reshape(3, -1)).reshape(relative.shape)
        return turned + origin.to(self.device).view(3, 1, 1, 1)

    def _statistics(self, draws: Draws) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
        """Draw the Gaussians of the classes: T1-like, random per tissue, or random per sided tissue."""
        if draws.chance(self.config.t1_probability):
            means, stds = self._t1
            mean, std = intensity.draw_class_statistics(
                self.tissue.class_count, 0, draws, means=means, stds=stds, distribution="normal"
            )
            return mean, std, self._classes["tissue"]
        kind = "sided" if draws.chance(0.35) else "tissue"
        tables = self.sided if kind == "sided" else self.tissue
        mean, std = intensity.draw_class_statistics(tables.class_count, 0, draws)
        return mean, std, self._classes[kind]

    def _degrade(self, image: torch.Tensor, draws: Draws) -> torch.Tensor:
        config = self.config
        if draws.chance(0.95):
            small = draws.small_field(config.bias_points, draws.uniform(0, config.bias_field_std))
            image = intensity.apply_bias(image, small)
        image = intensity.normalise(image, gamma=draws.normal(config.gamma_std))
        finest = np.full(3, config.grid_mm)
        size, thickness = finest, finest
        if not draws.chance(config.fine_probability):
            size, thickness = resolution.draw_resolution([1.0] * 3, config.max_res_iso, config.max_res_aniso, draws)
            size, thickness = np.maximum(size, finest), np.maximum(thickness, finest)
        sigma = resolution.blurring_sigma(finest, size, thickness)
        # A voxel of the grid already averages what it covers: the finest acquisition adds little blur.
        sigma = np.where(np.minimum(size, thickness) == finest, draws.uniform(0.05, 0.55), sigma)
        image = resolution.blur(image, resolution.jitter(sigma, draws).tolist())
        image = resolution.mimic_acquisition(image, finest.tolist(), size.tolist(), config.shape)
        low, high = intensity.percentile_bounds(image[::2, ::2, ::2], 0.005, 0.995)
        return ((image - low) / (high - low + 1e-7)).clamp_(0, 1)
