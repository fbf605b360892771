"""Estimate intensity priors from scans with label maps, for the generative model.

For every image and class the intensities of the class's labels are pooled; their median stands for the mean and
1.4826 times their median absolute deviation for the standard deviation. Mean and deviation of these over the
images are the Gaussian priors of the generative model (Billot et al., Medical Image Analysis 86, 2023, 102789).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError, InputError, OutputError, RequestError

if TYPE_CHECKING:
    from ..volume import Volume

__all__ = ["estimate_priors", "estimate_priors_from_files", "intensity_statistics", "save_priors"]

_MAD_TO_DEVIATION = 1.4826  # of a normal distribution, as rounded in the published program
_LOW_PERCENTILE, _HIGH_PERCENTILE, _TOP = 2.0, 98.0, 255.0


def intensity_statistics(
    image: NDArray,
    labels: NDArray,
    label_list: Sequence[int],
    classes: Sequence[int],
    *,
    rescale: bool = True,
    compatible: bool = False,
) -> NDArray[np.float64]:
    """Return the robust mean and deviation of the intensities of each class in one channel.

    Parameters
    ----------
    image :
        (X, Y, Z) intensities.
    labels :
        (X, Y, Z) label codes on the same grid.
    label_list :
        Label codes, parallel to ``classes``.
    classes :
        Class index (0 to C-1) of each label; labels of one class are pooled.
    rescale :
        Clip the image to its 2nd and 98th percentiles and map these to 0 and 255 first.
    compatible :
        As published, a class without voxels gives 0 instead of NaN.

    Returns
    -------
    (2, C) float64: medians, and median absolute deviations times 1.4826, in units of the (rescaled) image. Except
    for class 0, only intensities above 0 count.

    """
    codes, indices = _check_classes(label_list, classes)
    if image.shape != labels.shape:
        raise GeometryError(
            f"image of shape {image.shape} and labels of shape {labels.shape} differ",
            "resample one to the other's grid",
        )
    values = np.asarray(image, np.float64)
    if rescale:
        values = _rescale(values)
    class_map = _class_map(labels, codes, indices)
    result = np.full((2, indices.max() + 1), 0.0 if compatible else np.nan)
    for index in np.unique(indices):
        pool = values[class_map == index]
        if index:
            pool = pool[pool > 0]
        if pool.size:
            centre = np.median(pool)
            result[:, index] = centre, _MAD_TO_DEVIATION * np.median(np.abs(pool - centre))
    return result


def estimate_priors(
    pairs: Iterable[tuple[Volume, Volume]],
    label_list: Sequence[int],
    classes: Sequence[int],
    *,
    rescale: bool = True,
    compatible: bool = False,
    on_warning: Callable[[str], None] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the priors of the class means and deviations over a set of scans.

    Parameters
    ----------
    pairs :
        (image, labels) volumes on one grid; image (X, Y, Z) or (X, Y, Z, channels), labels (X, Y, Z).
    label_list, classes, rescale :
        See :func:`intensity_statistics`.
    compatible :
        As published, an image without a class counts as 0 for it. Otherwise it is left out, and a class
        that no image has gets zeros and a warning.
    on_warning :
        Receives warnings.

    Returns
    -------
    (prior_means, prior_stds), each (2 x channels, C) float64. Rows 2k and 2k+1 are the mean and the population
    standard deviation over images of channel k; data sets stack in the same way with ``numpy.concatenate``.

    Raises
    ------
    GeometryError when image and labels differ in grid; InputError when there is no pair or channels differ.

    """
    collected = [
        _channel_statistics(image, labels, label_list, classes, rescale=rescale, compatible=compatible)
        for image, labels in pairs
    ]
    if not collected:
        raise InputError("no image to estimate priors from", "give at least one image with its label map")
    if len({len(item) for item in collected}) > 1:
        raise InputError("the images differ in their number of channels", "give images with the same channels")
    statistics = np.stack(collected)  # images, channels, 2, classes
    absent = np.isnan(statistics[:, :, 0]).all(axis=(0, 1))
    if absent.any() and on_warning is not None:
        on_warning(
            f"no image has voxels of the intensity classes {np.flatnonzero(absent).tolist()}: their priors are 0"
        )
    known = ~np.isnan(statistics)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, statistics, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(known, (statistics - mean) ** 2, 0.0).sum(axis=0) / count)
    blocks = np.stack([mean, spread], axis=1)  # channels, (mean, spread), (median, deviation), classes
    means, stds = blocks[:, :, 0], blocks[:, :, 1]
    return means.reshape(-1, means.shape[-1]), stds.reshape(-1, stds.shape[-1])


