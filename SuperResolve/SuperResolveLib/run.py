"""One run: two scans go out as files, the core fills in between the slices, the results come in as volumes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer
from MRIDeepToolsLib import nodes, settings
from MRIDeepToolsLib.errors import GeometryMismatchError
from MRIDeepToolsLib.jobs import CoreJob
from MRIDeepToolsLib.outcomes import for_the_panel
from MRIDeepToolsLib.scene_run import RunFailedError, SceneRun
from slicer.i18n import tr as _

from .comparison import colour_honesty_map
from .slice_facts import export_scan

__all__ = [
    "RunFailedError",
    "SuperResolveOptions",
    "SuperResolveOutputs",
    "SuperResolveRun",
    "describe",
    "needed_models",
    "plain_words",
]

BUNDLED_MODEL, PUBLISHED_MODEL = "superresolve-lite", "baby-ai"


@dataclass(frozen=True)
class SuperResolveOptions:
    """What a run is asked for, in the terms of ``mri-deep-tools superresolve``.

    ``model`` and ``weights`` (a file) exclude each other; both empty: the best model on this computer. ``direction`` is
    ``axial``, ``coronal``, ``sagittal`` or empty for what is detected; ``thickness`` and ``spacing`` are mm, 0 for what
    is detected. ``aligned`` takes the scans as they lie in the world. ``device`` and ``threads``: None takes the
    application settings.
    """

    model: str = ""
    weights: str = ""
    direction: str = ""
    thickness: float = 0.0
    spacing: float = 0.0
    aligned: bool = False
    smooth_blend: bool = False
    in_template_space: bool = False
    interpolated: bool = True
    honesty: bool = True
    device: str | None = None
    threads: int | None = None

    def slice_words(self) -> list[str]:
        """Return the words about the slices and their frame, which detection needs as well."""
        words = ["--slice-direction", self.direction] if self.direction else []
        words += ["--slice-thickness", f"{self.thickness:g}"] if self.thickness > 0 else []
        words += ["--slice-spacing", f"{self.spacing:g}"] if self.spacing > 0 else []
        return words + (["--registered"] if self.aligned else [])

    def words(self) -> list[str]:
        """Return the words of the command line that do not name files of a scan."""
        words = []
        if self.weights:
            words += ["--weights", self.weights]
        elif self.model:
            words += ["--model", self.model]
        words += self.slice_words()
        words += ["--window", "gaussian"] if self.smooth_blend else []
        words += ["--space", "template"] if self.in_template_space else []
        return words + settings.job_options(self.device, self.threads)


def needed_models(options: SuperResolveOptions, models: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the models that a run needs and that are not on this computer, of the core's list of models."""
    if options.weights:
        return []
    known = {model["name"]: model["status"] for model in models}
    wanted = options.model
    if not wanted and known.get(BUNDLED_MODEL, "absent") == "absent":  # otherwise the core takes what is here
        wanted = PUBLISHED_MODEL
    return [model for model in models if model["name"] == wanted and model["status"] == "absent"]


def plain_words(text: str) -> str:
    """Return a sentence of the core with the scans in place of the files that stand for them, for the panel."""
    for file, words in (("T2w.nii", _("the T2w scan")), ("T1w.nii", _("the T1w scan"))):
        text = text.replace(file, words)
    text = text.replace("see 'mri-deep-tools models list' for where it is", _("see the home module"))
    text = text.replace("say --slice-direction and --slice-spacing", _("set direction and spacing under Slices"))
    return for_the_panel(text)


def describe(volume: Any, options: SuperResolveOptions, on_finished: Callable[[Any], None]) -> CoreJob:
    """Ask the core how a scan was acquired; its answer is JSON, in ``outcome.output``. Returns the started job.

    Raises
    ------
    GlueError : the volume cannot be written, or the core cannot be started.

    """

    def arguments(folder: Path) -> list[Any]:
        export_scan(volume, folder / "T2w.nii")
        return ["superresolve", "--describe", "--t2", folder / "T2w.nii", *options.slice_words()]

    return CoreJob(arguments, events=False, on_finished=on_finished).start()


@dataclass
class SuperResolveOutputs:
    """The nodes that a run made or filled, and what it has to say.

    ``table`` and ``chart`` hold the difference from the measured slices, slice by slice; ``slices`` and ``check`` say
    in a sentence each how the slices lie, and how far the result departs from them.
    """

    result: Any = None
    interpolated: Any = None
    honesty: Any = None
    table: Any = None
    chart: Any = None
    slices: str = ""
    check: str = ""
    slice_direction: str = "axial"
    warnings: list[str] = field(default_factory=list)
    model: str = ""
    device: str = ""
    seconds: float = 0.0


