"""Training of IGUANe: one universal generator to the reference style, a way back and two discriminators per site.

Roca et al., Medical Image Analysis 99 (2025) 103388. The published recipe is the default. Beyond it: a term for pairs
of one anatomy (persons who were scanned at a site and at the reference site, or simulated ones), at the start alone if
wanted, narrower networks, a running average of the weights, and a score instead of a random number. A run keeps
``weights/best_genUniv.safetensors``, and at the end all networks and ``stats.json`` under the published names.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch.utils.data import DataLoader

from ..errors import RequestError
from ..progress import Progress
from ..training import RunOptions, fit, require_lightning
from .losses import Weights
from .network import DISCRIMINATOR_FEATURES, GeneratorSpec
from .simulated_sites import SitesConfig, SiteSimulator
from .visits import DISCRIMINATOR_BATCHES, PairSource, Plan, Visits

__all__ = ["IguaneConfig", "open_source", "train"]


@dataclass
class IguaneConfig:
    """Configuration of ``mri-deep-tools train iguane``."""

    data: str = field(
        default="", metadata={"help": "table (path, site; age, subject where known) of prepared images, or packed .h5"}
    )
    reference: str = field(default="", metadata={"help": "name of the reference site in the table"})
    simulation: SitesConfig = field(
        default_factory=SitesConfig, metadata={"help": "simulated sites from label maps, in place of data"}
    )
    shape: list[int] = field(default_factory=lambda: [160, 192, 160], metadata={"help": "of the images, voxels"})
    age_bins: list[float] = field(
        default_factory=list, metadata={"help": "edges of age ranges: pairs are of one range; empty: any pairs"}
    )
    augmentation: Literal["kept", "published", "none"] = field(
        default="kept", metadata={"help": "kept: the background stays background; published: it leaks; none"}
    )
    validation: float = field(default=0.1, metadata={"help": "share of the persons of each site kept for the score"})
    epochs: int = field(default=100, metadata={"help": "epochs"})
    steps_per_epoch: int = field(default=200, metadata={"help": "steps per epoch; each visits every source site"})
    score_every: int = field(default=5, metadata={"help": "epochs between two scores; 0: none"})
    batch: int = field(default=1, metadata={"help": "images per batch"})
    split: Literal["even", "published"] = field(
        default="even",
        metadata={
            "help": "of a visit's four batches between the discriminators: even, or two images and the rest as "
            "published (no difference with batches of 1)"
        },
    )
    width: int = field(default=16, metadata={"help": "features of the universal generator at full resolution"})
    backward_width: int = field(default=16, metadata={"help": "the same of the backward generators"})
    levels: int = field(default=4, metadata={"help": "halvings in the generators"})
    discriminator_features: list[int] = field(
        default_factory=lambda: list(DISCRIMINATOR_FEATURES), metadata={"help": "features of the discriminators"}
    )
    learning_rate: float = field(default=2e-4, metadata={"help": "first learning rate (Adam, Keras form)"})
    last_learning_rate: float = field(default=2e-5, metadata={"help": "last learning rate; it falls linearly"})
    adversarial_weight: float = field(default=1.0, metadata={"help": "weight of the adversarial terms"})
    cycle_weight: float = field(default=30.0, metadata={"help": "weight of the cycle terms"})
    identity_weight: float = field(default=15.0, metadata={"help": "weight of the identity terms"})
    paired_weight: float = field(
        default=0.0, metadata={"help": "weight of the error against the reference image of the same person; 0: none"}
    )
    paired_visits: int = field(
        default=0, metadata={"help": "visits at the start with the paired term alone (universal generator)"}
    )
    phases: int = field(
        default=1,
        metadata={
            "help": "n for a training on every n-th voxel (simulation.coarse_voxels): the weights that are kept take "
            "1 mm images apart into n^3 such images"
        },
    )
    start: Literal["published", "unchanged", "features"] = field(
        default="published",
        metadata={
            "help": "last layers at the start: published (random), unchanged (0: generators change nothing), or "
            "features (the input is taken back, so that the output comes from the normalised features alone)"
        },
    )
    average: float = field(
        default=0.0, metadata={"help": "decay of the running average of the universal generator; 0: none (published)"}
    )
    initial_weights: str = field(default="", metadata={"help": "weights file of a universal generator to start from"})
    workers: int = field(default=0, metadata={"help": "processes that prepare images; 0: none beside the training"})
    run: RunOptions = field(
        default_factory=RunOptions,
        metadata={"help": "where and how the training runs; a step here is a visit of one site"},
    )

    def weights(self) -> Weights:
        """Return the weights of the loss terms."""
        return Weights(self.adversarial_weight, self.cycle_weight, self.identity_weight, self.paired_weight)

    def split_of_visit(self) -> int:
        """Return how many images of a visit are for the discriminator of the source; the next are for the other."""
        return 2 if self.split == "published" else DISCRIMINATOR_BATCHES // 2 * self.batch

    def spec(self) -> GeneratorSpec:
        """Return the form of the universal generator."""
        return GeneratorSpec(self.width, self.levels)


def open_source(config: IguaneConfig, progress: Progress) -> PairSource:
    """Return where images come from; a table is packed into the run's folder first.

    Raises
    ------
    RequestError, InputError : no data, or data that cannot be used.

    """
    folder = Path(config.run.output)
    if config.simulation.labels:
        if config.data:
            raise RequestError("both data and simulated sites are given", "empty 'data' or 'simulation.labels'")
        from .simulated_pairs import SimulatedPairs

        return SimulatedPairs(SiteSimulator(config.simulation, folder / "maps.npz"), config.run.seed)
    if not config.data:
        raise RequestError(
            "the configuration names no data", "set 'data' to a table with the columns path and site, or a packed file"
        )
    from .dataset import packed
    from .packed_pairs import PackedPairs

    path = packed(Path(config.data), folder / "data.h5", config.shape, progress)
    return PackedPairs(
        path,
        config.reference,
        seed=config.run.seed,
        age_bins=config.age_bins,
        augmentation=config.augmentation,
        validation=config.validation,
    )


def train(config: IguaneConfig, progress: Progress) -> Path:
    """Run or continue a training; returns the path of the last checkpoint.

    Raises
    ------
    RequestError, InputError, DependencyError, CancelledError : see :mod:`mri_deep_tools.errors`.

    """
    require_lightning()
    _check(config)
    source = open_source(config, progress)
    sites = len(source.names)
    if config.paired_visits and not config.paired_weight:
        raise RequestError("paired_visits needs a paired_weight above 0", "set both, or neither")
    epoch = config.steps_per_epoch * sites
    config.run.steps = config.run.steps or config.epochs * epoch
    scored = config.score_every and (config.simulation.validation or (config.data and config.validation > 0))
    config.run.validate_every = config.score_every * epoch if scored else 0
    from .training_module import make_module

    plan = Plan(sites, config.batch, config.paired_visits, config.run.seed)
    visits = Visits(source, plan)
    module = make_module(config, visits)
    loader = DataLoader(visits, batch_size=None, num_workers=config.workers)
    # Autocast, loss scales and sums over devices are this training's own: each network has an optimiser of its own.
    return fit(module, loader, replace(config.run, precision="32-true"), config, progress)


def _check(config: IguaneConfig) -> None:
    """Raise RequestError for numbers that cannot be."""
    multiple = 2**config.levels
    if len(config.shape) != 3 or any(side < multiple or side % multiple for side in config.shape):
        raise RequestError(
            f"images of {config.shape} do not fit generators with {config.levels} levels",
            f"sides must be multiples of {multiple}",
        )
    if min(config.width, config.backward_width, config.phases, config.batch, config.steps_per_epoch, config.epochs) < 1:
        raise RequestError("widths, batch, epochs and steps must be 1 at least", "correct the configuration")
    if len(config.discriminator_features) != len(DISCRIMINATOR_FEATURES):
        raise RequestError("a discriminator has three layers", "give three discriminator_features")
    if config.run.accumulate != 1 or config.run.gradient_clip:
        raise RequestError("this training neither accumulates nor clips gradients", "leave these options out")
    if config.run.precision not in ("32-true", "bf16-mixed", "16-mixed"):
        raise RequestError(f"unknown precision {config.run.precision!r}", "use 32-true, bf16-mixed or 16-mixed")
