"""A diffusion scan: volumes on a grid with their gradient table, from any of the three conventions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, RequestError
from ..progress import Progress
from ..volume import Volume, read_volume, split_suffix
from .gradients import GradientTable, read_bvecs, read_fsl, read_mrtrix, read_nrrd_table

__all__ = ["DiffusionScan", "check_directions", "check_scan", "read_scan", "read_targets"]

_PLANE = 0.02  # smallest share of the directions' spread that lies out of their best plane


@dataclass(frozen=True)
class DiffusionScan:
    """Volumes (X, Y, Z, n) with one row of the gradient table each."""

    image: Volume
    table: GradientTable

    @property
    def name(self) -> str:
        """The file's name."""
        return self.image.source.file_name or "the scan"

    def mean_b0(self) -> np.ndarray | None:
        """Return the mean (X, Y, Z), float32, of the volumes without diffusion weighting; None where there are none."""
        which = np.flatnonzero(self.table.is_b0)
        return self.image.data[..., which].mean(axis=3, dtype=np.float32) if which.size else None


def read_scan(
    dwi: str | Path | Volume,
    *,
    bvecs: str | Path | None = None,
    bvals: str | Path | None = None,
    gradients: str | Path | GradientTable | None = None,
    shell: float | None = None,
    progress: Progress,
) -> DiffusionScan:
    """Read a scan with its gradients.

    Parameters
    ----------
    dwi :
        4-D image file, or a Volume (X, Y, Z, n).
    bvecs, bvals :
        FSL's files; without ``bvals`` all volumes are taken to be of the shell ``shell``. Where no gradients are
        named, a NRRD's own are used, or files of the image's name beside it (.bvec and .bval, or .b).
    gradients :
        A MRtrix table, or a table, in place of both.
    shell :
        b-value of all volumes when there is no ``bvals``.
    progress :
        Receives warnings.

    Raises
    ------
    InputError : no gradients, or gradients that do not fit the image.
    RequestError : contradicting options.

    """
    image = dwi if isinstance(dwi, Volume) else read_volume(dwi, ndim=4, on_warning=progress.warn)
    if image.data.ndim != 4 or image.data.shape[3] < 2:
        raise InputError(f"{image.source.file_name or 'the scan'} has a single volume", "give a diffusion series, 4-D")
    if gradients is not None and (bvecs is not None or bvals is not None):
        raise RequestError("two gradient tables were given", "give --grad, or --bvecs and --bvals")
    path = dwi if isinstance(dwi, (str, Path)) else None
    return DiffusionScan(image, _table(image, path, bvecs, bvals, gradients, shell))


def _table(
    image: Volume,
    path: str | Path | None,
    bvecs: str | Path | None,
    bvals: str | Path | None,
    gradients: str | Path | GradientTable | None,
    shell: float | None,
) -> GradientTable:
    count = image.data.shape[3]
    if isinstance(gradients, GradientTable):
        if len(gradients) != count:
            raise InputError(f"{len(gradients)} gradients for {count} volumes", "give the table of this scan")
        return gradients
    if gradients is not None:
        return read_mrtrix(gradients, count)
    if bvecs is None and path is not None:
        stem, suffix = split_suffix(path)
        if suffix in (".nrrd", ".nhdr"):
            return read_nrrd_table(path, count)
        beside = Path(path).with_name(stem)
        found = {end: beside.with_name(f"{stem}.{end}") for end in ("bvec", "bval")}
        if found["bvec"].is_file():
            bvecs = found["bvec"]
            bvals = bvals or (found["bval"] if found["bval"].is_file() else None)
        elif (beside := beside.with_name(f"{stem}.b")).is_file() and bvals is None:
            return read_mrtrix(beside, count)
    if bvecs is None:
        name = image.source.file_name or "the scan"
        raise InputError(f"{name} has no gradients", "give --bvecs and --bvals, or --grad with a MRtrix table")
    if bvals is None and shell is None:
        raise RequestError("the b-values are missing", "give --bvals, or --shell where all volumes are of one shell")
    return read_fsl(bvecs, bvals, image.affine, count, shell or 0.0)


def read_targets(path: str | Path) -> np.ndarray:
    """Return wanted directions (n, 3), float32, of a text file of three rows or columns. Raises InputError."""
    return read_bvecs(path)


def check_directions(world: np.ndarray, name: str) -> None:
    """Raise InputError when directions (n, 3) repeat one another throughout or lie on a plane."""
    spread = np.linalg.eigvalsh(world.T @ world / len(world))
    if spread[0] < _PLANE:
        where = "one axis" if spread[1] < _PLANE else "one plane"
        raise InputError(f"the measured directions of {name} lie on {where}", "directions must be spread in space")


def check_scan(
    scan: DiffusionScan,
    context: np.ndarray,
    mask: np.ndarray,
    xmax: float,
    trained_mm: float | None,
    progress: Progress,
) -> None:
    """Warn of what is known to spoil a network's results: other intensities, other voxels than the ``trained_mm`` ones.

    Raises
    ------
    InputError : the volumes hold nothing inside the mask.

    """
    inside = scan.image.data[mask][:, context]
    top = float(np.percentile(inside, 99))
    if not top > 0:
        raise InputError(f"{scan.name} has no signal inside the mask", "check the image and the mask")
    if float(inside.min()) < 0:
        progress.warn(f"{scan.name} has negative values inside the mask; the models know magnitudes only")
    ratio = top / xmax
    if not 0.1 < ratio < 1.5:
        progress.warn(
            f"the 99th percentile of {scan.name} inside the mask is {top:.4g}, where the model expects values up to "
            f"about {xmax:g}; scale the scan, or use a model trained on percentiles"
        )
    sizes = np.array(scan.image.spacing)
    if trained_mm is not None and (sizes.max() / trained_mm > 1.6 or sizes.min() / trained_mm < 0.6):
        progress.warn(
            f"voxels of {' x '.join(f'{size:.3g}' for size in sizes)} mm: the model was trained at {trained_mm:g} mm "
            "and may be wrong here; look at --report, or use --method sh"
        )
