"""``@parameterPack``: several parameters that travel together, as one member of a wrapper."""

# ruff: noqa: N802 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

import copy
import typing
from typing import Any

from .codecs import Codec, codec_for, split_annotated
from .defaults import default_of


def isParameterPack(obj: Any) -> bool:
    """Tell whether a class or object is a parameter pack."""
    return getattr(obj, "_is_parameterPack", False)


class _Member:
    """A validated member of a pack; a change in a pack that was read from a node is written back."""

    def __init__(self, name: str, codec: Codec) -> None:
        self.name, self.codec = name, codec

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else instance.__dict__[f"_{self.name}"]

    def __set__(self, instance: Any, value: Any) -> None:
        self.codec.validate(value)
        instance.__dict__[f"_{self.name}"] = value
        save = instance.__dict__.get("_save")
        if save is not None:
            save(instance)


def parameterPack(classtype: type | None = None) -> Any:
    """Class decorator: annotated members become validated members with defaults, in a class with ``__init__``."""
    if classtype is None:
        return parameterPack
    hints = typing.get_type_hints(classtype, include_extras=True)
    if not hints:
        raise ValueError("a parameter pack needs at least one member")
    types, codecs, defaults = {}, {}, {}
    for name, hint in hints.items():
        types[name], codecs[name] = hint, codec_for(hint)
        defaults[name] = default_of(classtype, name, hint, codecs[name])
        codecs[name].validate(defaults[name]())
    for name, codec in codecs.items():
        setattr(classtype, name, _Member(name, codec))

    def initialise(self: Any, *args: Any, **kwargs: Any) -> None:
        given = dict(zip(types, args, strict=False))
        for name in kwargs:
            if name not in types or name in given:
                raise TypeError(f"unexpected argument '{name}'")
        given.update(kwargs)
        for name in types:
            setattr(self, name, given[name] if name in given else defaults[name]())

    own_init = classtype.__dict__.get("__init__")
    if own_init is None:
        classtype.__init__ = initialise
    else:

        def both(self: Any, *args: Any, **kwargs: Any) -> None:
            initialise(self)
            own_init(self, *args, **kwargs)

        classtype.__init__ = both
    if "__eq__" not in classtype.__dict__:
        classtype.__eq__ = lambda self, other: isinstance(other, classtype) and _values(self) == _values(other)
        classtype.__hash__ = None
    if "__repr__" not in classtype.__dict__:
        classtype.__repr__ = lambda self: f"{classtype.__name__}({_values(self)})"
    classtype._is_parameterPack = True
    classtype.allParameters = types
    classtype._codecs = codecs
    classtype.getValue = get_value
    classtype.setValue = set_value
    classtype.dataType = staticmethod(lambda name: member_type(classtype, name))
    return classtype


def _values(pack: Any) -> dict[str, Any]:
    return {name: getattr(pack, name) for name in pack.allParameters}


def get_value(pack: Any, name: str) -> Any:
    """Return a member by its dotted name."""
    for part in name.split("."):
        if part not in getattr(pack, "allParameters", {}):
            raise ValueError(f"there is no parameter '{name}'")
        pack = getattr(pack, part)
    return pack


def set_value(pack: Any, name: str, value: Any) -> None:
    """Set a member by its dotted name."""
    parents, _, last = name.rpartition(".")
    if parents:
        pack = get_value(pack, parents)
    if last not in pack.allParameters:
        raise ValueError(f"there is no parameter '{name}'")
    setattr(pack, last, value)


def member_type(cls: Any, name: str) -> Any:
    """Return the annotated type of a member by its dotted name."""
    first, _, rest = name.partition(".")
    if first not in getattr(cls, "allParameters", {}):
        raise ValueError(f"there is no parameter '{name}'")
    hint = cls.allParameters[first]
    return member_type(split_annotated(hint)[0], rest) if rest else hint


def nestedParameterNames(pack: Any) -> list[str]:
    """Return the dotted names of all members."""
    names = []
    for name, hint in split_annotated(pack)[0].allParameters.items():
        kind = split_annotated(hint)[0]
        names += [f"{name}.{n}" for n in nestedParameterNames(kind)] if isParameterPack(kind) else [name]
    return names


class PackCodec(Codec):
    """A pack: each member under ``name.member``."""

    def default(self) -> Any:
        return self.kind()

    def validate(self, value: Any) -> None:
        super().validate(value)
        if not isinstance(value, self.kind):
            raise TypeError(f"{value!r} is no {self.kind.__name__}")

    def has(self, node: Any, name: str) -> bool:
        first, codec = next(iter(self.kind._codecs.items()))
        return codec.has(node, f"{name}.{first}")

    def read(self, node: Any, name: str) -> Any:
        pack = self.kind.__new__(self.kind)
        for member, codec in self.kind._codecs.items():
            value = codec.read(node, f"{name}.{member}")
            if isParameterPack(type(value)):
                value.__dict__["_save"] = lambda changed, m=member: setattr(pack, m, changed)
            pack.__dict__[f"_{member}"] = value
        pack.__dict__["_save"] = lambda changed: self.write(node, name, changed)
        return pack

    def store(self, node: Any, name: str, value: Any) -> None:
        for member, codec in self.kind._codecs.items():
            codec.store(node, f"{name}.{member}", copy.copy(getattr(value, member)))

    def remove(self, node: Any, name: str) -> None:
        for member, codec in self.kind._codecs.items():
            codec.remove(node, f"{name}.{member}")
