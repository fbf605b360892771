"""Weights of prediction networks: published-style Keras files, and our own, which say what they predict from what.

A Keras file holds tensors only. Whether they give an age or the logit of a diagnosis, and how images must be prepared,
was never written down, so a person has to say it. Our safetensors carry it as :class:`PredictorSpec` in their metadata.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch

from ..errors import InputError, RequestError, WeightsError
from .network import PREDICTOR_FEATURES, Predictor
from .preprocess import MEDIAN
from .weights import load_predictor

__all__ = ["PUBLISHED_SHAPE", "PredictorSpec", "load_prediction_model", "save_prediction_model"]

PUBLISHED_SHAPE = (160, 192, 160)
_KEY = "iguane-predictor"


@dataclass(frozen=True)
class PredictorSpec:
    """What a prediction network predicts, and from which images.

    Attributes
    ----------
    task : ``regression`` (a number) or ``classification`` (one of two classes; the network gives a logit).
    target : what is predicted, as ``age`` or ``diagnosis``.
    unit : of a number, as ``years``.
    classes : of a classification: the negative and the positive class, as ``("CN", "AD")``.
    shape : voxels of the images (X, Y, Z) on the 1 mm MNI grid; None where the file does not say.
    median : brain median of the images before intensities became x / median - 1; outside the brain they are -1.
    harmonized : the harmonization model that the training images had gone through; empty for none.
    trained_range : least and largest target in training; None where unknown.

    """

    task: Literal["regression", "classification"] = "regression"
    target: str = "age"
    unit: str = "years"
    classes: tuple[str, str] | None = None
    shape: tuple[int, int, int] | None = None
    median: float = MEDIAN
    harmonized: str = ""
    trained_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse what is not one of the two tasks."""
        if self.task not in ("regression", "classification"):
            raise RequestError(f"there is no prediction task {self.task!r}", "use regression or classification")
        if self.classes is not None and (len(self.classes) != 2 or self.classes[0] == self.classes[1]):
            raise RequestError("a classification has two classes", "name the negative and the positive one")
        if not self.median > 0:
            raise RequestError(f"the brain median of the images cannot be {self.median:g}", "use 500, or 1")

    @property
    def quantity(self) -> str:
        """What one prediction is, with its unit: the header of its column."""
        if self.task == "classification":
            return f"probability of {self.classes[1]}" if self.classes else "probability"
        return f"predicted {self.target}" + (f" ({self.unit})" if self.unit else "")

    def value(self, output: float) -> float:
        """Return the prediction of a network's output: the number itself, or the probability of the positive class."""
        if self.task == "regression":
            return output
        return float(torch.sigmoid(torch.tensor(output, dtype=torch.float64)))

    def class_of(self, value: float) -> str:
        """Return the name of the likelier class, ``0`` or ``1`` where the classes have no names."""
        return (self.classes or ("0", "1"))[value >= 0.5]

    def to_text(self) -> str:
        """Return the specification as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> PredictorSpec:
        """Read what :meth:`to_text` wrote, ignoring keys of later versions; ValueError for anything else."""
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("no keys")
        known = {item.name: content[item.name] for item in fields(cls) if item.name in content}
        for name in ("classes", "shape", "trained_range"):
            if known.get(name) is not None:
                known[name] = tuple(known[name])
        return cls(**known)


def save_prediction_model(path: str | Path, state: dict[str, torch.Tensor], spec: PredictorSpec) -> Path:
    """Write a network's state dict with what it predicts; appears whole or not at all."""
    from safetensors.torch import save

    from ..volume import atomic_path

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(kept, metadata={_KEY: spec.to_text()}))
    return path


def load_prediction_model(path: str | Path, stated: dict[str, Any] | None = None) -> tuple[Predictor, PredictorSpec]:
    """Load a network in evaluation mode and what it predicts.

    Parameters
    ----------
    path : ``.safetensors`` of this project, or the Keras ``.h5`` of a training of the published program.
    stated : fields of :class:`PredictorSpec` that the user gives. They are needed for a file that does not say
        (``task`` at least), and must not contradict one that does.

    Raises
    ------
    WeightsError : the file is missing, broken or of another network.
    RequestError : the task is unknown, or what is stated contradicts the file.

    """
    path, given = Path(path), {key: value for key, value in (stated or {}).items() if value is not None}
    network = load_predictor(path)
    spec = _read_spec(path)
    if spec is None:
        spec = _stated_spec(path, network, given)
    else:
        for key, value in given.items():
            own = getattr(spec, key)
            if own != value:
                raise RequestError(
                    f"{path.name} says that its {key} is {own!r}, not {value!r}", "leave out what the file says itself"
                )
    _check_shape(path, network, spec)
    return network, spec


def _stated_spec(path: Path, network: Predictor, given: dict[str, Any]) -> PredictorSpec:
    if "task" not in given:
        raise RequestError(
            f"{path.name} does not say whether it predicts a number or a class",
            "add --task regression or --task classification",
        )
    if given["task"] == "classification":
        given = {"target": "diagnosis", "unit": "", **given}
    if "shape" not in given and network.flat == Predictor.flat_size(PUBLISHED_SHAPE):
        given = {**given, "shape": PUBLISHED_SHAPE}
    return PredictorSpec(**given)


def _check_shape(path: Path, network: Predictor, spec: PredictorSpec) -> None:
    if spec.shape is None:
        return
    try:
        fits = len(spec.shape) == 3 and Predictor.flat_size(spec.shape) == network.flat
    except InputError:
        fits = False
    if not fits:
        sides = "x".join(map(str, spec.shape))
        raise WeightsError(
            f"{path.name} is not for images of {sides} voxels: its last layer takes {network.flat} features, "
            f"{network.flat // PREDICTOR_FEATURES[-1]} positions",
            "check the weights and their image size",
        )


def _read_spec(path: Path) -> PredictorSpec | None:
    """Return what a file says of itself; None when it says nothing."""
    if path.suffix.lower() != ".safetensors":
        return None
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_KEY)
    if text is None:
        return None
    try:
        return PredictorSpec.from_text(text)
    except (ValueError, TypeError, RequestError) as error:
        raise WeightsError(
            f"what {path.name} says of its predictions cannot be read", "use a file of `mri-deep-tools train predictor`"
        ) from error
