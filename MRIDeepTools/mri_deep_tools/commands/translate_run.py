"""Translating the images of a plan one after the other: files and records, and what happens when one fails."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CancelledError, DependencyError, MRIDeepToolsError, RequestError
from ..progress import Progress
from .failures import as_told
from .outputs import OutputSet, check_outputs
from .translate_jobs import ImageJob, plan_images

if TYPE_CHECKING:
    from ..translate.predict import PictureTranslation, TranslationResult, Translator

    Result = TranslationResult | PictureTranslation

__all__ = ["ImageBatch", "picture_text", "run_each", "translation_record"]

SYNDIFF = (
    "Özbey, Dalmaz, Dar, Bedel, Özturk, Güngör and Çukur, Unsupervised Medical Image Translation with Adversarial "
    "Diffusion Models, IEEE Transactions on Medical Imaging, 2023, doi:10.48550/arXiv.2207.08208"
)
AXON_DEEP_SYNTH = "The AxonDeepSynth authors, AxonDeepSynth, https://github.com/axondeepseg/AxonDeepSynth"


class ImageBatch:
    """The images of a plan, the engine with its network (loaded once), and what has been done so far.

    Parameters
    ----------
    args : of the command.
    translator : with its options.
    progress : told of every stage; each image is an equal share.

    """

    def __init__(self, args: argparse.Namespace, translator: Translator, progress: Progress) -> None:
        self.args, self.translator, self.progress = args, translator, progress
        if args.save_std is not None and args.samples < 2:
            raise RequestError("a standard deviation needs several samples", "give --samples 2 or more")
        if args.mean == "mask" and args.mask is not None and not args.mask.exists():
            raise RequestError(f"the mask {args.mask.name} does not exist", "check the name")
        self.plan = plan_images(args, translator.direction.target)
        if args.dataset_id is not None:
            raise RequestError("--dataset-id is for data sets of nnU-Net", "leave it out")
        self.names = self._published_names()
        self.made: dict[Path, Path] = {}

    def _published_names(self) -> bool:
        """Say whether pictures of a folder get the published names."""
        wanted = self.args.names or ("published" if self.args.compatible else "original")
        return wanted == "published" and self.plan.root is not None

    def run(self) -> None:
        """Translate all images; one that fails does not stop the others.

        Raises
        ------
        MRIDeepToolsError : the error of the only image; the names of those that failed; cancelled.

        """
        jobs = self._renamed(self.plan.jobs) if self.names else self.plan.jobs
        inputs = [path for job in jobs for path in (job.source, job.mask) if path is not None]
        outputs = [path for job in jobs for path in job.outputs()]
        mapping = self._mapping_path(jobs)
        check_outputs(outputs + ([mapping] if mapping else []), inputs, overwrite=self.args.overwrite)

        def one(index: int) -> None:
            self._one(jobs[index], index)

        try:
            run_each([job.source.name for job in jobs], one, self.progress)
        finally:
            if mapping is not None and self.made:
                self._write_mapping(mapping)

    def _renamed(self, jobs: Sequence[ImageJob]) -> list[ImageJob]:
        """Return the jobs of pictures with the published names of results."""
        from dataclasses import replace

        from ..translate.folders import synthetic_names

        pictures = [job for job in jobs if job.is_picture]
        target = self.translator.direction.target
        names = synthetic_names([job.source.name for job in pictures], target, strict=self.args.compatible)
        made = dict(zip((job.source for job in pictures), names, strict=True))
        root = self.plan.output or self.args.output
        return [replace(job, output=root / made[job.source]) if job.source in made else job for job in jobs]

    def _mapping_path(self, jobs: Sequence[ImageJob]) -> Path | None:
        from ..translate.folders import MAPPING_NAME

        several = self.plan.root is not None and any(job.is_picture for job in jobs)
        return self.args.output / MAPPING_NAME if several else None

    def _write_mapping(self, path: Path) -> None:
        """Write what was made from what: paths as given where names are the published ones, else relative ones."""
        from ..translate.folders import mapping_text

        root: Path = self.plan.root or Path()
        pairs = {
            str(new): str(old)
            if self.names
            else (old.relative_to(root) if old.is_relative_to(root) else Path(old.name)).as_posix()
            for new, old in self.made.items()
        }
        if not self.names:
            pairs = {Path(new).relative_to(self.args.output).as_posix(): old for new, old in pairs.items()}
        with OutputSet() as files:
            files.path(path).write_text(mapping_text(pairs), encoding="utf-8")

    def _one(self, job: ImageJob, index: int) -> None:
        """Translate one image and put all its files in place together."""
        result: Result
        if job.is_picture:
            result = self.translator.translate_picture(job.source, self.progress, number=index)
        else:
            result = self.translator.translate(job.source, self.progress, mask=job.mask)
        with self.progress.stage("write"), OutputSet(on_complete=lambda: self._count(job)) as files:
            made = self._write_images(job, result, files)
            inputs = [path for path in (job.source, job.mask) if path is not None]
            record = translation_record(self.args, self.translator, result, inputs, made, job.roles())
            self._write_records(job, result, files, record)
        self._tell(job, result, made)

    def _count(self, job: ImageJob) -> None:
        if job.is_picture:
            self.made[job.output] = job.source

    def _write_images(self, job: ImageJob, result: Result, files: OutputSet) -> dict[Path, Path]:
        """Write the result and its standard deviation; return final -> temporary path."""
        import numpy as np

        from ..reports.maps import ROLE, write_maps
        from ..translate.pictures import write_picture
        from ..translate.report import as_volume
        from ..volume import Volume, write_volume

        made = {job.output: files.path(job.output)}
        images = {job.output: result.image}
        if "save_std" in job.extra and result.spread is not None:
            made[job.extra["save_std"]] = files.path(job.extra["save_std"])
            images[job.extra["save_std"]] = result.spread
        note = f"SYNTHETIC {result.target}: made by {result.model}, research use only".encode("ascii", "replace")
        for path, image in images.items():
            if isinstance(image, Volume):
                write_volume(image, made[path], dtype=np.float32, description=note.decode()[:79])
            else:
                write_picture(image, made[path], text=picture_text(result))
        if ROLE in job.extra and result.spread is not None:
            spread = result.spread if isinstance(result.spread, Volume) else as_volume(result.spread)
            made[job.extra[ROLE]] = write_maps(files.path(job.extra[ROLE]), {"std": spread})
        return made

    def _write_records(self, job: ImageJob, result: Result, files: OutputSet, record: dict[str, Any]) -> None:
        """Write the sidecar beside the result, and the report when it was asked for."""
        from ..provenance import write_sidecar
        from ..translate.predict import PictureTranslation

        write_sidecar(files.path(job.sidecar), record)
        if path := job.extra.get("report"):
            from ..translate.report import write_picture_report, write_translation_report

            if isinstance(result, PictureTranslation):
                write_picture_report(files.path(path), [result], record=record)
            else:
                write_translation_report(files.path(path), result, record=record)

    def _tell(self, job: ImageJob, result: Result, made: dict[Path, Path]) -> None:
        seconds = sum(result.seconds.values())
        if not self.args.quiet and self.args.progress != "json":
            count = result.facts.get("SlicesTranslated")
            what = f"{count} slices" if count else f"{result.facts['Tiles']} tile(s)"
            sys.stdout.write(
                f"{job.source.name}: synthetic {result.target} from {what} in {seconds:.1f} s -> {job.output.name}\n"
            )
        report = [job.extra["report"]] if "report" in job.extra else []
        self.progress.result(
            scan=job.source.name,
            outputs=[str(path) for path in [*made, *report]],
            facts=result.facts,
            model=result.model,
            source=result.source,
            target=result.target,
            synthetic=True,
        )


def run_each(names: Sequence[str], one: Callable[[int], None], progress: Progress) -> list[str]:
    """Run ``one`` for each of several things; one that fails does not stop the others.

    Raises
    ------
    MRIDeepToolsError : the error of the only one; the names of those that failed; cancelled.

    """
    failed: list[str] = []
    done = 0
    for index, name in enumerate(names):
        progress.item(index, len(names))
        try:
            one(index)
            done += 1
        except KeyboardInterrupt:
            kept = f"the results of {done} of {len(names)} images are complete and are kept"
            raise CancelledError("Cancelled", kept if done else "nothing was written") from None
        except (BrokenPipeError, DependencyError):
            raise
        except Exception as error:
            if len(names) == 1:
                raise
            failed.append(name)
            sys.stderr.write(f"mri-deep-tools: {name} failed: {as_told(error)}\n")
            progress.warn(f"{name} failed: {as_told(error)}")
    if failed:
        told = ", ".join(failed[:5]) + (" and more" if len(failed) > 5 else "")
        raise MRIDeepToolsError(f"{len(failed)} of {len(names)} images failed ({told})", "see the messages above")
    return failed


def picture_text(result: Result) -> dict[str, str]:
    """Return the notes that go into a picture's file."""
    from ..provenance import DISCLAIMER

    made = f"SYNTHETIC {result.target} made from {result.source} by the model {result.model}"
    return {"Description": made, "Software": "MRI Deep Tools", "Disclaimer": DISCLAIMER}


