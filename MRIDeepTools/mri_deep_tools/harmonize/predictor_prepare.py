"""From the scan of a head to the prepared brain that a prediction network was trained on, harmonized or not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import InputError
from ..inference import within_memory
from ..volume import Volume, read_volume, split_suffix, write_volume
from .model_choice import HarmonizeOptions
from .pipeline import Stages
from .predict import Harmonizer

if TYPE_CHECKING:
    from ..progress import Progress
    from .network import Generator

__all__ = ["Preparation", "make_harmonizer", "prepare_scan", "prepare_scans"]


@dataclass(frozen=True)
class Preparation:
    """A prepared brain on the cropped template grid, and what each stage did."""

    image: Volume
    stages: dict[str, str]


def prepare_scan(
    volume: Volume, options: HarmonizeOptions, progress: Progress, harmonizer: Harmonizer | None = None
) -> Preparation:
    """Bring a scan to the template's grid: brain mask, bias field, rigid registration, median 500, published crop.

    Parameters
    ----------
    volume : (X, Y, Z), finite.
    options : of the stages; model, weights and output space are not looked at.
    progress : told of the stages.
    harmonizer : when given, the result is harmonized by it, with its own options but for the mask.

    Raises
    ------
    InputError : no brain, an implausible registration, or another contrast than T1w.

    """
    if min(volume.shape3) < 2:
        raise InputError(f"{volume.source.name or 'the image'} has a single slice", "give a volume")
    if harmonizer is not None:
        result = harmonizer.harmonize(volume, progress, mask=options.mask)
        return Preparation(result.harmonized, {**result.stages, "harmonize": result.model})
    stages = Stages(volume, _no_network, options, torch.device("cpu"), torch.float32, progress)
    return Preparation(within_memory(stages.prepare).image, stages.stages)


def prepare_scans(
    scans: Sequence[Path], folder: Path, progress: Progress, harmonization: str = "", threads: int | None = None
) -> list[Path | None]:
    """Prepare scans of heads into a folder; those that are there are not made again.

    Parameters
    ----------
    scans : image files, or folders with one DICOM series.
    folder : gets one ``.nii.gz`` per scan.
    progress : told of the stages, each scan an equal share, and of scans that cannot be prepared.
    harmonization : model or weights file to harmonize with; empty for none.
    threads : CPU threads.

    Returns
    -------
    The prepared images in the order of the scans; None for those that could not be prepared.

    """
    options = HarmonizeOptions(threads=threads)
    harmonizer = make_harmonizer(options, harmonization) if harmonization else None
    made: list[Path | None] = []
    for index, scan in enumerate(scans):
        progress.item(index, len(scans))
        place = str(scan.resolve())
        code = hashlib.sha256(f"{place} {scan.stat().st_mtime_ns} {harmonization}".encode()).hexdigest()[:8]
        target = folder / f"{split_suffix(scan)[0] or scan.name}-{code}.nii.gz"
        if not target.exists():
            try:
                volume = read_volume(scan, on_warning=progress.warn)
                write_volume(prepare_scan(volume, options, progress, harmonizer).image, target, dtype=np.float32)
            except InputError as error:
                progress.warn(f"{scan.name} is left out: {error}")
                made.append(None)
                continue
        made.append(target)
    progress.item(0, 1)
    return made


def make_harmonizer(options: HarmonizeOptions, choice: str) -> Harmonizer:
    """Return a harmonizer for the name of a model, or for a weights file where ``choice`` ends like one.

    Raises
    ------
    WeightsError : the model is not on this machine. RequestError : there is no such model.

    """
    is_file = Path(choice).suffix.lower() in (".h5", ".safetensors")
    chosen = {"weights": choice} if is_file else {"model": choice}
    return Harmonizer(replace(options, space="template", **chosen))  # type: ignore[arg-type]


def _no_network() -> Generator:
    raise RuntimeError("a preparation has no network")
