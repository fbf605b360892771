"""Published weights converted once: a copy in safetensors, keyed by the SHA-256 of the original.

The cache is a convenience. Where it cannot be written the conversion is done each time, and a cached file that is
damaged in any way is made anew without a word.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from .._files import cache_dir, sha256_of

__all__ = ["FORMAT_VERSION", "cached_state", "converted_dir", "forget", "sha256_of"]

FORMAT_VERSION = 1  # raise it when the layout of the converted files changes


def converted_dir() -> Path:
    """Return the folder of converted weights; it need not exist."""
    return cache_dir() / "converted"


def cached_state(
    path: str | Path, convert: Callable[[Path], Mapping[str, np.ndarray]], *, kind: str, version: int = 1
) -> dict[str, np.ndarray]:
    """Return the converted weights of ``path``, from the cache where they are there.

    Parameters
    ----------
    path :
        the published weights.
    convert :
        makes the state, tensor name -> array, from the file; called when the cache cannot serve.
    kind :
        what the conversion is for (letters, digits, dots, hyphens), for instance ``synthseg-unet``.
    version :
        of the conversion; raise it when ``convert`` changes what it returns.

    Raises
    ------
    WeightsError : the file cannot be read, or ``convert`` finds it unfit.
    ValueError : ``kind`` is not of the right form.

    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", kind):
        raise ValueError(f"kind must be letters, digits, dots and hyphens, not {kind!r}")
    path = Path(path)
    sha256 = sha256_of(path)
    cached = converted_dir() / f"{sha256}-{kind}-v{FORMAT_VERSION}.{version}.safetensors"
    state = _load(cached, sha256)
    if state is None:
        state = {name: np.asarray(array, order="C") for name, array in convert(path).items()}
        _save(cached, state, sha256)
    return state


def forget(sha256: str) -> int:
    """Remove the converted copies of the file with this SHA-256; return the number of bytes that this frees."""
    freed = 0
    for path in converted_dir().glob(f"{sha256}-*"):
        try:
            size = path.stat().st_size
            path.unlink()
        except OSError:
            continue
        freed += size
    return freed


def _load(cached: Path, sha256: str) -> dict[str, np.ndarray] | None:
    """Return what the cached file holds, or None where it is absent or differs from what was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(cached, framework="numpy") as file:
            facts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    if facts.get("source_sha256") != sha256 or facts.get("content_sha256") != _digest(state):
        return None
    return state


def _save(cached: Path, state: Mapping[str, np.ndarray], sha256: str) -> None:
    """Write the state; a cache that cannot be written is left alone."""
    from safetensors.numpy import save_file

    from ..errors import OutputError
    from ..volume import atomic_path

    facts = {"source_sha256": sha256, "content_sha256": _digest(state)}
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(cached) as temporary:
            save_file(dict(state), temporary, metadata=facts)
    except (OSError, OutputError):
        return


def _digest(state: Mapping[str, np.ndarray]) -> str:
    """Return a checksum of names, types, shapes and values, whatever the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = state[name]
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
