"""Harmonization from the outside: :func:`harmonize` for one scan, :class:`Harmonizer` for many with one loading.

Reproduces IGUANe (Roca et al., Medical Image Analysis 99, 2025) with its published generator. Unlike the published
program it needs no FSL, ANTs or HD-BET, and gives the result on the scan's own grid. ``compatible=True`` gives the
published output: the crop of the template's grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..inference import peak_memory_bytes, pick_device, pick_precision, set_threads
from ..kept import file_key, kept
from ..progress import Progress, ProgressCallback
from ..registration import Registration
from ..volume import Volume, read_volume
from .change import Change
from .model_choice import HarmonizeOptions, find_weights
from .network import Generator

__all__ = ["HarmonizationResult", "HarmonizeOptions", "Harmonizer", "harmonize"]

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
        self.choice = find_weights(self.options)
        self.model, self.weights = self.choice.model, self.choice.path
        self._network: Generator | None = None

    def harmonize(
        self,
        scan: str | Path | Volume,
        progress: ProgressCallback | Progress | None = None,
        *,
        mask: str | Path | Volume | None = None,
        age: float | None = None,
    ) -> HarmonizationResult:
        """Harmonize one scan; see :func:`harmonize`. ``mask`` and ``age`` are those of this scan alone."""
        from .pipeline import run

        own: dict[str, Any] = {name: value for name, value in (("mask", mask), ("age", age)) if value is not None}
        options, progress = (
            replace(self.options, **own),
            progress if isinstance(progress, Progress) else Progress(progress),
        )
        skipped = (_CHAIN if options.preprocessed else ()) + (
            () if options.tissues else ("tissues before", "tissues after")
        )
        progress.plan([(name, weight) for name, weight in STAGES.items() if name not in skipped])
        before = len(progress.warnings), dict(progress.seconds)
        threads = set_threads(options.threads)
        self._tell(options.age, progress)
        with progress.stage("read"):
            if not isinstance(scan, Volume):
                refuse_harmonized(Path(scan), unchecked=options.unchecked)
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

    def _tell(self, age: float | None, progress: Progress) -> None:
        """Warn where the model is not the expected one, or was not made for a person of this age."""
        if self.choice.note:
            progress.warn(self.choice.note)
        ages = self.choice.age_years
        if ages is not None and age is not None and not ages[0] <= age <= ages[1]:
            progress.warn(
                f"the model {self.model} was trained on people of {ages[0]:g} to {ages[1]:g} years; "
                f"an age of {age:g} years is outside"
            )

    def _load(self) -> Generator:
        if self._network is None:
            from .weights import load_generator

            self._network = kept(("harmonize", file_key(self.weights)), lambda: load_generator(self.weights))
        return self._network


def harmonize(
    scan: str | Path | Volume,
    *,
    model: str | None = None,
    weights: str | Path | None = None,
    preprocessed: bool = False,
    mask: str | Path | Volume | None = None,
    skull_stripped: bool = False,
    hd_bet: bool = False,
    bias_correction: bool = True,
    registered: bool = False,
    transform: str | Path | None = None,
    template: str | Path | None = None,
    space: Literal["native", "template"] = "native",
    keep_head: bool = False,
    tissues: bool = False,
    age: float | None = None,
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
    model : name from the list of models; None takes ``iguane`` where it is installed, else the bundled model.
    weights : in place of ``model``: a weights file (Keras .h5 or .safetensors) or the folder of a model.
    preprocessed : the image went through the published preparation (brain only, template space, median 500 or 1),
        cropped or on the whole grid; the result is on its grid.
    mask : brain mask on the scan's grid; None finds the brain with SynthSegment.
    skull_stripped : the scan shows nothing but the brain: voxels above 0 are its mask.
    hd_bet : find the brain with HD-BET, which must be on this machine.
    bias_correction : N4, with the parameters that match ANTs.
    registered : the scan lies in MNI space already.
    transform : rigid ITK transform, template to scan, in place of the registration.
    template : brain to register to; None takes the shipped ICBM 152 template, ``fsl`` that in ``$FSLDIR``.
    space : ``"native"`` = the scan's own grid, ``"template"`` = the MNI 182 x 218 x 182 grid.
    keep_head : native space only: put the brain back into its head, mixed over 3 mm below the border of the brain.
    tissues : segment before and after and compare tissue volumes.
    age : of the person, in years; only for a warning where the model was not made for it.
    unchecked : go on where the registration or the contrast is implausible, or the scan was harmonized before.
    compatible : the published output: cropped template grid, fixed intensity unit, axes as stored.
    device : ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``.
    threads : CPU threads; None = all that this process may use.
    precision : ``auto`` and ``fp32`` are the same; ``bf16`` and ``fp16`` (CUDA) change intensities slightly.
    progress : receives events; an exception it raises ends the work.

    Raises
    ------
    RequestError, InputError, WeightsError, DependencyError, OutOfMemoryError : see :mod:`mri_deep_tools.errors`.

    """
    keywords = {name: value for name, value in locals().items() if name not in ("scan", "progress")}
    return Harmonizer(**keywords).harmonize(scan, progress)


def refuse_harmonized(path: Path, *, unchecked: bool) -> None:
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
