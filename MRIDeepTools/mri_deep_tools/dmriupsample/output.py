"""Files of a result: the image with its gradients in FSL's files beside it, or inside a diffusion-weighted NRRD."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import numpy as np

from ..errors import OutputError
from ..volume import Volume, split_suffix, write_volume
from .gradients import GradientTable

__all__ = ["FRAGILE_COUNTS", "companion_paths", "write_image", "write_published_nifti"]

FRAGILE_COUNTS = (2, 3, 4, 6)
"""Numbers of volumes that Slicer takes for complex numbers, colours or tensors when it saves a DWI node."""

_HEADER_LIMIT = 1 << 16
_CHUNK = 1 << 22


def companion_paths(output: Path) -> tuple[Path, ...]:
    """Return the gradient files that go beside an image: FSL's two, none for NRRD, which holds them itself."""
    stem, suffix = split_suffix(output)
    if suffix in (".nrrd", ".nhdr"):
        return ()
    return output.with_name(f"{stem}.bval"), output.with_name(f"{stem}.bvec")


def write_image(path: Path, image: Volume, table: GradientTable, description: str = "") -> None:
    """Write (X, Y, Z, n) volumes; a NRRD gets the gradients into its header.

    Raises
    ------
    OutputError : the file cannot be written.

    """
    write_volume(image, path, description=description)
    if split_suffix(path)[1] in (".nrrd", ".nhdr"):
        _add_gradients(path, table)


def write_published_nifti(path: Path, image: Volume) -> None:
    """Write NIfTI-2 with a fresh header (sform code 2, qform code 0, no units), as the published program does."""
    import nibabel as nib

    try:
        nib.save(nib.Nifti2Image(np.asarray(image.data, dtype=np.float32), image.affine), path)
    except OSError as error:
        raise OutputError(f"{path.name} cannot be written ({error.strerror})", "write to another place") from None


def _add_gradients(path: Path, table: GradientTable) -> None:
    """Put the keys of a diffusion-weighted NRRD into the header of a file that ITK wrote, in LPS space."""
    with path.open("rb") as file:
        head = file.read(_HEADER_LIMIT)
    end = head.index(b"\n\n")
    lines = head[:end].decode("latin-1").splitlines()
    lines = [re.sub(r"^(kinds:.*)\bvector\b", r"\1list", line) for line in lines]
    lines += ["measurement frame: (1,0,0) (0,1,0) (0,0,1)", "modality:=DWMRI", *_keys(table)]
    with tempfile.TemporaryFile() as values:
        with path.open("rb") as file:
            file.seek(end + 2)
            shutil.copyfileobj(file, values, _CHUNK)
        values.seek(0)
        try:
            with path.open("wb") as file:
                file.write("\n".join(lines).encode("latin-1") + b"\n\n")
                shutil.copyfileobj(values, file, _CHUNK)
        except OSError as error:
            raise OutputError(f"{path.name} cannot be written ({error.strerror})", "free some space") from None


def _keys(table: GradientTable) -> list[str]:
    """Return the key-value lines: the largest b-value, and gradients as long as the square root of their share."""
    largest = float(table.bvals.max()) or 1.0
    stored = table.world * np.sqrt(table.bvals / largest)[:, None] * [-1.0, -1.0, 1.0] + 0.0  # RAS to LPS
    rows = [f"DWMRI_gradient_{index:04d}:={x:.9f} {y:.9f} {z:.9f}" for index, (x, y, z) in enumerate(stored)]
    return [f"DWMRI_b-value:={largest:.9g}", *rows]
