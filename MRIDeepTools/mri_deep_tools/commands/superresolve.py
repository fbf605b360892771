"""``mri-deep-tools superresolve``: thick-slice T2w scans, with their T1w scans or alone, to 1 mm isotropic T2w."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError, RequestError
from ..progress import Progress
from .options import add_common_options
from .superresolve_jobs import EXTRAS, plan_pairs

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    kinds = "an image file, a folder with one DICOM series, or a folder of image files"
    parser.add_argument("output", metavar="OUTPUT", type=Path, nargs="?", help="the result, or a folder for it")
    parser.add_argument("--t2", type=Path, metavar="FILE", help=f"thick-slice T2w scan: {kinds}")
    parser.add_argument("--t1", type=Path, metavar="FILE", help="isotropic T1w scan, where there is one: likewise")
    parser.add_argument(
        "--table", type=Path, metavar="CSV", help="many pairs: columns t2, t1 (may be empty), output (may be missing)"
    )
    parser.add_argument(
        "--describe", action="store_true", help="only print, as JSON, how the slices of the T2w scan are taken to lie"
    )
    _add_model_options(parser.add_argument_group("model"))
    _add_geometry_options(parser.add_argument_group("geometry"))
    outputs = parser.add_argument_group("outputs")
    outputs.add_argument("--interpolated", type=Path, metavar="FILE", help="the T2w scan interpolated, to compare")
    outputs.add_argument(
        "--honesty", type=Path, metavar="FILE", help="map of the result, reduced to the measured slices, minus these"
    )
    outputs.add_argument(
        "--save-transform", type=Path, metavar="TFM", help="ITK transform that brings the T1w scan onto the T2w scan"
    )
    outputs.add_argument("--report", type=Path, metavar="HTML", help="a page with pictures, checks and provenance")
    outputs.add_argument(
        "--intensities", choices=("scan", "unit"), default="scan", help="those of the T2w scan, or 0..1 as published"
    )
    outputs.add_argument("--hide-names", action="store_true", help="no file names in the records")
    add_common_options(parser)


def _add_model_options(group: Any) -> None:
    weights = group.add_mutually_exclusive_group()
    weights.add_argument("--model", metavar="NAME", help="(default: baby-ai, or superresolve-lite)")
    weights.add_argument("--weights", type=Path, metavar="FILE", help="weights of your own (.pth or .safetensors)")
    group.add_argument(
        "--window",
        choices=("uniform", "gaussian"),
        default="uniform",
        help="blending of patches (default: as published)",
    )


def _add_geometry_options(group: Any) -> None:
    group.add_argument("--registered", action="store_true", help="the scans lie in one space already: do not register")
    group.add_argument(
        "--template", metavar="FILE", help="work in the frame of this 1 mm image, or atlas of the list (baby-ai-atlas)"
    )
    group.add_argument("--space", choices=("native", "template"), default="native", help="of the result")
    group.add_argument(
        "--resampling",
        choices=("geometric", "as-trained"),
        default="geometric",
        help="of the T2w scan along its slices: by its affine, or with the published stretch",
    )
    group.add_argument(
        "--slice-direction", choices=("axial", "coronal", "sagittal"), help="(default: that of the largest voxel side)"
    )
    group.add_argument("--slice-thickness", type=float, metavar="MM", help="(default: what the header says)")
    group.add_argument(
        "--slice-spacing", type=float, metavar="MM", help="of the slices that an interpolated T2w scan was made from"
    )


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Super-resolve one pair, or all pairs of a folder or a table.

    Raises
    ------
    MRIDeepToolsError : as :func:`mri_deep_tools.superresolve.superresolve` says; an output that cannot be written.

    """
    from ..superresolve.predict import SuperResolver
    from .superresolve_run import PairBatch

    if args.table is not None and (args.t2 is not None or args.t1 is not None):
        raise RequestError("scans and a table were given", "give --t2 and --t1, or --table")
    if args.describe:
        _describe(args)
        return
    if args.output is None:
        raise RequestError("no place for the result is given", "name OUTPUT, a file or a folder")
    extras = {name: path for name in EXTRAS if (path := getattr(args, name)) is not None}
    jobs = plan_pairs(
        args.output, args.t2, args.t1, args.table, extras, progress.warn, compatible=bool(args.compatible)
    )
    batch = PairBatch(jobs, SuperResolver(**_engine_options(args)), args, progress)
    batch.check()
    batch.run()


def _engine_options(args: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import fields

    from ..superresolve.predict import SuperResolveOptions

    return {item.name: getattr(args, item.name) for item in fields(SuperResolveOptions)}


def _describe(args: argparse.Namespace) -> None:
    """Print how the slices of one scan are taken to lie, with the remarks that a run would make about them."""
    from ..superresolve.predict import read_scan
    from ..superresolve.slices import understand_slices

    if args.t2 is None:
        raise RequestError("--describe needs a scan", "name one with --t2")
    if not args.t2.exists():
        raise InputError(f"{args.t2.name} does not exist", "check the path of the input")
    silent = Progress()
    scan = read_scan(args.t2, "T2w", silent)
    slices, notes = understand_slices(
        scan,
        args.t2,
        args.t2.name,
        direction=args.slice_direction,
        thickness_mm=args.slice_thickness,
        spacing_mm=args.slice_spacing,
        registered=args.registered,
    )
    answer = {
        "Words": "slices unknown" if slices is None else slices.words(),
        "Slices": None if slices is None else slices.as_record(),
        "Warnings": [*silent.warnings, *notes],
    }
    sys.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
