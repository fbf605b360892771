"""The bundled compact model as a backend: finds the brain, segments a window around it, and sharpens the result.

The network works on 2 mm voxels. Its posteriors are averaged over a few shifts of the window, mirrored and not, then
brought to 1 mm and sharpened by the scan's own intensities (:mod:`.intensities`).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf

from ..errors import WeightsError
from .intensities import sharpen_
from .labels import V2_CHANNELS, left_right_permutation, topological_classes
from .lite_network import FOLD, LiteConfig, LiteNetwork
from .postprocess import keep_brain_, keep_structures_, normalise_

__all__ = ["LiteBackend", "load_lite"]

ShareCallback = Callable[[float], None]
Window = list[tuple[int, int]]

WINDOW = (80, 96, 80)
"""Voxels of the window around the brain, as in training (160 x 192 x 160 mm)."""

STRAY = 0.02
"""Share of the brain's voxels at each end of an axis that may be strays stuck to it."""

RECENTRINGS = 3
"""How often the window may be moved onto the brain that it shows."""

SHIFTS = ((0, 0, 0), (1, 0, 1), (-1, 0, 1), (0, 1, 0), (0, 1, 1))
"""Shifts of the window in 2 mm voxels to average over, since cells of 4 mm leave blocks; alike for both sides."""

