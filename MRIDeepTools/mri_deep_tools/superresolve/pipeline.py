"""The way of one pair through super-resolution: align, scale, network, and back to where it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, RequestError, WeightsError
from ..geometry import Grid, Reorient, resample_to
from ..inference import available_memory, require_memory, run_with_fallback
from ..progress import Progress
from ..volume import Volume
from .frames import AXES, Frame, name_conflicts, native_frame, plausibility, shared_frame, template_frame
from .guided import guided_start
from .honesty import HonestyCheck, check_honesty
from .preprocess import Scaling, pad_volume, padded_shape, without_background
from .slices import SliceGeometry, detect_slices, understand_slices

if TYPE_CHECKING:
    import torch

    from .network import ResUNet
    from .predict import SuperResolveOptions

__all__ = ["Outcome", "run"]

_PROGRAM = 1250 << 20  # network, its activations, and what libraries take; measured: benchmarks/superresolve_cost.py
_PER_VOXEL = 8 * 8  # float64 volumes held at once
_LITTLE_OVERLAP, _LITTLE_INFORMATION = 0.6, 1.02


@dataclass(frozen=True)
class Outcome:
    """What :class:`.predict.SuperResolutionResult` tells of one pair."""

    image: Volume
    interpolated: Volume
    slices: SliceGeometry | None
    honesty: HonestyCheck | None
    t2_to_t1: np.ndarray | None
    overlap: float | None
    mutual_information: float | None
    device: str


def run(
    t2: Volume,
    t1: Volume | None,
    template: Volume | None,
    path: Path | None,
    load: Callable[[], ResUNet],
    options: SuperResolveOptions,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress,
) -> Outcome:
    """Super-resolve one pair, or a T2w scan alone; ``load`` gives the network and is called after the memory check."""
    return _Run(t2, t1, template, path, options, progress).outcome(load, device, dtype)


class _Run:
    """One pair on its way through the stages."""

    def __init__(
        self,
        t2: Volume,
        t1: Volume | None,
        template: Volume | None,
        path: Path | None,
        options: SuperResolveOptions,
        progress: Progress,
    ) -> None:
        self.alone = t1 is None
        t1 = t2.with_data(np.zeros(t2.shape3, dtype=np.float32)) if t1 is None else t1
        self.t2, self.t1, self.template, self.options, self.progress = t2, t1, template, options, progress
        self.t2_name, self.t1_name = (
            volume.source.file_name or f"the {role} scan" for volume, role in ((t2, "T2w"), (t1, "T1w"))
        )
        for note in [] if self.alone else name_conflicts(self.t2_name, self.t1_name):
            progress.warn(note)
        for volume, name in ((t2, self.t2_name), (t1, self.t1_name))[: 1 if self.alone else 2]:
            Scaling.of(volume.data, name)  # an error for scans without content
        self.slices = self._slices(path)
        self.measured = self.slices is not None and t2.shape3[self.slices.axis] == self.slices.count
        if not options.compatible:
            self.t2 = self._shifted(self.t2)
            self.t1 = self.t1 if self.alone else self._shifted(self.t1)

    def _slices(self, path: Path | None) -> SliceGeometry | None:
        """Return how the T2w scan was acquired, with what is odd about it told; an error where nothing is to do."""
        options = self.options
        direction, thickness, spacing = options.slice_direction, options.slice_thickness, options.slice_spacing
        if options.compatible:
            return detect_slices(self.t2, path, direction=direction, thickness_mm=thickness, spacing_mm=spacing)
        slices, notes = understand_slices(
            self.t2,
            path,
            self.t2_name,
            direction=direction,
            thickness_mm=thickness,
            spacing_mm=spacing,
            registered=options.registered,
        )
        for note in notes:
            self.progress.warn(note)
        return slices

    def _shifted(self, volume: Volume) -> Volume:
        data, value = without_background(volume.data)
        if value:
            self.progress.warn(f"{volume.source.file_name or 'a scan'} has a background of {value:.4g}, taken as 0")
        return volume.with_data(data)

    def outcome(self, load: Callable[[], ResUNet], device: torch.device, dtype: torch.dtype) -> Outcome:
        """Run all stages."""
        with self.progress.stage("align"):
            t2_to_t1, template_to_t1 = self._register()
            frame = self._frame(t2_to_t1, template_to_t1)
            self._require_overlap(frame)
            scaled = _Scaled.of(frame, self.t2_name, None if self.alone else self.t1_name)
            overlap, information = (None, None) if self.alone else self._check_pair(scaled)
        with self.progress.stage("load"):
            shape = padded_shape(frame.t2.shape3)
            needed = _PROGRAM + int(np.prod(shape)) * _PER_VOXEL
            require_memory(needed, available_memory(), "super-resolution", "close other programs")
            network = load()
            if self.alone and not network.spec.t2_alone:
                raise WeightsError(
                    "this model needs a T1w scan beside the T2w scan", "give one, or use --model superresolve-lite"
                )
            guided, begun = network.spec.start == "guided" and self._can_be_guided(), frame
        with self.progress.stage("super-resolve"):
            if guided:
                begun = self._guided(frame, t2_to_t1, template_to_t1)
                scaled = _Scaled.of(begun, self.t2_name, None if self.alone else self.t1_name)
            values, used = self._predict(network, scaled, device, dtype)
        with self.progress.stage("check"):
            image = self._finished(values, frame, scaled, begun.t2 if network.spec.residual else None)
            native, interpolated = self._native(image, frame), self._native(frame.t2, frame)
            honesty = self._honesty(native, interpolated, scaled.scaling)
        return Outcome(
            image=native if self.options.space == "native" and not self.options.compatible else image,
            interpolated=self._shown(interpolated, frame, scaled),
            slices=self.slices,
            honesty=honesty,
            t2_to_t1=None if self.alone else t2_to_t1,
            overlap=overlap,
            mutual_information=information,
            device=used,
        )

    # ---------------------------------------------------------------------------------------------------- alignment

    def _register(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rigid transforms T2w to T1w and template to T1w (RAS, mm); identities where not needed."""
        if self.options.registered:
            return np.eye(4), np.eye(4)
        t2_to_t1 = np.eye(4) if self.alone else self._rigid(self.t2, 0.0)
        return t2_to_t1, np.eye(4) if self.template is None else self._rigid(self.template, 0.5)

    def _rigid(self, fixed: Volume, begin: float) -> np.ndarray:
        """Return the rigid transform from world points of ``fixed`` to those of the T1w scan (of the T2w, if alone)."""
        from ..registration import register_rigid

        share = 1.0 if self.template is None else 0.5
        found = register_rigid(
            self.t2 if self.alone else self.t1,
            fixed,
            metric="mutual-information",
            threads=self.options.threads,
            progress=lambda done: self.progress.update(begin + share * done),
        )
        return found.matrix

    def _frame(self, t2_to_t1: np.ndarray, template_to_t1: np.ndarray) -> Frame:
        options = self.options
        if self.template is not None:
            return template_frame(self.t2, self.t1, self.template, t2_to_t1, template_to_t1)
        frame = shared_frame(self.t2, self.t1) if options.registered else None
        if frame is not None:
            return frame
        if options.compatible:
            raise RequestError(
                f"{self.t2_name} and {self.t1_name} do not lie on one grid of 1 mm voxels, as the published program "
                "needs them",
                "drop --compatible",
            )
        axis = self.slices.axis if self.slices is not None else None
        return native_frame(self.t2, self.t1, t2_to_t1, axis, options.resampling)

    def _require_overlap(self, frame: Frame) -> None:
        """Raise InputError where a scan that has content shows none on the working grid."""
        for there, scan, name in ((frame.t1, self.t1, self.t1_name), (frame.t2, self.t2, self.t2_name)):
            if not (there.data > 0).any() and (scan.data > 0).any():
                other = "the T2w scan" if scan is self.t1 else "the template"
                raise InputError(f"{name} and {other} do not overlap in space", "check that they are of one person")

    def _check_pair(self, scaled: _Scaled) -> tuple[float, float]:
        """Judge whether the two scans can be of one head; an error where they do not meet at all."""
        overlap, information = plausibility(scaled.channels[0], scaled.channels[1])
        if overlap == 0:
            raise InputError(
                f"{self.t1_name} and {self.t2_name} do not overlap in space", "check that they are of one person"
            )
        if overlap < _LITTLE_OVERLAP or information < _LITTLE_INFORMATION:
            self.progress.warn(
                f"{self.t1_name} and {self.t2_name} fit poorly (overlap of the heads {overlap:.2f}, mutual "
                f"information {information:.2f}); check that they are of one person and session"
            )
        return overlap, information

    # ------------------------------------------------------------------------------------------------ guided estimate

    def _can_be_guided(self) -> bool:
        """Say whether the slices are known that a guided estimate is fitted to."""
        if self.options.resampling == "as-trained":
            raise RequestError("this model works with geometric resampling only", "leave --resampling out")
        if self.slices is None:
            self.progress.warn(
                "the model is given the plain interpolation, because the measured slices are not known; its result is "
                "better when --slice-direction and --slice-spacing are said"
            )
        return self.slices is not None

    def _acquired(self) -> tuple[Volume, int, float]:
        """Return the measured slices, the array axis across them, and their thickness."""
        slices: Any = self.slices
        scan = self.t2 if self.measured else _as_slices(self.t2, slices)
        return scan, slices.axis, slices.thickness_mm

    def _guided(self, frame: Frame, t2_to_t1: np.ndarray, template_to_t1: np.ndarray) -> Frame:
        """Return the frame with the guided estimate in place of the interpolated scan."""
        if self.template is None:
            return replace(frame, t2=guided_start(frame.t2, *self._acquired(), None if self.alone else frame.t1))
        own = native_frame(self.t2, self.t1, t2_to_t1, None)
        estimate = guided_start(own.t2, *self._acquired(), None if self.alone else own.t1)
        there = template_frame(estimate, self.t1, self.template, t2_to_t1, template_to_t1)
        return replace(frame, t2=there.t2)

    # ------------------------------------------------------------------------------------------------------ network

    def _predict(
        self, network: ResUNet, scaled: _Scaled, device: torch.device, dtype: torch.dtype
    ) -> tuple[np.ndarray, str]:
        from .engine import PatchEngine
        from .patches import reconstruct

        used = str(device)

        def attempt(place: torch.device) -> np.ndarray:
            nonlocal used
            used = str(place)
            engine = PatchEngine(network, place, dtype)
            return reconstruct(
                engine,
                scaled.channels,
                batch=engine.batch,
                window=self.options.window,
                progress=self.progress.update,
            )

        return run_with_fallback(attempt, device, self.progress), used

    def _finished(self, values: np.ndarray, frame: Frame, scaled: _Scaled, begun: Volume | None) -> Volume:
        """Return the network's answer on the working grid; with ``compatible`` on the padded one, 0..1, float64.

        What a residual network adds is added to what it was to begin with, whose brightest fluid it saw cut off.
        """
        padded = frame.t2.with_affine(values, scaled.affine)
        if self.options.compatible:
            return padded
        answer = scaled.unpad(padded)
        if begun is not None:
            seen = np.clip((begun.data.astype(np.float64) - scaled.scaling.low) / scaled.scaling.span, 0, 1)
            unit = (begun.data - scaled.scaling.low) / scaled.scaling.span
            answer = answer.with_data(answer.data - seen + unit)
        if self.options.intensities == "unit":
            return answer.with_data(answer.data.astype(np.float32))
        intensities = scaled.scaling.undo(answer.data)
        intensities[frame.background] = 0  # the darkest percentile is 0 for the network, but background stays 0
        return answer.with_data(intensities)

    def _native(self, volume: Volume, frame: Frame) -> Volume:
        """Bring a volume on the working grid into the T2w scan's own frame, where it is not there already."""
        if self.template is None or self.options.compatible:
            return volume
        grid = Grid.of(Reorient.to(self.t2, AXES).apply(self.t2)).with_spacing(1.0)
        moved = volume.with_affine(volume.data, frame.to_t2_world @ volume.affine)
        return resample_to(moved, grid.shape, grid.affine, order=3)

    def _shown(self, native: Volume, frame: Frame, scaled: _Scaled) -> Volume:
        """Return the interpolated scan on the grid of the image that is given."""
        if self.options.compatible:
            return frame.t2.with_affine(scaled.scaling.undo(scaled.channels[1]), scaled.affine)
        return native if self.options.space == "native" else frame.t2

    def _honesty(self, result: Volume, interpolated: Volume, scaling: Scaling) -> HonestyCheck | None:
        """Compare the result with the measured slices, where those are known."""
        if self.slices is None or self.options.compatible:
            return None
        if self.options.intensities == "unit":
            result = result.with_data(scaling.undo(result.data))
        return check_honesty(result, interpolated, *self._acquired(), scaling.high - scaling.low)


