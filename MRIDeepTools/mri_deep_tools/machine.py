"""What this machine has for the networks: versions, devices, memory, threads; for set-up screens and reports."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from . import __version__
from ._files import cache_dir
from .inference import available_memory, available_threads
from .models import describe, is_offline, list_models

__all__ = ["describe_machine"]

PACKAGES = ("torch", "numpy", "scipy", "SimpleITK", "nibabel", "pydicom", "safetensors", "h5py")
GIB = 1 << 30


def describe_machine() -> dict[str, Any]:
    """Return versions, devices, memory (GB = 2^30 bytes), threads and models as plain data (JSON types).

    The cache folder is given relative to the home folder, so that the text can be pasted into a public report.
    """
    torch_facts, devices = _torch()
    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "torch": torch_facts,
        "driver": _driver(),
        "devices": devices,
        "threads": available_threads(),
        "memory_gb": round(available_memory() / GIB, 1),
        "cache_folder": _short(str(cache_dir())),
        "offline": is_offline(),
        "models": [describe(model) for model in list_models()],
    }


def _torch() -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Return facts of PyTorch (None where it cannot be imported) and the devices it can use."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of it is broken
        return ({"version": None, "fault": f"{error}"} if _version("torch") else None), []
    cuda_built = torch.backends.cuda.is_built()
    fault = None
    try:
        cuda = torch.cuda.is_available()
    except RuntimeError as error:
        cuda, fault = False, str(error).splitlines()[0]
    devices: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if cuda else 0):
        facts = torch.cuda.get_device_properties(index)
        memory = round(facts.total_memory / GIB, 1)
        devices.append({"name": f"cuda:{index}", "description": facts.name, "memory_gb": memory})
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "description": "Apple GPU (on request only)", "memory_gb": None})
    memory = round(available_memory() / GIB, 1)
    devices.append({"name": "cpu", "description": platform.processor() or platform.machine(), "memory_gb": memory})
    facts_of_torch = {
        "version": str(torch.__version__),
        "cuda_built": cuda_built,
        "cuda_available": cuda,
        "cuda_version": torch.version.cuda,
        "fault": fault,
    }
    return facts_of_torch, devices


def _driver() -> str | None:
    """Return the version of the NVIDIA driver, or None."""
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = found.stdout.split()
    return lines[0] if found.returncode == 0 and lines and re.fullmatch(r"[\d.]+", lines[0]) else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _short(path: str) -> str:
    home = str(Path.home())
    return "~" + path[len(home) :] if path.startswith(home) else path
