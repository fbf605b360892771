"""The networks of a SynDiff training by their published names, and the files that a run writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .adversaries import PatchDiscriminator, ResnetGenerator, TimeDiscriminator
from .losses import GENERATORS, JUDGES, ONE_PASS, PATCH_JUDGES
from .network import NCSNpp
from .weights import ModelFacts, save_facts, save_model

if TYPE_CHECKING:
    from .dataset import ContrastPairs
    from .train import SynDiffConfig

__all__ = ["build_networks", "facts_of", "save_folder", "save_published"]


def build_networks(config: SynDiffConfig) -> dict[str, nn.Module]:
    """Return the networks of a training: eight, or those that a supervised one needs."""
    sizes = config.network
    networks: dict[str, nn.Module] = {name: NCSNpp(config.spec()) for name in GENERATORS}
    if not config.supervised:
        networks |= {name: ResnetGenerator(1, sizes.one_pass_width, sizes.one_pass_blocks) for name in ONE_PASS}
        networks |= {name: PatchDiscriminator(1, sizes.patch_width) for name in PATCH_JUDGES}
    if config.adversarial_weight:
        small = sizes.judge == "small"
        networks |= {name: TimeDiscriminator(sizes.judge_width, 2, sizes.time_embedding, small) for name in JUDGES}
    return networks


def facts_of(config: SynDiffConfig, pairs: ContrastPairs) -> ModelFacts:
    """Return what the model folder of a run says, taken from the configuration and the data's own facts."""
    asked = config.diffusion
    return ModelFacts(
        steps=asked.steps,
        beta_min=asked.beta_min,
        beta_max=asked.beta_max,
        geometric=asked.geometric,
        training_data=f"{pairs.counts[0]} and {pairs.counts[1]} images of {pairs.source.name}",
        **pairs.model_facts(),
    )


def save_folder(folder: Path, generators: Mapping[str, nn.Module], facts: ModelFacts, *, half: bool = False) -> Path:
    """Write both diffusive generators as a model folder, in place of one that is there."""
    networks: Any = {number: generators[name] for number, name in enumerate(GENERATORS, 1)}
    return save_model(folder, networks, facts, dtype=torch.float16 if half else torch.float32, overwrite=True)


def save_published(folder: Path, generators: Mapping[str, nn.Module], epoch: int, facts: ModelFacts) -> None:
    """Write generators as published (``NAME_EPOCH.pth``, keys with ``module.``), and a ``model.json``."""
    from ..volume import atomic_path

    folder.mkdir(parents=True, exist_ok=True)
    for name, network in generators.items():
        prefix = "module.module." if name in ONE_PASS else "module."
        state = {prefix + key: value.detach().cpu().float() for key, value in network.state_dict().items()}
        with atomic_path(folder / f"{name}_{epoch}.pth") as temporary:
            torch.save(state, temporary)
    first: Any = generators[GENERATORS[0]]
    save_facts(folder, facts, first, facts.image_size or first.spec.image_size)
