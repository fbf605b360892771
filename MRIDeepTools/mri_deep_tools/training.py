"""What all trainings share: run options, Lightning trainer, checkpoints, exact resume, loggers, progress events.

A run lives in one folder: ``config.yaml`` (what was asked), ``checkpoints/last.ckpt`` and ``step-*.ckpt``,
``metrics.csv`` and TensorBoard files. Starting the same command again continues from ``last.ckpt``; because every
random draw is a function of the seed and the number of samples seen, a run that was killed and resumed makes the same
steps as one that was not.
"""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset

from .config import render_config
from .errors import CancelledError, DependencyError, RequestError
from .progress import Progress

__all__ = ["Endless", "RunOptions", "fit", "learning_rate_factor", "processes", "require_lightning"]


class Endless(IterableDataset[int]):
    """Yields a dummy per step: the sample itself is a function of the number of samples seen."""

    def __iter__(self) -> Iterator[int]:
        """Yield zeros without end."""
        while True:
            yield 0


@dataclass
class RunOptions:
    """Where and how a training runs."""

    output: str = field(default="runs/training", metadata={"help": "folder of the run; an existing run is continued"})
    seed: int = field(default=1, metadata={"help": "seed of all draws"})
    steps: int | None = field(default=None, metadata={"help": "optimiser steps in all; none: what the recipe says"})
    accelerator: str = field(default="auto", metadata={"help": "auto, cpu, gpu, mps"})
    devices: int | str = field(default="auto", metadata={"help": "devices per node, or auto"})
    nodes: int = field(default=1, metadata={"help": "number of nodes"})
    strategy: str = field(default="auto", metadata={"help": "Lightning strategy, for instance ddp"})
    share_statistics: bool = field(
        default=True, metadata={"help": "batch normalisation over the samples of all devices; false: of each alone"}
    )
    precision: str = field(default="32-true", metadata={"help": "32-true, bf16-mixed or 16-mixed"})
    accumulate: int = field(default=1, metadata={"help": "batches per optimiser step"})
    gradient_clip: float = field(default=0.0, metadata={"help": "largest norm of the gradient; 0: no clipping"})
    checkpoint_every: int = field(default=1000, metadata={"help": "steps between checkpoints"})
    keep_every: int = field(default=0, metadata={"help": "keep one checkpoint every so many steps; 0: only the last"})
    validate_every: int = field(default=1000, metadata={"help": "steps between validations; 0: never"})
    log_every: int = field(default=50, metadata={"help": "steps between log lines"})
    max_minutes: float = field(default=0.0, metadata={"help": "stop, to be continued, after so long; 0: no limit"})
    threads: int | None = field(default=None, metadata={"help": "CPU threads; none: all that may be used"})
    compile: bool = field(default=False, metadata={"help": "use torch.compile (needs a C++ compiler)"})


def require_lightning() -> Any:
    """Import Lightning, or say how to install it."""
    try:
        import lightning
    except ImportError as error:
        raise DependencyError(
            "training needs Lightning, which is not installed", 'install it with: pip install "mri-deep-tools[train]"'
        ) from error
    return lightning


def processes(options: RunOptions) -> int:
    """Return how many processes the training will have, one per device.

    Raises
    ------
    RequestError : the options do not fit the machine.

    """
    trainer = _trainer(options, logger=False, enable_checkpointing=False)
    return int(trainer.world_size)


def _trainer(options: RunOptions, **more: Any) -> Any:
    """Return Lightning's trainer on the devices that the options name; nothing is started yet."""
    lightning = require_lightning()
    quieten_lightning()
    try:
        return lightning.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            num_nodes=options.nodes,
            strategy=options.strategy,
            precision=options.precision,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            **more,
        )
    except (ValueError, TypeError, lightning.fabric.utilities.exceptions.MisconfigurationException) as error:
        raise RequestError(f"the training cannot run as asked: {error}", "change the options under 'run'") from error


def learning_rate_factor(step: int, steps: int, warmup: int, cooldown: int) -> float:
    """Return the factor of the learning rate at a step: linear warm-up, constant, linear cool-down to zero."""
    if step < warmup:
        return (step + 1) / warmup
    left = steps - step
    return 1.0 if left >= cooldown or cooldown == 0 else max(left, 0) / cooldown


