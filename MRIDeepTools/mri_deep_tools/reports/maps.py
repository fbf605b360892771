"""The maps behind the pictures of a page that no output holds, kept beside it, so that the page can be made again.

``NAME_maps.zip`` lies beside ``NAME.html``: an archive of NumPy arrays (``numpy.load`` reads it), one per map, float32
or integers, on one grid, whose ``affine`` (4, 4) is the same as that of the outputs.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from ..volume import Volume

__all__ = ["ROLE", "as_kept", "maps_path", "read_maps", "write_maps"]

ROLE = "report_maps"
"""What the file is to its command, in the sidecar."""

_AFFINE = "affine"


def maps_path(page: Path) -> Path:
    """Return where the maps of a page lie; by its suffix no program takes it for a scan."""
    return page.with_name(f"{page.stem}_maps.zip")


def as_kept(images: Mapping[str, Volume]) -> dict[str, Volume]:
    """Return maps with the precision in which they are kept: single; drawn so, a page can be made again exactly."""
    return {
        role: volume.with_data(volume.data.astype(np.float32)) if volume.data.dtype.kind == "f" else volume
        for role, volume in images.items()
    }


def write_maps(path: Path, images: Mapping[str, Volume]) -> Path:
    """Write maps (X, Y, Z) on one grid by role, compressed."""
    arrays = {role: volume.data for role, volume in as_kept(images).items()}
    affine = next((volume.affine for volume in images.values()), np.eye(4))
    with path.open("wb") as file:
        np.savez_compressed(file, **{_AFFINE: affine, **arrays})  # type: ignore[arg-type]
    return path


def read_maps(path: Path) -> dict[str, Volume]:
    """Return maps by role.

    Raises
    ------
    InputError : the file cannot be read.

    """
    from ..volume import Volume

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            affine = archive[_AFFINE]
            return {role: Volume(archive[role], affine) for role in archive.files if role != _AFFINE}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        raise InputError(f"{path.name} cannot be read", "it belongs to a report; run the command again") from None
