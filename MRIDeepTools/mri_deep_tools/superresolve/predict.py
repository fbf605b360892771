"""Super-resolution from the outside: :func:`superresolve` for one pair, :class:`SuperResolver` for many.

Reproduces BABY-AI (A. Lennartsson, Lund University) with its published weights: an isotropic T1w and a thick-slice T2w
scan of one infant give a 1 mm isotropic T2w. Unlike the published program, scans need not be on the template's grid,
the result has the grid and the intensities of the T2w scan, and it is checked against the measured slices.
``compatible=True`` gives the published output: padded grid, 0..1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import InputError, RequestError, WeightsError
from ..inference import peak_memory_bytes, pick_device, pick_precision, set_threads
from ..kept import file_key, kept
from ..progress import Progress, ProgressCallback
from ..volume import Volume, read_volume
from .atlas import find_template
from .frames import Resampling
from .honesty import HonestyCheck
from .slices import SliceGeometry

if TYPE_CHECKING:
    from .network import ResUNet

__all__ = [
    "DEFAULT_MODEL",
    "LITE_MODEL",
    "SuperResolutionResult",
    "SuperResolveOptions",
    "SuperResolver",
    "read_scan",
    "superresolve",
]

DEFAULT_MODEL, LITE_MODEL = "baby-ai", "superresolve-lite"
STAGES = (("read", 1.0), ("align", 8.0), ("load", 3.0), ("super-resolve", 60.0), ("check", 3.0))


@dataclass(frozen=True)
class SuperResolveOptions:
    """Options of :func:`superresolve`, which explains them."""

    model: str | None = None
    weights: str | Path | None = None
    registered: bool = False
    template: str | Path | None = None
    space: Literal["native", "template"] = "native"
    resampling: Resampling = "geometric"
    slice_direction: str | None = None
    slice_thickness: float | None = None
    slice_spacing: float | None = None
    window: str = "uniform"
    intensities: Literal["scan", "unit"] = "scan"
    compatible: bool = False
    device: str = "auto"
    threads: int | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Check what can be checked without files (RequestError)."""
        from .patches import patch_window

        if self.model is not None and self.weights is not None:
            raise RequestError("a model and a weights file were given", "give one of the two")
        for name, value, known in (
            ("space", self.space, ("native", "template")),
            ("resampling", self.resampling, ("geometric", "as-trained")),
            ("intensities", self.intensities, ("scan", "unit")),
        ):
            if value not in known:
                raise RequestError(f"unknown {name} {value!r}", f"use one of {', '.join(known)}")
        if self.space == "template" and self.template is None:
            raise RequestError("a result in the space of a template needs one", "give --template FILE")
        if self.template is not None and self.resampling == "as-trained":
            raise RequestError("resampling as trained works along the slices of the scan", "leave the template out")
        if self.compatible and (self.template is not None or not self.registered):
            raise RequestError(
                "the published program takes scans that are registered to the template already",
                "add --registered and leave --template out, or drop --compatible",
            )
        patch_window(self.window)

    def told(self) -> dict[str, Any]:
        """Return the options for the record."""
        return asdict(self)


@dataclass(frozen=True)
class SuperResolutionResult:
    """What one pair gave.

    Attributes
    ----------
    image : isotropic T2w at 1 mm, float32 in intensities of the scan (float64 on 0..1 with ``compatible``). Synthetic.
    interpolated : the T2w scan on the grid of ``image`` as the network saw it, before scaling; for comparison.
    slices : how the T2w scan was acquired; None where that is not known.
    honesty : the result against the measured slices; None where the slices are not known.
    t2_to_t1 : (4, 4) rigid transform, world points (RAS, mm) of the T2w scan to the T1w scan's; None without T1w.
    overlap, mutual_information : how well the aligned scans fit; see :func:`.frames.plausibility`. None without T1w.
    seconds : wall-clock seconds per stage.
    peak_memory_bytes : highest memory use of the process (of the device, on a GPU).
    model, weights : name of the model and its file.
    device, threads, precision : what it ran on.
    warnings : what a person should know.

    """

    image: Volume
    interpolated: Volume
    slices: SliceGeometry | None
    honesty: HonestyCheck | None
    t2_to_t1: np.ndarray | None
    overlap: float | None
    mutual_information: float | None
    seconds: dict[str, float]
    peak_memory_bytes: int
    model: str
    weights: Path
    device: str
    threads: int
    precision: str
    warnings: tuple[str, ...] = field(default_factory=tuple)


