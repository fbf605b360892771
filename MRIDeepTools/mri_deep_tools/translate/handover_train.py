"""Training with nnU-Net: plan, preprocess, and train the folds of its 2D configuration side by side.

Source: Isensee et al., nnU-Net, Nature Methods 18, 2021, 203-211; the steps are those of AxonDeepSynth.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._atomic import atomic_path
from ..config import render_config
from ..errors import CancelledError, InputError, RequestError
from ..inference import available_threads, pick_device
from ..progress import Progress
from .handover import Part, SegmentOptions, require_nnunet, segment_cases
from .handover_data import BEST, FINAL, Fold, RawSet, Workspace, list_cases, read_model
from .handover_jobs import Job, relay, run_jobs, visible_device

__all__ = ["FoldResult", "NnunetConfig", "Training", "train_nnunet"]

_RECORD = "mri-deep-tools.json"
_SPLITS = 5
_EPOCHS, _ITERATIONS = 1000, 250  # of nnU-Net


@dataclass
class NnunetConfig:
    """What ``train nnunet`` does; keys that are none are left to nnU-Net."""

    folder: str = field(default="", metadata={"help": "folder that holds nnUNet_raw; the other two are made beside it"})
    dataset: int | str = field(default=0, metadata={"help": "number or name of the data set: 101 or Dataset101_TEM"})
    configuration: str = field(default="2d", metadata={"help": "what nnU-Net plans and trains"})
    folds: tuple = field(default=(0, 1, 2, 3, 4), metadata={"help": "folds of the cross-validation, or [all]"})  # type: ignore[type-arg]
    epochs: int | None = field(default=None, metadata={"help": "epochs; none: nnU-Net's 1000"})
    iterations: int | None = field(default=None, metadata={"help": "iterations per epoch; none: nnU-Net's 250"})
    save_every: int = field(default=50, metadata={"help": "epochs between checkpoints from which a run continues"})
    trainer: str = field(default="nnUNetTrainer", metadata={"help": "trainer class of nnU-Net"})
    planner: str = field(default="ExperimentPlanner", metadata={"help": "planner class of nnU-Net"})
    plans: str = field(default="nnUNetPlans", metadata={"help": "name of the plans that the planner writes"})
    verify: bool = field(default=True, metadata={"help": "let nnU-Net check the data set as well"})
    test: bool = field(default=True, metadata={"help": "segment imagesTs with each fold, into fold_N/test"})
    parallel: int = field(default=1, metadata={"help": "folds that are trained at a time"})
    devices: tuple = field(default=("auto",), metadata={"help": "auto, cpu, cuda, cuda:N or mps; folds take turns"})  # type: ignore[type-arg]
    processes: int | None = field(default=None, metadata={"help": "processes for preparing data; none: one per core"})
    augmentation_processes: int | None = field(
        default=None, metadata={"help": "processes per fold that draw batches; 0: none beside the fold itself"}
    )
    threads: int | None = field(default=None, metadata={"help": "CPU threads of each fold; none: an equal share"})
    compile: bool = field(default=False, metadata={"help": "use torch.compile on a GPU, as nnU-Net does by default"})
    seed: int | None = field(default=None, metadata={"help": "seed of all draws; exact with augmentation_processes=0"})


@dataclass(frozen=True)
class FoldResult:
    """A trained fold: nnU-Net's mean Dice over its validation cases and the labels other than background."""

    fold: Fold
    folder: Path
    dice: float | None


@dataclass(frozen=True)
class Training:
    """What a training left behind."""

    model: Path
    folds: tuple[FoldResult, ...]


def train_nnunet(config: NnunetConfig, progress: Progress | None = None) -> Training:
    """Plan, preprocess, train the folds side by side, validate them; a run that was stopped is continued.

    Parameters
    ----------
    config : what is trained, and how.
    progress : receives one fraction over all folds, and warnings.

    Returns
    -------
    :class:`Training`; its model folder is what :func:`.handover.segment` takes.

    Raises
    ------
    RequestError, InputError : the configuration or the data set cannot be used.
    DependencyError : nnU-Net is missing. CancelledError : stopped by SIGINT or SIGTERM; all children are ended.
    MRIDeepToolsError : it failed; a log in the folder ``logs`` has the details.

    """
    progress = progress or Progress()
    run = _Run(config)
    run.version = require_nnunet()
    has_test = config.test and run.raw.test_folder is not None
    # An epoch of nnU-Net on small pictures takes about as long as preparing them.
    weight = max(1.0, len(run.folds) * (config.epochs or _EPOCHS) * (config.iterations or _ITERATIONS) / _ITERATIONS)
    progress.plan([("prepare", 1.0), ("train", weight), *([("test", 0.5)] if has_test else [])])
    try:
        with progress.stage("prepare"):
            run.prepare(progress)
        with progress.stage("train"):
            run.train(progress)
        if has_test:
            with progress.stage("test"):
                run.segment_test(progress)
    except KeyboardInterrupt:
        raise CancelledError("the training was stopped", "start the same command again to continue it") from None
    return Training(run.model, tuple(FoldResult(fold, run.fold(fold), run.dice(fold)) for fold in run.folds))


