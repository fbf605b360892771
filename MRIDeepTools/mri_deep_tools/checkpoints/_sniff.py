"""Say what a file really is, for messages about a file that is not what it should be."""

from __future__ import annotations

import zipfile
from pathlib import Path

__all__ = ["HDF5_SIGNATURE", "kind_of", "remedy_for"]

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAD = 4096

GIT_LFS = "a Git LFS pointer, a few lines of text that stand for the real file"
GIT_ANNEX = "a git-annex pointer, a line of text that stands for the real file"
WEB_PAGE = "a web page"
GZIP = "a gzip-compressed file"
EMPTY = "an empty file"
ZEROS = "a file that begins with zeros, as an interrupted copy does"

_REMEDIES = {
    GIT_LFS: "fetch the real file with 'git lfs pull'",
    GIT_ANNEX: "fetch the real file with 'git annex get'",
    WEB_PAGE: "open the download page in a browser, save the file itself, and try again",
    GZIP: "uncompress it first, with gunzip for instance",
    EMPTY: "copy or download it again",
    ZEROS: "copy or download it again",
}

_BINARY_HEADS = (
    (HDF5_SIGNATURE, "an HDF5 file"),
    (b"\x1f\x8b", GZIP),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x89PNG", "a PNG picture"),
    (b"%PDF", "a PDF document"),
    (b"MATLAB 5.0", "a MATLAB 5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x80", "a Python pickle, as old PyTorch checkpoints are"),
)


def kind_of(path: Path) -> str:
    """Return in a few words with their article what the file seems to be, judged by its first 4096 bytes.

    Raises
    ------
    OSError : the file cannot be read.

    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if not head:
        return EMPTY
    for start, kind in _BINARY_HEADS:
        if head.startswith(start):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000:
        return "a safetensors file"
    if not head.strip(b"\0"):
        return ZEROS
    return _kind_of_text(head)


def remedy_for(kind: str) -> str:
    """Return what a person can do about a file of this kind, or an empty text."""
    return _REMEDIES.get(kind, "")


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return "a ZIP archive that is cut short"
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch checkpoint"
    if "model.weights.h5" in names:
        return "a Keras 3 model archive"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive"
    return "a ZIP archive"


def _kind_of_text(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:512].lower()
    if start.startswith(b"version https://git-lfs"):
        return GIT_LFS
    if b"annex/objects/" in start and len(head) < 1024:
        return GIT_ANNEX
    if start.startswith((b"<!doctype html", b"<html", b"<head")) or b"<html" in start:
        return WEB_PAGE
    if start.startswith((b"<?xml", b"<error")):
        return "an XML document, perhaps a server's error message"
    if start.startswith((b"{", b"[")):
        return "a JSON text"
    try:
        head[:1024].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < min(len(head), 1024) - 4:  # not merely a character cut at the end of the sample
            return "data of an unknown kind"
    return "data of an unknown kind" if b"\0" in head else "a text file"
