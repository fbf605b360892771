"""Configurations of trainings: dataclasses read from and printed as YAML, with every key documented."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from .errors import DependencyError, RequestError

__all__ = ["config_from_mapping", "config_to_mapping", "load_config", "read_mapping", "render_config"]

T = TypeVar("T")


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise DependencyError(
            "training needs PyYAML, which is not installed", 'install it with: pip install "mri-deep-tools[train]"'
        ) from error
    return yaml


def load_config(kind: type[T], path: Path | str, base: T | None = None) -> T:
    """Read a YAML file into a dataclass; keys it does not name keep the values of ``base`` or the defaults.

    Raises
    ------
    RequestError : an unreadable file, an unknown key, or a value of the wrong type.

    """
    return config_from_mapping(kind, read_mapping(path), Path(path).name, base)


def read_mapping(
    path: Path | str, option: str = "--config", example: str = "print a complete example with --print-config"
) -> Mapping[str, Any]:
    """Read a YAML file that holds keys and values; anything else is :class:`RequestError`.

    ``option`` is the one that named the file, ``example`` where to see what it should hold.
    """
    yaml = _yaml()
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise RequestError(f"{path.name} cannot be read ({error.strerror})", f"check the {option} option") from error
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise RequestError(f"{path.name} is not valid YAML (line {line})", "check its indentation") from error
    if not isinstance(content, Mapping):
        raise RequestError(f"{path.name} holds no keys", example)
    return content


def config_from_mapping(
    kind: type[T], content: Mapping[str, Any], name: str = "configuration", base: T | None = None
) -> T:
    """Build a dataclass from nested mappings, checking keys and simple types; the rest comes from ``base``."""
    hints = typing.get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {near[0]!r}" if near else f"known keys are {', '.join(fields)}"
            raise RequestError(f"{name} has an unknown key {key!r}", hint)
        hint_type = hints[key]
        if dataclasses.is_dataclass(hint_type) and isinstance(value, Mapping):
            part = None if base is None else getattr(base, key)
            values[key] = config_from_mapping(hint_type, value, f"{name}: {key}", part)  # type: ignore[arg-type]
        else:
            values[key] = _checked(value, hint_type, f"{name}: {key}")
    return kind(**values) if base is None else dataclasses.replace(base, **values)  # type: ignore[type-var]


def _checked(value: Any, hint: Any, where: str) -> Any:
    """Return the value when its type fits the annotation (numbers may be written as integers)."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return value
    for option in options:
        if option is Any:
            return value
        if typing.get_origin(option) is typing.Literal:
            if value in typing.get_args(option):
                return value
            choices = ", ".join(map(str, typing.get_args(option)))
            raise RequestError(f"{where} is {value!r}", f"choose one of {choices}")
        base = typing.get_origin(option) or option
        if base is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if base is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if base in (bool, str) and isinstance(value, base):
            return value
        if isinstance(value, list | tuple) and base not in (bool, int, float, str, type(None)):
            return tuple(value) if base is tuple else list(value)
    names = " or ".join(getattr(o, "__name__", str(o)) for o in options)
    raise RequestError(f"{where} is {value!r}, but {names} is needed", "correct the value")


def config_to_mapping(config: Any) -> dict[str, Any]:
    """Return the configuration as plain nested dictionaries and lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    return plain(dataclasses.asdict(config))


def render_config(config: Any, indent: int = 0) -> str:
    """Return the configuration as YAML with the help text of each key as a comment above it."""
    yaml = _yaml()
    lines: list[str] = []
    space = " " * indent
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.metadata.get("help"):
            lines.append(f"{space}# {item.metadata['help']}")
        if dataclasses.is_dataclass(value):
            lines.append(f"{space}{item.name}:")
            lines.append(render_config(value, indent + 2).rstrip("\n"))
        else:
            plain = list(value) if isinstance(value, tuple) else value
            plain = plain.tolist() if hasattr(plain, "tolist") else plain  # priors are NumPy tables
            text = yaml.safe_dump([plain], default_flow_style=True, width=1000).strip()[1:-1]
            lines.append(f"{space}{item.name}: {text}")
    return "\n".join(lines) + "\n"
