"""Simulated sites: T1w brains drawn from label maps, each site with its contrast, bias, noise and resolution.

An anatomy is a deformed label map with a texture of its own; every site shows the same anatomy in its own way, so the
same person can travel to all of them, and the reference rendering of a scan is known. Means and spreads of the tissues
are the T1w priors of SynthSeg (Billot et al., Medical Image Analysis 86 (2023) 102789), relative to white matter. A
site maps them to intensities by a monotone curve, a little of its own for every tissue, a fixed and a varying part of
a bias field, a blur and Rician noise. Images are as after the published preparation: brain median 0, background -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import RequestError
from ..synthsegment.generator import resolution, spatial
from ..synthsegment.generator.coarse import KEPT_WITHOUT_SKULL, t1_priors
from ..synthsegment.generator.draws import Draws
from ..synthsegment.generator.model import CODES, LabelTables
from .augmentation import BACKGROUND
from .template_maps import TemplateMap, load_template_maps

__all__ = ["REFERENCE", "REFERENCE_UNIT", "Anatomy", "Site", "SiteSimulator", "SitesConfig", "draw_site"]

WHITE_MATTER = 2  # its tissue class
TEXTURE = 0.5  # spread of a tissue's texture, of the spread that the priors give
SUBJECT = 0.3  # spread of a person's tissue means, of the spread that the priors give
COARSE_SAMPLES = 3  # labels read inside a voxel that is coarser than the map
EDGE_MM = 0.5  # blur of every scan
_CLASSES = 25
_MIDDLE = (0.63, 0.69)  # the tissue at the median of a brain lies between these, white matter is 1
_SMOOTH_POINTS_MM = 8.0
_DARKEST = float(np.nextafter(np.float32(BACKGROUND), np.float32(0)))


@dataclass
class SitesConfig:
    """Simulated sites for training."""

    labels: str = field(default="", metadata={"help": "folder of label maps (1 mm); empty: no simulation"})
    validation: list[str] = field(default_factory=list, metadata={"help": "parts of names of maps kept for validation"})
    count: int = field(default=8, metadata={"help": "number of source sites"})
    seed: int = field(default=1, metadata={"help": "fixes what the sites look like"})
    within: float = field(default=0.25, metadata={"help": "spread of the scans of a site, of that of the sites"})
    scaling: float = field(default=0.08, metadata={"help": "bounds of the scaling of anatomies (1 +- b)"})
    rotation: float = field(default=5.0, metadata={"help": "bounds of their rotation in degrees"})
    shift_mm: float = field(default=4.0, metadata={"help": "bounds of their shift"})
    nonlin_std_mm: float = field(default=2.5, metadata={"help": "largest standard deviation of the velocity field"})
    coarse: list[list[int]] = field(
        default_factory=list,
        metadata={"help": "voxel size (whole mm) and number of visits, for the first visits; then 1 mm"},
    )
    coarse_voxels: Literal["mean", "every"] = field(
        default="mean",
        metadata={"help": "coarse voxels are means, or every n-th voxel of a 1 mm scan (for generators with phases)"},
    )
    slabs: list[int] = field(
        default_factory=list,
        metadata={"help": "thickness in mm and number of visits with slabs of that thickness, after the coarse ones"},
    )

    def view(self, visit: int) -> tuple[int, int]:
        """Return voxel size and thickness of the slabs of a visit; thickness 0 for whole brains."""
        for size, visits in self.coarse:
            if visit < visits:
                return size, 0
            visit -= visits
        return 1, self.slabs[0] if self.slabs and visit < self.slabs[1] else 0


@dataclass(frozen=True)
class Site:
    """How a scanner shows T1w brains; intensities are relative to white matter.

    Attributes
    ----------
    gamma, floor, wave : of the curve from tissue to intensity, see :meth:`curve`.
    tissues : (25,) what is added for each tissue class.
    bias, bias_std : (x, y, z) small log field that all its scans share, and spread of the one each scan adds.
    noise : standard deviation of the noise in either channel, at 1 mm.
    blur_mm : standard deviation of the blur per axis.

    """

    gamma: float = 1.0
    floor: float = 0.0
    wave: float = 0.0
    tissues: np.ndarray = field(default_factory=lambda: np.zeros(_CLASSES))
    bias: np.ndarray = field(default_factory=lambda: np.zeros((1, 1, 1)))
    bias_std: float = 0.0
    noise: float = 0.0
    blur_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def curve(self, tissue: np.ndarray) -> np.ndarray:
        """Return the intensities of tissues on a scale of 0 to 1 (white matter); rises as long as |wave| < 1."""
        bent = np.maximum(tissue, 0.0) ** self.gamma
        bent = bent + self.wave * np.sin(2 * np.pi * bent) / (2 * np.pi)
        return np.asarray(self.floor + (1 - self.floor) * bent)


REFERENCE = Site()
"""The reference style: the priors as they are, no bias field, no noise, 1 mm."""

REFERENCE_UNIT = 0.67
"""About the brain median of the reference style.

