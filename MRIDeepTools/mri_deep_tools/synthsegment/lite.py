"""The bundled compact model as a backend: finds the brain on the whole 2 mm grid, then segments a window around it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import WeightsError
from .labels import V2_CHANNELS, left_right_permutation
from .lite_network import LiteConfig, LiteNetwork

__all__ = ["LiteBackend", "load_lite"]

ShareCallback = Callable[[float], None]

WINDOW = (80, 96, 80)
"""Voxels of the window around the brain, as in training; larger when the brain needs it."""

MARGIN = 4
"""Voxels kept free on each side between the brain and the window's border."""

STRAY = 0.002
"""Share of the brain's voxels at each end of an axis that may be strays stuck to it."""

RECENTRINGS = 2
"""How often the window may be moved onto the brain that it shows."""

SHOWN_VOXELS = 20
"""A structure counts as shown from this many voxels (8 mm^3 each)."""

PERCENTILES = (0.5, 99.5)


def load_lite(folder: Path | str) -> LiteNetwork:
    """Load a model folder (``model.safetensors`` and ``config.json``) in float32 on the CPU, in evaluation mode.

    Raises
    ------
    WeightsError : a file is missing, cut, or of another network.

    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shape: dict[str, Any] = description["shape"]
        config = LiteConfig(int(shape["channels"]), tuple(shape["widths"]), int(shape["decoder_blocks"]))
        state = load_file(folder / "model.safetensors")
        network = LiteNetwork(config)
        missing, unknown = network.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    except (OSError, ValueError, KeyError, SafetensorError, RuntimeError) as error:
        raise WeightsError(f"the compact model in {folder.name} cannot be loaded", "install it again") from error
    if unknown or any(not name.endswith("num_batches_tracked") for name in missing):
        raise WeightsError(f"the weights in {folder.name} are not those of this network", "install the model again")
    if description.get("statistics") == "own":
        use_own_statistics(network)
    return network.eval().requires_grad_(False)


def use_own_statistics(network: LiteNetwork) -> None:
    """Let batch normalisation use each scan's own mean and variance, as in training with one scan at a time.

    With contrasts that differ from scan to scan these fit better than the running averages over all of them.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.track_running_stats = False
            module.running_mean = module.running_var = None


