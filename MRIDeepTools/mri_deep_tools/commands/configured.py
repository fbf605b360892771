"""Options of commands that take a configuration: ``--config FILE``, ``--set KEY=VALUE`` and ``--print-config``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import RequestError

__all__ = ["add_config_options", "configured", "wanted"]

T = TypeVar("T")


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add the three options."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file; keys it leaves out keep their defaults")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one key of the configuration, as in --set run.steps=1000; may be given repeatedly",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the whole configuration with every key explained, and end"
    )


def wanted(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the file and the ``--set`` options say, as nested mappings; the options win.

    Raises
    ------
    RequestError : the file cannot be read, or an option is not KEY=VALUE.

    """
    from ..config import read_mapping

    content = _plain(read_mapping(args.config)) if args.config else {}
    for setting in args.settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise RequestError(f"--set {setting} is not of the form KEY=VALUE", "see --print-config for the keys")
        place = content
        *path, last = key.strip().split(".")
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise RequestError(f"--set {setting}: {part} has no keys below it", "see --print-config for the keys")
        place[last] = _value(text)
    return content


def configured(base: T, content: Mapping[str, Any], args: argparse.Namespace) -> T:
    """Return a configuration: ``base`` with the keys that ``content`` changes.

    Raises
    ------
    RequestError : an unknown key, or a value of the wrong type.

    """
    from ..config import config_from_mapping

    name = args.config.name if args.config else "the configuration"
    if args.config and args.settings:
        name += " with --set"  # either may be wrong
    return config_from_mapping(type(base), content, name, base)


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) if isinstance(value, Mapping) else value for key, value in content.items()}


def _value(text: str) -> Any:
    """Read a value as JSON where it is (numbers, true, null, lists), else as the text that it is."""
    text = text.strip()
    try:
        return json.loads({"none": "null"}.get(text.lower(), text))
    except json.JSONDecodeError:
        return text
