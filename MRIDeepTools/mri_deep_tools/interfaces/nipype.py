"""Nipype interfaces (Gorgolewski et al., Frontiers in Neuroinformatics 5 (2011) 13) of the commands.

::

    from mri_deep_tools.interfaces.nipype import interface
    node = interface("segment")(input="t1.nii.gz", output="labels.nii.gz", device="cpu")
    node.run().outputs.output

The classes are also attributes of this module (``Segment``, ``UpsampleDmri``), since workflows pickle their nodes.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cli import PROGRAM
from ..errors import DependencyError
from .declarations import TASKS, Argument, Declaration, declare

if TYPE_CHECKING:
    from nipype.interfaces.base import CommandLine

__all__ = ["interface"]


@cache
def interface(command: str) -> type[CommandLine]:
    """Return the class of a command; its inputs and outputs have the names of the command's options.

    Raises
    ------
    DependencyError : Nipype is not installed. RequestError : there is no such command.

    """
    try:
        from nipype.interfaces.base import CommandLine, CommandLineInputSpec, TraitedSpec
    except ImportError:
        raise DependencyError(
            "this needs Nipype, which is not installed", "install it with: pip install nipype"
        ) from None

    declared = declare(command)
    title, place = _title(command), {"__module__": __name__}
    spec = type(f"{title}InputSpec", (CommandLineInputSpec,), {**place, **_inputs(declared)})
    written = [argument for argument in declared.arguments if argument.kind == "write"]
    results = type(f"{title}OutputSpec", (TraitedSpec,), {**place, **_outputs(written)})

    def list_outputs(self: Any) -> dict[str, Any]:
        made = self.output_spec().get()
        for argument in written:
            given = getattr(self.inputs, argument.name)
            if isinstance(given, str | os.PathLike):
                made[argument.name] = str(Path(given).absolute())
        return made

    members = {
        "__doc__": f"{declared.help[:1].upper()}{declared.help[1:]}.",
        **place,
        "_cmd": f"{PROGRAM} {command}",
        "input_spec": spec,
        "output_spec": results,
        "_list_outputs": list_outputs,
    }
    return type(title, (CommandLine,), members)


def _title(command: str) -> str:
    return "".join(part.capitalize() for part in command.split("-"))


def __getattr__(name: str) -> Any:
    """Return the class of a command, or of its inputs or outputs, by its name."""
    for command in TASKS:
        title = _title(command)
        if name == title:
            return interface(command)
        if name in (f"{title}InputSpec", f"{title}OutputSpec"):
            made = interface(command)
            return made.input_spec if name.endswith("InputSpec") else made.output_spec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _inputs(declared: Declaration) -> dict[str, Any]:
    """Return the traits of the inputs; positional ones stand before all options, in their order."""
    positional = [argument for argument in declared.arguments if not argument.flag]
    rivals = {name: [other for other in group if other != name] for group in declared.exclusive for name in group}
    made = {}
    for argument in declared.arguments:
        facts: dict[str, Any] = {"desc": argument.help, "mandatory": argument.required}
        if argument.flag:
            facts["argstr"] = argument.flag if argument.kind == "flag" else _option(argument)
        else:
            facts |= {"argstr": "%s" if argument.count == 1 else "%s...", "position": positional.index(argument)}
        if argument.name in rivals:
            facts["xor"] = rivals[argument.name]
        made[argument.name] = _trait(argument, facts)
    return made


def _option(argument: Argument) -> str:
    return f"{argument.flag} %s" + ("..." if argument.repeated else "")


def _trait(argument: Argument, facts: dict[str, Any]) -> Any:
    from nipype.interfaces.base import Directory, File, traits

    if argument.kind == "flag":
        return traits.Bool(**facts)
    if argument.kind == "write":
        return File(hash_files=False, **facts)
    if argument.choices:
        return traits.Enum(*argument.choices, **facts)
    plain: Any = {"integer": traits.Int, "number": traits.Float, "text": traits.Str}.get(argument.kind)
    if argument.kind == "read":
        one: Any = File(exists=True)
        if argument.folder:
            one = traits.Either(File(exists=True), Directory(exists=True))
    else:
        one = plain()
    if argument.repeated or argument.count is None:
        return traits.List(one, **facts)
    if argument.count != 1:
        return traits.List(one, minlen=argument.count, maxlen=argument.count, **facts)
    if argument.kind == "read":
        return (
            traits.Either(File(exists=True), Directory(exists=True), **facts)
            if argument.folder
            else File(exists=True, **facts)
        )
    return plain(**facts)


def _outputs(written: list[Argument]) -> dict[str, Any]:
    from nipype.interfaces.base import Directory, File, traits

    return {
        argument.name: traits.Either(File(exists=True), Directory(exists=True), desc=argument.help)
        for argument in written
    }
