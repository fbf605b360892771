"""How stand-ins for the C++ widgets of CTK and Slicer are written: strict classes with Qt-like properties."""

from __future__ import annotations

from typing import Any

from . import pythonqt


class Prop:
    """A property of a stand-in: an attribute with its ``setName()``, a default, and a hook called after each change.

    Args:
        default: value before the first assignment. A list is copied for each object.
        kind: type that a value is converted to (int, float, str, bool, list); None keeps it as it is.
        changed: name of a method of the object that is called when the value has become another one.
    """

    def __init__(self, default: Any = None, kind: type | None = None, changed: str = "") -> None:
        self.default, self.kind, self.changed = default, kind, changed

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.slot = name, pythonqt.OWN_PREFIX + name
        setter = "set" + name[0].upper() + name[1:]
        if setter not in owner.__dict__:
            setattr(owner, setter, lambda instance, value: self.__set__(instance, value))

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if self.slot not in instance.__dict__:
            return list(self.default) if isinstance(self.default, list) else self.default
        return instance.__dict__[self.slot]

    def __set__(self, instance: Any, value: Any) -> None:
        if self.kind is list and isinstance(value, str):
            value = [value]
        value = self.kind(value) if self.kind is not None else value
        if value == self.__get__(instance):
            return
        instance.__dict__[self.slot] = value
        if self.changed:
            getattr(instance, self.changed)()


def stand_in(signals: dict[str, str] | None = None) -> Any:
    """Mark a class as a C++ class: unknown attributes are refused, signals answer to the given signatures.

    Args:
        signals: Slicer's signature of each signal -> name of the Python ``Signal`` attribute that emits it.
    """

    def mark(cls: type) -> type:
        cls._stand_in = True
        cls._signals = dict(signals or {})
        return cls

    return mark
