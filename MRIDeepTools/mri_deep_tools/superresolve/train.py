"""Training of the published network, with its loss, optimiser and bookkeeping, on pairs of isotropic scans.

The published recipe (section by section in ``--print-config``) is the default, except that pairs are split by subject
and thick slices are made on the fly. Beside the checkpoints a run writes ``weights/<start>_model_weights.pth`` of the
best validation loss, in the published layout (``.safetensors`` for a residual network), and one row of
``training_info.csv``.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from ..errors import RequestError
from ..progress import Progress
from ..training import Endless, RunOptions, fit, learning_rate_factor, processes, require_lightning
from .network import PUBLISHED, ResUNet, ResUNetSpec, UpBlock
from .preprocess import PATCH, STRIDE
from .training_data import PatchSource, Recipe, find_pairs, split_pairs
from .weights import load_network, save_network, to_upstream

__all__ = ["CSV_COLUMNS", "TrainingConfig", "train"]

CSV_COLUMNS = (
    "note",
    "weights",
    "start time",
    "end time",
    "train_size",
    "val_size",
    "test_size",
    "patch_size",
    "stride",
    "target_shape",
    "normalization",
    "model",
    "net spatial_dims",
    "net in_channels",
    "net out_channels",
    "net channels",
    "net strides",
    "net num_res_units",
    "loss function",
    "net norm",
    "max num of epochs",
    "best_epoch",
    "batch_size",
    "optimizer",
    "learning_rate",
    "loss_list",
    "val_loss_list",
)
"""Columns of ``training_info.csv``, as published."""


@dataclass
class TrainingConfig:
    """Configuration of ``mri-deep-tools train baby-ai``."""

    data: str = field(default="", metadata={"help": "table (subject, t1, t2) or folder with X_T1w beside X_T2w"})
    split: Literal["subject", "file"] = field(default="subject", metadata={"help": "file: as published"})
    train_share: float = field(default=0.70, metadata={"help": "share of the sorted subjects (or files) for training"})
    validation_share: float = field(
        default=0.15, metadata={"help": "share of the next ones; the rest is kept for test"}
    )
    directions: list[str] = field(
        default_factory=lambda: ["axial", "coronal", "sagittal"], metadata={"help": "of the thick slices"}
    )
    factors: list[float] = field(
        default_factory=lambda: [2.0, 3.0, 4.0, 5.0], metadata={"help": "thickness in voxels; mm if physical"}
    )
    simulation: Literal["as-trained", "physical"] = field(
        default="as-trained", metadata={"help": "as-trained: dropped slices (published); physical: slice profile"}
    )
    gap: float = field(default=0.0, metadata={"help": "largest gap as a share of the thickness (physical)"})
    order: Literal["published", "random"] = field(
        default="published", metadata={"help": "published: volume after volume; random: mixed, within the head"}
    )
    mix: int = field(default=4, metadata={"help": "volumes drawn from at a time (random)"})
    patches_per_volume: int = field(default=256, metadata={"help": "patches before a volume is changed (random)"})
    noise: float = field(default=0.0, metadata={"help": "largest noise of slices, share of the range (physical)"})
    t1_dropout: float = field(default=0.0, metadata={"help": "share of samples without T1w"})
    start: Literal["interpolated", "guided"] = field(
        default="interpolated", metadata={"help": "T2w that the network is given; guided: T1w detail, fitted to slices"}
    )
    patch: int = field(default=PATCH, metadata={"help": "side of the cubes, voxels"})
    stride: int = field(default=STRIDE, metadata={"help": "step between cubes, voxels"})
    batch: int = field(default=32, metadata={"help": "cubes per step and device (128 on the published cluster)"})
    learning_rate: float = field(default=1e-4, metadata={"help": "learning rate (Adam)"})
    warmup: int = field(default=0, metadata={"help": "steps of linear warm-up"})
    cooldown: int = field(default=0, metadata={"help": "steps of linear cool-down at the end"})
    loss: Literal["mse", "l1"] = field(default="mse", metadata={"help": "mse (published) or l1"})
    epochs: int = field(default=100, metadata={"help": "largest number of epochs"})
    steps_per_epoch: int = field(default=0, metadata={"help": "0: every patch of every volume once, as published"})
    validation_patches: int = field(default=0, metadata={"help": "patches per validation; 0: all, as published"})
    patience: int = field(default=0, metadata={"help": "epochs without a better validation before the end; 0: no end"})
    min_delta: float = field(default=0.0, metadata={"help": "least gain in validation loss that counts"})
    channels: list[int] = field(
        default_factory=lambda: list(PUBLISHED.channels), metadata={"help": "features of the levels"}
    )
    units: int = field(default=PUBLISHED.units, metadata={"help": "convolutions per block"})
    residual: bool = field(default=False, metadata={"help": "learn what to add to the T2w, not the image (published)"})
    initial_weights: str = field(default="", metadata={"help": "weights file to start from; must fit the network"})
    note: str = field(default="", metadata={"help": "text for training_info.csv"})
    run: RunOptions = field(
        default_factory=RunOptions,
        metadata={"help": "where and how the training runs; validation comes after every epoch"},
    )

    def spec(self) -> ResUNetSpec:
        """Return the numbers of the network."""
        return ResUNetSpec(
            tuple(self.channels),
            self.units,
            residual=self.residual,
            t2_alone=self.residual and self.t1_dropout > 0,
            start=self.start,
        )

    def recipe(self, **changes: Any) -> Recipe:
        """Return how samples are made."""
        names = [
            "simulation",
            "gap",
            "noise",
            "order",
            "patch",
            "stride",
            "mix",
            "patches_per_volume",
            "t1_dropout",
            "start",
        ]
        known = {name: getattr(self, name) for name in names}
        ways = {"directions": tuple(self.directions), "factors": tuple(self.factors), "seed": self.run.seed}
        return Recipe(**{**known, **ways, **changes})


def make_module(config: TrainingConfig, source: PatchSource, held: PatchSource | None, facts: dict[str, Any]) -> Any:
    """Return the LightningModule; ``facts`` are what the table tells of the data (sizes of the parts)."""
    lightning = require_lightning()
    folder = Path(config.run.output)
    count = 0 if held is None else config.validation_patches or held.patches_per_epoch()

    class BabyAITraining(lightning.LightningModule):  # type: ignore[misc,name-defined]
        """Network, how one step is made, and the books of the epochs."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(config.run.seed)
            self.network = ResUNet(config.spec())
            if config.residual:
                begin_as_identity(self.network)
            if config.initial_weights:
                self.network.load_state_dict(_initial(config))
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))
            self.book: dict[str, Any] = {"start": _now(), "losses": [], "validation": [], "best": math.inf, "epoch": 0}
            self.book |= {"sum": 0.0, "steps": 0, "waited": 0, "ended": False, "written": -1}
            self._total = torch.zeros(2, dtype=torch.float64)

        def batch(self, chosen: PatchSource, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
            """Return samples by number on the module's device."""
            samples = [chosen.sample(number) for number in numbers]
            x, y = (torch.stack([torch.from_numpy(sample[part]) for sample in samples]) for part in (0, 1))
            return x.to(self.device), y.to(self.device)

        def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            """Return the loss of a batch."""
            return (F.mse_loss if config.loss == "mse" else F.l1_loss)(self.network(x).float(), y)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            """Draw samples and return their loss."""
            world, first = self.trainer.world_size, int(self.seen) * config.batch
            self.seen += 1
            numbers = [(first + k) * world + self.global_rank for k in range(config.batch)]
            loss = self.loss(*self.batch(source, numbers))
            self.log("loss", loss, batch_size=config.batch, sync_dist=True)
            self.book["sum"] += float(loss.detach())
            self.book["steps"] += 1
            return loss

        def val_dataloader(self) -> DataLoader[Any]:
            """Return the numbers of the validation samples of this process, in batches."""
            rank, world = self.global_rank, self.trainer.world_size
            mine = list(range(rank, count, world))
            groups = [mine[k : k + config.batch] for k in range(0, len(mine), config.batch)]
            groups = groups or [[]]  # without any, the others would wait for this process
            return DataLoader(groups, batch_size=None, collate_fn=list)  # type: ignore[arg-type]

        def validation_step(self, numbers: list[int], index: int) -> None:
            """Add up the loss of a batch."""
            if held is None or not len(numbers):
                return
            loss = self.loss(*self.batch(held, [int(number) for number in numbers]))
            self._total += torch.tensor([float(loss) * len(numbers), len(numbers)], dtype=torch.float64)

        def on_validation_epoch_end(self) -> None:
            """Close the epoch: losses, best weights, early end."""
            total = self.trainer.strategy.reduce(self._total.to(self.device, torch.float32), reduce_op="sum")
            mean = self.book["sum"] / max(self.book["steps"], 1)
            trained = self.trainer.strategy.reduce(torch.tensor(mean, device=self.device), reduce_op="mean")
            self._total = torch.zeros(2, dtype=torch.float64)
            self.close_epoch(float(trained), float(total[0] / total[1]))

        def close_epoch(self, trained: float, validated: float) -> None:
            """Write down an epoch's losses; keep the weights if they are the best so far."""
            book = self.book
            book["losses"].append(trained)
            book["validation"].append(validated)
            book["sum"], book["steps"] = 0.0, 0
            epoch = len(book["losses"])
            for logger in self.loggers:
                logger.log_metrics({"Loss/Train": trained, "Loss/Validation": validated}, step=epoch)
            self.log("validation_loss", validated, batch_size=1)
            if validated < book["best"] - config.min_delta:
                book |= {"best": validated, "epoch": epoch, "waited": 0}
                if self.trainer.is_global_zero:
                    self._keep(epoch, validated)
            else:
                book["waited"] += 1
            if config.patience and book["waited"] >= config.patience:
                book["ended"] = True
                self.trainer.should_stop = True

        def _keep(self, epoch: int, validated: float) -> None:
            save_weights(self.network, self.weights_path(), config.patch)
            for logger in self.loggers:
                if hasattr(logger.experiment, "add_text"):
                    logger.experiment.add_text("Best Model", f"epoch {epoch}, validation loss {validated:.6g}", epoch)

        def weights_path(self) -> Path:
            """Return where the best weights are."""
            suffix = ".safetensors" if config.residual else ".pth"
            return folder / "weights" / f"{self.book['start']}_model_weights{suffix}"

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            """Keep the books with the weights."""
            checkpoint["book"] = self.book

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            """Take the books up again."""
            self.book = checkpoint["book"]

        def on_train_start(self) -> None:
            """Go no further where an earlier start of this run ended early; a new rate holds when it is continued."""
            if self.book["ended"]:
                self.trainer.should_stop = True
            for schedule in self.trainer.lr_scheduler_configs:
                schedule.scheduler.base_lrs = [config.learning_rate] * len(schedule.scheduler.base_lrs)

        def on_train_end(self) -> None:
            """Write the row of the table when the training is complete."""
            step = self.trainer.global_step
            complete = self.book["ended"] or step >= self.trainer.max_steps
            if complete and self.book["written"] != step and self.trainer.is_global_zero:
                self.book["written"] = step  # starting a complete run again adds no row
                if held is None:
                    save_weights(self.network, self.weights_path(), config.patch)
                write_row(folder / "training_info.csv", config, facts, self.book, self.weights_path())

        def configure_optimizers(self) -> Any:
            """Return Adam; its rate is constant unless warm-up or cool-down is asked for."""
            optimiser = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
            schedule = torch.optim.lr_scheduler.LambdaLR(
                optimiser,
                lambda step: learning_rate_factor(step, config.run.steps or 1, config.warmup, config.cooldown),
            )
            return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    return BabyAITraining()


def begin_as_identity(network: ResUNet) -> None:
    """Set the last layers of a residual network to 0, so that training begins at the interpolated scan."""
    top = cast(UpBlock, network.up[0])
    for unit in (top.up, top.unit):
        for tensor in unit.conv.parameters():
            torch.nn.init.zeros_(tensor)


def save_weights(network: ResUNet, path: Path, patch: int) -> Path:
    """Write weights as the suffix says: ``.pth`` in the published layout, ``.safetensors`` with its numbers."""
    return save_upstream(network, path) if path.suffix == ".pth" else save_network(network, path, patch)


def save_upstream(network: ResUNet, path: Path) -> Path:
    """Write weights under the published names, as ``torch.save`` of a state dict."""
    from ..volume import atomic_path

    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().float() for name, tensor in network.state_dict().items()}
    with atomic_path(path) as temporary:
        torch.save(to_upstream(state, network.spec), temporary)
    return path


