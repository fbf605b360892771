"""Training of the published networks: segmentation, robust chain, parcellation, quality control, supervised.

Section 6 of the published programs' description. Every published default is the default here: one epoch of the weighted
L2 loss, then fifty of soft Dice with a fresh optimiser, 10,000 steps each, Adam at 1e-4. After every epoch the weights
are written as ``weights/wl2_001.safetensors``, ``weights/dice_001.safetensors`` and so on, ready for ``segment``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as nnf
from torch.utils.data import DataLoader

from ..errors import RequestError
from ..progress import Progress
from ..training import Endless, RunOptions, fit, require_lightning
from .generator.draws import Draws
from .generator.model import GeneratorConfig, LabelTables
from .labels import V1_CHANNELS, V2_CHANNELS
from .losses import dice_loss, mean_dice, wl2_loss
from .network import QCRegressor, QCSpec, UNet, UNetSpec
from .training_maps import ImagePair, TrainingMap, load_maps, load_pairs, split_maps
from .training_sources import (
    DenoiserSource,
    ParcellationSource,
    QCSource,
    SecondStageSource,
    Source,
    SupervisedSource,
    SyntheticSource,
)

__all__ = ["TASKS", "TrainingConfig", "default_config", "train"]

Task = Literal["segmentation", "groups", "denoiser", "second", "parcellation", "qc", "supervised"]
TASKS: tuple[Task, ...] = ("segmentation", "groups", "denoiser", "second", "parcellation", "qc", "supervised")

PREFIX = {"denoiser": "l2l", "second": "unet2", "parcellation": "unet_parc", "qc": "qc"}
"""Prefix of a network's tensors in a weights file; ``unet`` for the others."""


@dataclass
class TrainingConfig:
    """Configuration of ``mri-deep-tools train synthseg``."""

    network: Literal["unet"] = field(default="unet", metadata={"help": "unet: published networks; lite: compact one"})
    task: Task = field(
        default="segmentation",
        metadata={"help": "segmentation, groups (S1), denoiser (D), second (S2), parcellation, qc or supervised"},
    )
    labels: str = field(default="", metadata={"help": "folder of label maps (true maps, for denoiser and qc)"})
    images: str = field(
        default="", metadata={"help": "folder of images (supervised) or of noisy maps (denoiser, qc), same order"}
    )
    validation: list[str] = field(default_factory=list, metadata={"help": "parts of names of maps kept for validation"})
    validation_scans: int = field(default=1, metadata={"help": "fixed validation samples per held-out map"})
    probabilities: Any = field(default=None, metadata={"help": "how often each map is drawn; none: equally"})
    target: Literal["v1", "v2"] = field(default="v2", metadata={"help": "structures: 32 of v1 or 33 of v2"})
    levels: int = field(default=5, metadata={"help": "resolution levels of the network (4 for qc)"})
    width: int = field(default=24, metadata={"help": "features of the first level, doubled at each (16 for denoiser)"})
    kernel: int = field(default=3, metadata={"help": "kernel size (5 for denoiser and qc)"})
    convs: int = field(default=2, metadata={"help": "convolutions per level"})
    skipped: int = field(default=0, metadata={"help": "top levels without skip connection (2 for denoiser)"})
    batch: int = field(default=1, metadata={"help": "samples per step and device"})
    learning_rate: float = field(default=1e-4, metadata={"help": "learning rate (Adam)"})
    wl2_epochs: int = field(default=1, metadata={"help": "epochs of the weighted L2 loss at the start"})
    dice_epochs: int = field(default=50, metadata={"help": "epochs of soft Dice (300 of squared error for qc)"})
    steps_per_epoch: int = field(default=10_000, metadata={"help": "steps per epoch (1000 for qc)"})
    class_weights: Any = field(default=None, metadata={"help": "weights of the labels in Dice; -1: inverse volume"})
    boundary_weight: float = field(default=0.0, metadata={"help": "extra weight of voxels near a border"})
    boundary_distance: int = field(default=3, metadata={"help": "how near to a border, voxels"})
    initial_weights: str = field(default="", metadata={"help": "weights file to start from"})
    generator: GeneratorConfig = field(default_factory=GeneratorConfig, metadata={"help": "what the scans look like"})
    run: RunOptions = field(default_factory=RunOptions, metadata={"help": "where and how the training runs"})


