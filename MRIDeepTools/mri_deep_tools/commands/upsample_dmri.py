"""``mri-deep-tools upsample-dmri``: predict further diffusion directions of a scan from few measured ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from ..progress import Progress
from .options import add_common_options, positive
from .outputs import OutputSet, check_outputs

if TYPE_CHECKING:
    import numpy as np

    from ..dmriupsample.leave_out import LeaveOut
    from ..dmriupsample.predict import Upsampler, UpsampleResult
    from ..volume import Volume

__all__ = ["add_arguments", "run"]

_OPTIONS = ("directions", "shell", "method", "model", "weights", "combined", "percentile", "sh_order", "keep_measured")
_GB = 10**9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("dwi", metavar="DWI", help="diffusion series: NIfTI with gradient files, or diffusion NRRD")
    parser.add_argument(
        "output", type=Path, metavar="OUTPUT", help="the result; .bval and .bvec go beside it (NRRD holds them itself)"
    )
    files = parser.add_argument_group("gradients and mask")
    files.add_argument("--bvecs", metavar="FILE", help="FSL's directions (default: DWI's name with .bvec)")
    files.add_argument("--bvals", metavar="FILE", help="FSL's b-values (default: DWI's name with .bval)")
    files.add_argument(
        "--grad", metavar="FILE", help="a MRtrix table (x y z b, world axes) in place of both (default: NAME.b)"
    )
    files.add_argument("--shell", type=float, metavar="B", help="b-value to work on, where there are several")
    files.add_argument("--mask", metavar="FILE", help="brain mask on DWI's grid (default: computed from b = 0)")
    files.add_argument(
        "--mask-method", choices=("otsu", "synthseg"), default="otsu", help="how a mask is computed (default: otsu)"
    )
    wanted = parser.add_argument_group("wanted directions (one of these)").add_mutually_exclusive_group(required=True)
    wanted.add_argument("--directions", type=positive, metavar="N", help="N directions, evenly spread, always the same")
    wanted.add_argument("--target-bvecs", metavar="FILE", help="a file in FSL's convention for DWI")
    wanted.add_argument("--target-grad", metavar="FILE", help="a MRtrix table; its rows without weighting are left out")
    _add_method_options(parser.add_argument_group("method"))
    outputs = parser.add_argument_group("outputs")
    outputs.add_argument("--keep-measured", action="store_true", help="put the shell's measured volumes in OUTPUT too")
    outputs.add_argument("--save-grad", type=Path, metavar="FILE", help="the gradients of OUTPUT as a MRtrix table")
    outputs.add_argument("--save-mask", type=Path, metavar="FILE", help="the mask that was used")
    outputs.add_argument("--fa", type=Path, metavar="FILE", help="FA map of measured and predicted directions together")
    outputs.add_argument("--md", type=Path, metavar="FILE", help="MD map of the same, in mm^2/s")
    outputs.add_argument(
        "--report",
        type=Path,
        metavar="HTML",
        help="errors on measured directions that were left out; also as *_errors.json",
    )
    outputs.add_argument("--residuals", type=Path, metavar="FILE", help="map of these errors (with --report)")
    outputs.add_argument("--dry-run", action="store_true", help="tell shells, volumes and model; write nothing")
    outputs.add_argument("--hide-names", action="store_true", help="no file names in the records")
    add_common_options(parser)


def _add_method_options(group: Any) -> None:
    group.add_argument(
        "--method", choices=("rcnn", "sh"), default="rcnn", help="network, or spherical harmonics (default: rcnn)"
    )
    weights = group.add_mutually_exclusive_group()
    weights.add_argument("--model", metavar="NAME", help="see `mri-deep-tools models list` (default: the best present)")
    weights.add_argument("--weights", metavar="PATH", help="a TensorFlow checkpoint (folder or .index) or .safetensors")
    group.add_argument("--model-dim", type=int, choices=(1, 3), help="1D or 3D network (default: 3 if present)")
    group.add_argument("--combined", action="store_true", help="the network trained on three shells together")
    group.add_argument("--percentile", action="store_true", help="scale by the 99th percentile, not by a fixed value")
    group.add_argument("--sh-order", type=int, default=2, metavar="L", help="of the spherical harmonics (default: 2)")
    group.add_argument("--memory", type=float, metavar="GB", help="what the network may take (default: 80 %% of free)")


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Predict the directions that the command line asks for.

    Raises
    ------
    MRIDeepToolsError : a wrong request, unreadable input, missing weights, an output that cannot be written.

    """
    from ..dmriupsample.predict import STAGES, UpsampleOptions, Upsampler, upsample

    outputs = _outputs(args)
    if not args.dry_run:
        check_outputs([path for paths in outputs.values() for path in paths], _inputs(args), overwrite=args.overwrite)
    options = UpsampleOptions(
        **{name: getattr(args, name) for name in _OPTIONS},
        dims=args.model_dim,
        mask_method=args.mask_method,
        compatible=args.compatible,
        device=args.device,
        threads=args.threads,
        precision=args.precision,
        memory=None if args.memory is None else int(args.memory * _GB),
    )
    upsampler = Upsampler(options)
    files = {"bvecs": args.bvecs, "bvals": args.bvals, "gradients": args.grad}
    targets = {"target_bvecs": args.target_bvecs, "target_gradients": args.target_grad}
    if args.dry_run:
        _foretell(args, upsampler, files, progress)
        return
    progress.plan([*STAGES, *([("check", 60.0)] if args.report else []), ("write", 5.0)])
    result = upsample(args.dwi, **files, **targets, mask=args.mask, upsampler=upsampler, progress=progress)
    check = None
    if args.report is not None:
        from ..dmriupsample.leave_out import leave_out

        with progress.stage("check"):
            check = leave_out(result, upsampler, progress)
    with progress.stage("write"):
        _write(args, outputs, result, check, progress)
    if not args.quiet and args.progress != "json":
        sys.stdout.write(_summary(args, result, check))
    progress.result(
        outputs=[str(path) for paths in outputs.values() for path in paths],
        shell=result.shell,
        context=list(result.context),
        unused=list(result.unused),
        volumes=list(result.kinds),
        predicted=result.kinds.count("predicted"),
        model=result.model,
        check=None if check is None else check.as_record(),
        synthetic=True,
    )


