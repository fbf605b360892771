"""Model folders: ``model.json`` with the facts, beside the generators of one or both directions.

A folder holds ``gen_diffusive_1_E.pth`` (or ``.safetensors``), which makes the first contrast from the second, and
``gen_diffusive_2_E.pth``, which makes the second from the first; E is the epoch of the training. This is how the
published programs name their files, so a folder of theirs needs ``model.json`` only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch

from .._atomic import atomic_path
from ..errors import RequestError, WeightsError
from .checkpoint import load_generator, save_generator
from .diffusion import Schedule
from .network import NCSNpp
from .options import same_contrast

__all__ = [
    "FACTS_FILE",
    "Direction",
    "ModelFacts",
    "load_direction",
    "load_facts",
    "model_folder",
    "save_facts",
    "save_model",
]

FACTS_FILE = "model.json"
TASK = "translate"
FORMAT = "mri-deep-tools translation model 1"

_GENERATOR = re.compile(r"gen_diffusive_(?P<number>[12])(?:_(?P<epoch>\d+))?\.(?P<suffix>pth|safetensors)")
_RULES = ("mean", "percentile", "bytes")
_AXES = ("axial", "coronal", "sagittal")


@dataclass(frozen=True)
class ModelFacts:
    """What ``model.json`` says, beside the numbers of the networks, which their files tell themselves.

    Attributes
    ----------
    contrasts : names of contrast 1 and contrast 2.
    image_size : side of the training images in pixels; None where the files tell.
    steps, beta_min, beta_max, geometric : of :class:`.diffusion.Schedule`.
    rule : how intensities become -1 to 1. ``mean``: a volume over its mean, over the constant of its contrast, clipped
        to 0..1. ``percentile``: the 99.9th percentile of a volume becomes 0.9 of 0..1. ``bytes``: 8-bit grey values
        over 127.5, less 1.
    region : where the mean, or the percentile, is taken: the whole ``volume``, or the ``mask`` of the brain.
    constants : of the rule ``mean``: the largest intensity of each contrast, in units of the mean.
    in_plane_spacing_mm : pixel side of the training images; None where it is not known or has no meaning.
    slice_axis : ``axial``, ``coronal`` or ``sagittal``; None for images that are no slices of scans.
    epoch : which epoch to use where there are several; None takes the last.
    licence, training_data, citation, note : text.

    Raises
    ------
    RequestError : the facts contradict themselves.

    """

    contrasts: tuple[str, str]
    image_size: int | None = None
    steps: int = 4
    beta_min: float = 0.1
    beta_max: float = 20.0
    geometric: bool = False
    rule: Literal["mean", "percentile", "bytes"] = "percentile"
    region: Literal["volume", "mask"] = "volume"
    constants: dict[str, float] = field(default_factory=dict)
    in_plane_spacing_mm: float | None = None
    slice_axis: Literal["axial", "coronal", "sagittal"] | None = None
    epoch: int | None = None
    licence: str = ""
    training_data: str = ""
    citation: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse facts that make no model."""
        names = tuple(self.contrasts)
        object.__setattr__(self, "contrasts", names)
        if len(names) != 2 or not all(isinstance(name, str) and name.strip() for name in names) or _same(*names):
            raise RequestError(f"the contrasts {names}", "name two different ones, such as T1w and T2w")
        if self.rule not in _RULES:
            raise RequestError(f"unknown intensity rule {self.rule!r}", f"use one of {', '.join(_RULES)}")
        if self.region not in ("volume", "mask"):
            raise RequestError(f"unknown region {self.region!r}", "use volume or mask")
        if self.slice_axis not in (None, *_AXES):
            raise RequestError(f"unknown slice axis {self.slice_axis!r}", f"use one of {', '.join(_AXES)}")
        lengths = [value for value in (self.in_plane_spacing_mm, self.image_size) if value is not None]
        strange = [key for key in self.constants if not any(same_contrast(key, name) for name in names)]
        if strange:
            raise RequestError(f"a constant of {strange[0]!r}, which is no contrast", f"use {' or '.join(names)}")
        for value in (*self.constants.values(), *lengths):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise RequestError(f"{value!r} as a size, spacing or intensity constant", "use positive numbers")
        self.schedule()

    def schedule(self) -> Schedule:
        """Return the diffusion schedule."""
        return Schedule(self.steps, self.beta_min, self.beta_max, self.geometric)

    def number_of(self, contrast: str) -> int:
        """Return 1 or 2 for a contrast's name, upper or lower case; RequestError for any other name."""
        for number, name in enumerate(self.contrasts, 1):
            if _same(name, contrast):
                return number
        raise RequestError(f"the model does not know the contrast {contrast!r}", f"use {' or '.join(self.contrasts)}")


