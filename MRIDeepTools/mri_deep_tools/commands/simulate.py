"""``mri-deep-tools simulate``: make data, such as synthetic scans from label maps."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, RequestError
from ..progress import Progress
from . import contrast_pairs, denoiser_pairs, dmri_scans, thick_slices
from .configured import add_config_options, configured, wanted
from .options import add_common_options, positive
from .outputs import OutputSet, check_outputs

if TYPE_CHECKING:
    from ..synthsegment.generator.model import GeneratorConfig
    from ..synthsegment.simulate import SimulatedScan

__all__ = ["add_arguments", "run"]

MODELS = ("synthseg", "t1", "2020")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    scans = actions.add_parser(
        "labels-to-image", help="synthetic scans of random contrast, shape and resolution from label maps"
    )
    scans.add_argument("labels", nargs="?", type=Path, metavar="LABELS", help="label map, or a folder of them")
    scans.add_argument("output", nargs="?", metavar="OUTPUT", help="the scan; a folder for several scans")
    scans.add_argument("--output-labels", type=Path, metavar="FILE", help="(default: *_dseg beside the scan)")
    scans.add_argument("--number", type=positive, default=1, metavar="N", help="scans per label map (default: 1)")
    scans.add_argument("--seed", type=int, default=0, help="fixes every draw (default: 0)")
    scans.add_argument(
        "--generator",
        choices=MODELS,
        default="synthseg",
        help="random contrast; T1-like contrast; or the earlier form with partial volume (PV-SynthSeg, 2020)",
    )
    scans.add_argument("--target", choices=("v1", "v2"), default="v2", help="structures in the labels (default: v2)")
    add_config_options(scans)
    add_common_options(scans)
    denoiser_pairs.add_action(actions)
    thick_slices.add_action(actions)
    dmri_scans.add_action(actions)
    contrast_pairs.add_action(actions)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Draw the scans.

    Raises
    ------
    MRIDeepToolsError : a wrong request, an unreadable map, an output that cannot be written.

    """
    if args.action == "denoiser-pairs":
        denoiser_pairs.run(args, progress)
        return
    if args.action == "thick-slices":
        thick_slices.run(args, progress)
        return
    if args.action == "dmri":
        dmri_scans.run(args, progress)
        return
    if args.action == "contrast-pairs":
        contrast_pairs.run(args, progress)
        return
    config = configured(_base(args.generator), wanted(args), args)
    if args.print_config:
        from ..config import render_config

        sys.stdout.write(render_config(config))
        return
    if args.labels is None or args.output is None:
        raise RequestError("LABELS and OUTPUT are needed", "see `mri-deep-tools simulate labels-to-image --help`")
    maps = _maps(args.labels)
    jobs = _jobs(args, maps)
    outputs = [path for _, image, labels in jobs for path in (image, _record_path(image), labels)]
    check_outputs(outputs, maps, overwrite=args.overwrite)
    for index, (source, image, labels) in enumerate(jobs):
        progress.item(index, len(jobs))
        _simulate(args, config, source, image, labels, args.seed + index, progress)


def _base(generator: str) -> GeneratorConfig:
    """Return the configuration to begin with; scans are as large as the map unless the person says otherwise."""
    from ..synthsegment.generator.model import GeneratorConfig
    from ..synthsegment.generator.partial_volume import PartialVolumeConfig
    from ..synthsegment.simulate import t1_config

    if generator == "t1":
        return t1_config(output_shape=None)
    return (PartialVolumeConfig if generator == "2020" else GeneratorConfig)(output_shape=None)


def _maps(labels: Path) -> list[Path]:
    from ..volume import list_images

    if not labels.exists():
        raise InputError(f"{labels.name} does not exist", "check the path of the label map")
    maps = list_images(labels) if labels.is_dir() else [labels]
    if not maps:
        raise InputError(f"the folder {labels.name} holds no label maps", "give a label map, or a folder of them")
    return maps


def _jobs(args: argparse.Namespace, maps: list[Path]) -> list[tuple[Path, Path, Path]]:
    """Return (label map, scan, labels of the scan) for every scan to be drawn."""
    from ..synthsegment.simulate import output_names
    from ..volume import is_image_path, split_suffix

    output = Path(args.output)
    if is_image_path(output) and not output.is_dir():
        if len(maps) * args.number > 1:
            raise RequestError(f"{len(maps) * args.number} scans do not fit into {output.name}", "name a folder")
        stem, suffix = split_suffix(output)
        return [(maps[0], output, args.output_labels or output.with_name(f"{stem}_dseg{suffix}"))]
    if args.output_labels is not None:
        raise RequestError("--output-labels is for one scan", "leave it out where OUTPUT is a folder")
    return [(source, *output_names(source, output, n, args.number)) for source in maps for n in range(args.number)]


def _simulate(
    args: argparse.Namespace,
    config: GeneratorConfig,
    source: Path,
    image: Path,
    labels: Path,
    seed: int,
    progress: Progress,
) -> None:
    from ..inference import pick_device, set_threads
    from ..synthsegment.simulate import simulate_scan
    from ..volume import read_volume, write_volume

    threads = set_threads(args.threads)
    device = pick_device(args.device)
    progress.device(str(device), threads=threads)
    before = dict(progress.seconds)
    with progress.stage("draw"):
        scan = simulate_scan(
            read_volume(source, on_warning=progress.warn), seed, config=config, target=args.target, device=device
        )
    with OutputSet() as files:
        written = {image: files.path(image), labels: files.path(labels)}
        write_volume(scan.image, written[image], description="MRI Deep Tools synthetic scan")
        write_volume(scan.labels, written[labels], intent="label")
        seconds = {"draw": progress.seconds["draw"] - before.get("draw", 0.0)}
        _write_record(args, config, source, scan, written, seconds, str(device), threads, files, progress)
    if not args.quiet and args.progress != "json":
        sys.stdout.write(f"{source.name}, seed {seed} -> {image.name}, {labels.name}\n")
    progress.result(outputs=[str(image), str(labels)], seed=seed)


def _write_record(
    args: argparse.Namespace,
    config: GeneratorConfig,
    source: Path,
    scan: SimulatedScan,
    written: dict[Path, Path],
    seconds: dict[str, float],
    device: str,
    threads: int,
    files: OutputSet,
    progress: Progress,
) -> None:
    from ..config import config_to_mapping
    from ..provenance import make_record, write_sidecar

    options: dict[str, Any] = {"generator": args.generator, "target": args.target, "config": config_to_mapping(config)}
    record = make_record(
        "simulate labels-to-image",
        [source],
        device=device,
        options=options | {"drawn": scan.drawn},
        seconds=seconds,
        outputs=written,
        threads=threads,
        warnings=progress.warnings,
        geometry={"output": scan.image},
        synthetic=True,
        roles=dict(zip(written, ("image", "labels"), strict=True)) | {source: "labels"},
    )
    image = next(iter(written))
    write_sidecar(files.path(_record_path(image)), record)


def _record_path(image: Path) -> Path:
    from ..provenance import sidecar_path

    return sidecar_path(image)