A brain's own median lies between grey and white matter and moves with their shares, so the reference style is one
with a fixed intensity of white matter, and not of the median.
"""


def draw_site(rng: np.random.Generator) -> Site:
    """Draw a site."""
    blur = np.full(3, rng.uniform(0.0, 0.5))
    if rng.random() < 0.4:
        blur[rng.integers(3)] = rng.uniform(0.3, 0.8)
    return Site(
        gamma=float(np.exp(rng.uniform(-0.5, 0.6))),
        floor=float(rng.uniform(0, 0.15)),
        wave=float(rng.uniform(-0.5, 0.5)),
        tissues=rng.normal(0, 0.02, _CLASSES),
        bias=rng.normal(0, rng.uniform(0.02, 0.12), (4, 5, 4)),
        bias_std=float(rng.uniform(0.0, 0.06)),
        noise=float(rng.uniform(0.01, 0.05)),
        blur_mm=(float(blur[0]), float(blur[1]), float(blur[2])),
    )


def scan_of(site: Site, draws: Draws, within: float) -> Site:
    """Return what the site looks like for one scan: its numbers moved by a share of how sites differ."""
    if site is REFERENCE or not within:
        return site
    return replace(
        site,
        gamma=site.gamma * float(np.exp(draws.normal(0.3 * within))),
        floor=max(site.floor + draws.normal(0.05 * within), 0.0),
        wave=float(np.clip(site.wave + draws.normal(0.3 * within), -0.8, 0.8)),
        tissues=site.tissues + draws.array(np.zeros(_CLASSES), 0.02 * within, "normal"),
        noise=site.noise * float(np.exp(draws.normal(0.5 * within))),
    )


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One person: label maps read at one or more places in each voxel, texture, tissue means, voxel size in mm.

    ``window`` is the part of the template's grid that is shown, ``whole`` the shape of all of it; ``middle`` stands for
    the tissue at the brain's median, where only a part of the brain is there to measure it.
    """

    parts: list[Tensor]
    texture: Tensor
    means: np.ndarray
    voxel_mm: int
    inside: Tensor
    whole: tuple[int, ...]
    window: tuple[slice, ...] | None = None
    middle: float = 0.0

    @property
    def tissues(self) -> Tensor:
        """Return the tissue class of each voxel, (X, Y, Z) int64; 0 is background."""
        return self.parts[0]