class SuperResolver:
    """Super-resolves one pair after the other with a network that is loaded once.

    Takes the options of :func:`superresolve` as keywords, or one :class:`SuperResolveOptions`. The weights are found
    at construction (so a missing file is known before any work) and read at the first pair.
    """

    def __init__(self, options: SuperResolveOptions | None = None, **keywords: Any) -> None:
        self.options = options if options is not None else SuperResolveOptions(**keywords)
        self.device = pick_device(self.options.device)
        self.dtype = pick_precision(self.options.precision, self.device)
        self.model, self.weights, self.note = _find_weights(self.options)
        self.template = None if self.options.template is None else find_template(self.options.template)
        self._network: ResUNet | None = None

    def superresolve(
        self,
        t2: str | Path | Volume,
        t1: str | Path | Volume | None = None,
        progress: ProgressCallback | Progress | None = None,
    ) -> SuperResolutionResult:
        """Super-resolve one pair, or a T2w scan alone; see :func:`superresolve`."""
        from .pipeline import run

        options, progress = self.options, progress if isinstance(progress, Progress) else Progress(progress)
        progress.plan(STAGES)
        before = len(progress.warnings), dict(progress.seconds)
        threads = set_threads(options.threads)
        if self.note:
            progress.warn(self.note)
        with progress.stage("read"):
            scans = read_scan(t2, "T2w", progress), None if t1 is None else read_scan(t1, "T1w", progress)
            template = None if self.template is None else read_scan(self.template, "template", progress)
        precision = str(self.dtype).removeprefix("torch.")
        progress.device(str(self.device), threads=threads, precision=precision, model=self.model)
        path = None if isinstance(t2, Volume) else Path(t2)
        outcome = run(*scans, template, path, self._load, options, self.device, self.dtype, progress)
        self.device = pick_device(outcome.device)
        seconds = {name: value - before[1].get(name, 0.0) for name, value in progress.seconds.items()}
        return SuperResolutionResult(
            image=outcome.image,
            interpolated=outcome.interpolated,
            slices=outcome.slices,
            honesty=outcome.honesty,
            t2_to_t1=outcome.t2_to_t1,
            overlap=outcome.overlap,
            mutual_information=outcome.mutual_information,
            seconds={name: value for name, value in seconds.items() if value > 0},
            peak_memory_bytes=peak_memory_bytes(self.device),
            model=self.model,
            weights=self.weights,
            device=outcome.device,
            threads=threads,
            precision=precision,
            warnings=tuple(progress.warnings[before[0] :]),
        )

    def _load(self) -> ResUNet:
        from .weights import load_network

        if self._network is None:
            self._network = kept(("superresolve", file_key(self.weights)), lambda: load_network(self.weights))
        return self._network


