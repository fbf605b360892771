"""The network on a whole scan: scaling, patches, network, and back, with bounded memory.

The published program feeds images and FSL's b-vectors as they are stored. Its models were trained on images whose
axes run to the left, the front and the top, where FSL's b-vectors are along the voxel axes. So that the geometry is
the same for any scan, volumes are brought to that order here (a permutation, no interpolation) with the directions
in that frame, and the result is brought back; for a scan that is stored like the training data nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..errors import InputError
from ..geometry import Reorient
from ..volume import Volume
from .engine import PatchEngine, plan_memory
from .gradients import fsl_frame
from .network import RCNN
from .patches import PatchGrid

__all__ = ["NETWORK_AXES", "Task", "run_network"]

NETWORK_AXES = "LAS"
_GROUP_VALUES = 64_000_000  # predicted values that are kept beside the result at a time


@dataclass(frozen=True)
class Task:
    """What is to be predicted.

    Attributes
    ----------
    context : (X, Y, Z, q_in) volumes in the order in which they are read.
    mask : (X, Y, Z) bool.
    bvecs_in, bvecs_out : (q, 3) float32, FSL's of the stored image, or world directions (see ``raw``).
    xmax : intensity that becomes 1.
    raw : feed stored axes and FSL's b-vectors as they are (the published program), else by world directions.
    inside_only : leave voxels outside the mask at 0; else whole patches stand.

    """

    context: Volume
    mask: np.ndarray
    bvecs_in: np.ndarray
    bvecs_out: np.ndarray
    xmax: float
    raw: bool = False
    inside_only: bool = True


def run_network(
    task: Task,
    network: RCNN,
    device: torch.device,
    memory: int | None = None,
    tick: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Return predicted volumes (X, Y, Z, q_out), float32, in the scan's intensities and on its stored axes.

    Parameters
    ----------
    task :
        See there.
    network :
        On the device.
    device :
        Where the network runs.
    memory :
        Bytes that the network may take; None: 80 % of what is free.
    tick :
        Is told the share that is done.

    Raises
    ------
    OutOfMemoryError : not even one patch fits.

    """
    if task.raw:
        return _predict(task, network, device, memory, tick)
    turn = Reorient.to(task.context, NETWORK_AXES)
    turned = turn.apply(task.context)
    frame = fsl_frame(turned.affine)
    upright = replace(
        task,
        context=turned,
        mask=turn.apply(Volume(task.mask.astype(np.uint8), task.context.affine)).data != 0,
        bvecs_in=np.asarray(task.bvecs_in @ frame, dtype=np.float32),
        bvecs_out=np.asarray(task.bvecs_out @ frame, dtype=np.float32),
    )
    return turn.undo(Volume(_predict(upright, network, device, memory, tick), turned.affine)).data


def _predict(
    task: Task,
    network: RCNN,
    device: torch.device,
    memory: int | None,
    tick: Callable[[float], None] | None,
) -> np.ndarray:
    data, mask, bvecs_out = task.context.data, task.mask, np.ascontiguousarray(task.bvecs_out)
    grid = PatchGrid(mask, network.patch)
    if not len(grid):
        raise InputError("the mask is empty", "check the mask")
    kept = _GROUP_VALUES if memory is None else min(_GROUP_VALUES, memory // 32)  # an eighth of the bound, in float32
    limit = None if memory is None else memory - 4 * kept
    plan = plan_memory(network, device, len(grid) * len(bvecs_out), limit, data.shape[3])
    engine = PatchEngine(network, plan)
    given, wanted = (
        torch.from_numpy(np.ascontiguousarray(task.bvecs_in)).to(device),
        torch.from_numpy(bvecs_out).to(device),
    )
    out = np.zeros((*data.shape[:3], len(bvecs_out)), dtype=np.float32)
    arrays = 1 + 3 * network.guided  # results, and what a guided network is told for each of them
    size = max(1, min(64, kept // (arrays * network.patch**3 * len(bvecs_out))))
    for start in range(0, len(grid), size):
        which = np.arange(start, min(start + size, len(grid)))
        patches = grid.take(data, which).astype(np.float32, copy=False) / np.float32(task.xmax)
        inside = grid.take(mask[..., None], which)[:, 0] if task.inside_only else None
        share = (start / len(grid), len(which) / len(grid))

        def told(part: float, share: tuple[float, float] = share) -> None:
            if tick:
                tick(share[0] + share[1] * part)

        states = engine.encode(torch.from_numpy(patches), given)
        told(0.05)
        voxels = None if inside is None else torch.from_numpy(inside)
        guide = _guide(network, patches, task.bvecs_in, bvecs_out)
        decoded = engine.decode(states, wanted, voxels, lambda part: told(0.05 + 0.95 * part), guide)
        result = (decoded if guide is None else network.finished(decoded, guide)).numpy()
        if inside is not None:
            result *= inside[:, None]
        grid.put(out, result * np.float32(task.xmax), which)
    return out


def _guide(network: RCNN, patches: np.ndarray, bvecs_in: np.ndarray, bvecs_out: np.ndarray) -> torch.Tensor | None:
    """Return the guide (P, q_out, 3, x, y, z) of a guided network from patches (P, q_in, x, y, z)."""
    if not network.guided:
        return None
    given, wanted = (torch.from_numpy(np.ascontiguousarray(v))[None] for v in (bvecs_in, bvecs_out))
    return network.guide(torch.from_numpy(patches), given, wanted)