ENOUGH_STRUCTURES = 28
"""A window that shows so many of the 32 structures needs no search for a better one."""

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
    spacing = 1.0
    clean = True

    def __init__(
        self, network: LiteNetwork, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self._network = network.to(device)
        self._device = torch.device(device)
        self._dtype = dtype
        self.multiple = FOLD
        self.min_size = FOLD
        self._swap = torch.tensor(left_right_permutation(self.codes))

    def to(self, device: torch.device) -> None:
        """Move the network to another device."""
        self._device = torch.device(device)
        self._network.to(device)

    def memory_bytes(self, shape: Sequence[int]) -> int:
        """Return the estimated peak memory of :meth:`posteriors`, in bytes; the window, not ``shape``, decides."""
        window = math.prod(min(n, size) if n > size * FOLD else size for n, size in zip(shape, WINDOW, strict=True))
        return 4 * window * len(self.codes) * (FOLD**3 + 4) + (512 << 20)

    def posteriors(
        self, image: np.ndarray, affine: np.ndarray, *, flip: bool, smooth: bool, progress: ShareCallback | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Segment a 1 mm image (X, Y, Z), axes R, A, S, values 0-1, sides even.

        Returns posteriors (33, x, y, z) float32 on the 1 mm grid of a window around the brain, and its affine. Without
        ``flip`` one pass replaces the average over shifts and mirror images. The result is smooth by its making, so
        ``smooth`` changes nothing.
        """
        report = progress or (lambda share: None)
        coarse = pool(image)
        search = _Search(coarse, self._run, self.codes)
        window = search.locate()
        report(0.3)
        if window is None:
            empty = np.zeros((len(self.codes), *image.shape), np.float32)
            empty[0] = 1
            return empty, affine
        posterior = search.posterior(window)
        if flip:
            posterior = self._averaged(coarse, window, lambda share: report(0.3 + 0.3 * share), posterior)
        posterior = self._trimmed(posterior)
        fine = nnf.interpolate(posterior[None], scale_factor=float(FOLD), mode="trilinear")[0]
        del posterior
        corner = [FOLD * begin for begin, _ in window]
        seen = take(image, [(a, a + n) for a, n in zip(corner, fine.shape[1:], strict=True)])
        report(0.65)
        sharpen_(fine, torch.from_numpy(seen).to(fine.device), self.codes)
        _clear_outside_(fine, corner, image.shape)
        report(1.0)
        placed = affine.copy()
        placed[:3, 3] += affine[:3, :3] @ corner
        return fine.cpu().numpy(), placed

    def _trimmed(self, posterior: torch.Tensor) -> torch.Tensor:
        """Return posteriors without loose parts and doubtful fringes, which intensities alone would let grow."""
        values = posterior.cpu().numpy()
        keep_structures_(values, topological_classes(self.codes), keep_brain_(values))
        normalise_(values)
        return torch.from_numpy(values).to(self._device)

    def _averaged(
        self, coarse: np.ndarray, window: Window, report: ShareCallback, first: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return posteriors averaged over shifts of the window and over mirror images, sides exchanged.

        ``first`` are those of the window as it is, where they are known; they are changed.
        """
        swap = self._swap.to(self._device)
        total = torch.zeros((len(self.codes), *(b - a for a, b in window)), device=self._device)
        for number, shift in enumerate(SHIFTS):
            patch = rescale(take(coarse, [(a + s, b + s) for (a, b), s in zip(window, shift, strict=True)]))
            both = self._run(patch) if first is None or any(shift) else first
            both += self._run(np.ascontiguousarray(patch[::-1])).flip(1)[swap]
            _add_shifted_(total, both, shift)
            report((number + 1) / len(SHIFTS))
        return total.div_(total.sum(0, keepdim=True))

    def _run(self, image: np.ndarray) -> torch.Tensor:
        """Return posteriors (C, X, Y, Z) float32 on the device."""
        scan = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None].to(self._device)
        with torch.no_grad(), torch.autocast(self._device.type, self._dtype, self._dtype != torch.float32):
            return self._network(scan)[0].float().softmax(0)


def _clear_outside_(posterior: torch.Tensor, corner: Sequence[int], shape: Sequence[int]) -> None:
    """Make everything background where a window (C, x, y, z) that begins at ``corner`` reaches past the image."""
    for axis, (begin, size) in enumerate(zip(corner, shape, strict=True), 1):
        length = posterior.shape[axis]
        first, last = (min(max(place, 0), length) for place in (-begin, size - begin))
        for start, stop in ((0, first), (last, length)):
            part = posterior.narrow(axis, start, stop - start)
            part.zero_()
            part[0] = 1


class _Search:
    """Looks for the brain in one scan; no window is looked at twice, and the last look's posteriors are kept.

    ``run`` gives the posteriors (C, x, y, z) of a rescaled window of ``image``, a scan at 2 mm.
    """

    def __init__(self, image: np.ndarray, run: Callable[[np.ndarray], torch.Tensor], codes: Sequence[int]) -> None:
        self.image, self.run, self.codes = image, run, tuple(codes)
        self._seen: dict[tuple[tuple[int, int], ...], tuple[np.ndarray, float]] = {}
        self._last: tuple[Window, torch.Tensor] | None = None

    def posterior(self, window: Window) -> torch.Tensor:
        """Return the posteriors of a window in one pass; they are the caller's to change."""
        last, self._last = self._last, None
        return last[1] if last and last[0] == window else self.run(rescale(take(self.image, window)))

    def locate(self) -> Window | None:
        """Return the window around the brain; None when no structure is found anywhere.

        A window in the middle of the image is moved onto the brain that it shows. Where that does not bring nearly all
        structures into view, windows all over the image are tried, and the one that shows most is moved likewise.
        """
        shape = self.image.shape
        middle = [((n - wanted) // 2, (n - wanted) // 2 + wanted) for n, wanted in zip(shape, WINDOW, strict=True)]
        shown, window = self._follow(middle)
        if shown >= ENOUGH_STRUCTURES:
            return window
        candidates = [(self._look(candidate), candidate) for candidate in candidate_windows(shape)]
        (_, score), best = max(candidates, key=lambda item: item[0][1])
        if score > shown:
            followed, moved = self._follow(best)
            shown, window = max((shown, window), (score, best), (followed, moved), key=lambda item: item[0])
        return window if shown > 0 else None

    def _follow(self, window: Window) -> tuple[float, Window]:
        """Move a window onto the brain that it shows, a few times; return how much the last one shows, and it."""
        mask, score = self._look(window)
        for _ in range(RECENTRINGS):
            moved = find_window(mask, offset=[a for a, _ in window])
            if moved is None or max(abs(a - b) for (a, _), (b, _) in zip(moved, window, strict=True)) < 2:
                break
            window = moved
            mask, score = self._look(window)
        return score, window

    def _look(self, window: Window) -> tuple[np.ndarray, float]:
        """Return the brain mask of a window, and how many structures it shows (brain volume decides between equals)."""
        if tuple(window) not in self._seen:
            posterior = self.run(rescale(take(self.image, window)))
            self._last = window, posterior
            counts = torch.bincount(posterior.argmax(0).flatten(), minlength=len(self.codes))
            csf = self.codes.index(24)
            mask = ((1 - posterior[0] - posterior[csf]) > 0.5).cpu().numpy()
            shown = int((counts[1:] >= SHOWN_VOXELS).sum())
            self._seen[tuple(window)] = mask, shown + min(float(mask.mean()), 0.99) if shown else 0.0
        return self._seen[tuple(window)]


def candidate_windows(shape: Sequence[int]) -> list[Window]:
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


def find_window(mask: np.ndarray, offset: Sequence[int] = (0, 0, 0)) -> Window | None:
    """Return (start, stop) per axis of a window around the largest component of a mask; it may leave the array.

    The window has the size of training and sits on the middle between the 2nd and the 98th percentile of the mask's
    voxels along each axis: what is taken for brain in the neck or the scalp moves it little. ``offset`` is the position
    of the mask's first voxel. None when the mask is empty.
    """
    from scipy import ndimage

    parts, count = ndimage.label(mask)
    if count == 0:
        return None
    largest = parts == int(np.bincount(parts.ravel())[1:].argmax()) + 1
    window = []
    for axis, (wanted, first) in enumerate(zip(WINDOW, offset, strict=True)):
        line = np.cumsum(np.count_nonzero(largest, axis=tuple(a for a in range(3) if a != axis)))
        low, high = np.searchsorted(line, [STRAY * line[-1], (1 - STRAY) * line[-1]])
        start = first + (int(low) + int(high) + 1 - wanted) // 2
        window.append((start, start + wanted))
    return window


def pool(image: np.ndarray) -> np.ndarray:
    """Return the means of 2x2x2 blocks of an image with even sides."""
    x, y, z = (n // FOLD for n in image.shape)
    return image.reshape(x, FOLD, y, FOLD, z, FOLD).mean((1, 3, 5), dtype=np.float32)


def _add_shifted_(total: torch.Tensor, part: torch.Tensor, shift: Sequence[int]) -> None:
    """Add the posteriors of a shifted window where both overlap."""
    here = tuple(slice(max(s, 0), n + min(s, 0)) for s, n in zip(shift, total.shape[1:], strict=True))
    there = tuple(slice(max(-s, 0), n + min(-s, 0)) for s, n in zip(shift, total.shape[1:], strict=True))
    total[(slice(None), *here)] += part[(slice(None), *there)]


def _overlap(window: Window, shape: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the slices of the array and of the window that coincide."""
    whole = tuple(slice(max(a, 0), min(b, n)) for (a, b), n in zip(window, shape, strict=True))
    part = tuple(slice(s.start - a, s.stop - a) for s, (a, _) in zip(whole, window, strict=True))
    return whole, part


def take(image: np.ndarray, window: Window) -> np.ndarray:
    """Return the window of an image (X, Y, Z), zero where it leaves the array."""
    whole, part = _overlap(window, image.shape)
    result = np.zeros([b - a for a, b in window], np.float32)
    result[part] = image[whole]
    return result


def put(result: np.ndarray, inside: np.ndarray, window: Window) -> None:
    """Write the window's posteriors (C, x, y, z) into the whole (C, X, Y, Z)."""
    whole, part = _overlap(window, result.shape[1:])
    result[(slice(None), *whole)] = inside[(slice(None), *part)]