class _Run:
    """One training: the data set, the places and the jobs."""

    def __init__(self, config: NnunetConfig) -> None:
        self.config, self.version = config, ""
        if not config.folder:
            raise RequestError("no folder was given", "name the folder that holds nnUNet_raw (--output or key folder)")
        self.workspace = Workspace.of(config.folder)
        self.raw: RawSet = self.workspace.find(config.dataset)
        self.folds = _checked_folds(config.folds)
        for key in ("epochs", "iterations", "save_every", "parallel", "processes", "threads"):
            value = getattr(config, key)
            if value is not None and value < 1:
                raise RequestError(f"{key} is {value}", "use a whole number from 1")
        self.devices = [str(pick_device(str(device))) for device in config.devices]
        if not self.devices:
            raise RequestError("devices is empty", "name at least one, for instance [auto]")
        self.home = self.workspace.preprocessed / self.raw.name
        name = f"{config.trainer}__{config.plans}__{config.configuration}"
        self.model = self.workspace.results / self.raw.name / name
        self.cores = available_threads()
        self._check_splits()

    def fold(self, fold: Fold) -> Path:
        """Return the folder of a fold."""
        return self.model / f"fold_{fold}"

    def dice(self, fold: Fold) -> float | None:
        """Return the mean Dice that nnU-Net's validation found."""
        content = _json_or_empty(self.fold(fold) / "validation" / "summary.json")
        value = content.get("foreground_mean", {}).get("Dice")
        return float(value) if value is not None else None

    def _check_splits(self) -> None:
        numbers = [fold for fold in self.folds if fold != "all"]
        path = self.home / "splits_final.json"
        if path.is_file():
            try:
                splits = json.loads(path.read_text(encoding="utf-8"))
                named = {case for split in splits for part in ("train", "val") for case in split[part]}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"splits_final.json of {self.raw.name} cannot be read", "correct it") from error
            count = len(splits)
            strange = sorted(named - set(self.raw.cases))
            if strange:
                raise InputError(
                    f"splits_final.json of {self.raw.name} names {strange[0]}, which the data set does not have",
                    "correct it, or remove it to have a new split made",
                )
        else:
            count = _SPLITS
            if numbers and len(self.raw.cases) < _SPLITS:
                raise RequestError(
                    f"{self.raw.name} has {len(self.raw.cases)} cases, too few for {_SPLITS} folds", "set folds=[all]"
                )
        beyond = [fold for fold in numbers if int(fold) >= count]
        if beyond:
            raise RequestError(f"there is no fold {beyond[0]}", f"the split has the folds 0 to {count - 1}")

    def _environment(self, device: str = "cpu", *, batches: bool = False) -> dict[str, str]:
        """Return the variables of a job; ``batches`` when it draws some, the planner reads the same one otherwise."""
        config = self.config
        processes = config.processes or self.cores
        variables = self.workspace.environment | {
            "nnUNet_def_n_proc": str(processes),
            "nnUNet_compile": "true" if config.compile else "false",
            "MPLBACKEND": "Agg",
        }
        if batches and config.augmentation_processes is not None:
            variables["nnUNet_n_proc_DA"] = str(config.augmentation_processes)
        return variables | visible_device(device)

    def prepare(self, progress: Progress) -> None:
        """Plan and preprocess, unless this very data set was."""
        config = self.config
        wanted = {"content": self.raw.fingerprint(), "planner": config.planner, "configuration": config.configuration}
        record = self.home / _RECORD
        done = _json_or_empty(record)
        if (
            all(done.get(key) == value for key, value in wanted.items())
            and (self.home / f"{config.plans}.json").is_file()
        ):
            return
        begun = [fold for fold in self.folds if _last_checkpoint(self.fold(fold))]
        if begun and done.get("content") not in (None, wanted["content"]):
            raise InputError(
                f"{self.raw.name} has changed since fold {begun[0]} was trained",
                f"put it back, or remove {self.model.name} from nnUNet_results to train anew",
            )
        self.raw.check_labels()
        record.unlink(missing_ok=True)  # what is there now will no longer be whole
        options = {
            "number": self.raw.number,
            "cases": list(self.raw.cases),
            "splits": str(self.home.absolute() / "splits_final.json"),
            "split": len(self.raw.cases) >= _SPLITS,
            "processes": config.processes or self.cores,
            "verify": config.verify,
            "planner": config.planner,
            "plans": config.plans,
            "configuration": config.configuration,
        }
        log = self.workspace.root / "logs" / f"{self.raw.name}_prepare.log"
        job = Job("preparing the data", "prepare", options, self._environment(), log)
        run_jobs([job], 1, lambda _, event: relay(event, progress))
        if not (self.home / f"{config.plans}_{config.configuration}").is_dir():
            raise RequestError(f"nnU-Net planned no configuration {config.configuration!r}", "use 2d")
        _write_json(record, wanted | {"nnunetv2": self.version})

    def train(self, progress: Progress) -> None:
        """Train the folds that are not done."""
        config, share = self.config, dict.fromkeys(self.folds, 0.0)
        target = {"epochs": config.epochs or _EPOCHS, "iterations": config.iterations or _ITERATIONS}
        jobs: list[Job] = []
        for fold in self.folds:
            done = _json_or_empty(self.fold(fold) / _RECORD)
            if all(done.get(key) == value for key, value in target.items()) and self.dice(fold) is not None:
                share[fold] = 1.0
                continue
            jobs.append(self._fold_job(fold, self.devices[len(jobs) % len(self.devices)]))
        self.model.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.model / "config.yaml") as temporary:
            temporary.write_text(render_config(config), encoding="utf-8")

        def told(job: Job, event: dict[str, Any]) -> None:
            fold = job.options["fold"]
            if event["event"] == "epoch":
                share[fold] = 0.98 * event["epoch"] / max(event["epochs"], 1)
            elif event["event"] == "done":
                share[fold] = 1.0
                made = {key: event[key] for key in ("epochs", "iterations")}
                _write_json(self.fold(fold) / _RECORD, made | {"nnunetv2": self.version})
            relay(event, progress)
            progress.update(sum(share.values()) / len(share))

        run_jobs(jobs, config.parallel, told)

    def _fold_job(self, fold: Fold, device: str) -> Job:
        config = self.config
        threads = config.threads or max(1, self.cores // max(1, min(config.parallel, len(self.folds))))
        options = {
            "dataset": self.raw.name,
            "configuration": config.configuration,
            "fold": fold,
            "trainer": config.trainer,
            "plans": config.plans,
            "device": device.partition(":")[0],
            "threads": threads,
            "epochs": config.epochs,
            "iterations": config.iterations,
            "save_every": config.save_every,
            "seed": config.seed,
            "resume": _last_checkpoint(self.fold(fold)),
        }
        log = self.workspace.root / "logs" / f"{self.raw.name}_fold_{fold}.log"
        return Job(f"fold {fold}", "train", options, self._environment(device, batches=True), log, threads)

    def segment_test(self, progress: Progress) -> None:
        """Segment the unlabelled images of the data set with every fold by itself."""
        folder = self.raw.test_folder
        if folder is None:
            return
        for index, fold in enumerate(self.folds):
            model = read_model(self.model, [fold])
            trained, target = model.files[0].stat().st_mtime, self.fold(fold) / "test"
            cases = [
                case
                for case in list_cases(folder, self.raw.ending, model.channels)
                if not _is_newer(target / f"{case.name}{model.ending}", trained)
            ]
            if not cases:
                continue
            options = SegmentOptions(device=self.devices[0], threads=self.config.threads)
            part = Part(progress, index / len(self.folds), 1 / len(self.folds))
            failed = segment_cases(model, cases, target, options, part)
            for name, why in failed.items():
                progress.warn(f"{name} of imagesTs was not segmented with fold {fold}: {why}")


def _checked_folds(folds: Sequence[Any] | str) -> tuple[Fold, ...]:
    items = [folds] if isinstance(folds, str) else list(folds)
    for fold in items:
        if fold != "all" and (not isinstance(fold, int) or isinstance(fold, bool) or fold < 0):
            raise RequestError(f"there is no fold {fold!r}", "use numbers from 0, or all")
    if not items or len(set(items)) != len(items):
        raise RequestError("folds are missing or named twice", "use for instance [0, 1, 2, 3, 4] or [all]")
    return tuple(items)


def _is_newer(path: Path, time_s: float) -> bool:
    return path.is_file() and path.stat().st_mtime >= time_s


def _last_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (FINAL, "checkpoint_latest.pth", BEST))


def _json_or_empty(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
