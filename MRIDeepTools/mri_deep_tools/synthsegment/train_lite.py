"""Training of the compact network on coarse synthetic scans (:mod:`.lite_network`, :mod:`.generator.coarse`)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..progress import Progress
from ..training import Endless, RunOptions, fit, learning_rate_factor, require_lightning
from .generator.coarse import CoarseConfig, CoarseLabelsToImage
from .generator.draws import Draws
from .labels import V2_CHANNELS
from .lite_network import LiteConfig, LiteNetwork, labels_of_cells
from .losses import cross_entropy_and_dice, mean_dice
from .training_maps import TrainingMap, load_maps, split_maps

__all__ = ["LiteTrainingConfig", "train_lite"]

DEFAULT_STEPS = 100_000

RARE_VOXELS = 20_000
"""Structures below this many mm^3 on average count as rare: all their cells enter the loss."""


@dataclass
class LiteTrainingConfig:
    """Configuration of ``mri-deep-tools train synthseg`` for ``network: lite``."""

    network: str = field(default="lite", metadata={"help": "lite: the compact 2 mm network"})
    labels: str = field(default="", metadata={"help": "folder of training label maps (1 mm)"})
    validation: list[str] = field(default_factory=list, metadata={"help": "parts of names of maps kept for validation"})
    widths: list[int] = field(
        default_factory=lambda: [32, 64, 128, 192], metadata={"help": "features of the network per level"}
    )
    decoder_blocks: int = field(default=2, metadata={"help": "convolutions per level on the way up"})
    learning_rate: float = field(default=6e-4, metadata={"help": "largest learning rate (AdamW)"})
    weight_decay: float = field(default=1e-4, metadata={"help": "weight decay (AdamW)"})
    warmup: int = field(default=300, metadata={"help": "steps of linear warm-up"})
    cooldown: int = field(default=2000, metadata={"help": "steps of linear cool-down at the end"})
    easy_steps: int = field(
        default=3000, metadata={"help": "steps over which T1-like scans give way to the configured mixture"}
    )
    average: float = field(default=0.998, metadata={"help": "decay of the running average of the weights"})
    initial_weights: str = field(
        default="", metadata={"help": "model folder from which all tensors that fit are taken"}
    )
    generator: CoarseConfig = field(default_factory=CoarseConfig, metadata={"help": "what the scans look like"})
    run: RunOptions = field(default_factory=RunOptions, metadata={"help": "where and how the training runs"})


def take_fitting(network: LiteNetwork, path: Path) -> None:
    """Copy every tensor of a weights file that has the name and shape of one of the network's."""
    from safetensors.torch import load_file

    own = network.state_dict()
    found = {k: v.float() for k, v in load_file(path).items() if k in own and own[k].shape == v.shape}
    network.load_state_dict({**own, **found})


