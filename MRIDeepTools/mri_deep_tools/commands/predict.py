"""``mri-deep-tools predict``: age or diagnosis from T1w scans, one row of a table per scan. Research use only."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CancelledError, MRIDeepToolsError, RequestError
from ..progress import Progress
from .failures import as_told
from .options import add_common_options, positive
from .outputs import OutputSet, check_outputs
from .predict_inputs import Inputs, plan_inputs
from .segment_tables import write_csv

if TYPE_CHECKING:
    from ..harmonize.predictor import Prediction, ScanPredictor

__all__ = ["add_arguments", "run"]

_FATAL = ("weights", "dependency")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "inputs",
        type=Path,
        nargs="+",
        metavar="INPUT",
        help="T1w scans, folders of scans, DICOM series, or one table (.csv, .tsv) with a column 'path'",
    )
    parser.add_argument("--csv", type=Path, required=True, metavar="FILE", help="the predictions, one row per scan")
    _add_model_options(parser.add_argument_group("model"))
    _add_stage_options(parser.add_argument_group("preparation"))
    parser.add_argument("--hide-names", action="store_true", help="no file names in the record")
    add_common_options(parser)


def _add_model_options(group: Any) -> None:
    weights = group.add_mutually_exclusive_group()
    weights.add_argument("--model", metavar="NAME", help="see `mri-deep-tools models list`")
    weights.add_argument("--weights", type=Path, metavar="FILE", help="weights of a training (.safetensors or .h5)")
    group.add_argument(
        "--task", choices=("regression", "classification"), help="what an .h5 file predicts: a number or a class"
    )
    group.add_argument("--target", metavar="NAME", help="of an .h5 file: what it predicts (default: age, diagnosis)")
    group.add_argument("--unit", metavar="UNIT", help="of an .h5 file: unit of the number (default: years)")
    group.add_argument("--classes", nargs=2, metavar=("NEGATIVE", "POSITIVE"), help="of an .h5 file: its two classes")
    group.add_argument(
        "--shape", nargs=3, type=positive, metavar=("X", "Y", "Z"), help="of an .h5 file: voxels of its images"
    )


def _add_stage_options(group: Any) -> None:
    group.add_argument(
        "--preprocessed", action="store_true", help="scans are brains in MNI space with a median of 500, as prepared"
    )
    group.add_argument(
        "--harmonization",
        metavar="NAME|FILE|none",
        help="harmonize with this model first (default: the one that the model's training images went through)",
    )
    mask = group.add_mutually_exclusive_group()
    mask.add_argument("--mask", type=Path, metavar="FILE", help="brain mask of a single scan (default: found)")
    mask.add_argument("--hd-bet", action="store_true", help="find the brain with HD-BET, which must be installed")
    mask.add_argument("--skull-stripped", action="store_true", help="scans show the brain alone, on a background of 0")
    group.add_argument(
        "--no-bias-correction", dest="bias_correction", action="store_false", help="leave the bias field (N4) alone"
    )
    place = group.add_mutually_exclusive_group()
    place.add_argument("--registered", action="store_true", help="scans lie in MNI space: do not register them")
    place.add_argument(
        "--transform", type=Path, metavar="FILE", help="rigid ITK transform, template to the single scan"
    )
    group.add_argument("--template", type=Path, metavar="FILE", help="brain to register to; fsl = that in $FSLDIR")
    group.add_argument(
        "--unchecked", action="store_true", help="warn only, where registration or contrast are implausible"
    )


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Predict from the scans that the command line names.

    Raises
    ------
    MRIDeepToolsError : for one scan its own error; for several, at the end, which of them failed.

    """
    from dataclasses import fields

    from ..harmonize.predictor import NO_MODEL, PredictOptions, ScanPredictor

    if args.model is None and args.weights is None:
        raise RequestError(*NO_MODEL)
    table = args.csv if args.csv.suffix.lower() == ".csv" else args.csv.with_name(f"{args.csv.name}.csv")
    inputs = plan_inputs(args.inputs, keep_paths=not args.compatible)
    if len(inputs.scans) > 1 and (args.mask or args.transform):
        name = "--mask" if args.mask else "--transform"
        raise RequestError(f"{name} belongs to one scan, and {len(inputs.scans)} were given", "leave it out")
    extra = [path for path in (args.mask, args.transform, args.template) if path and path.exists()]
    predictor = ScanPredictor(
        PredictOptions(**{item.name: getattr(args, item.name) for item in fields(PredictOptions)})
    )
    batch = _Batch(args, inputs, predictor, table, extra, progress)
    check_outputs([table, batch.sidecar], [*inputs.files, *inputs.scans, *extra], overwrite=args.overwrite)
    batch.run()