class SiteSimulator:
    """Draws anatomies and shows them as sites do.

    Parameters
    ----------
    config : see :class:`SitesConfig`.
    cache : file in which the maps, brought to the template, are kept; None for none.

    Raises
    ------
    RequestError : no maps, or no sites. InputError : a map cannot be read or registered.

    """

    def __init__(self, config: SitesConfig, cache: Path | None = None, device: torch.device | str = "cpu") -> None:
        if config.count < 1 or any(len(stage) != 2 or min(stage) < 1 for stage in config.coarse):
            raise RequestError(
                "simulated sites need a count of 1 at least, and 'coarse' pairs of voxel size and visits",
                "correct 'simulation'",
            )
        self.config, self.device = config, torch.device(device)
        self.train, self.held = split(load_template_maps(config.labels, cache), config.validation)
        self.sites = [draw_site(np.random.default_rng([config.seed, number])) for number in range(config.count)]
        tables = LabelTables.published("v2", "tissue")
        kept = [
            c if t or code in KEPT_WITHOUT_SKULL else 0
            for code, c, t in zip(tables.codes, tables.classes, tables.targets, strict=True)
        ]
        table = torch.zeros(CODES, dtype=torch.long)
        table[torch.tensor(tables.codes)] = torch.tensor(kept)
        self._class_of = table.to(self.device)
        (mean, spread), (std, _) = t1_priors()
        self._means, self._spread, self._stds = (v / mean[WHITE_MATTER] for v in (mean, spread, std))

    def anatomy(self, chosen: TemplateMap, draws: Draws, voxel_mm: int = 1, slab: int = 0) -> Anatomy:
        """Draw a person: the map deformed, mirrored half of the time, on the template's grid or a coarser one.

        With ``slab``, only that many voxels along a random axis, where the brain is.
        """
        positions = self._positions(chosen.labels.shape, draws, voxel_mm)
        flipped, parts = draws.chance(0.5), []
        whole, window = tuple(positions.shape[1:]), None
        if slab:
            axis = draws.integer(3)
            first = int(draws.uniform(0.1, 0.9) * (whole[axis] - slab))
            window = tuple(slice(first, first + slab) if k == axis else slice(None) for k in range(3))
            positions = positions[(slice(None), *window)]
        labels = chosen.labels.to(self.device)
        for _ in range(1 if voxel_mm == 1 else COARSE_SAMPLES):
            read = positions
            if voxel_mm > 1:
                size = voxel_mm if self.config.coarse_voxels == "mean" else 1.0
                offset = torch.as_tensor(draws.array(np.full(3, -0.5), 0.5) * size, dtype=torch.float32)
                read = positions + offset.to(self.device).view(3, 1, 1, 1)
            part = self._class_of[spatial.sample_nearest(labels, read).long()]
            parts.append(part.flip(0) if flipped else part)
        shape = parts[0].shape
        small = [max(int(n * voxel_mm / _SMOOTH_POINTS_MM), 2) for n in shape]
        texture = draws.noise(shape).mul_(0.8).add_(spatial.resize_linear(draws.small_field(small, 0.8), shape))
        spread = self._spread * SUBJECT
        means = self._means + draws.array(np.zeros(_CLASSES), spread, "normal")
        inside = torch.stack(parts).gt(0).sum(0) * 2 > len(parts)
        return Anatomy(parts, texture, means, voxel_mm, inside, whole, window, draws.uniform(*_MIDDLE))

    def show(self, anatomy: Anatomy, site: Site, draws: Draws, unit: float | None = None) -> Tensor:
        """Return a prepared scan (X, Y, Z) float32 of an anatomy, -1 outside the brain.

        ``unit`` is the intensity that becomes 0; None takes the scan's median, as the published preparation does.
        """
        site = scan_of(site, draws, self.config.within)
        means = site.curve(anatomy.means) + site.tissues
        slope = (site.curve(anatomy.means + 0.01) - site.curve(anatomy.means - 0.01)) / 0.02
        means[0] = slope[0] = 0.0
        mean, spread = (
            torch.as_tensor(v, dtype=torch.float32, device=self.device) for v in (means, slope * self._stds * TEXTURE)
        )
        image = torch.zeros(anatomy.texture.shape, device=self.device)
        for part in anatomy.parts:
            image += spread[part].mul_(anatomy.texture).add_(mean[part])
        image /= len(anatomy.parts)
        voxel = anatomy.voxel_mm if self.config.coarse_voxels == "mean" else 1
        if voxel == anatomy.voxel_mm:  # every n-th voxel of a blurred scan has its part of the neighbours already
            image = resolution.blur(image, [(EDGE_MM**2 + blur**2) ** 0.5 / voxel for blur in site.blur_mm])
        image = self._biased(image, site, draws, anatomy)
        if site.noise:
            scale = site.noise / voxel**1.5
            first, second = (draws.noise(image.shape).mul_(scale) for _ in range(2))
            image = torch.hypot(image + first, second)
        if unit is None and anatomy.window is not None:
            unit = float(site.curve(np.array(anatomy.middle)))
        return prepared(image, anatomy.inside, unit)

    def _biased(self, image: Tensor, site: Site, draws: Draws, anatomy: Anatomy) -> Tensor:
        if not (site.bias_std or site.bias.any()):
            return image
        own = draws.small_field(site.bias.shape, site.bias_std)
        total = own + torch.as_tensor(site.bias, dtype=torch.float32, device=self.device)
        log = spatial.resize_linear(total, anatomy.whole)
        return image * (log if anatomy.window is None else log[anatomy.window]).exp()

    def _positions(self, shape: Sequence[int], draws: Draws, voxel_mm: int) -> Tensor:
        """Return what each voxel reads of the map, (3, X, Y, Z)."""
        config = self.config
        affine = spatial.affine_matrix(
            draws.bounded(config.rotation, 3, 0.0, 5.0),
            None,
            draws.bounded(config.scaling, 3, 1.0, 0.05),
            draws.bounded(config.shift_mm, 3, 0.0, 4.0),
        )
        small = spatial.small_shape(shape, 0.05)
        velocity = draws.small_field((3, *small), draws.uniform(0, config.nonlin_std_mm)).to(self.device)
        coarse = [n // voxel_mm for n in shape]
        if voxel_mm == 1:
            # The field is smooth: it is integrated on a coarse grid.
            coarse_field = spatial.field_from_velocity(velocity / 4, [n // 4 for n in shape]) * 4
            displacement = spatial.resize_linear(coarse_field, shape)
            return spatial.pull_back_positions(shape, affine, displacement, self.device)
        displacement = spatial.field_from_velocity(velocity / voxel_mm, coarse)
        centres = spatial.pull_back_positions(coarse, affine, displacement, self.device)
        # The translation above is in coarse voxels: give it its length in mm.
        shift = torch.as_tensor(affine[:3, 3] * (1 / voxel_mm - 1), dtype=torch.float32, device=self.device)
        return (centres + shift.view(3, 1, 1, 1)) * voxel_mm + (voxel_mm - 1) / 2


def prepared(image: Tensor, inside: Tensor, unit: float | None = None) -> Tensor:
    """Return x / unit - 1 in the brain, always above -1, and -1 outside; the unit is the median unless given."""
    if unit is None:
        unit = max(float(image[inside].median()), 1e-3)
    made = (image / unit - 1).clamp_(min=_DARKEST)
    return torch.where(inside, made, torch.full_like(made, BACKGROUND))


def split(maps: list[TemplateMap], validation: Sequence[str]) -> tuple[list[TemplateMap], list[TemplateMap]]:
    """Split maps by parts of their names; RequestError where a part names none, or none are left to train on."""
    for part in validation:
        if not any(part in item.name for item in maps):
            raise RequestError(f"no label map's name contains {part!r}", "correct simulation.validation")
    held = [item for item in maps if any(part in item.name for part in validation)]
    kept = [item for item in maps if item not in held]
    if not kept:
        raise RequestError("no label map is left for training", "keep fewer maps for validation")
    return kept, held
