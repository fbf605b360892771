"""The work of ``mri-deep-tools translate-dataset``: options checked, sets written with a record beside each."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..progress import Progress
from .outputs import OutputSet, check_outputs

__all__ = ["mat", "pictures", "to_translate", "volumes"]


def pictures(args: argparse.Namespace, progress: Progress) -> None:
    """Make a training set from folders of pictures."""
    from ..translate.dataset_pictures import (
        EXCLUDED,
        PictureFolder,
        list_folder,
        set_paths,
        split_folder,
        write_picture_sets,
    )
    from ..translate.dataset_split import Ratios

    ratios = Ratios(*args.ratios)
    sources = _contrasts(args.contrasts)
    factors = {name: [_number(text, "a scale factor") for text in words] for name, words in _named(args.scale, sources)}
    excluded = dict(_named(args.exclude, sources))
    outputs = set_paths(args.output, args.name, parts=_parts(args.ratios))
    contents: dict[str, list[tuple[PictureFolder, dict[str, list[Path]]]]] = {}
    for name, folders in sources.items():
        scales = _one_each(factors.get(name, [1.0]), len(folders), name)
        contents[name] = []
        for folder, factor in zip(map(Path, folders), scales, strict=True):
            place = PictureFolder(folder, factor, tuple(excluded.get(name, EXCLUDED)))
            listed = list_folder(place, compatible=args.compatible, on_warning=progress.warn)
            parts = split_folder(listed, ratios, seed=args.seed, by_subject=args.by_subject)
            contents[name].append((place, parts))
    check_outputs(_with_records(outputs), [], overwrite=args.overwrite)
    progress.plan([("write", 1.0)])
    with OutputSet() as files:
        temporary = {part: files.path(path) for part, path in outputs.items()}
        with progress.stage("write"):
            names = write_picture_sets(temporary, contents, compatible=args.compatible, progress=progress)
        for part, path in outputs.items():
            facts = {"Part": part, "Originals": names[part]}
            options = {"scale": factors, "exclude": excluded, "by_subject": args.by_subject}
            _record(args, files, path, temporary[part], options, facts, progress)
    counts = {part: {name: len(entries) for name, entries in found.items()} for part, found in names.items()}
    _tell(args, progress, counts, list(outputs.values()))


def volumes(args: argparse.Namespace, progress: Progress) -> None:
    """Make a training set from scans."""
    from ..translate.dataset_pictures import set_paths
    from ..translate.dataset_scans import by_part, list_scans
    from ..translate.dataset_split import Ratios
    from ..translate.dataset_volumes import SliceRules, measure, write_volume_sets

    ratios = Ratios(*args.ratios)
    sources = _contrasts(args.contrasts)
    if args.paired and len(sources) != 2:
        raise RequestError(f"--paired needs two contrasts, not {len(sources)}", "leave it out")
    rules = SliceRules(
        axis=args.axis,
        spacing_mm=args.spacing,
        rule=args.rule,
        region=args.mean_in,
        minimum_share=args.minimum_brain,
        slices=args.slices,
        peak=args.peak,
        constants=_constants(args.constant, sources),
    )
    masks = {name: Path(words[0]) for name, words in _named(args.masks, sources)}
    scans = {
        name: list_scans([Path(word) for word in words], name, masks.get(name), on_warning=progress.warn)
        for name, words in sources.items()
    }
    _refuse_twice(scans)
    bare = sum(scan.mask is None for listed in scans.values() for scan in listed)
    if bare:
        progress.warn(f"{bare} scans have no brain mask: the whole head counts as brain, the neck included (--masks)")
    parts = by_part(scans, ratios, seed=args.seed)
    finals = (
        _mat_paths(args.output, parts, sources)
        if args.format == "mat"
        else set_paths(args.output, args.name, parts=list(parts))
    )
    read = [scan.path for listed in scans.values() for scan in listed]
    check_outputs(_with_records(finals), read, overwrite=args.overwrite)
    progress.plan([("measure", 1.0), ("write", 2.0)])
    with progress.stage("measure"):
        constants, spacing = measure(parts, rules, compatible=args.compatible, progress=progress)
    with OutputSet() as files:
        temporary = {part: _temporary(files, path) for part, path in finals.items()}
        options = {"paired": args.paired, "eight_bit": args.eight_bit, "size": args.size}
        with progress.stage("write"):
            done = write_volume_sets(temporary, parts, rules, constants, spacing, **options, progress=progress)
        for part, path in finals.items():
            shown = {"Part": part, "Constants": constants, "InPlaneSpacingMm": spacing, "Subjects": done.subjects[part]}
            shown |= {"Slices": done.counts[part], "ClippedShare": done.clipped}
            inputs = [scan.path for listed in parts[part].values() for scan in listed]
            _record(args, files, path, temporary[part], _volume_options(args), shown, progress, inputs)
    for name, value in constants.items():
        _say(args, f"{name}: the largest value is {value:.4g} times the mean; pixels have {spacing:g} mm")
    _tell(args, progress, done.counts, _flat(finals.values()))


def mat(args: argparse.Namespace, progress: Progress) -> None:
    """Make a training set from SynDiff's files."""
    from ..translate.dataset_mat import find_mats, pack_mats
    from ..translate.dataset_pictures import set_paths

    sources = _contrasts(args.contrasts)
    for name, words in sources.items():
        if len(words) != 1:
            raise RequestError(f"{name} has {len(words)} sources", "name one .mat file or folder per contrast")
    facts: dict[str, dict[str, float]] = {name: {} for name in sources}
    for name, value in _constants(args.constant, sources).items():
        facts[name]["constant"] = value
    if args.spacing is not None:
        if not 0 < args.spacing < math.inf:
            raise RequestError(f"a pixel side of {args.spacing:g} mm is not positive", "give millimetres")
        for known in facts.values():
            known["in_plane_spacing_mm"] = args.spacing
    mats = find_mats({name: Path(words[0]) for name, words in sources.items()}, args.part)
    outputs = set_paths(args.output, args.name, parts=list(mats))
    read = [path for found in mats.values() for path in found.values()]
    check_outputs(_with_records(outputs), read, overwrite=args.overwrite)
    progress.plan([("write", 1.0)])
    with OutputSet() as files:
        temporary = {part: files.path(path) for part, path in outputs.items()}
        options = {"size": args.size, "eight_bit": args.eight_bit, "paired": args.paired}
        with progress.stage("write"):
            counts = pack_mats(temporary, mats, facts=facts, **options, compatible=args.compatible, progress=progress)
        for part, path in outputs.items():
            shown = {"Part": part, "Slices": counts[part], "Facts": facts}
            _record(args, files, path, temporary[part], options, shown, progress, list(mats[part].values()))
    _tell(args, progress, counts, list(outputs.values()))