def quieten_lightning() -> None:
    """Keep Lightning's advice and advertisements off the terminal; errors still come as exceptions."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning(\..*)?")


def _callbacks(options: RunOptions, folder: Path, progress: Progress) -> list[Any]:
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint

    class Report(Callback):  # type: ignore[misc]
        """Passes the training's progress on and stops politely on SIGTERM."""

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            progress.update(trainer.global_step / max(trainer.max_steps, 1))

    # Without a version counter: in a folder that was moved or copied, the last checkpoint must still be the last.
    saves = [
        ModelCheckpoint(
            folder,
            save_last=True,
            save_top_k=0,
            enable_version_counter=False,
            every_n_train_steps=options.checkpoint_every,
        )
    ]
    if options.keep_every:
        name = "step-{step:07d}"
        saves.append(
            ModelCheckpoint(
                folder, name, save_top_k=-1, every_n_train_steps=options.keep_every, auto_insert_metric_name=False
            )
        )
    return [*saves, Report()]


def fit(module: Any, data: Any, options: RunOptions, config: Any, progress: Progress) -> Path:
    """Run or continue a training; returns the path of the last checkpoint.

    Parameters
    ----------
    module : the LightningModule.
    data : a training DataLoader; validation is the module's own affair (``val_dataloader``).
    options, config : how to run, and the whole configuration, which is written into the run's folder.

    Raises
    ------
    RequestError : the run's folder holds a run of another configuration kind, or the options do not fit the machine.
    CancelledError : stopped by SIGINT or SIGTERM; the last checkpoint stays and the same command continues.

    """
    require_lightning()
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    from .inference import set_threads
    from .shared_statistics import SharedStatistics

    if options.threads:
        set_threads(options.threads)
    folder = Path(options.output)
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(render_config(config), encoding="utf-8")
    last = checkpoints / "last.ckpt"
    csv = CSVLogger(folder, name="logs", flush_logs_every_n_steps=options.log_every)
    board = TensorBoardLogger(folder, name="tensorboard")
    trainer = _trainer(
        options,
        max_steps=options.steps or 100_000,
        max_time={"seconds": int(options.max_minutes * 60)} if options.max_minutes else None,
        accumulate_grad_batches=options.accumulate,
        gradient_clip_val=options.gradient_clip or None,
        val_check_interval=options.validate_every * options.accumulate if options.validate_every else None,
        limit_val_batches=None if options.validate_every else 0,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=options.log_every,
        logger=[csv, board],
        callbacks=_callbacks(options, checkpoints, progress),
        default_root_dir=folder,
        plugins=[SharedStatistics()] if options.share_statistics else None,
    )
    stop = _Stop(trainer)
    with stop, stop.told():
        trainer.fit(module, data, ckpt_path=str(last) if last.exists() else None, weights_only=False)
    if stop.caught or getattr(trainer, "interrupted", False):
        if trainer.global_step:
            trainer.save_checkpoint(last)
        raise CancelledError("the training was stopped", "start the same command again to continue it")
    trainer.save_checkpoint(last)
    return last


class _Stop:
    """Turns SIGTERM and SIGINT into an orderly end after the current step."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.caught = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        def handler(number: int, _frame: Any) -> None:
            self.caught = True
            self.trainer.should_stop = True
            self.trainer.fit_loop.epoch_loop.min_steps = None
            self._orderly()
            if number == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.default_int_handler)

        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, handler)
            except ValueError:  # not in the main thread: the caller handles signals
                return self
        return self

    def _orderly(self) -> None:
        """Make Lightning finish its step, or its validation, where one process alone decides.

        By itself it leaves at once, without a checkpoint, as soon as it has seen SIGTERM.
        """
        connector = getattr(self.trainer, "_signal_connector", None)
        if connector is not None and self.trainer.world_size == 1:
            connector.received_sigterm = False

    @contextmanager
    def told(self) -> Iterator[None]:
        """Take Lightning's exit on SIGTERM, which would end the program with status 0, for a stop."""
        try:
            yield
        except SystemExit:
            self.caught = True

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
