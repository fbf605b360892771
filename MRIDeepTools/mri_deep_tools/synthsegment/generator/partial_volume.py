"""The earlier form of the model (PV-SynthSeg, MICCAI 2020; SynthSeg, MIDL 2020): acquisition before bias and gamma."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..labels import read_table
from . import resolution
from .draws import Draws
from .model import GeneratorConfig, LabelsToImage, LabelTables

__all__ = ["PartialVolumeConfig", "PartialVolumeLabelsToImage", "priors_2020", "tables_2020"]


@dataclass
class PartialVolumeConfig(GeneratorConfig):
    """Parameters of the 2020 model where they differ from :class:`GeneratorConfig`."""

    scaling: Any = field(default=0.15, metadata={"help": "bounds of the scaling (1 +- b)"})
    shearing: Any = field(default=0.01, metadata={"help": "bounds of the shearing"})
    nonlin_std: float = field(default=3.0, metadata={"help": "largest std of the velocity field, voxels"})
    bias_field_std: float = field(default=0.3, metadata={"help": "largest standard deviation of the log bias field"})
    prior_means: Any = field(default=(25.0, 225.0), metadata={"help": "prior of the Gaussian means"})
    prior_stds: Any = field(default=(5.0, 25.0), metadata={"help": "prior of the standard deviations"})
    randomise_res: bool = field(default=False, metadata={"help": "draw a resolution per sample (not in 2020)"})
    blur_range: float = field(default=1.15, metadata={"help": "blur is multiplied by U(1/r, r); 1.5 in PV-SynthSeg"})
    downsample: bool = field(default=False, metadata={"help": "take samples at data_res (always if slices have gaps)"})
    blur_background: bool = field(
        default=True,
        metadata={"help": "blur background too; false: correct edges and redraw it (PV-SynthSeg)"},
    )


def tables_2020() -> LabelTables:
    """Return the 26 labels of PV-SynthSeg; structures that are not kept become background."""
    rows = read_table("labels_2020.csv")
    codes = tuple(int(row["code"]) for row in rows)
    return LabelTables(
        codes=codes,
        classes=tuple(int(row["generation_class"]) for row in rows),
        targets=tuple(code if row["kept"] == "1" else 0 for code, row in zip(codes, rows, strict=True)),
        neutral=len(codes),  # one side only: nothing to swap
    )


def priors_2020() -> tuple[np.ndarray, np.ndarray]:
    """Return the (2, 18) priors of means and standard deviations, per generation class."""
    rows = {int(row["generation_class"]): row for row in read_table("labels_2020.csv")}
    names = (("mean_of_mean", "std_of_mean"), ("mean_of_std", "std_of_std"))
    tables = [np.array([[float(rows[k][name]) for k in sorted(rows)] for name in pair]) for pair in names]
    return tables[0], tables[1]


class PartialVolumeLabelsToImage(LabelsToImage):
    """Draws scans as the 2020 programs did: Gaussians, acquisition, background, bias field, intensity."""

    config: PartialVolumeConfig

    def _channel(
        self, labels: torch.Tensor, channel: int, out_shape: Sequence[int], draws: Draws, drawn: dict[str, Any]
    ) -> torch.Tensor:
        image = self.paint(labels, channel, draws)
        image, size, thickness = self._acquire(image, labels, out_shape, draws)
        drawn.setdefault("resolution_mm", []).append(size)
        drawn.setdefault("thickness_mm", []).append(thickness)
        image = self.add_bias(image, draws)
        return self.finish_intensity(image, draws)

    def _acquire(
        self, image: torch.Tensor, labels: torch.Tensor, out_shape: Sequence[int], draws: Draws
    ) -> tuple[torch.Tensor, list[float], list[float]]:
        config, now = self.config, np.asarray(self.voxel_size)
        size = now if config.data_res is None else np.broadcast_to(np.asarray(config.data_res, float), 3)
        thickness = size if config.thickness is None else np.broadcast_to(np.asarray(config.thickness, float), 3)
        ratio = np.round(np.minimum(size, thickness) / now, 3)
        sigma = np.where(ratio == 1, 0.5, 0.75 * ratio)
        factor = draws.array(np.full(3, 1 / config.blur_range), config.blur_range)
        image = self._blur(image, labels, sigma * factor, sigma * config.blur_range, draws)
        if config.downsample or (thickness < size).any():
            image = resolution.mimic_acquisition(image, now.tolist(), size.tolist(), out_shape)
        elif list(image.shape) != list(out_shape):
            image = resolution.resize_linear(image, out_shape)
        return image, [float(v) for v in size], [float(v) for v in thickness]

    def _blur(
        self, image: torch.Tensor, labels: torch.Tensor, sigma: np.ndarray, widest: np.ndarray, draws: Draws
    ) -> torch.Tensor:
        """Blur, and treat the background by one of the two rules."""
        if self.config.blur_background:
            image = resolution.blur(image, sigma.tolist(), widest.tolist())
            return image * (labels > 0) if draws.chance(0.2) else image
        inside = (labels > 0).float()
        share = resolution.blur(inside, sigma.tolist(), widest.tolist())
        image = resolution.blur(image * inside, sigma.tolist(), widest.tolist()) / (share + 1e-6)
        if draws.chance(0.5):
            noise = draws.uniform(0, 20) + draws.uniform(0, 10) * draws.noise(image.shape)
            noise = resolution.blur(noise, [1.0] * 3)
        else:
            noise = torch.zeros_like(image)
        return torch.where(labels > 0, image, noise)
