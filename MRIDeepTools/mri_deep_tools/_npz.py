"""NumPy archives with the array ``vol_data`` and, where there is one, ``affine``."""

from __future__ import annotations

import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ._formats import Raw, Remarks, Source, take_frames
from ._stream import incomplete, out_of_memory, require_room, unreadable
from .errors import InputError

_KEY = "vol_data"


def read_npz(path: Path, ndim: int | None, frame: int, remarks: Remarks) -> Raw:
    """Read an archive; without ``affine`` voxels are 1 mm and the axes run along RAS from the origin."""
    try:
        if not path.stat().st_size:
            raise InputError(f"{path.name} is empty (0 bytes)", "copy or download it again")
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile) or _KEY not in archive.files:
                raise InputError(f"{path.name} has no array named {_KEY}", "save the volume under that name")
            _check_size(archive.zip, path.name)
            data = np.asarray(archive[_KEY])
            affine = np.asarray(archive["affine"], dtype=np.float64) if "affine" in archive.files else np.eye(4)
    except OSError as error:
        raise unreadable(path.name, error) from None
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise incomplete(path.name) from None
    except MemoryError:
        raise out_of_memory(path.name, 0) from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path.name} is not an archive of plain NumPy arrays", "save it with numpy.savez") from None
    if data.dtype.kind not in "biuf":
        raise InputError(f"{path.name} holds values of type {data.dtype}, which cannot be used", "save plain numbers")
    facts = Source(format="npz", dtype=data.dtype.name)
    return Raw(take_frames(data, ndim, frame, remarks), affine, facts)


def _check_size(archive: Any, name: str) -> None:
    """Raise when the array's header announces more than its archive member holds, or than memory has room for."""
    member = archive.getinfo(f"{_KEY}.npy")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    nbytes = prod(int(n) for n in shape) * dtype.itemsize
    if nbytes > member.file_size:
        raise incomplete(name, f"its header announces {nbytes:,} bytes")
    require_room(nbytes, name)
