"""The part of the segment command for models of one's own: options, the engine, and Dice scores against a truth."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, RequestError
from .options import positive
from .outputs import OutputSet, check_outputs
from .segment_jobs import Plan

if TYPE_CHECKING:
    from ..progress import Progress
    from ..synthsegment.generic import GenericSegmenter
    from ..synthsegment.label_table import LabelTable

__all__ = ["TruthTable", "add_generic_options", "check_alone", "make_segmenter", "told_options"]

_OWN: dict[str, Any] = {
    "neutral_labels": None,
    "channel": [],
    "target_resolution": 1.0,
    "padding": None,
    "smoothing": 0.5,
    "keep_all_parts": False,
    "topology": False,
    "gradients": False,
    "truth": None,
}
"""Options that need ``--labels``, and their defaults."""

_PUBLISHED = {"model": "--model", "v1": "--v1", "robust": "--robust", "parcellation": "--parcellation", "ct": "--ct"}
"""Options that are about the published models only (and ``--qc``)."""


def add_generic_options(group: Any) -> None:
    """Add the options of models of one's own."""
    group.add_argument(
        "--labels",
        metavar="TABLE",
        help="what the network in --weights gives: a .csv or .tsv with the columns label, name and, optional, side "
        "(neutral, left, right) and topological_class; or a .npy list of codes",
    )
    group.add_argument(
        "--neutral-labels", type=int, metavar="N", help="how many labels of a .npy list, its first ones, have no side"
    )
    group.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="FILE",
        help="a further input channel of the one scan, on its grid; repeat for more (or give a 4-D image as INPUT)",
    )
    group.add_argument(
        "--target-resolution",
        type=_resolution,
        default=1.0,
        metavar="MM",
        help="voxel size of the network's grid, or none for each scan's own (default: 1)",
    )
    group.add_argument(
        "--padding", type=positive, metavar="N", help="least side of the network's input (default: none)"
    )
    group.add_argument(
        "--smoothing",
        type=float,
        default=0.5,
        metavar="SIGMA",
        help="of the soft maps, in voxels (default: 0.5; 0: off)",
    )
    group.add_argument("--keep-all-parts", action="store_true", help="do not drop what is loose from the largest part")
    group.add_argument("--topology", action="store_true", help="clean up each topological class of the table by itself")
    group.add_argument("--gradients", action="store_true", help="the network sees gradients in place of intensities")
    group.add_argument(
        "--truth", metavar="PATH", help="true label map or folder of them: writes dice.npy and dice.csv beside OUTPUT"
    )


def _resolution(text: str) -> float | None:
    if text.lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a size in mm nor none") from None


def check_alone(args: argparse.Namespace) -> None:
    """Refuse options of models of one's own without their label table, and options that do not go with it."""
    if args.labels is None:
        given = [name for name, default in _OWN.items() if getattr(args, name) != default]
        if given:
            raise RequestError(
                f"--{given[0].replace('_', '-')} needs --labels", "it is for models of your own, with their label table"
            )
        return
    if args.weights is None:
        raise RequestError("--labels needs --weights", "name the weights file of your model")
    clash = [flag for name, flag in _PUBLISHED.items() if getattr(args, name)] + ["--qc"] * (args.qc is not None)
    if clash:
        raise RequestError(f"{clash[0]} does not go with --labels", "it is for the published models")


def make_segmenter(args: argparse.Namespace, plan: Plan, others: Mapping[str, Any]) -> GenericSegmenter:
    """Return the engine that the options describe; ``others`` are those it shares with the published models."""
    from ..synthsegment.generic import GenericOptions, GenericSegmenter

    if args.channel and len(plan.jobs) > 1:
        raise RequestError(
            "--channel goes with one scan", "for several scans, give 4-D images with a frame per channel"
        )
    missing = [path for path in map(Path, args.channel) if not path.exists()]
    if missing:
        raise InputError(f"{missing[0].name} does not exist", "check the path of the channel")
    options = GenericOptions(
        target_resolution=args.target_resolution,
        padding=args.padding,
        smoothing=args.smoothing,
        keep_largest=not args.keep_all_parts,
        topology=args.topology,
        gradients=args.gradients,
        flip=not args.fast,
    )
    shared = ("grid", "crop", "posteriors", "resampled", "compatible", "device", "threads", "precision")
    return GenericSegmenter(
        args.weights,
        args.labels,
        options,
        channels=args.channel,
        neutral=args.neutral_labels,
        **{name: others[name] for name in shared},
    )


def told_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options for the record, file names without their folders."""
    told = {name: getattr(args, name) for name in _OWN if name not in ("channel", "truth")}
    return told | {"labels": Path(args.labels).name}


class TruthTable:
    """Dice scores of the scans of a plan against true label maps, beside their segmentations.

    Raises, before the work, RequestError or InputError where truths and scans cannot be matched.
    """

    def __init__(self, truth: str, scan: str, plan: Plan, *, compatible: bool, progress: Progress) -> None:
        from ..synthsegment.evaluate import match_files

        if not plan.shared_tables:
            raise RequestError("--truth does not go with a list of scans", "give a scan or a folder of scans")
        pairs = match_files(Path(truth), Path(scan), by_order=compatible, on_warning=progress.warn)
        jobs = {job.scan: job.labels for job in plan.jobs}
        self._pairs = [(true, jobs[path]) for true, path in pairs if path in jobs]
        if not self._pairs:
            raise InputError("no scan has a true label map", "give files of one subject the same name")
        self.compatible, self.inputs = compatible, [true for true, _ in self._pairs]
        self.folder = self._pairs[0][1].parent

    @property
    def outputs(self) -> list[Path]:
        """The files that :meth:`write` makes."""
        return [self.folder / name for name in ("dice.npy", "dice.csv")]

    def check(self, *, overwrite: bool) -> None:
        """Check the tables' places; see :func:`.outputs.check_outputs`."""
        check_outputs(self.outputs, self.inputs, overwrite=overwrite)

    def write(self, table: LabelTable) -> float:
        """Score the segmentations on disk; returns the mean Dice over scans and structures (background left out).

        ``dice.npy`` is (labels, scans) float64 in the order of the table, background first; ``dice.csv`` has names.
        """
        import numpy as np

        from ..synthsegment.evaluate import evaluate_pair
        from ..synthsegment.scores import Evaluation, write_rows
        from ..volume import read_volume

        form: dict[str, Any] = {"compatible": self.compatible, "resample": True, "distances": False}
        pairs = [(read_volume(true), read_volume(found)) for true, found in self._pairs]
        evaluation = Evaluation(tuple(evaluate_pair(*pair, table.codes, **form) for pair in pairs))
        dice = evaluation.table()[:-1]
        rows = [
            {"subject": subject, "label": code, "structure": name, "dice": dice[row, column]}
            for column, subject in enumerate(evaluation.subjects)
            for row, (code, name) in enumerate(zip(table.codes, table.names, strict=True))
        ]
        with OutputSet() as files:
            np.save(files.path(self.outputs[0]), dice)
            write_rows(files.path(self.outputs[1]), rows)
        return evaluation.mean()
