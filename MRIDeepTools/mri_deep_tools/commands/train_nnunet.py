"""``mri-deep-tools train nnunet``: train nnU-Net's 2D configuration on a data set of pictures."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..errors import RequestError
from ..progress import Progress
from .configured import add_config_options, configured, wanted
from .options import add_common_options

__all__ = ["add_system", "run"]


def add_system(systems: Any) -> None:
    """Add the system to those of ``train``."""
    nnunet = systems.add_parser(
        "nnunet",
        help="segmentation of pictures with nnU-Net: plan, preprocess, train folds side by side",
        epilog="The folder holds nnUNet_raw/Dataset123_Name; nnUNet_preprocessed and nnUNet_results are made beside "
        "it. The same command continues a run that was stopped; what is done is not done again.",
    )
    nnunet.add_argument("--output", metavar="FOLDER", help="folder that holds nnUNet_raw (the key folder)")
    add_config_options(nnunet)
    add_common_options(nnunet)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Run or continue a training.

    Raises
    ------
    MRIDeepToolsError : as :func:`mri_deep_tools.translate.handover_train.train_nnunet` says.

    """
    from ..config import render_config
    from ..translate.handover_train import NnunetConfig, train_nnunet

    config = configured(NnunetConfig(), wanted(args), args)
    if args.output:
        config.folder = args.output
    if args.threads:
        config.threads = args.threads
    if args.device != "auto":
        config.devices = (args.device,)
    if args.precision != "auto":
        raise RequestError("nnU-Net chooses the precision itself", "leave --precision out")
    if args.print_config:
        sys.stdout.write(render_config(config))
        return
    done = train_nnunet(config, progress)
    if not args.quiet and args.progress != "json":
        lines = [f"fold {item.fold}: mean Dice of the validation {_number(item.dice)}" for item in done.folds]
        sys.stdout.write("\n".join([*lines, f"The model is {done.model}", ""]))
    progress.result(outputs=[str(done.model)], dice={str(item.fold): item.dice for item in done.folds})


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
