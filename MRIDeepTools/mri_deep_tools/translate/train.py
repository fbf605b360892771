"""Training of SynDiff: two diffusive generators, two one-pass generators for pseudo pairs, four discriminators.

Ozbey et al., IEEE Transactions on Medical Imaging 42 (2023) 3524. The published recipe is the default. Beyond it:
aligned pairs can be used as such (``supervised``), networks of any size, batches in parts, mixed precision, validation
of both directions with the averaged weights, the best ones kept. A run keeps model folders for ``translate``: ``model``
with the best weights (the last ones where there are no images for validation), and ``last``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch.utils.data import DataLoader

from ..errors import RequestError
from ..progress import Progress
from ..training import Endless, RunOptions, fit, processes, require_lightning
from .dataset import ContrastPairs
from .dataset_sources import open_images
from .diffusion import Schedule
from .losses import Weights
from .network import NCSNppSpec

__all__ = ["DiffusionConfig", "NetworkConfig", "SynDiffConfig", "train"]


@dataclass
class NetworkConfig:
    """Sizes of the eight networks."""

    width: int = field(default=64, metadata={"help": "features of the diffusive generators at full resolution"})
    multipliers: list[int] = field(
        default_factory=lambda: [1, 1, 2, 2, 4, 4], metadata={"help": "features of each level, in units of width"}
    )
    blocks: int = field(default=2, metadata={"help": "residual blocks per level"})
    attention: list[int] = field(default_factory=lambda: [16], metadata={"help": "sides in pixels with attention"})
    latent: int = field(default=100, metadata={"help": "random numbers that the generators are given beside the noise"})
    embedding: int = field(default=256, metadata={"help": "features of the mapped latent vector"})
    mapping_layers: int = field(default=3, metadata={"help": "layers of that mapping after the first"})
    dropout: float = field(default=0.0, metadata={"help": "share of features dropped in the diffusive generators"})
    one_pass_width: int = field(default=64, metadata={"help": "features of the one-pass generators"})
    one_pass_blocks: int = field(default=6, metadata={"help": "residual blocks of the one-pass generators"})
    judge: Literal["large", "small"] = field(
        default="large", metadata={"help": "diffusive discriminators: large (64 pixels or more) or small (8 or more)"}
    )
    judge_width: int = field(default=64, metadata={"help": "features of the diffusive discriminators"})
    time_embedding: int = field(default=256, metadata={"help": "features of their embedded time"})
    patch_width: int = field(default=64, metadata={"help": "features of the patch discriminators"})


@dataclass
class DiffusionConfig:
    """Steps of the diffusion."""

    steps: int = field(default=4, metadata={"help": "number of steps"})
    beta_min: float = field(default=0.1, metadata={"help": "noise rate at the start"})
    beta_max: float = field(default=20.0, metadata={"help": "noise rate at the end"})
    geometric: bool = field(default=False, metadata={"help": "the variance grows as a power (bounds below 1)"})


@dataclass
class SynDiffConfig:
    """Configuration of ``mri-deep-tools train syndiff``."""

    data: str = field(
        default="", metadata={"help": "folder with *_train.hdf5 (and *_val.hdf5) or data_train_CONTRAST.mat files"}
    )
    contrast1: str = field(default="T1", metadata={"help": "name of contrast 1 in the data"})
    contrast2: str = field(default="T2", metadata={"help": "name of contrast 2 in the data"})
    paired: bool = field(default=False, metadata={"help": "image k of both contrasts shows the same"})
    supervised: bool = field(
        default=False, metadata={"help": "aligned pairs are used as such: no pseudo pairs, no cycle (needs paired)"}
    )
    image_size: int = field(default=256, metadata={"help": "side of the squares that are cut out of images, pixels"})
    flips: bool | None = field(
        default=None, metadata={"help": "turn images over; none: pictures are, slices of scans are not (as published)"}
    )
    network: NetworkConfig = field(default_factory=NetworkConfig, metadata={"help": "sizes of the networks"})
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig, metadata={"help": "steps of the diffusion"})
    epochs: int = field(default=500, metadata={"help": "epochs; one shows every image of the larger contrast once"})
    batch: int = field(default=1, metadata={"help": "images per batch, device and contrast; see run.accumulate"})
    generator_rate: float = field(default=1.6e-4, metadata={"help": "first learning rate of the generators (Adam)"})
    discriminator_rate: float = field(default=1e-4, metadata={"help": "the same of the discriminators"})
    last_rate: float = field(default=1e-5, metadata={"help": "last learning rate; each epoch follows a half cosine"})
    decay: bool = field(default=True, metadata={"help": "false: constant learning rates"})
    beta1: float = field(default=0.5, metadata={"help": "Adam's decay of the first moment"})
    beta2: float = field(default=0.9, metadata={"help": "Adam's decay of the second moment"})
    average: float = field(default=0.999, metadata={"help": "decay of the running average of the generators; 0: none"})
    r1_gamma: float = field(default=1.0, metadata={"help": "weight of the gradient penalty of real images; 0: none"})
    lazy_reg: int = field(default=10, metadata={"help": "steps between two penalties"})
    l1_weight: float = field(default=0.5, metadata={"help": "weight of the absolute errors, those of the cycle too"})
    adversarial_weight: float = field(
        default=1.0, metadata={"help": "weight of the adversarial terms; 0: no discriminators (supervised only)"}
    )
    validate_epochs: int = field(default=1, metadata={"help": "epochs between two validations; 0: never"})
    validation_images: int = field(default=0, metadata={"help": "validate on so many images; 0: on all"})
    pictures: int = field(default=4, metadata={"help": "sample pictures per validation and direction; 0: none"})
    save_every: int = field(
        default=0, metadata={"help": "epochs between weights files of the published names (.pth); 0: none"}
    )
    half: bool = field(default=False, metadata={"help": "write the model folders in float16"})
    compatible: bool = field(
        default=False,
        metadata={
            "help": "as AxonDeepSynth: the generators' learning rate stays, pairs are cut and turned separately, "
            "one epoch more"
        },
    )
    run: RunOptions = field(
        default_factory=RunOptions,
        metadata={"help": "where and how the training runs; a step updates every network once"},
    )

    def spec(self) -> NCSNppSpec:
        """Return the form of the diffusive generators."""
        net = self.network
        return NCSNppSpec(
            image_size=self.image_size,
            width=net.width,
            multipliers=tuple(net.multipliers),
            blocks=net.blocks,
            attention=tuple(net.attention),
            latent=net.latent,
            embedding=net.embedding,
            mapping_layers=net.mapping_layers,
            dropout=net.dropout,
        )

    def schedule(self) -> Schedule:
        """Return the diffusion."""
        asked = self.diffusion
        return Schedule(asked.steps, asked.beta_min, asked.beta_max, asked.geometric)

    def weights(self) -> Weights:
        """Return the weights of the loss terms."""
        return Weights(self.adversarial_weight, self.l1_weight, self.r1_gamma)

    def contrasts(self) -> tuple[str, str]:
        """Return the names of contrast 1 and contrast 2."""
        return self.contrast1, self.contrast2

    def passes(self) -> int:
        """Return how many epochs are run: one more than named by the published loop."""
        return self.epochs + (1 if self.compatible else 0)


def train(config: SynDiffConfig, progress: Progress) -> Path:
    """Run or continue a training; returns the path of the last checkpoint.

    Raises
    ------
    RequestError, InputError, DependencyError, CancelledError : see :mod:`mri_deep_tools.errors`.

    """
    require_lightning()
    _check(config)
    pairs = _pairs(config, "train", progress)
    held = _validation(config, progress)
    # Autocast, loss scales, parts of a batch and sums over devices are this training's own.
    options = replace(config.run, precision="32-true", accumulate=1)
    world = processes(options)
    images = config.batch * config.run.accumulate * world
    per_epoch = len(pairs) // images
    if not per_epoch:
        raise RequestError(
            f"a step takes {images} images, but {pairs.source.name} has {len(pairs)}", "lower batch or run.accumulate"
        )
    config.run.steps = options.steps = config.run.steps or config.passes() * per_epoch
    config.run.validate_every = options.validate_every = config.validate_epochs * per_epoch if held is not None else 0
    from .training_module import make_module

    module = make_module(config, pairs, held, per_epoch)
    loader = DataLoader(Endless(), batch_size=None)
    return fit(module, loader, options, config, progress)


def _pairs(config: SynDiffConfig, split: str, progress: Progress) -> ContrastPairs:
    return ContrastPairs(
        config.data,
        config.contrasts(),
        config.image_size,
        training=split == "train",
        split=split,
        paired=config.paired,
        flips=config.flips,
        seed=config.run.seed,
        compatible=config.compatible and split == "train",
        on_warning=progress.warn,
    )


def _validation(config: SynDiffConfig, progress: Progress) -> ContrastPairs | None:
    """Return the images for validation; None where there are none, or none are wanted."""
    folder = Path(config.data)
    if not config.validate_epochs:
        return None
    if not folder.is_dir() or not (list(folder.glob("*_val.h*5")) + list(folder.glob("data_val_*.mat"))):
        progress.warn("there are no images for validation: the last weights are kept, not the best")
        return None
    open_images(folder, config.contrasts(), split="val")
    return _pairs(config, "val", progress)


def _check(config: SynDiffConfig) -> None:
    """Raise RequestError for what cannot be."""
    if not config.data:
        raise RequestError("the configuration names no data", "set 'data' to a folder made by translate-dataset")
    spec, multiple = config.spec(), 4
    config.schedule()
    multiple = max(spec.multiple, 4)
    smallest = {"large": 64, "small": 8}[config.network.judge] if config.adversarial_weight else multiple
    if config.image_size % multiple or config.image_size < smallest:
        hint = f"use a multiple of {multiple}, at least {smallest}" + (
            ", or network.judge: small" if smallest == 64 else ""
        )
        raise RequestError(f"squares of {config.image_size} pixels do not fit the networks", hint)
    if config.supervised and not config.paired:
        raise RequestError("supervised training needs pairs", "set paired: true as well, or leave supervised out")
    if not config.adversarial_weight and not config.supervised:
        raise RequestError("without pairs the discriminators are what teaches", "give an adversarial_weight above 0")
    if min(config.batch, config.epochs, config.lazy_reg, config.run.accumulate) < 1:
        raise RequestError("batch, epochs, lazy_reg and run.accumulate must be 1 at least", "correct the configuration")
    if config.batch > 4 and config.batch % 4 and config.adversarial_weight:
        raise RequestError(f"a batch of {config.batch}", "the discriminators take 1 to 4 images, or a multiple of 4")
    if not 0 <= config.average < 1:
        raise RequestError(f"a running average with the decay {config.average:g}", "use 0 (none) to 0.9999")
    if config.run.gradient_clip:
        raise RequestError("this training does not clip gradients", "leave run.gradient_clip out")
    if config.run.precision not in ("32-true", "bf16-mixed", "16-mixed"):
        raise RequestError(f"unknown precision {config.run.precision!r}", "use 32-true, bf16-mixed or 16-mixed")