class _Batch:
    """The scans, their rows so far, and the files that hold them."""

    def __init__(
        self,
        args: argparse.Namespace,
        inputs: Inputs,
        predictor: ScanPredictor,
        table: Path,
        extra: list[Path],
        progress: Progress,
    ) -> None:
        self.args, self.inputs, self.predictor, self.table, self.extra = args, inputs, predictor, table, extra
        self.progress, self.sidecar = progress, table.with_suffix(".json")
        self.columns = self._columns()
        self.rows: list[dict[str, str]] = []
        self.results: list[Prediction | None] = []
        self.failed: list[str] = []

    def run(self) -> None:
        """Predict from all scans; the table is complete after each of them, the record comes at the end."""
        count = len(self.inputs.scans)
        for index, scan in enumerate(self.inputs.scans):
            self.progress.item(index, count)
            try:
                self._one(index, scan)
            except KeyboardInterrupt:
                raise CancelledError("Cancelled", self._kept()) from None
            except Exception as error:
                told = as_told(error)
                if count == 1 or isinstance(error, BrokenPipeError) or told.code in _FATAL:
                    raise
                self._add(index, None, str(told))
                self.failed.append(scan.name)
                self.progress.warn(f"{scan.name} failed: {told}")
        self._record()
        if not self.args.quiet and self.args.progress != "json":
            from ..provenance import DISCLAIMER

            sys.stdout.write(f"{DISCLAIMER}\n")
        self.progress.result(
            outputs=[str(self.table), str(self.sidecar)],
            predictions=[None if made is None else made.value for made in self.results],
            quantity=self.predictor.spec.quantity,
            model=self.predictor.model,
        )
        if self.failed:
            names = ", ".join(self.failed[:5]) + (" and more" if len(self.failed) > 5 else "")
            raise MRIDeepToolsError(
                f"{len(self.failed)} of {count} scans failed ({names})",
                f"the others are in {self.table.name}" if len(self.failed) < count else "see the messages above",
            )

    def _one(self, index: int, scan: Path) -> None:
        result = self.predictor.predict(scan, self.progress, mask=self.inputs.masks[index])
        self._add(index, result, "")
        if not self.args.quiet and self.args.progress != "json":
            spec = result.spec
            unit = f" {spec.unit}" if spec.unit else ""
            told = f"{spec.target} {result.value:.1f}{unit}" if not result.label else f"{result.label}"
            more = f" ({spec.quantity} {result.value:.3f})" if result.label else ""
            sys.stdout.write(f"{scan.name}: predicted {told}{more} in {sum(result.seconds.values()):.0f} s\n")

    def _columns(self) -> tuple[str, ...]:
        """Return the headers of what is added to the columns that identify a scan."""
        spec = self.predictor.spec
        if self.args.compatible:
            own: tuple[str, ...] = ("prediction",)
        elif spec.task == "classification":
            own = (spec.quantity, f"predicted {spec.target}", "error")
        else:
            own = (spec.quantity, "error")
        twice = set(own) & set(self.inputs.ids[0])
        if twice:
            raise RequestError(f"the input table has a column {min(twice)!r} already", "give that column another name")
        return own

    def _add(self, index: int, result: Prediction | None, error: str) -> None:
        """Add the row of a scan and write the table anew."""
        value = "" if result is None else f"{result.value:.6f}"
        cells = [value, *([result.label if result else ""] if len(self.columns) == 3 else []), error]
        self.results.append(result)
        self.rows.append({**self.inputs.ids[index], **dict(zip(self.columns, cells, strict=False))})
        with OutputSet() as files:
            write_csv(files.path(self.table), self.rows)

    def _kept(self) -> str:
        """Say what a cancelled run leaves."""
        if not self.rows:
            return "nothing was written"
        self._record()
        return f"{self.table.name} holds the rows of {len(self.rows)} of {len(self.inputs.scans)} scans"

    def _roles(self) -> dict[Path, str]:
        """Return what each input and output is, for the record."""
        args = self.args
        read = {args.mask: "mask", args.transform: "transform", args.template: "template"}
        read |= dict.fromkeys((mask for mask in self.inputs.masks if mask), "mask")
        read |= dict.fromkeys(self.inputs.files, "table") | dict.fromkeys(self.inputs.scans, "scan")
        return {path: role for path, role in (read | {self.table: "table"}).items() if path}

    def _record(self) -> None:
        """Write the sidecar of the table."""
        from ..provenance import make_record, model_use, write_sidecar

        done, predictor = [made for made in self.results if made is not None], self.predictor
        models = [model_use(predictor.model if self.args.weights is None else predictor.weights, predictor.weights)]
        if predictor.harmonizer is not None:
            models.append(model_use(predictor.harmonizer.model, predictor.harmonizer.weights))
        used = [*self.inputs.scans[: len(self.rows)], *(mask for mask in self.inputs.masks[: len(self.rows)] if mask)]
        scans = [path for path in dict.fromkeys(used) if path.exists()]
        total: dict[str, float] = {}
        for made in done:
            for name, spent in made.seconds.items():
                total[name] = total.get(name, 0.0) + spent
        record = make_record(
            "predict",
            [*self.inputs.files, *scans, *self.extra],
            models,
            device=done[-1].device if done else str(predictor.device),
            options=predictor.options.told(),
            seconds=total,
            peak_memory_bytes=max((made.peak_memory_bytes for made in done), default=None),
            warnings=self.progress.warnings,
            outputs=[self.table],
            precision=done[-1].precision if done else "float32",
            threads=done[-1].threads if done else None,
            hide_names=self.args.hide_names,
            roles=self._roles(),
        )
        spec = predictor.spec
        record["Prediction"] = {
            "Quantity": spec.quantity,
            "Task": spec.task,
            "Classes": spec.classes,
            "TrainedRange": spec.trained_range,
            "TrainedOn": f"images harmonized with {spec.harmonized}" if spec.harmonized else "images not harmonized",
            "Scans": len(self.rows),
            "Failed": len(self.failed),
        }
        record["Stages"] = [None if made is None else made.stages for made in self.results]
        write_sidecar(self.sidecar, record)
