"""The honest error: measured directions are left out, predicted from the others, and compared with what was measured.

The same directions are predicted by spherical harmonics from the same measured ones, by spherical harmonics from all
that were not left out, and by the plain mean of the measured ones, so that it shows what the network is worth here.
What is compared with is itself noisy: no method can reach an error of zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DependencyError, InputError
from ..progress import Progress
from ..volume import Volume
from .baseline import coefficients_of, sh_predict
from .directions import choose_context, spread_order
from .masks import compute_mask
from .tensor import TensorDifference, TensorMaps, compare_tensors, fit_tensors

if TYPE_CHECKING:
    from .predict import Shell, Upsampler, UpsampleResult
    from .scan import DiffusionScan

__all__ = [
    "METHOD_NAMES",
    "DirectionError",
    "Fold",
    "LeaveOut",
    "Score",
    "leave_out",
    "plan_folds",
    "region",
    "tensor_maps",
]

METHOD_NAMES = {
    "method": "this method",
    "sh": "spherical harmonics, same directions",
    "sh_all": "spherical harmonics, all directions left",
    "mean": "mean of the measured ones",
    "context": "measured ones alone",
}
_MOST_FOLDS = 8
_MARGIN = 0.02  # spherical harmonics count as just as good up to an error this much larger


@dataclass(frozen=True)
class Fold:
    """Which volumes of the scan are read, which are left out, and all that are not left out."""

    context: np.ndarray
    held: np.ndarray
    others: np.ndarray


@dataclass(frozen=True)
class Score:
    """Mean absolute and root mean square error over voxels of the mask and directions, in the scan's intensities."""

    mae: float
    rmse: float
    percent: float
    """Mean absolute error in per cent of the mean measured signal."""


@dataclass(frozen=True)
class DirectionError:
    """One direction that was left out: its volume, and the mean absolute error of each method."""

    volume: int
    world: tuple[float, float, float]
    mae: dict[str, float]


@dataclass(frozen=True)
class LeaveOut:
    """What leaving out gave.

    Attributes
    ----------
    read, trained : how many directions the method read, and whether it was trained to read that many.
    folds : how many times directions were left out.
    scores : by method (see ``METHOD_NAMES``); empty where nothing could be left out.
    rows : one per direction that was left out.
    residuals : mean absolute error per voxel, by method.
    example : volume number -> what was measured and predicted of it, by method ("measured" too).
    tensors : difference to the fit of all measured directions, by what was fitted.
    before, after : maps of the measured directions, and of the read and the predicted ones together; None without b=0.
    mask : (X, Y, Z) bool: where everything was compared.
    change : difference between ``before`` and ``after``.
    verdict, level : a sentence for people, and how bad it is ("", "good", "doubtful").
    notes : what could not be done, and why.

    """

    mask: np.ndarray
    read: int = 0
    trained: bool = True
    folds: int = 0
    scores: dict[str, Score] = field(default_factory=dict)
    rows: tuple[DirectionError, ...] = ()
    residuals: dict[str, Volume] = field(default_factory=dict)
    example: tuple[int, dict[str, np.ndarray]] | None = None
    tensors: dict[str, TensorDifference] = field(default_factory=dict)
    before: TensorMaps | None = None
    after: TensorMaps | None = None
    change: TensorDifference | None = None
    verdict: str = ""
    level: str = ""
    notes: tuple[str, ...] = ()

    def as_record(self) -> dict[str, object]:
        """Return everything but the maps, as JSON types."""
        return {
            "Verdict": self.verdict,
            "Level": self.level,
            "DirectionsRead": self.read,
            "TrainedToReadThatMany": self.trained,
            "Folds": self.folds,
            "Errors": {
                name: {"Name": METHOD_NAMES[name], "MAE": score.mae, "RMSE": score.rmse, "MAEPercent": score.percent}
                for name, score in self.scores.items()
            },
            "Directions": [
                {"Volume": row.volume, "WorldRAS": [round(value, 6) for value in row.world], "MAE": row.mae}
                for row in self.rows
            ],
            "TensorsAgainstAllMeasured": {name: item.as_record() for name, item in self.tensors.items()},
            "TensorsChange": None if self.change is None else self.change.as_record(),
            "Notes": list(self.notes),
            "ExampleVolume": None if self.example is None else self.example[0],
        }


