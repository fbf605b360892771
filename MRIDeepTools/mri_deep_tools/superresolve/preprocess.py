"""What happens to a pair of volumes before the network, and how its output finds back: padding and intensity scaling.

Both follow the published program (padding first, then percentiles of the values above 0, each volume by itself);
unlike there, the scaling is remembered, so that a result can be given in the intensities of the T2w scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..geometry import Pad
from ..volume import Volume

__all__ = ["PATCH", "STRIDE", "Scaling", "pad_volume", "padded_shape", "without_background"]

PATCH, STRIDE = 32, 16
"""Side of the published cubes and the step from one to the next, in voxels."""

_PERCENTILES = (1, 99)
_EPSILON = 1e-6  # added to the range as published
_BORDER_SHARE = 0.9  # of the border that has one value, from which on that value is taken for background


@dataclass(frozen=True)
class Scaling:
    """A linear map of intensities: ``low`` becomes 0 and ``high`` becomes 1 (but for a published 1e-6)."""

    low: float
    high: float

    @classmethod
    def of(cls, data: np.ndarray, name: str = "the image") -> Scaling:
        """Return the published scaling of (X, Y, Z) values: 1st and 99th percentile of those above 0.

        Raises
        ------
        InputError : no value is above 0, or all of them are the same.

        """
        above = data[data > 0]
        if not above.size:
            raise InputError(f"{name} has no value above 0", "check that this is the scan")
        low, high = (float(value) for value in np.percentile(above.astype(np.float64), _PERCENTILES))
        if not high > low:
            raise InputError(f"{name} has a single intensity, {high:.4g}", "check that this is the scan")
        return cls(low, high)

    @property
    def span(self) -> float:
        """Return the intensities between 0 and 1."""
        return self.high - self.low + _EPSILON

    def apply(self, data: np.ndarray) -> np.ndarray:
        """Return float64 values on 0..1; what lies beyond the percentiles is clipped."""
        scaled = data.astype(np.float64)
        scaled -= self.low
        scaled /= self.span
        return np.clip(scaled, 0, 1, out=scaled)

    def undo(self, data: np.ndarray) -> np.ndarray:
        """Return values on 0..1 as intensities of the scan, float32."""
        return (data * self.span + self.low).astype(np.float32)


def padded_shape(shape: Sequence[int], patch: int = PATCH, stride: int = STRIDE) -> tuple[int, int, int]:
    """Return the least sides of the form patch + stride * k that hold ``shape``; (182, 218, 182) -> (192, 224, 192)."""
    sides = [patch + stride * max(-(-(n - patch) // stride), 0) for n in shape[:3]]
    return sides[0], sides[1], sides[2]


def pad_volume(volume: Volume, patch: int = PATCH, stride: int = STRIDE) -> tuple[Volume, Pad]:
    """Return a volume with zeros around it that patches cover completely, and the step that takes them off again.

    Of an odd margin the larger half comes after, as published; world coordinates of the voxels stay.
    """
    step = Pad.to_shape(volume.shape3, padded_shape(volume.shape3, patch, stride))
    return step.apply(volume), step


def without_background(data: np.ndarray) -> tuple[np.ndarray, float]:
    """Return values whose background is 0, and the background value that was subtracted (0 where none was).

    The published scaling takes 0 for background. A scan whose border has one other value (-1 or 1024, say) is shifted.
    """
    faces = [np.moveaxis(data, axis, 0)[index].ravel() for axis in range(3) for index in (0, -1)]
    border = np.concatenate(faces)
    values, counts = np.unique(border, return_counts=True)
    value = float(values[counts.argmax()])
    if value == 0 or counts.max() < _BORDER_SHARE * border.size or (data == value).all():
        return data, 0.0
    return data.astype(np.float64) - value, value