def _outputs(args: argparse.Namespace) -> dict[str, list[Path]]:
    """Return all files that will be written, by what they are; refuse names that cannot be."""
    from ..dmriupsample.output import companion_paths
    from ..provenance import sidecar_path
    from ..reports.maps import maps_path
    from ..volume import is_image_path

    images = [args.output, *(path for path in (args.save_mask, args.fa, args.md, args.residuals) if path is not None)]
    for path in images:
        if not is_image_path(path):
            raise RequestError(f"{path.name} does not end in an image suffix", "use .nii.gz or .nrrd")
    if args.residuals is not None and args.report is None:
        raise RequestError("--residuals belongs to --report", "add --report")
    if args.report is not None and args.report.suffix.lower() not in (".html", ".htm"):
        raise RequestError(f"--report {args.report.name} does not end in .html", "name a .html file")
    outputs = {"image": [args.output], "gradients": [] if args.compatible else list(companion_paths(args.output))}
    outputs["sidecar"] = [sidecar_path(args.output)]
    named = {name: getattr(args, name) for name in ("save_grad", "save_mask", "fa", "md", "residuals", "report")}
    outputs |= {name: [path] for name, path in named.items() if path is not None}
    if args.report is not None:
        # a name of its own: NAME.json would be the sidecar of an image NAME, perhaps of the scan itself
        outputs["errors"] = [args.report.with_name(f"{args.report.stem}_errors.json")]
        outputs["maps"] = [maps_path(args.report)]
    return outputs


def _inputs(args: argparse.Namespace) -> list[Path]:
    """Return all files that are read, gradient files beside the scan included."""
    from ..dmriupsample.output import companion_paths

    names = (args.dwi, args.bvecs, args.bvals, args.grad, args.target_bvecs, args.target_grad, args.mask)
    companions = () if args.grad else companion_paths(Path(args.dwi))
    beside = [path for path, given in zip(companions, (args.bvals, args.bvecs), strict=False) if not given]
    return [*(Path(name) for name in names if name is not None), *(path for path in beside if path.is_file())]


