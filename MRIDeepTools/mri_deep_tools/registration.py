"""Rigid registration of two scans of one head, or of a head to a template: six numbers, from any start orientation.

A coarse search over all rotations finds which way up the moving image is, even when its header is wrong; SimpleITK
then refines at 4, 2 and 1 mm. Matrices act on RAS mm and lead from the fixed to the moving image, as ITK's transforms
do; files are ITK's (``.tfm``, ``.txt`` as text, ``.h5``), in LPS, and open in 3D Slicer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ._itk import image_from
from .errors import InputError, RequestError
from .volume import Volume

__all__ = [
    "TRANSFORM_SUFFIXES",
    "Registration",
    "difference",
    "moved_affine",
    "read_transform",
    "register_rigid",
    "write_transform",
]

Metric = Literal["correlation", "mutual-information"]

TRANSFORM_SUFFIXES = (".tfm", ".txt", ".h5")
RIGID_TOLERANCE = 1e-3  # largest departure of a rotation matrix from orthogonality

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# mm of the fixed samples, sigma of the smoothing, share of samples, steps at most
_LEVELS = ((4.0, 2.0, 1.0, 60), (2.0, 1.0, 0.3, 40), (1.0, 0.5, 0.06, 30))
_SEED = 121212


@dataclass(frozen=True)
class Registration:
    """A rigid transform and how well it fits.

    Attributes
    ----------
    matrix : (4, 4) float64, fixed RAS mm to moving RAS mm; a proper rotation and a translation.
    correlation : of the two images where the fixed one has content and the moving one is known, -1 to 1.
    mutual_information : normalised, 0 to 1, of the same voxels.
    overlap : Dice coefficient of the contents of both images (0 to 1), within the moving field of view.
    scale : length of the moving content against the fixed one's, where the moving image is known; 1 = the same.
    rotation_degrees, translation_mm : against the headers; the translation is that of the fixed image's centre.

    """

    matrix: np.ndarray
    correlation: float
    mutual_information: float
    overlap: float
    scale: float
    rotation_degrees: float
    translation_mm: float


def register_rigid(
    moving: Volume,
    fixed: Volume,
    *,
    metric: Metric = "correlation",
    any_orientation: bool = True,
    threads: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Registration:
    """Find the rigid transform that takes ``fixed`` to ``moving``.

    Parameters
    ----------
    moving, fixed : (X, Y, Z) on any grids; background near 0. Both with skull, or both without.
    metric : ``correlation`` for two images of one contrast, ``mutual-information`` for different ones.
    any_orientation : search all rotations; else the headers are trusted to about 40 degrees.
    threads : of ITK; None leaves them alone.
    progress : gets the share that is done; an exception it raises ends the work.

    Raises
    ------
    InputError : an image without content. RequestError : an unknown metric.

    """
    from ._rigid_search import coarse_search

    if metric not in ("correlation", "mutual-information"):
        raise RequestError(f"unknown metric {metric!r}", "use correlation or mutual-information")
    for volume in (moving, fixed):
        if volume.data.ndim != 3 or not np.ptp(volume.data) > 0:
            name = volume.source.name or "the image"
            raise InputError(f"{name} cannot be registered: it is not one volume with content", "check the image")
    report = progress or (lambda done: None)
    report(0.0)
    matrix, _ = coarse_search(moving, fixed, metric, any_orientation=any_orientation)
    report(0.3)
    for number, level in enumerate(_LEVELS, start=1):
        matrix = _refined(moving, fixed, matrix, metric, level, threads)
        report(1.0 - 0.7 * (1 - number / len(_LEVELS)))
    return judged(moving, fixed, matrix)


def judged(moving: Volume, fixed: Volume, matrix: np.ndarray) -> Registration:
    """Return a transform with its figures, measured on a 3 mm grid."""
    from scipy.spatial.transform import Rotation

    from ._rigid_search import Coarse, normalised_information

    ours, theirs = Coarse.of(fixed, 3.0), Coarse.of(moving, 3.0)
    values = ours.values.ravel()
    found, inside = theirs.at(ours.points @ matrix[:3, :3].T + matrix[:3, 3])
    first, second = values > _content(ours.values), (found > _content(theirs.values)) & inside
    both = int((first & second).sum())
    known = first & inside
    enough = int(known.sum()) > 50
    centre = np.append(ours.centre, 1.0)
    return Registration(
        matrix=matrix,
        correlation=_signed_correlation(values[known], found[known]) if enough else 0.0,
        mutual_information=normalised_information(values[known], found[known]) if enough else 0.0,
        scale=float(np.cbrt(second.sum() / max(int(known.sum()), 1))),
        overlap=2 * both / max(int(known.sum() + second.sum()), 1),
        rotation_degrees=float(np.degrees(Rotation.from_matrix(matrix[:3, :3]).magnitude())),
        translation_mm=float(np.linalg.norm((matrix @ centre - centre)[:3])),
    )


def moved_affine(affine: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the affine under which a moving image lies in the fixed one's world; no resampling."""
    return np.linalg.inv(matrix) @ affine


