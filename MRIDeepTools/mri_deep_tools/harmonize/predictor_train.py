"""Training of a prediction network, age or diagnosis, on prepared brains, with the published recipe as the default.

Roca et al., Medical Image Analysis 99 (2025) 103388: mean absolute error for a number, cross-entropy of logits for two
classes, Adam whose rate falls linearly from 1e-3 to 1e-4 over 400 epochs, images read once and augmented, incomplete
last batches dropped. The published program keeps the last weights; here scans can be kept apart by person to keep the
best ones, too. A run writes ``weights/last_model.safetensors``, ``weights/best_model.safetensors`` and ``stats.json``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from ..errors import InputError, RequestError
from ..inference import available_threads
from ..progress import Progress
from ..training import RunOptions, fit, require_lightning
from .network import Predictor
from .optimiser import KerasAdam, linear_rate
from .predictor_data import BatchStream, ImageStore, Scan, find_targets, split_scans
from .predictor_weights import PUBLISHED_SHAPE, PredictorSpec, load_prediction_model, save_prediction_model
from .preprocess import MEDIAN

__all__ = ["PredictorConfig", "prediction_loss", "train_predictor"]

_MOST_WORKERS = 8


@dataclass
class PredictorConfig:
    """Configuration of ``mri-deep-tools train predictor``."""

    data: str = field(default="", metadata={"help": "table of prepared scans: columns path, the target, and others"})
    target: str = field(default="age", metadata={"help": "column of what is to be predicted"})
    unit: str = field(default="years", metadata={"help": "unit of a number, for the headers of predictions"})
    task: Literal["regression", "classification"] = field(
        default="regression", metadata={"help": "regression: a number; classification: one of two classes"}
    )
    classes: list[str] = field(
        default_factory=list, metadata={"help": "negative and positive class; empty: the two that occur, by alphabet"}
    )
    subject: str = field(default="", metadata={"help": "column that names the person; empty: one scan per person"})
    prepare: bool = field(
        default=False,
        metadata={"help": "scans are heads: prepare them first, into the folder prepared/ of the run, in minutes each"},
    )
    shape: list[int] = field(
        default_factory=list, metadata={"help": "voxels X, Y, Z; empty: those of the first image, cropped as published"}
    )
    median: float = field(default=MEDIAN, metadata={"help": "brain median of the images; x / median - 1 is trained on"})
    harmonized: str = field(
        default="",
        metadata={"help": "model that the images were harmonized with (prepare: are), as iguane; empty: none"},
    )
    validation: str = field(default="", metadata={"help": "table of validation scans, with the columns of data"})
    validation_share: float = field(
        default=0.0, metadata={"help": "or: share of the persons of data to validate on; 0: none, as published"}
    )
    patience: int = field(default=0, metadata={"help": "epochs without a better validation before the end; 0: no end"})
    batch: int = field(default=8, metadata={"help": "images per step, over all devices"})
    epochs: int = field(default=400, metadata={"help": "number of epochs"})
    learning_rate: float = field(default=1e-3, metadata={"help": "learning rate at the start (Adam)"})
    final_learning_rate: float = field(default=1e-4, metadata={"help": "learning rate at the end, reached linearly"})
    augmentation: bool = field(default=True, metadata={"help": "rotate and shift training images"})
    compatible: bool = field(
        default=False, metadata={"help": "published rotation, which leaks background; images taken as stored"}
    )
    start_at_median: bool = field(
        default=False, metadata={"help": "begin with the median target as the prediction, not with 0 as published"}
    )
    cache: Literal["auto", "memory", "disk"] = field(
        default="auto", metadata={"help": "where images are kept once read; auto: in memory if they fit"}
    )
    workers: int | None = field(
        default=None, metadata={"help": "processes that augment; none: up to 8 beside a GPU, 0 on the CPU"}
    )
    initial_weights: str = field(default="", metadata={"help": "weights file to start from; must fit the image size"})
    run: RunOptions = field(
        default_factory=RunOptions,
        metadata={"help": "where and how the training runs; validation comes after every epoch"},
    )


def prediction_loss(outputs: torch.Tensor, targets: torch.Tensor, task: str) -> torch.Tensor:
    """Return the published loss of outputs (N,) against targets (N,): absolute error, or cross-entropy of logits."""
    outputs = outputs.float()
    if task == "classification":
        return F.binary_cross_entropy_with_logits(outputs, targets)
    return F.l1_loss(outputs, targets)


def make_module(
    config: PredictorConfig, network: Predictor, spec: PredictorSpec, stream: BatchStream, held: BatchStream | None
) -> Any:
    """Return the LightningModule that trains ``network``; ``held`` gives validation images by number."""
    lightning = require_lightning()
    folder = Path(config.run.output)

    class PredictorTraining(lightning.LightningModule):  # type: ignore[misc,name-defined]
        """Network, how one step is made, and the books of the epochs."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))
            self.book: dict[str, Any] = {"loss": [], "val_loss": [], "sum": 0.0, "count": 0}
            self.book |= {"best": math.inf, "epoch": 0, "ended": False}

        def setup(self, stage: str) -> None:
            """Tell the streams which part of the work is this process's."""
            world = self.trainer.world_size
            if config.batch % world:
                raise RequestError(f"a batch of {config.batch} cannot be shared by {world} devices", "change batch")
            for one in (stream, held):
                if one is not None:
                    one.rank, one.world = self.trainer.global_rank, world

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            """Return the loss of a batch."""
            images, targets = batch
            loss = prediction_loss(self.network(images), targets, spec.task)
            self.log("loss", loss, batch_size=len(targets), sync_dist=True)
            self._count(float(loss.detach()))
            return loss

        def _count(self, loss: float) -> None:
            """Enter a step into the books, which a checkpoint after it holds; close the epoch that it ends."""
            book = self.book
            book["sum"] += loss
            book["count"] += 1
            self.seen += 1
            if int(self.seen) % stream.per_epoch == 0:
                mean = torch.tensor(book["sum"] / book["count"], device=self.device)
                book["loss"].append(float(self.trainer.strategy.reduce(mean, reduce_op="mean")))
                book["sum"], book["count"] = 0.0, 0
                if held is None:
                    self._write_stats()

        def val_dataloader(self) -> DataLoader[Any]:
            """Return the numbers of the validation images of this process."""
            if held is None:
                return DataLoader([])  # type: ignore[arg-type]
            own = list(range(self.global_rank, len(held.targets), self.trainer.world_size))
            return DataLoader(own or [-1], batch_size=None)  # type: ignore[arg-type]

        def on_validation_epoch_start(self) -> None:
            """Begin to add up."""
            self._total = torch.zeros(2, dtype=torch.float64)

        def validation_step(self, number: Any, index: int) -> None:
            """Add the loss of one image."""
            if held is None or int(number) < 0:  # no image is left for this process, but the others wait for it
                return
            image, target = held.image(int(number)), held.targets[int(number)]
            output = self.network(torch.from_numpy(image.copy())[None, None].to(self.device))
            loss = prediction_loss(output, torch.tensor([float(target)], device=self.device), spec.task)
            self._total += torch.tensor([float(loss), 1.0], dtype=torch.float64)

        def on_validation_epoch_end(self) -> None:
            """Close the epoch: best weights, early end."""
            total = self.trainer.strategy.reduce(self._total.to(self.device, torch.float32), reduce_op="sum")
            loss = float(total[0] / total[1])
            book, epoch = self.book, int(self.seen) // stream.per_epoch
            book["val_loss"].append(loss)
            self.log("val_loss", loss, batch_size=1, rank_zero_only=True)
            if loss < book["best"]:
                book |= {"best": loss, "epoch": epoch}
                if self.trainer.is_global_zero:
                    save_prediction_model(best_path(folder), self.network.state_dict(), spec)
            if config.patience and epoch - book["epoch"] >= config.patience:
                book["ended"] = True
                self.trainer.should_stop = True
            self._write_stats()

        def _write_stats(self) -> None:
            if self.trainer.is_global_zero:
                write_stats(folder, self.book)

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            """Keep the books with the weights."""
            checkpoint["book"] = self.book

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            """Take the books up again, and the samples where they were left."""
            self.book = checkpoint["book"]
            stream.start = int(checkpoint["state_dict"]["seen"])

        def on_train_start(self) -> None:
            """Make up for a validation that the run was killed before; go no further where it ended early."""
            epoch, rest = divmod(int(self.seen), stream.per_epoch)
            if held is not None and not rest and len(self.book["val_loss"]) < epoch:
                self.network.eval()
                self.on_validation_epoch_start()
                with torch.no_grad():
                    for number in self.val_dataloader():
                        self.validation_step(number, 0)
                self.on_validation_epoch_end()
                self.network.train()
            if self.book["ended"]:
                self.trainer.should_stop = True

        def configure_optimizers(self) -> Any:
            """Return Adam in Keras's form, whose rate falls linearly with the updates made."""
            total, first, last = config.run.steps or 1, config.learning_rate, config.final_learning_rate
            return KerasAdam(self.network.parameters(), lambda made: linear_rate(made, total, first, last))

    return PredictorTraining()


