"""What is known of every pretrained model, read from ``models.json`` and checked.

A site adds or replaces entries (its own mirror, its own models) with a file of the same form named by the
environment variable ``MRI_DEEP_TOOLS_REGISTRY``.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import RequestError

__all__ = ["REGISTRY_FORMAT", "Model", "ModelFile", "load_registry", "registry", "source_fault"]

REGISTRY_FORMAT = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ()._+-]*")
_PACKAGED = Path(__file__).with_name("models.json")


@dataclass(frozen=True)
class ModelFile:
    """One file of a model.

    ``size`` is in bytes; ``sha256`` (64 digits) and ``git_blob`` (40 digits, git's id of the content) are as
    published, None where nobody published them; ``sources`` are addresses to fetch it from, best first;
    ``aliases`` are other names under which people have the same file. ``stated`` files have no published checksum;
    their source states size and SHA-256 when it is asked (see :mod:`._hub`).
    """

    name: str
    size: int | None = None
    sha256: str | None = None
    git_blob: str | None = None
    sources: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    stated: bool = False

    @property
    def can_be_fetched(self) -> bool:
        """True where there is a source, and a checksum to judge what it gives."""
        return bool(self.sources) and (self.has_checksum or self.stated)

    @property
    def has_checksum(self) -> bool:
        """True where the content can be told from any other content by a published checksum."""
        return self.sha256 is not None or self.git_blob is not None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name under which the file may be found."""
        return (self.name, *self.aliases)


@dataclass(frozen=True)
class Model:
    """One pretrained model.

    ``task`` is what it does (``segment``, ``parcellate``, ``quality``, ...); ``input_needs`` says which images it
    takes (contrast, spacing, dims, field of view); ``bundled`` models are part of the package; ``pages`` are for a
    person who wants to fetch a file by hand.
    """

    name: str
    task: str
    files: tuple[ModelFile, ...]
    licence: str
    citation: tuple[str, ...]
    input_needs: Mapping[str, Any] = field(hash=False)
    bundled: bool
    description: str
    pages: tuple[str, ...] = ()

    @property
    def size(self) -> int | None:
        """Size of all files in bytes, or None where one of them is unknown."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def file(self, name: str | None = None) -> ModelFile:
        """Return the file called ``name``, or the first, which holds the weights.

        Raises
        ------
        RequestError : the model has no such file.

        """
        for file in self.files:
            if name is None or file.name == name:
                return file
        listed = ", ".join(file.name for file in self.files)
        raise RequestError(f"the model {self.name} has no file called {name}", f"it has {listed}")


def registry() -> tuple[Model, ...]:
    """Return all known models: those of the package, then those that the site adds or replaces.

    Raises
    ------
    RequestError : the site's list cannot be read or is not of the right form.

    """
    models = {model.name: model for model in _load_cached(str(_PACKAGED), 0)}
    extra = os.environ.get("MRI_DEEP_TOOLS_REGISTRY", "").strip()
    if extra:
        try:
            stamp = Path(extra).stat().st_mtime_ns
        except OSError as error:
            raise RequestError(
                f"{Path(extra).name}, named by MRI_DEEP_TOOLS_REGISTRY, cannot be read ({error.strerror})",
                "correct or unset that environment variable",
            ) from None
        models.update({model.name: model for model in _load_cached(extra, stamp)})
    return tuple(models.values())


@functools.lru_cache(maxsize=8)
def _load_cached(path: str, stamp: int) -> tuple[Model, ...]:
    return load_registry(Path(path))


def load_registry(path: Path) -> tuple[Model, ...]:
    """Return the models that a list in the form of ``models.json`` describes.

    Raises
    ------
    RequestError : the file cannot be read, or an entry is not of the right form; says which and why.

    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("format") != REGISTRY_FORMAT:
            raise ValueError(f"it must be an object with 'format': {REGISTRY_FORMAT}")
        models = tuple(_model(entry) for entry in _list(data, "models", dict))
        names = [model.name for model in models]
        if len(set(names)) != len(names):
            raise ValueError("two models have the same name")
    except (OSError, ValueError) as error:
        raise RequestError(f"{path.name} is not a usable list of models: {error}", "correct that file") from None
    return models


def source_fault(url: str) -> str | None:
    """Return why an address must not be used as a source, or None: https, or plain http to this very machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return "it is not an address"
    if parts.scheme not in ("http", "https"):
        return "only https addresses are allowed"
    if not host or parts.username or parts.password:
        return "it must name a host and no user"
    if parts.scheme == "http" and not _is_loopback(host):
        return "plain http is allowed for this machine only"
    return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _model(entry: dict[str, Any]) -> Model:
    name = _text(entry, "name", "a model")
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' is not a model name (small letters, digits, dots and hyphens)")
    _known_keys(entry, Model, name)
    needs = entry.get("input_needs")
    if not isinstance(needs, dict) or not needs:
        raise ValueError(f"{name}: input_needs must be a non-empty object")
    bundled = entry.get("bundled", False)
    if not isinstance(bundled, bool):
        raise ValueError(f"{name}: bundled must be true or false")
    files = tuple(_file(item, name) for item in _list(entry, "files", dict))
    taken = [alias for file in files for alias in file.names]
    if not files or len(set(taken)) != len(taken):
        raise ValueError(f"{name}: needs at least one file, and no file name twice")
    return Model(
        name=name,
        task=_text(entry, "task", name),
        files=files,
        licence=_text(entry, "licence", name),
        citation=_nonempty(_list(entry, "citation", str), f"{name}: citation"),
        input_needs=needs,
        bundled=bundled,
        description=_text(entry, "description", name),
        pages=tuple(_list(entry, "pages", str, missing_ok=True)),
    )


def _file(entry: dict[str, Any], model: str) -> ModelFile:
    name = _text(entry, "name", f"a file of {model}")
    where = f"{model}, {name}"
    _known_keys(entry, ModelFile, where)
    aliases = tuple(_list(entry, "aliases", str, missing_ok=True))
    for one in (name, *aliases):
        if not _FILE_NAME.fullmatch(one) or one.endswith((".part", ".lock")):
            raise ValueError(f"{model}: '{one}' is not a plain file name")
    size = entry.get("size")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ValueError(f"{where}: size must be a positive number of bytes or null")
    sources = tuple(_list(entry, "sources", str, missing_ok=True))
    for url in sources:
        if fault := source_fault(url):
            raise ValueError(f"{where}: the source {url} cannot be used: {fault}")
    sha256, git_blob = _hexadecimal(entry, "sha256", 64, where), _hexadecimal(entry, "git_blob", 40, where)
    stated = entry.get("stated", False)
    if not isinstance(stated, bool) or (stated and (not sources or sha256 or git_blob or size)):
        raise ValueError(f"{where}: stated is for files with a source and without size and checksums")
    if (sources or git_blob) and size is None and not stated:
        raise ValueError(f"{where}: a file with sources or a git id needs its size")
    return ModelFile(name, size, sha256, git_blob, sources, aliases, stated)


def _known_keys(entry: dict[str, Any], kind: type, where: str) -> None:
    unknown = sorted(set(entry) - set(kind.__dataclass_fields__))  # type: ignore[attr-defined]
    if unknown:
        raise ValueError(f"{where}: unknown key '{unknown[0]}'")


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: '{key}' must be a text")
    return value


def _list(entry: dict[str, Any], key: str, kind: type, *, missing_ok: bool = False) -> list[Any]:
    value = entry.get(key, [] if missing_ok else None)
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise ValueError(f"{entry.get('name', 'the file')}: '{key}' must be a list of {kind.__name__}")
    return value


def _nonempty(values: list[str], where: str) -> tuple[str, ...]:
    if not values:
        raise ValueError(f"{where} must not be empty")
    return tuple(values)


def _hexadecimal(entry: dict[str, Any], key: str, digits: int, where: str) -> str | None:
    value = entry.get(key)
    if value is not None and not (isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{digits}}}", value)):
        raise ValueError(f"{where}: {key} must be {digits} small hexadecimal digits or null")
    return value