def default_config(task: Task = "segmentation") -> TrainingConfig:
    """Return the published configuration of a task."""
    config = TrainingConfig(task=task)
    generator = config.generator
    if task == "groups":
        generator.target_res, generator.prior_means, generator.prior_stds = 1.0, [0, 255], [0, 50]
    elif task == "denoiser":
        config.width, config.kernel, config.skipped = 16, 5, 2
    elif task == "qc":
        config.levels, config.kernel = 4, 5
        config.wl2_epochs, config.dice_epochs, config.steps_per_epoch = 0, 300, 1000
        generator.output_shape = 224
    elif task == "supervised":
        generator.noise_std, generator.randomise_res = 6.0, False
    return config


def make_source(
    config: TrainingConfig, maps: list[TrainingMap], pairs: list[ImagePair], device: torch.device
) -> Source:
    """Return the source of samples of a task."""
    generator, levels = config.generator, config.levels
    codes = V2_CHANNELS if config.target == "v2" else V1_CHANNELS
    crop = generator.output_shape if isinstance(generator.output_shape, int) else 160
    if config.task == "groups":
        tables = LabelTables.published("groups", generator.classes)
        return SyntheticSource(maps, generator, tables, range(5), levels, device, config.probabilities)
    if config.task == "second":
        return SecondStageSource(maps, generator, levels, device)
    if config.task == "parcellation":
        return ParcellationSource(maps, generator, levels, device)
    if config.task == "denoiser":
        return DenoiserSource(pairs, crop, levels, device)
    if config.task == "qc":
        return QCSource(pairs, crop, levels, device)
    tables = LabelTables.published(config.target, generator.classes)
    if config.task == "supervised":
        return SupervisedSource(pairs, generator, tables, codes, levels, device)
    return SyntheticSource(maps, generator, tables, codes, levels, device, config.probabilities)


def make_network(config: TrainingConfig, source: Source) -> UNet | QCRegressor:
    """Return a freshly initialised network of a task."""
    if config.task == "qc":
        return QCRegressor(QCSpec(source.in_channels, len(source.codes), config.levels, config.width, config.kernel))
    spec = UNetSpec(
        source.in_channels,
        len(source.codes),
        config.levels,
        config.width,
        config.kernel,
        config.skipped,
        config.convs,
    )
    return UNet(spec)


