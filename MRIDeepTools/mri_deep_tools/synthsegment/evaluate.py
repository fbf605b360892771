"""Compare segmentations with the truth, file against file or folder against folder, and write tables.

Dice scores and surface distances (in mm, and in voxels as SynthSeg publishes them: Billot et al., Medical Image
Analysis 86, 2023, 102789) per structure, with a last row for everything that is labelled, called ``whole structure``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError, InputError, RequestError
from .metrics import (
    Alternative,
    SurfaceDistances,
    cohens_d,
    dice_scores,
    label_counts,
    paired_test,
    surface_distances,
)
from .scores import DISTANCES, METRICS, WHOLE, Comparison, Evaluation, PairScores, structure_name

if TYPE_CHECKING:
    from ..progress import Progress
    from ..volume import Volume

__all__ = [
    "DISTANCES",
    "METRICS",
    "WHOLE",
    "Comparison",
    "Evaluation",
    "PairScores",
    "cohens_d",
    "compare",
    "dice_scores",
    "evaluate_folders",
    "evaluate_pair",
    "match_files",
    "paired_test",
    "structure_name",
    "surface_distances",
]

_MARGIN = 10  # voxels around the truth that the published evaluation keeps


def evaluate_pair(
    truth: Volume,
    segmentation: Volume,
    labels: Sequence[int] | None = None,
    *,
    compatible: bool = False,
    resample: bool = False,
    distances: bool = True,
) -> PairScores:
    """Score a segmentation against the truth.

    Parameters
    ----------
    truth, segmentation :
        (X, Y, Z) label maps; axes may run differently, the grid in space must be the same.
    labels :
        Codes to score; by default all codes above 0 in either map (compatible: all codes of the truth).
    compatible :
        As published: both maps are cropped to the truth with a margin of 10 voxels, labels absent from both
        score 0, a structure missing in one map is max(X, Y, Z) voxels away, surfaces lose the last plane of their box.
        Without it, Dice is NaN where both lack the label, and distances where one does.
    resample :
        Bring the truth to the grid of the segmentation (nearest neighbour) when grids differ.
    distances :
        False leaves the surface distances out.

    Returns
    -------
    :class:`PairScores`, with the measures of ``METRICS``.

    Raises
    ------
    GeometryError when the grids differ and ``resample`` is off; InputError when an array holds no labels.

    """
    first, second = _common_grid(truth, segmentation, resample=resample, compatible=compatible)
    a, b = _integer_labels(first), _integer_labels(second)
    codes = _labels_of((a,) if compatible else (a, b), background=compatible) if labels is None else _checked(labels)
    volumes = {}
    for name, array in (("truth", a), ("segmentation", b)):
        counts = np.append(label_counts(array, codes), np.count_nonzero(array > 0))
        volumes[f"{name}_volume_mm3"] = counts * first.voxel_volume_mm3
    if compatible:
        a, b = _crop_to_truth(a, b)
    scores = {"dice": np.append(dice_scores(a, b, codes, compatible=compatible), _whole_dice(a, b, compatible))}
    if not compatible:
        a, b = _crop_to_labels(a, b)
    if distances:
        scores |= _distance_scores(a, b, codes, first.spacing, compatible=compatible)
    return PairScores(segmentation.source.name or "segmentation", codes, scores | volumes, truth.source.name)


def evaluate_folders(
    truth: Path,
    segmentation: Path,
    csv_path: Path | None = None,
    *,
    labels: Sequence[int] | None = None,
    compatible: bool = False,
    resample: bool = False,
    distances: bool = True,
    progress: Progress | None = None,
) -> Evaluation:
    """Score every segmentation in a folder against the truth in another one, or one file against one file.

    Parameters
    ----------
    truth, segmentation :
        Two folders of label maps, or two label maps. Files are matched as :func:`match_files` says.
    csv_path :
        Table to write, one row per subject and structure; a summary goes beside it (``*_summary.csv``).
    labels :
        Codes to score; by default all that occur in any map (compatible: in any truth, background included).
    compatible, resample, distances :
        See :func:`evaluate_pair`.
    progress :
        Receives progress and warnings.

    Returns
    -------
    :class:`Evaluation`; its pairs all have the same labels.

    """
    from ..volume import read_volume

    notes: list[str] = []

    def warn(message: str) -> None:
        notes.append(message)
        if progress is not None:
            progress.warn(message)

    pairs = match_files(truth, segmentation, by_order=compatible, on_warning=warn)
    if labels is None:
        paths = (path for pair in pairs for path in (pair[:1] if compatible else pair))
        maps = (_integer_labels(read_volume(path)) for path in paths)
        labels = _labels_of(maps, background=compatible)
    results = []
    for index, (truth_path, path) in enumerate(pairs):
        if progress is not None:
            progress.item(index, len(pairs))
            progress.update(0.0)
        first, second = read_volume(truth_path, on_warning=warn), read_volume(path, on_warning=warn)
        scores = evaluate_pair(first, second, labels, compatible=compatible, resample=resample, distances=distances)
        results.append(scores)
    if progress is not None:
        progress.update(1.0, force=True)
    evaluation = Evaluation(tuple(results), tuple(notes))
    if csv_path is not None:
        evaluation.write_csv(csv_path)
    return evaluation


def compare(
    first: Evaluation,
    second: Evaluation,
    metric: str = "dice",
    *,
    alternative: Alternative = "two-sided",
    compatible: bool = False,
) -> Comparison:
    """Compare two methods that segmented the same subjects: Wilcoxon signed-rank test and Cohen's d per structure.

    The subjects of both must be in the same order. The last entry of each array is about the subjects' means over
    the structures other than background.
    """
    truths = [[pair.truth for pair in evaluation.pairs] for evaluation in (first, second)]
    if first.labels != second.labels or truths[0] != truths[1]:
        raise RequestError(
            "the two evaluations differ in subjects or labels", "evaluate both with the same truth and labels"
        )
    if metric not in first.pairs[0].scores or metric not in second.pairs[0].scores:
        raise RequestError(f"unknown measure {metric!r}", f"use one of {', '.join(METRICS)}")
    x, y = first.table(metric)[:-1], second.table(metric)[:-1]
    p_values = paired_test(x, y, alternative=alternative, compatible=compatible)
    foreground = [index for index, code in enumerate(first.labels) if code]
    p_values[-1] = paired_test(x, y, alternative=alternative, structures=foreground, compatible=compatible)[-1]
    means = [np.array([pair.mean(metric) for pair in evaluation.pairs]) for evaluation in (first, second)]
    x, y = np.vstack([x, means[0]]), np.vstack([y, means[1]])
    averages = np.stack([_mean_known(x), _mean_known(y)], axis=1)
    return Comparison(metric, first.labels, p_values, cohens_d(x, y, compatible=compatible), averages)


def match_files(
    truth: Path, segmentation: Path, *, by_order: bool = False, on_warning: Callable[[str], None] | None = None
) -> list[tuple[Path, Path]]:
    """Return (truth, segmentation) pairs of files.

    Two files make one pair. In two folders, files of the same name (suffix aside) belong together; else those with
    the same BIDS ``sub-`` and ``ses-`` entities; else, when no name matches and the counts agree, the sorted names
    are paired in order, with a warning. ``by_order`` goes straight to the last rule, as published.
    """
    from ..volume import list_images

    for path in (truth, segmentation):
        if not path.exists():
            raise InputError(
                f"{path.name}: no such file or folder", "give two label maps, or two folders of label maps"
            )
    if truth.is_dir() != segmentation.is_dir():
        raise RequestError("one input is a folder and the other a file", "give two files or two folders")
    if not truth.is_dir():
        return [(truth, segmentation)]
    truths, others = list_images(truth), list_images(segmentation)
    for folder, found in ((truth, truths), (segmentation, others)):
        if not found:
            raise InputError(f"{folder.name}: no images in this folder", "give a folder with label maps")
    warn = on_warning or (lambda message: None)
    for key in () if by_order else (_stem, _bids_key):
        pairs = _match_by(key, truths, others)
        if pairs:
            unmatched = len(truths) + len(others) - 2 * len(pairs)
            if unmatched:
                warn(f"{unmatched} label maps have no partner in the other folder and were left out")
            return pairs
    if len(truths) != len(others):
        message = f"{len(truths)} truths and {len(others)} segmentations cannot be matched"
        raise InputError(message, "give the files of one subject the same name in both folders")
    if not by_order:
        warn("no file names match between the two folders: files were paired in alphabetical order")
    return list(zip(truths, others, strict=True))


def _match_by(key: Callable[[Path], str], truths: list[Path], others: list[Path]) -> list[tuple[Path, Path]]:
    """Return the pairs with equal keys; none when a key is not unique in its folder."""
    left, right = {key(path): path for path in truths}, {key(path): path for path in others}
    if len(left) < len(truths) or len(right) < len(others):
        return []
    return [(left[name], right[name]) for name in sorted(left) if name and name in right]


def _stem(path: Path) -> str:
    from ..volume import split_suffix

    return str(split_suffix(path)[0])


def _bids_key(path: Path) -> str:
    return "_".join(part for part in _stem(path).split("_") if part.startswith(("sub-", "ses-")))


def _common_grid(truth: Volume, segmentation: Volume, *, resample: bool, compatible: bool) -> tuple[Volume, Volume]:
    """Return both maps with their axes nearest to RAS, on one grid."""
    from ..geometry import Reorient, resample_to, same_grid

    first, second = (Reorient.to_ras(volume).apply(volume) for volume in (truth, segmentation))
    if same_grid(first, second) or (compatible and first.shape3 == second.shape3):
        return first, second
    if resample:
        return resample_to(first, second.shape3, second.affine, order=0), second
    names = (truth.source.file_name or "truth", segmentation.source.file_name or "segmentation")
    message = f"{names[1]} ({_grid_text(second)}) does not lie on the grid of {names[0]} ({_grid_text(first)})"
    raise GeometryError(message, "ask for resampling of the truth, or segment on the native grid")


def _grid_text(volume: Volume) -> str:
    shape = " x ".join(str(n) for n in volume.shape3)
    return f"{shape} voxels of {' x '.join(f'{size:.4g}' for size in volume.spacing)} mm"


def _integer_labels(volume: Volume) -> NDArray[np.int32]:
    data = volume.data
    if data.ndim != 3:
        raise InputError(f"{volume.source.file_name or 'label map'}: {data.ndim} axes instead of 3", "give a label map")
    if not np.issubdtype(data.dtype, np.integer) and not np.array_equal(data, np.rint(data)):
        name = volume.source.file_name or "array"
        raise InputError(f"{name}: values are not whole numbers, so this is no label map", "give a segmentation")
    return data.astype(np.int32)


def _labels_of(maps: Iterable[NDArray[np.int32]], *, background: bool) -> tuple[int, ...]:
    found: set[int] = set()
    for array in maps:
        found.update(np.unique(array).tolist())
    return tuple(sorted(code for code in found if code > 0 or (background and code == 0)))


def _checked(labels: Sequence[int]) -> tuple[int, ...]:
    codes = tuple(int(code) for code in labels)
    if not codes or min(codes) < 0 or len(set(codes)) < len(codes):
        raise RequestError("labels must be different codes of 0 or larger", "check the list of labels")
    return codes


def _box_of(mask: NDArray[np.bool_], before: int, after: int) -> tuple[slice, ...]:
    """Return the box from ``before`` voxels below the mask to ``after`` voxels beyond its last plane."""
    from scipy.ndimage import find_objects

    found = find_objects(mask.view(np.uint8))
    if not found:
        return tuple(slice(0, n) for n in mask.shape)
    sizes = zip(found[0], mask.shape, strict=True)
    return tuple(slice(max(part.start - before, 0), min(part.stop + after, n)) for part, n in sizes)


def _crop_to_truth(truth: NDArray[np.int32], other: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Crop both maps as the published evaluation does: one plane less beyond the truth than before it."""
    box = _box_of(truth > 0, _MARGIN, _MARGIN - 1)
    return truth[box], other[box]