def superresolve(
    t2: str | Path | Volume,
    t1: str | Path | Volume | None = None,
    *,
    model: str | None = None,
    weights: str | Path | None = None,
    registered: bool = False,
    template: str | Path | None = None,
    space: Literal["native", "template"] = "native",
    resampling: Resampling = "geometric",
    slice_direction: str | None = None,
    slice_thickness: float | None = None,
    slice_spacing: float | None = None,
    window: str = "uniform",
    intensities: Literal["scan", "unit"] = "scan",
    compatible: bool = False,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    progress: ProgressCallback | Progress | None = None,
) -> SuperResolutionResult:
    """Turn a thick-slice T2w scan into a 1 mm isotropic one, guided by an isotropic T1w scan of the same person.

    Parameters
    ----------
    t2, t1 : image files, folders with one DICOM series each, or Volumes. Without ``t1`` the model must be one that
        was trained for that (``superresolve-lite``).
    model : name from the list of models; None takes ``baby-ai`` where it is installed, else ``superresolve-lite``.
    weights : in place of ``model``: a ``.pth`` of the published network, or ``.safetensors`` of our training.
    registered : the scans lie in one world space already, so nothing is registered. On one grid of 1 mm voxels they
        are used as they are (the published form).
    template : work in the frame of this 1 mm image, to which the T1w is registered rigidly: a file, or the name of an
        atlas in the list of models (``baby-ai-atlas``).
    space : of the result, ``native`` = the T2w scan's own frame (its own grid where that is isotropic at 1 mm),
        ``template``.
    resampling : of the T2w along its slices, ``geometric`` or ``as-trained``; see :func:`.frames.native_frame`.
    slice_direction, slice_thickness, slice_spacing : in place of what the file says; the spacing is for scans that
        were interpolated from thick slices already.
    window : ``uniform`` averages overlapping patches as published, ``gaussian`` without seams.
    intensities : ``scan`` maps the result back to the T2w scan's intensities, ``unit`` leaves it on 0..1.
    compatible : the published output to the last rule: padded grid, float64 on 0..1; needs ``registered``.
    device : ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``.
    threads : CPU threads; None = all that this process may use.
    precision : ``auto`` and ``fp32`` are the same; ``bf16`` and ``fp16`` (CUDA) change intensities slightly.
    progress : receives events; an exception it raises ends the work.

    Raises
    ------
    RequestError, InputError, GeometryError, WeightsError, OutOfMemoryError : see :mod:`mri_deep_tools.errors`.

    """
    keywords = {name: value for name, value in locals().items() if name not in ("t2", "t1", "progress")}
    return SuperResolver(**keywords).superresolve(t2, t1, progress)


def _find_weights(options: SuperResolveOptions) -> tuple[str, Path, str]:
    """Return name and file of the model without reading it, and a note when it is not the one to be expected."""
    if options.weights is not None:
        path = Path(options.weights)
        if not path.is_file():
            raise WeightsError(f"weights file {path.name} does not exist", "check the name")
        return path.name, path, ""
    from ..models import get_model, model_path, model_status

    name, note = options.model or DEFAULT_MODEL, ""
    if options.model is None and not options.compatible and model_status(DEFAULT_MODEL) == "absent":
        name = LITE_MODEL
        note = (
            f"the small bundled model {LITE_MODEL} is used, because {DEFAULT_MODEL} is not installed; "
            "see 'mri-deep-tools models list' for where it is"
        )
    if get_model(name).task != "superresolve":
        raise RequestError(f"the model {name} is not for super-resolution", "see `mri-deep-tools models list`")
    return name, model_path(name), note


def read_scan(scan: str | Path | Volume, role: str, progress: Progress) -> Volume:
    """Return a 3-D volume with finite real values; the first frame of a 4-D one."""
    volume = scan if isinstance(scan, Volume) else read_volume(scan, on_warning=progress.warn)
    name, data = volume.source.file_name or f"the {role} scan", volume.data
    if data.ndim == 4:
        if data.shape[3] > 1:
            progress.warn(f"{name} has {data.shape[3]} frames; the first is used")
        data = data[..., 0]
    if min(data.shape) < 2:
        raise InputError(f"{name} has a single slice (shape {data.shape})", "give a volume")
    if data.dtype.kind not in "biuf":
        raise InputError(f"{name} holds values of type {data.dtype}, not real numbers", "give one real-valued volume")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        progress.warn(f"{name} has NaN or infinite voxels, which were set to 0")
        data = np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0)
    return volume.with_data(data.astype(np.uint8) if data.dtype == np.bool_ else data)