class SuperResolveRun(SceneRun):
    """Super-resolves one T2w volume.

    Parameters
    ----------
    scan : T2w volume node.
    guide : T1w volume node, or None.
    options : see :class:`SuperResolveOptions`.
    template : volume node in whose frame to work, or None.
    result, interpolated, honesty : nodes to fill instead of new ones.
    callbacks : as for :class:`MRIDeepToolsLib.scene_run.SceneRun`.

    """

    outputs: SuperResolveOutputs

    def __init__(
        self,
        scan: Any,
        guide: Any,
        options: SuperResolveOptions,
        *,
        template: Any = None,
        result: Any = None,
        interpolated: Any = None,
        honesty: Any = None,
        **callbacks: Any,
    ) -> None:
        self.options = options
        targets = {"result": result, "interpolated": interpolated, "honesty": honesty}
        super().__init__({"input": scan, "guide": guide, "template": template}, targets, **callbacks)

    def arguments(self, folder: Path) -> list[Any]:
        """Write the scans into the job's folder and return the words of the command."""
        export_scan(self.inputs["input"], folder / "T2w.nii")
        words = ["superresolve", folder / "result.nii", "--t2", folder / "T2w.nii"]
        for name, option, file in (("guide", "--t1", "T1w.nii"), ("template", "--template", "template.nii")):
            if self.inputs[name] is not None:
                nodes.export_volume(self.inputs[name], folder / file)
                words += [option, folder / file]
        for option in ("interpolated", "honesty"):
            if getattr(self.options, option):
                words += [f"--{option}", folder / f"{option}.nii"]
        return [*words, "--hide-names", *self.options.words()]

    def words(self, text: str) -> str:
        """Return a sentence of the core as the panel is to say it."""
        return plain_words(text)

    def take_in(self, outcome: Any) -> SuperResolveOutputs:
        """Make nodes of the files of the core."""
        scan, folder = self.guard.node("input"), self.job.folder
        told = outcome.results[-1] if outcome.results else {}
        slices, check = told.get("slices") or {}, told.get("honesty") or {}
        outputs = SuperResolveOutputs(
            slices=str(slices.get("Words") or ""),
            check=str(check.get("Words") or ""),
            slice_direction=str(slices.get("Direction") or "axial"),
            warnings=[plain_words(text) for text in outcome.warnings],
            model=str(told.get("model", "")),
            device=str(outcome.device.get("device", "")),
            seconds=outcome.seconds,
        )
        frame = self.guard.node("template") if self.options.in_template_space else None
        reference = frame or scan
        outputs.result = self._volume("result", _("super-resolved (synthetic)"), reference)
        _require_same_place(nodes.node_geometry(outputs.result), nodes.node_geometry(reference))
        if self.options.interpolated:
            outputs.interpolated = self._volume("interpolated", _("interpolated"), reference)
            grids = [nodes.node_geometry(node) for node in (outputs.interpolated, outputs.result)]
            nodes.require_same_grid(*grids, _("The interpolated scan"))
        if (folder / "honesty.nii").is_file():
            outputs.honesty = self._volume("honesty", _("honesty map"), scan)
            colour_honesty_map(outputs.honesty, float(check.get("DataRange") or 0))
        if check.get("RmsPerSlice"):
            self._slice_table(outputs, scan, check)
        for node in (outputs.result, outputs.interpolated, outputs.honesty, outputs.table, outputs.chart):
            if node is not None:
                volume = node.IsA("vtkMRMLVolumeNode")
                nodes.place_beside(node, scan if node is outputs.honesty or not volume else reference)
                nodes.set_provenance(node, folder / "result.json")
        if outputs.interpolated is not None:  # no network made it
            outputs.interpolated.SetAttribute("MRIDeepTools.Synthetic", None)
        return outputs

    def _volume(self, name: str, what: str, reference: Any) -> Any:
        target = self.guard.node(name)
        title = nodes.output_name(self.guard.node("input"), what)
        path = self.job.folder / f"{name}.nii"
        return self.keep(nodes.import_volume(path, reference, title, target, same_grid=False), target)

    def _slice_table(self, outputs: SuperResolveOutputs, scan: Any, check: Mapping[str, Any]) -> None:
        """Make a table and a chart of how far the result is from each measured slice."""
        scale = 100.0 / float(check.get("DataRange") or 1.0)
        rows = [(number, value) for number, value in enumerate(check["RmsPerSlice"], 1) if value is not None]
        name = nodes.output_name(scan, _("difference per slice"))
        path = self.job.folder / "slices.csv"
        lines = [f"{number},{value * scale:.2f}" for number, value in rows if math.isfinite(value)]
        title = f"{_('Slice')},{_('Difference')} (%)"
        path.write_text("\n".join([title, *lines, ""]), encoding="utf-8")
        outputs.table = self.keep(nodes.import_table(path, name))
        outputs.chart = self.keep(slice_chart(outputs.table, f"{name} - {_('chart')}"))


def slice_chart(table: Any, name: str) -> Any:
    """Return a line chart of the difference per slice."""
    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetPlotType(series.PlotTypeScatter)
    series.SetXColumnName(table.GetColumnName(0))
    series.SetYColumnName(table.GetColumnName(1))
    series.SetColor(0.85, 0.33, 0.1)
    chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", name)
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetTitle(_("Result minus measured slices, root mean square"))
    chart.SetTitleVisibility(True)
    chart.SetLegendVisibility(False)
    chart.SetXAxisTitle(_("Slice"))
    chart.SetYAxisTitle(_("% of the intensity range"))
    return chart


def _require_same_place(found: Any, wanted: Any) -> None:
    """Check that a result covers the field of view of its reference, to within a voxel of the coarser grid.

    Raises
    ------
    GeometryMismatchError : it lies somewhere else.

    """
    tolerance = max(max(found.spacing), max(wanted.spacing)) * 1.5
    boxes = []
    for grid in (found, wanted):
        faces = [[-0.5, size - 0.5] for size in grid.shape]
        boxes.append([grid.to_world((a, b, c)) for a in faces[0] for b in faces[1] for c in faces[2]])
    distance = max(min(math.dist(corner, other) for other in boxes[1]) for corner in boxes[0])
    if not distance <= tolerance:
        text = _("The result lies {distance:.3g} mm away from the input, so it was not imported.")
        raise GeometryMismatchError(text.format(distance=distance))
