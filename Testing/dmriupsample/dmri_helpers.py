"""What the diffusion tests share."""

from __future__ import annotations

import tarfile
from pathlib import Path


def unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive, "r:*") as tar:
        tar.extractall(folder, filter="data")
    return folder
