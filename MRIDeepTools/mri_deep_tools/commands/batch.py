"""``mri-deep-tools batch``: one task for many subjects, from a table or a BIDS data set, that survives a kill."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..batch.tasks import COMMON, TASKS, Task, command_parser
from ..errors import InputError, RequestError
from ..progress import Progress
from .options import add_common_options, positive

if TYPE_CHECKING:
    from ..batch.jobs import Executor, Job
    from ..batch.plan import Request

__all__ = ["add_arguments", "prepare", "run"]

_LANES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one form of the command per task, with the options of that task."""
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    for task in TASKS.values():
        form = tasks.add_parser(
            task.name,
            help=f"{task.name} for many subjects",
            epilog="Every option may be a column of the table instead, for values that differ between subjects.",
        )
        _add_batch_options(form, task)
        _add_task_options(form, task)
        add_common_options(form)


def _add_batch_options(parser: argparse.ArgumentParser, task: Task) -> None:
    parser.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR", help="where the results go")
    source = parser.add_argument_group("subjects (one of these)").add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--table", type=Path, metavar="FILE", help="CSV or TSV: columns input, output (optional), id, and any option"
    )
    source.add_argument("--bids", type=Path, metavar="DIR", help="a BIDS data set; results are BIDS derivatives")
    choice = parser.add_argument_group("which scans of a BIDS data set")
    choice.add_argument("--participant", nargs="+", default=[], metavar="LABEL", help="(default: all)")
    choice.add_argument("--session", nargs="+", default=[], metavar="LABEL", help="(default: all)")
    choice.add_argument(
        "--suffix", nargs="+", default=[], choices=task.bids, help=f"of the scans (default: {task.bids[0]})"
    )
    choice.add_argument(
        "--entity", action="append", default=[], metavar="KEY=LABEL", help="scans with this entity only (run=1, acq=)"
    )
    course = parser.add_argument_group("course of the batch")
    course.add_argument("--resume", action="store_true", help="continue: finished subjects are not done again")
    course.add_argument("--skip-failed", action="store_true", help="with --resume: leave alone what failed before")
    course.add_argument(
        "--at-once",
        type=positive,
        default=_LANES,
        metavar="N",
        help=f"subjects in work at once, per worker: one is computed on, the others are read or written "
        f"(default: {_LANES})",
    )
    course.add_argument(
        "--cluster",
        metavar="WHERE",
        help="local:N (N processes), tcp://HOST:PORT (a Dask scheduler), or slurm, pbs, sge, lsf, htcondor, moab, oar",
    )
    course.add_argument(
        "--cluster-config",
        type=Path,
        metavar="FILE",
        help="YAML for slurm and the like: jobs, cores, memory, queue ...",
    )


class _Words(argparse.Action):
    """Keeps an option of the task as words for its own parser."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, flag: str | None = None
    ) -> None:
        given = [values] if isinstance(values, str) else list(values)
        word = flag or self.option_strings[0]
        words = [f"{word}={given[0]}"] if len(given) == 1 else [word, *given]
        namespace.task_options = [*getattr(namespace, "task_options", []), *words]


class _Extra(argparse.Action):
    """Notes that every subject is to get one more output."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        namespace.extras = [*getattr(namespace, "extras", []), self.dest]


def _add_task_options(parser: argparse.ArgumentParser, task: Task) -> None:
    """Add the options of a task for all subjects; those that name files of one subject belong into the table."""
    group = parser.add_argument_group(f"options of {task.name}, for all subjects")
    outputs = parser.add_argument_group("further outputs, one per subject")
    common = argparse.ArgumentParser(add_help=False)
    add_common_options(common)
    own = {action.dest for action in common._actions} | set(COMMON)
    left_out = {task.scan, task.result, *task.inputs, *task.refused, *own}
    for action in command_parser(task.name)._actions:
        if not action.option_strings or (action.dest in left_out and action.dest not in task.outputs):
            continue
        if action.dest in task.outputs:
            outputs.add_argument(*action.option_strings, dest=action.dest, action=_Extra, nargs=0, help=action.help)
            continue
        choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices else None
        group.add_argument(
            *action.option_strings,
            dest=f"task_{action.dest}",
            action=_Words,
            nargs=action.nargs,
            metavar=None if action.nargs == 0 else action.metavar or choices or action.dest.upper(),
            help=action.help,
            default=argparse.SUPPRESS,
        )


