"""Give the classes of PySide6 the manners of PythonQt, the binding that Slicer uses.

The classes themselves are changed, for the whole process: objects that Qt makes (by a .ui file, by a layout) then have
the right exact type, which the parameter node wrapper compares. What changes:

* Qt properties are attributes: ``button.text = "Go"``; so ``button.text()`` raises TypeError, as in Slicer.
* An unknown attribute cannot be set on a widget.
* ``connect("clicked(bool)", f)``; an unknown signature prints a line, returns False and is a finding.
* A slot gets at most as many arguments as it declares; an exception in it is printed, recorded and swallowed.
* ``name``, ``className()``, ``delete()``, ``exec_()``; enum members compare with integers.
"""

from __future__ import annotations

import ctypes
import enum
import sys
from typing import TYPE_CHECKING, Any

import shiboken6
from PySide6 import QtCore, QtGui, QtWidgets

from .findings import findings
from .signals import SIGNAL_INSTANCE, BoundSignal, connect, describe, disconnect, make_slot

if TYPE_CHECKING:
    from collections.abc import Callable

QObject = QtCore.QObject
_immortal: list[Any] = []
_native: set[type] = set()
# While a .ui file is loaded, PySide6 sets each child as an attribute of the panel; PythonQt finds children by name.
loading_ui: list[bool] = []

# Names that an object of this process may carry although Qt does not know them: our own notes on stand-in classes.
OWN_PREFIX = "_s_"


def install() -> None:
    """Change the classes. Call once, before the first widget is made."""
    _make_constants_immortal()
    for module in (QtCore, QtGui, QtWidgets):
        # dir(), because vars() lacks the classes not yet looked at; bases first, because derived classes look at them.
        classes = [c for c in (getattr(module, name) for name in dir(module)) if isinstance(c, type)]
        for cls in sorted(classes, key=lambda c: len(c.__mro__)):
            if issubclass(cls, QObject):
                _patch_class(cls)
            else:
                _patch_enums(cls)
    QObject.className = lambda self: self.metaObject().className()
    QObject.delete = lambda self: shiboken6.delete(self)
    QObject.name = _Name()


def _make_constants_immortal() -> None:
    """Keep None, True and False from being deleted.

    PySide6 6.12 is built for the stable interface of Python 3.12, where these are never deleted and need not be
    counted. On Python 3.10 and 3.11 they are: each call that returns None takes a reference away that was never
    given, and after some tens of thousands the interpreter aborts with "deallocating None".
    """
    if sys.version_info >= (3, 12):
        return
    plenty = 1 << 40
    for constant in (None, True, False):
        count = ctypes.c_ssize_t.from_address(id(constant))  # CPython's objects begin with their count
        if hasattr(sys, "gettotalrefcount") or abs(count.value - sys.getrefcount(constant)) > 100:
            _immortal.append([constant] * 5_000_000)  # another layout: hold them by force
        else:
            count.value += plenty


def _patch_class(cls: type) -> None:
    if cls in _native:
        return
    _native.add(cls)
    meta = cls.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        name = meta.property(index).name()
        if not name.startswith("_") and name != "objectName":
            setattr(cls, name, QtProperty(cls, meta.property(index)))
    for index in range(meta.propertyOffset()):  # such as QSpinBox.sizeHint, which hides the property of QWidget
        if callable(cls.__dict__.get(meta.property(index).name())):
            setattr(cls, meta.property(index).name(), QtProperty(cls, meta.property(index)))
    cls.__setattr__ = _set_attribute
    if "__getattribute__" in cls.__dict__:  # QObject, and classes with methods that are static as well, such as QFile
        cls.__getattribute__ = _make_get(cls.__dict__["__getattribute__"])
    if cls is QObject:
        cls.objectName = QtProperty(cls, meta.property(meta.indexOfProperty("objectName")))
    _patch_enums(cls)


def _patch_enums(cls: type) -> None:
    """Let the enums of a class compare with integers and be used as such: ``qt.Qt.Checked == 2``."""
    for value in [cls.__dict__[name] for name in list(cls.__dict__)]:
        if isinstance(value, enum.EnumMeta) and not issubclass(value, int):
            value.__eq__ = _enum_equal
            value.__hash__ = lambda self: hash(self.value)
            value.__int__ = lambda self: int(self.value)
            value.__index__ = lambda self: int(self.value)


def _enum_equal(self: enum.Enum, other: object) -> bool:
    if type(other) is type(self):
        return self.value == other.value
    return self.value == other if isinstance(other, int) else NotImplemented


# --- properties ------------------------------------------------------------------------------------------------------


