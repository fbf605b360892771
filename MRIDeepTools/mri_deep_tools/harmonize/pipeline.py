"""The stages of a harmonization, from a scan in memory to the harmonized image on the chosen grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..geometry import Crop, Reorient, resample_to, same_grid
from ..inference import available_memory, require_memory, run_with_fallback, within_memory
from ..progress import Progress
from ..registration import Registration, judged, moved_affine, read_transform, register_rigid
from ..volume import Volume
from .bias import correct_bias
from .brain import brain_mask, checked_mask, read_mask, segmented_mask, tissue_volumes
from .change import Change, describe_change
from .engine import GeneratorEngine, engine_bytes
from .hd_bet import hd_bet_mask
from .model_choice import HarmonizeOptions, template_path
from .network import Generator
from .plausible import judge_contrast, judge_registration
from .preprocess import MEDIAN, TEMPLATE_GRID, crop_box, from_network, median_normalise, to_network
from .template import load_template

__all__ = ["Outcome", "Prepared", "Stages", "check_scan", "run"]

BLEND_MM = 3.0  # inside the border of the brain, where the head around it is kept
UNIT_MEDIANS = (0.3, 3.0)  # a median of 1, as the published chain keeps it between its stages
USUAL_MEDIANS = (350.0, 650.0)
LARGEST_SPACING = 5.0  # mm
_PROGRAM_BYTES = 200 << 20


@dataclass(frozen=True)
class Outcome:
    """What the stages made; see :class:`.predict.HarmonizationResult`."""

    image: Volume
    change: Volume
    figures: Change
    prepared: Volume
    harmonized: Volume
    mask: Volume | None
    registration: Registration | None
    median: float | None
    tissues: dict[str, dict[str, float]] | None
    stages: dict[str, str]
    device: str


@dataclass(frozen=True)
class Prepared:
    """An image as the network needs it, and the ways back."""

    image: Volume  # float32, brain median ``unit``, sides that fit the network
    unit: float = MEDIAN
    box: Crop | None = None  # within the template's grid, or the given image's
    mask: np.ndarray | None = None  # of the brain, on the scan's grid
    registration: Registration | None = None
    median: float | None = None


def run(
    volume: Volume,
    load: Callable[[], Generator],
    options: HarmonizeOptions,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress,
) -> Outcome:
    """Harmonize a 3-D volume with finite values."""
    return within_memory(lambda: Stages(volume, load, options, device, dtype, progress).outcome())


class Stages:
    """One scan on its way through the stages."""

    def __init__(
        self,
        volume: Volume,
        load: Callable[[], Generator],
        options: HarmonizeOptions,
        device: torch.device,
        dtype: torch.dtype,
        progress: Progress,
    ) -> None:
        self.volume, self.load, self.options, self.progress = volume, load, options, progress
        self.device, self.dtype = device, dtype
        self.name = volume.source.name or "the image"
        self.stages: dict[str, str] = {}

    def outcome(self) -> Outcome:
        """Run all stages."""
        prepared = self.prepare()
        made = self._harmonize(prepared)
        before = prepared.image.data if prepared.unit == MEDIAN else prepared.image.data * (MEDIAN / prepared.unit)
        with self.progress.stage("compare"):
            figures = describe_change(before, made)
        tissues = self._tissues(prepared.image.with_data(before), made) if self.options.tissues else None
        with self.progress.stage("grid"):
            harmonized = prepared.image.with_data(made)
            change = prepared.image.with_data(made - before)
            return Outcome(
                image=self._placed(harmonized, prepared),
                change=self._placed(change, prepared, change=True),
                figures=figures,
                prepared=prepared.image,
                harmonized=harmonized,
                mask=None if prepared.mask is None else self.volume.with_data(prepared.mask.astype(np.uint8)),
                registration=prepared.registration,
                median=prepared.median,
                tissues=tissues,
                stages=self.stages,
                device=str(self.device),
            )

    # ------------------------------------------------------------------------------------------- before the network

    def prepare(self) -> Prepared:
        """Run the stages before the network."""
        check_scan(self.volume, self.name, self.progress)
        return self._given() if self.options.preprocessed else self._chain()

    def _given(self) -> Prepared:
        """Take an image that went through the published preparation, cropped or not."""
        for stage in ("brain mask", "bias field", "registration"):
            self.stages[stage] = "done before"
        with self.progress.stage("prepare"):
            volume = self.volume if self.options.compatible else Reorient.to(self.volume, "LAS").apply(self.volume)
            box = None
            if volume.shape3 == TEMPLATE_GRID.shape:
                box = crop_box(volume.data)
                volume = box.apply(volume)
            self.stages["crop"] = "done before" if box is None else _told(box)
            inside = volume.data > 0
            if not inside.any():
                raise InputError(f"{self.name} holds no brain: nothing is above 0", "check the image")
            median = float(np.median(volume.data[inside]))
            unit = self._unit(median)
            return Prepared(_float(volume), unit, box, median=median)

    def _unit(self, median: float) -> float:
        if self.options.compatible:
            return MEDIAN
        if UNIT_MEDIANS[0] <= median <= UNIT_MEDIANS[1]:
            self.progress.warn(
                f"{self.name} has a brain median of {median:.2f}; it is read as normalised to 1, not 500"
            )
            return 1.0
        if not USUAL_MEDIANS[0] <= median <= USUAL_MEDIANS[1]:
            self.progress.warn(
                f"{self.name} has a brain median of {median:.0f}, not 500 as the published preparation gives; "
                "leave out --preprocessed if it was not prepared"
            )
        return MEDIAN

    def _chain(self) -> Prepared:
        """Go the whole way from a scan of a head."""
        options, progress = self.options, self.progress
        way = Reorient.to(self.volume, "LAS")  # the storage order of the published programs
        scan = way.apply(self.volume)
        self.stages["orientation"] = "to LAS, without interpolation"
        with progress.stage("brain mask"):
            mask = self._mask(scan, way)
        brain = _float(scan.with_data(np.where(mask, scan.data, 0).clip(min=0)))
        if not brain.data.any():
            raise InputError(f"{self.name} has no positive values in the brain mask", "check the scan and the mask")
        with progress.stage("bias field"):
            if options.bias_correction:
                brain = correct_bias(brain, mask, options.threads)
            self.stages["bias field"] = "N4" if options.bias_correction else "skipped"
        with progress.stage("registration"):
            registration = self._register(brain)
        with progress.stage("prepare"):
            affine = moved_affine(brain.affine, registration.matrix)
            image, region = (
                resample_to(Volume(data, affine, scan.source), *_template_grid(), order=order)
                for data, order in ((brain.data, 1), (mask.astype(np.uint8), 0))
            )
            data, median = median_normalise(image.data, region.data)
            box = crop_box(data)
            self.stages["intensities"] = f"median {median:.4g} to {MEDIAN:.0f}"
            self.stages["crop"] = _told(box)
            lost = int(np.count_nonzero(data)) - int(np.count_nonzero(box.apply(image).data))
            if lost:
                progress.warn(f"the brain does not fit into the published crop; {lost / 1000:.1f} ml of it are cut off")
        way_back = way.undo(scan.with_data(mask)).data
        return Prepared(_float(box.apply(image.with_data(data))), MEDIAN, box, way_back, registration, median)

    def _mask(self, scan: Volume, way: Reorient) -> np.ndarray:
        options = self.options
        if options.mask is not None:
            if isinstance(options.mask, Volume):
                if not same_grid(options.mask, self.volume):
                    raise InputError("the mask is not on the grid of the scan", "resample it to the scan")
                mask = options.mask.data > 0
            else:
                mask = read_mask(options.mask, self.volume, self.progress.warn)
            self.stages["brain mask"] = "given"
            return way.apply(self.volume.with_data(mask)).data
        if options.skull_stripped:
            self.stages["brain mask"] = "voxels above 0"
            return brain_mask(scan)
        if options.hd_bet:
            mask, self.stages["brain mask"] = hd_bet_mask(scan, device=str(self.device), progress=self.progress)
            return checked_mask(mask, scan, "the brain that HD-BET found")
        mask, result = segmented_mask(scan, device=options.device, threads=options.threads, progress=self.progress)
        judge_contrast(scan.data, result.labels.data, self.name, self.progress, unchecked=options.unchecked)
        self.stages["brain mask"] = result.model
        return mask

    def _register(self, brain: Volume) -> Registration:
        options, template = self.options, load_template(template_path(self.options.template))
        if options.registered:
            found, self.stages["registration"] = judged(brain, template, np.eye(4)), "skipped"
        elif options.transform is not None:
            found, self.stages["registration"] = judged(brain, template, read_transform(options.transform)), "given"
        else:
            share = self.progress.update
            found = register_rigid(brain, template, threads=options.threads, progress=share)
            self.stages["registration"] = "rigid"
        judge_registration(found, self.name, self.progress, unchecked=options.unchecked)
        return found

    # ------------------------------------------------------------------------------------------- network and after

    def _harmonize(self, prepared: Prepared) -> np.ndarray:
        """Return harmonized intensities on the prepared image's grid, float32."""
        data = prepared.image.data
        with self.progress.stage("harmonize"):
            network = self.load()
            network.spec.require_sides(data.shape, self.name)
            if self.device.type == "cpu":
                needed = engine_bytes(data.shape, network.spec) + _PROGRAM_BYTES
                hint = "close other programs or use a machine with more memory"
                require_memory(needed, available_memory(), f"harmonizing {self.name}", hint)
            seen = torch.from_numpy(to_network(data, prepared.unit))

            def work(device: torch.device) -> torch.Tensor:
                dtype = self.dtype if device == self.device else torch.float32
                self.device = device
                return GeneratorEngine(network, device, dtype).run(seen, self.progress.update).cpu()

            made = run_with_fallback(work, self.device, self.progress).numpy()
            self.stages["harmonize"] = "IGUANe"
            return from_network(made, data)

    def _tissues(self, before: Volume, made: np.ndarray) -> dict[str, dict[str, float]]:
        keywords: dict[str, Any] = {"device": self.options.device, "threads": self.options.threads}
        with self.progress.stage("tissues before"):
            first = tissue_volumes(before, progress=self.progress, **keywords)
        with self.progress.stage("tissues after"):
            return {
                "before_mm3": first,
                "after_mm3": tissue_volumes(before.with_data(made), progress=self.progress, **keywords),
            }

    def _placed(self, made: Volume, prepared: Prepared, *, change: bool = False) -> Volume:
        """Bring an image on the prepared grid to the grid asked for."""
        options = self.options
        if options.preprocessed:
            if options.compatible:
                return made
            full = prepared.box.undo(made) if prepared.box else made
            return Reorient.to(self.volume, "LAS").undo(full)
        if options.compatible:
            return made
        full = prepared.box.undo(made) if prepared.box else made
        if options.space == "template" or prepared.registration is None or prepared.mask is None:
            return full
        return self._native(made, prepared, prepared.mask, prepared.registration.matrix, change=change)

    def _native(
        self, made: Volume, prepared: Prepared, mask: np.ndarray, matrix: np.ndarray, *, change: bool
    ) -> Volume:
        """Resample linearly on the scan's own grid, inside the brain mask; the head around it where that was asked for.

        Values are divided by the share of brain that each sample saw, or the border of the brain would be darkened.
        """
        affine = matrix @ made.affine
        seen = (prepared.image.data > 0).astype(np.float32)
        grid = self.volume.shape3, self.volume.affine
        values = resample_to(Volume(made.data, affine), *grid).data
        weight = resample_to(Volume(seen, affine), *grid).data
        out = np.where(mask & (weight > 0.01), values / np.maximum(weight, 0.01), 0).astype(np.float32)
        if self.options.keep_head and not change and prepared.median:
            out = _blended(out, self.volume, mask & (weight > 0.01), MEDIAN / prepared.median)
        return Volume(out, self.volume.affine, self.volume.source)


