"""Prediction from the outside: :func:`predict_scan` for one scan, :class:`ScanPredictor` for many with one loading.

The prediction network of IGUANe (Roca et al., Medical Image Analysis 99, 2025) gives an age or the probability of a
diagnosis from one T1w brain on the MNI grid. Its weights were never published: predictions need a model of one's own,
from ``mri-deep-tools train predictor`` or from a training of the published program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..errors import InputError, RequestError, WeightsError
from ..inference import (
    available_memory,
    peak_memory_bytes,
    pick_device,
    pick_precision,
    require_memory,
    run_with_fallback,
    set_threads,
)
from ..kept import file_key, kept
from ..progress import Progress, ProgressCallback
from ..volume import Volume, read_volume
from .model_choice import HarmonizeOptions
from .network import PREDICTOR_FEATURES, Predictor
from .predict import Harmonizer, refuse_harmonized
from .predictor_images import network_image
from .predictor_prepare import make_harmonizer, prepare_scan
from .predictor_weights import PredictorSpec, load_prediction_model

__all__ = ["NO_MODEL", "PredictOptions", "Prediction", "ScanPredictor", "predict_scan"]

NO_MODEL = (
    "no prediction model was named, and IGUANe's were never published",
    "give the weights of a training with --weights FILE; `mri-deep-tools train predictor` makes them",
)
STAGES = {"read": 2.0, "brain mask": 60.0, "bias field": 20.0, "registration": 15.0, "prepare": 3.0}
SMALLEST_SIDE = 2 ** len(PREDICTOR_FEATURES)
_PROGRAM_BYTES = 200 << 20
_CHAIN = ("mask", "skull_stripped", "hd_bet", "bias_correction", "registered", "transform", "template", "unchecked")


@dataclass(frozen=True)
class PredictOptions:
    """Options of :func:`predict_scan`, which explains them; contradictions raise RequestError."""

    model: str | None = None
    weights: str | Path | None = None
    task: Literal["regression", "classification"] | None = None
    target: str | None = None
    unit: str | None = None
    classes: Sequence[str] | None = None
    shape: Sequence[int] | None = None
    preprocessed: bool = False
    harmonization: str | None = None
    mask: str | Path | Volume | None = None
    skull_stripped: bool = False
    hd_bet: bool = False
    bias_correction: bool = True
    registered: bool = False
    transform: str | Path | None = None
    template: str | Path | None = None
    unchecked: bool = False
    compatible: bool = False
    device: str = "auto"
    threads: int | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if self.model is not None and self.weights is not None:
            raise RequestError("a model and a weights file were both given", "give one of them")
        if self.model is None and self.weights is None:
            raise RequestError(*NO_MODEL)
        if self.shape is not None and len(tuple(self.shape)) != 3:
            raise RequestError("the shape of the images needs three numbers", "give X, Y and Z in voxels")
        self.chain()

    def chain(self) -> HarmonizeOptions:
        """Return the options of the preparation."""
        own = {name: getattr(self, name) for name in (*_CHAIN, "preprocessed", "device", "threads", "precision")}
        return HarmonizeOptions(**own, compatible=self.compatible and self.preprocessed)

    def stated(self) -> dict[str, Any]:
        """Return what the user says of the model."""
        facts: dict[str, Any] = {"task": self.task, "target": self.target, "unit": self.unit}
        for name in ("classes", "shape"):
            value = getattr(self, name)
            facts[name] = None if value is None else tuple(value)
        return facts

    def told(self) -> dict[str, Any]:
        """Return the options for the record."""
        plain = asdict(self) if not isinstance(self.mask, Volume) else {**self.__dict__, "mask": "given"}
        return {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}


@dataclass(frozen=True)
class Prediction:
    """What one scan gave.

    Attributes
    ----------
    value : the number, in ``spec.unit``; for a classification the probability (0 to 1) of the positive class.
    label : the likelier class; empty for a number.
    output : what the network gave: the number, or the logit.
    spec : what the model predicts.
    prepared : the brain that was predicted from, on the cropped template grid.
    stages : what each stage of the preparation did.
    seconds : wall-clock seconds per stage.
    peak_memory_bytes : highest memory use of the process (of the device, on a GPU).
    model, weights : name of the model and its file.
    device, threads, precision : what it ran on.
    warnings : what a person should know.

    """

    value: float
    label: str
    output: float
    spec: PredictorSpec
    prepared: Volume
    stages: dict[str, str]
    seconds: dict[str, float]
    peak_memory_bytes: int
    model: str
    weights: Path
    device: str
    threads: int
    precision: str
    warnings: tuple[str, ...] = field(default_factory=tuple)


class ScanPredictor:
    """Predicts from one scan after the other with networks that are loaded once.

    Takes the options of :func:`predict_scan` as keywords, or one :class:`PredictOptions`. The model is loaded at
    construction, so that what is wrong with it is known before any work.
    """

    def __init__(self, options: PredictOptions | None = None, **keywords: Any) -> None:
        self.options = options if options is not None else PredictOptions(**keywords)
        self.device = pick_device(self.options.device)
        self.dtype = pick_precision(self.options.precision, self.device)
        self.model, self.weights = _find_weights(self.options)
        stated = self.options.stated()
        key = ("predict", file_key(self.weights), *stated.items())
        self.network, self.spec = kept(key, lambda: load_prediction_model(self.weights, stated))
        self.harmonizer = self._harmonizer()

    def predict(
        self,
        scan: str | Path | Volume,
        progress: ProgressCallback | Progress | None = None,
        *,
        mask: str | Path | Volume | None = None,
    ) -> Prediction:
        """Predict from one scan; see :func:`predict_scan`. ``mask`` is that of this scan alone."""
        options, progress = self.options, progress if isinstance(progress, Progress) else Progress(progress)
        stages = STAGES if not options.preprocessed else {"read": STAGES["read"]}
        progress.plan([*stages.items(), ("predict", 5.0)])
        before = len(progress.warnings), dict(progress.seconds)
        threads = set_threads(options.threads)
        with progress.stage("read"):
            if self.harmonizer is not None and not isinstance(scan, Volume):
                refuse_harmonized(Path(scan), unchecked=options.unchecked)
            volume = scan if isinstance(scan, Volume) else read_volume(scan, on_warning=progress.warn)
        progress.device(str(self.device), threads=threads, precision=_name(self.dtype), model=self.model)
        prepared, done = self._prepared(volume, mask, progress)
        with progress.stage("predict"):
            spec, fixed = self.spec, options.compatible
            seen = network_image(prepared, spec.shape, spec.median, compatible=fixed, warn=progress.warn)
            self._require_size(seen, prepared.source.name or "the image")
            output = self._run(seen, progress)
        value = spec.value(output)
        self._judge(value, progress)
        seconds = {name: spent - before[1].get(name, 0.0) for name, spent in progress.seconds.items()}
        return Prediction(
            value=value,
            label=spec.class_of(value) if spec.task == "classification" else "",
            output=output,
            spec=spec,
            prepared=prepared,
            stages=done,
            seconds={name: spent for name, spent in seconds.items() if spent > 0},
            peak_memory_bytes=peak_memory_bytes(self.device),
            model=self.model,
            weights=self.weights,
            device=str(self.device),
            threads=threads,
            precision=_name(self.dtype),
            warnings=tuple(progress.warnings[before[0] :]),
        )

    def _harmonizer(self) -> Harmonizer | None:
        """Return what harmonizes before the prediction: what was asked for, else what the model was trained on."""
        options = self.options
        choice = options.harmonization
        if choice is None:
            choice = "" if options.preprocessed else self.spec.harmonized
        return make_harmonizer(options.chain(), choice) if choice not in ("", "none") else None

    def _prepared(
        self, volume: Volume, mask: str | Path | Volume | None, progress: Progress
    ) -> tuple[Volume, dict[str, str]]:
        """Return the brain to predict from, and what was done to the scan."""
        if self.options.preprocessed and self.harmonizer is None:
            return volume, {"preparation": "done before"}
        options = self.options.chain() if mask is None else replace(self.options.chain(), mask=mask)
        found = prepare_scan(volume, options, progress, self.harmonizer)
        return found.image, found.stages

    def _require_size(self, image: np.ndarray, name: str) -> None:
        """Refuse an image (X, Y, Z) of a size that the network was not made for."""
        if min(image.shape) < SMALLEST_SIDE or Predictor.flat_size(image.shape) != self.network.flat:
            sides = "x".join(map(str, image.shape))
            raise InputError(
                f"{name} has {sides} voxels, for which {self.model} was not made",
                "give an image of the size that the model was trained on, or state that size (--shape)",
            )

    def _run(self, image: np.ndarray, progress: Progress) -> float:
        """Return the network's output for an image (X, Y, Z), background -1."""
        if self.device.type == "cpu":
            hint = "close other programs or use a machine with more memory"
            require_memory(predictor_bytes(image.shape) + _PROGRAM_BYTES, available_memory(), "the prediction", hint)

        def work(device: torch.device) -> torch.Tensor:
            dtype = self.dtype if device == self.device else torch.float32
            self.device = device
            layout = torch.channels_last_3d if device.type == "cpu" else torch.contiguous_format  # a quarter less time
            network = self.network.to(device, memory_format=layout)  # type: ignore[call-overload]
            mixed = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False), mixed:
                return network(torch.from_numpy(image)[None, None].to(device)).float().cpu()

        output = float(run_with_fallback(work, self.device, progress)[0])
        if not math.isfinite(output):
            raise InputError("the network's output is not a number", "check the weights and the image")
        return output

    def _judge(self, value: float, progress: Progress) -> None:
        """Warn where a prediction lies beyond what the model saw in training."""
        span = self.spec.trained_range
        if span is not None and not span[0] <= value <= span[1]:
            progress.warn(
                f"the prediction {value:.1f} {self.spec.unit} lies outside the range of the training data, "
                f"{span[0]:g} to {span[1]:g}"
            )


