"""Training of dMRI-RCNN: the published recipe on measured subjects, or single voxels with simulated signals.

The defaults are the published ones: mean absolute error over whole patches, Adam in Keras's form at a constant rate,
directions put in a new order in every epoch, no augmentation, the weights with the best validation error kept. A run
writes these to ``weights/model.safetensors`` beside its checkpoints.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from ..errors import RequestError
from ..progress import Progress
from ..training import Endless, RunOptions, fit, learning_rate_factor, processes, require_lightning
from .facts import Facts
from .harmonics import predict_damped
from .network import RCNN, unit_names
from .shells import XMAX
from .training_data import Batch, PackedSource, SimulatedSource, Source
from .voxels import VoxelRecipe
from .weights import load_network, save_network

__all__ = ["DmriTrainingConfig", "make_module", "make_network", "train"]

WEIGHTS = Path("weights") / "model.safetensors"
_KEPT_WIDTHS = ("ecvl1", "ecvl2", "conv_lstm", "dcv3")  # narrow as published; `width` leaves them


@dataclass
class DmriTrainingConfig:
    """Configuration of ``mri-deep-tools train dmri-rcnn``."""

    data: str = field(
        default="", metadata={"help": "table (subject, dwi, bvals, bvecs, mask), folder of .tfrecord, or packed .h5"}
    )
    source: Literal["data", "simulated"] = field(
        default="data", metadata={"help": "simulated: voxels drawn as under `simulation` (1D network without patches)"}
    )
    validation: list[str] = field(default_factory=list, metadata={"help": "subjects that are kept for validation"})
    validation_share: float = field(default=0.1, metadata={"help": "else: share of the sorted subjects, from the end"})
    shells: list[int] = field(
        default_factory=lambda: [1000], metadata={"help": "b-values that are trained on together"}
    )
    tolerance: float = field(default=30.0, metadata={"help": "largest distance of a b-value from its shell"})
    frame: Literal["network", "stored"] = field(
        default="network", metadata={"help": "stored: axes and raw b-vectors as in the files, as published"}
    )
    crop: bool = field(default=True, metadata={"help": "drop empty planes first (published)"})
    octants: bool = field(default=False, metadata={"help": "cut subjects into eight, as published for large ones"})
    measured: int = field(default=6, metadata={"help": "measured directions per example (published: 6, 10 or 30)"})
    wanted: int = field(default=10, metadata={"help": "directions to predict per example"})
    scaling: Literal["fixed", "percentile"] = field(
        default="fixed",
        metadata={"help": "fixed: 4000, 3000, 2000 become 1 by shell; percentile: the 99th in the mask"},
    )
    reorder: bool = field(default=True, metadata={"help": "a new order of directions in every epoch (published)"})
    random_starts: bool = field(default=True, metadata={"help": "each subset of directions begins with a random one"})
    shuffle: bool = field(default=True, metadata={"help": "mix the examples of an epoch"})
    sign_flips: float = field(
        default=0.0, metadata={"help": "share of directions that are turned round (augmentation)"}
    )
    noise: float = field(
        default=0.0, metadata={"help": "largest deviation of Rician noise that is added to the context"}
    )
    dims: Literal[1, 3] = field(default=3, metadata={"help": "1: kernels of one voxel; 3: the published 3D network"})
    width: float = field(default=1.0, metadata={"help": "width of the wide layers as a share of the published one"})
    norm: Literal["instance", "batch"] = field(
        default="instance", metadata={"help": "of the first layers; batch: voxels do not depend on their patch"}
    )
    smoothing: float = field(
        default=0.0, metadata={"help": "above 0: the network adds to spherical harmonics damped by so much (0.006)"}
    )
    initial_weights: str = field(default="", metadata={"help": "weights to start from; must fit the network"})
    batch: int = field(default=4, metadata={"help": "examples per step and device"})
    epochs: int = field(default=10, metadata={"help": "epochs (the paper: 120); none where run.steps is given"})
    steps_per_epoch: int = field(default=0, metadata={"help": "steps between validations; 0: all examples once"})
    learning_rate: float = field(default=1e-3, metadata={"help": "learning rate (Adam)"})
    warmup: int = field(default=0, metadata={"help": "steps of linear warm-up"})
    cooldown: int = field(default=0, metadata={"help": "steps of linear cool-down at the end"})
    average: float = field(default=0.0, metadata={"help": "decay of a running average of the weights; 0: none"})
    validation_examples: int = field(default=0, metadata={"help": "examples per validation; 0: all (simulated: 128)"})
    half: bool = field(default=False, metadata={"help": "write weights/model.safetensors in float16"})
    simulation: VoxelRecipe = field(default_factory=VoxelRecipe, metadata={"help": "how voxels are drawn"})
    run: RunOptions = field(
        default_factory=RunOptions, metadata={"help": "where and how the training runs; validation ends an epoch"}
    )


def make_network(config: DmriTrainingConfig) -> RCNN:
    """Return the network to be trained: fresh, or with the initial weights.

    Raises
    ------
    RequestError : a width that makes no sense, or initial weights of another network.
    WeightsError : initial weights that cannot be read.

    """
    if not 0.02 <= config.width <= 2:
        raise RequestError(f"width {config.width:g} is not offered", "use 0.02 to 2")
    torch.manual_seed(config.run.seed)
    published = {name: tensor.shape[0] for name, tensor in _published_weights(config.dims).items()}
    widths = {name: max(4, round(config.width * count)) for name, count in published.items()}
    spatial, smoothing = config.norm, config.smoothing or None
    network = RCNN(config.dims, widths=widths, spatial=spatial, smoothing=smoothing)
    if smoothing is not None:
        torch.nn.init.zeros_(network.decoder.unit("dc4").weight)  # begin as the spherical harmonics
    if config.initial_weights:
        _take(network, config.initial_weights)
    return network


def _published_weights(dims: int) -> dict[str, torch.Tensor]:
    """Return the weights of the layers that ``width`` changes."""
    with torch.device("meta"):
        state = RCNN(dims).state_dict()
    found = {}
    for name in unit_names(dims):
        if name not in _KEPT_WIDTHS:
            part = "encoder" if f"encoder.{name}.weight" in state else "decoder"
            found[name] = state[f"{part}.{name}.weight"]
    return found


def _take(network: RCNN, path: str) -> None:
    state = load_network(path).state_dict()
    own = network.state_dict()
    if {name: tensor.shape for name, tensor in state.items()} != {name: tensor.shape for name, tensor in own.items()}:
        raise RequestError(f"{Path(path).name} is of another network", "set dims, width, norm and smoothing to its own")
    network.load_state_dict(state)


def make_module(config: DmriTrainingConfig, source: Source, held: Source | None) -> Any:
    """Return the LightningModule of a training; ``held`` gives the validation examples."""
    lightning = require_lightning()
    groups = [] if held is None else held.groups(config.batch, config.validation_examples)

    class DmriTraining(lightning.LightningModule):  # type: ignore[misc,name-defined]
        """Network, how one step is made, and the best validation error so far."""

        def __init__(self) -> None:
            super().__init__()
            self.network = make_network(config)
            self.averaged = copy.deepcopy(self.network).requires_grad_(False) if config.average else self.network
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))
            self.register_buffer("best", torch.full((), math.inf, dtype=torch.float64))
            self._sums: dict[str, torch.Tensor] = {}
            self._averaged_at = -1

        def setup(self, stage: str) -> None:
            """Tell the sources how many examples all processes take together."""
            for one in (source, held):
                if one is not None:
                    one.share(config.batch * self.trainer.world_size)

        def on_train_start(self) -> None:
            """Note from where on the running average is moved."""
            self._averaged_at = self.global_step

        def loss(self, batch: Batch) -> torch.Tensor:
            """Return the mean absolute error over all voxels of a batch."""
            return (self.network(batch.images, batch.bvecs_in, batch.bvecs_out) - batch.target).abs().mean()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            """Draw examples and return their loss."""
            first = (int(self.seen) * self.trainer.world_size + self.global_rank) * config.batch
            self.seen += 1
            loss = self.loss(source.batch(list(range(first, first + config.batch))).to(self.device))
            self.log("loss", loss, batch_size=config.batch, sync_dist=True)
            return loss

        def on_train_batch_end(self, *_: Any) -> None:
            """Move the running average, once per optimiser step."""
            if config.average and self.global_step != self._averaged_at:
                self._averaged_at = self.global_step
                decay = min(config.average, (1 + self.global_step) / (10 + self.global_step))
                with torch.no_grad():
                    for mine, theirs in zip(_tensors(self.averaged), _tensors(self.network), strict=True):
                        mine.lerp_(theirs, 1 - decay)

        def val_dataloader(self) -> DataLoader[Any]:
            """Return the numbers of this process's validation examples, in batches."""
            mine = groups[self.global_rank :: self.trainer.world_size] or [[]]  # without any, the others would wait
            return DataLoader(mine, batch_size=None, collate_fn=list)  # type: ignore[arg-type]

        def validation_step(self, numbers: list[int], index: int) -> None:
            """Add up the errors of a batch: of the network, and of damped spherical harmonics."""
            if held is None or not len(numbers):
                return
            batch = held.batch([int(number) for number in numbers]).to(self.device)
            self.averaged.eval()
            found = self.averaged(batch.images, batch.bvecs_in, batch.bvecs_out)
            plain = predict_damped(batch.images, batch.bvecs_in, batch.bvecs_out, 0.006)
            error = (found - batch.target).double()
            names = {"mae": error.abs(), "mse": error.square(), "harmonics": (plain - batch.target).double().abs()}
            names[f"mae_{batch.images.shape[1]}"] = names["mae"]
            names[f"harmonics_{batch.images.shape[1]}"] = names["harmonics"]
            for name, values in names.items():
                pair = torch.stack([values.mean() * len(numbers), values.new_tensor(float(len(numbers)))]).cpu()
                self._sums[name] = self._sums.get(name, torch.zeros(2, dtype=torch.float64)) + pair

        def _names(self) -> list[str]:
            kinds = [] if held is None else held.kinds
            return ["mae", "mse", "harmonics", *(f"{name}_{n}" for name in ("mae", "harmonics") for n in kinds)]

        def on_validation_epoch_end(self) -> None:
            """Log the means over all processes; keep the weights if they are the best so far."""
            means = {}
            for name in self._names():  # the same on all processes, though each has met other examples
                total = self._sums.get(name, torch.zeros(2, dtype=torch.float64)).float().to(self.device)
                total = self.trainer.strategy.reduce(total, reduce_op="sum")
                means[name] = float(total[0] / total[1].clamp_min(1))
            self._sums = {}
            means["rmse"] = math.sqrt(means.pop("mse"))
            self.log_dict({f"validation_{name}": value for name, value in means.items()}, batch_size=1)
            if means["mae"] < float(self.best):
                self.best.fill_(means["mae"])
                if self.trainer.is_global_zero:
                    self.write()

        def on_train_end(self) -> None:
            """Without validation, keep the last weights."""
            if held is None and self.trainer.is_global_zero:
                self.write()

        def write(self) -> None:
            """Write the weights."""
            save_network(self.averaged, Path(config.run.output) / WEIGHTS, facts_of(config), half=config.half)

        def configure_optimizers(self) -> Any:
            """Return Adam; its rate is constant unless warm-up or cool-down is asked for."""
            from ..harmonize.optimiser import KerasAdam

            steps = config.run.steps or 1

            def rate(updates: int) -> float:
                return config.learning_rate * learning_rate_factor(updates, steps, config.warmup, config.cooldown)

            return KerasAdam(self.network.parameters(), rate)

    return DmriTraining()


