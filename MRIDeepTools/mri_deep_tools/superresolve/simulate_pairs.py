"""Pairs of isotropic T1w and T2w scans of simulated people, drawn from label maps, for training and tests.

Shape, bias field and exponent of the intensities come from the generative model of SynthSeg (Billot et al. 2023,
section 3.1). Unlike there, both contrasts show one anatomy, tissue has a smooth texture that the two share in part,
and the contrast between grey and white matter may have either sign, as it does in the first year of life; or all people
have the contrasts of an adult (``contrast: adult``), for trainings that turn one into the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from ..synthsegment.generator.draws import Draws
from ..synthsegment.generator.model import GeneratorConfig, LabelsToImage, LabelTables
from ..synthsegment.generator.resolution import blur
from ..volume import Volume

__all__ = ["PairConfig", "SimulatedPair", "simulate_pair"]

_CSF, _LESION, _VESSEL, _CHOROID = (1,), (10,), (11,), (12,)
_WHITE, _GREY, _DEEP = (2, 4), (3, 5), (6, 7, 8, 9, 13)
_OUTSIDE = tuple(range(14, 25))
_FLAT = {"classes": "tissue", "randomise_res": False, "flipping": True}
# Means of tissue classes 1-24 in the T1w and the T2w scan of an adult, by eye; those outside the brain are arbitrary.
_ADULT_T1 = (32, 180, 118, 180, 118, 148, 138, 160, 148, 104, 60, 80, 148,
             12, 90, 205, 25, 70, 150, 50, 225, 105, 40, 130)  # fmt: skip
_ADULT_T2 = (225, 78, 122, 78, 122, 96, 100, 66, 96, 170, 40, 190, 96,
             10, 70, 150, 18, 50, 120, 30, 165, 60, 45, 90)  # fmt: skip
_SHARES = (0.6, 0.6, 0.53)  # of shared texture, own texture and voxel noise; their squares add up to 1


@dataclass
class PairConfig:
    """How pairs are drawn. Sizes are in voxels of the label map, intensities on 0-255."""

    output_shape: Any = field(
        default_factory=lambda: [176, 208, 176], metadata={"help": "voxels of the scans, at most those of the map"}
    )
    scaling: Any = field(default_factory=lambda: [0.75, 1.1], metadata={"help": "bounds of the scaling of the head"})
    contrast: Literal["any", "adult"] = field(
        default="any", metadata={"help": "any: grey and white matter in either order; adult: the usual contrasts"}
    )
    spread: float = field(
        default=8.0, metadata={"help": "most that a tissue's mean differs from the usual one (adult)"}
    )
    random_contrast: float = field(default=0.3, metadata={"help": "share of pairs of wholly random contrasts"})
    texture: Any = field(default_factory=lambda: [2.0, 9.0], metadata={"help": "bounds of the std within a tissue"})
    blur: Any = field(default_factory=lambda: [0.4, 0.7], metadata={"help": "bounds of the std of the point spread"})
    bias: float = field(default=0.3, metadata={"help": "largest std of the logarithm of the bias field"})
    gamma: float = field(default=0.15, metadata={"help": "std of the logarithm of the exponent of the intensities"})
    noise: float = field(default=2.0, metadata={"help": "largest standard deviation of the noise of a scan"})
    misalignment: float = field(default=0.0, metadata={"help": "std of a shift of the T1w along each axis"})


@dataclass(frozen=True)
class SimulatedPair:
    """T1w and T2w (X, Y, Z) float32 on 0-255, one grid, and what was drawn."""

    t1: Volume
    t2: Volume
    drawn: dict[str, Any]


def simulate_pair(labels: Volume, seed: int = 0, config: PairConfig | None = None) -> SimulatedPair:
    """Draw the T1w and the T2w scan of one simulated person.

    Parameters
    ----------
    labels : label map (X, Y, Z) of the published 54 generation labels, any orientation; the scans are in RAS order.
    seed : fixes every draw.

    Raises
    ------
    InputError : the map does not hold whole numbers.

    """
    from ..geometry import Reorient
    from ..synthsegment.training_maps import whole_numbers

    config = config or PairConfig()
    upright = Reorient.to_ras(labels).apply(labels)
    codes = whole_numbers(np.asarray(upright.data), labels.source.file_name or "the label map")
    shape = [min(a, b) for a, b in zip(config.output_shape, codes.shape, strict=True)]
    varied = {"scaling": config.scaling, "bias_field_std": config.bias, "gamma_std": config.gamma}
    generator = LabelsToImage(
        GeneratorConfig(output_shape=shape, **varied, **_FLAT),  # type: ignore[arg-type]
        LabelTables.published("v2", "tissue"),
        voxel_size=upright.spacing,
        levels=None,
    )
    draws = Draws(seed)
    warped, _, start, drawn = generator.warp(torch.from_numpy(codes), shape, draws)
    classes = generator._class_of[warped.long()]
    means = _contrasts(config, draws)
    shared = _smooth(draws, warped.shape)
    t1, t2 = (_render(generator, config, classes, mean, shared, draws) for mean in means)
    if config.misalignment > 0:
        t1 = _shifted(t1, [draws.normal(config.misalignment) for _ in range(3)])
    affine = np.array(upright.affine)
    affine[:3, 3] += affine[:3, :3] @ start
    told = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in drawn.items()}
    return SimulatedPair(upright.with_affine(t1, affine), upright.with_affine(t2, affine), {"seed": seed, **told})


def _contrasts(config: PairConfig, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of each tissue class in the T1w and in the T2w scan."""
    if config.contrast == "adult":
        return _adult(_ADULT_T1, config.spread, draws), _adult(_ADULT_T2, config.spread, draws)
    if draws.chance(config.random_contrast):
        t1, t2 = draws.array(np.zeros(25), np.full(25, 250.0)), draws.array(np.zeros(25), np.full(25, 250.0))
    else:
        t1 = _weighted(draws, csf=(10, 60), white=(110, 200), step=(-80, 60))
        t2 = _weighted(draws, csf=(180, 250), white=(50, 170), step=(-60, 90))
    t1[0], t2[0] = draws.uniform(0, 6), draws.uniform(0, 6)
    return t1, t2


