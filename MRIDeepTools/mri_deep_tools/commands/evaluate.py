"""``mri-deep-tools evaluate``: compare segmentations with the truth, choose a checkpoint, estimate intensity priors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, RequestError
from ..progress import Progress
from . import dmri_scores, model_scores, picture_scores, prediction_scores, similarity, translation_scores
from .options import add_common_options, positive
from .outputs import check_outputs

if TYPE_CHECKING:
    from ..synthsegment.evaluate import Evaluation
    from ..volume import Volume

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    scores = actions.add_parser("segmentation", help="Dice and surface distances per structure; test of two methods")
    scores.add_argument("truth", type=Path, metavar="TRUTH", help="true label map, or a folder of them")
    scores.add_argument("found", type=Path, metavar="SEGMENTATION", help="label map or folder to judge")
    scores.add_argument("csv", type=Path, metavar="CSV", help="scores; the summary goes beside it as *_summary.csv")
    scores.add_argument("--labels", type=int, nargs="+", metavar="CODE", help="structures (default: all that occur)")
    scores.add_argument("--no-distances", action="store_true", help="Dice only, which is much quicker")
    scores.add_argument("--resample", action="store_true", help="bring the truth to the grid of the segmentation")
    scores.add_argument(
        "--second", type=Path, metavar="FOLDER", help="segmentations by a second method, to test against"
    )
    scores.add_argument(
        "--comparison", type=Path, metavar="CSV", help="Wilcoxon's test and Cohen's d of the two methods"
    )
    scores.add_argument("--metric", default="dice", help="the measure that is tested (default: dice)")
    scores.add_argument("--alternative", choices=("two-sided", "greater", "less"), default="two-sided")

    choice = actions.add_parser("checkpoints", help="segment validation scans with every checkpoint, choose the best")
    choice.add_argument("checkpoints", type=Path, metavar="FOLDER", help="folder with the checkpoints of a training")
    choice.add_argument("images", type=Path, metavar="IMAGES", help="validation scan, or folder of them")
    choice.add_argument("truth", type=Path, metavar="TRUTH", help="true label map, or folder of them")
    choice.add_argument("csv", type=Path, metavar="CSV", help="one row per checkpoint")
    choice.add_argument("--phase", default="dice", help="how the names of the checkpoints begin (default: dice)")
    choice.add_argument("--step", type=positive, default=1, metavar="N", help="every N-th checkpoint only")
    choice.add_argument(
        "--labels", type=int, nargs="+", metavar="CODE", help="structures (default: all of the network)"
    )

    priors = actions.add_parser("priors", help="estimate intensity priors from scans with label maps")
    priors.add_argument("images", type=Path, metavar="IMAGES", help="scan, or folder of scans")
    priors.add_argument("maps", type=Path, metavar="LABELS", help="label map, or folder of them, on the scans' grids")
    priors.add_argument("folder", type=Path, metavar="OUTPUT", help="folder for prior_means.npy and prior_stds.npy")
    priors.add_argument("--classes", choices=("tissue", "sided"), default="tissue", help="25 classes or 48 with sides")
    priors.add_argument("--no-rescale", action="store_true", help="keep the scans' own intensities")

    for action in (scores, choice, priors):
        add_common_options(action)
    similarity.add_action(actions)
    prediction_scores.add_action(actions)
    dmri_scores.add_action(actions)
    translation_scores.add_action(actions)
    model_scores.add_action(actions)
    picture_scores.add_action(actions)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Do one action.

    Raises
    ------
    MRIDeepToolsError : as the functions of :mod:`mri_deep_tools.synthsegment.evaluate` say.

    """
    actions = {"segmentation": _segmentation, "checkpoints": _checkpoints, "priors": _priors}
    others = {"similarity": similarity.run, "prediction": prediction_scores.run, "dmri": dmri_scores.run}
    others |= {"translation": translation_scores.run, "image-segmentation": picture_scores.run}
    others["translation-model"] = model_scores.run
    {**actions, **others}[args.action](args, progress)


