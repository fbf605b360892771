"""Where the files of a model are, whether they are right, and how they get into the cache and out of it.

A file is looked for in the package (bundled models), in the cache, and in ``$FREESURFER_HOME/models``. A file without
a published checksum is trusted on first use: it gets in by import alone, after a check of its structure, and its
SHA-256 is recorded beside it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ._download import check_space, content_fault, exclusive, part_path
from ._files import CACHE_HINT, cache_dir, output_error, sha256_of
from ._registry import Model, ModelFile
from .checkpoints._sniff import kind_of
from .errors import OutputError, RequestError, WeightsError

__all__ = [
    "FileCheck",
    "Imported",
    "Place",
    "cached_path",
    "check_file",
    "find_files",
    "find_good",
    "freesurfer_models",
    "import_file",
    "places",
    "read_record",
    "remove_files",
    "write_record",
]

StructureCheck = Callable[[Model, Path], None]
_PACKAGE_WEIGHTS = Path(__file__).with_name("weights")


@dataclass(frozen=True)
class Place:
    """A file that may be the one: ``where`` is ``package``, ``cache`` or ``freesurfer``."""

    where: str
    path: Path


@dataclass(frozen=True)
class FileCheck:
    """The verdict on one file.

    ``status`` is ``ok``, ``damaged``, ``unknown`` (nothing to compare with) or ``absent``; ``against`` says in words
    with what it was compared; ``detail`` says what is wrong.
    """

    model: str
    file: str
    status: str
    where: str
    against: str
    detail: str = ""


@dataclass(frozen=True)
class Imported:
    """What an import did with one file: ``status`` is ``copied``, ``linked``, ``present`` or ``refused``."""

    model: str
    file: str
    status: str
    size: int
    detail: str = ""


def cached_path(model: Model, file: ModelFile) -> Path:
    """Return where the cache keeps the file; it need not be there."""
    return cache_dir() / "models" / model.name / file.name


def freesurfer_models() -> Path | None:
    """Return the folder of models of the FreeSurfer installation that ``FREESURFER_HOME`` names, if there is one."""
    home = os.environ.get("FREESURFER_HOME", "").strip()
    folder = Path(home) / "models"
    return folder if home and folder.is_dir() else None


def places(model: Model, file: ModelFile) -> Iterator[Place]:
    """Give the existing files that may be the one, the best place first; nothing is checked but the size."""
    candidates = []
    if model.bundled:
        candidates.append(Place("package", _PACKAGE_WEIGHTS / model.name / file.name))
    else:
        candidates.append(Place("cache", cached_path(model, file)))
    folder = freesurfer_models()
    if folder is not None and file.has_checksum:
        candidates += [Place("freesurfer", folder / name) for name in file.names]
    for place in candidates:
        with suppress(OSError):
            size = place.path.stat().st_size if place.path.is_file() else -1
            if size > 0 and (place.where == "cache" or file.size in (None, size)):
                yield place


def find_good(model: Model, file: ModelFile) -> tuple[Path | None, FileCheck | None]:
    """Return the first place whose content is right, and the first verdict against a place where there was one."""
    against: FileCheck | None = None
    for place in places(model, file):
        verdict = check_file(model, file, place)
        if verdict.status == "ok" or (verdict.status == "unknown" and place.where == "package"):
            return place.path, against
        against = against or verdict
    return None, against


def check_file(model: Model, file: ModelFile, place: Place) -> FileCheck:
    """Compare a file with what was published of it, or with what was recorded when it was imported."""

    def verdict(status: str, against: str, detail: str = "") -> FileCheck:
        return FileCheck(model.name, file.name, status, place.where, against, detail)

    fault = content_fault(place.path, file)
    if file.has_checksum:
        kind = "published SHA-256" if file.sha256 else "published git blob id"
        return verdict("ok", kind) if fault is None else verdict("damaged", kind, fault)
    if fault is not None:
        return verdict("damaged", "published size", fault)
    if place.where == "package":
        return verdict("unknown", "nothing: it came with the package")
    recorded = read_record(place.path).get("sha256")
    if recorded is None:
        return verdict("unknown", "nothing: no checksum is published and none was recorded", "import it again")
    if recorded == sha256_of(place.path):
        return verdict("ok", "SHA-256 recorded at import (none is published)")
    return verdict("damaged", "SHA-256 recorded at import (none is published)", "it changed since it was imported")


def record_path(path: Path) -> Path:
    """Return the path of the record that belongs to an installed file."""
    return path.with_name(path.name + ".record.json")


def read_record(path: Path) -> dict[str, str]:
    """Return what was recorded when the file was installed; empty where there is no usable record."""
    try:
        record = json.loads(record_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in record.items()} if isinstance(record, dict) else {}


def write_record(path: Path, file: ModelFile, sha256: str, origin: str) -> None:
    """Note beside an installed file its SHA-256, when and from where it came, and whether the checksum was published.

    Raises
    ------
    OutputError : the folder cannot be written.

    """
    from .volume import atomic_path

    record = {
        "file": file.name,
        "sha256": sha256,
        "checksum": "published" if file.has_checksum else "recorded, not published",
        "origin": origin,
        "installed": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    try:
        with atomic_path(record_path(path)) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise output_error(file.name, error) from None


def find_files(models: Sequence[Model], folder: Path) -> list[tuple[Model, ModelFile, Path]]:
    """Return the files in ``folder`` or ``folder/models`` (or the file ``folder``) that are files of ``models``.

    A file is told by its size and checksum, else by one of its names, in which case its content is yet to be judged.

    Raises
    ------
    RequestError : the folder cannot be read.

    """
    if folder.is_file():
        entries = [folder]
    else:
        try:
            entries = [path for place in (folder, folder / "models") if place.is_dir() for path in place.iterdir()]
        except OSError as error:
            raise RequestError(f"{folder.name} cannot be read ({error.strerror})", "check its rights") from None
    entries = sorted(path for path in entries if path.is_file())
    owned = [(owner, file) for owner in models if not owner.bundled for file in owner.files]
    right, named = {}, {}
    for model, file in owned:
        by_name = [path for path in entries if path.name in file.names]
        sized = [path for path in entries if file.size is not None and path.stat().st_size == file.size]
        good = [path for path in [*by_name, *sized] if file.has_checksum and content_fault(path, file) is None]
        if good:
            right[model.name, file.name] = good[0]
        elif by_name:
            named[model.name, file.name] = by_name[0]
    found = []
    for model, file in owned:
        key = model.name, file.name
        if key in right and _is_meant(model, right[key], right):
            found.append((model, file, right[key]))
        elif key in named and not _is_ambiguous(model, named[key], right, owned):
            found.append((model, file, named[key]))
    return found


def _is_meant(model: Model, path: Path, right: Mapping[tuple[str, str], Path]) -> bool:
    """Tell whether a file is this model's: parts that several models have alike go to those whose other files are here.

    The checkpoints of one network in TensorFlow's format share the part that describes its layers.
    """
    claims = {name for (name, _), other in right.items() if other == path}
    return len(claims) == 1 or all((model.name, file.name) in right for file in model.files)


def _is_ambiguous(
    model: Model, path: Path, right: Mapping[tuple[str, str], Path], owned: Sequence[tuple[Model, ModelFile]]
) -> bool:
    """Tell whether a file that is known by its name alone is another model's, or could be; the same names recur."""
    if path in right.values():
        return True
    return any(owner.name != model.name and path.name in file.names for owner, file in owned)