@dataclass
class Direction:
    """One direction of a model, ready to use.

    Attributes
    ----------
    source, target : names of the contrasts.
    network : generator in evaluation mode on the CPU.
    schedule : of its diffusion.
    info : the fields of :class:`ModelFacts`, and ``model`` (name of folder or model), ``file`` and ``file_epoch``.
    path : of the generator's file.

    """

    source: str
    target: str
    network: NCSNpp
    schedule: Schedule
    info: dict[str, Any]
    path: Path | None = None


def load_direction(folder_or_model_name: str | Path, to: str, epoch: int | None = None) -> Direction:
    """Load the generator that makes the contrast ``to``.

    Parameters
    ----------
    folder_or_model_name : a model folder, or the name of a model of the list (``mri-deep-tools models list``).
    to : name of the target contrast.
    epoch : of the training; None takes what ``model.json`` names, else the last.

    Raises
    ------
    RequestError : the model does not know the contrast, or there is no such folder or model.
    WeightsError : the folder lacks the file of this direction or epoch, or a file is broken.

    """
    folder = model_folder(folder_or_model_name)
    facts = load_facts(folder)
    number = facts.number_of(to)
    path, found = _choose(folder, facts, number, epoch)
    network = load_generator(path, facts.image_size)
    info = asdict(facts) | {"model": folder.name, "file": path.name, "file_epoch": found}
    info["image_size"] = network.spec.image_size
    source, target = facts.contrasts[2 - number], facts.contrasts[number - 1]
    return Direction(source, target, network, facts.schedule(), info, path)


def model_folder(folder_or_model_name: str | Path) -> Path:
    """Return the folder of a model: the given one, or that of a model of the list, its files checked.

    Raises
    ------
    RequestError : there is neither, or the model does something else.
    WeightsError : the model is not on this machine.

    """
    from ..models import get_model, list_models, model_path

    folder, name = Path(folder_or_model_name), str(folder_or_model_name)
    if folder.is_dir():
        return folder
    if name not in {model.name for model in list_models()}:
        what = "is a file, not a model folder" if folder.is_file() else "is neither a model folder nor a model's name"
        known = ", ".join(model.name for model in list_models(TASK))
        hint = f"give a folder with {FACTS_FILE}" + (f", or one of the models {known}" if known else "")
        raise RequestError(f"{folder.name} {what}", hint)
    model = get_model(name)
    if model.task != TASK:
        raise RequestError(f"the model {name} does not translate contrasts", "give a model folder")
    for file in model.files:
        model_path(name, file.name)
    return model_path(name, FACTS_FILE).parent


def load_facts(folder: str | Path) -> ModelFacts:
    """Read the ``model.json`` of a folder; keys of later versions are ignored.

    Raises
    ------
    WeightsError : it is missing, cannot be read, or contradicts itself.

    """
    path = Path(folder) / FACTS_FILE
    if not path.is_file():
        found = sorted(item.name for item in Path(folder).iterdir() if _GENERATOR.fullmatch(item.name))
        what = f"; it holds {found[0]}" if found else ""
        hint = f"give a model folder, or put the {FACTS_FILE} of one here"
        raise WeightsError(f"the folder {Path(folder).name} has no {FACTS_FILE}{what}", hint)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not isinstance(content.get("contrasts"), list):
            raise ValueError("no contrasts")
        known = {item.name: content[item.name] for item in fields(ModelFacts) if item.name in content}
        return ModelFacts(**known)
    except RequestError as error:
        raise WeightsError(f"{path.name} of {path.parent.name}: {error.message}", error.hint) from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path.name} of {path.parent.name} cannot be read ({error})", "write it anew") from error


