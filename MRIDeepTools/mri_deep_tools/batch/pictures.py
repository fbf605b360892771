"""Small pictures for the overview: three planes of a scan with its labels, or of a scan and what was made of it.

They are made for every subject, so they are cheap: planes are cut by index after the axes were put in order, and scaled
by the voxel size. The right of the person is on the left, as radiologists look.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .jobs import Job
from .tasks import get_task

if TYPE_CHECKING:
    from ..volume import Volume

__all__ = ["picture_of_job", "planes", "write_picture"]

HEIGHT = 150
"""Pixels of one row of planes."""

_OPACITY = 0.5
_SAMPLES = 64
_BACK = 17


def picture_of_job(job: Job, staging: Path, path: Path) -> bool:
    """Write the picture of a finished job; returns False where its task has none.

    Parameters
    ----------
    job : whose inputs are read again.
    staging : folder of its outputs.
    path : of the picture, a JPEG file.

    """
    from ..volume import is_image_path, read_volume

    task = get_task(job.task)
    if not task.picture:
        return False
    if not is_image_path(Path(job.inputs[task.scan])) and not Path(job.inputs[task.scan]).is_dir():
        write_picture([_flat(Path(job.inputs[task.scan])), _flat(staging / job.outputs[task.result])], path)
        return True
    scan = _frame(read_volume(job.inputs[task.scan], ndim=None, on_warning=lambda text: None))
    if task.picture == "scan":
        rows = [planes(scan)]
    else:
        made = read_volume(staging / job.outputs[task.result], ndim=None, on_warning=lambda text: None)
        if task.picture == "labels":
            rows = [planes(scan, made)]
        else:  # both cut at one place, that of what was made: it may be a part of the scan only
            made = _frame(made)
            point = middle_mm(made)
            rows = [planes(scan, point=point), planes(made, point=point)]
    write_picture(rows, path)
    return True


def planes(scan: Volume, labels: Volume | None = None, point: np.ndarray | None = None) -> np.ndarray:
    """Return the sagittal, coronal and axial plane side by side, (HEIGHT, width, 3) uint8.

    Planes go through ``point`` (3,), RAS in mm, else through the middle of the labels, or of what is bright; ``labels``
    on another grid than the scan's are shown over themselves alone.
    """
    from ..geometry import Reorient

    straight = Reorient.to_ras(scan).apply(scan)
    data = np.asarray(straight.data)
    codes: np.ndarray | None = None
    if labels is not None:
        other = Reorient.to_ras(labels).apply(labels)
        codes = np.asarray(other.data)
        if codes.shape != data.shape:  # on the network's grid: alone
            straight, data = other, np.zeros(codes.shape, dtype=np.float32)
    few = _few(data.shape)
    seen = data[few].astype(np.float32)
    if point is not None:
        voxel = np.linalg.inv(straight.affine) @ [*point, 1.0]
        middle = tuple(int(np.clip(round(float(place)), 0, n - 1)) for place, n in zip(voxel, data.shape, strict=False))
    else:
        marked = codes[few] != 0 if codes is not None else np.zeros(1, bool)
        middle = _middle(marked if marked.any() else seen > seen.mean(), [part.step for part in few], data.shape)
    shown = seen[seen != 0]  # where much is empty, the brightest half percent of all would be much of the head
    low, high = float(np.percentile(seen, 1)), float(np.percentile(shown, 99.5)) if shown.size else 0.0
    sizes = straight.spacing
    parts = []
    for axis in range(3):
        grey = (np.take(data, middle[axis], axis).astype(np.float32) - low) / max(high - low, 1e-6)
        cut = np.clip(grey, 0, 1)[..., None].repeat(3, -1) * 255
        if codes is not None:
            _colour(cut, np.take(codes, middle[axis], axis))
        first, second = (size for index, size in enumerate(sizes) if index != axis)
        parts.append(_scaled(cut, float(first), float(second), flip=axis != 0))
    return np.concatenate(parts, axis=1)


def middle_mm(image: Volume) -> np.ndarray:
    """Return the middle (3,) of what is bright in an image (X, Y, Z): RAS in mm."""
    few = _few(image.data.shape)
    seen = np.asarray(image.data)[few].astype(np.float32)
    middle = _middle(seen > seen.mean(), [part.step for part in few], image.data.shape)
    return np.asarray((image.affine @ [*middle, 1.0])[:3])


def _few(shape: Sequence[int]) -> tuple[slice, ...]:
    """Return every so many voxels of each axis: whole volumes take seconds."""
    return tuple(slice(None, None, max(1, n // _SAMPLES)) for n in shape)


def write_picture(rows: list[np.ndarray], path: Path) -> None:
    """Write rows of planes, (height, width, 3) uint8 each, below each other as JPEG."""
    from PIL import Image

    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=_BACK) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(padded)).save(path, format="JPEG", quality=82)


def _flat(path: Path) -> np.ndarray:
    """Return a picture file as a row of one plane, (HEIGHT, width, 3) uint8."""
    from PIL import Image

    with Image.open(path) as image:
        plain = np.asarray(image.convert("F"))
    low, high = float(plain.min()), float(plain.max())
    grey = Image.fromarray(((plain - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)).convert("RGB")
    width = min(max(1, round(HEIGHT * plain.shape[1] / plain.shape[0])), 3 * HEIGHT)
    return np.asarray(grey.resize((width, HEIGHT)))


def _frame(volume: Volume) -> Volume:
    """Return a 3-D image: of several frames the mean, which shows all of a diffusion series."""
    data = volume.data
    if data.ndim == 4:
        data = data.mean(axis=3, dtype=np.float32)
    return volume.with_data(np.nan_to_num(data) if data.dtype.kind == "f" else data)


def _middle(mask: np.ndarray, steps: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Return the middle of the extent of a mask that has only every so many voxels, in voxels of the whole."""
    found = []
    for axis in range(3):
        line = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        middle = (int(line[0] + line[-1]) * steps[axis]) // 2 if line.size else shape[axis] // 2
        found.append(min(middle, shape[axis] - 1))
    return tuple(found)


def _colour(picture: np.ndarray, codes: np.ndarray) -> None:
    """Lay the colours of labels over a picture (X, Y, 3), in place."""
    from ..overlay import label_colour

    for code in np.unique(codes):
        if code:
            inside = codes == code
            picture[inside] = (1 - _OPACITY) * picture[inside] + _OPACITY * np.array(label_colour(int(code)))


def _scaled(cut: np.ndarray, first: float, second: float, *, flip: bool) -> np.ndarray:
    """Return a plane (first axis to the right, second upwards, sizes in mm) as rows from the top, ``HEIGHT`` high."""
    from PIL import Image

    upright = np.swapaxes(cut, 0, 1)[::-1, :: -1 if flip else 1]
    height_mm, width_mm = upright.shape[0] * second, upright.shape[1] * first
    width = min(max(1, round(HEIGHT * width_mm / height_mm)), 3 * HEIGHT)
    image = Image.fromarray(np.ascontiguousarray(upright.clip(0, 255).astype(np.uint8)))
    return np.asarray(image.resize((width, HEIGHT), Image.Resampling.BILINEAR))
