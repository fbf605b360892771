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

__all__ = ["QC_BOX", "qc_groups", "qc_scores"]

QC_BOX = 224  # voxels; sides of the cube that the regressor sees
_PLANES = 32  # of a slab of the first level; even, since pooling follows
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
    """Return the expected Dice score (0 to 1) of each of the 8 groups for a map of group numbers (X, Y, Z).

    The first level, which takes most of the memory, runs in slabs along X.
    """
    network = network.to(device)
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        first, *others = network.stages()
        x = _first_level(first, torch.from_numpy(groups).to(device), network.spec.in_channels)
        for level in others:
            x = F.max_pool3d(level(x), 2)
        scores = network.score(x)[0].cpu()
    return {name: float(np.clip(score, 0, 1)) for name, score in zip(QC_NAMES, scores[1:].tolist(), strict=True)}


def _first_level(level: ResidualLevel, groups: torch.Tensor, count: int) -> torch.Tensor:
    """Return the first level's pooled output (1, C, X/2, Y/2, Z/2) for a map of group numbers (X, Y, Z)."""
    half, planes = level.conv_0.kernel_size[0] // 2, len(groups)
    numbers = torch.arange(count, device=groups.device).view(-1, 1, 1, 1)
    pooled = []
    for a in range(0, planes - planes % 2, _PLANES):
        b = min(a + _PLANES, planes)
        low, high = max(a - 2 * half, 0), min(b + 2 * half, planes)
        x = (groups[None, low:high] == numbers)[None].float().contiguous(memory_format=torch.channels_last_3d)
        y = level(x)  # right for planes that are two half kernels away from a cut
        pooled.append(F.max_pool3d(y[:, :, a - low : b - low], 2))
    return torch.cat(pooled, dim=2)
