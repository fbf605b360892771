"""``mri-deep-tools translate-dataset``: sets to train a translation with, and sets to be translated."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..progress import Progress
from .options import add_common_options, positive

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _pictures(actions)
    _volumes(actions)
    _mat(actions)
    _to_translate(actions)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Make one set.

    Raises
    ------
    MRIDeepToolsError : a wrong request, files that cannot be used, outputs that exist.

    """
    from . import dataset_jobs

    jobs = {
        "pictures": dataset_jobs.pictures,
        "volumes": dataset_jobs.volumes,
        "mat": dataset_jobs.mat,
        "to-translate": dataset_jobs.to_translate,
    }
    jobs[args.action](args, progress)


def _pictures(actions: Any) -> None:
    made = actions.add_parser("pictures", help="training set from folders of PNG, TIFF or BMP pictures")
    made.add_argument("output", type=Path, metavar="OUTPUT", help="folder; gets NAME_train.hdf5, _val and _test")
    _add_contrasts(
        made,
        "NAME and one or more FOLDERs with its pictures, searched at every depth; once per contrast. "
        "Of a data set of nnU-Net, imagesTr is taken",
    )
    made.add_argument(
        "--scale",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "FACTOR"),
        help="scale factors of a contrast's folders, one for all or one for each, so that all have one pixel size "
        "(default: 1)",
    )
    made.add_argument(
        "--exclude",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "FOLDER"),
        help="names of a contrast's sub-folders that are passed over (default: derivatives and .git)",
    )
    _add_split(made, "keep pictures of one BIDS subject (sub-...) together; the published split is by picture")
    add_common_options(made)


def _volumes(actions: Any) -> None:
    made = actions.add_parser("volumes", help="training set from 3D scans: their slices, split by person")
    made.add_argument("output", type=Path, metavar="OUTPUT", help="folder; gets NAME_train.hdf5, _val and _test")
    _add_contrasts(
        made,
        "NAME, then scans, folders of them, tables (.csv with path, subject, session, mask), or lists "
        "(.txt); once per contrast",
    )
    made.add_argument("--axis", choices=("axial", "coronal", "sagittal"), default="axial", help="(default: axial)")
    made.add_argument("--slices", metavar="FIRST:END", help="look at these slices of each scan only")
    made.add_argument("--spacing", type=float, metavar="MM", help="pixel side (default: the median of all scans)")
    made.add_argument(
        "--masks",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "FOLDER"),
        help="brain masks of a contrast's scans, named like them",
    )
    made.add_argument(
        "--minimum-brain",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="least share of a slice that the brain covers, or the head without masks (default: 0.1)",
    )
    made.add_argument(
        "--rule",
        choices=("mean", "percentile"),
        default="mean",
        help="intensities over the mean of the scan, then over the largest such value K of all training "
        "scans, as published; or the 99.9th percentile of each scan becomes 0.9 (default: mean)",
    )
    made.add_argument(
        "--mean-in",
        choices=("volume", "mask"),
        default="volume",
        help="where the mean is taken: everywhere, background included, as published, or in the mask",
    )
    made.add_argument(
        "--peak",
        type=float,
        default=100.0,
        metavar="PERCENTILE",
        help="of a scan's values that counts as its largest, for K (default: 100)",
    )
    _add_constants(made)
    made.add_argument("--paired", action="store_true", help="scans of one visit are registered: write slices in pairs")
    made.add_argument("--eight-bit", action="store_true", help="whole grey values, a quarter of the size")
    made.add_argument(
        "--format",
        choices=("hdf5", "mat"),
        default="hdf5",
        help="mat: data_PART_NAME.mat, as SynDiff reads them (default: hdf5)",
    )
    made.add_argument("--size", type=positive, default=256, metavar="N", help="side of mat's slices (default: 256)")
    _add_split(made, None)
    add_common_options(made)


def _mat(actions: Any) -> None:
    made = actions.add_parser("mat", help="training set from SynDiff's .mat files (MATLAB v7.3)")
    made.add_argument("output", type=Path, metavar="OUTPUT", help="folder; gets NAME_train.hdf5, _val and _test")
    _add_contrasts(made, "NAME and its .mat file, or the FOLDER with data_train_NAME.mat, _val_ and _test_")
    made.add_argument("--part", choices=("train", "val", "test"), default="train", help="of files (default: train)")
    made.add_argument("--size", type=positive, default=256, metavar="N", help="pad to this side (default: 256)")
    made.add_argument("--spacing", type=float, metavar="MM", help="pixel side, which the files do not say")
    _add_constants(made)
    made.add_argument("--paired", action="store_true", help="slice k of all contrasts shows the same")
    made.add_argument("--eight-bit", action="store_true", help="whole grey values, a quarter of the size")
    made.add_argument("--name", default="dataset", help="how the files' names begin (default: dataset)")
    add_common_options(made)


def _to_translate(actions: Any) -> None:
    made = actions.add_parser("to-translate", help="pictures as tiles in one file, as AxonDeepSynth translates them")
    made.add_argument("input", type=Path, metavar="INPUT", help="folder of pictures, or data set of nnU-Net")
    made.add_argument("output", type=Path, metavar="OUTPUT", help="folder; gets NAME_CONTRAST.hdf5")
    made.add_argument("--contrast", required=True, metavar="NAME", help="contrast of the pictures")
    made.add_argument("--scale", type=float, default=1.0, metavar="FACTOR", help="scale factor (default: 1)")
    made.add_argument("--tile-size", type=positive, default=512, metavar="N", help="side of a tile (default: 512)")
    made.add_argument("--nnunet", action="store_true", default=None, help="insist on a data set of nnU-Net")
    made.add_argument("--name", default="dataset", help="how the file's name begins (default: dataset)")
    add_common_options(made)


def _add_contrasts(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--contrast", nargs="+", action="append", required=True, metavar=("NAME", "SOURCE"), help=what, dest="contrasts"
    )


def _add_constants(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--constant",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "K"),
        help="the largest value of a contrast in units of the mean, where it is known",
    )


def _add_split(parser: argparse.ArgumentParser, by_subject: str | None) -> None:
    parser.add_argument(
        "--ratios",
        type=float,
        nargs=3,
        default=[0.8, 0.1, 0.1],
        metavar=("TRAIN", "VAL", "TEST"),
        help="shares, which sum to 1 (default: 0.8 0.1 0.1)",
    )
    parser.add_argument("--seed", type=int, default=42, help="of the split (default: 42)")
    parser.add_argument("--name", default="dataset", help="how the files' names begin (default: dataset)")
    if by_subject is not None:
        parser.add_argument("--by-subject", action="store_true", help=by_subject)
