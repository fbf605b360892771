"""``@parameterNodeWrapper``: typed attributes kept in a parameter node, and their binding to widgets."""

# ruff: noqa: N802 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

import logging
import typing
from typing import Any

import qt
import slicer
import vtk

from . import packs
from .codecs import codec_for, split_annotated
from .connectors import Decimals, GuiConnector, SingleStep, createGuiConnector
from .defaults import Default, default_of
from .validators import Validator

SlicerParameterNamePropertyName = "SlicerParameterName"


class _Member:
    """A member of a wrapper: read from and written to the parameter node each time."""

    def __init__(self, name: str, codec: Any) -> None:
        self.name, self.codec = name, codec

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return self.codec.read(instance.parameterNode, instance._prefix + self.name)

    def __set__(self, instance: Any, value: Any) -> None:
        self.codec.write(instance.parameterNode, instance._prefix + self.name, value)


def _initialise(self: Any, parameterNode: Any, prefix: str | None = None) -> None:
    self.__dict__.update(parameterNode=parameterNode, _prefix=prefix or "", _guis={}, _next_tag=0, _showing=False)
    for name, codec in self._codecs.items():
        if not codec.has(parameterNode, self._prefix + name):
            codec.write(parameterNode, self._prefix + name, self._defaults[name]())


def _default(self: Any, name: str) -> Default:
    packs.member_type(type(self), name)
    return Default(generator=self._defaults[name])


def _show(self: Any) -> None:
    """Write all values into the bound widgets."""
    if self._showing:
        return
    self.__dict__["_showing"] = True
    try:
        with slicer.util.NodeModify(self):
            for mapping in list(self._guis.values()):
                for name, connector in mapping.items():
                    connector.write(self.getValue(name))
    finally:
        self.__dict__["_showing"] = False


def _connect_parameters(self: Any, mapping: dict[str, Any]) -> int:
    """Bind parameters to widgets; return the tag for :func:`disconnectGui`."""
    types = {name: packs.member_type(type(self), name) for name in mapping}
    connectors = {
        name: widget if isinstance(widget, GuiConnector) else createGuiConnector(widget, types[name])
        for name, widget in mapping.items()
    }
    tag = self._next_tag
    self.__dict__["_next_tag"] += 1
    self._guis[tag] = connectors
    for name, connector in connectors.items():
        connector.write(self.getValue(name))
        connector.onChanged(lambda name=name, connector=connector: _store(self, name, connector))
    self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: _show(self))
    return tag


def _store(self: Any, name: str, connector: GuiConnector) -> None:
    if not self._showing:
        with slicer.util.NodeModify(self):
            self.setValue(name, connector.read())


def _connect_gui(self: Any, gui: Any) -> int:
    """Bind every widget below *gui* that has the property SlicerParameterName."""
    is_widget = getattr(gui, "isWidgetType", lambda: False)()
    widgets = gui.findChildren(qt.QWidget) if is_widget else vars(gui).values()
    named = ((w.property(SlicerParameterNamePropertyName), w) for w in widgets)
    return _connect_parameters(self, {name: widget for name, widget in named if name})


def _disconnect_gui(self: Any, tag: int) -> None:
    for connector in self._guis.pop(tag, {}).values():
        connector.onChanged(None)


_METHODS = {
    "default": _default,
    "isCached": lambda self, name: False,
    "getValue": packs.get_value,
    "setValue": packs.set_value,
    "connectGui": _connect_gui,
    "connectParametersToGui": _connect_parameters,
    "disconnectGui": _disconnect_gui,
    "StartModify": lambda self: self.parameterNode.StartModify(),
    "EndModify": lambda self, was: self.parameterNode.EndModify(was),
    "AddObserver": lambda self, event, call, priority=0.0: self.parameterNode.AddObserver(event, call, priority),
    "RemoveObserver": lambda self, tag: self.parameterNode.RemoveObserver(tag),
    "Modified": lambda self: self.parameterNode.Modified(),
}


def parameterNodeWrapper(classtype: type | None = None) -> Any:
    """Class decorator: annotated members become typed attributes that live in a parameter node.

    Raises:
        TypeError: a member has a type that cannot be kept.
        ValueError: a member has a reserved name.
    """
    if classtype is None:
        return parameterNodeWrapper
    types = typing.get_type_hints(classtype, include_extras=True)
    codecs, defaults = {}, {}
    for name, hint in types.items():
        if name in (*_METHODS, "allParameters", "dataType"):
            raise ValueError(f"'{name}' is a reserved name in a parameterNodeWrapper")
        codecs[name] = codec_for(hint)
        defaults[name] = default_of(classtype, name, hint, codecs[name])
        unused = [a for a in split_annotated(hint)[1] if not _used(a)]
        if unused:
            logging.warning("Unused annotations: %s", unused)
    for name, codec in codecs.items():
        setattr(classtype, name, _Member(name, codec))
    for name, method in _METHODS.items():
        setattr(classtype, name, method)
    classtype.__init__ = _initialise
    classtype.allParameters, classtype._codecs, classtype._defaults = types, codecs, defaults
    classtype.dataType = staticmethod(lambda name: packs.member_type(classtype, name))
    classtype._is_parameter_node_wrapper = True
    return classtype


def _used(annotation: Any) -> bool:
    kind = annotation if isinstance(annotation, type) else type(annotation)
    return issubclass(kind, (Default, Validator)) and not issubclass(kind, (Decimals, SingleStep))


def isParameterNodeWrapper(obj: Any) -> bool:
    """Tell whether a class or object is a parameter node wrapper."""
    return getattr(obj, "_is_parameter_node_wrapper", False)


def findChildWidgetForParameter(widget: Any, parameter: str) -> Any:
    """Return the widget below *widget* that is bound to a parameter, or None."""
    for child in widget.findChildren(qt.QWidget):
        if child.property(SlicerParameterNamePropertyName) == parameter:
            return child
    return None
