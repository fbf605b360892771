"""From a subject's files and options to a checked job: everything that can be known before the work is said before it.

Table and BIDS data set both come to :func:`make_job`, which lets the command's own parser look at the words of its
command line, and to :func:`check_jobs`, which looks at all jobs together.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError, MRIDeepToolsError, RequestError
from .jobs import Job, fingerprint
from .tasks import COMMON, Task, command_parser, words

__all__ = [
    "Request",
    "Subject",
    "absolute_words",
    "check_jobs",
    "default_output",
    "make_job",
    "option_of",
    "table_of_options",
]

_MODALITY = re.compile(r"_(T1w|T2w|PDw|FLAIR|dwi)$")


@dataclass(frozen=True)
class Request:
    """What is the same for all subjects of a batch.

    Attributes
    ----------
    task : what is done.
    folder : where results go (absolute).
    options : words of the command line, for all subjects.
    extras : outputs beside the main one that every subject gets, by the names of their options.

    """

    task: Task
    folder: Path
    options: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()

    def shared_files(self) -> dict[str, str]:
        """Return the files among the options, by the names of the options."""
        return _shared_files(self.task, self.options)


@dataclass
class Subject:
    """One subject before it is a job: files by the names of their options, words, and where it was named."""

    inputs: dict[str, str]
    outputs: dict[str, str]
    options: tuple[str, ...]
    where: str
    extra: dict[str, Any] = field(default_factory=dict)
    name: str = ""


def table_of_options(task: Task) -> dict[str, argparse.Action]:
    """Return the options and positional words of a task by every name that a column may have."""
    found: dict[str, argparse.Action] = {}
    for action in command_parser(task.name)._actions:
        if action.dest in COMMON or action.dest in task.refused:
            continue
        names = [text.lstrip("-") for text in action.option_strings if text.startswith("--")]
        for name in [*names, *([action.dest] if not action.option_strings else [])]:
            found[name.replace("-", "_").lower()] = action
    by_dest = {action.dest: action for action in found.values()}
    return {**{alias: by_dest[dest] for alias, dest in task.columns.items()}, **found}


def option_of(action: argparse.Action, text: str, where: str) -> list[str]:
    """Return the words that give an option the value of a table's cell.

    Raises
    ------
    RequestError : a switch is neither on nor off.

    """
    flag = next(word for word in action.option_strings if word.startswith("--"))
    if action.nargs == 0:
        answer = text.strip().lower()
        if answer in ("1", "yes", "true", "on", "y", "x"):
            return [flag]
        if answer in ("0", "no", "false", "off", "n"):
            return []
        raise RequestError(f"{where}: {flag} is {text!r}, which is neither yes nor no", "write yes or no")
    if isinstance(action.nargs, int):
        return [flag, *text.split()]
    return [f"{flag}={text}"]


def default_output(task: Task, name: str, scan: Path, folder: str = "", options: Sequence[str] = ()) -> str:
    """Return the path of an output of a scan, relative to the batch's folder, where nobody named one."""
    from ..volume import split_suffix

    stem, suffix = (scan.name, ".nii.gz") if scan.is_dir() else split_suffix(scan)
    suffix = suffix or scan.suffix
    ending = task.ending_of(name, options)
    known = _MODALITY.search(stem)
    if known and ("{to}" in task.ending or ending.split(".")[0].endswith(known[0])):
        stem = stem.removesuffix(known[0])
    if not PurePosixPath(ending).suffix:
        ending += (task.suffix if name == task.result else "") or suffix or ".nii.gz"
    return (PurePosixPath(folder) / f"{stem}{ending}").as_posix()


def make_job(request: Request, subject: Subject) -> Job:
    """Return the job of a subject, after the command's own parser has accepted it.

    Raises
    ------
    RequestError, InputError : what the command would say, behind the place where the subject was named.

    """
    task, where = request.task, subject.where
    inputs = {name: str(Path(path).absolute()) for name, path in subject.inputs.items()}
    for name, path in inputs.items():
        if not Path(path).exists():
            raise InputError(f"{where}: {Path(path).name} ({name}) does not exist", "check the path")
    outputs = {name: _inside(path, where) for name, path in subject.outputs.items()}
    options = (*request.options, *subject.options)
    scan, result = Path(inputs[task.scan]), outputs[task.result]
    unnamed = PurePosixPath(default_output(task, task.result, scan, options=options)).name == PurePosixPath(result).name
    for name in request.extras:  # named as the result is: after the scan, or as the table has it
        place = default_output(task, name, scan if unnamed else Path(result), _folder_of(result), options)
        outputs.setdefault(name, place)
    for name, path in outputs.items():
        _require_suffix(task, name, path, where, scan)
    try:
        command_parser(task.name).parse_args(words(task, {**inputs, **outputs}, options))
    except MRIDeepToolsError as error:
        raise type(error)(f"{where}: {error.message}", error.hint) from None
    mark = fingerprint(task.name, {**inputs, **_shared_files(task, options)}, [*options, *sorted(outputs.values())])
    job_id = subject.name or identifier(outputs[task.result])
    return Job(job_id, task.name, str(request.folder), inputs, outputs, options, mark, subject.extra)


