"""``mri-deep-tools info``: versions, devices, memory and models of this machine."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..progress import Progress
from .options import add_common_options

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_common_options(parser)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Print what this machine has; nothing that names a person or a place on the disk outside the home folder."""
    from ..machine import describe_machine

    facts = describe_machine()
    sys.stdout.write(
        json.dumps(facts, indent=None if args.progress == "json" else 2, ensure_ascii=False) + "\n"
        if args.json
        else _in_words(facts)
    )
    progress.result(**facts)


def _in_words(facts: dict[str, Any]) -> str:
    torch = facts["torch"] or {}
    if not torch.get("version"):
        network = f"PyTorch: cannot be used ({torch['fault']})" if torch else "PyTorch: not installed"
    elif torch["cuda_available"]:
        network = f"PyTorch: {torch['version']}, CUDA {torch['cuda_version']}"
    else:
        why = "this build has no CUDA" if not torch["cuda_built"] else torch["fault"] or "no usable NVIDIA driver"
        network = f"PyTorch: {torch['version']}, on the CPU ({why})"
    lines = [
        f"MRI Deep Tools {facts['version']}, Python {facts['python']}, {facts['platform']}",
        network,
        f"NVIDIA driver: {facts['driver'] or 'none'}",
        *(f"Device {item['name']}: {item['description']}{_memory(item)}" for item in facts["devices"]),
        f"Threads: {facts['threads']}; free memory: {facts['memory_gb']} GB",
        f"Models in {facts['cache_folder']}{' (network forbidden)' if facts['offline'] else ''}:",
        *(f"  {model['name']}: {model['status']}" for model in facts["models"]),
        "Packages: " + ", ".join(f"{name} {version}" for name, version in facts["packages"].items()),
    ]
    return "\n".join(lines) + "\n"


def _memory(device: dict[str, Any]) -> str:
    return f", {device['memory_gb']} GB" if device["memory_gb"] is not None else ""
