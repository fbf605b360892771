"""From a prepared brain (MNI grid, 1 mm, median 500) to what a prediction network sees: axes, size, intensities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import InputError
from ..geometry import Reorient
from ..volume import Volume
from .network import BACKGROUND
from .preprocess import MEDIAN, TEMPLATE_GRID, crop_box, to_network

__all__ = ["fitted", "network_image"]

_UNIT_MEDIANS = (0.3, 3.0)  # the published chain keeps a median of 1 between its stages
_USUAL = 0.3  # relative distance from the median that the model was trained with


def network_image(
    volume: Volume,
    shape: Sequence[int] | None,
    median: float = MEDIAN,
    *,
    compatible: bool = False,
    warn: Callable[[str], None] | None = None,
) -> np.ndarray:
    """Return what the network sees of a prepared image: x / median - 1 in the brain, -1 elsewhere.

    Parameters
    ----------
    volume : (X, Y, Z), background 0; on the template's grid (182, 218, 182) it is cropped as published.
    shape : the network's size, to which the image is cut or padded around its brain; None leaves it.
    median : brain median that the model was trained with.
    compatible : take axes, size and intensities as they are, as published.
    warn : receives what a person should know.

    Returns
    -------
    float32, of ``shape``; its first axis runs to the left, the second to the front, the third upwards.

    Raises
    ------
    InputError : nothing is above 0.

    """
    tell, name = warn or (lambda text: None), volume.source.name or "the image"
    inside = volume.data[volume.data > 0]
    if not inside.size:
        raise InputError(f"{name} holds no brain: nothing is above 0", "check the image")
    if compatible:
        return to_network(volume.data, median, BACKGROUND)
    if any(abs(size - 1) > 0.02 for size in volume.spacing):
        sizes = " x ".join(f"{size:.2f}" for size in volume.spacing)
        tell(f"{name} has voxels of {sizes} mm; a prepared image has 1 mm")
    data = Reorient.to(volume, "LAS").apply(volume).data
    if data.shape == TEMPLATE_GRID.shape and tuple(shape or ()) != TEMPLATE_GRID.shape:
        data = crop_box(data).apply(Volume(data, TEMPLATE_GRID.affine)).data
    unit = _unit(float(np.median(inside)), median, name, tell)
    if shape is not None and data.shape != tuple(shape):
        whole = int((data > 0).sum())
        data = fitted(data, shape)
        lost = whole - int((data > 0).sum())
        if lost:
            tell(f"{lost / 1000:.1f} ml of the brain of {name} lie outside the model's {_sides(shape)} voxels")
    return to_network(data, unit, BACKGROUND)


def fitted(data: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Cut or pad (X, Y, Z) with zeros to ``shape``, so that its content above 0 lies in the middle; a new array."""
    out = np.zeros(tuple(shape), data.dtype)
    source, target = [], []
    for axis, size in enumerate(shape):
        planes = np.flatnonzero((data > 0).any(axis=tuple(k for k in range(3) if k != axis)))
        middle = (int(planes[0]) + int(planes[-1]) + 1) // 2
        count = data.shape[axis]
        start = middle - size // 2
        if count >= size:
            start = min(max(start, 0), count - size)  # real background where there is some
        source.append(slice(max(start, 0), min(start + size, count)))
        target.append(slice(source[-1].start - start, source[-1].stop - start))
    out[tuple(target)] = data[tuple(source)]
    return out


def _unit(found: float, median: float, name: str, tell: Callable[[str], None]) -> float:
    """Return the intensity that becomes 0: the model's median, or 1 for an image that is scaled to a median of 1."""
    if _UNIT_MEDIANS[0] <= found <= _UNIT_MEDIANS[1] < median:
        tell(f"{name} has a brain median of {found:.2f}; it is read as normalised to 1, not {median:.0f}")
        return 1.0
    if abs(found / median - 1) > _USUAL:
        tell(
            f"{name} has a brain median of {found:.4g}, not {median:.0f} as the model was trained with; "
            "the prediction may mean nothing"
        )
    return median


def _sides(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