def import_file(model: Model, file: ModelFile, path: Path, *, link: bool, check: StructureCheck | None) -> Imported:
    """Take one file into the cache if its content is right, or if none is published and ``check`` accepts it.

    Raises
    ------
    OutputError : the cache cannot be written, or the disk has no room.

    """
    target = cached_path(model, file)
    size = path.stat().st_size

    def result(status: str, detail: str = "") -> Imported:
        return Imported(model.name, file.name, status, size, detail)

    fault = content_fault(path, file)
    if fault is not None:
        return result("refused", _why_not(path, fault))
    if not file.has_checksum:
        if check is None:
            return result("refused", "no checksum of it is published and its structure was not checked")
        try:
            check(model, path)
        except WeightsError as error:
            return result("refused", error.message)
    sha256 = sha256_of(path)
    with exclusive(target):
        if target.is_file() and sha256_of(target) == sha256:
            if not read_record(target):
                write_record(target, file, sha256, "import")
            return result("present")
        status = _place(path, target, sha256, link=link)
        write_record(target, file, sha256, "import")
        part_path(target).unlink(missing_ok=True)
    return result(status, "" if file.has_checksum else "trusted on first use: its SHA-256 is recorded, not published")


def _why_not(path: Path, fault: str) -> str:
    with suppress(OSError):
        kind = kind_of(path)
        if kind != "an HDF5 file":
            return f"it is {kind}"
    return fault


def _place(path: Path, target: Path, sha256: str, *, link: bool) -> str:
    """Link or copy ``path`` to ``target``; a copy is checked before it takes its place."""
    from .volume import atomic_path

    if link:
        _link(path.resolve(), target)
        return "linked"
    check_space(target.parent, path.stat().st_size, target.name)
    try:
        with atomic_path(target) as temporary:
            shutil.copyfile(path, temporary)
            if sha256_of(temporary) != sha256:
                raise OutputError(f"the copy of {target.name} differs from the original", CACHE_HINT)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise output_error(target.name, error) from None
    return "copied"


def _link(path: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.link")
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(path)
        temporary.replace(target)
    except OSError as error:
        why = error.strerror or error
        raise OutputError(f"{target.name} cannot be linked ({why})", "import it without links") from None


def remove_files(model: Model) -> int:
    """Remove the model's cached files, unfinished transfers and converted copies; return the bytes freed.

    Raises
    ------
    OutputError : a file cannot be removed.

    """
    from .checkpoints.cache import forget

    freed = 0
    for file in model.files:
        target = cached_path(model, file)
        if not target.parent.is_dir():
            continue
        with exclusive(target):
            known = {file.sha256, read_record(target).get("sha256")} - {None}
            freed += sum(forget(sha256) for sha256 in known if sha256)
            for path in (target, part_path(target), record_path(target)):
                freed += _remove(path)
    return freed


def _remove(path: Path) -> int:
    try:
        size = path.lstat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise OutputError(f"{path.name} cannot be removed ({error.strerror or error})", "check its rights") from None
    return size