def write_row(path: Path, config: TrainingConfig, facts: dict[str, Any], book: dict[str, Any], weights: Path) -> None:
    """Add a run to the table; the header comes with the first."""
    levels = len(config.channels) - 1
    values = {
        "note": config.note,
        "weights": weights.name if weights.exists() else "",
        "start time": book["start"],
        "end time": _now(),
        **facts,
        "patch_size": (config.patch,) * 3,
        "stride": (config.stride,) * 3,
        "normalization": "min-max, percentile clipping",
        "model": "MONAI 3D U-Net",
        "net spatial_dims": 3,
        "net in_channels": 2,
        "net out_channels": 1,
        "net channels": tuple(config.channels),
        "net strides": (2,) * levels,
        "net num_res_units": config.units,
        "loss function": "MSE Loss" if config.loss == "mse" else "L1 Loss",
        "net norm": None,
        "max num of epochs": config.epochs,
        "best_epoch": book["epoch"],
        "batch_size": config.batch,
        "optimizer": "Adam",
        "learning_rate": config.learning_rate,
        "loss_list": book["losses"],
        "val_loss_list": book["validation"],
    }
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, CSV_COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(values)


def _initial(config: TrainingConfig) -> dict[str, torch.Tensor]:
    network = load_network(config.initial_weights, whole=True)
    if network.spec != config.spec():
        name = Path(config.initial_weights).name
        raise RequestError(
            f"{name} is of a network with channels {network.spec.channels} and {network.spec.units} units",
            "set channels and units to these",
        )
    return dict(network.state_dict())


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H-%M-%S")


