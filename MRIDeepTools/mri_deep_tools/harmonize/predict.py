"""Harmonization from the outside: :func:`harmonize` for one scan, :class:`Harmonizer` for many with one loading.

Reproduces IGUANe (Roca et al., Medical Image Analysis 99, 2025) with its published generator. Unlike the published
program it needs no FSL, ANTs or HD-BET, and gives the result on the scan's own grid. ``compatible=True`` gives the
published output: the crop of the template's grid.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError, RequestError, WeightsError
from ..inference import peak_memory_bytes, pick_device, pick_precision, set_threads
from ..progress import Progress, ProgressCallback
from ..registration import Registration
from ..volume import Volume, read_volume
from .change import Change
from .network import Generator

__all__ = ["DEFAULT_MODEL", "HarmonizationResult", "HarmonizeOptions", "Harmonizer", "harmonize"]

DEFAULT_MODEL = "iguane"
STAGES = {
    "read": 2.0,
    "brain mask": 60.0,
    "bias field": 20.0,
    "registration": 15.0,
    "prepare": 3.0,
    "harmonize": 15.0,
    "compare": 5.0,
    "tissues before": 40.0,
    "tissues after": 40.0,
    "grid": 4.0,
}
_CHAIN = ("brain mask", "bias field", "registration")


@dataclass(frozen=True)
class HarmonizeOptions:
    """Options of :func:`harmonize`, which explains them; contradictions raise RequestError."""

    model: str | None = None
    weights: str | Path | None = None
    preprocessed: bool = False
    mask: str | Path | Volume | None = None
    skull_stripped: bool = False
    bias_correction: bool = True
    registered: bool = False
    transform: str | Path | None = None
    template: str | Path | None = None
    space: Literal["native", "template"] = "native"
    keep_head: bool = False
    tissues: bool = False
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
        if self.registered and self.transform is not None:
            raise RequestError("a transform was given for a scan that is registered", "give one of them")
        if self.keep_head and (self.space == "template" or self.skull_stripped or self.compatible):
            raise RequestError("the head is kept only in native space, around a scan that has one", "drop one option")
        made = ("mask", "skull_stripped", "registered", "transform", "template", "keep_head")
        extra = [name for name in made if getattr(self, name) not in (None, False)]
        if self.preprocessed and extra:
            raise RequestError(f"a preprocessed image needs no {extra[0].replace('_', ' ')}", "drop one of the two")

    def told(self) -> dict[str, Any]:
        """Return the options for the record."""
        plain = asdict(self) if not isinstance(self.mask, Volume) else {**self.__dict__, "mask": "given"}
        return {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}


@dataclass(frozen=True)
class HarmonizationResult:
    """What one scan gave.

    Attributes
    ----------
    image : float32, brain median near that of the reference, on the chosen grid; 0 outside the brain.
    change : harmonized minus normalised input, float32, on the grid of ``image``.
    figures : how much was changed, over the brain; see :class:`.change.Change`.
    prepared : what the network was given, on the cropped template grid, brain median 500.
    harmonized : what it gave, on that grid: the published output.
    mask : brain mask on the scan's grid, uint8; None for a preprocessed image.
    registration : template to scan, and how well it fits; None for a preprocessed image.
    median : of the brain before normalisation.
    tissues : volumes (mm^3) before and after, or None.
    stages : what each stage did.
    seconds : wall-clock seconds per stage.
    peak_memory_bytes : highest memory use of the process (of the device, on a GPU).
    model, weights : name of the model and its file.
    device, threads, precision : what it ran on.
    warnings : what a person should know.

    """

    image: Volume
    change: Volume
    figures: Change
    prepared: Volume
    harmonized: Volume
    mask: Volume | None
    registration: Registration | None
    median: float | None
    tissues: dict[str, dict[str, float]] | None
    stages: dict[str, str]
    seconds: dict[str, float]
    peak_memory_bytes: int
    model: str
    weights: Path
    device: str
    threads: int
    precision: str
    warnings: tuple[str, ...] = field(default_factory=tuple)


class Harmonizer:
    """Harmonizes one scan after the other with a network that is loaded once.

    Takes the options of :func:`harmonize` as keywords, or one :class:`HarmonizeOptions`. Weights are found at
    construction, so a missing file is known before any work, and read at the first scan.
    """

    def __init__(self, options: HarmonizeOptions | None = None, **keywords: Any) -> None:
        self.options = options if options is not None else HarmonizeOptions(**keywords)
        self.device = pick_device(self.options.device)
        self.dtype = pick_precision(self.options.precision, self.device)
        self.model, self.weights = _find_weights(self.options)
        self._network: Generator | None = None

    def harmonize(
        self, scan: str | Path | Volume, progress: ProgressCallback | Progress | None = None
    ) -> HarmonizationResult:
        """Harmonize one scan; see :func:`harmonize`."""
        from .pipeline import run

        options, progress = self.options, progress if isinstance(progress, Progress) else Progress(progress)
        skipped = (_CHAIN if options.preprocessed else ()) + (
            () if options.tissues else ("tissues before", "tissues after")
        )
        progress.plan([(name, weight) for name, weight in STAGES.items() if name not in skipped])
        before = len(progress.warnings), dict(progress.seconds)
        threads = set_threads(options.threads)
        with progress.stage("read"):
            if not isinstance(scan, Volume):
                _refuse_harmonized(Path(scan), unchecked=options.unchecked)
            volume = scan if isinstance(scan, Volume) else read_volume(scan, on_warning=progress.warn)
            volume = _one_frame(volume, progress)
        precision = str(self.dtype).removeprefix("torch.")
        progress.device(str(self.device), threads=threads, precision=precision, model=self.model)
        outcome = run(volume, self._load, options, self.device, self.dtype, progress)
        self.device = pick_device(outcome.device)  # a device that was too small is not tried again
        seconds = {name: value - before[1].get(name, 0.0) for name, value in progress.seconds.items()}
        return HarmonizationResult(
            **outcome.__dict__,
            seconds={name: value for name, value in seconds.items() if value > 0},
            peak_memory_bytes=peak_memory_bytes(self.device),
            model=self.model,
            weights=self.weights,
            threads=threads,
            precision=precision,
            warnings=tuple(progress.warnings[before[0] :]),
        )

    def _load(self) -> Generator:
        if self._network is None:
            from .weights import load_generator

            self._network = load_generator(self.weights)
        return self._network


def harmonize(
    scan: str | Path | Volume,
    *,
    model: str | None = None,
    weights: str | Path | None = None,
    preprocessed: bool = False,
    mask: str | Path | Volume | None = None,
    skull_stripped: bool = False,
    bias_correction: bool = True,
    registered: bool = False,
    transform: str | Path | None = None,
    template: str | Path | None = None,
    space: Literal["native", "template"] = "native",
    keep_head: bool = False,
    tissues: bool = False,
    unchecked: bool = False,
    compatible: bool = False,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    progress: ProgressCallback | Progress | None = None,
) -> HarmonizationResult:
    """Give a T1w scan of any site the intensities of the reference scanner.

    Parameters
    ----------
    scan : image file, folder with one DICOM series, or a Volume; of a 4-D image the first frame is taken.
    model : name from the list of models; None takes ``iguane``.
    weights : in place of ``model``: a weights file (Keras .h5 or .safetensors).
    preprocessed : the image went through the published preparation (brain only, template space, median 500 or 1),
        cropped or on the whole grid; the result is on its grid.
    mask : brain mask on the scan's grid; None finds the brain with SynthSegment.
    skull_stripped : the scan shows nothing but the brain: voxels above 0 are its mask.
    bias_correction : N4, with the parameters that match ANTs.
    registered : the scan lies in MNI space already.
    transform : rigid ITK transform, template to scan, in place of the registration.
    template : brain to register to; None takes the shipped ICBM 152 template.
    space : ``"native"`` = the scan's own grid, ``"template"`` = the MNI 182 x 218 x 182 grid.
    keep_head : native space only: put the brain back into its head, mixed over 3 mm below the border of the brain.
    tissues : segment before and after and compare tissue volumes.
    unchecked : go on where the registration or the contrast is implausible, or the scan was harmonized before.
    compatible : the published output: cropped template grid, fixed intensity unit, axes as stored.
    device : ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``.
    threads : CPU threads; None = all that this process may use.
    precision : ``auto`` and ``fp32`` are the same; ``bf16`` and ``fp16`` (CUDA) change intensities slightly.
    progress : receives events; an exception it raises ends the work.

    Raises
    ------
    RequestError, InputError, WeightsError, OutOfMemoryError : see :mod:`mri_deep_tools.errors`.

    """
    keywords = {name: value for name, value in locals().items() if name not in ("scan", "progress")}
    return Harmonizer(**keywords).harmonize(scan, progress)


def _find_weights(options: HarmonizeOptions) -> tuple[str, Path]:
    """Return name and file of the model; WeightsError, with the way to get it, where it is not on this machine."""
    from ..models import get_model, model_path

    if options.weights is not None:
        path = Path(options.weights)
        if not path.is_file():
            raise WeightsError(f"weights file {path.name} does not exist", "check the name")
        return path.name, path
    name = options.model or DEFAULT_MODEL
    if get_model(name).task != "harmonize":
        raise RequestError(f"the model {name} does not harmonize", f"use {DEFAULT_MODEL}")
    return name, model_path(name)


def _refuse_harmonized(path: Path, *, unchecked: bool) -> None:
    """Refuse an image whose sidecar says that this program harmonized it."""
    import json

    from ..provenance import sidecar_path

    try:
        record = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
        made = [item.get("Command") for item in record.get("GeneratedBy", ())]
    except (OSError, ValueError, AttributeError, TypeError):
        return
    outputs = {item.get("Name") for item in record.get("Outputs", ()) if isinstance(item, dict)}
    if "harmonize" in made and path.name in outputs and not unchecked:
        raise InputError(
            f"{path.name} was harmonized already, its sidecar says", "give the original scan, or add --unchecked"
        )


def _one_frame(volume: Volume, progress: Progress) -> Volume:
    """Return a 3-D volume with finite real values; the first frame of a 4-D one."""
    name, data = volume.source.name or "the image", volume.data
    if data.ndim == 4:
        if data.shape[3] > 1:
            progress.warn(f"{name} has {data.shape[3]} frames; the first is used")
        data = data[..., 0]
    if min(data.shape) < 2:
        raise InputError(f"{name} has a single slice (shape {data.shape})", "give a volume")
    if data.dtype.kind not in "biuf":
        raise InputError(f"{name} holds values of type {data.dtype}, not real numbers", "give one real-valued volume")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        count = int(np.count_nonzero(~np.isfinite(data)))
        progress.warn(f"{count} of {data.size} voxels of {name} are NaN or infinite and were set to 0")
        data = np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0)
    return volume.with_data(data)
