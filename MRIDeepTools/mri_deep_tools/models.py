"""The list of pretrained models: what there is, where it comes from, and getting it onto this machine.

``models.json`` holds the facts (sources, sizes, checksums, licence, citation, input needs). Small models of this
project are bundled with the package; published ones are downloaded on request or imported from a folder, checked
against their published checksums each time they are used, and kept in :func:`cache_dir`.

Environment: ``MRI_DEEP_TOOLS_CACHE`` overrides the cache folder, ``MRI_DEEP_TOOLS_OFFLINE=1`` forbids the network,
``MRI_DEEP_TOOLS_REGISTRY`` names a file that adds or replaces entries, ``FREESURFER_HOME`` lets the models of a
FreeSurfer installation be used where they are.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import _install
from ._download import content_fault, fetch, part_path
from ._files import cache_dir, human_size, sha256_of
from ._hub import stated_by_source
from ._install import FileCheck, Imported, Place, StructureCheck
from ._registry import Model, ModelFile, load_registry, registry
from .errors import DownloadError, RequestError, WeightsError
from .progress import Progress

__all__ = [
    "FileCheck",
    "Imported",
    "Model",
    "ModelFile",
    "cache_dir",
    "describe",
    "download",
    "get_model",
    "human_size",
    "identify",
    "import_models",
    "is_offline",
    "list_models",
    "load_registry",
    "model_path",
    "model_status",
    "remove",
    "verify",
]

DEFAULT_TIMEOUT_S = 30.0


def list_models(task: str | None = None) -> list[Model]:
    """Return all known models, or those for one task (``segment``, ``parcellate``, ``quality``, ...)."""
    return [model for model in registry() if task is None or model.task == task]


def get_model(name: str) -> Model:
    """Return the model called ``name``.

    Raises
    ------
    RequestError : there is no such model; the hint names the nearest or all.

    """
    known = {model.name: model for model in registry()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"
    raise RequestError(f"there is no model called {name}", hint)


def model_status(model: Model | str) -> str:
    """Return ``bundled``, ``installed`` (in the cache or in FreeSurfer), or ``absent``; looks at sizes alone."""
    model = get_model(model) if isinstance(model, str) else model
    for file in model.files:
        if not any(_has_size(place, file) for place in _install.places(model, file)):
            return "absent"
    return "bundled" if model.bundled else "installed"


def model_path(name: str, file: str | None = None) -> Path:
    """Return the path of a model's file (the weights, unless ``file`` names another), checked by size and checksum.

    It is looked for in the package, in the cache, and in ``$FREESURFER_HOME/models``.

    Raises
    ------
    WeightsError : the file is not on this machine, or is damaged; the hint says how to get it.
    RequestError : there is no such model, or it has no such file.

    """
    model = get_model(name)
    wanted = model.file(file)
    path, against = _install.find_good(model, wanted)
    if path is not None:
        return path
    if model.bundled:
        message = f"{wanted.name} of the bundled model {name} is missing"
        raise WeightsError(message, "use a published model, or a release of mri-deep-tools that carries it")
    ways = []
    if any(one.can_be_fetched for one in model.files):
        ways.append(f"'mri-deep-tools models download {name}'")
    ways.append(f"'mri-deep-tools models import FOLDER' with a folder that holds {wanted.name}")
    hint = f"run {' or '.join(ways)}"
    if name.startswith("synthseg"):
        hint += " (FreeSurfer 7.4 or newer has the published files in its folder models)"
    elif len(ways) == 1 and model.pages:
        hint += f"; its page is {model.pages[0]}"
    if against is not None:
        place = "FreeSurfer's models folder" if against.where == "freesurfer" else "the model cache"
        raise WeightsError(f"{wanted.name} in {place} is not to be trusted: {against.detail}", hint)
    raise WeightsError(f"the model {name} is not on this machine", hint)


def is_offline(offline: bool | None = None) -> bool:
    """Return whether the network is forbidden: ``offline``, or where it is None, ``MRI_DEEP_TOOLS_OFFLINE``."""
    if offline is not None:
        return offline
    return os.environ.get("MRI_DEEP_TOOLS_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


def download(
    name: str,
    progress: Progress | None = None,
    offline: bool | None = None,
    *,
    timeout: float = DEFAULT_TIMEOUT_S,
) -> list[Path]:
    """Fetch the files of a model into the cache, unless they are there and right; return their paths.

    An interrupted transfer goes on where it stopped; two processes at once fetch a file once; a file is in its
    place whole and checked, or not at all.

    Parameters
    ----------
    name :
        of the model.
    progress :
        told of the share of bytes that are here, as the stage ``download``.
    offline :
        True forbids the network; None leaves it to ``MRI_DEEP_TOOLS_OFFLINE``.
    timeout :
        longest silence of a server, in seconds.

    Raises
    ------
    DownloadError : the network is forbidden, no source gave the file, or nobody published a checksum of it.
    OutputError : the cache cannot be written, or the disk has no room.
    RequestError : there is no such model.

    """
    model = get_model(name)
    progress = progress or Progress()
    with progress.stage("download"):
        if model.bundled:
            return [model_path(name, file.name) for file in model.files]
        total, before = model.size or 1, 0
        for file in model.files:
            target = _install.cached_path(model, file)
            if not _is_good(model, file, target):
                if is_offline(offline):
                    raise DownloadError(
                        f"{file.name} is not on this machine and the network is switched off",
                        "unset MRI_DEEP_TOOLS_OFFLINE, or use 'mri-deep-tools models import FOLDER'",
                    )
                _fetch_one(file, target, progress, before, total, timeout)
            before += file.size or 0
    return [_install.cached_path(model, file) for file in model.files]


def _fetch_one(file: ModelFile, target: Path, progress: Progress, before: int, total: int, timeout: float) -> None:
    if file.stated:
        file = stated_by_source(file, timeout)
        progress.warn(
            f"nobody published a checksum of {file.name}; it is checked against the one that its source states today"
        )
        total = max(total, before + (file.size or 0))

    def on_bytes(here: int) -> None:
        progress.update((before + here) / total)

    def on_wait() -> None:
        progress.warn(f"Another process is fetching {file.name}; waiting for it")
        try:
            on_bytes(part_path(target).stat().st_size)
        except FileNotFoundError:
            return

    host = fetch(file, target, on_bytes=on_bytes, on_wait=on_wait, timeout=timeout)
    if host is not None or not _install.read_record(target):
        _install.write_record(target, file, sha256_of(target), f"download from {host}" if host else "download")


def import_models(
    folder: str | Path | None = None,
    names: Sequence[str] | None = None,
    *,
    link: bool = False,
    check: StructureCheck | None = None,
    progress: Progress | None = None,
) -> list[Imported]:
    """Take known weights files from a folder into the cache.

    Files are recognised by their names, or by size and checksum whatever their names, and refused where they differ
    from what was published. A file of which nobody published a checksum is trusted on first use: ``check`` must
    find it fit, and its SHA-256 is recorded.

    Parameters
    ----------
    folder :
        holds the files itself or in a folder ``models`` (a FreeSurfer installation, a SynthSeg clone); may be
        one file; None means ``$FREESURFER_HOME/models``.
    names :
        of the models to import; None means all.
    link :
        make symbolic links instead of copies.
    check :
        ``check(model, path)`` raises WeightsError where the structure of a file does not fit the model.
    progress :
        told of the share of files done, as the stage ``import``.

    Returns
    -------
    One entry per file that was found; at least one of them is not refused.

    Raises
    ------
    RequestError : the folder does not exist, or a model is unknown.
    WeightsError : no known file was found, or all were refused.
    OutputError : the cache cannot be written, or the disk has no room.

    """
    source = _install.freesurfer_models() if folder is None else Path(folder).expanduser()
    if source is None:
        raise RequestError("FREESURFER_HOME does not name a FreeSurfer installation with models", "name a folder")
    if not source.exists():
        raise RequestError(f"{source.name} does not exist", "check the path of the folder to import from")
    chosen = list_models() if names is None else [get_model(name) for name in names]
    progress = progress or Progress()
    with progress.stage("import"):
        found = _install.find_files(chosen, source)
        results = []
        for done, (model, file, path) in enumerate(found):
            progress.update(done / len(found))
            results.append(_install.import_file(model, file, path, link=link, check=check))
    if not results:
        names_of = [file.name for model in chosen if not model.bundled for file in model.files]
        wanted = ", ".join(dict.fromkeys(names_of))
        raise WeightsError(f"{source.name} holds no file of a known model", f"it should hold one of {wanted}")
    refused = [result for result in results if result.status == "refused"]
    if len(refused) == len(results):
        raise WeightsError(
            "; ".join(f"{result.file} was refused: {result.detail}" for result in refused),
            "weights of your own are used with --weights FILE, without import",
        )
    return results


def verify(name: str | None = None) -> list[FileCheck]:
    """Read every installed file of a model, or of all models, and compare it with its checksum.

    With a name, files that are not there are listed as ``absent``; without one they are left out.
    """
    checks = []
    for model in list_models() if name is None else [get_model(name)]:
        for file in model.files:
            found = list(_install.places(model, file))
            checks += [_install.check_file(model, file, place) for place in found[:1]]
            if not found and name is not None:
                checks.append(FileCheck(model.name, file.name, "absent", "", "nothing"))
    return checks


def remove(name: str) -> int:
    """Remove a model from the cache, with what was converted from it; return the bytes freed (0: it was not there).

    Raises
    ------
    RequestError : there is no such model, or it is part of the package.
    OutputError : a file cannot be removed.

    """
    model = get_model(name)
    if model.bundled:
        raise RequestError(f"{name} is part of the package and cannot be removed alone", "choose another model")
    return _install.remove_files(model)


def identify(path: str | Path) -> tuple[Model, ModelFile] | None:
    """Return the published model that a file is, judged by size and checksum, whatever its name; or None."""
    path = Path(path)
    if not path.is_file():
        return None
    pairs = [(model, file) for model in registry() for file in model.files if file.has_checksum]
    return next(((model, file) for model, file in pairs if content_fault(path, file) is None), None)


def describe(model: Model | str) -> dict[str, Any]:
    """Return all that is known of a model as plain data (JSON types), with its status on this machine."""
    model = get_model(model) if isinstance(model, str) else model
    files = []
    for file in model.files:
        found = next((place for place in _install.places(model, file) if _has_size(place, file)), None)
        files.append(
            {
                "name": file.name,
                "size": file.size,
                "size_text": human_size(file.size),
                "sha256": file.sha256,
                "git_blob": file.git_blob,
                "sources": list(file.sources),
                "where": found.where if found else None,
            }
        )
    return {
        "name": model.name,
        "task": model.task,
        "description": model.description,
        "status": model_status(model),
        "bundled": model.bundled,
        "size": model.size,
        "size_text": human_size(model.size),
        "licence": model.licence,
        "citation": list(model.citation),
        "input_needs": dict(model.input_needs),
        "pages": list(model.pages),
        "files": files,
    }


def _is_good(model: Model, file: ModelFile, target: Path) -> bool:
    return target.is_file() and _install.check_file(model, file, Place("cache", target)).status == "ok"


def _has_size(place: Place, file: ModelFile) -> bool:
    return file.size is None or place.path.stat().st_size == file.size
