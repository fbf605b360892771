"""``mri-deep-tools segment``: label the structures of the brain in one scan, a folder of scans, or a list of scans."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..progress import Progress
from .options import add_common_options
from .segment_generic import TruthTable, add_generic_options, check_alone, make_segmenter, told_options

__all__ = ["add_arguments", "prepare", "run"]

OUTPUTS = ("posteriors", "resampled", "report", "volumes", "qc")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options; FreeSurfer's names stand beside ours."""
    kinds = "a scan, a folder with one DICOM series, a folder of scans, or a .txt list of scans"
    parser.add_argument("input", nargs="?", metavar="INPUT", help=kinds)
    parser.add_argument("output", nargs="?", metavar="OUTPUT", help="the label map; a folder or a list like INPUT")
    parser.add_argument("--i", dest="input_flag", metavar="INPUT", help="the same as INPUT (FreeSurfer's form)")
    parser.add_argument(
        "--o", dest="output_flag", metavar="OUTPUT", help="the same as OUTPUT; replaces what exists, as FreeSurfer does"
    )
    _add_model_options(parser.add_argument_group("model"))
    add_generic_options(parser.add_argument_group("a model of your own, with its own labels"))
    _add_output_options(parser.add_argument_group("outputs"))
    add_common_options(parser)


def _add_model_options(group: Any) -> None:
    weights = group.add_mutually_exclusive_group()
    weights.add_argument("--model", metavar="NAME", help="see `mri-deep-tools models list` (default: the best present)")
    weights.add_argument(
        "--weights",
        metavar="PATH",
        help="weights of your own (Keras .h5 or .safetensors), or a folder with the published files",
    )
    group.add_argument("--v1", action="store_true", help="SynthSeg 1.0: no CSF label, no total intracranial volume")
    group.add_argument("--robust", action="store_true", help="for scans of low quality: three networks in a chain")
    group.add_argument("--fast", action="store_true", help="half the time: no flip averaging, simpler clean-up")
    group.add_argument("--ct", action="store_true", help="the scan is CT, in Hounsfield units")
    group.add_argument("--parcellation", "--parc", action="store_true", help="divide the cortex into 68 parcels")
    group.add_argument(
        "--crop",
        type=_crop,
        metavar="N [N N]",
        help="work on the centre of the scan only; sizes in voxels of 1 mm (with --labels: of the network's grid), "
        "rounded up to multiples of 32 (to what the network needs)",
    )


def _add_output_options(group: Any) -> None:
    group.add_argument(
        "--grid", choices=("native", "1mm"), help="of the labels: the scan's own (default) or the network's"
    )
    group.add_argument(
        "--keepgeom", dest="grid", action="store_const", const="native", help="the same as --grid native"
    )
    group.add_argument("--volumes", "--vol", metavar="CSV", help="volumes in mm^3, one row per scan")
    group.add_argument("--qc", metavar="CSV", help="quality scores, one row per scan")
    group.add_argument("--posteriors", "--post", metavar="FILE", help="soft maps, one per structure, as a 4-D image")
    group.add_argument("--resampled", "--resample", metavar="FILE", help="the scan on the network's grid")
    group.add_argument("--report", metavar="HTML", help="a page with picture, volumes and provenance")
    group.add_argument("--hide-names", action="store_true", help="no file names in the records")


def prepare(words: Sequence[str]) -> list[str]:
    """Join the one to three numbers after ``--crop`` into one word, so that they never swallow a file name."""
    joined, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if word == "--crop":
            numbers: list[str] = []
            while rest and len(numbers) < 3 and re.fullmatch(r"-?\d+", rest[0]):
                numbers.append(rest.pop(0))
            word = f"--crop={','.join(numbers)}"
        joined.append(word)
    return joined


def _crop(text: str) -> tuple[int, ...]:
    numbers = [int(part) for part in text.split(",") if part.isdigit() and int(part)]
    if len(numbers) != text.count(",") + 1 or len(numbers) not in (1, 3):
        raise argparse.ArgumentTypeError("one or three whole numbers from 1 are needed")
    return tuple(numbers)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Segment the scans that the command line names.

    Raises
    ------
    MRIDeepToolsError : for one scan its own error; for several, at the end, which of them failed.

    """
    from ..synthsegment.generic import GenericSegmenter
    from ..synthsegment.predict import Segmenter
    from .segment_jobs import plan_jobs
    from .segment_run import Batch

    scan, output, freesurfer = _ends(args)
    check_alone(args)
    say = None if args.quiet or args.progress == "json" else _say
    outputs = {"labels": output} | {name: getattr(args, name) for name in OUTPUTS}
    plan = plan_jobs(scan, outputs, progress.warn)
    own = args.labels is not None
    segmenter = make_segmenter(args, plan, _engine_options(args)) if own else Segmenter(**_engine_options(args))
    truth = None
    if args.truth is not None:
        truth = TruthTable(args.truth, scan, plan, compatible=args.compatible, progress=progress)
    batch = Batch(
        plan,
        segmenter,
        progress,
        options=_told_options(args) | (told_options(args) if own else {}),
        compatible=args.compatible,
        hide_names=args.hide_names,
        say=say,
        more_inputs=[Path(path) for path in args.channel],
    )
    batch.check(overwrite=args.overwrite or freesurfer)
    if truth is not None:
        truth.check(overwrite=args.overwrite or freesurfer)
    batch.run()
    if truth is not None and isinstance(segmenter, GenericSegmenter):
        mean = truth.write(segmenter.table)
        progress.result(outputs=[str(path) for path in truth.outputs], mean_dice=mean)
        if say:
            say(f"mean Dice against the truth: {mean:.4f}")


def _ends(args: argparse.Namespace) -> tuple[str, str, bool]:
    """Return input, output, and whether they were given in FreeSurfer's form."""
    if args.input_flag or args.output_flag:
        if args.input or not (args.input_flag and args.output_flag):
            raise RequestError("--i and --o go together, without other file names", "give INPUT OUTPUT, or --i and --o")
        return args.input_flag, args.output_flag, True
    if not args.input or not args.output:
        raise RequestError("INPUT and OUTPUT are needed", "see `mri-deep-tools segment --help`")
    return args.input, args.output, False


def _engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keywords of the Segmenter."""
    return {
        "model": args.model,
        "weights": args.weights,
        "version": "1.0" if args.v1 else None,
        "parcellation": args.parcellation,
        "robust": args.robust,
        "fast": args.fast,
        "ct": args.ct,
        "grid": args.grid or "native",
        "crop": args.crop,
        "qc": args.qc is not None,
        "posteriors": args.posteriors is not None,
        "resampled": args.resampled is not None,
        "compatible": args.compatible,
        "device": args.device,
        "threads": args.threads,
        "precision": args.precision,
    }


def _told_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options for the record: what shapes the result, not where it goes."""
    options = _engine_options(args)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
