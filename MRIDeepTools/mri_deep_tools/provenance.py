"""The JSON sidecar beside each output: what made it, from what, how, and how long it took.

Keys follow BIDS derivatives where BIDS has one (``GeneratedBy``). The record holds file names and checksums but no
folders, no user or host name, and nothing from image headers that could name a person or a date of acquisition;
with ``hide_names`` not even file names.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import InputError

if TYPE_CHECKING:
    from ._registry import Model
    from .volume import Volume

__all__ = [
    "DISCLAIMER",
    "HIDDEN",
    "SCHEMA_VERSION",
    "ModelUse",
    "describe_geometry",
    "file_facts",
    "finite",
    "make_record",
    "model_use",
    "private_names",
    "sidecar_path",
    "without_names",
    "write_sidecar",
]

SCHEMA_VERSION = "1.1.0"
"""Of the sidecar (``schemas/sidecar.schema.json``): a new field is a new minor version, a changed one a major."""
DISCLAIMER = (
    "Research use only. Not a medical device. Results need a visual check and are not for decisions about a person."
)
HIDDEN = "hidden"
"""Stands in place of a file name under ``hide_names``."""

_PACKAGES = ("numpy", "scipy", "torch", "nibabel", "SimpleITK", "h5py", "safetensors")
_WHERE_USED = ("dipy",)  # told only by commands that use it
# A folder path in a sentence: a drive, a home or a root, then components up to the last separator. Components may
# hold blanks, not end with one. Fractions, alternatives (left/right) and web addresses do not match.
_COMPONENT = r"[^\\/\s\"'<>|;,](?:[^\\/\n\"'<>|;,]*[^\\/\s\"'<>|;,])?"
_FOLDERS = re.compile(rf"(?<![\w:/\\.])(?:[A-Za-z]:|~|\.{{1,2}}|\\)?[\\/](?:{_COMPONENT}[\\/])*(?=[^\s\\/])")


@dataclass(frozen=True)
class ModelUse:
    """A model that took part: what it is called, the file that was loaded, where it comes from, and its terms."""

    name: str
    file: Path | None = None
    source: str = ""
    licence: str = ""
    citation: tuple[str, ...] = ()


def model_use(model: Model | str | Path, file: str | Path | None = None) -> ModelUse:
    """Describe a model for :func:`make_record`.

    Parameters
    ----------
    model :
        An entry or a name of the model list, or the path of a weights file of the user.
    file :
        The file that was loaded, when ``model`` is not itself a path; its SHA-256 goes into the record.

    Returns
    -------
    :class:`ModelUse` with source, licence and citation from the model list.

    """
    if isinstance(model, Path):
        return ModelUse(model.name, model, "file given by the user")
    if isinstance(model, str):
        from ._registry import registry

        known = {entry.name: entry for entry in registry()}
        if model not in known:
            return ModelUse(model, Path(file) if file else None, "file given by the user")
        model = known[model]
    addresses = model.files[0].sources if model.files else ()
    source = "bundled with mri-deep-tools" if model.bundled else (addresses[0] if addresses else "")
    return ModelUse(model.name, Path(file) if file else None, source, model.licence, tuple(model.citation))


def make_record(
    command: str,
    inputs: Sequence[str | Path],
    model: ModelUse | Sequence[ModelUse] | None = None,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    seconds: Mapping[str, float] | None = None,
    peak_memory_bytes: int | None = None,
    warnings: Sequence[str] = (),
    outputs: Sequence[str | Path] | Mapping[Path, Path] = (),
    *,
    precision: str = "fp32",
    threads: int | None = None,
    geometry: Mapping[str, Volume] | None = None,
    synthetic: bool = False,
    hide_names: bool = False,
    roles: Mapping[Path, str] | None = None,
) -> dict[str, Any]:
    """Return the record of one run: JSON types only, ready for :func:`write_sidecar` and the report.

    Parameters
    ----------
    command :
        Name of the command: ``segment``, ``harmonize``, ...
    inputs, outputs :
        Files, or folders with one DICOM series; name, size in bytes and SHA-256 are recorded. Outputs that still lie
        under a temporary name are given as a mapping from their final to their present path.
    model :
        Models that took part; see :func:`model_use`.
    device, precision, threads :
        What the network ran on, as ``cpu`` or ``cuda:0 NVIDIA A100``, how precisely, with how many threads.
    options, warnings :
        All options and warnings of the run; folders in them are removed.
    seconds, peak_memory_bytes :
        Duration of each stage in seconds, in order; peak memory of the process, or of the GPU where one was used.
    geometry :
        Volumes whose grid is to be described, by role: ``{"input": volume, "output": volume}``.
    synthetic :
        True when the output contains intensities that no scanner measured.
    hide_names :
        Replace file names by ``hidden`` everywhere.
    roles :
        What inputs and outputs are to the command, by (final) path: ``{scan: "t2", image: "image"}``.

    Raises
    ------
    InputError when an input or output cannot be read.

    """
    read = {Path(path): Path(path) for path in inputs}
    made = dict(outputs) if isinstance(outputs, Mapping) else {Path(path): Path(path) for path in outputs}
    names = private_names(path.name for path in (*read, *made)) if hide_names else ()
    parts = {path: role for path, role in (roles or {}).items() if path is not None}
    models = [model] if isinstance(model, ModelUse) else list(model or ())
    return {
        "SchemaVersion": SCHEMA_VERSION,
        "GeneratedBy": [{"Name": "mri-deep-tools", "Version": __version__, "Command": command}],
        "Synthetic": synthetic,
        "Disclaimer": DISCLAIMER,
        "Inputs": [_describe_file(name, path, parts.get(name), hide_names) for name, path in read.items()],
        "Outputs": [_describe_file(name, path, parts.get(name), hide_names) for name, path in made.items()],
        "Models": [_describe_model(item) for item in models],
        "Software": _versions(),
        "Device": {"Name": device, "Precision": precision, "Threads": threads},
        "Options": {key: _plain(value, names) for key, value in (options or {}).items()},
        **_cost(seconds or {}, peak_memory_bytes),
        "Geometry": {role: describe_geometry(volume) for role, volume in (geometry or {}).items()},
        "Warnings": [without_names(_FOLDERS.sub("", text), names) for text in warnings],
    }


def sidecar_path(output: str | Path) -> Path:
    """Return the sidecar's path beside an output: ``x.nii.gz`` -> ``x.json``."""
    from .volume import split_suffix

    path = Path(output)
    return path.with_name(f"{split_suffix(path)[0]}.json")