def _foretell(args: argparse.Namespace, upsampler: Upsampler, files: dict[str, str | None], progress: Progress) -> None:
    """Say what would be done with the scan."""
    from ..dmriupsample.predict import choose_targets
    from ..dmriupsample.scan import read_scan
    from ..dmriupsample.shells import find_shells

    scan = read_scan(args.dwi, **files, shell=args.shell, progress=progress)
    shell = upsampler.prepare(scan, progress)
    targets = choose_targets(shell, upsampler.options, bvecs=args.target_bvecs, gradients=args.target_grad)
    shells = {str(value): len(volumes) for value, volumes in find_shells(scan.table).items()}
    if not args.quiet and args.progress != "json":
        listed = ", ".join(f"b = {value}: {count} directions" for value, count in shells.items())
        read = ", ".join(map(str, shell.context))
        sys.stdout.write(
            f"{scan.name}: {int(scan.table.is_b0.sum())} volumes at b = 0; {listed}\n"
            f"{shell.model} would read volumes {read} (numbered from 0) of b = {shell.value} "
            f"and predict {len(targets)} directions\n"
        )
    progress.result(
        b0=[int(index) for index in scan.table.is_b0.nonzero()[0]],
        shells=shells,
        shell=shell.value,
        context=[int(index) for index in shell.context],
        unused=[int(index) for index in shell.unused],
        measured_world=scan.table.world.round(6).tolist(),
        target_world=targets.world.round(6).tolist(),
        model=shell.model,
    )


def _write(
    args: argparse.Namespace,
    outputs: dict[str, list[Path]],
    result: UpsampleResult,
    check: LeaveOut | None,
    progress: Progress,
) -> None:
    """Write all files together."""
    from ..dmriupsample.output import FRAGILE_COUNTS, write_image, write_published_nifti
    from ..provenance import write_sidecar
    from ..reports.maps import write_maps

    if len(result.kinds) in FRAGILE_COUNTS:
        progress.warn(f"Slicer cannot save a DWI node of {len(result.kinds)} volumes; keep this file")
    with OutputSet() as files:
        written = {args.output: files.path(args.output)}
        if args.compatible and args.output.name.lower().endswith((".nii", ".nii.gz")):
            write_published_nifti(written[args.output], result.image)
        else:
            write_image(written[args.output], result.image, result.gradients, f"MRI Deep Tools {result.model}"[:79])
        if outputs["gradients"]:
            bvals, bvecs = outputs["gradients"]
            written |= {bvals: files.path(bvals), bvecs: files.path(bvecs)}
            result.gradients.write_fsl(written[bvals], written[bvecs], result.image.affine)
        if args.save_grad is not None:
            written[args.save_grad] = files.path(args.save_grad)
            result.gradients.write_mrtrix(written[args.save_grad])
        _write_maps(args, result, check, written, files, progress)
        if check is not None:
            path = outputs["maps"][0]
            written[path] = write_maps(files.path(path), _shown_only(args, result, check))
        record = _record(args, result, written, progress)
        if check is not None:
            record["LeaveOut"] = check.as_record()
            _write_report(args, outputs, result, check, record, files)
        write_sidecar(files.path(outputs["sidecar"][0]), record)


def _write_maps(
    args: argparse.Namespace,
    result: UpsampleResult,
    check: LeaveOut | None,
    written: dict[Path, Path],
    files: OutputSet,
    progress: Progress,
) -> None:
    """Write the mask, FA, MD and the map of errors where they were asked for."""
    from ..dmriupsample.leave_out import region, tensor_maps
    from ..volume import write_volume

    def put(path: Path, data: np.ndarray, intent: str = "none") -> None:
        written[path] = files.path(path)
        write_volume(result.image.with_data(data), written[path], intent=intent)

    if args.save_mask is not None:
        if result.mask is None:
            progress.warn(f"{args.save_mask.name} was not written: no mask was used")
        else:
            put(args.save_mask, result.mask.data, "label")
    if args.fa is not None or args.md is not None:
        inside = region(result, progress)
        maps = tensor_maps(result, inside)[1]
        for path, name in ((args.fa, "fa"), (args.md, "md")):
            if path is not None:
                put(path, maps.volume(name, inside))
    if args.residuals is not None and check is not None:
        if check.residuals:
            put(args.residuals, check.residuals["method"].data)
        else:
            progress.warn(f"{args.residuals.name} was not written: no direction could be left out")