def difference(first: np.ndarray, second: np.ndarray, points: np.ndarray) -> tuple[float, float]:
    """Return how far two rigid matrices are apart: the largest distance at world points (N, 3), mm, and degrees."""
    from scipy.spatial.transform import Rotation

    gap = points @ (first - second)[:3, :3].T + (first - second)[:3, 3]
    turn = Rotation.from_matrix(first[:3, :3] @ second[:3, :3].T).magnitude()
    return float(np.linalg.norm(gap, axis=1).max()), float(np.degrees(turn))


def write_transform(path: str | Path, matrix: np.ndarray) -> Path:
    """Write a matrix (fixed to moving, RAS mm) as an ITK transform file; the suffix names the form.

    Raises
    ------
    RequestError : another suffix. OutputError : the place cannot be written to.

    """
    import SimpleITK as sitk  # noqa: N813

    from .volume import atomic_path

    path = Path(path)
    if path.suffix.lower() not in TRANSFORM_SUFFIXES:
        raise RequestError(f"{path.name} does not end in {', '.join(TRANSFORM_SUFFIXES)}", "use one of them")
    lps = _LPS @ matrix @ _LPS
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    with atomic_path(path) as temporary:
        sitk.WriteTransform(transform, str(temporary))
    return path


def read_transform(path: str | Path) -> np.ndarray:
    """Read a rigid ITK transform file as a (4, 4) matrix, fixed to moving RAS mm.

    Raises
    ------
    InputError : missing, no transform, or not rigid.

    """
    import SimpleITK as sitk  # noqa: N813

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path.name} does not exist", "check the name of the transform")
    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError:
        raise InputError(f"{path.name} is not an ITK transform file", "give a .tfm or .h5 file") from None
    if not transform.IsLinear():
        raise InputError(f"{path.name} is not a linear transform", "give a rigid transform")
    offset = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    lps = np.eye(4)
    lps[:3, :3] = np.stack([np.array(transform.TransformPoint(e)) - offset for e in np.eye(3).tolist()], axis=1)
    lps[:3, 3] = offset
    matrix = _LPS @ lps @ _LPS
    rotation = matrix[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > RIGID_TOLERANCE or np.linalg.det(rotation) < 0:
        raise InputError(f"{path.name} is not rigid: it scales, shears or mirrors", "give a rigid transform")
    return matrix


def _refined(
    moving: Volume, fixed: Volume, matrix: np.ndarray, metric: str, level: tuple[float, ...], threads: int | None
) -> np.ndarray:
    """Improve a matrix at one resolution with ITK."""
    import SimpleITK as sitk  # noqa: N813

    spacing, sigma, share, steps = level
    still, mask = _prepared(fixed, spacing, sigma, matrix=None)
    other, _ = _prepared(moving, min(spacing, 2.0), sigma, matrix=matrix)
    transform = sitk.Euler3DTransform()
    content = np.argwhere(sitk.GetArrayViewFromImage(mask).T)
    transform.SetCenter(still.TransformContinuousIndexToPhysicalPoint(content.mean(0).tolist()))
    method = sitk.ImageRegistrationMethod()
    if metric == "correlation":
        method.SetMetricAsCorrelation()
    else:
        method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricFixedMask(mask)
    if share < 1:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(share, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=spacing / 2, minStep=spacing / 400, numberOfIterations=int(steps), relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    if threads:
        method.SetNumberOfThreads(threads)
    try:
        method.Execute(still, other)
    except RuntimeError:  # no sample of the fixed image falls into the moving one: the start is as good as it gets
        return matrix
    return matrix @ _matrix_of(transform)


def _prepared(volume: Volume, spacing: float, sigma: float, matrix: np.ndarray | None) -> tuple[Any, Any]:
    """Return a smoothed image of at most this resolution, and a mask of its content with a margin."""
    import SimpleITK as sitk  # noqa: N813

    from .geometry import Grid, resample_to

    affine = volume.affine if matrix is None else moved_affine(volume.affine, matrix)
    image = sitk.SmoothingRecursiveGaussian(image_from(volume.data.astype(np.float32), affine), sigma)
    smooth = Volume(sitk.GetArrayFromImage(image).T, affine)
    grid = Grid.of(smooth).with_spacing([max(spacing, size) for size in smooth.spacing])
    data = resample_to(smooth, grid.shape, grid.affine).data.astype(np.float32)
    image = image_from(data, grid.affine)
    mask = image_from((data > _content(data)).astype(np.uint8), grid.affine)
    radius = [max(1, round(6.0 / size)) for size in image.GetSpacing()]
    return image, sitk.BinaryDilate(mask, radius, sitk.sitkBox)


def _content(data: np.ndarray) -> float:
    """Return the value above which there is something rather than air."""
    return 0.15 * float(np.percentile(data, 99))


def _signed_correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0


def _matrix_of(transform: Any) -> np.ndarray:
    """Return a linear ITK transform as a (4, 4) matrix in RAS mm."""
    lps, centre = np.eye(4), np.array(transform.GetCenter())
    lps[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
    lps[:3, 3] = np.array(transform.GetTranslation()) + centre - lps[:3, :3] @ centre
    return _LPS @ lps @ _LPS