def plan_folds(world: np.ndarray, volumes: np.ndarray, read: int) -> list[Fold]:
    """Return folds in which every direction is left out once (or as many as eight folds can hold).

    Parameters
    ----------
    world :
        Directions (n, 3) of the shell.
    volumes :
        Their numbers (n,) in the scan.
    read :
        How many directions the method reads, less than n; they are chosen as for a prediction.

    """
    total = len(volumes)
    count = max(2, -(-total // (total - read)))
    order = spread_order(world)  # every beginning of it is spread, so every n-th of it is too
    folds = []
    for index in range(min(count, _MOST_FOLDS)):
        held = np.sort(order[index::count])
        others = np.setdiff1d(np.arange(total), held)
        context = others[choose_context(world[others], read)]
        folds.append(Fold(volumes[context], volumes[held], volumes[others]))
    return folds


def leave_out(result: UpsampleResult, upsampler: Upsampler, progress: Progress) -> LeaveOut:
    """Compare the method with its alternatives on one scan.

    Parameters
    ----------
    result :
        What was predicted.
    upsampler :
        What predicted it; predicts again, from fewer directions.
    progress :
        Is told the share that is done.

    """
    shell = result.part
    mask, notes = region(result, progress), []
    read, trained = _readable(shell)
    outcome = LeaveOut(mask=mask, read=read, trained=trained)
    if read:
        outcome = _run(outcome, shell, upsampler, progress)
        if not trained:
            notes.append(
                f"the network read {read} directions here but was trained to read more, so its error is overstated"
            )
    else:
        notes.append(
            f"no direction could be left out: {len(shell.volumes)} were measured and the method needs all of them"
        )
    try:
        before, after = tensor_maps(result, mask)
        outcome = replace(outcome, before=before, after=after, change=compare_tensors(before, after))
    except (DependencyError, InputError) as error:
        notes.append(error.message)
    verdict, level = _verdict(outcome, shell)
    return replace(outcome, verdict=verdict, level=level, notes=tuple(notes))


def _readable(shell: Shell) -> tuple[int, bool]:
    """Return how many directions the method can read when some are left out (0: none can), and if trained for that."""
    total = len(shell.volumes)
    if shell.choice is None:
        least = coefficients_of(2)
        return (total - max(1, min(total - least, total // 5)), True) if total > least else (0, True)
    count = len(shell.context)
    if count < total:
        return count, True
    known = shell.choice.facts.directions if shell.choice.facts is not None else ()
    smaller = [n for n in known if n < total]
    if smaller:
        return max(smaller), True
    least = coefficients_of(2)
    return (max(least, total - max(1, total // 5)), False) if total > least else (0, True)


def region(result: UpsampleResult, progress: Progress) -> np.ndarray:
    """Return where errors are taken: the mask, or where there is none, the tissue."""
    shell = result.part
    if result.mask is not None:
        return np.asarray(result.mask.data > 0)
    try:
        return compute_mask(shell.scan.mean_b0(), shell.scan.image, "otsu", progress)
    except (DependencyError, InputError):
        mean = shell.scan.image.data[..., shell.volumes].mean(axis=3)
        return np.asarray(mean > 0.1 * np.percentile(mean, 99))


def _run(outcome: LeaveOut, shell: Shell, upsampler: Upsampler, progress: Progress) -> LeaveOut:
    scan, mask = shell.scan, outcome.mask
    folds = plan_folds(scan.table.world[shell.volumes], shell.volumes, outcome.read)
    rows: list[DirectionError] = []
    sums: dict[str, np.ndarray] = {}
    squares: dict[str, float] = {}
    signal, tensors, example = 0.0, {}, None
    for number, fold in enumerate(folds):
        found = _predictions(fold, shell, upsampler, mask, _part_of(progress, number, len(folds)))
        if not any(len(one.others) > len(one.context) for one in folds):
            found.pop("sh_all", None)  # the same as from the same directions
        truth = scan.image.data[mask][:, fold.held].astype(np.float32)
        signal += float(truth.sum(dtype=np.float64))
        for name, values in found.items():
            error = np.abs(values - truth)
            sums[name] = sums.get(name, 0) + error.sum(axis=1, dtype=np.float64)
            squares[name] = squares.get(name, 0.0) + float(np.square(error, dtype=np.float64).sum())
        rows += _rows(scan, fold, truth, found)
        if number == 0:
            tensors = _tensors(scan, fold, found, mask, shell)
            example = _example(fold, truth, found, mask)
    count = len(rows)
    voxels = max(int(mask.sum()), 1)
    mean = max(signal / (count * voxels), 1e-12)
    scores = {
        name: Score(
            mae := float(total.sum() / (count * voxels)),
            float(np.sqrt(squares[name] / (count * voxels))),
            100 * mae / mean,
        )
        for name, total in sums.items()
    }
    names = [name for name in sums if name in ("method", "sh")]
    residuals = {name: _as_map(scan, mask, sums[name] / count) for name in names}
    return replace(
        outcome,
        folds=len(folds),
        scores=scores,
        rows=tuple(sorted(rows, key=lambda row: row.volume)),
        residuals=residuals,
        tensors=tensors,
        example=example,
    )


def _part_of(progress: Progress, number: int, count: int) -> Progress:
    """Return a silent progress that moves the real one on by its share; warnings were given before."""

    def on_event(event: object) -> None:
        fields = getattr(event, "fields", {})
        if getattr(event, "event", "") == "progress":
            progress.update((number + float(fields["fraction"])) / count)

    return Progress(on_event)


def _predictions(
    fold: Fold, shell: Shell, upsampler: Upsampler, mask: np.ndarray, progress: Progress
) -> dict[str, np.ndarray]:
    """Return what each method predicts for the directions that are left out: (V, held), float32."""
    scan, table = shell.scan, shell.scan.table
    predicted, _ = upsampler.predict(replace(shell, context=fold.context), table.pick(fold.held), mask, progress)
    found = {"method": predicted[mask]}
    inside = scan.image.data[mask].astype(np.float32, copy=False)

    def harmonics(which: np.ndarray) -> np.ndarray:
        return sh_predict(inside[:, which], table.world[which], table.world[fold.held])

    if shell.choice is not None and len(fold.context) >= coefficients_of(2):
        found |= {"sh": harmonics(fold.context), "sh_all": harmonics(fold.others)}
    mean = inside[:, fold.context].mean(axis=1, keepdims=True)
    found["mean"] = np.repeat(mean, len(fold.held), axis=1)
    return found


def _rows(scan: DiffusionScan, fold: Fold, truth: np.ndarray, found: dict[str, np.ndarray]) -> list[DirectionError]:
    errors = {name: np.abs(values - truth).mean(axis=0) for name, values in found.items()}
    return [
        DirectionError(
            int(volume),
            tuple(float(value) for value in scan.table.world[volume]),  # type: ignore[arg-type]
            {name: float(values[column]) for name, values in errors.items()},
        )
        for column, volume in enumerate(fold.held)
    ]


def _example(
    fold: Fold, truth: np.ndarray, found: dict[str, np.ndarray], mask: np.ndarray
) -> tuple[int, dict[str, np.ndarray]]:
    shown = {"measured": truth} | {name: values for name, values in found.items() if name in ("method", "sh")}
    maps = {}
    for name, values in shown.items():
        maps[name] = np.zeros(mask.shape, dtype=np.float32)
        maps[name][mask] = values[:, 0]
    return int(fold.held[0]), maps


def _tensors(
    scan: DiffusionScan, fold: Fold, found: dict[str, np.ndarray], mask: np.ndarray, shell: Shell
) -> dict[str, TensorDifference]:
    """Return how tensors of fewer measured directions, alone or with predicted ones, differ from those of all."""
    b0 = np.flatnonzero(scan.table.is_b0)
    if not b0.size:
        return {}
    inside = scan.image.data[mask]
    base = np.concatenate([b0, fold.context])
    try:
        truth = fit_tensors(
            inside[:, np.concatenate([b0, shell.volumes])], scan.table.pick(np.concatenate([b0, shell.volumes]))
        )
        made = {"context": compare_tensors(truth, fit_tensors(inside[:, base], scan.table.pick(base)))}
        for name in ("method", "sh"):
            if name in found:
                signal = np.concatenate([inside[:, base], found[name]], axis=1)
                table = scan.table.pick(np.concatenate([base, fold.held]))
                made[name] = compare_tensors(truth, fit_tensors(signal, table))
    except (DependencyError, InputError):
        return {}
    return made


def tensor_maps(result: UpsampleResult, mask: np.ndarray) -> tuple[TensorMaps, TensorMaps]:
    """Return the maps of all measured directions, and of the directions read and predicted together.

    Raises
    ------
    InputError : the scan has no b = 0 volume, or too few directions.
    DependencyError : DIPY is not installed.

    """
    shell = result.part
    table, inside = shell.scan.table, shell.scan.image.data[mask]
    b0 = np.flatnonzero(table.is_b0)
    measured, read = np.concatenate([b0, shell.volumes]), np.concatenate([b0, shell.context])
    before = fit_tensors(inside[:, measured], table.pick(measured))
    which = np.flatnonzero(np.array(result.kinds) == "predicted")
    signal = np.concatenate([inside[:, read], result.image.data[mask][:, which]], axis=1)
    return before, fit_tensors(signal, table.pick(read).joined(result.gradients.pick(which)))


def _as_map(scan: DiffusionScan, mask: np.ndarray, values: np.ndarray) -> Volume:
    out = np.zeros(mask.shape, dtype=np.float32)
    out[mask] = values
    return scan.image.with_data(out)


def _verdict(outcome: LeaveOut, shell: Shell) -> tuple[str, str]:
    """Return a plain sentence, and its level."""
    scores = outcome.scores
    if not scores:
        return "The error of this result is not known: no measured direction could be left out to test it.", "doubtful"
    own = scores["method"]
    told = f"On {len(outcome.rows)} measured directions that were left out, the mean absolute error is "
    told += f"{own.percent:.1f} % of the signal"
    if shell.choice is None:
        worth = scores["mean"].percent / max(own.percent, 1e-9)
        if worth < 1 + _MARGIN:
            return (
                f"{told}: no better than the plain mean of the measured ones. Do not use these directions.",
                "doubtful",
            )
        return f"{told}; the plain mean of the measured ones is off by {scores['mean'].percent:.1f} %.", "good"
    best = min((scores[name] for name in ("sh", "sh_all") if name in scores), key=lambda one: one.mae, default=None)
    if best is None:
        return f"{told}; there are too few directions for spherical harmonics to compare with.", ""
    told += f", that of spherical harmonics {best.percent:.1f} %."
    if best.mae < own.mae * (1 - _MARGIN):
        return f"{told} Spherical harmonics are better here: use --method sh, which needs no network.", "doubtful"
    if best.mae <= own.mae * (1 + _MARGIN):
        return (
            f"{told} Spherical harmonics are as good here: --method sh gives the same quality without a network.",
            "doubtful",
        )
    return f"{told} The network is better here.", "good"
