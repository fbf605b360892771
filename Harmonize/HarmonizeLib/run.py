"""One run: a scan goes out as a file, the core gives it the reference style, the results come in as nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer
from MRIDeepToolsLib import nodes, settings
from MRIDeepToolsLib.map_colours import use_map_colours
from MRIDeepToolsLib.outcomes import for_the_panel
from MRIDeepToolsLib.scene_run import RunFailedError, SceneRun
from MRIDeepToolsLib.volumes import read_volume
from slicer.i18n import tr as _

from . import figures
from .masks import export_mask
from .methods import IGUANE, Method
from .spaces import import_transform, scan_to_template, write_transform

__all__ = [
    "HarmonizeOptions",
    "HarmonizeOutputs",
    "HarmonizeRun",
    "RunFailedError",
    "export_scan",
    "plain_words",
    "read_record",
]

MEDIAN = 500.0
"""Brain median that the core normalises to."""
FULL_COLOUR = 100.0
"""Change with the full colour of the map, a fifth of that median: a fixed one, so that scans can be compared."""
BLEND_MM = 3.0
"""Below the border of the brain, where a head that is kept is mixed in."""
MANY_VOXELS = 4_000_000
"""More than enough for a joint histogram."""
_BRAIN = ("1", "brain", "#dcb4a0", "neutral", "SCT", "12738006", "Brain")
_HEADER = ("index", "name", "color", "side", "coding_scheme", "concept_code", "concept_meaning")


@dataclass(frozen=True)
class HarmonizeOptions:
    """What a run is asked for, in the terms of ``mri-deep-tools harmonize``.

    ``model`` and ``weights`` (a file) exclude each other; both empty: the best model on this computer. ``registered``
    takes the scan as it lies in the world for one in MNI space. ``template`` is a file, "" for the core's own.
    ``hd_bet`` finds the brain with HD-BET, which must be installed. ``age`` is years, 0 where it is not known.
    ``space`` is ``native`` or ``template``. ``device`` and ``threads``: None takes the application settings.
    """

    model: str = ""
    weights: str = ""
    skull_stripped: bool = False
    hd_bet: bool = False
    bias_correction: bool = True
    registered: bool = False
    template: str = ""
    age: float = 0.0
    space: str = "native"
    keep_head: bool = False
    unchecked: bool = False
    change: bool = True
    mask: bool = False
    transform: bool = False
    tissues: bool = False
    device: str | None = None
    threads: int | None = None
    method: Method = IGUANE

    def words(self) -> list[str]:
        """Return the words of the command line that do not name files of a scan."""
        words = []
        if self.weights:
            words += ["--weights", self.weights]
        elif self.model:
            words += ["--model", self.model]
        words += ["--template", self.template] if self.template else []
        words += ["--age", f"{self.age:g}"] if self.age > 0 else []
        words += ["--space", self.space]
        flags = {
            "--skull-stripped": self.skull_stripped,
            "--hd-bet": self.hd_bet,
            "--no-bias-correction": not self.bias_correction,
            "--keep-head": self.keep_head,
            "--unchecked": self.unchecked,
            "--tissues": self.tissues,
        }
        words += [flag for flag, wanted in flags.items() if wanted]
        return words + settings.job_options(self.device, self.threads)


def plain_words(text: str) -> str:
    """Return a sentence of the core with the controls of the panel in place of files and options."""
    words = {
        "scan.nii": _("the scan"),
        "the mask mask-in.nii": _("the brain mask"),
        "mask-in.nii": _("the brain mask"),
        "place.tfm": _("the transform"),
        "(--mask)": _("(under Brain mask)"),
        "switch this check off (--unchecked)": _("choose 'Go on where a check fails' under Advanced"),
        "add --unchecked": _("choose 'Go on where a check fails' under Advanced"),
    }
    for said, meant in words.items():
        text = text.replace(said, meant)
    return for_the_panel(text[:1].upper() + text[1:])


def export_scan(scan: Any, folder: Path, brain: Any, placement: Any, *, registered: bool) -> list[Any]:
    """Write a scan, and mask and transform where given, into a folder; return the words for mask and transform."""
    nodes.export_volume(scan, folder / "scan.nii")
    words: list[Any] = []
    if brain is not None:
        export_mask(brain, scan, folder / "mask-in.nii")
        words += ["--mask", folder / "mask-in.nii"]
    if registered or placement is not None:
        write_transform(folder / "place.tfm", scan_to_template(scan, placement))
        words += ["--transform", folder / "place.tfm"]
    return words


@dataclass
class HarmonizeOutputs:
    """The nodes that a run made or filled, and what it has to say.

    ``before`` is what the result is to be compared with: the scan, or in MNI space what the network was given.
    ``factor`` leads from its intensities to those of the result. ``stages`` tells what each stage did.
    """

    before: Any = None
    result: Any = None
    change: Any = None
    mask: Any = None
    transform: Any = None
    figures: Any = None
    tissues: Any = None
    histogram: Any = None
    joint: Any = None
    factor: float = 1.0
    stages: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    model: str = ""
    device: str = ""
    seconds: float = 0.0


class HarmonizeRun(SceneRun):
    """Harmonizes one volume.

    Parameters
    ----------
    scan : T1w volume node.
    options : see :class:`HarmonizeOptions`.
    brain : segmentation or label map node to take as brain mask, or None.
    placement : linear transform node that takes the scan, as Slicer shows it, to MNI space; None to register.
    result, change, mask, transform : nodes to fill instead of new ones.
    callbacks : as for :class:`MRIDeepToolsLib.scene_run.SceneRun`.

    """

    outputs: HarmonizeOutputs

    def __init__(
        self,
        scan: Any,
        options: HarmonizeOptions,
        *,
        brain: Any = None,
        placement: Any = None,
        result: Any = None,
        change: Any = None,
        mask: Any = None,
        transform: Any = None,
        **callbacks: Any,
    ) -> None:
        self.options, self.brain, self.placement = options, brain, placement
        targets = {"result": result, "change": change, "mask": mask, "transform": transform}
        super().__init__({"input": scan}, targets, **callbacks)

    # -------------------------------------------------------------------------------------------------------- way out

    def arguments(self, folder: Path) -> list[Any]:
        """Write scan, mask and transform into the job's folder and return the words of the command."""
        scan, options = self.inputs["input"], self.options
        given = export_scan(scan, folder, self.brain, self.placement, registered=options.registered)
        words: list[Any] = [options.method.command, folder / "scan.nii", folder / "result.nii", *given]
        words += ["--change", folder / "change.nii", "--save-transform", folder / "transform.tfm"]
        words += ["--save-mask", folder / "mask.nii"] if options.mask or options.keep_head else []
        words += ["--save-preprocessed", folder / "prepared.nii"] if options.space == "template" else []
        return [*words, "--hide-names", *options.words()]

    # --------------------------------------------------------------------------------------------------------- way in

    def words(self, text: str) -> str:
        """Return a sentence of the core for the panel."""
        return plain_words(text)

    def take_in(self, outcome: Any) -> HarmonizeOutputs:
        """Make nodes of the files of the core."""
        scan, folder = self.guard.node("input"), self.job.folder
        record, told = read_record(folder / "result.json"), outcome.results[-1] if outcome.results else {}
        outputs = HarmonizeOutputs(
            stages={str(name): str(value) for name, value in (record.get("Stages") or {}).items()},
            warnings=[plain_words(text) for text in outcome.warnings],
            model=str(told.get("model", "")),
            device=str(outcome.device.get("device", "")),
            seconds=outcome.seconds,
        )
        self._take_volumes(outputs, record)
        if self.options.mask:
            outputs.mask = self._take_mask()
        if self.options.transform:
            name = nodes.output_name(scan, _("to MNI space"))
            expected = (record.get("Registration") or {}).get("TemplateToScanRasMm")
            target = self.guard.node("transform")
            made = import_transform(folder / "transform.tfm", scan, name, target, expected)
            outputs.transform = self.keep(made, target)
        self._take_figures(outputs, record)
        self._mark(outputs)
        return outputs

    def _take_volumes(self, outputs: HarmonizeOutputs, record: Mapping[str, Any]) -> None:
        scan = self.guard.node("input")
        if self.options.space == "native":
            outputs.result = self._volume("result", _("harmonized (synthetic)"), scan)
            median = record.get("BrainMedianBefore")
            outputs.before, outputs.factor = scan, MEDIAN / float(median) if median else 1.0
        else:
            outputs.result = self._volume("result", _("harmonized (synthetic), MNI space"), None)
            outputs.before = self._volume("prepared", _("prepared, MNI space"), None)
        if self.options.change:
            outputs.change = self._volume("change", _("change by harmonization"), outputs.result)
            use_map_colours(outputs.change, FULL_COLOUR)

    def _volume(self, name: str, what: str, reference: Any) -> Any:
        target = self.guard.node(name) if name in self.targets else None
        title = nodes.output_name(self.guard.node("input"), what)
        volume = nodes.import_volume(self.job.folder / f"{name}.nii", reference, title, target)
        if reference is None:
            volume.SetAndObserveTransformNodeID(None)  # MNI space is that of the world
        return self.keep(volume, target)

    def _take_mask(self) -> Any:
        scan, target, folder = self.guard.node("input"), self.guard.node("mask"), self.job.folder
        rows = ("\t".join(row) for row in (_HEADER, _BRAIN))
        (folder / "mask.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        name = nodes.output_name(scan, _("brain mask"))
        mask = nodes.import_segmentation(folder / "mask.nii", folder / "mask.tsv", scan, name, target)
        mask.GetDisplayNode().SetVisibility2DFill(False)  # the outline leaves the brightness alone
        return self.keep(mask, target)

    def _take_figures(self, outputs: HarmonizeOutputs, record: Mapping[str, Any]) -> None:
        """Make tables and charts, in a folder of their own beside the scan."""
        scan, folder, before = self.guard.node("input"), self.job.folder, len(self._made)
        stem = nodes.output_name(scan, _("change"))
        outputs.figures = figures.figures_table(record, folder, nodes.unique_name(stem), self.keep)
        outputs.tissues = figures.tissues_table(record, folder, f"{stem} - {_('tissues')}", self.keep)
        _tables, outputs.histogram = figures.histogram_chart(record, folder, f"{stem} - {_('histogram')}", self.keep)
        values = _before_and_after(folder, head_kept=self.options.keep_head)
        _tables, outputs.joint = figures.joint_chart(*values, folder, f"{stem} - {_('joint histogram')}", self.keep)
        place = nodes.new_folder(stem, scan)
        for node in self._made[before:]:
            nodes.place_beside(node, scan, place)
            nodes.set_provenance(node, folder / "result.json")

    def _mark(self, outputs: HarmonizeOutputs) -> None:
        """Put the nodes beside the scan and write down where they come from."""
        scan = self.guard.node("input")
        for node in (outputs.result, outputs.before, outputs.change, outputs.mask, outputs.transform):
            if node is None or node is scan:
                continue
            above = node.GetTransformNodeID()
            nodes.place_beside(node, scan)
            node.SetAndObserveTransformNodeID(above)
            nodes.set_provenance(node, self.job.folder / "result.json")
        for node in (outputs.mask, outputs.transform, outputs.before):  # no network of the harmonization made them
            if node is not None and node is not scan:
                node.SetAttribute("MRIDeepTools.Synthetic", None)


def read_record(path: Path) -> dict[str, Any]:
    """Return the core's record of a run; empty when it cannot be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _before_and_after(folder: Path, *, head_kept: bool) -> tuple[Any, Any]:
    """Return the intensities of the brain's voxels, normalised before and harmonized, from the files of a run.

    Where the head was kept, only what lies below the mixture with it counts.
    """
    result, spacing = _array(folder / "result.nii")
    change, _spacing = _array(folder / "change.nii")
    before = result - change
    inside = before > 0
    if head_kept:
        from scipy.ndimage import distance_transform_edt

        mask, _spacing = _array(folder / "mask.nii")
        inside &= distance_transform_edt(mask > 0, sampling=spacing) > BLEND_MM
    return before[inside], result[inside]


def _array(path: Path) -> tuple[Any, list[float]]:
    """Return the voxels (k, j, i) of an image file and their spacing (mm); of a large one every second voxel."""
    node = slicer.vtkMRMLScalarVolumeNode()
    grid = read_volume(path, node)
    values = slicer.util.arrayFromVolume(node)
    step = 2 if values.size > MANY_VOXELS else 1
    return values[::step, ::step, ::step].copy(), [step * size for size in reversed(grid.spacing)]
