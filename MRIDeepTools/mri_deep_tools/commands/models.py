"""``mri-deep-tools models``: what pretrained models there are, and getting their weights onto this machine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MRIDeepToolsError
from ..progress import Progress
from .options import add_common_options

if TYPE_CHECKING:
    from ..models import Model

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="list the models, or show all that is known of some")
    listing.add_argument("names", nargs="*", metavar="NAME", help="models to show in full")
    listing.add_argument("--task", help="only the models for one task: segment, parcellate, quality, ...")
    listing.add_argument("--json", action="store_true", help="print JSON")

    download = actions.add_parser("download", help="fetch the weights of models, checked, into the cache")
    download.add_argument("names", nargs="+", metavar="NAME")

    importing = actions.add_parser("import", help="take weights from a folder or a FreeSurfer installation")
    importing.add_argument("folder", nargs="?", metavar="FOLDER", help="(default: $FREESURFER_HOME/models)")
    importing.add_argument("--model", action="append", metavar="NAME", help="only this model; may be given repeatedly")
    importing.add_argument("--link", action="store_true", help="make symbolic links instead of copies")

    verify = actions.add_parser("verify", help="compare the weights on this machine with their checksums")
    verify.add_argument("names", nargs="*", metavar="NAME", help="(default: all that are here)")

    path = actions.add_parser("path", help="print where the weights of a model are")
    path.add_argument("name", metavar="NAME")
    path.add_argument("--file", metavar="FILE", help="another file of the model than its weights")

    remove = actions.add_parser("remove", help="delete models from the cache")
    remove.add_argument("names", nargs="+", metavar="NAME")

    for action in (listing, download, importing, verify, path, remove):
        add_common_options(action)


def run(args: argparse.Namespace, progress: Progress) -> None:
    """Do one action.

    Raises
    ------
    MRIDeepToolsError : as the functions of :mod:`mri_deep_tools.models` say, and when a verification finds a fault.

    """
    _ACTIONS[args.action](args, progress)


def _list(args: argparse.Namespace, progress: Progress) -> None:
    from ..models import describe, get_model, list_models

    chosen = [get_model(name) for name in args.names] or list_models(args.task)
    facts = [describe(model) for model in chosen]
    if args.json:
        _say(json.dumps(facts, indent=2, ensure_ascii=False))
    elif args.names:
        _say("\n\n".join(_in_full(fact) for fact in facts))
    else:
        rows = [(fact["name"], fact["task"], fact["status"], fact["size_text"], fact["licence"]) for fact in facts]
        _say(_table([("MODEL", "TASK", "STATUS", "SIZE", "LICENCE"), *rows]))
        _say("`mri-deep-tools models list NAME` shows description, input needs, citation and sources.")
    progress.result(models=facts)


def _download(args: argparse.Namespace, progress: Progress) -> None:
    from ..models import download, get_model

    for model in [get_model(name) for name in args.names]:  # all names are checked before the first byte
        paths = download(model.name, progress)
        _say(f"{model.name} is here. Licence: {model.licence}. Please cite {'; '.join(model.citation)}.")
        progress.result(model=model.name, files=[path.name for path in paths])


def _import(args: argparse.Namespace, progress: Progress) -> None:
    from ..models import import_models

    results = import_models(args.folder, args.model, link=args.link, check=_require_networks, progress=progress)
    for item in results:
        _say(f"{item.model}: {item.file} {item.status}{f', {item.detail}' if item.detail else ''}")
    progress.result(files=[{"model": item.model, "file": item.file, "status": item.status} for item in results])
    refused = [item.file for item in results if item.status == "refused"]
    if refused:
        raise MRIDeepToolsError(f"refused: {', '.join(refused)}", "the lines above say why")


def _require_networks(model: Model, path: Path) -> None:
    """Raise WeightsError where a file of which nobody published a checksum holds no network (or atlas) that we know."""
    if model.task == "template":
        from ..superresolve.atlas import require_template

        require_template(path)
        return
    if model.task == "harmonize":
        from ..harmonize.weights import load_generator

        load_generator(path)
        return
    if model.task == "upsample-dmri":
        from ..dmriupsample.weights import check_index

        check_index(path, int(model.input_needs["kernel_dims"]))
        return
    if model.task == "superresolve":
        from ..superresolve.weights import read_upstream, spec_of_upstream

        spec_of_upstream(read_upstream(path), path.name)
        return
    from ..synthsegment.weights import load_states

    load_states(path)


def _verify(args: argparse.Namespace, progress: Progress) -> None:
    from ..models import verify

    checks = [check for name in args.names or [None] for check in verify(name)]
    for check in checks:
        detail = f": {check.detail}" if check.detail else ""
        _say(f"{check.model}: {check.file} {check.status}, compared with {check.against}{detail}")
    if not checks:
        _say("No models are on this machine.")
    progress.result(files=[{"model": check.model, "file": check.file, "status": check.status} for check in checks])
    bad = [check.file for check in checks if check.status in ("damaged", "absent")]
    if bad:
        raise MRIDeepToolsError(
            f"not in order: {', '.join(bad)}",
            "fetch them again with `mri-deep-tools models download` or `models import`",
        )


def _path(args: argparse.Namespace, progress: Progress) -> None:
    from ..models import model_path

    path = model_path(args.name, args.file)
    _say(str(path))
    progress.result(path=str(path))


def _remove(args: argparse.Namespace, progress: Progress) -> None:
    from ..models import get_model, human_size, remove

    for model in [get_model(name) for name in args.names]:
        freed = remove(model.name)
        _say(f"{model.name}: {f'{human_size(freed)} freed' if freed else 'it was not in the cache'}")
    progress.result(removed=list(args.names))


_ACTIONS: dict[str, Callable[[argparse.Namespace, Progress], None]] = {
    "list": _list,
    "download": _download,
    "import": _import,
    "verify": _verify,
    "path": _path,
    "remove": _remove,
}


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _in_full(fact: dict[str, Any]) -> str:
    lines = [
        f"{fact['name']}: {fact['description']}",
        f"  status: {fact['status']}, {fact['size_text']}",
        f"  licence: {fact['licence']}",
        *(f"  cite: {text}" for text in fact["citation"]),
        *(f"  needs {key.replace('_', ' ')}: {value}" for key, value in fact["input_needs"].items()),
    ]
    for file in fact["files"]:
        lines.append(f"  file: {file['name']}, {file['size_text']}, {file['where'] or 'not here'}")
        lines += [f"    from {source}" for source in file["sources"]]
    return "\n".join(lines + [f"  see {page}" for page in fact["pages"]])