def _crop_to_labels(truth: NDArray[np.int32], other: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Crop both maps to what is labelled in either, which saves time and changes no surface."""
    box = _box_of((truth > 0) | (other > 0), 1, 1)
    return truth[box], other[box]


def _whole_dice(truth: NDArray[np.int32], other: NDArray[np.int32], compatible: bool) -> float:
    a, b = truth > 0, other > 0
    total = np.count_nonzero(a) + np.count_nonzero(b)
    if not total:
        return 0.0 if compatible else float("nan")
    return 2.0 * np.count_nonzero(a & b) / total


def _distance_scores(
    truth: NDArray[np.int32],
    other: NDArray[np.int32],
    codes: Sequence[int],
    spacing: Sequence[float],
    *,
    compatible: bool,
) -> dict[str, NDArray[np.float64]]:
    """Return the surface distances of every code and of the whole, in mm and in voxels."""
    in_voxels: list[SurfaceDistances] = []
    in_mm: list[SurfaceDistances] = []
    isotropic = np.ptp(spacing) < 1e-6 * max(spacing)
    for code in (*codes, WHOLE):
        masks = (truth > 0, other > 0) if code == WHOLE else (truth == code, other == code)
        voxels = surface_distances(*masks, compatible=compatible)
        in_voxels.append(voxels)
        if isotropic:
            in_mm.append(SurfaceDistances(*(value * float(np.mean(spacing)) for value in voxels)))
        else:
            in_mm.append(surface_distances(*masks, spacing=spacing, compatible=compatible))
    values = np.concatenate([np.array(in_mm), np.array(in_voxels)], axis=1)
    return {name: values[:, index] for index, name in enumerate(DISTANCES)}


def _mean_known(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each row over its known values."""
    known = ~np.isnan(table)
    count = known.sum(axis=1)
    total = np.where(known, table, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(table), np.nan), where=count > 0)
