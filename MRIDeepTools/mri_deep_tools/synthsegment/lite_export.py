"""From a training run of the compact network to a model folder: half-precision weights and a description."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import RequestError
from .labels import V2_CHANNELS
from .lite_network import LiteConfig

__all__ = ["export_run"]


def export_run(config: Any, folder: Path) -> Path:
    """Write ``model.safetensors`` (float16) and ``config.json`` from the last checkpoint of a run; returns the weights.

    Raises
    ------
    RequestError : the run has no checkpoint yet.

    """
    import torch
    from safetensors.torch import save

    from ..volume import atomic_path

    last = Path(config.run.output) / "checkpoints" / "last.ckpt"
    if not last.is_file():
        raise RequestError(f"the run in {Path(config.run.output).name} has no checkpoint yet", "train first")
    state = torch.load(last, map_location="cpu", weights_only=False)["state_dict"]
    prefix = "averaged."
    kept = {
        key[len(prefix) :]: value.half().contiguous()
        for key, value in state.items()
        if key.startswith(prefix) and not key.endswith("num_batches_tracked")
    }
    folder.mkdir(parents=True, exist_ok=True)
    shape = LiteConfig(len(V2_CHANNELS), tuple(config.widths), config.decoder_blocks)
    description = {
        "network": "lite",
        "shape": asdict(shape),
        "codes": list(V2_CHANNELS),
        "grid_mm": config.generator.grid_mm,
        "statistics": "own",
        "samples": int(state["seen"]),
    }
    path = folder / "model.safetensors"
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(kept, metadata={"format": "mri-deep-tools lite 1"}))
    with atomic_path(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return path
