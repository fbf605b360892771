"""Automated quality control: the Dice scores a segmentation would be expected to reach, group by group.

Billot et al., PNAS 120(9) (2023). The regressor sees the arg-max segmentation alone, in 8 tissue groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from .labels import QC_NAMES, qc_classes
from .network import QCRegressor, ResidualLevel
from .postprocess import Box, bounding_box

__all__ = ["QC_BOX", "qc_groups", "qc_scores"]

QC_BOX = 224  # voxels; sides of the cube that the regressor sees
_PLANES = 48  # of a slab; even, since pooling follows
_SMALL = 40  # voxels; sides of a cube whose middle sees no face through two levels
_SKIPPED_CHANNEL = 24  # the published program leaves out this *channel* when it looks for the brain's box


def qc_groups(channels: np.ndarray, codes: Sequence[int], box: int = QC_BOX) -> np.ndarray:
    """Crop or pad an arg-max map to a cube around the brain and give each voxel its group.

    ``channels`` is (X, Y, Z) channel indices; returns (box, box, box) uint8 groups 0 to 8. The brain's box leaves out
    channels 0 and 24: the index, not label 24, because the published scores were trained and reported this way.
    """
    brain = (channels != 0) & (channels != _SKIPPED_CHANNEL)
    result = np.zeros((box, box, box), dtype=np.uint8)
    source, target = [], []
    for axis, n in enumerate(channels.shape):
        hit = np.flatnonzero(brain.any(axis=tuple(k for k in range(3) if k != axis)))
        low, high = (int(hit[0]), int(hit[-1]) + 1) if len(hit) else (0, min(n, box))
        if len(hit):
            missing = box - (high - low)
            low, high = low - -(-missing // 2), high + missing // 2
        start, stop = max(low, 0), min(high, n)
        source.append(slice(start, stop))
        target.append(slice(start - low, stop - low))
    groups = np.asarray(qc_classes(codes), dtype=np.uint8)
    result[tuple(target)] = groups[channels[tuple(source)]]
    return result


def qc_scores(network: QCRegressor, groups: np.ndarray, device: torch.device | str = "cpu") -> dict[str, float]:
    """Return the expected Dice score (0 to 1) of each of the 8 groups for a map of group numbers, a cube of voxels.

    Most of the cube is background, where features are the same everywhere but near the faces. So the first levels,
    which cost most, run around the brain only, and what they give elsewhere is taken from a small background cube.
    """
    network = network.to(device)
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        stages, cube = network.stages(), torch.from_numpy(groups).to(device)
        x = _indicators(cube, network.spec.in_channels)
        empty = _indicators(cube.new_zeros((_SMALL,) * 3), network.spec.in_channels)
        box = bounding_box(groups > 0)
        for level in stages:
            if box is None or x.shape[2] <= empty.shape[2] or empty.shape[2] < _SMALL // 2:
                x = F.max_pool3d(level(x.float()), 2)
                continue
            empty = F.max_pool3d(level(empty.float()), 2)
            reach = 2 * (network.spec.kernel // 2)
            box = tuple(_even(side, reach, x.shape[2]) for side in box)  # type: ignore[assignment]
            x = _around(level, x, box, empty, reach)
            box = tuple(slice(side.start // 2, side.stop // 2) for side in box)  # type: ignore[assignment]
        scores = network.score(x)[0].cpu()
    return {name: float(np.clip(score, 0, 1)) for name, score in zip(QC_NAMES, scores[1:].tolist(), strict=True)}


def _indicators(groups: torch.Tensor, count: int) -> torch.Tensor:
    """Return (1, count, X, Y, Z) bool, channels last in memory."""
    numbers = torch.arange(count, device=groups.device).view(-1, 1, 1, 1)
    return (groups == numbers)[None].contiguous(memory_format=torch.channels_last_3d)


def _even(side: slice, reach: int, size: int) -> slice:
    """Widen a range by what the convolutions see, to even bounds, within the cube."""
    start, stop = max(side.start - reach, 0), min(side.stop + reach, size)
    return slice(start // 2 * 2, min(stop + stop % 2, size // 2 * 2))


def _around(level: ResidualLevel, x: torch.Tensor, box: Box, empty: torch.Tensor, reach: int) -> torch.Tensor:
    """Return a level's pooled output: computed inside ``box``, else that of ``empty`` with its middle stretched."""
    size, small = x.shape[2] // 2, empty.shape[2]
    at = torch.arange(size, device=x.device)
    at = torch.where(at < small // 2, at, torch.where(at >= size - small // 2, at - size + small, small // 2))
    out = empty[:, :, at][:, :, :, at][..., at].contiguous(memory_format=torch.channels_last_3d)
    for a in range(box[0].start, box[0].stop, _PLANES):
        piece = (slice(a, min(a + _PLANES, box[0].stop)), *box[1:])
        wide = [slice(max(side.start - reach, 0), min(side.stop + reach, x.shape[2])) for side in piece]
        y = level(x[(slice(None), slice(None), *wide)].float())
        inner = [slice(side.start - w.start, side.stop - w.start) for side, w in zip(piece, wide, strict=True)]
        target = [slice(side.start // 2, side.stop // 2) for side in piece]
        out[(slice(None), slice(None), *target)] = F.max_pool3d(y[(slice(None), slice(None), *inner)], 2)
    return out