def _blended(brain: np.ndarray, scan: Volume, mask: np.ndarray, factor: float) -> np.ndarray:
    """Put a brain into its head: all of it from 3 mm below its border, a linear mixture up to there."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(mask, sampling=scan.spacing)
    share = np.clip(depth / BLEND_MM, 0, 1)
    return (share * brain + (1 - share) * scan.data.astype(np.float64) * factor).astype(np.float32)


def check_scan(volume: Volume, name: str, progress: Progress) -> None:
    """Refuse what cannot be harmonized, warn of what the model was not made for."""
    low, high = float(volume.data.min()), float(volume.data.max())
    if not high > low:
        raise InputError(
            f"{name} has no contrast: all voxels have the value {low:g}", "check that it is the right file"
        )
    if low <= -500:
        raise InputError(f"{name} looks like CT (its lowest value is {low:g})", "give a T1w MR scan")
    if max(volume.spacing) > LARGEST_SPACING:
        progress.warn(f"{name} has voxels of {max(volume.spacing):.1f} mm; the model was made for about 1 mm")


def _float(volume: Volume) -> Volume:
    return volume.with_data(np.ascontiguousarray(volume.data, dtype=np.float32))


def _template_grid() -> tuple[tuple[int, int, int], np.ndarray]:
    return TEMPLATE_GRID.shape, TEMPLATE_GRID.affine


def _told(box: Crop) -> str:
    sides = (b - a for a, b in zip(box.start, box.stop, strict=True))
    return f"{'x'.join(map(str, sides))} at {', '.join(map(str, box.start))}"
