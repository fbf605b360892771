"""Size and checksum of a file whose author published none, as the place that holds it states them now.

huggingface.co answers a request for a large file with its size and SHA-256 (``X-Linked-Size``, ``X-Linked-ETag``)
before it sends on to the bytes. What arrives is checked against these, so a damaged or truncated transfer is found;
that the author has not changed the file since anybody looked at it is not.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from . import __version__
from ._registry import ModelFile, source_fault
from .errors import DownloadError

__all__ = ["stated_by_source"]

_BY_HAND = "fetch the file by hand and use 'mri-deep-tools models import FOLDER'"


def stated_by_source(file: ModelFile, timeout: float) -> ModelFile:
    """Return ``file`` with the size and SHA-256 that its first source states.

    Raises
    ------
    DownloadError : the source cannot be reached, or states none.

    """
    url = file.sources[0]
    place = urlsplit(url).netloc
    try:
        headers = _head(url, timeout)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"{file.name} could not be fetched from {place} ({reason})", _BY_HAND) from None
    digest = headers.get("x-linked-etag", "").strip().removeprefix("W/").strip('"').lower()
    size = headers.get("x-linked-size", "").strip()
    if not re.fullmatch(r"[0-9a-f]{64}", digest) or not size.isdigit() or int(size) < 1:
        raise DownloadError(f"{place} states no checksum of {file.name}, so it is not downloaded", _BY_HAND)
    return replace(file, size=int(size), sha256=digest)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: what is asked for stands in the first answer."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _head(url: str, timeout: float) -> Mapping[str, str]:
    """Return the head of the first answer, names in lower case; one that says where the file is counts as an answer."""
    fault = source_fault(url)
    if fault is not None:
        raise OSError(fault)
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": f"mri-deep-tools/{__version__}"})
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=timeout) as response:
            return _lower(response.headers)
    except urllib.error.HTTPError as error:
        if error.code in (301, 302, 303, 307, 308):
            return _lower(error.headers)
        raise


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
