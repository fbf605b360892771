"""How a typed value is kept in a parameter node: as text, as node reference, or as several of these."""

from __future__ import annotations

import collections.abc
import enum
import pathlib
import types
import typing
from typing import Any

import qt
import slicer

from .validators import IsInstance, NotNone, Validator


class FloatRange:
    """Two numbers, the first not larger than the second."""

    def __init__(self, minimum: float, maximum: float) -> None:
        if maximum < minimum:
            raise ValueError(f"maximum {maximum} is below minimum {minimum}")
        self.minimum, self.maximum = float(minimum), float(maximum)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FloatRange) and (self.minimum, self.maximum) == (other.minimum, other.maximum)

    def __hash__(self) -> int:
        return hash((self.minimum, self.maximum))

    def __repr__(self) -> str:
        return f"FloatRange({self.minimum}, {self.maximum})"


def split_annotated(annotated: Any) -> tuple[Any, list[Any]]:
    """Return the bare type and the list of annotations of ``Annotated[T, ...]``."""
    if typing.get_origin(annotated) is typing.Annotated:
        return annotated.__origin__, list(annotated.__metadata__)
    return annotated, []


class Codec:
    """Base: one text value per name. Derived classes turn it into a value of their type."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.validators: list[Validator] = []

    def default(self) -> Any:
        return self.kind()

    def to_text(self, value: Any) -> str:
        return str(value)

    def from_text(self, text: str) -> Any:
        return self.kind(text)

    def has(self, node: Any, name: str) -> bool:
        return node.HasParameter(name) if hasattr(node, "HasParameter") else node.GetParameter(name) != ""

    def read(self, node: Any, name: str) -> Any:
        return self.from_text(node.GetParameter(name))

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        with slicer.util.NodeModify(node):
            self.store(node, name, value)

    def store(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, self.to_text(value))

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)

    def validate(self, value: Any) -> None:
        for validator in self.validators:
            validator.validate(value)


class NumberCodec(Codec):
    """int and float."""

    def __init__(self, kind: Any) -> None:
        super().__init__(kind)
        self.validators = [NotNone(), IsInstance((int, float) if kind is float else int)]


class TextCodec(Codec):
    """str and paths."""

    def __init__(self, kind: Any) -> None:
        super().__init__(kind)
        self.validators = [NotNone(), IsInstance(kind)]


class BoolCodec(TextCodec):
    """bool, as "True" or "False"."""

    def from_text(self, text: str) -> bool:
        return text == "True"


class EnumCodec(TextCodec):
    """An enum, by the name of the member."""

    def default(self) -> Any:
        return next(iter(self.kind))

    def to_text(self, value: Any) -> str:
        return value.name

    def from_text(self, text: str) -> Any:
        return self.kind[text]


class ColorCodec(TextCodec):
    """qt.QColor, as #aarrggbb."""

    def to_text(self, value: Any) -> str:
        return value.name(qt.QColor.HexArgb)


class RangeCodec(TextCodec):
    """FloatRange, as two numbers."""

    def default(self) -> FloatRange:
        return FloatRange(0.0, 0.0)

    def to_text(self, value: FloatRange) -> str:
        return f"{value.minimum!r} {value.maximum!r}"

    def from_text(self, text: str) -> FloatRange:
        return FloatRange(*map(float, text.split()))


class NodeCodec(Codec):
    """A MRML node, as a reference; an empty text under the same name tells None from "never set"."""

    def __init__(self, kind: Any) -> None:
        super().__init__(kind)
        self.validators = [IsInstance(kind)]

    def default(self) -> None:
        return None

    def read(self, node: Any, name: str) -> Any:
        return node.GetNodeReference(name)

    def store(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, None if value is None else value.GetID())

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class UnionCodec(Codec):
    """One of several types: the number of the type, and the value under a name of its own. Optional is a union."""

    def __init__(self, kind: Any) -> None:
        super().__init__(kind)
        self.codecs = [None if k is type(None) else codec_for(k) for k in typing.get_args(kind)]

    def default(self) -> Any:
        return None if None in self.codecs else self.codecs[0].default()

    def _index(self, value: Any) -> int:
        for index, codec in enumerate(self.codecs):
            if codec is None:
                if value is None:
                    return index
                continue
            try:
                codec.validate(value)
            except (TypeError, ValueError):
                continue
            if value is not None or isinstance(codec, NodeCodec):
                return index
        raise TypeError(f"{value!r} is none of {self.kind}")

    def validate(self, value: Any) -> None:
        super().validate(value)
        self._index(value)

    def read(self, node: Any, name: str) -> Any:
        index = int(node.GetParameter(name))
        codec = self.codecs[index]
        return None if codec is None else codec.read(node, f"{name}_{index}")

    def store(self, node: Any, name: str, value: Any) -> None:
        index = self._index(value)
        for other, codec in enumerate(self.codecs):
            if codec is not None and other != index:
                codec.remove(node, f"{name}_{other}")
        node.SetParameter(name, str(index))
        if self.codecs[index] is not None:
            self.codecs[index].store(node, f"{name}_{index}", value)