def best_path(folder: Path) -> Path:
    """Return where the weights of the best validation are."""
    return folder / "weights" / "best_model.safetensors"


def write_stats(folder: Path, book: dict[str, Any]) -> None:
    """Write the losses of the epochs, as the published program does, with those of the validation."""
    from ..volume import atomic_path

    facts = {"loss": book["loss"]}
    if book["val_loss"]:
        facts |= {"val_loss": book["val_loss"], "best_epoch": book["epoch"]}
    with atomic_path(folder / "stats.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def train_predictor(config: PredictorConfig, progress: Progress) -> Path:
    """Run or continue a training; returns the weights to use: the best of the validation, else the last.

    Raises
    ------
    RequestError, InputError, DependencyError, CancelledError : see :mod:`mri_deep_tools.errors`.

    """
    if not config.data:
        raise RequestError("the configuration names no data", "set 'data' to a table of prepared scans")
    if config.validation and config.validation_share:
        raise RequestError("validation and validation_share are both set", "set one of them")
    require_lightning()
    folder = Path(config.run.output)
    scans, held_scans, classes = _scans(config)
    if config.prepare:
        scans, held_scans = _prepared(config, scans, held_scans, progress)
    progress.plan([("read", 0.1), ("train", 0.9)])
    with progress.stage("read"):
        store = _store(config, [*scans, *held_scans], folder, progress)
    spec = _spec(config, scans, classes, store.shape)
    targets = [scan.target for scan in scans]
    stream = BatchStream(
        store,
        targets,
        config.batch,
        config.run.seed,
        augmented=config.augmentation,
        compatible=config.compatible,
    )
    held = None
    if held_scans:
        aims = [scan.target for scan in held_scans]
        held = BatchStream(store, aims, 1, config.run.seed, first=len(scans), augmented=False)
    if stream.per_epoch % config.run.accumulate:
        raise RequestError(
            f"an epoch of {stream.per_epoch} batches cannot be accumulated by {config.run.accumulate}",
            "set run.accumulate to 1, or to a number that divides it",
        )
    config.run.steps = config.run.steps or max(config.epochs * stream.per_epoch // config.run.accumulate, 1)
    config.run.validate_every = stream.per_epoch // config.run.accumulate if held else 0
    module = make_module(config, _network(config, spec, targets), spec, stream, held)
    with progress.stage("train"):
        fit(module, _loader(config, stream, store), config.run, config, progress)
    last = save_prediction_model(folder / "weights" / "last_model.safetensors", module.network.state_dict(), spec)
    return best_path(folder) if best_path(folder).exists() and held else last


def _scans(config: PredictorConfig) -> tuple[list[Scan], list[Scan], tuple[str, str] | None]:
    """Return training and validation scans and the classes; both sides must have both classes."""
    find = (config.target, config.task, [str(name) for name in config.classes], config.subject)
    scans, classes = find_targets(config.data, *find)
    if config.validation:
        held, _ = find_targets(config.validation, config.target, config.task, classes or (), config.subject)
    else:
        scans, held = split_scans(scans, config.validation_share, config.run.seed)
    for part, name in ((scans, "training"), (held, "validation")):
        if classes and part and len({scan.target for scan in part}) < 2:
            raise RequestError(f"the {name} scans are all of one class", "give more scans or another split")
    if not scans:
        raise RequestError("no scans are left for training", "check the table and the share for validation")
    return scans, held, classes


def _prepared(
    config: PredictorConfig, scans: list[Scan], held: list[Scan], progress: Progress
) -> tuple[list[Scan], list[Scan]]:
    """Return the scans with their prepared images; those that cannot be prepared are left out."""
    from .predictor_prepare import prepare_scans

    folder = Path(config.run.output) / "prepared"
    both = [*scans, *held]
    images = prepare_scans([s.path for s in both], folder, progress, config.harmonized, config.run.threads)
    made = [None if image is None else replace(scan, path=image) for scan, image in zip(both, images, strict=True)]
    first, second = ([scan for scan in part if scan] for part in (made[: len(scans)], made[len(scans) :]))
    if not first or (held and not second):
        raise InputError("no scan could be prepared", "see the warnings above")
    config.shape = config.shape or list(PUBLISHED_SHAPE)
    return first, second


def _store(config: PredictorConfig, scans: list[Scan], folder: Path, progress: Progress) -> ImageStore:
    shape = config.shape or None
    if shape and len(shape) != 3:
        raise RequestError(f"shape {shape} has not three numbers", "set it to X, Y, Z in voxels")
    store = ImageStore(
        [scan.path for scan in scans],
        shape,
        config.median,
        folder / "cache",
        config.cache,
        compatible=config.compatible,
        warn=progress.warn,
    )
    Predictor.flat_size(store.shape)  # refuse images that are too small before the others are read
    store.preload(progress.update)
    return store


def _spec(
    config: PredictorConfig, scans: list[Scan], classes: tuple[str, str] | None, shape: tuple[int, int, int]
) -> PredictorSpec:
    values = [scan.target for scan in scans]
    regression = config.task == "regression"
    return PredictorSpec(
        task=config.task,
        target=config.target,
        unit=config.unit if regression else "",
        classes=classes,
        shape=shape,
        median=config.median,
        harmonized=config.harmonized,
        trained_range=(min(values), max(values)) if regression else None,
    )


def _network(config: PredictorConfig, spec: PredictorSpec, targets: list[float]) -> Predictor:
    """Return the network as the training begins with it."""
    torch.manual_seed(config.run.seed)
    network = Predictor.for_shape(spec.shape or ())
    if config.initial_weights:
        loaded, _ = load_prediction_model(config.initial_weights, _initial_task(config))
        if loaded.flat != network.flat:
            name, sides = Path(config.initial_weights).name, "x".join(map(str, spec.shape or ()))
            raise RequestError(f"{name} is not for images of {sides} voxels", "set shape to that of the weights")
        network.load_state_dict(loaded.state_dict())
    elif config.start_at_median:
        median = float(torch.tensor(targets, dtype=torch.float64).quantile(0.5))
        torch.nn.init.constant_(network.dense.bias, median if spec.task == "regression" else 0.0)
    return network.train().requires_grad_(True)


def _initial_task(config: PredictorConfig) -> dict[str, Any]:
    return {} if config.initial_weights.lower().endswith(".safetensors") else {"task": config.task}


def _loader(config: PredictorConfig, stream: BatchStream, store: ImageStore) -> DataLoader[Any]:
    """Return the loader of training batches; worker processes share the images by fork or through the disk."""
    import multiprocessing

    workers = config.workers
    if workers is None:
        cpu = config.run.accelerator == "cpu" or not torch.cuda.is_available()
        workers = 0 if cpu else min(available_threads() - 1, _MOST_WORKERS)
    forks = "fork" in multiprocessing.get_all_start_methods()
    if workers and not forks and not store.on_disk:
        workers = 0  # each would be given a copy of all images
    context = "fork" if workers and forks else None
    return DataLoader(stream, batch_size=None, num_workers=workers, multiprocessing_context=context)
