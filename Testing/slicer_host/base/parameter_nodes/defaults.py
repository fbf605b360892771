"""The value of a parameter before anyone sets it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from .codecs import Codec, split_annotated

if TYPE_CHECKING:
    from collections.abc import Callable


class Default:
    """``Annotated[T, Default(value)]`` or ``Default(generator=function)``."""

    def __init__(self, value: Any = None, *, generator: Callable[[], Any] | None = None) -> None:
        self._value, self._generator = value, generator

    @property
    def value(self) -> Any:
        return self._generator() if self._generator is not None else copy.deepcopy(self._value)


def default_of(cls: type, name: str, hint: Any, codec: Codec) -> Callable[[], Any]:
    """Return a function that makes the default: by assignment in the class, by annotation, or the type's own."""
    if hasattr(cls, name):
        value = getattr(cls, name)
        return lambda: copy.deepcopy(value)
    for annotation in split_annotated(hint)[1]:
        if isinstance(annotation, Default):
            return lambda: annotation.value
    return codec.default