class QtProperty:
    """A Qt property as an attribute. On the class, the original method is returned: some getters are static."""

    def __init__(self, cls: type, meta: QtCore.QMetaProperty) -> None:
        self.name = name = meta.name()
        self.type_name = meta.typeName()
        capital = name[0].upper() + name[1:]
        self.getter = next(
            (getattr(cls, n) for n in (name, f"is{capital}", f"has{capital}") if callable(getattr(cls, n, None))), None
        )
        self.class_value = getattr(cls, name, None)
        setter = {"pos": "move", "size": "resize"}.get(name, f"set{capital}")
        self.setter = getattr(cls, setter, None)
        self.writable = meta.isWritable()
        if cls is QtCore.QTimer and name == "singleShot":
            self.getter = QtCore.QTimer.isSingleShot
            self.class_value = _single_shot(self.class_value)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self.class_value if self.class_value is not None else self
        if self.getter is None:
            return instance.property(self.name)
        return self.getter() if _is_static(self.getter) else self.getter(instance)

    def __set__(self, instance: Any, value: Any) -> None:
        if not self.writable:
            raise AttributeError(f"property '{self.name}' of '{type(instance).__name__}' object is not writable")
        value = self._converted(value)
        if self.setter is None:
            if not instance.setProperty(self.name, value):
                raise ValueError(f"property '{self.name}' does not accept {value!r}")
            return
        if _is_static(self.setter):
            self.setter(value)
            return
        try:
            self.setter(instance, value)
        except TypeError:
            if not isinstance(value, int):
                raise ValueError(
                    f"property '{self.name}' of type '{self.type_name}' does not accept an object of type "
                    f"{type(value).__name__}"
                ) from None
            self.setter(instance, type(self.getter(instance))(value))  # an enum given as its number

    def _converted(self, value: Any) -> Any:
        if self.type_name == "int":
            return int(value)
        if self.type_name == "double":
            return float(value)
        if self.type_name == "bool":
            return bool(value)
        if self.type_name == "QString":
            return "" if value is None else str(value)
        return value


def _is_static(function: Callable) -> bool:
    """Tell whether a method of Qt needs no object, such as QCoreApplication.applicationName()."""
    return type(function).__name__ == "builtin_function_or_method"


def _single_shot(original: Callable) -> Callable:
    """Return ``QTimer.singleShot(ms, function)`` that swallows and records exceptions like any slot."""

    def single_shot(milliseconds: float, *target: Any) -> None:
        slots = [make_slot(t, f"timer {describe(t)}") if callable(t) else t for t in target]
        original(int(milliseconds), *slots)

    return single_shot


class _Name:
    """``name`` is another word for ``objectName``."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else instance.objectName

    def __set__(self, instance: Any, value: Any) -> None:
        instance.objectName = value


def native(cls: type) -> bool:
    """Tell whether a class stands for a C++ class of Slicer, whose attributes are fixed."""
    return cls in _native or "_stand_in" in cls.__dict__


def _set_attribute(self: Any, name: str, value: Any) -> None:
    cls = type(self)
    for base in cls.__mro__:
        attribute = base.__dict__.get(name)
        if attribute is None:
            continue
        if isinstance(attribute, QtCore.Property):
            attribute.fset(self, value)
            return
        if hasattr(type(attribute), "__set__"):
            attribute.__set__(self, value)
            return
        break
    if isinstance(value, SIGNAL_INSTANCE) or name.startswith(OWN_PREFIX):
        self.__dict__[name] = value
    elif loading_ui and isinstance(value, QObject):
        pass
    elif not native(cls):
        self.__dict__[name] = value
    elif shiboken6.isValid(self) and name.encode() in [bytes(n.data()) for n in self.dynamicPropertyNames()]:
        self.setProperty(name, value)
    else:
        message = f"'{cls.__name__}' object has no attribute '{name}' (it cannot be set on a C++ object)"
        findings.record(f"unknown attribute set: {message}")
        raise AttributeError(message)


def _make_get(original: Callable) -> Callable:
    """Return the attribute look-up of PythonQt around the one that a class of PySide6 brings."""

    def get(self: Any, name: str) -> Any:
        if name == "connect":
            return lambda *arguments: connect(self, *arguments)
        if name == "disconnect":
            return lambda *arguments: disconnect(self, *arguments)
        try:
            value = original(self, name)
        except AttributeError:
            if name.startswith("_"):
                raise
            return _missing(self, name)
        return BoundSignal(self, name, value) if type(value) is SIGNAL_INSTANCE else value

    return get


def _missing(self: Any, name: str) -> Any:
    """Look where PythonQt looks after the class: dynamic properties, children by name, enums of the class."""
    cls = type(self)
    try:
        if name.encode() in [bytes(n.data()) for n in self.dynamicPropertyNames()]:
            return self.property(name)
        for child in self.children():
            if child.objectName == name:
                return child
    except RuntimeError:  # the C++ part is gone, or is not made yet
        pass
    value = getattr(cls, name, None)
    if isinstance(value, enum.Enum):
        return value
    raise AttributeError(f"'{cls.__name__}' object has no attribute '{name}'")