def _as_slices(scan: Volume, slices: SliceGeometry) -> Volume:
    """Return the slices that an interpolated scan is said to come from: samples at their spacing, from the first on."""
    size = scan.spacing[slices.axis]
    affine = np.array(scan.affine)
    affine[:3, slices.axis] *= slices.spacing_mm / size
    shape = list(scan.shape3)
    shape[slices.axis] = int((scan.shape3[slices.axis] - 1) * size / slices.spacing_mm) + 1
    return resample_to(scan, shape, affine, order=3)


@dataclass(frozen=True)
class _Scaled:
    """The network's input: channels (2, X, Y, Z) on 0..1, the padded grid, and the way back."""

    channels: np.ndarray
    affine: np.ndarray
    scaling: Scaling
    pad: Any

    @classmethod
    def of(cls, frame: Frame, t2_name: str, t1_name: str | None) -> _Scaled:
        """Scale a frame; without a name of the T1w scan its channel is 0."""
        t2, step = pad_volume(frame.t2)
        scaling = Scaling.of(t2.data, t2_name)
        channels = np.zeros((2, *t2.shape3), dtype=np.float32)
        channels[1] = scaling.apply(t2.data)
        if t1_name is not None:
            t1, _ = pad_volume(frame.t1)
            channels[0] = Scaling.of(t1.data, t1_name).apply(t1.data)
        return cls(channels, t2.affine, scaling, step)

    def unpad(self, volume: Volume) -> Volume:
        """Take the margins off."""
        result: Volume = self.pad.undo(volume)
        return result