def _adult(usual: tuple[int, ...], spread: float, draws: Draws) -> np.ndarray:
    """Return the class means of one scan of an adult, near the usual ones."""
    mean = np.array([0, *usual], dtype=float) + draws.array(np.full(25, -spread), np.full(25, spread))
    mean[0] = draws.uniform(0, 6)
    return np.clip(mean, 2, 250)


def _weighted(
    draws: Draws, csf: tuple[float, float], white: tuple[float, float], step: tuple[float, float]
) -> np.ndarray:
    """Return class means of one kind of contrast; ``step`` bounds grey minus white matter."""
    mean = np.zeros(25)
    fluid, base, gap = draws.uniform(*csf), draws.uniform(*white), draws.uniform(*step)
    for group, low, high in (
        (_CSF, fluid - 8, fluid + 8),
        (_WHITE, base - 8, base + 8),
        (_GREY, base + gap - 8, base + gap + 8),
        (_DEEP, min(base, base + gap) - 10, max(base, base + gap) + 10),
        (_LESION, min(base, fluid), max(base, fluid)),
        (_VESSEL, 0, 220),
        (_CHOROID, min(fluid, base + gap), max(fluid, base + gap)),
        (_OUTSIDE, 0, 230),
    ):
        index = np.array(group)
        mean[index] = draws.array(np.full(len(index), low), np.full(len(index), high))
    return np.clip(mean, 2, 250)


def _smooth(draws: Draws, shape: torch.Size) -> torch.Tensor:
    """Return a random field of unit variance whose values go together over about 2 voxels."""
    made = blur(draws.noise(shape), [1.0] * 3)
    return made / made.std()


def _render(
    generator: LabelsToImage,
    config: PairConfig,
    classes: torch.Tensor,
    mean: np.ndarray,
    shared: torch.Tensor,
    draws: Draws,
) -> np.ndarray:
    """Return one scan (X, Y, Z) float32 on 0-255."""
    low, high = config.texture
    std = draws.array(np.full(len(mean), low), np.full(len(mean), high))
    std[0] = 1.0
    sign = 1.0 if draws.chance(0.5) else -1.0
    field_ = sign * _SHARES[0] * shared + _SHARES[1] * _smooth(draws, classes.shape)
    field_ += _SHARES[2] * draws.noise(classes.shape)
    tables = (torch.as_tensor(values, dtype=torch.float32) for values in (mean, std))
    mean_map, std_map = (table[classes] for table in tables)
    image = generator.add_bias(mean_map + std_map * field_, draws)
    image = blur(image.clamp_min(0), [draws.uniform(*config.blur)] * 3)
    noise = draws.uniform(0, config.noise)
    image = torch.hypot(image + noise * draws.noise(image.shape), noise * draws.noise(image.shape))
    image = generator.finish_intensity(image, draws) * 255
    return np.asarray(image.numpy(), dtype=np.float32)


def _shifted(image: np.ndarray, voxels: list[float]) -> np.ndarray:
    from scipy.ndimage import shift

    return np.asarray(shift(image, voxels, order=3, mode="nearest").clip(min=0), dtype=np.float32)
