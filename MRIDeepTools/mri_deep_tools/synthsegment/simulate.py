"""Synthetic scans from label maps, written as files in the orientation of the map (``simulate labels-to-image``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..volume import Volume
from .generator.draws import Draws
from .generator.model import GeneratorConfig, LabelsToImage, LabelTables
from .generator.partial_volume import PartialVolumeConfig, PartialVolumeLabelsToImage, tables_2020

__all__ = ["SimulatedScan", "simulate_scan", "t1_config"]


@dataclass(frozen=True)
class SimulatedScan:
    """A synthetic scan (X, Y, Z) or (X, Y, Z, C) float32 in 0-1, its labels (X, Y, Z) int32, and what was drawn."""

    image: Volume
    labels: Volume
    drawn: dict[str, Any]


def t1_config(**changes: Any) -> GeneratorConfig:
    """Return the published model with the T1 priors: tissue classes, normal draws."""
    from .generator.coarse import t1_priors

    means, stds = t1_priors()
    return GeneratorConfig(classes="tissue", prior_distribution="normal", prior_means=means, prior_stds=stds, **changes)


def simulate_scan(
    labels: Volume,
    seed: int = 0,
    *,
    config: GeneratorConfig | None = None,
    target: Literal["v1", "v2"] = "v2",
    device: str | torch.device = "cpu",
) -> SimulatedScan:
    """Draw one synthetic scan from a label map.

    Parameters
    ----------
    labels : label map (X, Y, Z) of FreeSurfer codes, any orientation.
    seed : fixes every draw; the same seed gives the same scan on the same kind of device.
    config : parameters of the generative model; a :class:`PartialVolumeConfig` selects the 2020 form.
    target : structures of the returned labels, 32 of v1 or 33 of v2.
    device : where it runs.

    Returns
    -------
    scan and labels on one grid, in the axis order of ``labels``.

    Raises
    ------
    InputError : the map does not hold whole numbers.

    """
    from ..geometry import Reorient
    from ..inference import pick_device
    from .training_maps import whole_numbers

    where = pick_device(device) if isinstance(device, str) else device
    config = config or GeneratorConfig(output_shape=None)
    reorient = Reorient.to_ras(labels)
    upright = reorient.apply(labels)
    codes = torch.from_numpy(whole_numbers(np.asarray(upright.data), labels.source.file_name or "the label map"))
    if isinstance(config, PartialVolumeConfig):
        kind, tables = PartialVolumeLabelsToImage, tables_2020()
    else:
        kind, tables = LabelsToImage, LabelTables.published(target, config.classes)  # type: ignore[assignment]
    generator = kind(config, tables, voxel_size=upright.spacing, levels=None, device=where)
    sample = generator(codes, Draws(seed, where), upright.affine)
    image = np.moveaxis(sample.image.cpu().numpy(), 0, -1)
    image = image[..., 0] if image.shape[-1] == 1 else image
    made = (upright.with_affine(image, sample.affine), upright.with_affine(_int32(sample.labels), sample.affine))
    return SimulatedScan(reorient.undo(made[0]), reorient.undo(made[1]), {"seed": seed, **_plain(sample.drawn)})


def _int32(labels: torch.Tensor) -> np.ndarray:
    return labels.cpu().numpy().astype(np.int32)


def _plain(drawn: dict[str, Any]) -> dict[str, Any]:
    """Return what was drawn as JSON types."""
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in drawn.items()}


def output_names(source: Path, folder: Path, number: int, count: int) -> tuple[Path, Path]:
    """Return the paths of scan ``number`` of a map and of its labels; the names say that the scan is synthetic."""
    from ..volume import split_suffix

    stem, _ = split_suffix(source)
    mark = f"_desc-synthetic{number + 1:03d}" if count > 1 else "_desc-synthetic"
    return folder / f"{stem}{mark}.nii.gz", folder / f"{stem}{mark}_dseg.nii.gz"