def identifier(path: str) -> str:
    """Return a name for a job from the path of its main output: letters, digits, ``_``, ``.`` and single ``-``."""
    from ..volume import split_suffix

    place = PurePosixPath(path)
    stem = split_suffix(Path(place.name))[0].removesuffix(".csv")
    plain = re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9_.-]", "-", stem)).strip(".-") or "subject"
    whole = plain if plain == stem else f"{plain}-{hashlib.sha256(path.encode()).hexdigest()[:6]}"
    return whole[:120]


def check_jobs(jobs: Sequence[Job], wheres: Sequence[str]) -> list[Job]:
    """Return the jobs with names of their own, after checking that no two write one file or read what one writes.

    Raises
    ------
    RequestError : two subjects would write the same file, or one would replace an input.

    """
    written: dict[str, int] = {}
    sources = {path for job in jobs for path in job.inputs.values()}
    for index, job in enumerate(jobs):
        for path in job.outputs.values():
            other = written.setdefault(path.casefold(), index)
            if other != index:
                raise RequestError(
                    f"{wheres[other]} and {wheres[index]} would both write {path}", "give them different outputs"
                )
            if str(Path(job.folder) / path) in sources:
                raise RequestError(f"{wheres[index]}: {path} would replace an input", "choose another output folder")
    taken: dict[str, int] = {}
    named = []
    for job in jobs:
        number = taken[job.id.casefold()] = taken.get(job.id.casefold(), 0) + 1
        digest = hashlib.sha256("".join(sorted(job.outputs.values())).encode()).hexdigest()[:6]
        named.append(job if number == 1 else Job(**{**job.__dict__, "id": f"{job.id}-{digest}"}))
    return named


def _shared_files(task: Task, options: Sequence[str]) -> dict[str, str]:
    """Return the files that options name for all subjects, where they exist."""
    found = {}
    actions = {word: action for action in command_parser(task.name)._actions for word in action.option_strings}
    for index, word in enumerate(options):
        flag, _, value = word.partition("=")
        action = actions.get(flag)
        if action is not None and action.dest in task.shared:
            text = value or (options[index + 1] if index + 1 < len(options) else "")
            if text and Path(text).exists():
                found[f"shared.{action.dest}"] = text
    return found


def _inside(path: str, where: str) -> str:
    """Return an output's path, which must stay below the batch's folder."""
    place = PurePosixPath(path.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or re.match(r"^[A-Za-z]:", path) or not place.name:
        raise RequestError(f"{where}: the output {path} lies outside of OUTPUT_DIR", "name it relative to OUTPUT_DIR")
    if place.parts[0].startswith("."):
        raise RequestError(f"{where}: the output {path} begins with a dot", "choose another name")
    return place.as_posix()


def _folder_of(path: str) -> str:
    parent = PurePosixPath(path).parent.as_posix()
    return "" if parent == "." else parent


def _require_suffix(task: Task, name: str, path: str, where: str, scan: Path) -> None:
    from ..volume import SUFFIXES, is_image_path

    wanted = task.suffix if name == task.result else PurePosixPath(task.outputs[name]).suffix
    fits = path.lower().endswith(wanted) if wanted else is_image_path(Path(path))
    if not fits and (wanted or PurePosixPath(path).suffix.lower() != scan.suffix.lower()):  # pictures stay pictures
        known = wanted or ", ".join(SUFFIXES)
        raise RequestError(f"{where}: the output {path} has the wrong suffix", f"use {known}")


def absolute_words(task: Task, options: Sequence[str], base: Path | None = None) -> list[str]:
    """Return words in which shared files are named from the root, so that they hold in any folder.

    Parameters
    ----------
    task : whose options they are.
    options : words, ``--flag=value`` where an option has one value.
    base : folder that relative names start from; None is the current one.

    """
    actions = {word: action for action in command_parser(task.name)._actions for word in action.option_strings}
    found: list[str] = []
    for word in options:
        flag, mark, value = word.partition("=")
        if mark and flag in actions and actions[flag].dest in task.shared:
            place = (base or Path()) / value
            found.append(f"{flag}={place.absolute()}" if place.exists() else word)
        else:
            found.append(word)
    return found
