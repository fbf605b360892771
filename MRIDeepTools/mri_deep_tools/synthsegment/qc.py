"""Automated quality control: the Dice scores a segmentation would be expected to reach, group by group.

Billot et al., PNAS 120(9) (2023). The regressor sees the arg-max segmentation alone, in 8 tissue groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .labels import QC_NAMES, qc_classes
from .network import QCRegressor

__all__ = ["QC_BOX", "qc_groups", "qc_scores"]

QC_BOX = 224  # voxels; sides of the cube that the regressor sees
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
    """Return the expected Dice score (0 to 1) of each of the 8 groups for a map of group numbers (X, Y, Z)."""
    network = network.to(device)
    with torch.inference_mode():
        indices = torch.from_numpy(groups).to(device)
        onehot = torch.stack([indices == number for number in range(network.spec.in_channels)])
        scores = network(onehot[None].float())[0].cpu()
    return {name: float(np.clip(score, 0, 1)) for name, score in zip(QC_NAMES, scores[1:].tolist(), strict=True)}
