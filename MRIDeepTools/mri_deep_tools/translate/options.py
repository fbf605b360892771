"""The options of a translation, checked as far as that can be done without files."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import RequestError
from .volumes import AXES, Axis

__all__ = ["DEFAULT_SEED", "TranslateOptions", "same_contrast"]

DEFAULT_SEED = 42
"""That of AxonDeepSynth."""


@dataclass(frozen=True)
class TranslateOptions:
    """Options of :func:`.predict.translate`, which explains them."""

    to: str
    source: str | None = None
    model: str | None = None
    weights: str | Path | None = None
    epoch: int | None = None
    seed: int = DEFAULT_SEED
    samples: int = 1
    same_noise: bool = False
    batch: int | None = None
    axis: Axis | None = None
    slices: str | None = None
    pixel: float | None = None
    constant: float | None = None
    mean: Literal["volume", "mask"] | None = None
    output_factor: float = 1.0
    background: Literal["keep", "zero"] = "keep"
    tile_size: int | None = None
    overlap: int | None = None
    stitching: Literal["blend", "published"] = "blend"
    scale_factor: float = 1.0
    keep_scale: bool = False
    compatible: bool = False
    device: str = "auto"
    threads: int | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Check what can be checked without files (RequestError)."""
        if not self.to.strip():
            raise RequestError("no contrast to translate to is given", "name one with --to")
        if self.model is not None and self.weights is not None:
            raise RequestError("a model and weights were given", "give one of --model and --weights")
        for name, value, known in (
            ("axis", self.axis, (None, *AXES)),
            ("mean", self.mean, (None, "volume", "mask")),
            ("background", self.background, ("keep", "zero")),
            ("stitching", self.stitching, ("blend", "published")),
        ):
            if value not in known:
                raise RequestError(
                    f"unknown {name} {value!r}", f"use one of {', '.join(str(item) for item in known if item)}"
                )
        self._check_numbers()
        if self.compatible:
            self._check_compatible()

    def _check_numbers(self) -> None:
        whole = {"seed": (self.seed, 0), "samples": (self.samples, 1), "batch": (self.batch, 1)}
        whole |= {"tile size": (self.tile_size, 1), "overlap": (self.overlap, 0), "epoch": (self.epoch, 0)}
        for name, (number, least) in whole.items():
            if number is not None and (number != int(number) or number < least):
                raise RequestError(f"the {name} must be a whole number from {least}, not {number}")
        real = {"constant": self.constant, "pixel side": self.pixel, "output factor": self.output_factor}
        for name, value in (real | {"scale factor": self.scale_factor}).items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise RequestError(f"the {name} must be above 0, not {value:g}", "give a positive number")

    def _check_compatible(self) -> None:
        """The published program has one sample, its own stitching, and one stream of random numbers."""
        beyond = {
            "--samples": self.samples > 1,
            "--same-noise": self.same_noise,
            "--overlap": bool(self.overlap),
        }
        for name, used in beyond.items():
            if used:
                raise RequestError(
                    f"the published program knows nothing like {name}", f"drop --compatible, or leave {name} out"
                )

    @property
    def published_stitching(self) -> bool:
        """Whether later tiles lie on top of earlier ones and grey values are cut off, not rounded."""
        return self.compatible or self.stitching == "published"

    @property
    def keeps_scale(self) -> bool:
        """Whether pictures stay at the size to which they were scaled."""
        return self.compatible or self.keep_scale

    def told(self) -> dict[str, Any]:
        """Return the options for the record."""
        return asdict(self)


def same_contrast(first: str, second: str) -> bool:
    """Say whether two names mean one contrast: T1, t1w and T1-w do; T1 and T2 do not."""
    return _plain(first) == _plain(second)


def _plain(name: str) -> str:
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    return re.sub(r"(?<=[0-9d])w$", "", letters)  # T1w, T2w, PDw
