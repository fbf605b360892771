"""Segmentation from the outside: :func:`segment` for one scan, :class:`Segmenter` for many with one loading of weights.

Reproduces SynthSeg 1.0 and 2.0 (Billot et al., Medical Image Analysis 86, 2023; PNAS 120(9), 2023) with published
weights. The default differs from the published program where that has known faults: labels lie on the scan's own
grid, parcel volumes add up to the cortex of their hemisphere, voxels that lose every label become background, and all
flag combinations smooth alike. ``compatible=True`` brings the published behaviour back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..inference import peak_memory_bytes, pick_device, pick_precision, set_threads
from ..kept import file_key, kept
from ..progress import Progress, ProgressCallback
from ..volume import Volume, read_volume
from .model_choice import Networks, SegmentOptions, find_weights, load

if TYPE_CHECKING:
    pass

__all__ = ["SegmentOptions", "SegmentationResult", "Segmenter", "segment"]

STAGES = (("read", 1.0), ("prepare", 2.0), ("segment", 60.0), ("clean up", 5.0))
STAGE_OF_OPTION = {"qc": ("quality", 30.0), "parcellation": ("parcels", 35.0)}


@dataclass(frozen=True)
class SegmentationResult:
    """What one scan gave.

    Attributes
    ----------
    labels : int32 label codes on the chosen grid (by default the scan's own), 0 = background.
    volumes_mm3 : structure -> mm^3 from soft posteriors on the network's grid, whatever the chosen grid; version 2
        begins with "total intracranial", the 68 parcels come last when asked for.
    qc : group -> expected Dice score (0 to 1), or None; below 0.65 a scan deserves a look.
    posteriors : (X, Y, Z, C) float32 on the chosen grid, channels in the order of ``codes``, or None.
    resampled : the scan as the network's grid sees it, own axis order and intensities, or None.
    codes : label code of each channel.
    seconds : wall-clock seconds per stage.
    peak_memory_bytes : highest memory use of the process (of the device, on a GPU).
    model, weights : name of the model, and the files of its parts.
    device, threads, precision : what it ran on.
    warnings : what a person should know.
    names, sides : of the channels, where a model brought a label list of its own, else None.

    """

    labels: Volume
    volumes_mm3: dict[str, float]
    qc: dict[str, float] | None
    posteriors: Volume | None
    resampled: Volume | None
    codes: tuple[int, ...]
    seconds: dict[str, float]
    peak_memory_bytes: int
    model: str
    weights: dict[str, Path]
    device: str
    threads: int
    precision: str
    warnings: tuple[str, ...] = field(default_factory=tuple)
    names: tuple[str, ...] | None = None
    sides: tuple[str, ...] | None = None


class Segmenter:
    """Segments one scan after the other with networks that are loaded once.

    Takes the options of :func:`segment` as keywords, or one :class:`.model_choice.SegmentOptions`. Weights are found
    at construction (so a missing file is known before any work) and read at the first scan.
    """

    def __init__(self, options: SegmentOptions | None = None, **keywords: Any) -> None:
        self.options = options if options is not None else SegmentOptions(**keywords)
        self.device = pick_device(self.options.device)
        self.dtype = pick_precision(self.options.precision, self.device)
        self.weights = find_weights(self.options)
        self._networks: Networks | None = None

    def segment(
        self, scan: str | Path | Volume, progress: ProgressCallback | Progress | None = None
    ) -> SegmentationResult:
        """Segment one scan; see :func:`segment`."""
        from .pipeline import run

        options, progress = self.options, progress if isinstance(progress, Progress) else Progress(progress)
        extra = [stage for name, stage in STAGE_OF_OPTION.items() if getattr(options, name)]
        progress.plan([*STAGES, *extra, ("grid", 5.0)])
        before = len(progress.warnings), dict(progress.seconds)
        threads = set_threads(options.threads)
        if self.weights.note:
            progress.warn(self.weights.note)
        with progress.stage("read"):
            volume = scan if isinstance(scan, Volume) else read_volume(scan, on_warning=progress.warn)
            volume = _one_frame(volume, progress)
        precision = str(self.dtype).removeprefix("torch.")
        progress.device(str(self.device), threads=threads, precision=precision, model=self.weights.model)
        outcome = run(volume, self._load, options, self.device, progress)
        self.device = pick_device(outcome.device)  # a device that was too small is not tried again
        seconds = {name: value - before[1].get(name, 0.0) for name, value in progress.seconds.items()}
        return SegmentationResult(
            labels=outcome.labels,
            volumes_mm3=outcome.volumes,
            qc=outcome.qc,
            posteriors=outcome.posteriors,
            resampled=outcome.resampled,
            codes=outcome.codes,
            seconds={name: value for name, value in seconds.items() if value > 0},
            peak_memory_bytes=peak_memory_bytes(self.device),
            model=self.weights.model,
            weights=dict(self.weights.files),
            device=outcome.device,
            threads=threads,
            precision=precision,
            warnings=tuple(progress.warnings[before[0] :]),
        )

    def _load(self) -> Networks:
        if self._networks is None:
            options, files = self.options, self.weights.files
            parts = tuple((role, file_key(path)) for role, path in files.items())
            key = ("segment", parts, options.is_robust, options.version, str(self.device), self.dtype)
            self._networks = kept(key, lambda: load(options, self.weights, self.device, self.dtype))
        return self._networks


def segment(
    scan: str | Path | Volume,
    *,
    model: str | None = None,
    weights: str | Path | Mapping[str, str | Path] | None = None,
    version: str | None = None,
    parcellation: bool = False,
    robust: bool = False,
    fast: bool = False,
    ct: bool = False,
    grid: str = "native",
    crop: int | Sequence[int] | None = None,
    qc: bool = False,
    posteriors: bool = False,
    resampled: bool = False,
    compatible: bool = False,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    progress: ProgressCallback | Progress | None = None,
) -> SegmentationResult:
    """Label the structures of the brain in one scan of any contrast and resolution.

    Parameters
    ----------
    scan : image file, folder with one DICOM series, or a Volume; of a 4-D image the first frame is taken.
    model : name from the list of models; None takes the best that is on this machine.
    weights : in place of ``model``: a weights file, a folder with the published files, or a mapping from
        ``segmentation``, ``parcellation``, ``qc`` to files. Other parts are looked for beside a named file first.
    version : ``"1.0"`` or ``"2.0"``; weights of the other version are refused.
    parcellation : divide the cortex into 68 Desikan-Killiany parcels.
    robust : the chain of three networks for scans of low quality (no flip averaging, no smoothing).
    fast : no flip averaging, and a threshold in place of the topological clean-up: about half the time.
    ct : clip intensities to 0..80 Hounsfield units.
    grid : ``"native"`` = labels on the scan's own grid, ``"1mm"`` = on the network's grid (the published output).
    crop : one or three sides, in voxels of the network's grid, of a centred crop to work on.
    qc : predict quality scores.
    posteriors, resampled : give the soft maps, and the scan on the network's grid.
    compatible : reproduce the published program, its known faults and output grid included.
    device : ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``.
    threads : CPU threads; None = all that this process may use.
    precision : ``auto`` and ``fp32`` are the same; ``bf16`` and ``fp16`` (CUDA) move label borders.
    progress : receives events; an exception it raises ends the work.

    Raises
    ------
    RequestError, InputError, WeightsError, OutOfMemoryError : see :mod:`mri_deep_tools.errors`.

    """
    keywords = {name: value for name, value in locals().items() if name not in ("scan", "progress")}
    return Segmenter(**keywords).segment(scan, progress)


def _one_frame(volume: Volume, progress: Progress) -> Volume:
    """Return a 3-D volume with finite values; the first frame of a 4-D one."""
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
