"""``mri-deep-tools train``: train a network from a configuration, and continue where a run was stopped."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from ..progress import Progress
from . import train_nnunet
from .configured import add_config_options, configured, wanted
from .options import add_common_options

if TYPE_CHECKING:
    from ..training import RunOptions

__all__ = ["add_arguments", "run"]

_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_ACCELERATORS = {"cpu": "cpu", "cuda": "gpu", "mps": "mps"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the systems that can be trained, and their options."""
    systems = parser.add_subparsers(dest="system", metavar="SYSTEM", required=True)
    synthseg = systems.add_parser(
        "synthseg",
        help="brain segmentation: published networks or the compact one",
        epilog="The keys `network` (unet, lite) and `task` (segmentation, groups, denoiser, second, parcellation, qc, "
        "supervised) choose what is trained; --set task=qc --print-config shows the defaults of a task.",
    )
    synthseg.add_argument("--output", metavar="FOLDER", help="folder of the run (the key run.output)")
    synthseg.add_argument("--export", type=Path, metavar="FOLDER", help="write the compact network's model folder here")
    add_config_options(synthseg)
    add_common_options(synthseg)
    baby = systems.add_parser("baby-ai", help="super-resolution of thick-slice T2w scans with a T1w guide")
    baby.add_argument("--output", metavar="FOLDER", help="folder of the run (the key run.output)")
    baby.set_defaults(export=None)
    add_config_options(baby)
    add_common_options(baby)
    dmri = systems.add_parser(
        "dmri-rcnn",
        help="more diffusion directions: published networks, or a small one from simulated voxels",
        epilog="Subjects come from a table (subject, dwi, bvals, bvecs, mask), which is packed into the run's folder, "
        "from records of the original program, or from a packed file; the key `source` set to simulated needs none.",
    )
    dmri.add_argument("--output", metavar="FOLDER", help="folder of the run (the key run.output)")
    dmri.set_defaults(export=None)
    add_config_options(dmri)
    add_common_options(dmri)
    iguane = systems.add_parser(
        "iguane",
        help="harmonization: any number of sites towards a reference site",
        epilog="Images come from a table (path, site; age and subject where known) of prepared brains, which is packed "
        "into the run's folder, or from sites simulated with label maps (the keys under `simulation`).",
    )
    iguane.add_argument("--output", metavar="FOLDER", help="folder of the run (the key run.output)")
    iguane.set_defaults(export=None)
    add_config_options(iguane)
    add_common_options(iguane)
    syndiff = systems.add_parser(
        "syndiff",
        help="translation of one contrast into another, without pairs",
        epilog="Images come from a folder that `translate-dataset` makes of scans or pictures, or from the .mat files "
        "of the original program; model folders for `translate` are written into the run's folder.",
    )
    syndiff.add_argument("--output", metavar="FOLDER", help="folder of the run (the key run.output)")
    syndiff.set_defaults(export=None)
    add_config_options(syndiff)
    add_common_options(syndiff)
    predictor = systems.add_parser("predictor", help="age or diagnosis from prepared T1w brains")
    predictor.add_argument("--output", metavar="FOLDER", help="folder of the run (the key run.output)")
    predictor.set_defaults(export=None)
    add_config_options(predictor)
    add_common_options(predictor)
    train_nnunet.add_system(systems)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Run or continue a training.

    Raises
    ------
    MRIDeepToolsError : a wrong configuration, missing extras, unreadable data; cancelled.

    """
    from ..config import render_config

    if args.system == "nnunet":  # trains itself: no Lightning, no options under `run`
        train_nnunet.run(args, progress)
        return
    content = wanted(args)
    lite = args.system == "synthseg" and content.get("network") == "lite"
    config = configured(_base(args.system, content, lite), content, args)
    _apply_common_options(args, config.run)
    if args.print_config:
        sys.stdout.write(render_config(config))
        return
    if args.export is not None and not lite:
        raise RequestError("--export is for the compact network", "the published ones write weights/ into the run")
    with progress.stage("train"):
        last = _train(args.system, config, lite, progress)
    written = [last]
    if args.export is not None:
        from ..synthsegment.lite_export import export_run

        written.append(export_run(config, args.export))
    if not args.quiet and args.progress != "json":
        sys.stdout.write(f"The training is complete: {', '.join(path.name for path in written)}\n")
    progress.result(outputs=[str(path) for path in written])


def _base(system: str, content: dict[str, Any], lite: bool) -> Any:
    """Return the published defaults of what is to be trained."""
    if system == "baby-ai":
        from ..superresolve.train import TrainingConfig

        return TrainingConfig()
    if system == "syndiff":
        from ..translate.train import SynDiffConfig

        return SynDiffConfig()
    if system == "predictor":
        from ..harmonize.predictor_train import PredictorConfig

        return PredictorConfig()
    if system == "iguane":
        from ..harmonize.train import IguaneConfig

        return IguaneConfig()
    if system == "dmri-rcnn":
        from ..dmriupsample.train import DmriTrainingConfig

        return DmriTrainingConfig()
    if lite:
        from ..synthsegment.train_lite import LiteTrainingConfig

        return LiteTrainingConfig()
    from ..synthsegment.train import TASKS, default_config

    task = content.get("task", "segmentation")
    if task not in TASKS:
        raise RequestError(f"there is no task {task!r}", f"choose one of {', '.join(TASKS)}")
    return default_config(task)


def _train(system: str, config: Any, lite: bool, progress: Progress) -> Path:
    if system == "baby-ai":
        from ..superresolve import train as superresolve_train

        return superresolve_train.train(config, progress)
    if system == "syndiff":
        from ..translate import train as translate_train

        return translate_train.train(config, progress)
    if system == "predictor":
        from ..harmonize.predictor_train import train_predictor

        return train_predictor(config, progress)
    if system == "iguane":
        from ..harmonize import train as harmonize_train

        return harmonize_train.train(config, progress)
    if system == "dmri-rcnn":
        from ..dmriupsample import train as dmri_train

        return dmri_train.train(config, progress)
    if lite:
        from ..synthsegment.train_lite import train_lite

        return Path(train_lite(config, progress))
    from ..synthsegment.train import train

    return train(config, progress)


def _apply_common_options(args: argparse.Namespace, run_options: RunOptions) -> None:
    """Let the options of every command win over the configuration."""
    if args.output:
        run_options.output = args.output
    if args.threads:
        run_options.threads = args.threads
    if args.precision != "auto":
        run_options.precision = _PRECISIONS[args.precision]
    if args.device != "auto":
        kind, _, index = args.device.partition(":")
        run_options.accelerator = _ACCELERATORS[kind]
        if kind != "cuda" or index:
            run_options.devices = 1 if not index else f"{index},"  # Lightning's way to name one device