def to_translate(args: argparse.Namespace, progress: Progress) -> None:
    """Make a set to be translated."""
    from ..translate.dataset_tiles import list_originals, tiles_path, write_tiles

    output = tiles_path(args.output, args.contrast, args.name)
    originals = list_originals(args.input, nnunet=args.nnunet, compatible=args.compatible)
    check_outputs(_with_records({"": output}), [item.image for item in originals], overwrite=args.overwrite)
    progress.plan([("write", 1.0)])
    with OutputSet() as files:
        temporary = files.path(output)
        options = {"factor": args.scale, "size": args.tile_size}
        with progress.stage("write"):
            count = write_tiles(
                temporary, args.contrast, originals, **options, compatible=args.compatible, progress=progress
            )
        facts = {"Originals": [item.image.name for item in originals], "Tiles": count}
        _record(args, files, output, temporary, options, facts, progress)
    _say(args, f"{len(originals)} pictures as {count} tiles -> {output.name}")
    progress.result(outputs=[str(output)], pictures=len(originals), tiles=count)


# ---------------------------------------------------------------------------------------------------- what options say


def _contrasts(words: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Return the sources of every contrast."""
    found: dict[str, list[str]] = {}
    for name, *sources in words:
        if not sources:
            raise RequestError(f"--contrast {name} names no files or folders", "write --contrast NAME SOURCE")
        if "/" in name or "\\" in name or name in (".", ".."):
            raise RequestError(f"{name!r} cannot be the name of a contrast", "write --contrast NAME SOURCE")
        found.setdefault(name, []).extend(sources)
    return found


def _named(words: Sequence[Sequence[str]], known: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return an option's values by contrast."""
    for name, *values in words:
        if name not in known:
            raise RequestError(
                f"there is no contrast {name!r} among {', '.join(known)}", "begin with a contrast's name"
            )
        if not values:
            raise RequestError(f"an option of {name} has no value", "write the name, then the value")
    return [(name, values) for name, *values in words]


def _constants(words: Sequence[Sequence[str]], known: Iterable[str]) -> dict[str, float]:
    return {name: _number(values[0], f"the constant of {name}") for name, values in _named(words, known)}


def _number(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise RequestError(f"{what} is a number above 0, not {text!r}")
    return value


def _one_each(factors: Sequence[float], count: int, name: str) -> list[float]:
    if len(factors) not in (1, count):
        folders = f"{count} folder{'' if count == 1 else 's'}"
        raise RequestError(f"{name} has {folders} and {len(factors)} scale factors", "give one, or one for each")
    return list(factors) * (count if len(factors) == 1 else 1)


def _refuse_twice(scans: Mapping[str, Sequence[Any]]) -> None:
    """Refuse a scan that is listed for two contrasts."""
    seen: dict[Path, str] = {}
    for name, listed in scans.items():
        for scan in listed:
            other = seen.setdefault(scan.path.absolute(), name)
            if other != name:
                raise RequestError(f"{scan.path.name} is listed for {other} and for {name}", "list each scan once")


def _parts(ratios: Sequence[float]) -> list[str]:
    return [part for part, share in zip(("train", "val", "test"), ratios, strict=True) if share]


# -------------------------------------------------------------------------------------------------------- files, record


def _mat_paths(folder: Path, parts: Iterable[str], contrasts: Iterable[str]) -> dict[str, dict[str, Path]]:
    from ..translate.dataset_sources import mat_path

    return {part: {name: mat_path(folder, part, name) for name in contrasts} for part in parts}


def _flat(paths: Iterable[Any]) -> list[Path]:
    return [path for item in paths for path in (item.values() if isinstance(item, Mapping) else [item])]


def _with_records(outputs: Mapping[str, Any]) -> list[Path]:
    """Return all files of a job: the sets, and a record beside each part."""
    return [*_flat(outputs.values()), *(_flat([item])[0].with_suffix(".json") for item in outputs.values())]


def _temporary(files: OutputSet, path: Any) -> Any:
    if isinstance(path, Mapping):
        return {name: files.path(final) for name, final in path.items()}
    return files.path(path)


def _record(
    args: argparse.Namespace,
    files: OutputSet,
    final: Any,
    temporary: Any,
    options: Mapping[str, Any],
    facts: Mapping[str, Any],
    progress: Progress,
    inputs: Sequence[Path] = (),
) -> None:
    """Write the record of one part beside it."""
    from ..provenance import make_record, write_sidecar

    finals = _flat([final])
    shared = {name: getattr(args, name) for name in ("ratios", "seed", "compatible") if hasattr(args, name)}
    record = make_record(
        f"translate-dataset {args.action}",
        list(dict.fromkeys(inputs)),
        options={**shared, **options},
        seconds=progress.seconds,
        warnings=progress.warnings,
        outputs=dict(zip(finals, _flat([temporary]), strict=True)),
    )
    write_sidecar(files.path(finals[0].with_suffix(".json")), {**record, **facts})


def _volume_options(args: argparse.Namespace) -> dict[str, Any]:
    names = ("axis", "slices", "spacing", "minimum_brain", "rule", "mean_in", "peak", "constant", "paired", "eight_bit")
    return {name: getattr(args, name) for name in names}


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.quiet and args.progress != "json":
        sys.stdout.write(f"{text}\n")


def _tell(
    args: argparse.Namespace, progress: Progress, counts: Mapping[str, Mapping[str, int]], outputs: Sequence[Path]
) -> None:
    """Say how many images each part has, and where they are."""
    for part, found in counts.items():
        listed = ", ".join(f"{count} of {name}" for name, count in found.items())
        _say(args, f"{part}: {listed}")
    _say(args, f"-> {', '.join(path.name for path in outputs)}")
    progress.result(
        outputs=[str(path) for path in outputs], counts={part: dict(found) for part, found in counts.items()}
    )
