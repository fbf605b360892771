"""Signals and slots with the manners of PythonQt; see :mod:`slicer_host.pythonqt`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from PySide6 import QtCore

from .findings import findings

if TYPE_CHECKING:
    from collections.abc import Callable

QObject = QtCore.QObject
get_attribute = QObject.__getattribute__  # as PySide6 brings it, before it is changed
SIGNAL_INSTANCE = type(QtCore.QTimer.timeout.__get__(QtCore.QTimer(), QtCore.QTimer))


def argument_limit(function: Callable) -> int | None:
    """Return how many positional arguments a callable takes; None for any number or for a builtin one."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def make_slot(function: Callable, where: str) -> Callable:
    """Wrap a callable as PythonQt calls it: surplus arguments dropped, exceptions recorded and swallowed."""
    limit = argument_limit(function)
    builtin = not hasattr(getattr(function, "__func__", function), "__code__") and not inspect.isclass(function)

    def slot(*arguments: Any) -> None:
        try:
            try:
                function(*arguments[:limit])
            except TypeError:
                if not builtin or not arguments:
                    raise
                function()
        except Exception as error:  # noqa: BLE001 - this is what PythonQt does; it is written down
            findings.record_exception(where, error)

    return slot


def describe(function: Any) -> str:
    """Return the name of a callable for a message."""
    return getattr(function, "__qualname__", repr(function))


def _normalized(signature: str) -> str:
    text = signature.strip()
    if text[:1] in "12":
        text = text[1:]
    return bytes(QtCore.QMetaObject.normalizedSignature(text).data()).decode()


def _stand_in_signals(cls: type) -> dict[str, str]:
    """Return signature -> signal attribute of the stand-in classes a class derives from."""
    table: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        table.update(base.__dict__.get("_signals", {}))
    return table


class BoundSignal:
    """A signal of one object: ``button.clicked.connect(f)``, ``.disconnect(f)``, ``.emit(...)``, or called to emit."""

    def __init__(self, owner: QObject, name: str, signal: Any) -> None:
        self._owner, self._name, self._signal = owner, name, signal

    def _signature(self) -> str:
        """Return the first signature of that name, with all arguments, as PythonQt takes it."""
        for signature, attribute in _stand_in_signals(type(self._owner)).items():
            if attribute == self._name:
                return signature
        meta = self._owner.metaObject()
        for index in range(meta.methodCount()):
            method = meta.method(index)
            is_signal = method.methodType() == QtCore.QMetaMethod.MethodType.Signal
            if is_signal and bytes(method.name().data()).decode() == self._name:
                return bytes(method.methodSignature().data()).decode()
        return f"{self._name}()"

    def connect(self, *arguments: Any) -> bool:
        return connect(self._owner, self._signature(), *arguments, own=self._signal)

    def disconnect(self, *arguments: Any) -> bool:
        if not arguments:
            for entry in [e for e in connections(self._owner) if e[0] == self._signature()]:
                disconnect(self._owner, entry[0], entry[1])
            return True
        return disconnect(self._owner, self._signature(), *arguments)

    def emit(self, *arguments: Any) -> None:
        self._signal.emit(*arguments)

    __call__ = emit

    def __getitem__(self, overload: Any) -> BoundSignal:
        return BoundSignal(self._owner, self._name, self._signal[overload])


def connections(owner: QObject) -> list[tuple[str, Any, Callable, Any]]:
    """Return what was connected to an object: signature, target, the slot made of it, and how to undo it."""
    return owner.__dict__.setdefault("_s_connections", [])


def connect(owner: QObject, signature: str, *target: Any, own: Any = None) -> Any:
    """Connect a signal, given by its signature, to a callable or to a slot of another object."""
    if not isinstance(signature, str):  # older PySide6 asks the object itself to connect: sender, signal, slot
        return QObject.connect(signature, *target)
    text = _normalized(signature)
    function = _target(owner, text, target)
    if function is None:
        return False
    slot = make_slot(function, f"slot {describe(function)} of {type(owner).__name__}.{text}")
    stand_in = _stand_in_signals(type(owner)).get(text)
    if stand_in:
        get_attribute(owner, stand_in).connect(slot)
        handle = (stand_in, None)
    elif own is not None and "PyObject" in text:
        own.connect(slot)
        handle = (own, None)
    elif owner.metaObject().indexOfSignal(text) >= 0 and "PyObject" not in text:
        handle = (None, QObject.connect(owner, QtCore.SIGNAL(text), slot))
    else:
        return _refuse(owner, f"there is no signal {text}")
    connections(owner).append((text, target[-1] if len(target) == 1 else target, slot, handle))
    return True


def _target(owner: QObject, text: str, target: tuple) -> Callable | None:
    if len(target) == 1 and callable(target[0]):
        return target[0]
    if len(target) == 1 and isinstance(target[0], BoundSignal):
        return target[0].emit
    if len(target) == 2 and callable(target[1]):
        return target[1]
    if len(target) == 2 and isinstance(target[1], str):
        name = _normalized(target[1]).split("(")[0]
        function = getattr(target[0], name, None)
        if isinstance(function, BoundSignal):
            return function.emit
        if callable(function):
            return function
        _refuse(owner, f"{type(target[0]).__name__} has no slot {target[1]} for {text}")
        return None
    _refuse(owner, f"{target!r} cannot be called for {text}")
    return None


def _refuse(owner: QObject, why: str) -> bool:
    findings.record(f"connect failed on {type(owner).__name__} '{owner.objectName}': {why}")
    return False


def disconnect(owner: QObject, signature: str, *target: Any) -> Any:
    """Undo a connect of the same arguments; False where there was none."""
    if not isinstance(signature, str):
        return QObject.disconnect(signature, *target)
    text = _normalized(signature)
    wanted = target[-1] if len(target) == 1 else target
    made = connections(owner)
    for entry in made:
        if entry[0] == text and (not target or entry[1] == wanted):
            made.remove(entry)
            signal, connection = entry[3]
            if connection is not None:
                QObject.disconnect(connection)
            else:
                (get_attribute(owner, signal) if isinstance(signal, str) else signal).disconnect(entry[2])
            return True
    return False
