"""What a batch must know of each task, one declaration per command: which options are files that are read or made.

A task is a command of this program. A batch runs it as the command line would, option for option; what is declared
here is only what a batch cannot see in the command's own declaration of its options. A further command joins with one
more entry.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NoReturn

from ..errors import RequestError

__all__ = ["COMMON", "TASKS", "Task", "command_parser", "get_task", "words"]

COMMON = ("overwrite", "quiet", "progress", "help", "version")
"""Options of every command that a batch sets itself."""


@dataclass(frozen=True)
class Task:
    """How a batch sees one command.

    Attributes
    ----------
    name : of the command.
    scan : the option or positional word (by its name in the parser) that is the scan.
    result : the one that is the main output.
    ending : what is put behind a scan's name to name its result, where the table does not; see :meth:`ending_of`.
    inputs : further options that name files of one subject.
    shared : options that name a file for all subjects (weights, templates).
    outputs : further options that name files that are made, and what is put behind the scan's name for each.
    refused : options that are not for many subjects.
    qc, measures : fields of the command's ``result`` event that become columns of the summary, and of its tables; of
        a field that has fields itself all, or one (``facts.Tiles``).
    picture : what the overview shows: ``labels`` on the scan, ``pair`` (scan beside result), or nothing.
    suffix : of the result, where it is not that of the scan.
    bids : suffixes of the scans in a BIDS data set; the first is taken by default.
    entities : what the name of a derivative has between ``space`` and ``desc`` (``res-1mm``).
    stripped : whether the result shows the brain alone, where it is an image of anatomy.

    """

    name: str
    scan: str
    result: str
    ending: str
    inputs: tuple[str, ...] = ()
    shared: tuple[str, ...] = ("weights",)
    outputs: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    qc: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    picture: str = "pair"
    suffix: str = ""
    bids: tuple[str, ...] = ("T1w",)
    entities: str = ""
    stripped: bool | None = None

    def ending_of(self, name: str, options: Sequence[str] = ()) -> str:
        """Return what is put behind a scan's name for one of its outputs; ``{to}`` is the contrast in the options."""
        ending = self.ending if name == self.result else self.outputs[name]
        if "{to}" not in ending:
            return ending
        from ..commands.translate_jobs import synthetic_suffix

        wanted = [word.partition("=")[2] for word in options if word.startswith("--to=")]
        return ending.format(to=synthetic_suffix("x", wanted[-1] if wanted else "target").rpartition("_")[2])

    @property
    def columns(self) -> dict[str, str]:
        """Names of columns that mean an option of another name: ``input`` is the scan, ``output`` the result."""
        return {"input": self.scan, "output": self.result}


TASKS = {
    task.name: task
    for task in (
        Task(
            "segment",
            "input",
            "output",
            "_desc-synthseg_dseg",
            shared=("weights", "labels"),
            outputs={
                "posteriors": "_desc-synthseg_probseg",
                "resampled": "_desc-resampled",
                "report": "_desc-synthseg_report.html",
                "volumes": "_desc-synthseg_volumes.csv",
                "qc": "_desc-synthseg_qc.csv",
            },
            refused=("input_flag", "output_flag", "channel", "truth"),
            qc=("qc",),
            measures=("volumes_mm3",),
            picture="labels",
            bids=("T1w", "T2w", "FLAIR", "PDw", "T2starw", "inplaneT1", "inplaneT2", "UNIT1"),
        ),
        Task(
            "harmonize",
            "input",
            "output",
            "_desc-harmonized_T1w",
            inputs=("mask", "transform"),
            shared=("weights", "template"),
            outputs={
                "save_preprocessed": "_space-MNI152_desc-preprocessed_T1w",
                "save_mask": "_desc-brain_mask",
                "save_transform": "_from-MNI152_to-T1w_xfm.tfm",
                "change": "_desc-change_T1w",
                "report": "_desc-harmonized_report.html",
            },
            refused=("figures",),
            qc=("change",),
            stripped=True,
        ),
        Task(
            "superresolve",
            "t2",
            "output",
            "_desc-synthetic_T2w",
            inputs=("t1",),
            shared=("weights", "template"),
            outputs={
                "interpolated": "_desc-interpolated_T2w",
                "honesty": "_desc-honesty_T2w",
                "save_transform": "_from-T2w_to-T1w_xfm.tfm",
                "report": "_desc-synthetic_report.html",
            },
            refused=("table", "describe"),
            qc=("honesty",),
            bids=("T2w",),
            entities="res-1mm",
            stripped=False,
        ),
        Task(
            "upsample-dmri",
            "dwi",
            "output",
            "_desc-upsampled_dwi",
            inputs=("bvecs", "bvals", "grad", "mask"),
            shared=("weights", "target_bvecs", "target_grad"),
            outputs={
                "save_grad": "_desc-upsampled_dwi.b",
                "save_mask": "_desc-brain_mask",
                "fa": "_model-tensor_param-fa_dwimap",
                "md": "_model-tensor_param-md_dwimap",
                "report": "_desc-upsampled_report.html",
                "residuals": "_desc-residuals_dwimap",
            },
            refused=("dry_run",),
            qc=("check",),
            bids=("dwi",),
        ),
        Task(
            "translate",
            "input",
            "output",
            "_desc-synthetic_{to}",
            inputs=("mask",),
            outputs={"save_std": "_desc-std_{to}", "report": "_desc-synthetic_report.html"},
            refused=("recursive", "names", "dataset_id"),
            qc=(
                "facts.SlicesTranslated",
                "facts.SlicesTotal",
                "facts.ClippedShare",
                "facts.IntensityDivisor",
                "facts.Tiles",
            ),
            bids=("T1w", "T2w", "PDw", "FLAIR"),
            stripped=False,
        ),
        Task(
            "predict",
            "inputs",
            "csv",
            "_prediction",
            inputs=("mask", "transform"),
            shared=("weights", "template"),
            measures=("predictions",),
            picture="scan",
            suffix=".csv",
        ),
    )
}


def get_task(name: str) -> Task:
    """Return the declaration of a task; RequestError where there is none."""
    if name not in TASKS:
        raise RequestError(f"there is no batch task '{name}'", f"use one of {', '.join(TASKS)}")
    return TASKS[name]


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are RequestErrors."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(message, f"see `{self.prog} --help`")


@cache
def command_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command, as the command declares it."""
    parser = _Parser(prog=f"mri-deep-tools {name}", allow_abbrev=False)
    _module(name).add_arguments(parser)
    return parser


def command_run(name: str) -> Callable[[argparse.Namespace, Any], None]:
    """Return the function that does the work of a command."""
    run: Callable[[argparse.Namespace, Any], None] = _module(name).run
    return run


def _module(name: str) -> Any:
    return importlib.import_module(f"..commands.{name.replace('-', '_')}", __package__)


def words(task: Task, files: Mapping[str, str], options: tuple[str, ...]) -> list[str]:
    """Return the words of the command line for files by the names of their options, and further options."""
    named, placed = [], []
    for action in command_parser(task.name)._actions:
        if action.dest in files and not action.option_strings:
            placed.append(files[action.dest])
        elif action.dest in files:
            named.append(f"{action.option_strings[0]}={files[action.dest]}")
    prepare = getattr(_module(task.name), "prepare", list)
    return [*placed, *named, *prepare(options)]
