"""Hand-over to nnU-Net: segment pictures with a model that it trained.

Both ways of AxonDeepSynth end here: a labelled data set is translated into another contrast and trained on (see
:mod:`.handover_train`), or new pictures are translated into the contrast of a trained model and segmented. nnU-Net
(Isensee et al., Nature Methods 18, 2021, 203-211) comes with the extra ``[nnunet]`` and runs in child processes, with
an environment of their own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CancelledError, DependencyError, MRIDeepToolsError, RequestError
from ..inference import available_threads, pick_device
from ..progress import Progress
from .handover_data import Case, Fold, TrainedModel, list_cases, read_model
from .handover_jobs import Job, relay, run_jobs, visible_device
from .pictures import PICTURE_SUFFIXES, is_picture_path

__all__ = [
    "Part",
    "SegmentOptions",
    "Segmented",
    "failure_of",
    "plan_segmentation",
    "require_nnunet",
    "segment",
    "segment_cases",
]

NNUNET_HINT = 'run: pip install "mri-deep-tools[nnunet]"'


def require_nnunet() -> str:
    """Return the version of nnU-Net; DependencyError when it is missing or of another generation."""
    from importlib.metadata import version

    if importlib.util.find_spec("nnunetv2") is None:
        raise DependencyError("this needs nnU-Net, which is not installed", NNUNET_HINT)
    found = version("nnunetv2")
    major, minor = (int(part) for part in found.split(".")[:2])
    if (major, minor) < (2, 8) or major > 2:
        raise DependencyError(f"nnU-Net {found} is installed, 2.8 or a newer 2 is needed", NNUNET_HINT)
    return found


@dataclass(frozen=True)
class SegmentOptions:
    """How pictures are segmented; the defaults are nnU-Net's."""

    device: str = "auto"
    threads: int | None = None
    step: float = 0.5
    mirroring: bool = True


@dataclass(frozen=True)
class Segmented:
    """Segmented pictures: the model, the results in order, and which failed why."""

    model: TrainedModel
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    failed: dict[str, str]
    version: str
    """Of nnU-Net."""


def plan_segmentation(source: str | Path, target: str | Path, model: TrainedModel) -> list[tuple[Case, Path]]:
    """Return the cases of ``source`` with the file that each will give.

    ``target`` is a folder, or a file when ``source`` is one and the name of ``target`` ends like an image.

    Raises
    ------
    InputError, RequestError : no images, unclear names, or a result that would replace an image.

    """
    source, target = Path(source), Path(target)
    endings = PICTURE_SUFFIXES if is_picture_path(f"x{model.ending}") else (model.ending,)
    cases = list_cases(source, endings, model.channels)
    as_file = not source.is_dir() and not target.is_dir() and target.name.lower().endswith(tuple(endings))
    if as_file and not target.name.lower().endswith(model.ending):
        raise RequestError(f"{target.name} does not end in {model.ending}", "the model's results do")
    places = [target if as_file else target / f"{case.name}{model.ending}" for case in cases]
    if not as_file and target.exists() and not target.is_dir():
        raise RequestError(f"{target.name} is a file", "name a folder for the results")
    inputs = {path.resolve() for case in cases for path in case.files}
    for place in places:
        if place.resolve() in inputs:
            raise RequestError(f"the result {place.name} would replace an image", "choose another folder")
    return list(zip(cases, places, strict=True))


def segment(
    source: str | Path,
    target: str | Path,
    weights: str | Path,
    *,
    folds: Sequence[Fold] | None = None,
    best: bool = False,
    options: SegmentOptions | None = None,
    progress: Progress | None = None,
) -> Segmented:
    """Segment a picture or a folder of them with a model that nnU-Net trained.

    Results are label maps (H, W) of whole numbers under the names of the images, without nnU-Net's ``_0000``. Images
    are read where they are.

    Parameters
    ----------
    source, target : image or folder of images; folder or file for the label maps.
    weights : folder of the model, ``.../nnUNetTrainer__nnUNetPlans__2d``.
    folds : which take part, their mean decides; None: all that are trained.
    best : take the checkpoints with the best validation.
    options : device, threads, steps of the window, mirroring.
    progress : receives the fraction and warnings.

    Raises
    ------
    MRIDeepToolsError : nothing could be done; single pictures that failed stand in ``failed`` of the result.

    """
    model = read_model(weights, folds, best=best)
    planned = plan_segmentation(source, target, model)
    version = require_nnunet()
    part = Part(progress or Progress())
    cases, places = [case for case, _ in planned], [place for _, place in planned]
    try:
        failed = segment_cases(model, cases, places, options or SegmentOptions(), part)
    except KeyboardInterrupt:
        kept = f"{sum(place.is_file() for place in places)} of {len(places)} pictures are segmented"
        raise CancelledError("Cancelled", kept) from None
    inputs = tuple(path for case in cases for path in case.files)
    return Segmented(model, inputs, tuple(places), failed, version)


def segment_cases(
    model: TrainedModel,
    cases: Sequence[Case],
    target: Path | Sequence[Path],
    options: SegmentOptions,
    part: Part,
) -> dict[str, str]:
    """Segment in a child process; returns the pictures that failed, with the reason."""
    if not 0 < options.step <= 1:
        raise RequestError(f"a step of {options.step:g}", "use a share of the window, above 0 and up to 1")
    device = str(pick_device(options.device))
    places = [target / f"{case.name}{model.ending}" for case in cases] if isinstance(target, Path) else list(target)
    threads = options.threads or available_threads()
    jobs = [
        {"inputs": [str(path) for path in case.files], "output": str(place)}
        for case, place in zip(cases, places, strict=True)
    ]
    content = {
        "model": str(model.folder),
        "folds": list(model.folds),
        "checkpoint": model.checkpoint,
        "cases": jobs,
        "device": device.partition(":")[0],
        "threads": threads,
        "step": options.step,
        "mirroring": options.mirroring,
    }
    environment = {"nnUNet_compile": "false", "nnUNet_def_n_proc": str(threads)} | visible_device(device)
    part.progress.device(device, threads=threads)
    failed: dict[str, str] = {}

    def told(_: Job, event: dict[str, Any]) -> None:
        if event["event"] == "failed":
            failed[event["name"]] = event["message"]
        if "index" in event:
            part.update((event["index"] + 1) / len(cases))
        relay(event, part.progress)

    run_jobs([Job("the segmentation", "segment", content, environment, threads=threads)], 1, told)
    return failed


@dataclass(frozen=True)
class Part:
    """A share of a stage's progress."""

    progress: Progress
    begin: float = 0.0
    width: float = 1.0

    def update(self, done: float) -> None:
        """Report the share (0 to 1) of this part that is done."""
        self.progress.update(self.begin + self.width * done)


def failure_of(failed: dict[str, str], count: int) -> MRIDeepToolsError:
    """Return the error that tells, at the end, which pictures were not segmented."""
    name, why = next(iter(failed.items()))
    if count == 1:
        return MRIDeepToolsError(f"{name} was not segmented: {why}")
    return MRIDeepToolsError(f"{len(failed)} of {count} pictures were not segmented, the first is {name}: {why}")
