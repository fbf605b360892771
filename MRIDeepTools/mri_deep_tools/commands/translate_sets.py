"""Translating published sets: data sets of nnU-Net with their labels, and HDF5 sets of tiles."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, MRIDeepToolsError, RequestError
from ..progress import Progress
from .outputs import OutputSet, check_outputs
from .translate_run import picture_text, run_each, translation_record

if TYPE_CHECKING:
    from ..translate.predict import PictureTranslation, Translator

__all__ = ["is_set", "run_set"]

_TILES = (".hdf5", ".h5")
_SHOWN = 4  # pictures that are kept for the report


@dataclass(frozen=True)
class _Case:
    """One picture of a set: its name, the path that the mapping names, and how it and its labels are made."""

    name: str
    original: str
    translate: Callable[[], PictureTranslation]
    labels: Callable[[PictureTranslation], np.ndarray] | None = None


def is_set(path: Path) -> bool:
    """Say whether a path is a data set of nnU-Net, or a published set of tiles."""
    from ..translate.dataset_tiles import is_nnunet

    return is_nnunet(path) if path.is_dir() else path.suffix.lower() in _TILES


def run_set(args: argparse.Namespace, translator: Translator, progress: Progress) -> None:
    """Translate a set; a labelled one becomes a data set of nnU-Net, another a folder of pictures.

    Raises
    ------
    InputError : the set cannot be read. RequestError : options that are not for sets. OutputError : the result exists.
    MRIDeepToolsError : which pictures failed.

    """
    for name in ("save_std", "mask", "slices", "axis"):
        if getattr(args, name) is not None:
            raise RequestError(f"--{name.replace('_', '-')} is not for whole data sets", "leave it out")
    cases, labels = _nnunet_cases(args, translator, progress) if args.input.is_dir() else _tiles(args, translator)
    for case in cases[:1]:
        if case.labels is None and args.dataset_id is not None:
            raise RequestError("--dataset-id is for data sets with labels", "leave it out")
    if labels is None:
        _write_folder(args, translator, progress, cases)
    else:
        _write_dataset(args, translator, progress, cases, labels)


def _nnunet_cases(
    args: argparse.Namespace, translator: Translator, progress: Progress
) -> tuple[list[_Case], dict[str, Any]]:
    """Return the pictures of a data set of nnU-Net, and its labels."""
    from ..translate.dataset_tiles import list_originals
    from ..translate.nnunet_sets import check_channels, label_names
    from ..translate.pictures import read_picture
    from ..translate.tiles import resize_nearest

    originals = list_originals(args.input, nnunet=True)
    check_channels(originals, args.input.name)

    def case(index: int) -> _Case:
        image, labels = originals[index].image, originals[index].labels

        def scaled(result: PictureTranslation) -> np.ndarray:
            codes = read_picture(labels or image, labels=True, on_warning=progress.warn)
            if codes.shape != result.picture.shape:
                raise InputError(f"{image.name} and its labels have different sizes", "correct them")
            return resize_nearest(codes, translator.options.scale_factor) if translator.options.keeps_scale else codes

        return _Case(
            image.name, str(image), lambda: translator.translate_picture(image, progress, number=index), scaled
        )

    return [case(index) for index in range(len(originals))], label_names(args.input)


def _tiles(args: argparse.Namespace, translator: Translator) -> tuple[list[_Case], dict[str, Any] | None]:
    """Return the pictures of a published set of tiles, and its labels where it has any."""
    from ..translate.folders import read_tile_set
    from ..translate.nnunet_sets import AXON_LABELS
    from ..translate.options import same_contrast

    contrast, stored = read_tile_set(args.input, args.source or translator.direction.source)
    if not same_contrast(contrast, translator.direction.source):
        raise RequestError(
            f"{args.input.name} holds {contrast}, but {translator.model} takes {translator.direction.source}",
            "choose another model, or another --to",
        )

    def case(index: int) -> _Case:
        item = stored[index]
        name = Path(item.path).name
        labels = item.labels
        return _Case(
            name,
            item.path,
            lambda: translator.translate_stored(item, name, index),
            None if labels is None else lambda result: labels,
        )

    labelled = any(item.labels is not None for item in stored)
    return [case(index) for index in range(len(stored))], dict(AXON_LABELS) if labelled else None


def _names(args: argparse.Namespace, translator: Translator, cases: list[_Case]) -> list[str]:
    from ..translate.folders import synthetic_names

    target = translator.direction.target
    return synthetic_names([Path(case.original).name for case in cases], target, strict=args.compatible)


def _write_folder(args: argparse.Namespace, translator: Translator, progress: Progress, cases: list[_Case]) -> None:
    """Write pictures under their published names, the mapping, and one record for all."""
    from ..provenance import write_sidecar
    from ..translate.folders import MAPPING_NAME, mapping_text
    from ..translate.pictures import write_picture

    if args.output.is_file() or args.output.suffix:
        raise RequestError(f"OUTPUT must be a folder, not {args.output.name}", "name one; it is made")
    names = _names(args, translator, cases)
    record_path, mapping_path = args.output / "translation.json", args.output / MAPPING_NAME
    further = [record_path, mapping_path, *([args.report] if args.report else [])]
    check_outputs([*(args.output / name for name in names), *further], [args.input], overwrite=args.overwrite)
    results: list[PictureTranslation] = []
    made: dict[Path, str] = {}

    def one(index: int) -> None:
        result = cases[index].translate()
        path = args.output / names[index]
        with OutputSet() as files:
            write_picture(result.image, files.path(path), text=picture_text(result))
        made[path] = cases[index].original
        results.append(_light(result) if len(results) >= _SHOWN else result)

    try:
        run_each([case.name for case in cases], one, progress)
    finally:
        if results:
            record = _record(args, translator, results, {path: path for path in made})
            with OutputSet() as files:
                pairs = {str(path): original for path, original in made.items()}
                files.path(mapping_path).write_text(mapping_text(pairs), encoding="utf-8")
                write_sidecar(files.path(record_path), record)
                _write_report(args, results, files, record)
            _tell(args, translator, progress, results, args.output, list(made))


def _write_dataset(
    args: argparse.Namespace, translator: Translator, progress: Progress, cases: list[_Case], labels: dict[str, Any]
) -> None:
    """Write a data set of nnU-Net, whole; pictures that fail are left out of it and named at the end."""
    from ..provenance import write_sidecar
    from ..translate.nnunet_sets import dataset_folder, new_dataset

    direction = translator.direction
    if args.output.is_file():
        raise RequestError(f"OUTPUT must be a folder, not {args.output.name}", "name the folder of nnU-Net")
    final = dataset_folder(args.output, args.dataset_id, direction.source, direction.target)
    sidecar = final.parent / f"{final.name}.json"
    further = [sidecar, *([args.report] if args.report else [])]
    check_outputs(further, [], overwrite=args.overwrite)
    names = _names(args, translator, cases)
    results: list[PictureTranslation] = []
    failure: MRIDeepToolsError | None = None
    with new_dataset(final, direction.target, overwrite=args.overwrite) as dataset:

        def one(index: int) -> None:
            result = cases[index].translate()
            codes = cases[index].labels
            if codes is None:
                raise InputError(f"{cases[index].name} has no labels", "add them")
            dataset.add(names[index], result.image, codes(result), cases[index].original, picture_text(result))
            results.append(_light(result) if len(results) >= _SHOWN else result)

        try:
            run_each([case.name for case in cases], one, progress)
        except MRIDeepToolsError as error:
            if error.code != "failed" or not results:
                raise
            failure = error
        dataset.finish(labels)
    made = {final / "imagesTr" / Path(new).name: final / "imagesTr" / Path(new).name for new in dataset.mapping}
    record = _record(args, translator, results, made)
    record["Dataset"] = {"Name": final.name, "Pictures": len(results), "Labels": labels}
    with OutputSet() as files:
        write_sidecar(files.path(sidecar), record)
        _write_report(args, results, files, record)
    _tell(args, translator, progress, results, final, [final])
    if failure is not None:
        raise failure


def _light(result: PictureTranslation) -> PictureTranslation:
    """Return a result without its pictures: those of a large set would fill the memory."""
    from dataclasses import replace

    nothing = np.zeros((1, 1), dtype=np.uint8)
    return replace(result, image=nothing, picture=nothing, spread=None)


def _record(
    args: argparse.Namespace, translator: Translator, results: list[PictureTranslation], made: dict[Path, Path]
) -> dict[str, Any]:
    """Return the record of all pictures together."""
    roles = {args.input: "set"} | dict.fromkeys(made, "image")
    record = translation_record(args, translator, results[-1], [args.input], made, roles)
    seconds: dict[str, float] = {}
    for result in results:
        for name, value in result.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
    record["SecondsPerStage"] = {name: round(value, 3) for name, value in seconds.items()}
    record["SecondsTotal"] = round(sum(seconds.values()), 3)
    told = [text for result in results for text in result.warnings]
    record["Warnings"] = (
        list(dict.fromkeys([*record["Warnings"], *told])) if not args.hide_names else record["Warnings"]
    )
    record["Translation"] = {"Pictures": len(results), "Stitching": results[-1].facts["Stitching"]}
    return record


def _write_report(
    args: argparse.Namespace, results: list[PictureTranslation], files: OutputSet, record: dict[str, Any]
) -> None:
    if args.report is not None:
        from ..translate.report import write_picture_report

        write_picture_report(files.path(args.report), results, record=record)


def _tell(
    args: argparse.Namespace,
    translator: Translator,
    progress: Progress,
    results: list[PictureTranslation],
    place: Path,
    outputs: list[Path],
) -> None:
    direction = translator.direction
    if not args.quiet and args.progress != "json":
        sys.stdout.write(
            f"{args.input.name}: {len(results)} synthetic {direction.target} pictures from {direction.source} "
            f"-> {place.name}\n"
        )
    progress.result(
        scan=args.input.name,
        outputs=[str(path) for path in outputs],
        pictures=len(results),
        model=translator.model,
        source=direction.source,
        target=direction.target,
        synthetic=True,
    )