def prepare(words: Sequence[str]) -> list[str]:
    """Let the task prepare the words of its own options, where it has a say in that."""
    if not words or words[0] not in TASKS:
        return list(words)
    module = importlib.import_module(f".{words[0].replace('-', '_')}", __package__)
    return [words[0], *getattr(module, "prepare", list)(words[1:])]


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Find the subjects, check all of them, and do what is left.

    Raises
    ------
    MRIDeepToolsError : before any work, what is wrong with the request; at the end, that subjects failed.

    """
    from ..batch.run import Batch
    from ..report import page_environment

    page_environment()  # what the overview needs must be there before hours of work
    request = _request(args)
    jobs, on_begin = _jobs(args, request, progress)
    table = args.table is not None
    batch = Batch(
        request,
        jobs,
        _executor(args, progress),
        progress,
        resume=args.resume,
        overwrite=args.overwrite,
        skip_failed=args.skip_failed,
        source="table" if table else "bids",
        delimiter="," if table and args.table.suffix.lower() != ".tsv" else "\t",
        on_begin=on_begin,
    )
    tally = batch.run()
    if not args.quiet and args.progress != "json":
        rate = f", {tally.done * 3600 / tally.seconds:.0f} per hour" if tally.done else ""
        before = f" ({tally.before} by earlier runs)" if tally.before else ""
        sys.stdout.write(
            f"{tally.total} subjects are done{before}, in {tally.seconds:.0f} s{rate} -> "
            f"{request.folder.name}/batch.html\n"
        )


def _request(args: argparse.Namespace) -> Request:
    """Return what is the same for all subjects."""
    from ..batch.plan import Request, absolute_words

    if args.output_dir.is_file():
        raise InputError(f"OUTPUT_DIR {args.output_dir.name} is a file", "name a folder; it is made where it is not")
    if args.resume and args.overwrite:
        raise RequestError("--resume keeps what is done, --overwrite deletes it", "give one of them")
    if args.skip_failed and not args.resume:
        raise RequestError("--skip-failed belongs to --resume", "add --resume")
    task = TASKS[args.task]
    words = [f"--device={args.device}", f"--precision={args.precision}"]
    words += [f"--threads={args.threads}"] if args.threads else []
    words += ["--compatible"] if args.compatible else []
    words += absolute_words(task, getattr(args, "task_options", []))
    extras = tuple(dict.fromkeys(getattr(args, "extras", [])))
    return Request(task, args.output_dir.absolute(), tuple(words), extras)


def _jobs(
    args: argparse.Namespace, request: Request, progress: Progress
) -> tuple[list[Job], Callable[[], None] | None]:
    """Return the checked jobs of the table or the data set, and what is to be written before the first."""
    if args.table is not None:
        from ..batch.table import jobs_of_table

        given = [name for name in ("participant", "session", "suffix", "entity") if getattr(args, name)]
        if given:
            raise RequestError(f"--{given[0]} belongs to --bids", "leave rows out of the table instead")
        return jobs_of_table(args.table, request), None
    from ..batch.bids import Dataset
    from ..batch.derivatives import describe_dataset, jobs_of_bids

    dataset = Dataset(args.bids)
    jobs = jobs_of_bids(
        dataset,
        request,
        suffixes=args.suffix,
        participants=args.participant,
        sessions=args.session,
        entities=_entities(args.entity),
    )
    for warning in dataset.warnings:
        progress.warn(warning)
    return jobs, lambda: describe_dataset(dataset, request, jobs)


def _entities(words: Sequence[str]) -> dict[str, str]:
    found = {}
    for word in words:
        key, mark, label = word.partition("=")
        if not mark or not key.isalpha():
            raise RequestError(f"--entity {word} is not KEY=LABEL", "write for example run=1, or acq= for none")
        found[key] = label.removeprefix(f"{key}-")
    return found


def _executor(args: argparse.Namespace, progress: Progress) -> Executor:
    """Return who does the jobs."""
    if args.cluster is not None:
        from ..batch.cluster import ClusterExecutor
        from ..batch.cluster_start import parse_cluster

        return ClusterExecutor(parse_cluster(args.cluster, args.cluster_config, args.at_once), progress)
    if args.cluster_config is not None:
        raise RequestError("--cluster-config belongs to --cluster", "add --cluster slurm, for instance")
    from ..batch.worker import LocalExecutor, Worker

    return LocalExecutor(Worker(lanes=args.at_once))