def choose_cells(labels: torch.Tensor, rare: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Return flat indices of the cells in the loss: all rare ones, a third of the brain, a tenth of the rest."""
    x, y, z = (n // 2 for n in labels.shape)
    parts = labels.reshape(x, 2, y, 2, z, 2)
    brain = (parts > 0).any(5).any(3).any(1).reshape(-1)
    is_rare = rare[labels].reshape(x, 2, y, 2, z, 2).any(5).any(3).any(1).reshape(-1)
    share = torch.where(is_rare, 1.0, torch.where(brain, 0.33, 0.1))
    return draws.chances(share).nonzero()[:, 0]


def make_module(config: LiteTrainingConfig, train: list[TrainingMap], held: list[TrainingMap]) -> Any:
    """Return the LightningModule of this training."""
    lightning = require_lightning()

    class LiteTraining(lightning.LightningModule):  # type: ignore[misc,name-defined]
        """Network, its running average, and how one step is made."""

        def __init__(self) -> None:
            super().__init__()
            shape = LiteConfig(len(V2_CHANNELS), tuple(config.widths), config.decoder_blocks)
            torch.manual_seed(config.run.seed)
            self.network = LiteNetwork(shape)
            self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
            if config.initial_weights:
                take_fitting(self.network, Path(config.initial_weights) / "model.safetensors")
            self.averaged = copy.deepcopy(self.network).requires_grad_(False)
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))
            self._averaged_at = -1
            self.register_buffer("rare", _rare_channels(train), persistent=False)
            self._features = torch.compile(self.network.features) if config.run.compile else self.network.features
            self._generator: CoarseLabelsToImage | None = None

        def generator(self) -> CoarseLabelsToImage:
            """Return the generator on the module's device."""
            if self._generator is None:
                self._generator = CoarseLabelsToImage(copy.copy(config.generator), V2_CHANNELS, device=self.device)
            return self._generator

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            """Draw one scan and return its loss."""
            number = int(self.seen) * self.trainer.world_size + self.global_rank
            self.seen += 1
            draws = Draws(config.run.seed * 1_000_003 + number, self.device)
            chosen = train[draws.integer(len(train))]
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                generator = self.generator()
                generator.config.t1_probability = self.t1_share()
                scan, labels = generator(chosen.labels.to(self.device), chosen.centre, draws)
                cells = choose_cells(labels, self.rare, draws)
                target = labels_of_cells(labels, cells).reshape(-1)
            features = self._features(scan[None, None])
            logits = self.network.logits_of_cells(features, cells).float()
            loss = cross_entropy_and_dice(logits.reshape(-1, logits.shape[-1]), target)
            self.log("loss", loss, batch_size=1, sync_dist=True)
            return loss

        def on_train_start(self) -> None:
            """Let the configured learning rate hold when a run is continued with another one."""
            self._averaged_at = self.global_step
            for schedule in self.trainer.lr_scheduler_configs:
                schedule.scheduler.base_lrs = [config.learning_rate] * len(schedule.scheduler.base_lrs)

        def t1_share(self) -> float:
            """Return the share of T1-like scans now: all at first, for the anatomy, then ever fewer."""
            easy = max(0.0, 1 - self.global_step / max(config.easy_steps, 1))
            return easy + (1 - easy) * config.generator.t1_probability

        def on_train_batch_end(self, *_: Any) -> None:
            """Move the running average, once per optimiser step."""
            if self.global_step == self._averaged_at or self.global_step == 0:
                return
            self._averaged_at = self.global_step
            decay = min(config.average, (1 + self.global_step) / (10 + self.global_step))
            with torch.no_grad():
                mine = [*self.averaged.parameters(), *self.averaged.buffers()]
                theirs = [*self.network.parameters(), *self.network.buffers()]
                for a, b in zip(mine, theirs, strict=True):
                    if a.dtype.is_floating_point:
                        a.lerp_(b, 1 - decay)
                    else:
                        a.copy_(b)

        def val_dataloader(self) -> DataLoader[int]:
            """Return the numbers of the fixed validation scans."""
            return DataLoader(list(range(len(held) * len(VALIDATION_KINDS))), batch_size=None)  # type: ignore[arg-type]

        def validation_step(self, number: int, index: int) -> None:
            """Score one fixed scan of a held-out map."""
            kind, item = VALIDATION_KINDS[number % len(VALIDATION_KINDS)], held[number // len(VALIDATION_KINDS)]
            generator = CoarseLabelsToImage(validation_config(config.generator, kind), V2_CHANNELS, device=self.device)
            with torch.autocast(self.device.type, enabled=False):
                draws = Draws(900_000 + number, self.device)
                scan, labels = generator(item.labels.to(self.device), item.centre, draws)
            for name, batch_statistics in (("dice", False), ("dice_own", True)):
                self.averaged.train(batch_statistics)
                keep = copy.deepcopy(dict(self.averaged.named_buffers())) if batch_statistics else {}
                logits = self.averaged(scan[None, None])[0].float()
                for key, buffer in keep.items():
                    self.averaged.get_buffer(key).copy_(buffer)
                self.averaged.eval()
                self.log(
                    f"{name}_{kind}", mean_dice(logits.argmax(0), labels, len(V2_CHANNELS)), on_epoch=True, batch_size=1
                )

        def configure_optimizers(self) -> Any:
            """Return AdamW with warm-up, constant rate and cool-down."""
            optimiser = torch.optim.AdamW(
                self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
            )
            schedule = torch.optim.lr_scheduler.LambdaLR(
                optimiser,
                lambda step: learning_rate_factor(
                    step, config.run.steps or DEFAULT_STEPS, config.warmup, config.cooldown
                ),
            )
            return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    return LiteTraining()


VALIDATION_KINDS = ("t1", "random", "thick")


def validation_config(config: CoarseConfig, kind: str) -> CoarseConfig:
    """Return the generator of validation scans: T1-like, random contrast, or random contrast with thick slices."""
    result = copy.copy(config)
    result.skull_strip_probability = 0.0
    result.t1_probability = 1.0 if kind == "t1" else 0.0
    result.fine_probability = 0.0 if kind == "thick" else 1.0
    result.max_res_aniso = 6.0
    return result


def _rare_channels(maps: list[TrainingMap]) -> torch.Tensor:
    counts = np.zeros(len(V2_CHANNELS))
    for item in maps:
        values, number = np.unique(item.labels.numpy(), return_counts=True)
        sizes = dict(zip(values.tolist(), number.tolist(), strict=True))
        counts += [sizes.get(code, 0) for code in V2_CHANNELS]
    return torch.tensor(counts / len(maps) < RARE_VOXELS)


def train_lite(config: LiteTrainingConfig, progress: Progress) -> Any:
    """Run or continue the training; returns the path of the last checkpoint."""
    config.run.steps = config.run.steps or DEFAULT_STEPS
    train, held = split_maps(load_maps(config.labels), config.validation)
    module = make_module(config, train, held)
    return fit(module, DataLoader(Endless(), batch_size=None), config.run, config, progress)