def make_module(config: TrainingConfig, data: list[Any], held: list[Any], weights_folder: Path) -> Any:
    """Return the LightningModule; ``data`` and ``held`` are label maps or image pairs."""
    lightning = require_lightning()
    wl2_steps = config.wl2_epochs * config.steps_per_epoch

    class SynthSegTraining(lightning.LightningModule):  # type: ignore[misc,name-defined]
        """One network, its two phases, and how samples are drawn."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(config.run.seed)
            self.network = make_network(config, self._source(data, torch.device("cpu")))
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))
            self._sources: dict[str, Source] = {}
            if config.initial_weights:
                _load_initial(self.network, config)

        def _source(self, items: list[Any], device: torch.device) -> Source:
            paired = bool(items) and isinstance(items[0], ImagePair)
            return make_source(config, [] if paired else items, items if paired else [], device)

        def source(self, kind: str) -> Source:
            """Return the source of training or held-out samples on the module's device."""
            if kind not in self._sources:
                self._sources[kind] = self._source(data if kind == "train" else held, self.device)
            return self._sources[kind]

        def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
            """Return the next batch; a sample that is not finite is drawn again with other draws, and logged."""
            images, targets = [], []
            world = self.trainer.world_size
            for _ in range(config.batch):
                number = int(self.seen) * world + self.global_rank
                self.seen += 1
                image, target = self.source("train").draw(Draws(config.run.seed * 1_000_003 + number, self.device))
                if not torch.isfinite(image).all():
                    self.log("not_finite", 1.0, batch_size=1)
                    image, target = torch.nan_to_num(image, 0.0, 0.0, 0.0), target
                images.append(image)
                targets.append(target)
            return torch.stack(images), torch.stack(targets)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            """Draw samples and return their loss."""
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                image, target = self.draw()
            loss = self.loss(self.network(image).float(), target)
            self.log("loss", loss, batch_size=config.batch, sync_dist=True)
            return loss

        def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            """Return the loss of the current phase."""
            if config.task == "qc":
                return (output - target).square().mean(0).sum()
            one_hot = nnf.one_hot(target, output.shape[1]).permute(0, 4, 1, 2, 3).to(output.dtype)
            if self.global_step < wl2_steps:
                return wl2_loss(output, one_hot, self._mean_of_all)
            return dice_loss(
                output.softmax(1),
                one_hot,
                class_weights=config.class_weights,
                boundary_weight=config.boundary_weight,
                boundary_distance=config.boundary_distance,
            )

        def _mean_of_all(self, value: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.trainer.strategy.reduce(value, reduce_op="mean"))

        def on_train_batch_start(self, batch: Any, index: int) -> None:
            """Start Dice with a fresh optimiser."""
            if self.global_step == wl2_steps and wl2_steps:
                self.optimizers().optimizer.state = defaultdict(dict)

        def on_train_batch_end(self, *_: Any) -> None:
            """Write the weights after every epoch."""
            step = self.global_step
            if step and step % config.steps_per_epoch == 0 and self.trainer.is_global_zero:
                epoch = step // config.steps_per_epoch
                phase = "qc" if config.task == "qc" else "wl2" if epoch <= config.wl2_epochs else "dice"
                number = epoch if phase == "wl2" else epoch - config.wl2_epochs
                save_weights(self.network, config, weights_folder / f"{phase}_{number:03d}.safetensors")

        def val_dataloader(self) -> DataLoader[int]:
            """Return the numbers of the fixed validation samples."""
            return DataLoader(list(range(len(held) * config.validation_scans)), batch_size=None)  # type: ignore[arg-type]

        def validation_step(self, number: int, index: int) -> None:
            """Score one fixed sample."""
            with torch.autocast(self.device.type, enabled=False):
                image, target = self.source("held").draw(Draws(900_000 + number, self.device))
            output = self.network(image[None]).float()
            if config.task == "qc":
                self.log("validation_error", (output[0] - target).abs().mean(), batch_size=1)
            else:
                score = mean_dice(output[0].argmax(0), target, output.shape[1])
                self.log("validation_dice", score, batch_size=1)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            """Return Adam with Keras' epsilon."""
            return torch.optim.Adam(self.network.parameters(), lr=config.learning_rate, eps=1e-7)

    return SynthSegTraining()


def save_weights(network: torch.nn.Module, config: TrainingConfig, path: Path) -> None:
    """Write a network's weights as safetensors, under the prefix by which ``segment`` finds them."""
    from safetensors.torch import save

    from ..volume import atomic_path

    prefix = PREFIX.get(config.task, "unet")
    state = {
        f"{prefix}/{name}": value.detach().cpu().float().contiguous() for name, value in network.state_dict().items()
    }
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(state, metadata={"task": config.task, "target": config.target}))


def _load_initial(network: torch.nn.Module, config: TrainingConfig) -> None:
    """Copy all tensors that fit from a weights file; a head of another width starts afresh."""
    from .weights import load_states

    states = load_states(config.initial_weights)
    state = states.get(PREFIX.get(config.task, "unet")) or next(iter(states.values()))
    own = network.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    if len(fitting) < len(own) // 2:
        raise RequestError(
            f"{Path(config.initial_weights).name} fits only {len(fitting)} of {len(own)} tensors of this network",
            "set levels, width and kernel to those of the file",
        )
    network.load_state_dict({**own, **fitting})


def train(config: TrainingConfig, progress: Progress) -> Path:
    """Run or continue a training; returns the path of the last checkpoint."""
    if not config.labels:
        raise RequestError("the configuration names no label maps", "set 'labels' to a folder of label maps")
    run = config.run
    run.steps = run.steps or (config.wl2_epochs + config.dice_epochs) * config.steps_per_epoch
    items: list[Any] = list(load_maps(config.labels))
    if config.task in ("supervised", "denoiser", "qc"):
        items = load_pairs(config.images, items, config.task)
    data, held = split_maps(items, config.validation)
    if not held:
        run.validate_every = 0
    module = make_module(config, data, held, Path(run.output) / "weights")
    return fit(module, DataLoader(Endless(), batch_size=None), run, config, progress)