class LiteBackend:
    """``synthseg-lite``: all structures of SynthSeg 2.0 from any contrast and resolution, on a 2 mm grid."""

    codes: tuple[int, ...] = V2_CHANNELS
    spacing = 2.0
    clean = True

    def __init__(
        self, network: LiteNetwork, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self._network = network.to(device)
        self._device = torch.device(device)
        self._dtype = dtype
        self.multiple = network.multiple
        self.min_size = network.multiple
        self._swap = torch.tensor(left_right_permutation(self.codes))

    def to(self, device: torch.device) -> None:
        """Move the network to another device."""
        self._device = torch.device(device)
        self._network.to(device)

    def memory_bytes(self, shape: Sequence[int]) -> int:
        """Return the estimated peak memory of :meth:`posteriors` for an image of ``shape``, in bytes."""
        voxels = math.prod(shape)
        return 4 * voxels * (len(self.codes) * 3 + 16) + (64 << 20)

    def posteriors(
        self, image: np.ndarray, affine: np.ndarray, *, flip: bool, smooth: bool, progress: ShareCallback | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Segment a 2 mm image (X, Y, Z), axes R, A, S, values 0-1, sides multiples of :attr:`multiple`.

        Returns posteriors (33, X, Y, Z) float32 on the same grid; outside the window around the brain all is
        background. The network's output is smooth on its grid, so ``smooth`` changes nothing.
        """
        report = progress or (lambda share: None)
        result = np.zeros((len(self.codes), *image.shape), np.float32)
        result[0] = 1
        window = self._locate(image)
        report(0.4)
        if window is None:
            return result, affine
        patch = rescale(take(image, window))
        inside = self._averaged(patch) if flip else self._run(patch)
        put(result, inside.cpu().numpy(), window)
        report(1.0)
        return result, affine

    def _averaged(self, image: np.ndarray) -> torch.Tensor:
        """Return the mean of the posteriors of a scan and of its mirror image, sides exchanged."""
        posterior = self._run(image)
        mirrored = self._run(np.ascontiguousarray(image[::-1]))
        return (posterior + mirrored.flip(1)[self._swap.to(mirrored.device)]) / 2

    def _run(self, image: np.ndarray) -> torch.Tensor:
        """Return posteriors (C, X, Y, Z) float32 on the device."""
        scan = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None].to(self._device)
        with torch.inference_mode(), torch.autocast(self._device.type, self._dtype, self._dtype != torch.float32):
            return self._network(scan)[0].float().softmax(0)

    def _locate(self, image: np.ndarray) -> list[tuple[int, int]] | None:
        """Return the window around the brain; None when no structure is found anywhere.

        Windows of the size used in training are tried all over the image; the one that shows most structures wins and
        is then moved onto what it shows.
        """
        best, window = 0.0, None
        for candidate in candidate_windows(image.shape):
            found, score = self._look(image, candidate)
            if score > best:
                best, window = score, find_window(found, self.multiple, offset=[a for a, _ in candidate])
        for _ in range(RECENTRINGS if window is not None else 0):
            found, _ = self._look(image, window or [])
            moved = find_window(found, self.multiple, offset=[a for a, _ in window or []])
            if moved is None or moved == window:
                break
            window = moved
        return window

    def _look(self, image: np.ndarray, window: list[tuple[int, int]]) -> tuple[np.ndarray, float]:
        """Return the brain mask of a window, and how many structures it shows (brain volume decides between equals)."""
        posterior = self._run(rescale(take(image, window)))
        counts = torch.bincount(posterior.argmax(0).flatten(), minlength=len(self.codes))
        csf = self.codes.index(24)
        mask = ((1 - posterior[0] - posterior[csf]) > 0.5).cpu().numpy()
        shown = int((counts[1:] >= SHOWN_VOXELS).sum())
        return mask, shown + min(float(mask.mean()), 0.99) if shown else 0.0


def candidate_windows(shape: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Return windows of the training's size that cover an image, half a window apart at most."""
    starts = []
    for n, wanted in zip(shape, WINDOW, strict=True):
        if n <= wanted:
            starts.append([(n - wanted) // 2])
        else:
            count = 1 + math.ceil((n - wanted) / (wanted / 2))
            starts.append([round(k * (n - wanted) / (count - 1)) for k in range(count)])
    places = itertools.product(*starts)
    return [[(a, a + wanted) for a, wanted in zip(place, WINDOW, strict=True)] for place in places]


def rescale(image: np.ndarray) -> np.ndarray:
    """Clip to the 0.5 and 99.5 percentiles of what is not padding and scale to 0-1."""
    inside = image[image != 0]
    if inside.size < 1000:
        return image
    low, high = np.percentile(image, PERCENTILES)
    if high <= low:
        return image
    return np.clip((image - low) / (high - low), 0, 1).astype(np.float32)


def find_window(mask: np.ndarray, multiple: int, offset: Sequence[int] = (0, 0, 0)) -> list[tuple[int, int]] | None:
    """Return (start, stop) per axis of a window around the largest component of a mask; it may leave the array.

    ``offset`` is the position of the mask's first voxel. None when the mask is empty.
    """
    from scipy import ndimage

    parts, count = ndimage.label(mask)
    if count == 0:
        return None
    largest = parts == int(np.bincount(parts.ravel())[1:].argmax()) + 1
    window = []
    for axis, (least, first) in enumerate(zip(WINDOW, offset, strict=True)):
        low, high = _extent(largest, axis)
        wanted = max(least, math.ceil((high - low + 2 * MARGIN) / multiple) * multiple)
        start = first + (low + high - wanted) // 2
        window.append((start, start + wanted))
    return window


def _extent(mask: np.ndarray, axis: int) -> tuple[int, int]:
    """Return (start, stop) of a mask along an axis, leaving out its outermost STRAY share at either end."""
    line = np.cumsum(np.count_nonzero(mask, axis=tuple(a for a in range(3) if a != axis)))
    low, high = np.searchsorted(line, [STRAY * line[-1], (1 - STRAY) * line[-1]])
    return int(low), int(high) + 1


def _overlap(window: list[tuple[int, int]], shape: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the slices of the array and of the window that coincide."""
    whole = tuple(slice(max(a, 0), min(b, n)) for (a, b), n in zip(window, shape, strict=True))
    part = tuple(slice(s.start - a, s.stop - a) for s, (a, _) in zip(whole, window, strict=True))
    return whole, part


def take(image: np.ndarray, window: list[tuple[int, int]]) -> np.ndarray:
    """Return the window of an image (X, Y, Z), zero where it leaves the array."""
    whole, part = _overlap(window, image.shape)
    result = np.zeros([b - a for a, b in window], np.float32)
    result[part] = image[whole]
    return result


def put(result: np.ndarray, inside: np.ndarray, window: list[tuple[int, int]]) -> None:
    """Write the window's posteriors (C, x, y, z) into the whole (C, X, Y, Z)."""
    whole, part = _overlap(window, result.shape[1:])
    result[(slice(None), *whole)] = inside[(slice(None), *part)]
