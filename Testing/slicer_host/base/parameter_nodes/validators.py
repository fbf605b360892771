"""Conditions on one parameter, given in ``Annotated[...]``. A violation raises when a value is assigned."""

from __future__ import annotations

from typing import Any


class Validator:
    """One condition."""

    def validate(self, value: Any) -> None:
        """Raise ValueError or TypeError if *value* breaks the condition."""
        raise NotImplementedError

    def _require(self, fulfilled: bool, value: Any) -> None:
        if not fulfilled:
            raise ValueError(
                f"{value!r} does not fulfil {type(self).__name__}({', '.join(map(repr, vars(self).values()))})"
            )


class NotNone(Validator):
    """The value is not None."""

    def validate(self, value: Any) -> None:
        self._require(value is not None, value)


class IsNone(Validator):
    """The value is None."""

    def validate(self, value: Any) -> None:
        self._require(value is None, value)


class IsInstance(Validator):
    """The value is of a type, or None."""

    def __init__(self, classtype: Any) -> None:
        self.classtype = classtype

    def validate(self, value: Any) -> None:
        if value is not None and not isinstance(value, self.classtype):
            raise TypeError(f"{value!r} is of type {type(value).__name__}, wanted is {self.classtype}")


class WithinRange(Validator):
    """The value lies between two bounds, which belong to the range."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: Any) -> None:
        self._require(self.minimum <= value <= self.maximum, value)


class Minimum(Validator):
    """The value is not below a bound."""

    def __init__(self, minimum: float) -> None:
        self.minimum = minimum

    def validate(self, value: Any) -> None:
        self._require(value >= self.minimum, value)


class Maximum(Validator):
    """The value is not above a bound."""

    def __init__(self, maximum: float) -> None:
        self.maximum = maximum

    def validate(self, value: Any) -> None:
        self._require(value <= self.maximum, value)


class Choice(Validator):
    """The value is one of a list."""

    def __init__(self, choices: list) -> None:
        self.choices = choices

    def validate(self, value: Any) -> None:
        self._require(value in self.choices, value)


class Exclude(Validator):
    """The value is none of a list."""

    def __init__(self, excludedValues: list) -> None:
        self.excludedValues = excludedValues

    def validate(self, value: Any) -> None:
        self._require(value not in self.excludedValues, value)


class RangeBounds(Validator):
    """A FloatRange lies between two bounds."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: Any) -> None:
        self._require(self.minimum <= value.minimum and value.maximum <= self.maximum, value)
