"""Translation from the outside: :func:`translate` for one scan or picture, :class:`Translator` for many.

Reproduces SynDiff (Özbey et al., IEEE Transactions on Medical Imaging 2023, arXiv 2207.08208) and its form for
microscopy, AxonDeepSynth: a few large steps of a diffusion, each an adversarially trained network, make an image of one
contrast from one of another; both trained without pairs. What they make was not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import InputError, RequestError, WeightsError
from ..inference import (
    available_memory,
    format_bytes,
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
from .folders import StoredPicture, TranslatedPicture, translate_picture, translate_tiles
from .options import DEFAULT_SEED, TranslateOptions, same_contrast
from .pipeline import PreparedScan, Run, finish_scan, mean_region, prepare_scan, read_mask, translate_slices
from .volumes import Axis

if TYPE_CHECKING:
    import torch

    from .engine import TranslationEngine
    from .sampling import Numbers
    from .weights import Direction

__all__ = ["LITE_MODEL", "PictureTranslation", "TranslationResult", "Translator", "translate"]

LITE_MODEL = "syndiff-lite"
STAGES = (("read", 1.0), ("load", 2.0), ("prepare", 2.0), ("translate", 90.0), ("write", 1.0))
_NAMED = ("T1w", "T2w", "PDw", "PD", "FLAIR", "T1", "T2")
_CPU_PIXELS = 128 * 128  # larger images gain nothing from being translated together on a CPU
_GPU_BATCH = 16
_SHARE = 0.6  # of the free memory
_COPIES = 10  # of a scan as float32, held at once: values, slices, mean, spread, and what resampling needs


@dataclass(frozen=True)
class TranslationResult:
    """What one scan gave.

    Attributes
    ----------
    image : the other contrast on the scan's own grid, float32, 0 to ``output_factor``; mean of the samples. Synthetic.
    spread : standard deviation of the samples, likewise; None for one sample.
    scan : what was translated, on the same grid, in its own intensities.
    source, target : names of the contrasts.
    facts : slices, intensities and size, for the record.
    seconds : wall-clock seconds per stage.
    peak_memory_bytes : highest memory use of the process (of the device, on a GPU).
    model, weights : name of the model and the file of its generator.
    info : what the model says about itself.
    device, threads, precision : what it ran on.
    warnings : what a person should know.

    """

    image: Volume
    spread: Volume | None
    scan: Volume
    source: str
    target: str
    facts: dict[str, Any]
    seconds: dict[str, float]
    peak_memory_bytes: int
    model: str
    weights: Path | None
    info: dict[str, Any]
    device: str
    threads: int
    precision: str
    warnings: tuple[str, ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class PictureTranslation:
    """What one picture gave: ``image`` and ``spread`` are (H, W) uint8, ``picture`` the original; else as for scans."""

    image: np.ndarray
    spread: np.ndarray | None
    picture: np.ndarray
    source: str
    target: str
    facts: dict[str, Any]
    seconds: dict[str, float]
    peak_memory_bytes: int
    model: str
    weights: Path | None
    info: dict[str, Any]
    device: str
    threads: int
    precision: str
    warnings: tuple[str, ...] = field(default_factory=tuple)


class Translator:
    """Translates one scan or picture after the other with a network that is loaded once.

    Takes the options of :func:`translate` as keywords, or one :class:`.options.TranslateOptions`. The model is read at
    construction, so that what is wrong with it is known before any work.

    Parameters
    ----------
    numbers : random numbers in place of those of the seed; see :data:`.sampling.Numbers`.

    """

    def __init__(
        self, options: TranslateOptions | None = None, *, numbers: Numbers | None = None, **keywords: Any
    ) -> None:
        from .sampling import published_numbers, seeded_numbers
        from .weights import load_direction, model_folder

        self.options = options if options is not None else TranslateOptions(**keywords)
        self.device = pick_device(self.options.device)
        self.dtype = pick_precision(self.options.precision, self.device)
        self.model, place = _model_of(self.options)
        folder = model_folder(place)
        files = tuple(file_key(path) for path in sorted(folder.iterdir()) if path.is_file())
        self._key = ("translate", files, self.options.to, self.options.epoch)
        to, epoch = self.options.to, self.options.epoch
        self.direction: Direction = kept(self._key, lambda: load_direction(folder, to, epoch))
        wanted = self.options.source
        if wanted is not None and not same_contrast(wanted, self.direction.source):
            raise RequestError(
                f"{self.model} makes {self.direction.target} from {self.direction.source}, not from {wanted}",
                "choose another model, or leave --from out",
            )
        spec = self.direction.network.spec
        self.size = self.options.tile_size or spec.image_size
        if self.size % spec.multiple:
            raise RequestError(
                f"tiles of {self.size} pixels do not suit {self.model}", f"use a multiple of {spec.multiple}"
            )
        steps, seed = self.direction.schedule.steps, self.options.seed
        if numbers is None and self.options.compatible:
            numbers = published_numbers(seed, steps, spec.latent)
        self.numbers = numbers or seeded_numbers(seed, steps, spec.latent, same=self.options.same_noise)
        self._engine: TranslationEngine | None = None

    # ------------------------------------------------------------------------------------------------------- scans

    def translate(
        self,
        scan: str | Path | Volume,
        progress: ProgressCallback | Progress | None = None,
        *,
        mask: str | Path | np.ndarray | None = None,
    ) -> TranslationResult:
        """Translate one scan; see :func:`translate`."""
        progress, before = self._begin(progress)
        threads = set_threads(self.options.threads)
        with progress.stage("read"):
            volume = scan if isinstance(scan, Volume) else read_volume(scan, ndim=None, on_warning=progress.warn)
            self._require_room(int(np.prod(volume.shape3)), "a scan")
        self._look_at_name(volume.source.name, progress)
        self._announce(progress, threads)
        with progress.stage("prepare"):
            region = read_mask(mask, volume, progress) if isinstance(mask, (str, Path)) else mask
            if region is None and mean_region(self.direction.info, self.options) == "mask":
                region = self._brain(volume, progress)
            info, source = self.direction.info, self.direction.source
            prepared = prepare_scan(volume, region, info, source, self.options, progress)
        with progress.stage("translate"):
            image, spread, facts = self._run_scan(prepared, progress)
        common = self._common(progress, before, threads)
        return TranslationResult(image=image, spread=spread, scan=prepared.scan, facts=prepared.facts | facts, **common)

    def _run_scan(self, prepared: PreparedScan, progress: Progress) -> tuple[Volume, Volume | None, dict[str, Any]]:
        translated = translate_slices(prepared, self.size, self._runner(progress), self.options)
        image, spread = finish_scan(prepared, translated, self.options.output_factor)
        return image, spread, translated.facts

    def _brain(self, volume: Volume, progress: Progress) -> np.ndarray:
        from ..harmonize.brain import segmented_mask

        return segmented_mask(volume, device=self.options.device, threads=self.options.threads, progress=progress)[0]

    # ---------------------------------------------------------------------------------------------------- pictures

    def translate_picture(
        self,
        picture: str | Path | np.ndarray,
        progress: ProgressCallback | Progress | None = None,
        *,
        number: int = 0,
    ) -> PictureTranslation:
        """Translate one picture: a PNG, TIFF or BMP file, or (H, W) uint8; ``number`` is part of its seed."""
        from .pictures import read_picture

        progress, before = self._begin(progress)
        threads = set_threads(self.options.threads)
        with progress.stage("read"):
            if isinstance(picture, np.ndarray):
                grey = picture
            else:
                compatible = self.options.compatible
                grey = read_picture(picture, compatible=compatible, on_warning=progress.warn)
            if grey.ndim != 2 or grey.dtype != np.uint8:
                raise InputError(f"a picture must be (H, W) uint8, not {grey.dtype} of shape {grey.shape}")
            self._require_room(int(grey.size * self.options.scale_factor**2), "a picture")
        self._look_at_rule(progress)
        self._announce(progress, threads)
        with progress.stage("translate"):
            multiple = self.direction.network.spec.multiple
            made = translate_picture(grey, self.size, multiple, self._runner(progress), self.options, number=number)
        return self._picture(made, grey, progress, before, threads)

    def translate_stored(
        self, stored: StoredPicture, name: str, number: int, progress: ProgressCallback | Progress | None = None
    ) -> PictureTranslation:
        """Translate one picture of a published set of tiles, stitched as published; ``name`` is that of the file."""
        from .tiles import stitch

        progress, before = self._begin(progress)
        threads = set_threads(self.options.threads)
        if self.options.samples > 1:
            raise RequestError("tiles of a published set are translated once", "leave --samples out, or give pictures")
        self._announce(progress, threads)
        with progress.stage("translate"):
            multiple = self.direction.network.spec.multiple
            image = translate_tiles(stored, multiple, self._runner(progress), number, name)
        facts = {"Pixels": list(image.shape), "Tiles": len(stored.tiles), "Stitching": "published"}
        made = TranslatedPicture(image, None, facts)
        return self._picture(made, stitch(stored.tiles, stored.places), progress, before, threads)

    def _picture(
        self, made: TranslatedPicture, grey: np.ndarray, progress: Progress, before: Any, threads: int
    ) -> PictureTranslation:
        common = self._common(progress, before, threads)
        return PictureTranslation(image=made.image, spread=made.spread, picture=grey, facts=made.facts, **common)

    # -------------------------------------------------------------------------------------------------- what is shared

    def _begin(self, progress: ProgressCallback | Progress | None) -> tuple[Progress, tuple[int, dict[str, float]]]:
        progress = progress if isinstance(progress, Progress) else Progress(progress)
        progress.plan(STAGES)
        before = len(progress.warnings), dict(progress.seconds)
        if self.options.model is None and self.options.weights is None:
            progress.warn(
                f"no model was named, so the small bundled model {LITE_MODEL} is used, which was trained on simulated "
                "people; name another with --weights or --model"
            )
        return progress, before

    def _announce(self, progress: Progress, threads: int) -> None:
        precision = str(self.dtype).removeprefix("torch.")
        progress.device(str(self.device), threads=threads, precision=precision, model=self.model)

    def _runner(self, progress: Progress) -> Run:
        """Return what runs pieces on the device; on the CPU when a GPU's memory does not suffice."""
        from .sampling import run_pieces

        samples = self.options.samples

        def run(pieces: np.ndarray, keys: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray | None]:
            def work(device: torch.device) -> tuple[np.ndarray, np.ndarray | None]:
                engine = self._engine_on(device)
                self.device = device
                batch = self._batch(device, pieces.shape[1:])
                total = len(pieces) * samples

                def done(count: float) -> None:
                    progress.update(count / total)

                return run_pieces(engine, pieces, keys, self.numbers, samples=samples, batch=batch, done=done)

            return run_with_fallback(work, self.device, progress)

        return run

    def _batch(self, device: torch.device, shape: Sequence[int]) -> int:
        """Return how many pieces go through the network together, so that memory suffices."""
        from .engine import engine_bytes

        spec, wide = self.direction.network.spec, self.dtype.itemsize
        one = engine_bytes((1, shape[0], shape[1]), spec, wide)
        free = available_memory(device)
        least = one * (self.options.batch or 1)
        what = f"a batch of {self.options.batch} pieces" if self.options.batch else "one piece"
        require_memory(least, free, f"{what} of {shape[1]} x {shape[0]} pixels", "use a smaller --batch or --tile-size")
        if self.options.batch:
            return self.options.batch
        most = _GPU_BATCH if device.type == "cuda" else max(1, _CPU_PIXELS // (shape[0] * shape[1]))
        return max(1, min(most, int(_SHARE * free / one)))

    def _engine_on(self, device: torch.device) -> TranslationEngine:
        from .engine import TranslationEngine

        if self._engine is None or self._engine.device != device:
            key = (*self._key, str(device), self.dtype)
            self._engine = kept(key, lambda: TranslationEngine(self.direction, device, self.dtype))
        return self._engine

    def _require_room(self, values: int, kind: str) -> None:
        needed = _COPIES * values * np.dtype(np.float32).itemsize
        what = f"{kind} of {format_bytes(needed / _COPIES)}"
        require_memory(needed, available_memory(), what, "crop it, or close other programs")

    def _look_at_name(self, name: str, progress: Progress) -> None:
        """Warn where the name of a file in the manner of BIDS tells another contrast than the model takes."""
        ending = name.rsplit("_", 1)[-1]
        source = self.direction.source
        if ending in _NAMED and not same_contrast(ending, source):
            progress.warn(
                f"{name} is {ending} by its name, but {self.model} makes {self.direction.target} from {source}"
            )

    def _look_at_rule(self, progress: Progress) -> None:
        if self.direction.info.get("rule") != "bytes" and self.direction.info.get("slice_axis"):
            progress.warn(
                f"{self.model} was trained on slices of scans; grey values of pictures are taken as 0..255 of its 0..1"
            )

    def _common(self, progress: Progress, before: tuple[int, dict[str, float]], threads: int) -> dict[str, Any]:
        seconds = {name: value - before[1].get(name, 0.0) for name, value in progress.seconds.items()}
        return {
            "source": self.direction.source,
            "target": self.direction.target,
            "seconds": {name: value for name, value in seconds.items() if value > 0},
            "peak_memory_bytes": peak_memory_bytes(self.device),
            "model": self.model,
            "weights": self.direction.path,
            "info": self.direction.info,
            "device": str(self.device),
            "threads": threads,
            "precision": str(self.dtype).removeprefix("torch."),
            "warnings": tuple(progress.warnings[before[0] :]),
        }


def translate(
    image: str | Path | Volume | np.ndarray,
    to: str,
    *,
    weights: str | Path | None = None,
    model: str | None = None,
    source: str | None = None,
    epoch: int | None = None,
    seed: int = DEFAULT_SEED,
    samples: int = 1,
    same_noise: bool = False,
    batch: int | None = None,
    axis: Axis | None = None,
    slices: str | None = None,
    pixel: float | None = None,
    constant: float | None = None,
    mean: Literal["volume", "mask"] | None = None,
    mask: str | Path | np.ndarray | None = None,
    output_factor: float = 1.0,
    background: Literal["keep", "zero"] = "keep",
    tile_size: int | None = None,
    overlap: int | None = None,
    stitching: Literal["blend", "published"] = "blend",
    scale_factor: float = 1.0,
    keep_scale: bool = False,
    compatible: bool = False,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    progress: ProgressCallback | Progress | None = None,
) -> TranslationResult | PictureTranslation:
    """Make another contrast from a scan, slice by slice, or from a picture of any size, tile by tile.

    Parameters
    ----------
    image : a scan (file, folder with one DICOM series, Volume), or a picture (PNG, TIFF, BMP, or (H, W) uint8).
    to : name of the contrast that is made.
    weights : a model folder (``model.json`` and generators).
    model : or a name from the list of models.
    source : name of the contrast of ``image``; RequestError where the model takes another.
    epoch : of the training, where the folder holds several.
    seed : of the random numbers; equal seeds give equal results on one machine.
    samples : translations whose mean is the result; with 2 or more their standard deviation is given too.
    same_noise : all slices of a scan share their random numbers, which reduces flicker between neighbours.
    batch : slices or tiles that go through the network together; None suits the device.
    axis : direction in which slices follow each other; None as in training, else axial.
    slices : of a scan, such as ``"60:80"``, counted from the bottom (back, left) from 0; the others stay 0.
    pixel : side in mm to which slices are resampled where theirs differs by more than 5 percent; None as in training.
    constant : the intensity that becomes 1, in units of the mean; None as the model says.
    mean : over the ``volume``, background included as published, or the ``mask``; None as in training.
    mask : of brain or head, on the scan's grid; without one, where it is needed for the mean, the brain is found.
    output_factor : what 1 becomes in the result of a scan.
    background : ``zero`` sets what is outside the mask, or the head, to 0.
    tile_size, overlap : of pictures, and of slices larger than the network's; pixels.
    stitching : ``blend`` averages overlapping tiles, ``published`` puts later ones on top and cuts off grey values.
    scale_factor : by which pictures are scaled first (nearest neighbour), as the training pictures were.
    keep_scale : the result keeps the scaled size (as published).
    compatible : published stitching, size and order of random numbers.
    device : ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``.
    threads : CPU threads; None = all that this process may use.
    precision : ``auto`` and ``fp32`` are the same; ``bf16`` and ``fp16`` (CUDA) change values slightly.
    progress : receives events; an exception it raises ends the work.

    Raises
    ------
    RequestError, InputError, GeometryError, WeightsError, OutOfMemoryError : see :mod:`mri_deep_tools.errors`.

    """
    keywords = {name: value for name, value in locals().items() if name not in ("image", "mask", "progress")}
    translator = Translator(**keywords)
    if isinstance(image, np.ndarray) or (isinstance(image, (str, Path)) and _is_picture(image)):
        return translator.translate_picture(image, progress)
    return translator.translate(image, progress, mask=mask)


def _is_picture(path: str | Path) -> bool:
    from .pictures import is_picture_path

    return is_picture_path(path)


def _model_of(options: TranslateOptions) -> tuple[str, str | Path]:
    """Return the name of the model, and what to load."""
    if options.weights is not None:
        path = Path(options.weights)
        if not path.exists():
            raise WeightsError(f"the model folder {path.name} does not exist", "check the name")
        if not path.is_dir():
            hint = "put it into a folder with a model.json that names the two contrasts"
            raise WeightsError(f"{path.name} is a file, not a model folder", hint)
        return path.resolve().name, path
    if options.model is not None:
        return options.model, options.model
    from ..models import list_models

    if LITE_MODEL not in [model.name for model in list_models("translate")]:
        raise RequestError("no model was given", "name a folder with --weights, or one of the list with --model")
    return LITE_MODEL, LITE_MODEL


def describe_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model says about itself, for a record: known facts only."""
    names = {
        "rule": "IntensityRule",
        "in_plane_spacing_mm": "PixelMm",
        "slice_axis": "SliceAxis",
        "image_size": "ImageSize",
        "steps": "Steps",
        "file_epoch": "Epoch",
        "training_data": "TrainingData",
        "note": "Note",
    }
    return {told: info[name] for name, told in names.items() if info.get(name) not in (None, "")}
