"""What a SynDiff training is judged by: both directions on images kept back, with all steps of the diffusion.

Every validation draws the same noise, so that its figures can be compared from epoch to epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..superresolve.metrics import psnr
from .dataset import ContrastPairs
from .diffusion import Draws, Schedule, draw, sample
from .losses import GENERATORS, ONE_PASS
from .metrics import validation_scores
from .training_draws import generator_of

__all__ = ["Validation", "published_figures", "write_pictures"]

_STREAM = 13
_HIGHEST = 120.0  # dB, of images that are equal
_AXES = (("start", 0), ("latents", 1), ("noises", 1))  # along which draws of several images are put together


def published_figures(real: np.ndarray, made: np.ndarray) -> tuple[float, float]:
    """Return L1 and PSNR in dB as the published loop takes them; not a number where an image is black everywhere."""
    try:
        return validation_scores(real, made)
    except InputError:
        return float("nan"), float("nan")


def _ratio(real: np.ndarray, made: np.ndarray) -> float:
    """Return the PSNR in dB of images in [-1, 1], whose peak is 2."""
    return min(psnr(float(np.mean((real.astype(np.float64) - made) ** 2)), 2.0), _HIGHEST)


class Validation:
    """Translates images kept back, a share of them in each process.

    Parameters
    ----------
    pairs : the images.
    schedule : of the diffusion, on the networks' device.
    seed : of the noise.
    count : how many images.
    latent : size of the latent vector.
    chunk : images per batch.

    """

    def __init__(
        self, pairs: ContrastPairs, schedule: Schedule, *, seed: int, count: int, latent: int, chunk: int = 4
    ) -> None:
        self.pairs, self.schedule, self.seed, self.latent, self.chunk = pairs, schedule, seed, latent, chunk
        self.count = min(count or len(pairs), len(pairs))

    def translate(self, network: nn.Module, source: Tensor, numbers: list[int], direction: int) -> Tensor:
        """Return translations (B, 1, H, W); ``direction`` 0 makes contrast 1, 1 makes contrast 2."""
        sizes = (1, int(source.shape[-2]), int(source.shape[-1]))
        draws = [
            draw(sizes, self.schedule.steps, self.latent, generator_of(self.seed, _STREAM, number, direction))
            for number in numbers
        ]
        joined = _joined(draws, source.device)
        found = sample(
            lambda x, t, z: network(x, t, z).float(),
            self.schedule,
            source,
            start=joined.start,
            latents=joined.latents,
            noises=joined.noises,
        )
        return found.clamp(-1, 1)

    def batches(self, rank: int, world: int, device: torch.device | str) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Yield numbers and images of contrast 1 and 2."""
        mine = list(range(rank, self.count, world))
        for start in range(0, len(mine), self.chunk):
            numbers = mine[start : start + self.chunk]
            samples = [self.pairs.sample(number) for number in numbers]
            one, two = (torch.stack([s[k] for s in samples]).to(device) for k in (0, 1))
            yield numbers, one, two

    def figures(
        self, generators: Mapping[str, nn.Module], share: tuple[int, int], device: torch.device | str
    ) -> dict[str, np.ndarray]:
        """Return figures by name, (2, count): contrast 1 made from 2, then 2 from 1; 0 for other processes' images.

        With pairs: ``psnr``, ``published_l1`` and ``published_psnr``; without: ``cycle_psnr`` (there and back).
        """
        names = ("psnr", "published_l1", "published_psnr") if self.pairs.paired else ("cycle_psnr",)
        found = {name: np.zeros((2, self.count)) for name in names}
        for numbers, *images in self.batches(*share, device):
            for direction in (0, 1):
                real, source = images[direction], images[1 - direction]
                made = self.translate(generators[GENERATORS[direction]], source, numbers, direction)
                if not self.pairs.paired:
                    back = self.translate(generators[GENERATORS[1 - direction]], made, numbers, 1 - direction)
                    real, made = source, back
                for number, one, other in zip(numbers, real.cpu().numpy(), made.cpu().numpy(), strict=True):
                    found[names[0]][direction, number] = _ratio(one, other)
                    if self.pairs.paired:
                        l1, ratio = published_figures(one, other)
                        found["published_l1"][direction, number] = l1
                        found["published_psnr"][direction, number] = ratio
        return found

    def pictures(
        self, networks: Mapping[str, nn.Module], count: int, device: torch.device | str
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield, for ``count`` images and both directions, a name and (H, W) uint8: source, translation, and more.

        From left to right: source; what the one-pass generator makes, where there is one; the translation; the real
        image, where it is known.
        """
        step = max(self.count // max(count, 1), 1)
        for number in range(0, min(self.count, step * count), step):
            images = [image[None].to(device) for image in self.pairs.sample(number)]
            for direction in (0, 1):
                source = images[1 - direction]
                row = [source]
                if ONE_PASS[direction] in networks:
                    row.append(networks[ONE_PASS[direction]](source).float())
                row.append(self.translate(networks[GENERATORS[direction]], source, [number], direction))
                if self.pairs.paired:
                    row.append(images[direction])
                wide = torch.cat(row, dim=-1)[0, 0].cpu().numpy()
                name = f"{self.pairs.contrasts[direction]}_from_{self.pairs.contrasts[1 - direction]}_{number:04d}"
                yield name, np.clip((wide + 1) * 127.5, 0, 255).astype(np.uint8)


def _joined(draws: list[Draws], device: torch.device | str) -> Draws:
    """Return the draws of several images as those of one batch."""
    parts = (torch.cat([getattr(d, name) for d in draws], dim=axis) for name, axis in _AXES)
    return Draws(*(part.to(device) for part in parts))


def write_pictures(folder: Path, epoch: int, pictures: Iterator[tuple[str, np.ndarray]]) -> None:
    """Write ``NAME_epoch-0001.png`` files."""
    from .pictures import write_picture

    folder.mkdir(parents=True, exist_ok=True)
    for name, image in pictures:
        write_picture(image, folder / f"{name}_epoch-{epoch:04d}.png")
