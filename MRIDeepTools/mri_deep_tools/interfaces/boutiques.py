"""Boutiques descriptors (Glatard et al., GigaScience 7 (2018) giy016; schema 0.5) of the commands."""

from __future__ import annotations

from typing import Any

from .. import __version__
from ..cli import PROGRAM
from ..provenance import DISCLAIMER
from .declarations import Argument, declare

__all__ = ["descriptor"]

_IMAGES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".png", ".tif", ".tiff", ".bmp")
_STATUS = {
    1: "The work failed; the last line of standard error says why.",
    2: "The request was wrong, as is said there.",
}


def descriptor(command: str, image: str = "") -> dict[str, Any]:
    """Return the descriptor of a command, ready for JSON.

    Parameters
    ----------
    command : one of ``declarations.TASKS``.
    image : name of a container image that has the program; empty for the program of the machine.

    Raises
    ------
    RequestError : there is no such command.

    """
    declared = declare(command)
    keys = " ".join(f"[{argument.name.upper()}]" for argument in _ordered(declared.arguments))
    made: dict[str, Any] = {
        "name": f"{PROGRAM} {command}",
        "description": f"{declared.help[:1].upper()}{declared.help[1:]}. {DISCLAIMER}",
        "tool-version": __version__,
        "schema-version": "0.5",
        "author": "The MRI Deep Tools contributors",
        "command-line": f"{PROGRAM} {command} {keys}",
        "inputs": [_input(argument) for argument in _ordered(declared.arguments)],
        "output-files": _outputs(declared.arguments),
        "error-codes": [{"code": code, "description": text} for code, text in _STATUS.items()],
        "suggested-resources": {"cpu-cores": 2, "ram": 4, "walltime-estimate": 600},
        "tags": {"domain": ["neuroinformatics", "mri"]},
    }
    if declared.exclusive:
        made["groups"] = [
            {"id": "_or_".join(names), "name": " or ".join(names), "members": list(names), "mutually-exclusive": True}
            for names in declared.exclusive
        ]
    if image:
        made["container-image"] = {"type": "docker", "image": image}
    return made


def _ordered(arguments: tuple[Argument, ...]) -> list[Argument]:
    """Return positional arguments first: an option that takes several values would swallow them."""
    return sorted(arguments, key=lambda argument: bool(argument.flag))


def _input(argument: Argument) -> dict[str, Any]:
    kinds = {
        "read": "File",
        "write": "String",
        "flag": "Flag",
        "integer": "Number",
        "number": "Number",
        "text": "String",
    }
    made: dict[str, Any] = {
        "id": argument.name,
        "name": argument.name.replace("_", " "),
        "description": argument.help or argument.name.replace("_", " "),
        "type": kinds[argument.kind],
        "value-key": f"[{argument.name.upper()}]",
        "optional": not argument.required,
    }
    if argument.flag:
        made["command-line-flag"] = argument.flag
    if argument.choices:
        made["value-choices"] = list(argument.choices)
    if argument.kind == "integer":
        made["integer"] = True
    if argument.least is not None:
        made["minimum"] = argument.least
    if argument.repeated or argument.count != 1:
        made["list"] = True
        if argument.repeated:
            made["list-separator"] = f" {argument.flag} "
        elif argument.count:
            made |= {"min-list-entries": argument.count, "max-list-entries": argument.count}
    return made


def _outputs(arguments: tuple[Argument, ...]) -> list[dict[str, Any]]:
    made = []
    for argument in arguments:
        if argument.kind == "write":
            title, template = argument.name.replace("_", " "), f"[{argument.name.upper()}]"
            made.append(
                {
                    "id": f"{argument.name}_file",
                    "name": title,
                    "description": argument.help or title,
                    "path-template": template,
                    "optional": not argument.required,
                }
            )
    first = next(argument for argument in arguments if argument.kind == "write" and argument.required)
    sidecar = {
        "id": "sidecar",
        "name": "sidecar",
        "description": "how the result was made: model, options, versions, warnings",
        "path-template": f"[{first.name.upper()}].json",
        "path-template-stripped-extensions": [*_IMAGES, ".csv"],
        "optional": True,  # where the output is a folder, each result has its own
    }
    return [*made, sidecar]
