"""Segmenting the scans of a plan one after the other: files, tables and records, and what happens when one fails."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CancelledError, DependencyError, MRIDeepToolsError, WeightsError
from ..progress import Progress
from .failures import as_told
from .outputs import OutputSet, check_outputs
from .segment_jobs import Job, Plan
from .segment_tables import dseg_table_path, scores_row, subject_name, volumes_row, write_csv, write_label_table

if TYPE_CHECKING:
    from ..synthsegment.generic import GenericSegmenter
    from ..synthsegment.predict import SegmentationResult, Segmenter

__all__ = ["Batch"]


class Batch:
    """The scans of a plan, the engine that segments them, and what has been done so far.

    Parameters
    ----------
    plan : scans and outputs.
    segmenter : with its options.
    progress : told of every stage; each scan is an equal share.
    options : for the records.
    compatible : write tables in the published form.
    hide_names : leave file names out of the records.
    say : prints one line per scan; None for silence.
    on_result : is given the result of each scan when its files are in place.
    more_inputs : files that are read beside the scans (further channels of the one scan).

    """

    def __init__(
        self,
        plan: Plan,
        segmenter: Segmenter | GenericSegmenter,
        progress: Progress,
        *,
        options: dict[str, Any],
        compatible: bool = False,
        hide_names: bool = False,
        say: Callable[[str], None] | None = None,
        on_result: Callable[[SegmentationResult], None] | None = None,
        more_inputs: Sequence[Path] = (),
    ) -> None:
        self.plan, self.segmenter, self.progress = plan, segmenter, progress
        self.options, self.compatible, self.hide_names = options, compatible, hide_names
        self.say, self.on_result = say, on_result
        self.more_inputs = tuple(more_inputs)
        self.done = 0
        self.failed: list[str] = []
        self._rows: dict[Path, list[dict[str, str]]] = defaultdict(list)

    def check(self, *, overwrite: bool) -> None:
        """Check all outputs before the first scan is read; see :func:`.outputs.check_outputs`."""
        outputs = [path for job in self.plan.jobs for path in _own_files(job)]
        tables = [path for job in self.plan.jobs for path in job.tables()]
        shared = list(dict.fromkeys(tables)) if self.plan.shared_tables else tables
        inputs = [*(job.scan for job in self.plan.jobs), *self.more_inputs]
        check_outputs([*outputs, *shared], inputs, overwrite=overwrite)

    def run(self) -> None:
        """Segment all scans; one that fails does not stop the others.

        Raises
        ------
        MRIDeepToolsError : the error of the only scan; the names of those that failed; cancelled.

        """
        count = len(self.plan.jobs)
        for index, job in enumerate(self.plan.jobs):
            self.progress.item(index, count)
            try:
                self._segment(job)
            except KeyboardInterrupt:
                kept = f"the results of {self.done} of {count} scans are complete and are kept"
                raise CancelledError("Cancelled", kept if self.done else "nothing was written") from None
            except (BrokenPipeError, WeightsError, DependencyError):
                raise
            except Exception as error:
                if count == 1:
                    raise
                self._record_failure(job, as_told(error))
        if self.failed:
            names = ", ".join(self.failed[:5]) + (" and more" if len(self.failed) > 5 else "")
            raise MRIDeepToolsError(f"{len(self.failed)} of {count} scans failed ({names})", "see the messages above")

    def _record_failure(self, job: Job, error: MRIDeepToolsError) -> None:
        self.failed.append(job.scan.name)
        sys.stderr.write(f"mri-deep-tools: {job.scan.name} failed: {error}\n")
        self.progress.warn(f"{job.scan.name} failed: {error}")

    def _segment(self, job: Job) -> None:
        """Segment one scan and put all its files in place together."""
        result = self.segmenter.segment(job.scan, self.progress)
        with self.progress.stage("write"), OutputSet(on_complete=self._count) as files:
            made = dict(self._write_images(job, result, files))
            self._write_tables(job, result, files)
            self._write_records(job, result, files, made)
        if self.on_result:
            self.on_result(result)
        if self.say:
            self.say(_summary(job, result))
        self.progress.result(
            scan=job.scan.name,
            outputs=[str(path) for path in (*made, *job.tables(), *([job.report] if job.report else []))],
            volumes_mm3={name: float(value) for name, value in result.volumes_mm3.items() if value == value},
            qc=result.qc,
            model=result.model,
        )

    def _count(self) -> None:
        self.done += 1

    def _write_images(self, job: Job, result: SegmentationResult, files: OutputSet) -> Iterator[tuple[Path, Path]]:
        """Write the images; give each one's final and temporary path."""
        from ..volume import write_volume

        images = ((job.labels, result.labels), (job.posteriors, result.posteriors), (job.resampled, result.resampled))
        for path, volume in images:
            if path is not None and volume is not None:
                intent = "label" if path is job.labels and not self.compatible else "none"
                temporary = files.path(path)
                write_volume(volume, temporary, description=f"MRI Deep Tools {result.model}"[:79], intent=intent)
                yield path, temporary
            elif path is not None:
                self.progress.warn(f"{path.name} was not written: the scan was not resampled")

    def _write_tables(self, job: Job, result: SegmentationResult, files: OutputSet) -> None:
        """Write the CSV files anew with the row of this scan, and the label table of a BIDS-like output."""
        subject = subject_name(job.scan, compatible=self.compatible)
        form = {"compatible": self.compatible, "nameless": self.compatible and not self.plan.shared_tables}
        if job.volumes is not None:
            rows = self._rows[job.volumes]
            rows.append(volumes_row(subject, result.volumes_mm3, compatible=self.compatible))
            write_csv(files.path(job.volumes), rows, **form)
        if job.qc is not None and result.qc is not None:
            rows = self._rows[job.qc]
            rows.append(scores_row(subject, result.qc, compatible=self.compatible))
            write_csv(files.path(job.qc), rows, **form)
        table = dseg_table_path(job.labels)
        if table is not None:
            codes = _label_codes(result, parcels=bool(self.options["parcellation"]))
            write_label_table(files.path(table), codes, names=result.names, sides=result.sides)

    def _write_records(self, job: Job, result: SegmentationResult, files: OutputSet, made: dict[Path, Path]) -> None:
        """Write the sidecar beside the labels, and the report when it was asked for."""
        from ..provenance import finite, make_record, model_use, sidecar_path, write_sidecar

        notes = [self.segmenter.weights.note] if self.segmenter.weights.note else []
        record = make_record(
            "segment",
            [job.scan, *self.more_inputs],
            [model_use(result.model, path) for path in result.weights.values()],
            device=result.device,
            options=self.options,
            seconds=result.seconds,
            peak_memory_bytes=result.peak_memory_bytes,
            warnings=list(dict.fromkeys([*notes, *result.warnings])),
            outputs=made,
            precision=result.precision,
            threads=result.threads,
            geometry={"output": result.labels},
            hide_names=self.hide_names,
            roles={job.scan: "scan", **dict.fromkeys(self.more_inputs, "channel"), **job.roles()},
        )
        record["Volumes"] = {name: finite(value) for name, value in result.volumes_mm3.items()}
        record["Scores"] = result.qc and {name: finite(value) for name, value in result.qc.items()}
        write_sidecar(files.path(sidecar_path(job.labels)), record)
        if job.report is not None:
            from ..synthsegment.report import write_segmentation_report
            from ..volume import read_volume

            scan = read_volume(job.scan, on_warning=lambda message: None)
            write_segmentation_report(
                files.path(job.report),
                scan,
                result.labels,
                result.volumes_mm3,
                scores=result.qc,
                record=record,
            )


def _own_files(job: Job) -> list[Path]:
    """Return the files of one scan that no other scan shares."""
    from ..provenance import sidecar_path

    table = dseg_table_path(job.labels)
    return [*job.files(), sidecar_path(job.labels), *([table] if table else [])]


def _label_codes(result: SegmentationResult, *, parcels: bool) -> tuple[int, ...]:
    """Return the codes that the label map can hold; parcels stand in place of the cortex."""
    from ..synthsegment.labels import PARCEL_CODES
    from ..synthsegment.parcellation import CORTEX_CODES

    if not parcels:
        return result.codes
    return (*(code for code in result.codes if code not in CORTEX_CODES), *PARCEL_CODES[1:])


def _summary(job: Job, result: SegmentationResult) -> str:
    """Return one line about a scan."""
    total = result.volumes_mm3.get("total intracranial", sum(result.volumes_mm3.values()))
    return (
        f"{job.scan.name}: {total / 1000:.0f} ml segmented in {sum(result.seconds.values()):.0f} s -> {job.labels.name}"
    )
