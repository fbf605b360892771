"""The networks of a training, and one visit: two discriminators, then both generators, as published.

Each network has an optimiser and, in float16, a loss scale of its own.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..errors import RequestError
from ..training import require_lightning
from .loss_scale import HoldableAdam, LossScale
from .losses import discriminator_loss, fake, generator_terms, paired_loss
from .network import Discriminator, Generator, GeneratorSpec
from .optimiser import linear_rate
from .visits import Visits
from .weights import load_generator, save_network

if TYPE_CHECKING:
    from .train import IguaneConfig

__all__ = ["make_module"]

_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def make_module(config: IguaneConfig, visits: Visits) -> Any:
    """Return the LightningModule of a training."""
    lightning = require_lightning()
    weights, source, plan = config.weights(), visits.source, visits.plan
    total = int(config.run.steps or 1)
    folder = Path(config.run.output)

    class IguaneTraining(lightning.LightningModule):  # type: ignore[misc,name-defined]
        """Networks, their optimisers, and the books of the epochs."""

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            torch.manual_seed(config.run.seed)
            alone = plan.paired_visits >= total  # the networks of the sites would never be used
            self.networks = nn.ModuleDict(build_networks(config, 0 if alone else plan.sites))
            self.averaged: nn.Module | None = None
            if config.average:
                self.averaged = copy.deepcopy(self.networks["universal"]).requires_grad_(False)
            self.scales = {name: LossScale(config.run.precision == "16-mixed") for name in self.networks}
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))
            self.book: dict[str, Any] = {"stats": {}, "sums": {}, "scores": [], "best": None}

        def setup(self, stage: str) -> None:
            """Tell the visits which share of them is this process's."""
            visits.rank, visits.world = self.global_rank, self.trainer.world_size

        def on_train_start(self) -> None:
            """Begin with the next visit; sums over devices are made here, not by a wrapper."""
            wrapper = self.trainer.strategy.model
            if hasattr(wrapper, "require_backward_grad_sync"):
                wrapper.require_backward_grad_sync = False

        def training_step(self, visit: dict[str, Any], index: int) -> None:
            """Make the updates of one visit."""
            number, site = int(visit["number"]), int(visit["site"])
            if number != int(self.seen):
                raise RuntimeError(f"visit {number} came in place of {int(self.seen)}")
            self.seen += 1
            found = self.visit_paired(visit) if plan.only_paired(number) else self.visit_site(visit, site)
            found = mean_of_all(found, {*found, "paired_loss"} if weights.paired else set(found), self.device)
            self.log_dict(found, batch_size=1)
            self.note(found)
            if config.average:
                self._move_average(number)

        def visit_paired(self, visit: dict[str, Any]) -> dict[str, float]:
            """Update the universal generator with the paired term alone."""
            with self.arithmetic():
                loss = paired_loss(self.networks["universal"], visit["src"], visit["truth"])
            self._update(weights.paired * loss, ["universal"])
            return {"paired_loss": float(loss.detach())}

        def visit_site(self, visit: dict[str, Any], site: int) -> dict[str, float]:
            """Update the site's discriminators, then both generators; returns what is logged."""
            name, half = str(site + 1), config.split_of_visit()
            ref, src = visit["ref"], visit["src"]
            last = ref.shape[0] - plan.batch
            found = self.update_discriminator("discRef_" + name, "universal", ref[half:last], src[half:last])
            found |= self.update_discriminator("discSrc_" + name, "genBwd_" + name, src[:half], ref[:half])
            return found | self.update_generators(name, ref[last:], src[last:], visit.get("truth"))

        def update_discriminator(self, name: str, generator: str, real: Tensor, other: Tensor) -> dict[str, float]:
            """Update one discriminator: real images against what the generator makes of the other ones."""
            network = self.networks[name]
            with self.arithmetic():
                loss = discriminator_loss(network, real, fake(self.networks[generator], other))
            self._update(loss, [name])
            return {f"{name}_loss": float(loss.detach())}

        def update_generators(self, name: str, ref: Tensor, src: Tensor, truth: Tensor | None) -> dict[str, float]:
            """Update the universal generator, then the site's backward one, from one forward pass."""
            own = ["universal", f"genBwd_{name}"]
            forth, back, judge_ref, judge_src = (self.networks[n] for n in (*own, f"discRef_{name}", f"discSrc_{name}"))
            wanted = truth if weights.paired else None
            with frozen([judge_ref, judge_src]), self.arithmetic():
                terms = generator_terms(forth, back, judge_ref, judge_src, ref, src, wanted)
                loss = terms.total(weights)
            self._update(loss, own)
            found = {
                f"genFwd_adv_loss_{name}": terms.adversarial_ref,
                f"genBwd_adv_loss_{name}": terms.adversarial_src,
                f"cycle_loss_refSref_{name}": terms.cycle_ref,
                f"cycle_loss_srcRsrc_{name}": terms.cycle_src,
                "genFwd_idLoss": terms.identity_ref,
                f"genBwd_idLoss_{name}": terms.identity_src,
            }
            if terms.paired is not None:
                found["paired_loss"] = terms.paired
            return {key: float(value.detach()) for key, value in found.items()}

        def _update(self, loss: Tensor, names: list[str]) -> None:
            """Take the gradient of a loss and update networks, the first one's optimiser last of all counted."""
            used = min(self.scales[name].value for name in names)
            found = self.optimizers()
            optimisers = dict(zip(self.networks, found if isinstance(found, list) else [found], strict=True))
            for name in names:
                optimisers[name].optimizer.zero_grad()
            (loss * used).backward()
            for name in names:
                parameters = list(self.networks[name].parameters())
                if dist.is_available() and dist.is_initialized():
                    average_gradients(parameters)
                finite = self.scales[name].unscale(parameters, used)
                inner = optimisers[name].optimizer
                inner.held = not finite
                # Lightning counts steps of the universal generator's optimiser alone: one a visit.
                (optimisers[name] if name == "universal" else inner).step()
                self.scales[name].update(finite)

        def arithmetic(self) -> Any:
            """Return the autocast of the configured precision."""
            dtype = _DTYPES.get(config.run.precision)
            return torch.autocast(self.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)

        def _move_average(self, number: int) -> None:
            decay = min(config.average, (1 + number) / (10 + number))
            pairs = zip(self.averaged.parameters(), self.networks["universal"].parameters(), strict=True)  # type: ignore[union-attr]
            with torch.no_grad():
                for mine, theirs in pairs:
                    mine.lerp_(theirs, 1 - decay)

        def universal(self) -> Any:
            """Return the universal generator that is judged: the running average where there is one."""
            return self.averaged if self.averaged is not None else self.networks["universal"]

        def keep(self, name: str) -> None:
            """Write the universal generator as it is to be used."""
            network = self.universal()
            kept = Generator(replace(network.spec, phases=config.phases))
            kept.load_state_dict({**kept.state_dict(), **network.state_dict()})
            save_network(kept, folder / "weights" / f"{name}.safetensors")

        def note(self, found: dict[str, float]) -> None:
            """Add to the sums of the epoch; at its end, write their means."""
            sums = self.book["sums"]
            for key, value in found.items():
                total_, count = sums.get(key, (0.0, 0))
                sums[key] = (total_ + value, count + 1)
            if int(self.seen) % (config.steps_per_epoch * plan.sites) == 0:
                stats = defaultdict(list, self.book["stats"])
                for key, (total_, count) in sums.items():
                    stats[key].append(total_ / count)
                self.book |= {"stats": dict(stats), "sums": {}}

        def val_dataloader(self) -> DataLoader[Any]:
            """Return one dummy: the score is taken once."""
            return DataLoader([0], batch_size=None)  # type: ignore[arg-type]

        def validation_step(self, dummy: Any, index: int) -> None:
            """Score the universal generator and keep it when it is the best so far."""
            network = self.universal()

            def run(image: Tensor) -> Tensor:
                with torch.no_grad(), self.arithmetic():
                    return network(image.to(self.device)).float().to(image.device)

            score = source.score(run, int(self.seen))
            if score is None:
                return
            self.log("score", score, batch_size=1)
            self.book["scores"].append([int(self.seen), score])
            best = self.book["best"]
            if best is None or score > best:
                self.book["best"] = score
                if self.trainer.is_global_zero:
                    self.keep("best_genUniv")

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            """Keep the books and loss scales with the weights."""
            scales = {name: scale.state_dict() for name, scale in self.scales.items()}
            checkpoint["iguane"] = {"book": self.book, "scales": scales}

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            """Go on where the checkpoint was written."""
            kept = checkpoint["iguane"]
            self.book = kept["book"]
            for name, scale in self.scales.items():
                scale.load_state_dict(kept["scales"][name])
            visits.start = int(checkpoint["state_dict"]["seen"])

        def on_train_end(self) -> None:
            """Write all networks and the statistics when the training is complete."""
            if self.trainer.global_step < total or not self.trainer.is_global_zero:
                return
            self.keep("generator_univ")
            for name, network in self.networks.items():
                if name != "universal":
                    save_network(network, folder / "weights" / f"{name.replace('discSrc', 'discBwd')}.safetensors")
            stats = {**self.book["stats"], "score": self.book["scores"]}
            (folder / "stats.json").write_text(json.dumps(stats, indent=1) + "\n", encoding="utf-8")

        def configure_optimizers(self) -> list[HoldableAdam]:
            """Return an optimiser per network; the universal one makes an update in every visit."""
            each = max((total - plan.paired_visits) // plan.sites, 1)
            return [
                HoldableAdam(network.parameters(), rate_of(config, total if name == "universal" else each))
                for name, network in self.networks.items()
            ]

    return IguaneTraining()


def build_networks(config: IguaneConfig, sites: int) -> dict[str, nn.Module]:
    """Return all networks of a training by name; sites count from 1."""
    networks: dict[str, nn.Module] = {"universal": Generator(config.spec())}
    for number in range(1, sites + 1):
        networks[f"genBwd_{number}"] = Generator(GeneratorSpec(config.backward_width, config.levels))
        networks[f"discRef_{number}"] = Discriminator(config.discriminator_features)
        networks[f"discSrc_{number}"] = Discriminator(config.discriminator_features)
    for network in networks.values():
        if isinstance(network, Generator):
            begin(network.head.weight, config.start)
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if config.initial_weights:
        start = load_generator(config.initial_weights)
        if replace(start.spec, phases=1) != config.spec():
            raise RequestError(
                f"{Path(config.initial_weights).name} has width {start.spec.width} and {start.spec.levels} levels",
                "set width and levels to these",
            )
        networks["universal"].load_state_dict({k: v for k, v in start.state_dict().items() if k != "phases"})
    return networks


def begin(head: Tensor, start: str) -> None:
    """Set the last layer of a generator, (1, features + 1, 1, 1, 1), whose last input is the image itself."""
    with torch.no_grad():
        if start == "unchanged":
            head.zero_()
        elif start == "features":
            head[:, :-1] *= 0.3
            head[:, -1] = -1


def rate_of(config: IguaneConfig, updates: int) -> Any:
    """Return the learning rate as a function of the updates made."""

    def rate(made: int) -> float:
        return linear_rate(made, updates, config.learning_rate, config.last_learning_rate)

    return rate


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace gradients by their mean over all processes."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def mean_of_all(found: dict[str, float], names: set[str], device: torch.device) -> dict[str, float]:
    """Return the means of numbers over the processes that have them; ``names`` are the same on all."""
    if not (dist.is_available() and dist.is_initialized()):
        return found
    ordered = sorted(names)
    pairs = [[found.get(name, 0.0), float(name in found)] for name in ordered]
    table = torch.tensor(pairs, dtype=torch.float32, device=device)
    dist.all_reduce(table)
    return {name: total / count for name, (total, count) in zip(ordered, table.tolist(), strict=True) if count}


@contextmanager
def frozen(networks: list[nn.Module]) -> Iterator[None]:
    """Take no gradient of these networks' weights for a while."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)