def save_model(
    folder: str | Path,
    networks: Mapping[int, NCSNpp | str | Path],
    facts: ModelFacts,
    *,
    epoch: int | None = None,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> Path:
    """Write a model folder.

    Parameters
    ----------
    folder : made where it is missing.
    networks : generators by the number of the contrast that they make, 1 or 2; a path is a ``.pth`` or
        ``.safetensors``, which is checked and converted to safetensors.
    facts : for ``model.json``, which is written last.
    epoch : for the names of the files; None leaves it out.
    dtype : of the weights in the files.
    overwrite : whether files of the same names may be replaced.

    Raises
    ------
    RequestError : there is no network, or a file exists already.
    WeightsError : a given file is not that of a generator.
    OutputError : the folder cannot be written.

    """
    folder = Path(folder)
    if not networks or not set(networks) <= {1, 2}:
        raise RequestError("a model folder needs a generator of contrast 1, of contrast 2, or both")
    end = "" if epoch is None else f"_{epoch}"
    targets = {number: folder / f"gen_diffusive_{number}{end}.safetensors" for number in networks}
    present = next((path for path in (folder / FACTS_FILE, *targets.values()) if path.exists()), None)
    if present is not None and not overwrite:
        raise RequestError(f"{present.name} exists already in {folder.name}", "choose another folder or overwrite")
    ready = {
        number: given if isinstance(given, NCSNpp) else load_generator(given, facts.image_size)
        for number, given in networks.items()
    }
    sizes = {network.spec.image_size for network in ready.values()}
    for number, network in ready.items():
        save_generator(network, targets[number], dtype)
    save_facts(folder, facts, next(iter(ready.values())), facts.image_size or max(sizes))
    return folder


def save_facts(folder: Path, facts: ModelFacts, network: NCSNpp, image_size: int) -> None:
    """Write the ``model.json`` of a folder; OutputError when that cannot be."""
    content = {"format": FORMAT, **asdict(facts), "image_size": image_size}
    content["network"] = asdict(network.spec)  # for people; the files tell it themselves
    with atomic_path(folder / FACTS_FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _choose(folder: Path, facts: ModelFacts, number: int, asked: int | None) -> tuple[Path, int | None]:
    """Return the generator's file of one direction, and its epoch (None where its name has none).

    A file without an epoch in its name may have one in ``model.json``.
    """
    found: dict[int | None, Path] = {}
    for path in sorted(folder.iterdir()):  # safetensors come after pth and are preferred
        match = _GENERATOR.fullmatch(path.name)
        if match and int(match["number"]) == number:
            found[int(match["epoch"]) if match["epoch"] else None] = path
    source, target = facts.contrasts[2 - number], facts.contrasts[number - 1]
    if not found:
        message = f"the model folder {folder.name} cannot translate {source} to {target}: no gen_diffusive_{number}"
        raise WeightsError(message, "use a model that holds this direction")
    numbered = sorted(key for key in found if key is not None)
    epoch = facts.epoch if asked is None else asked
    if epoch is None or (not numbered and epoch == facts.epoch):
        chosen = numbered[-1] if numbered else None
    elif epoch in found:
        chosen = epoch
    elif numbered:
        listed = ", ".join(map(str, numbered))
        raise WeightsError(f"{folder.name} has no epoch {epoch} of {source} to {target}", f"use one of {listed}")
    else:
        message = f"{found[None].name} of {folder.name} has no epoch in its name: epoch {epoch} cannot be chosen"
        raise WeightsError(message, "leave the epoch out")
    return found[chosen], chosen


def _same(first: str, second: str) -> bool:
    return first.strip().casefold() == second.strip().casefold()
