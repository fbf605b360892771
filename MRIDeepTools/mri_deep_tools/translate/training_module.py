"""One step of a SynDiff training: diffusive discriminators, patch discriminators, generators; and the books of epochs.

Each network has an Adam optimiser and, in float16, a loss scale of its own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..harmonize.loss_scale import LossScale
from ..harmonize.training_module import average_gradients, frozen, mean_of_all
from ..training import require_lightning
from .dataset import ContrastPairs
from .ema import RunningAverage, cosine_rate
from .losses import (
    GENERATORS,
    JUDGES,
    ONE_PASS,
    PATCH_JUDGES,
    StepDraws,
    generator_terms,
    judge_terms,
    one_pass,
    patch_terms,
)
from .training_draws import SampleDraws
from .training_networks import build_networks, facts_of, save_folder, save_published
from .validation import Validation, write_pictures

if TYPE_CHECKING:
    from .train import SynDiffConfig

__all__ = ["make_module"]

_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
Pair = tuple[Tensor, Tensor]
"""Images of contrast 1 and 2, (B, 1, H, W) each."""
Part = tuple[Pair, StepDraws]
"""Images and their draws; a batch may come in several parts."""
Loss = tuple[Tensor, dict[str, Tensor]]
"""What to take the gradient of, and what is logged."""


def make_module(config: SynDiffConfig, pairs: ContrastPairs, held: ContrastPairs | None, per_epoch: int) -> Any:
    """Return the LightningModule of a training; ``per_epoch`` is the number of steps of an epoch."""
    lightning = require_lightning()
    weights, folder = config.weights(), Path(config.run.output)
    total = int(config.run.steps or 1)

    class SynDiffTraining(lightning.LightningModule):  # type: ignore[misc,name-defined]
        """Networks, their running averages and optimisers, and the books of the epochs."""

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            torch.manual_seed(config.run.seed)
            self.networks = nn.ModuleDict(build_networks(config))
            generators = {name: self.networks[name] for name in (*GENERATORS, *ONE_PASS) if name in self.networks}
            self.average = RunningAverage(generators, config.average) if config.average else None
            self.scales = {name: LossScale(config.run.precision == "16-mixed") for name in self.networks}
            self.schedule = config.schedule()
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))
            self.book: dict[str, Any] = {"sums": {}, "epochs": [], "figures": [], "published": [], "best": None}

        def on_train_start(self) -> None:
            """Sums over devices are made here, not by a wrapper."""
            self.schedule = self.schedule.to(self.device)
            wrapper = self.trainer.strategy.model
            if hasattr(wrapper, "require_backward_grad_sync"):
                wrapper.require_backward_grad_sync = False

        # ------------------------------------------------------------------------------------------------ a step

        def training_step(self, batch: Any, index: int) -> None:
            """Draw images and update every network once."""
            number = int(self.seen)
            if config.network.dropout:
                torch.manual_seed(hash((config.run.seed, number, self.global_rank)) % 2**63)
            found = self.step(self.parts(number), number)
            found = mean_of_all(found, set(found), self.device)
            self.seen += 1
            if number % config.run.log_every == 0:  # not log_dict, which repeats the penalties of earlier steps
                for logger in self.loggers:
                    logger.log_metrics(found, step=number)
            self.note(found)

        def parts(self, number: int) -> list[Part]:
            """Return the images and draws of a step; process and part count like further images of the batch."""
            epoch, place = divmod(number, per_epoch)
            rank, world = self.global_rank, self.trainer.world_size
            found: list[Part] = []
            for part in range(config.run.accumulate):
                first = ((place * config.run.accumulate + part) * world + rank) * config.batch
                numbers = [epoch * len(pairs) + first + k for k in range(config.batch)]
                samples = [pairs.sample(n) for n in numbers]
                one, two = (torch.stack([s[k] for s in samples]).to(self.device) for k in (0, 1))
                shape = (config.image_size, config.image_size)
                draws = SampleDraws(config.run.seed, numbers, shape, config.network.latent, self.device)
                found.append(((one, two), draws))
            return found

        def step(self, parts: list[Part], number: int) -> dict[str, float]:
            """Update all networks; returns what is logged."""
            self.set_rates(number)
            nets: Any = self.networks
            due = config.r1_gamma > 0 and number % config.lazy_reg == 0
            gamma = config.r1_gamma if due else None
            found: dict[str, float] = {}
            made = [self.pseudo(images) for images, _ in parts]
            both = list(zip(parts, made, strict=True))
            if weights.adversarial:
                found |= self.descend(JUDGES, [partial(self.judge_loss, *pair, gamma) for pair in both])
            if not config.supervised:
                found |= self.descend(PATCH_JUDGES, [partial(self.patch_loss, *pair) for pair in both])
            with frozen([nets[name] for name in (*JUDGES, *PATCH_JUDGES) if name in nets]):
                found |= self.descend(
                    tuple(name for name in (*ONE_PASS, *GENERATORS) if name in nets),
                    [partial(self.generator_loss, part) for part in parts],
                )
            if self.average is not None:
                self.average.update(dict(nets.items()))
            return found

        def pseudo(self, images: Pair) -> Pair:
            """Return contrasts 1 and 2 made of the other one; the real ones in a supervised training. No gradient."""
            if config.supervised:
                return images
            with torch.no_grad(), self.arithmetic():
                one, two = one_pass(self.networks, images)  # type: ignore[arg-type]
            return one.float(), two.float()

        def judge_loss(self, part: Part, made: Pair, gamma: float | None) -> Loss:
            """Return the loss of the diffusive discriminators."""
            nets: Any = self.networks
            terms = judge_terms(nets, self.schedule, part[0], (made[1], made[0]), part[1], gamma, self.exact)
            return terms.total(), terms.named("D")

        def patch_loss(self, part: Part, made: Pair) -> Loss:
            """Return the loss of the patch discriminators."""
            nets: Any = self.networks
            terms = patch_terms(nets, part[0], made)
            return terms.total(), terms.named("D_cycle")

        def generator_loss(self, part: Part) -> Loss:
            """Return the loss of all generators."""
            nets: Any = self.networks
            adversarial = weights.adversarial > 0
            terms = generator_terms(nets, self.schedule, *part, supervised=config.supervised, adversarial=adversarial)
            return terms.total(weights), terms.named(weights)

        def descend(self, names: tuple[str, ...], losses: list[Callable[[], Loss]]) -> dict[str, float]:
            """Take the gradient of the mean of losses, one after the other, and update networks."""
            used = min(self.scales[name].value for name in names)
            found = self.optimizers()
            optimisers = dict(zip(self.networks, found if isinstance(found, list) else [found], strict=True))
            for name in names:
                optimisers[name].optimizer.zero_grad()
            logged: dict[str, float] = defaultdict(float)
            for make in losses:
                with self.arithmetic():
                    loss, values = make()
                (loss * (used / len(losses))).backward()
                for key, value in values.items():
                    logged[key] += float(value.detach()) / len(losses)
            for name in names:
                parameters = list(self.networks[name].parameters())
                if dist.is_available() and dist.is_initialized():
                    average_gradients(parameters)
                finite = self.scales[name].unscale(parameters, used)
                # Lightning counts the steps of one optimiser alone; it must be asked even where it is to do nothing.
                if name == GENERATORS[0]:
                    self.step_counted(optimisers[name], finite)
                elif finite:
                    optimisers[name].optimizer.step()
                self.scales[name].update(finite)
            return dict(logged)

        def step_counted(self, optimiser: Any, finite: bool) -> None:
            """Step, and let Lightning count it."""
            if not finite:
                optimiser.optimizer.zero_grad()  # without gradients Adam changes nothing
            optimiser.step()

        def set_rates(self, number: int) -> None:
            """Set the learning rates of the step's epoch."""
            epoch = number // per_epoch
            found = self.optimizers()
            for name, optimiser in zip(self.networks, found if isinstance(found, list) else [found], strict=True):
                first = config.generator_rate if name.startswith("gen") else config.discriminator_rate
                stays = not config.decay or (config.compatible and name.startswith("gen"))
                rate = first if stays else cosine_rate(epoch, config.epochs, first, config.last_rate)
                for group in optimiser.optimizer.param_groups:
                    group["lr"] = rate

        def arithmetic(self) -> Any:
            """Return the autocast of the configured precision."""
            dtype = _DTYPES.get(config.run.precision)
            return torch.autocast(self.device.type, dtype=dtype) if dtype else nullcontext()

        def exact(self) -> Any:
            """Return a context without autocast, for gradients of gradients."""
            return torch.autocast(self.device.type, enabled=False)

        # ---------------------------------------------------------------------------------------------- the books

        def averaged(self) -> dict[str, nn.Module]:
            """Return the generators that are judged and kept: the running averages where there are such."""
            names = [name for name in (*GENERATORS, *ONE_PASS) if name in self.networks]
            source = self.average.networks if self.average is not None and int(self.seen) else self.networks
            return {name: source[name] for name in names}

        def note(self, found: dict[str, float]) -> None:
            """Add to the sums of the epoch; at its end, write their means, and weights where they are wanted."""
            sums = self.book["sums"]
            for key, value in found.items():
                before, count = sums.get(key, (0.0, 0))
                sums[key] = (before + value, count + 1)
            epoch, left = divmod(int(self.seen), per_epoch)
            if left:
                return
            self.book["epochs"].append({key: value / count for key, (value, count) in sums.items()})
            self.book["sums"] = {}
            if config.save_every and (epoch - 1) % config.save_every == 0 and self.trainer.is_global_zero:
                save_published(folder / "networks", self.averaged(), epoch - 1, facts_of(config, pairs))

        def val_dataloader(self) -> DataLoader[Any]:
            """Return one dummy: the validation is made once."""
            return DataLoader([0], batch_size=None)  # type: ignore[arg-type]

        def validation_step(self, dummy: Any, index: int) -> None:
            """Take the figures of this epoch, write pictures, keep the weights when they are the best so far."""
            if held is None:
                return
            validation = Validation(
                held,
                self.schedule,
                seed=config.run.seed,
                count=config.validation_images,
                latent=config.network.latent,
            )
            share = (self.global_rank, self.trainer.world_size)
            for network in self.networks.values():
                network.eval()
            with torch.no_grad(), self.arithmetic():
                own = self.gathered(validation.figures(self.averaged(), share, self.device))
                raw = own
                if self.average is not None and held.paired:
                    raw = self.gathered(validation.figures(dict(self.networks.items()), share, self.device))
                if self.trainer.is_global_zero and config.pictures:
                    found = validation.pictures(self.averaged(), config.pictures, self.device)
                    write_pictures(folder / "pictures", math.ceil(int(self.seen) / per_epoch), found)
            for network in self.networks.values():
                network.train()
            self.close_validation(own, raw)

        def gathered(self, figures: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            """Return the figures of all processes."""
            reduce = self.trainer.strategy.reduce
            return {
                key: reduce(torch.from_numpy(value).float().to(self.device), reduce_op="sum").cpu().numpy()
                for key, value in figures.items()
            }

        def close_validation(self, own: dict[str, np.ndarray], raw: dict[str, np.ndarray]) -> None:
            """Write figures down; keep the best weights."""
            paired = held is not None and held.paired
            key = "psnr" if paired else "cycle_psnr"
            one, two = config.contrasts()
            means = {f"{key}_{two}_{one}": float(own[key][0].mean()), f"{key}_{one}_{two}": float(own[key][1].mean())}
            score = sum(means.values()) / 2
            self.log_dict(means | {key: score}, batch_size=1)
            self.book["figures"].append({"step": int(self.seen), **means, key: score})
            if paired:
                self.book["published"].append((raw["published_l1"], raw["published_psnr"]))
                if self.trainer.is_global_zero:
                    for name, place in (("val_l1_loss", 0), ("val_psnr_values", 1)):
                        np.save(folder / f"{name}.npy", rows_of([v[place] for v in self.book["published"]]))
            judged = [key, own[key].shape[1]]
            if self.book.get("judged", judged) != judged:
                self.book["best"] = None  # continued with other images, whose figures cannot be compared
            self.book["judged"] = judged
            if self.book["best"] is None or score > self.book["best"]:
                self.book["best"] = score
                if self.trainer.is_global_zero:
                    save_folder(folder / "model", self.averaged(), facts_of(config, pairs), half=config.half)

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            """Keep the books and loss scales with the weights, averages and optimisers."""
            scales = {name: scale.state_dict() for name, scale in self.scales.items()}
            checkpoint["syndiff"] = {"book": self.book, "scales": scales}

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            """Go on where the checkpoint was written."""
            kept = checkpoint["syndiff"]
            self.book = kept["book"]
            for name, scale in self.scales.items():
                scale.load_state_dict(kept["scales"][name])

        def on_train_end(self) -> None:
            """Write the last weights and the statistics when the training is complete."""
            if self.trainer.global_step < total or not self.trainer.is_global_zero:
                return
            for name in ("last",) if self.book["figures"] else ("last", "model"):
                save_folder(folder / name, self.averaged(), facts_of(config, pairs), half=config.half)
            write_statistics(folder / "stats.json", self.book)

        def configure_optimizers(self) -> list[torch.optim.Adam]:
            """Return an optimiser per network."""
            betas = (config.beta1, config.beta2)
            return [torch.optim.Adam(n.parameters(), config.generator_rate, betas) for n in self.networks.values()]

    return SynDiffTraining()


def rows_of(validations: list[np.ndarray]) -> np.ndarray:
    """Return (2, V, N) of V validations (2, n); not a number where fewer than the most images, N, were looked at."""
    most = max(values.shape[1] for values in validations)
    wide = [np.pad(v, ((0, 0), (0, most - v.shape[1])), constant_values=np.nan) for v in validations]
    return np.stack(wide, axis=1)


def write_statistics(path: Path, book: dict[str, Any]) -> None:
    """Write the mean losses of all epochs and the figures of all validations."""
    import json

    content = {"epochs": book["epochs"], "validations": book["figures"], "best": book["best"]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