def _tensors(network: RCNN) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]


def facts_of(config: DmriTrainingConfig) -> Facts:
    """Return what the weights' file says of their training."""
    simulated = config.source == "simulated"
    shells = [round(config.simulation.shell)] if simulated else config.shells
    return Facts(
        directions=tuple(sorted(set(config.simulation.directions))) if simulated else (config.measured,),
        shell=shells[0] if len(shells) == 1 else None,
        percentile=simulated or config.scaling == "percentile",
        spacing_mm=None,
        trained_on="simulated" if simulated else "measured",
    )


def examples_per_step(config: DmriTrainingConfig) -> int:
    """Return how many examples one optimiser step takes, on all devices together."""
    return config.batch * config.run.accumulate * processes(config.run)


def _check(config: DmriTrainingConfig) -> None:
    if config.source == "simulated":
        if config.dims != 1 or config.norm != "batch":
            raise RequestError("simulated voxels have no neighbours", "set dims to 1 and norm to batch")
        return
    if not config.data:
        raise RequestError("the configuration names no data", "set 'data' to a table, or 'source' to simulated")
    unknown = [shell for shell in config.shells if shell not in XMAX]
    if not config.shells or (unknown and config.scaling == "fixed"):
        raise RequestError(f"there is no fixed scaling for shells {config.shells}", "set scaling to percentile")
    if config.measured < 1 or config.wanted < 1:
        raise RequestError("an example needs measured and wanted directions", "set both to 1 or more")


def train(config: DmriTrainingConfig, progress: Progress) -> Path:
    """Run or continue a training; returns the path of the last checkpoint.

    Raises
    ------
    RequestError, InputError, DependencyError, CancelledError : see :mod:`mri_deep_tools.errors`.

    """
    _check(config)
    require_lightning()
    source: Source
    held: Source | None
    if config.source == "simulated":
        source, held = SimulatedSource.pair(config)
        per_epoch = config.steps_per_epoch or 500
    else:
        source, held = PackedSource.pair(config, progress)
        per_epoch = config.steps_per_epoch or math.ceil(len(source) / examples_per_step(config))
    if held is None:
        progress.warn("no subjects are left for validation: the last weights are kept, not the best")
    config.run.steps = config.run.steps or per_epoch * config.epochs
    config.run.validate_every = per_epoch if held is not None else 0
    module = make_module(config, source, held)
    return fit(module, DataLoader(Endless(), batch_size=None), config.run, config, progress)