def train(config: TrainingConfig, progress: Progress) -> Path:
    """Run or continue a training; returns the path of the last checkpoint.

    Raises
    ------
    RequestError, InputError, DependencyError, CancelledError : see :mod:`mri_deep_tools.errors`.

    """
    if not config.data:
        raise RequestError("the configuration names no data", "set 'data' to a table or a folder of pairs")
    if len(config.channels) < 2 or config.units < 1 or config.patch % 2 ** (len(config.channels) - 1):
        raise RequestError(
            f"{len(config.channels)} levels do not fit cubes of {config.patch} voxels", "change channels or patch"
        )
    if config.start == "guided" and (config.simulation != "physical" or not config.residual):
        raise RequestError(
            "start: guided is for residual networks and physical slices", "set residual: true and simulation: physical"
        )
    require_lightning()
    parts = split_pairs(find_pairs(config.data), config.train_share, config.validation_share, config.split)
    source = PatchSource(parts[0], config.recipe())
    held = PatchSource(parts[1], config.recipe(order="published", t1_dropout=0.0)) if parts[1] else None
    if held is None:
        progress.warn("no subjects are left for validation: the last weights are kept, not the best")
    ways = len(config.directions) * len(config.factors)
    facts: dict[str, Any] = {
        name: len(part) * ways for name, part in zip(("train_size", "val_size", "test_size"), parts, strict=True)
    }
    facts["target_shape"] = source.padded_shape()
    together = config.batch * config.run.accumulate * processes(config.run)
    steps = config.steps_per_epoch or math.ceil(source.patches_per_epoch() / together)
    config.run.steps = config.run.steps or steps * config.epochs
    config.run.validate_every = steps if held is not None else 0
    module = make_module(config, source, held, facts)
    return fit(module, DataLoader(Endless(), batch_size=None), config.run, config, progress)
