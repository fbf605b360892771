"""``mri-deep-tools segment-nnunet``: segment pictures with a model that nnU-Net trained. Research use only."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..progress import Event, Progress
from .options import add_common_options
from .outputs import check_outputs

if TYPE_CHECKING:
    from ..translate.handover import Segmented
    from ..translate.handover_data import Fold

__all__ = ["add_arguments", "run"]

_FOLDER_RECORD = "segment-nnunet.json"
_CITATION = "Isensee et al., nnU-Net, Nature Methods 18, 2021, 203-211, doi:10.1038/s41592-020-01008-z"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "input", type=Path, metavar="INPUT", help="picture, or folder of pictures; names may end in _0000 or not"
    )
    parser.add_argument(
        "output", type=Path, metavar="OUTPUT", help="label map (for one picture), or folder for the label maps"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="model folder, for instance nnUNet_results/Dataset101_TEM/nnUNetTrainer__nnUNetPlans__2d",
    )
    parser.add_argument(
        "--folds",
        nargs="+",
        type=_fold,
        metavar="N",
        help="folds whose mean decides, or all for the fold of that name (default: every fold that is trained)",
    )
    parser.add_argument(
        "--use-best-checkpoint",
        action="store_true",
        help="take the weights with the best validation (recommended for AxonDeepSynth), not the last ones",
    )
    parser.add_argument(
        "--step", type=float, default=0.5, metavar="X", help="step of the window as a share of it (default: 0.5)"
    )
    parser.add_argument(
        "--no-mirroring", dest="mirroring", action="store_false", help="do not average over mirrored pictures: quicker"
    )
    first = parser.add_argument_group("translation first, for pictures of another contrast than the model's")
    first.add_argument("--translate-with", type=Path, metavar="DIR", help="model folder of `train syndiff`")
    first.add_argument("--to", metavar="CONTRAST", help="the contrast of the nnU-Net model, as DIR names it")
    first.add_argument(
        "--translated", type=Path, metavar="FOLDER", help="where translated pictures go (default: OUTPUT/translated)"
    )
    first.add_argument("--seed", type=int, default=42, metavar="N", help="of the translation (default: 42)")
    parser.add_argument("--hide-names", action="store_true", help="no file names in the record")
    add_common_options(parser)


def _fold(text: str) -> Fold:
    if text == "all":
        return text
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"'{text}' is not the number of a fold, or all")
    return int(text)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Segment what the command line names.

    Raises
    ------
    MRIDeepToolsError : nothing could be done, or, at the end, which pictures failed.

    """
    from ..translate.handover import SegmentOptions, failure_of, plan_segmentation, require_nnunet, segment
    from ..translate.handover_data import read_model

    if args.precision != "auto":
        raise RequestError("nnU-Net chooses the precision itself", "leave --precision out")
    if (args.translate_with is None) != (args.to is None):
        raise RequestError("--translate-with and --to belong together", "give both or none")
    model = read_model(args.weights, args.folds, best=args.use_best_checkpoint)
    planned = plan_segmentation(args.input, args.output, model)
    require_nnunet()  # before results of an earlier run are removed
    places = [place for _, place in planned]
    record = _record_path(args.output, places)
    sources = [path for case, _ in planned for path in case.files]
    check_outputs([*places, record], sources, overwrite=args.overwrite)
    source = args.input
    if args.to is not None:
        progress.plan([("translate", 5.0), ("segment", 1.0)])
        source = _translated(args, as_file=record.parent == args.output.parent, progress=progress)
    begin = time.monotonic()
    with progress.stage("segment"):
        done = segment(
            source,
            args.output,
            args.weights,
            folds=args.folds,
            best=args.use_best_checkpoint,
            options=SegmentOptions(args.device, args.threads, args.step, args.mirroring),
            progress=progress,
        )
    made = [path for path in places if path.is_file()]
    _write_record(args, done, made, record, time.monotonic() - begin, progress)
    if not args.quiet and args.progress != "json":
        from ..provenance import DISCLAIMER

        sys.stdout.write(f"{len(made)} of {len(places)} pictures segmented with {_names(done)}\n{DISCLAIMER}\n")
    if done.failed:
        raise failure_of(done.failed, len(places))
    progress.result(outputs=[path.name for path in [*made, record]])


def _names(done: Segmented) -> str:
    folds = ", ".join(map(str, done.model.folds))
    return f"{done.model.folder.parent.name}, fold{'s' if len(done.model.folds) > 1 else ''} {folds}"


def _translated(args: argparse.Namespace, *, as_file: bool, progress: Progress) -> Path:
    """Translate INPUT with the command made for it; returns the translated picture, or the folder of them."""
    from . import translate

    folder = args.translated or (args.output.parent if as_file else args.output) / "translated"
    target = folder if args.input.is_dir() else folder / args.input.name
    if folder.is_dir() and any(folder.iterdir()) and not args.overwrite:
        raise RequestError(f"{folder.name} holds something already", "name another folder or allow --overwrite")
    parser = argparse.ArgumentParser()
    translate.add_arguments(parser)
    words = [str(args.input), str(target), "--weights", str(args.translate_with), "--to", args.to]
    words += ["--seed", str(args.seed), "--device", args.device]
    words += ["--threads", str(args.threads)] if args.threads else []
    asked = {"--overwrite": args.overwrite, "--hide-names": args.hide_names, "--quiet": True}
    options = parser.parse_args([*words, *(word for word, is_asked in asked.items() if is_asked)])

    def forward(event: Event) -> None:
        if event.event == "progress":
            progress.update(event.fraction)
        elif event.event == "warning":
            progress.warn(event.message)

    with progress.stage("translate"):
        translate.run(options, Progress(forward))
    return target


def _record_path(output: Path, places: list[Path]) -> Path:
    """Return where the record goes: beside a single label map, else into the folder."""
    from ..provenance import sidecar_path

    return sidecar_path(places[0]) if len(places) == 1 and places[0] == output else output / _FOLDER_RECORD


def _write_record(
    args: argparse.Namespace,
    done: Segmented,
    made: list[Path],
    record: Path,
    seconds: float,
    progress: Progress,
) -> None:
    from ..provenance import ModelUse, make_record, write_sidecar

    folder = done.model.folder
    models = [
        ModelUse(f"{folder.parent.name}/{folder.name}/{path.parent.name}", path, "given by the user", "", (_CITATION,))
        for path in done.model.files
    ]
    options = {
        "weights": args.weights,
        "folds": list(done.model.folds),
        "use_best_checkpoint": args.use_best_checkpoint,
        "step": args.step,
        "mirroring": args.mirroring,
        "translated_to": args.to,
        "labels": dict(done.model.info.get("labels", {})),
        "nnunetv2": done.version,
    }
    content = make_record(
        "segment-nnunet",
        done.inputs,
        models,
        args.device,
        options,
        {"segment": seconds},
        None,
        progress.warnings,
        made,
        threads=args.threads,
        hide_names=args.hide_names,
    )
    write_sidecar(record, content)
