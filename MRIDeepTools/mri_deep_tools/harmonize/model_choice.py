"""What a harmonization was asked to be, and which weights file that takes."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import RequestError, WeightsError
from ..volume import Volume

__all__ = ["DEFAULT_MODEL", "LITE_MODEL", "HarmonizeOptions", "WeightsFile", "find_weights", "template_path"]

DEFAULT_MODEL, LITE_MODEL = "iguane", "iguane-lite"
TASK = "harmonize"
_FOLDER_FILE = "model.safetensors"
_FSL_TEMPLATE = ("data", "standard", "MNI152_T1_1mm_brain.nii.gz")
_OLDEST = 120.0  # years


@dataclass(frozen=True)
class HarmonizeOptions:
    """Options of :func:`.predict.harmonize`, which explains them; contradictions raise RequestError."""

    model: str | None = None
    weights: str | Path | None = None
    preprocessed: bool = False
    mask: str | Path | Volume | None = None
    skull_stripped: bool = False
    hd_bet: bool = False
    bias_correction: bool = True
    registered: bool = False
    transform: str | Path | None = None
    template: str | Path | None = None
    space: Literal["native", "template"] = "native"
    keep_head: bool = False
    tissues: bool = False
    age: float | None = None
    unchecked: bool = False
    compatible: bool = False
    device: str = "auto"
    threads: int | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if self.model is not None and self.weights is not None:
            raise RequestError("a model and a weights file were both given", "give one of them")
        if self.space not in ("native", "template"):
            raise RequestError(f"unknown space {self.space!r}", "use native or template")
        if self.mask is not None and self.skull_stripped:
            raise RequestError("a mask and a scan without skull were both stated", "give one of them")
        if self.hd_bet and (self.mask is not None or self.skull_stripped):
            raise RequestError("HD-BET is not needed where the brain is known", "drop hd_bet, or the other")
        if self.registered and self.transform is not None:
            raise RequestError("a transform was given for a scan that is registered", "give one of them")
        if self.keep_head and (self.space == "template" or self.skull_stripped or self.compatible):
            raise RequestError("the head is kept only in native space, around a scan that has one", "drop one option")
        if self.age is not None and not 0 <= self.age <= _OLDEST:
            raise RequestError(f"an age of {self.age:g} years", "give the age in years, 0 to 120")
        made = ("mask", "skull_stripped", "hd_bet", "registered", "transform", "template", "keep_head")
        extra = [name for name in made if getattr(self, name) not in (None, False)]
        if self.preprocessed and extra:
            raise RequestError(f"a preprocessed image needs no {extra[0].replace('_', ' ')}", "drop one of the two")

    def told(self) -> dict[str, Any]:
        """Return the options for the record."""
        plain = asdict(self) if not isinstance(self.mask, Volume) else {**self.__dict__, "mask": "given"}
        return {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}


@dataclass(frozen=True)
class WeightsFile:
    """A model's name, its file, a note where it is not the model one would expect, and the ages it was made for."""

    model: str
    path: Path
    note: str = ""
    age_years: tuple[float, float] | None = None


def find_weights(options: HarmonizeOptions) -> WeightsFile:
    """Find the weights on this machine without reading them.

    Without a model's name: the published one where it is installed, else the bundled one.

    Raises
    ------
    WeightsError : they are not on this machine; the hint says how to get them.
    RequestError : the model does something else, or does not exist.

    """
    from ..models import get_model, model_path

    if options.weights is not None:
        path = Path(options.weights)
        file = path / _FOLDER_FILE if path.is_dir() else path
        if not file.is_file():
            raise WeightsError(f"weights file {path.name} does not exist", "check the name")
        return WeightsFile(path.name, file)
    name, note = (options.model, "") if options.model is not None else _best_model()
    model = get_model(name)
    if model.task != TASK:
        raise RequestError(f"the model {name} does not harmonize", f"use {DEFAULT_MODEL}")
    ages = model.input_needs.get("age_years")
    return WeightsFile(name, model_path(name), note, (float(ages[0]), float(ages[1])) if ages else None)


def template_path(template: str | Path | None) -> Path | None:
    """Return the file of the template; ``fsl`` means that of the FSL installation on this machine.

    Raises
    ------
    RequestError : there is no FSL installation with that file.

    """
    if template is None or str(template).lower() != "fsl" or Path(template).exists():
        return None if template is None else Path(template)
    home = os.environ.get("FSLDIR", "")
    path = Path(home, *_FSL_TEMPLATE)
    if not home or not path.is_file():
        what = f"$FSLDIR holds no {_FSL_TEMPLATE[-1]}" if home else "$FSLDIR is not set, so FSL's template is not found"
        raise RequestError(what, "name the template file, or leave --template out for the shipped one")
    return path


def _best_model() -> tuple[str, str]:
    """Return the model to use, and a note when it is not the published one."""
    from ..models import list_models, model_status

    lite = LITE_MODEL in {model.name for model in list_models(TASK)} and model_status(LITE_MODEL) != "absent"
    if not lite or model_status(DEFAULT_MODEL) != "absent":
        return DEFAULT_MODEL, ""
    note = (
        f"the small bundled model {LITE_MODEL} is used, because {DEFAULT_MODEL} is not installed; get the published "
        f"one with 'mri-deep-tools models download {DEFAULT_MODEL}'"
    )
    return LITE_MODEL, note