def translation_record(
    args: argparse.Namespace,
    translator: Translator,
    result: Result,
    inputs: Sequence[Path],
    made: dict[Path, Path],
    roles: dict[Path, str],
) -> dict[str, Any]:
    """Return the record of one translation.

    Parameters
    ----------
    args : of the command: ``hide_names``, ``weights``.
    translator : with its options.
    result : what it gave.
    inputs : files that were read.
    made : final to temporary path of what was written.
    roles : what each of these files is.

    """
    from dataclasses import replace

    from ..provenance import make_record, model_use
    from ..translate.predict import PictureTranslation, describe_info

    use = model_use(result.weights if args.weights is not None and result.weights else result.model, result.weights)
    own = [str(text) for text in (result.info.get("citation"), *use.citation) if text]
    pictures = [AXON_DEEP_SYNTH] if isinstance(result, PictureTranslation) else []
    citation = tuple(dict.fromkeys([*own, SYNDIFF, *pictures]))
    use = replace(use, citation=citation, licence=use.licence or str(result.info.get("licence") or ""))
    record = make_record(
        "translate",
        list(inputs),
        use,
        device=result.device,
        options=translator.options.told(),
        seconds=result.seconds,
        peak_memory_bytes=result.peak_memory_bytes,
        warnings=list(result.warnings),
        outputs=made,
        roles=roles,
        precision=result.precision,
        threads=result.threads,
        geometry={} if isinstance(result, PictureTranslation) else {"output": result.image},
        synthetic=True,
        hide_names=args.hide_names,
    )
    record["Method"] = "SynDiff: image translation by adversarial diffusion in few steps (arXiv:2207.08208)"
    record["SourceContrast"], record["TargetContrast"] = result.source, result.target
    record["Translation"] = result.facts
    record["ModelFacts"] = describe_info(result.info)
    return record