def _shown_only(args: argparse.Namespace, result: UpsampleResult, check: LeaveOut) -> dict[str, Volume]:
    """Return the maps that the page shows and no other output holds."""
    from ..dmriupsample.report import images_of

    saved = [name for name in ("fa", "md", "residuals") if getattr(args, name) is not None]
    return {role: volume for role, volume in images_of(result, check).items() if role not in saved}


def _write_report(
    args: argparse.Namespace,
    outputs: dict[str, list[Path]],
    result: UpsampleResult,
    check: LeaveOut,
    record: dict[str, Any],
    files: OutputSet,
) -> None:
    from ..dmriupsample.report import write_upsampling_report
    from ..provenance import write_sidecar

    write_upsampling_report(files.path(args.report), result, check, record=record)
    write_sidecar(files.path(outputs["errors"][0]), {"Model": result.model, "Shell": result.shell, **check.as_record()})


def _roles(args: argparse.Namespace, written: dict[Path, Path]) -> dict[Path, str]:
    """Return what each input and output is, for the record."""
    from ..reports.maps import ROLE, maps_path

    names = ("dwi", "bvecs", "bvals", "grad", "target_bvecs", "target_grad", "mask")
    roles = {Path(path): name for name in names if (path := getattr(args, name)) is not None}
    companions = [path for path in (*_inputs(args), *written) if path.suffix in (".bval", ".bvec")]
    roles |= {path: roles.get(path, path.suffix.removeprefix(".") + "s") for path in companions}
    if args.report is not None:
        roles[maps_path(args.report)] = ROLE
    made = ("output", "save_grad", "save_mask", "fa", "md", "residuals")
    return roles | {
        path: "image" if name == "output" else name.removeprefix("save_")
        for name in made
        if (path := getattr(args, name)) is not None
    }


def _record(
    args: argparse.Namespace, result: UpsampleResult, written: dict[Path, Path], progress: Progress
) -> dict[str, Any]:
    """Return the record of the run."""
    from ..provenance import make_record, model_use

    options = {name: getattr(args, name) for name in (*_OPTIONS, "model_dim", "compatible", "memory", "mask_method")}
    options |= {
        "shell": result.shell,
        "context_volumes": list(result.context),
        "unused_volumes": list(result.unused),
        "volumes": list(result.kinds),
        "xmax": result.xmax,
    }
    record = make_record(
        "upsample-dmri",
        _inputs(args),
        [model_use(result.model, _weights_file(result.weights))] if result.weights is not None else None,
        device=result.device,
        options=options,
        seconds={name: value for name, value in progress.seconds.items() if value > 0},
        peak_memory_bytes=result.peak_memory_bytes,
        warnings=progress.warnings,
        outputs=written,
        threads=result.threads,
        geometry={"input": result.part.scan.image, "output": result.image},
        synthetic=True,
        hide_names=args.hide_names,
        roles=_roles(args, written),
    )
    record["Mask"] = "given" if args.mask else None if result.mask is None else args.mask_method
    record["Gradients"] = result.directions()
    return record


def _weights_file(path: Path) -> Path:
    """Return the file that stands for the weights: the index of a checkpoint holds the checksums of all tensors."""
    from ..checkpoints.tf_bundle import bundle_files

    if path.suffix == ".safetensors" or (path / "model.safetensors").is_file():
        return path
    return bundle_files(path)[0]


def _summary(args: argparse.Namespace, result: UpsampleResult, check: LeaveOut | None) -> str:
    seconds, count = sum(result.seconds.values()), result.kinds.count("predicted")
    name = "hidden" if args.hide_names else Path(args.dwi).name
    told = f"{name}: {count} directions at b = {result.shell} predicted from {len(result.context)} measured ones by "
    told += f"{result.model} in {seconds:.0f} s -> {args.output.name}\n"
    return told if check is None else f"{told}{check.verdict}\n"
