"""Segmentation with a model of one's own: its own label list, any number of input channels, any depth and width.

The generic prediction of SynthSeg (Billot et al., Medical Image Analysis 86, 2023, 102789): the published steps, each
of them with its own switch. The architecture is read off the weights, which must be a U-Net of the published family
(ELU, features doubled at each level). Several input channels come as one 4-D image or as several files on one grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GeometryError, InputError, RequestError, WeightsError
from ..inference import peak_memory_bytes, pick_device, pick_precision, set_threads
from ..kept import file_key, kept
from ..progress import Progress, ProgressCallback
from ..volume import Volume, read_volume
from .label_table import LabelTable, read_label_table
from .model_choice import Networks, SegmentOptions, WeightsFiles
from .predict import STAGES, SegmentationResult

if TYPE_CHECKING:
    import torch

    from .network import UNet

__all__ = ["GenericOptions", "GenericSegmenter"]

_AFFINE_ATOL = 1e-3  # mm by which the grids of two channels may differ


@dataclass(frozen=True)
class GenericOptions:
    """What shapes a segmentation with a model of one's own; the defaults are the published ones.

    Attributes
    ----------
    target_resolution : voxel size in mm of the network's grid; None never resamples.
    padding : least side in voxels of the network's input; None pads only to what the network's depth needs.
    smoothing : sigma in voxels of the Gaussian that smooths posteriors; 0 = off.
    keep_largest : keep only the largest connected part of all structures together.
    topology : keep only the largest part of each topological class of the label table.
    gradients : the network sees the gradient magnitude of each channel, scaled to 0 to 1.
    flip : average with the left-right mirrored scan; has no effect where the label list knows no sides.

    """

    target_resolution: float | None = 1.0
    padding: int | None = None
    smoothing: float = 0.5
    keep_largest: bool = True
    topology: bool = False
    gradients: bool = False
    flip: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        size = self.target_resolution
        if size is not None and not (math.isfinite(size) and size > 0):
            raise RequestError(f"the target resolution is {size:g} mm", "give a size above 0, or none")
        if self.padding is not None and self.padding < 1:
            raise RequestError(f"the padding is {self.padding}", "give the least side in voxels")
        if not (math.isfinite(self.smoothing) and self.smoothing >= 0):
            raise RequestError(f"the smoothing is {self.smoothing:g} voxels", "give a sigma from 0")


class GenericSegmenter:
    """Segments scans with a model that a user trained.

    Parameters
    ----------
    weights : Keras ``.h5`` file or ``.safetensors``; the number of its output channels is that of the labels.
    labels : the label list, or its file (see :func:`.label_table.read_label_table`).
    options : what shapes the result.
    channels : image files with the second and further channels of the one scan that will be segmented.
    neutral : for a ``.npy`` list: how many of its labels have no side.
    **others : ``grid`` (``"1mm"`` = the network's grid), ``crop`` (in voxels of the network's grid), ``posteriors``,
        ``resampled``, ``compatible``, ``device``, ``threads`` and ``precision`` as in :func:`.predict.segment`.

    Raises
    ------
    RequestError, InputError, WeightsError : before any scan is read, where that can be known.

    """

    def __init__(
        self,
        weights: str | Path,
        labels: str | Path | LabelTable,
        options: GenericOptions | None = None,
        *,
        channels: Sequence[str | Path] = (),
        neutral: int | None = None,
        **others: Any,
    ) -> None:
        self.own = options or GenericOptions()
        self.table = labels if isinstance(labels, LabelTable) else read_label_table(labels, neutral=neutral)
        if self.own.topology and self.table.classes is None:
            raise RequestError("the label table has no column topological_class", "add it, or drop --topology")
        flip = self.own.flip and self.table.mirror is not None
        self.options = SegmentOptions(weights=weights, fast=not flip, **others)
        path = Path(weights)
        if not path.is_file():
            raise WeightsError(f"weights file {path.name} does not exist", "name one file, .h5 or .safetensors")
        self.channels = tuple(Path(channel) for channel in channels)
        self.weights = WeightsFiles(path.name, {"segmentation": path})
        self.device = pick_device(self.options.device)
        self.dtype = pick_precision(self.options.precision, self.device)
        self._networks: Networks | None = None

    def segment(
        self, scan: str | Path | Volume, progress: ProgressCallback | Progress | None = None
    ) -> SegmentationResult:
        """Segment one scan: an image file, a folder with a DICOM series, or a Volume (X, Y, Z) or (X, Y, Z, C).

        Volumes of the result are by the names of the label table, in mm^3, without a total.

        Raises
        ------
        InputError : the scan has not the channels of the network, or no contrast.
        GeometryError : the files of the channels are not on one grid.

        """
        from ..inference import within_memory
        from .generic_run import GenericRun

        progress = progress if isinstance(progress, Progress) else Progress(progress)
        progress.plan([*STAGES, ("grid", 5.0)])
        before = len(progress.warnings), dict(progress.seconds)
        threads = set_threads(self.options.threads)
        with progress.stage("read"):
            network = self._load().backend
            scans = self._read(scan, network.in_channels, progress)  # type: ignore[attr-defined]
        precision = str(self.dtype).removeprefix("torch.")
        progress.device(str(self.device), threads=threads, precision=precision, model=self.weights.model)
        outcome = within_memory(
            lambda: GenericRun(scans, self._load, self.options, self.own, self.table, self.device, progress).outcome()
        )
        self.device = pick_device(outcome.device)
        seconds = {name: value - before[1].get(name, 0.0) for name, value in progress.seconds.items()}
        return SegmentationResult(
            labels=outcome.labels,
            volumes_mm3=outcome.volumes,
            qc=None,
            posteriors=outcome.posteriors,
            resampled=outcome.resampled,
            codes=outcome.codes,
            seconds={name: value for name, value in seconds.items() if value > 0},
            peak_memory_bytes=peak_memory_bytes(self.device),
            model=self.weights.model,
            weights=dict(self.weights.files),
            device=outcome.device,
            threads=threads,
            precision=precision,
            warnings=tuple(progress.warnings[before[0] :]),
            names=self.table.names,
            sides=self.table.sides,
        )

    def _load(self) -> Networks:
        if self._networks is None:
            file = file_key(self.weights.files["segmentation"])
            key = ("segment", file, self.table, self.own.smoothing, str(self.device), self.dtype)
            self._networks = kept(key, lambda: Networks(self._backend(self.device, self.dtype), self.weights))
        return self._networks

    def _backend(self, device: torch.device, dtype: torch.dtype) -> Any:
        from .generic_run import GenericBackend
        from .weights import load_unets

        path = self.weights.files["segmentation"]
        (network,) = load_unets(path)
        _check_network(network, self.table, path.name)
        return GenericBackend(network, self.table, device, dtype, sigma=self.own.smoothing)

    def _read(self, scan: str | Path | Volume, count: int, progress: Progress) -> list[Volume]:
        """Return one 3-D volume per input channel of the network."""
        images = [scan, *self.channels]
        read = [
            item if isinstance(item, Volume) else read_volume(item, ndim=None, on_warning=progress.warn)
            for item in images
        ]
        name = read[0].source.name or "the image"
        parts = [part for volume in read for part in _frames(volume)]
        if count == 1 and len(read) == 1 and len(parts) > 1:
            progress.warn(f"{name} has {len(parts)} frames; the first is used")
            parts = parts[:1]
        if len(parts) != count:
            hint = "give a 4-D image with a frame per channel, or the further channels with --channel"
            raise InputError(f"{name} comes with {len(parts)} channels, but the network takes {count}", hint)
        for other in read[1:]:
            same = other.shape3 == read[0].shape3
            if not same or not np.allclose(other.affine, read[0].affine, rtol=0, atol=_AFFINE_ATOL):
                message = f"{other.source.name or 'a channel'} does not lie on the grid of {name}"
                raise GeometryError(message, "bring all channels to one grid first")
        return parts


def _frames(volume: Volume) -> list[Volume]:
    """Return the frames of a volume as 3-D volumes with finite real values."""
    name, data = volume.source.name or "the image", volume.data
    if data.dtype.kind not in "biuf":
        raise InputError(f"{name} holds values of type {data.dtype}, not real numbers", "give real-valued volumes")
    if min(volume.shape3) < 2:
        raise InputError(f"{name} has a single slice (shape {data.shape})", "give a volume")
    if data.dtype.kind == "f":
        data = np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0)
    frames = [data] if data.ndim == 3 else [data[..., index] for index in range(data.shape[3])]
    return [Volume(frame, volume.affine, volume.source) for frame in frames]


def _check_network(network: UNet, table: LabelTable, name: str) -> None:
    """Refuse a network that the labels do not fit, or that cannot be run."""
    spec, count = network.spec, len(table.codes)
    if spec.out_channels != count:
        message = f"{name} gives {spec.out_channels} structures, but the label table lists {count} different labels"
        raise WeightsError(message, "give the list of segmentation labels with which the network was trained")
    if spec.kernel % 2 == 0 or spec.levels < 2:
        what = f"kernels of {spec.kernel} voxels" if spec.levels > 1 else "a single level"
        raise WeightsError(f"{name} holds a network with {what}", "kernels must be odd, and there must be two levels")
