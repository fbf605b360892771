"""Super-resolving the pairs of a plan one after the other: files and records, and what happens when one fails."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CancelledError, DependencyError, MRIDeepToolsError, WeightsError
from ..progress import Progress
from .failures import as_told
from .outputs import OutputSet, check_outputs
from .superresolve_jobs import PairJob

if TYPE_CHECKING:
    from ..superresolve.predict import SuperResolutionResult, SuperResolver

__all__ = ["PairBatch"]


class PairBatch:
    """The pairs of a plan, the engine with its network (loaded once), and what has been done so far.

    Parameters
    ----------
    jobs : scans and outputs.
    resolver : with its options.
    args : of the command: ``hide_names``, ``overwrite``, ``compatible``, ``registered``, ``weights``,
        ``quiet``, ``progress``.
    progress : told of every stage; each pair is an equal share.

    """

    def __init__(
        self, jobs: Sequence[PairJob], resolver: SuperResolver, args: argparse.Namespace, progress: Progress
    ) -> None:
        self.jobs, self.resolver, self.args, self.progress = tuple(jobs), resolver, args, progress
        self.done = 0
        self.failed: list[str] = []

    def check(self) -> None:
        """Check all outputs before the first scan is read; see :func:`.outputs.check_outputs`."""
        inputs = [path for job in self.jobs for path in (job.t2, job.t1, self.resolver.template) if path is not None]
        outputs = [path for job in self.jobs for path in job.outputs()]
        check_outputs(outputs, inputs, overwrite=self.args.overwrite)

    def run(self) -> None:
        """Super-resolve all pairs; one that fails does not stop the others.

        Raises
        ------
        MRIDeepToolsError : the error of the only pair; the names of those that failed; cancelled.

        """
        count = len(self.jobs)
        for index, job in enumerate(self.jobs):
            self.progress.item(index, count)
            try:
                self._one(job)
            except KeyboardInterrupt:
                kept = f"the results of {self.done} of {count} scans are complete and are kept"
                raise CancelledError("Cancelled", kept if self.done else "nothing was written") from None
            except (BrokenPipeError, DependencyError):
                raise
            except Exception as error:
                if count == 1 or (isinstance(error, WeightsError) and not self.done):
                    raise
                self._record_failure(job, as_told(error))
        if self.failed:
            names = ", ".join(self.failed[:5]) + (" and more" if len(self.failed) > 5 else "")
            raise MRIDeepToolsError(f"{len(self.failed)} of {count} scans failed ({names})", "see the messages above")

    def _record_failure(self, job: PairJob, error: MRIDeepToolsError) -> None:
        self.failed.append(job.t2.name)
        sys.stderr.write(f"mri-deep-tools: {job.t2.name} failed: {error}\n")
        self.progress.warn(f"{job.t2.name} failed: {error}")

    def _one(self, job: PairJob) -> None:
        """Super-resolve one pair and put all its files in place together."""
        before = len(self.progress.warnings)
        result = self.resolver.superresolve(job.t2, job.t1, self.progress)
        with self.progress.stage("write"), OutputSet(on_complete=self._count) as files:
            made = self._write_images(job, result, files)
            record = self._record(job, result, made, self.progress.warnings[before:])
            self._write_records(job, result, files, record)
        self._tell(job, result, made)

    def _count(self) -> None:
        self.done += 1

    def _write_images(self, job: PairJob, result: SuperResolutionResult, files: OutputSet) -> dict[Path, Path]:
        """Write images and the transform; return final -> temporary path."""
        import numpy as np

        from ..registration import write_transform
        from ..volume import write_volume

        note = f"MRI Deep Tools {result.model} SYNTHETIC"[:79]
        made = {job.image: files.path(job.image)}
        kind = np.float64 if self.args.compatible else np.float32
        write_volume(result.image, made[job.image], dtype=kind, description=note)
        if path := job.extras.get("interpolated"):
            made[path] = files.path(path)
            write_volume(result.interpolated, made[path], dtype=np.float32)
        if path := job.extras.get("honesty"):
            if result.honesty is None:
                self.progress.warn(f"{path.name} was not written: the measured slices are not known")
            else:
                made[path] = files.path(path)
                write_volume(result.honesty.difference, made[path], dtype=np.float32, description=note)
        if path := job.extras.get("save_transform"):
            if result.t2_to_t1 is None:
                self.progress.warn(f"{path.name} was not written: there is no T1w scan")
            else:
                made[path] = files.path(path)
                write_transform(made[path], result.t2_to_t1)
        return made

    def _write_records(
        self, job: PairJob, result: SuperResolutionResult, files: OutputSet, record: dict[str, Any]
    ) -> None:
        """Write the sidecar beside the result, and the report when it was asked for."""
        from ..provenance import sidecar_path, write_sidecar

        write_sidecar(files.path(sidecar_path(job.image)), record)
        if path := job.extras.get("report"):
            from ..superresolve.report import write_superresolution_report

            write_superresolution_report(files.path(path), result, record=record)

    def _record(
        self, job: PairJob, result: SuperResolutionResult, made: dict[Path, Path], warnings: Sequence[str]
    ) -> dict[str, Any]:
        from ..provenance import finite, make_record, model_use

        args = self.args
        record = make_record(
            "superresolve",
            [path for path in (job.t2, job.t1, self.resolver.template) if path is not None],
            model_use(result.model if args.weights is None else result.weights, result.weights),
            device=result.device,
            options=self.resolver.options.told(),
            seconds=result.seconds,
            peak_memory_bytes=result.peak_memory_bytes,
            warnings=list(warnings),
            outputs=made,
            precision=result.precision,
            threads=result.threads,
            geometry={"output": result.image},
            synthetic=True,
            hide_names=args.hide_names,
            roles=job.roles() | ({self.resolver.template: "template"} if self.resolver.template else {}),
        )
        record["Slices"] = None if result.slices is None else result.slices.as_record()
        record["Honesty"] = None if result.honesty is None else finite(result.honesty.as_record())
        record["Alignment"] = None if result.t2_to_t1 is None else self._alignment(result)
        return record

    def _alignment(self, result: SuperResolutionResult) -> dict[str, Any]:
        """Return how the two scans lie to each other."""
        matrix: Any = result.t2_to_t1
        turn = math.degrees(math.acos(min(max((float(matrix[:3, :3].trace()) - 1) / 2, -1.0), 1.0)))
        return {
            "T2wToT1wRasMm": [[round(float(value), 6) for value in row] for row in matrix],
            "Registered": "given" if self.args.registered else "rigid, by this program",
            "RotationDegrees": round(turn, 3),
            "HeadOverlap": round(result.overlap or 0.0, 4),
            "MutualInformation": round(result.mutual_information or 0.0, 4),
        }

    def _tell(self, job: PairJob, result: SuperResolutionResult, made: dict[Path, Path]) -> None:
        if not self.args.quiet and self.args.progress != "json":
            lines = [f"{job.t2.name}: {result.slices.words() if result.slices else 'slices unknown'}"]
            if result.honesty is not None:
                lines.append(f"Check: {result.honesty.words()}")
            lines.append(f"Synthetic 1 mm T2w in {sum(result.seconds.values()):.0f} s -> {job.image.name}")
            sys.stdout.write("\n".join([*lines, ""]))
        from ..provenance import finite

        report = job.extras.get("report")
        self.progress.result(
            scan=job.t2.name,
            outputs=[str(path) for path in made] + ([str(report)] if report else []),
            slices=None if result.slices is None else result.slices.as_record(),
            honesty=None if result.honesty is None else finite(result.honesty.as_record()),
            model=result.model,
            synthetic=True,
        )