def predict_scan(
    scan: str | Path | Volume,
    *,
    model: str | None = None,
    weights: str | Path | None = None,
    task: Literal["regression", "classification"] | None = None,
    target: str | None = None,
    unit: str | None = None,
    classes: Sequence[str] | None = None,
    shape: Sequence[int] | None = None,
    preprocessed: bool = False,
    harmonization: str | None = None,
    mask: str | Path | Volume | None = None,
    skull_stripped: bool = False,
    hd_bet: bool = False,
    bias_correction: bool = True,
    registered: bool = False,
    transform: str | Path | None = None,
    template: str | Path | None = None,
    unchecked: bool = False,
    compatible: bool = False,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    progress: ProgressCallback | Progress | None = None,
) -> Prediction:
    """Predict an age, or the probability of a diagnosis, from a T1w scan. Research use only.

    Parameters
    ----------
    scan : image file, folder with one DICOM series, or a Volume; of a 4-D image the first frame is taken.
    model, weights : name from the list of models, or a weights file (Keras .h5, .safetensors); one of them.
    task, target, unit, classes, shape : what a Keras file predicts and from images of what size, since it does not say
        itself: ``"regression"`` or ``"classification"``; ``age`` and ``years``; the negative and the positive class.
    preprocessed : the image is a brain in template space with a median of 500 or 1, cropped or on the whole grid.
        Without it the scan of a head goes through the same preparation as in :func:`.predict.harmonize`.
    harmonization : model or weights file to harmonize with before the prediction; None takes what the model says of
        its training images (nothing, if ``preprocessed``), ``"none"`` leaves it out.
    mask, skull_stripped, hd_bet, bias_correction, registered, transform, template, unchecked : stages of the
        preparation, as in :func:`.predict.harmonize`.
    compatible : of a preprocessed image take axes, size and intensities as they are, as published.
    device, threads, precision : as in :func:`.predict.harmonize`.
    progress : receives events; an exception it raises ends the work.

    Raises
    ------
    RequestError, InputError, WeightsError, OutOfMemoryError : see :mod:`mri_deep_tools.errors`.

    """
    keywords = {name: value for name, value in locals().items() if name not in ("scan", "progress")}
    return ScanPredictor(**keywords).predict(scan, progress)


def predictor_bytes(shape: Sequence[int]) -> int:
    """Return what one prediction takes at most beside its input: four tensors of the first block."""
    return math.prod(shape) * 4 * 4 * PREDICTOR_FEATURES[0]


def _find_weights(options: PredictOptions) -> tuple[str, Path]:
    """Return name and file of the model; WeightsError, with the way to get it, where it is not on this machine."""
    from ..models import get_model, list_models, model_path

    if options.weights is not None:
        path = Path(options.weights)
        if not path.is_file():
            raise WeightsError(f"weights file {path.name} does not exist", "check the name")
        return path.name, path
    name = options.model or ""
    known = [model.name for model in list_models("predict")]
    if not known:
        raise RequestError("the list of models has no prediction model, since none was published", NO_MODEL[1])
    if get_model(name).task != "predict":
        raise RequestError(f"the model {name} does not predict", f"use {' or '.join(known)}")
    return name, model_path(name)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