def write_sidecar(path: str | Path, record: Mapping[str, Any]) -> Path:
    """Write a record as JSON, all or nothing; OutputError when that fails."""
    from .volume import atomic_path

    path = Path(path)
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def describe_geometry(volume: Volume) -> dict[str, Any]:
    """Return the grid of a volume and what its file said of it: shape, spacing (mm), axes, affine (RAS, mm)."""
    source = volume.source
    description: dict[str, Any] = {
        "Shape": [int(n) for n in volume.data.shape],
        "SpacingMm": [round(float(size), 6) for size in volume.spacing],
        "Orientation": "".join(volume.axcodes),
        "ObliqueDegrees": round(float(volume.oblique_degrees), 3),
        "AffineRasMm": [[round(float(value), 6) for value in row] for row in volume.affine],
        "DataType": str(volume.data.dtype),
        "Format": source.format,
    }
    if source.qform_code is not None or source.sform_code is not None:
        description |= {"QformCode": _plain(source.qform_code, ()), "SformCode": _plain(source.sform_code, ())}
    return description


def finite(value: Any) -> Any:
    """Return a value in which numbers that JSON lacks (NaN, infinity) are null, and NumPy's numbers are plain."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def private_names(file_names: Iterable[str]) -> tuple[str, ...]:
    """Return file names and their stems, longest first: what must not appear where names are hidden."""
    names = set(file_names)
    names |= {re.sub(r"(\.nii)?\.[A-Za-z0-9]{1,5}$", "", name) for name in names}
    return tuple(sorted(filter(None, names), key=len, reverse=True))


def without_names(text: str, names: Sequence[str]) -> str:
    """Return text with every one of the names replaced by ``hidden``."""
    for name in names:
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", HIDDEN, text)
    return text


def _cost(seconds: Mapping[str, float], peak_memory_bytes: int | None) -> dict[str, Any]:
    stages = {name: round(float(value), 3) for name, value in seconds.items()}
    return {
        "SecondsPerStage": stages,
        "SecondsTotal": round(sum(stages.values()), 3),
        "PeakMemoryBytes": None if peak_memory_bytes is None else int(peak_memory_bytes),
    }


def _versions() -> dict[str, str]:
    system = {"Python": platform.python_version(), "System": platform.system(), "Machine": platform.machine()}
    found = {name: _version(name) for name in (*_PACKAGES, *(name for name in _WHERE_USED if name in sys.modules))}
    return system | {name: version for name, version in found.items() if version}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _describe_model(use: ModelUse) -> dict[str, Any]:
    description: dict[str, Any] = {"Name": use.name, "Source": use.source}
    if use.file is not None:
        file = use.file / "model.safetensors" if use.file.is_dir() else use.file  # a model folder: its weights
        description |= {"File": file.name, "SHA256": _sha256(file)}
    return description | {"Licence": use.licence, "Citation": list(use.citation)}


def _describe_file(path: Path, present: Path, role: str | None, hide_name: bool) -> dict[str, Any]:
    """Return name, role, size and checksum of the file that lies at ``present``."""
    entry: dict[str, Any] = {"Name": _hidden_name(path) if hide_name else path.name}
    if role:
        entry["Role"] = role
    return entry | file_facts(present)


def file_facts(path: Path) -> dict[str, Any]:
    """Return size in bytes and SHA-256; a folder's checksum is that of its files' checksums in order of name.

    Raises
    ------
    InputError when it cannot be read.

    """
    if not path.is_dir():
        return {"SizeBytes": _size(path), "SHA256": _sha256(path)}
    files = sorted(item for item in path.rglob("*") if item.is_file())
    digest = hashlib.sha256("".join(_sha256(item) for item in files).encode())
    return {"Files": len(files), "SizeBytes": sum(_size(item) for item in files), "SHA256": digest.hexdigest()}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror})", "check that the file exists") from error


def _sha256(path: Path) -> str:
    from ._files import sha256_of

    _size(path)
    return sha256_of(path)


def _hidden_name(path: Path) -> str:
    """Return ``hidden`` with what the suffix says of the format (``hidden.nii.gz``)."""
    suffixes = "".join(path.suffixes[-2:])
    return HIDDEN + (suffixes if suffixes.lower() == ".nii.gz" else path.suffix)


def _plain(value: Any, names: Sequence[str]) -> Any:
    """Return a value as JSON types: paths become file names, NaN and infinity null."""
    if isinstance(value, PurePath) or (isinstance(value, str) and re.search(r"[\\/]", value)):
        value = re.split(r"[\\/]", str(value).rstrip("\\/"))[-1]
    if isinstance(value, str):
        return without_names(value, names)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item, names) for key, item in value.items()}
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        return _plain(value.tolist(), names)
    if isinstance(value, Iterable):
        return [_plain(item, names) for item in value]
    return without_names(str(value), names)