def estimate_priors_from_files(
    images: Sequence[Path],
    labels: Sequence[Path],
    label_list: Sequence[int],
    classes: Sequence[int],
    *,
    rescale: bool = True,
    compatible: bool = False,
    on_warning: Callable[[str], None] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read images and their label maps one pair at a time and estimate priors; see :func:`estimate_priors`."""
    from ..volume import read_volume

    if len(images) != len(labels):
        message = f"{len(images)} images and {len(labels)} label maps cannot be paired"
        raise RequestError(message, "give one label map per image, in the same order")
    pairs = (
        (read_volume(image, ndim=None, on_warning=on_warning), read_volume(map_, on_warning=on_warning))
        for image, map_ in zip(images, labels, strict=True)
    )
    return estimate_priors(pairs, label_list, classes, rescale=rescale, compatible=compatible, on_warning=on_warning)


def save_priors(folder: Path, prior_means: NDArray[np.float64], prior_stds: NDArray[np.float64]) -> tuple[Path, Path]:
    """Write ``prior_means.npy`` and ``prior_stds.npy`` into a folder; the training configuration reads them."""
    from ..volume import atomic_path

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder.name}: cannot make the folder ({error.strerror})") from error
    paths = (folder / "prior_means.npy", folder / "prior_stds.npy")
    for path, array in zip(paths, (prior_means, prior_stds), strict=True):
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)
    return paths


def _channel_statistics(
    image: Volume, labels: Volume, label_list: Sequence[int], classes: Sequence[int], *, rescale: bool, compatible: bool
) -> NDArray[np.float64]:
    """Return the (channels, 2, C) statistics of one pair after checking that its grids agree."""
    from ..geometry import same_grid

    name = image.source.name or "image"
    if not same_grid(image, labels):
        message = f"{name} and its label map {labels.source.name or 'labels'} lie on different grids"
        raise GeometryError(message, "resample one to the other's grid")
    data = image.data[..., None] if image.data.ndim == 3 else image.data
    arrays = [data[..., channel] for channel in range(data.shape[-1])]
    return np.stack(
        [
            intensity_statistics(a, labels.data, label_list, classes, rescale=rescale, compatible=compatible)
            for a in arrays
        ]
    )


def _check_classes(label_list: Sequence[int], classes: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    codes, indices = np.asarray(label_list, np.int64), np.asarray(classes, np.int64)
    if codes.ndim != 1 or codes.shape != indices.shape or not codes.size:
        message = f"{codes.size} labels and {indices.size} classes are not parallel lists"
        raise RequestError(message, "give one class per label")
    if indices.min() < 0:
        raise RequestError("classes must be 0 or larger")
    unique, first = np.unique(codes, return_index=True)
    if len(unique) < len(codes):
        raise RequestError("a label occurs twice in the list of labels", "list each label once")
    return unique, indices[first]


def _class_map(labels: NDArray, codes: NDArray[np.int64], indices: NDArray[np.int64]) -> NDArray[np.int16]:
    """Return the class of every voxel, -1 for labels that are not listed; ``codes`` is sorted."""
    position = np.searchsorted(codes, labels).clip(max=len(codes) - 1)
    return np.where(codes[position] == labels, indices[position], -1).astype(np.int16)


def _rescale(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = np.percentile(values, [_LOW_PERCENTILE, _HIGH_PERCENTILE])
    if high <= low:
        return np.zeros_like(values)
    return _TOP * (np.clip(values, low, high) - low) / (high - low)