def _segmentation(args: argparse.Namespace, progress: Progress) -> None:
    from ..synthsegment.evaluate import compare, evaluate_folders

    if (args.second is None) != (args.comparison is None):
        raise RequestError("--second and --comparison belong together", "give both or none")
    outputs = [_csv(args.csv), _csv(args.csv).with_name(f"{_csv(args.csv).stem}_summary.csv")]
    outputs += [_csv(args.comparison)] if args.comparison else []
    _prepare(outputs, [args.truth, args.found], args.overwrite)
    options: dict[str, Any] = {
        "compatible": args.compatible,
        "resample": args.resample,
        "distances": not args.no_distances,
        "progress": progress,
    }
    first = evaluate_folders(args.truth, args.found, outputs[0], labels=args.labels, **options)
    fields: dict[str, Any] = {"outputs": [path.name for path in outputs], "mean_dice": first.mean("dice")}
    if args.second is not None:
        second = evaluate_folders(args.truth, args.second, labels=first.labels, **options)
        compare(first, second, args.metric, alternative=args.alternative, compatible=args.compatible).write_csv(
            outputs[2]
        )
        fields["mean_dice_second"] = second.mean("dice")
    if not args.quiet and args.progress != "json":
        sys.stdout.write(_summary(first))
    progress.result(**fields)


def _checkpoints(args: argparse.Namespace, progress: Progress) -> None:
    from ..synthsegment.evaluate import match_files
    from ..synthsegment.labels import V2_CHANNELS
    from ..synthsegment.selection import list_checkpoints, select_checkpoint

    found = list_checkpoints(args.checkpoints, phase=args.phase, step=args.step)
    pairs = match_files(args.truth, args.images, on_warning=progress.warn)
    table = _csv(args.csv)
    _prepare([table], [args.images, args.truth], args.overwrite)
    selection = select_checkpoint(
        found,
        _predictor(args),
        [image for _, image in pairs],
        [truth for truth, _ in pairs],
        args.labels or V2_CHANNELS,
        compatible=args.compatible,
        csv_path=table,
        progress=progress,
    )
    best = selection.best
    if not args.quiet and args.progress != "json":
        sys.stdout.write(f"{best.checkpoint.name} is the best: mean Dice {best.mean_dice:.4f}\n")
    progress.result(outputs=[table.name], best=best.checkpoint.name, mean_dice=best.mean_dice)


def _predictor(args: argparse.Namespace) -> Callable[[Path, Path], Volume]:
    """Return what segments a scan with a checkpoint: published pipeline without flip averaging and clean-up."""
    from ..synthsegment.predict import Segmenter

    loaded: dict[Path, Any] = {}

    def predict(checkpoint: Path, image: Path) -> Volume:
        if checkpoint not in loaded:
            loaded.clear()  # one network in memory at a time
            loaded[checkpoint] = Segmenter(
                weights=checkpoint, fast=True, device=args.device, threads=args.threads, precision=args.precision
            )
        return loaded[checkpoint].segment(image).labels

    return predict


def _priors(args: argparse.Namespace, progress: Progress) -> None:
    from ..synthsegment.evaluate import match_files
    from ..synthsegment.labels import GENERATION
    from ..synthsegment.priors import estimate_priors_from_files, save_priors

    pairs = match_files(args.maps, args.images, on_warning=progress.warn)
    _prepare([args.folder / "prior_means.npy", args.folder / "prior_stds.npy"], [], args.overwrite)
    with progress.stage("priors"):
        means, stds = estimate_priors_from_files(
            [image for _, image in pairs],
            [labels for labels, _ in pairs],
            [item.code for item in GENERATION],
            [item.sided_class if args.classes == "sided" else item.tissue_class for item in GENERATION],
            rescale=not args.no_rescale,
            compatible=args.compatible,
            on_warning=progress.warn,
        )
    paths = save_priors(args.folder, means, stds)
    progress.result(outputs=[path.name for path in paths], images=len(pairs))


def _prepare(outputs: Sequence[Path], inputs: Sequence[Path], overwrite: bool) -> None:
    """Check names before the work, and take away what an earlier run left."""
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path.name} does not exist", "check the path of the input")
    check_outputs(outputs, inputs, overwrite=overwrite)


def _csv(path: Path) -> Path:
    return path if path.suffix.lower() == ".csv" else path.with_name(f"{path.name}.csv")


def _summary(evaluation: Evaluation) -> str:
    """Return mean Dice per structure as a table for the terminal."""
    rows = evaluation.summary()
    width = max(len(str(row["structure"])) for row in rows)
    lines = [f"{row['structure']:<{width}}  {row['dice_mean']:.3f}" for row in rows]
    return "\n".join([f"{'structure':<{width}}  mean Dice", *lines, ""])
