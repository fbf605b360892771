"""``mri-deep-tools translate``: scans, pictures and whole data sets in another contrast."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..progress import Progress
from .options import add_common_options, positive

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="a scan, a DICOM series, a picture, a folder of these, a table, a data set of nnU-Net, or a set of tiles",
    )
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the result, or a folder")
    _add_model_options(parser.add_argument_group("model"))
    _add_sampling_options(parser.add_argument_group("sampling"))
    _add_scan_options(parser.add_argument_group("scans"))
    _add_picture_options(parser.add_argument_group("pictures and data sets"))
    outputs = parser.add_argument_group("outputs")
    outputs.add_argument("--save-std", type=Path, metavar="FILE", help="standard deviation of the samples")
    outputs.add_argument("--report", type=Path, metavar="HTML", help="a page with pictures and provenance")
    outputs.add_argument("--hide-names", action="store_true", help="no file names in the records")
    add_common_options(parser)


def _add_model_options(group: Any) -> None:
    group.add_argument("--to", required=True, metavar="CONTRAST", help="the contrast to make, as the model names it")
    group.add_argument("--from", dest="source", metavar="CONTRAST", help="that of INPUT: refuse a model for another")
    weights = group.add_mutually_exclusive_group()
    weights.add_argument("--model", metavar="NAME", help="see `mri-deep-tools models list` (default: syndiff-lite)")
    weights.add_argument("--weights", type=Path, metavar="DIR", help="folder with model.json and gen_diffusive_* files")
    group.add_argument("--epoch", type=int, metavar="E", help="of the training, where DIR holds several")


def _add_sampling_options(group: Any) -> None:
    group.add_argument("--seed", type=int, default=42, metavar="N", help="of the random numbers (default: 42)")
    group.add_argument("--samples", type=positive, default=1, metavar="N", help="translate N times, give the mean")
    group.add_argument("--same-noise", action="store_true", help="the same random numbers for all slices of a scan")
    group.add_argument("--batch", type=positive, metavar="N", help="slices or tiles at a time (default: by the device)")


def _add_scan_options(group: Any) -> None:
    group.add_argument("--axis", choices=("axial", "coronal", "sagittal"), help="of the slices (default: as trained)")
    group.add_argument("--slices", metavar="A:B", help="only these, from 0 at the bottom, the back, or the left")
    group.add_argument("--pixel", type=float, metavar="MM", help="side to resample slices to (default: as trained)")
    group.add_argument("--constant", type=float, metavar="K", help="intensity that becomes 1, in units of the mean")
    group.add_argument("--mean", choices=("volume", "mask"), help="where it is taken (default: as trained)")
    group.add_argument("--mask", type=Path, metavar="FILE", help="brain or head on the grid of INPUT (default: found)")
    group.add_argument("--background", choices=("keep", "zero"), default="keep", help="zero: 0 outside the head")
    group.add_argument("--output-factor", type=float, default=1.0, metavar="F", help="what 1 becomes (default: 1)")


def _add_picture_options(group: Any) -> None:
    group.add_argument("--recursive", action="store_true", help="sub-folders too, but for those named derivatives")
    group.add_argument("--scale-factor", type=float, default=1.0, metavar="F", help="scale pictures first (default: 1)")
    group.add_argument("--keep-scale", action="store_true", help="leave results at that scale")
    group.add_argument("--tile-size", type=positive, metavar="N", help="pixels (default: as trained)")
    group.add_argument("--overlap", type=int, metavar="N", help="least overlap of tiles (default: an eighth of them)")
    group.add_argument("--stitching", choices=("blend", "published"), default="blend", help="(default: blend)")
    group.add_argument("--names", choices=("original", "published"), help="of a folder's pictures (default: original)")
    group.add_argument("--dataset-id", type=positive, metavar="N", help="of a new data set of nnU-Net (default: free)")


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Translate what the command line names.

    Raises
    ------
    MRIDeepToolsError : for one image its own error; for several, at the end, which of them failed.

    """
    from dataclasses import fields

    from ..errors import InputError
    from ..translate.options import TranslateOptions
    from ..translate.predict import Translator
    from .translate_run import ImageBatch
    from .translate_sets import is_set, run_set

    options = TranslateOptions(**{item.name: getattr(args, item.name) for item in fields(TranslateOptions)})
    if not args.input.exists():
        raise InputError(f"{args.input.name} does not exist", "check the path of the input")
    translator = Translator(options)
    if is_set(args.input):
        run_set(args, translator, progress)
    else:
        ImageBatch(args, translator, progress).run()
