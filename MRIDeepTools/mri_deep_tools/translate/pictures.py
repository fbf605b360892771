"""Pictures: PNG, TIFF and BMP files as 8-bit grey arrays (H, W), and back; a file appears whole or not at all.

Networks of microscopy see 8-bit grey values. Other pictures are turned into them, always with a message that says how;
the published program does so silently. Pillow reads and writes; it comes with the extra ``[translate]``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .._atomic import atomic_path, final_name
from .._stream import unreadable
from ..errors import DependencyError, InputError, RequestError

__all__ = ["PICTURE_SUFFIXES", "TRANSLATE_HINT", "is_picture_path", "list_pictures", "read_picture", "write_picture"]

PICTURE_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
TRANSLATE_HINT = 'run: pip install "mri-deep-tools[translate]"'

_TWELVE_BITS = 4095
_SIXTEEN_BITS = 65535
Warn = Callable[[str], None]


def is_picture_path(path: str | Path) -> bool:
    """Say whether a name ends like a picture that can be read and written."""
    return Path(path).name.lower().endswith(PICTURE_SUFFIXES)


def list_pictures(
    folder: str | Path,
    *,
    recursive: bool = False,
    excluded: Sequence[str] = (),
    suffixes: Sequence[str] = PICTURE_SUFFIXES,
    in_order: bool = True,
) -> list[Path]:
    """Return the pictures of a folder.

    Parameters
    ----------
    folder : where to look; names that begin with a dot are passed over.
    recursive : also in its sub-folders, at every depth.
    excluded : names of sub-folders that are passed over, at every depth.
    suffixes : ends of names that count.
    in_order : sorted by path, the same on every machine; False leaves the order of the disk, as published.

    Raises
    ------
    InputError : the folder does not exist.

    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"the folder {folder.name} does not exist", "check the path")
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if recursive and name not in excluded]
        wanted = (name for name in names if name.lower().endswith(tuple(suffixes)) and not name.startswith("."))
        found += [Path(root) / name for name in wanted]
    return sorted(found) if in_order else found


def read_picture(
    path: str | Path, *, labels: bool = False, compatible: bool = False, on_warning: Warn | None = None
) -> np.ndarray:
    """Read a picture as (H, W) uint8.

    16-bit values are divided by 257, or by 4095 / 255 when none is above 4095 (a 12-bit camera); numbers with decimals
    are taken as grey values when they lie in 0..255, and times 255 when they lie in 0..1; colours become luma
    (ITU-R 601), transparency is dropped, and of several pages the first is taken. Each of these is a message.

    Parameters
    ----------
    labels : keep values as they are (codes of a label map); colours and codes above 255 are then an error.
    compatible : let Pillow turn everything into its mode L, as the published program does.
    on_warning : receives the messages, each with the file's name.

    Raises
    ------
    InputError : missing, empty, damaged, or of a kind that has no grey values.
    DependencyError : Pillow is not installed.

    """
    path = Path(path)
    remarks = _Remarks(path.name, on_warning)
    try:
        with _opened(path) as picture:
            if getattr(picture, "n_frames", 1) > 1:
                remarks(f"has {picture.n_frames} pages; the first is used")
            if compatible and not labels:
                return np.array(picture.convert("L"), dtype=np.uint8)
            return _codes(picture, path.name) if labels else _grey(picture, remarks, path.name)
    except (InputError, DependencyError):
        raise
    except OSError as error:
        if error.errno is not None:
            raise unreadable(path.name, error) from None
        raise InputError(f"{path.name} is not a complete picture", "save it again as PNG or TIFF") from error
    except (ValueError, SyntaxError, EOFError, MemoryError) as error:  # how Pillow tells of damaged files
        raise InputError(f"{path.name} cannot be read as a picture", "save it again as PNG or TIFF") from error