class ListCodec(Codec):
    """A list: its length, and each item under its number."""

    def __init__(self, kind: Any) -> None:
        super().__init__(kind)
        self.item = codec_for(typing.get_args(kind)[0])
        self.validators = [NotNone()]

    def default(self) -> list:
        return []

    def validate(self, value: Any) -> None:
        super().validate(value)
        if not isinstance(value, (list, ObservedList)):
            raise TypeError(f"{value!r} is not a list")
        for item in value:
            self.item.validate(item)

    def read(self, node: Any, name: str) -> ObservedList:
        values = [self.item.read(node, f"{name}_{i}") for i in range(int(node.GetParameter(name)))]
        return ObservedList(values, lambda changed: self.write(node, name, changed))

    def store(self, node: Any, name: str, value: Any) -> None:
        value = list(value)
        before = int(node.GetParameter(name) or 0)
        node.SetParameter(name, str(len(value)))
        for index, item in enumerate(value):
            self.item.store(node, f"{name}_{index}", item)
        for index in range(len(value), before):
            self.item.remove(node, f"{name}_{index}")


class ObservedList(collections.abc.MutableSequence):
    """A list that is written to the parameter node whenever it changes."""

    def __init__(self, values: list, save: Any) -> None:
        self._values, self._save = values, save

    def __getitem__(self, index: Any) -> Any:
        return self._values[index]

    def __len__(self) -> int:
        return len(self._values)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._values[index] = value
        self._save(self._values)

    def __delitem__(self, index: Any) -> None:
        del self._values[index]
        self._save(self._values)

    def insert(self, index: int, value: Any) -> None:
        self._values.insert(index, value)
        self._save(self._values)

    def __eq__(self, other: object) -> bool:
        return self._values == (other._values if isinstance(other, ObservedList) else other)

    __hash__ = None

    def __repr__(self) -> str:
        return f"ObservedList({self._values!r})"


class TupleCodec(Codec):
    """A tuple of fixed length."""

    def __init__(self, kind: Any) -> None:
        super().__init__(kind)
        self.items = [codec_for(k) for k in typing.get_args(kind)]

    def default(self) -> tuple:
        return tuple(item.default() for item in self.items)

    def validate(self, value: Any) -> None:
        super().validate(value)
        if not isinstance(value, tuple) or len(value) != len(self.items):
            raise TypeError(f"{value!r} is not a tuple of {len(self.items)}")
        for codec, item in zip(self.items, value, strict=True):
            codec.validate(item)

    def read(self, node: Any, name: str) -> tuple:
        return tuple(codec.read(node, f"{name}_{i}") for i, codec in enumerate(self.items))

    def store(self, node: Any, name: str, value: tuple) -> None:
        node.SetParameter(name, str(len(value)))
        for index, (codec, item) in enumerate(zip(self.items, value, strict=True)):
            codec.store(node, f"{name}_{index}", item)


class DictCodec(Codec):
    """A dict: two lists."""

    def __init__(self, kind: Any) -> None:
        super().__init__(kind)
        self.keys, self.items = (ListCodec(list[k]) for k in typing.get_args(kind))

    def default(self) -> dict:
        return {}

    def validate(self, value: Any) -> None:
        super().validate(value)
        if not isinstance(value, (dict, ObservedDict)):
            raise TypeError(f"{value!r} is not a dict")
        self.keys.validate(list(value.keys()))
        self.items.validate(list(value.values()))

    def read(self, node: Any, name: str) -> ObservedDict:
        pairs = zip(self.keys.read(node, f"{name}_keys"), self.items.read(node, f"{name}_values"), strict=True)
        return ObservedDict(dict(pairs), lambda changed: self.write(node, name, changed))

    def store(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, str(len(value)))
        self.keys.store(node, f"{name}_keys", list(value.keys()))
        self.items.store(node, f"{name}_values", list(value.values()))


class ObservedDict(collections.abc.MutableMapping):
    """A dict that is written to the parameter node whenever it changes."""

    def __init__(self, values: dict, save: Any) -> None:
        self._values, self._save = values, save

    def __getitem__(self, key: Any) -> Any:
        return self._values[key]

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._values[key] = value
        self._save(self._values)

    def __delitem__(self, key: Any) -> None:
        del self._values[key]
        self._save(self._values)

    def __repr__(self) -> str:
        return f"ObservedDict({self._values!r})"


_BY_ORIGIN = {list: ListCodec, tuple: TupleCodec, dict: DictCodec, typing.Union: UnionCodec}


def is_node_type(kind: Any) -> bool:
    """Tell whether a type is a MRML node class."""
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


def codec_for(annotated: Any) -> Codec:
    """Return the codec of a type, with the validators of its annotations.

    Raises:
        TypeError: Slicer's wrapper does not know the type either.
    """
    kind, annotations = split_annotated(annotated)
    codec = _bare_codec(kind)
    codec.validators = codec.validators + [a() if isinstance(a, type) else a for a in annotations if _is_validator(a)]
    return codec


def _is_validator(annotation: Any) -> bool:
    return isinstance(annotation, Validator) or (isinstance(annotation, type) and issubclass(annotation, Validator))


def _bare_codec(kind: Any) -> Codec:
    from .packs import PackCodec, isParameterPack

    origin = typing.get_origin(kind)
    if origin is not None:
        factory = UnionCodec if origin is getattr(types, "UnionType", None) else _BY_ORIGIN.get(origin)
        if factory is not None:
            return factory(kind)
    elif isParameterPack(kind):
        return PackCodec(kind)
    elif kind in (int, float):
        return NumberCodec(kind)
    elif kind is bool:
        return BoolCodec(kind)
    elif kind is FloatRange:
        return RangeCodec(kind)
    elif kind is qt.QColor:
        return ColorCodec(kind)
    elif is_node_type(kind):
        return NodeCodec(kind)
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        return EnumCodec(kind)
    elif kind is str or (isinstance(kind, type) and issubclass(kind, pathlib.PurePath)):
        return TextCodec(kind)
    raise TypeError(f"a parameter node cannot keep values of type {kind}")