def write_picture(image: np.ndarray, path: str | Path, *, text: Mapping[str, str] | None = None) -> Path:
    """Write (H, W) uint8 as PNG, TIFF or BMP; the suffix of ``path`` chooses.

    Parameters
    ----------
    text : notes that go into the file, such as what made it (PNG: one text each; TIFF: the description; BMP: none).

    Raises
    ------
    RequestError : another suffix, or an array that is no 8-bit grey picture. OutputError : the place cannot be
    written to. DependencyError : Pillow is not installed.

    """
    path, image = Path(path), np.asarray(image)
    name = final_name(path)
    if not is_picture_path(path):
        raise RequestError(f"{name} does not end like a picture", f"use one of {', '.join(PICTURE_SUFFIXES)}")
    if image.ndim != 2 or image.dtype != np.uint8 or not image.size:
        raise RequestError(f"{name} would not be a grey picture: {image.dtype} of shape {image.shape}")
    pillow = _pillow()
    options: dict[str, Any] = {}
    kind = {".png": "PNG", ".bmp": "BMP"}.get(path.suffix.lower(), "TIFF")
    if kind == "PNG" and text:
        from PIL.PngImagePlugin import PngInfo

        options["pnginfo"] = PngInfo()
        for key, value in text.items():
            options["pnginfo"].add_text(key, value)
    elif kind == "TIFF":
        options["compression"] = "tiff_deflate"
        if text:
            options["description"] = "; ".join(f"{key}: {value}" for key, value in text.items())
    with atomic_path(path) as temporary:
        pillow.fromarray(np.ascontiguousarray(image)).save(temporary, format=kind, **options)
    return path


class _Remarks:
    """Messages that begin with the file's name."""

    def __init__(self, name: str, warn: Warn | None) -> None:
        self.name, self.warn = name, warn

    def __call__(self, message: str) -> None:
        if self.warn is not None:
            self.warn(f"{self.name} {message}")


def _pillow() -> Any:
    """Import Pillow's Image, or say how to install it."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DependencyError("pictures need Pillow, which is not installed", TRANSLATE_HINT) from error
    return Image


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a picture; slides of microscopes are larger than what Pillow takes for an attack."""
    image = _pillow()
    if path.is_dir():
        raise InputError(f"{path.name} is a folder", "give a picture")
    limit, image.MAX_IMAGE_PIXELS = image.MAX_IMAGE_PIXELS, None
    try:
        with image.open(path) as picture:
            yield picture
    except image.UnidentifiedImageError as error:
        raise InputError(f"{path.name} is not a picture", "use PNG, TIFF or BMP files") from error
    finally:
        image.MAX_IMAGE_PIXELS = limit


def _grey(picture: Any, remarks: _Remarks, name: str) -> np.ndarray:
    """Return grey values 0..255 of any picture, with a message when they had to be made."""
    mode = picture.mode
    if mode in ("L", "1"):
        return np.array(picture.convert("L"), dtype=np.uint8)
    if mode == "F" or mode.startswith("I"):
        return _eight_bits(np.array(picture), remarks, name)
    if mode in ("LA", "La"):
        remarks("has transparency, which is not used")
        return np.array(picture.getchannel(0), dtype=np.uint8)
    remarks(
        "is a colour picture; its luma is used" if mode != "P" else "has a palette; the luma of its colours is used"
    )
    return np.array(picture.convert("RGB").convert("L"), dtype=np.uint8)


def _eight_bits(values: np.ndarray, remarks: _Remarks, name: str) -> np.ndarray:
    """Scale values of more than 8 bits to 0..255."""
    if not np.isfinite(values).all():
        raise InputError(f"{name} has values that are not finite", "save it as an 8-bit picture")
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f" and low >= 0 and high <= 255:
        unit, rule = (1 / 255, "0..1 becomes 0..255") if high <= 1 else (1.0, "rounded to whole grey values")
        remarks(f"has values with decimals; {rule}")
    elif values.dtype.kind != "f" and low >= 0 and high <= _SIXTEEN_BITS:
        full = _TWELVE_BITS if high <= _TWELVE_BITS else _SIXTEEN_BITS
        unit = full / 255
        remarks(f"has 16 bits; 0..{full} becomes 0..255")
    else:
        raise InputError(f"{name} has values from {low:g} to {high:g}", "save it as an 8-bit picture")
    return np.rint(values / unit).astype(np.uint8)


def _codes(picture: Any, name: str) -> np.ndarray:
    """Return the codes of a label map as they are."""
    if picture.mode not in ("L", "P", "1") and not picture.mode.startswith("I"):
        raise InputError(f"{name} is not a label map: it has colours or decimals", "save it as an 8-bit grey picture")
    codes = np.array(picture)
    if codes.size and (codes.min() < 0 or codes.max() > 255):
        raise InputError(f"{name} is not a label map: it has codes outside 0..255", "save it as 8-bit codes")
    return codes.astype(np.uint8)
