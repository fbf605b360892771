"""One run: a diffusion scan goes out with its gradients, the core predicts directions, the results come in."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer
from MRIDeepToolsLib import diffusion, nodes, settings
from MRIDeepToolsLib.errors import NodeError, ResultError
from MRIDeepToolsLib.outcomes import for_the_panel
from MRIDeepToolsLib.provenance import PREFIX
from MRIDeepToolsLib.scene_run import RunFailedError, SceneRun
from slicer.i18n import tr as _

from .charts import errors_chart

__all__ = [
    "RunFailedError",
    "UpsampleOptions",
    "UpsampleOutputs",
    "UpsampleRun",
    "is_world_table",
    "listed",
    "needed_extras",
    "plain_words",
    "told_otherwise",
    "why_not",
]

PREDICTED = f"{PREFIX}PredictedVolumes"
"""Attribute of a result: the numbers of its predicted volumes, from 0."""
_FA_RANGE, _MD_RANGE = (0.0, 1.0), (0.0, 0.003)  # mm^2/s: free water


@dataclass(frozen=True)
class UpsampleOptions:
    """What a run is asked for, in the terms of ``mri-deep-tools upsample-dmri``.

    ``directions`` evenly spread ones are predicted, or those of ``target_file`` when that is given. ``shell`` is a
    b-value in s/mm^2, 0 where the scan has only one. ``method`` is ``rcnn`` (a network) or ``sh`` (spherical
    harmonics). ``model`` and ``weights`` exclude each other; both empty: the best model on this computer. ``device``
    and ``threads``: None takes the application settings.
    """

    directions: int = 30
    target_file: str = ""
    shell: int = 0
    method: str = "rcnn"
    model: str = ""
    weights: str = ""
    keep_measured: bool = True
    b0: bool = False
    fa: bool = False
    md: bool = False
    errors: bool = False
    device: str | None = None
    threads: int | None = None

    def words(self) -> list[str]:
        """Return the words of the command line that do not name files of a scan."""
        words = ["--method", self.method]
        if self.method == "rcnn" and self.weights:
            words += ["--weights", self.weights]
        elif self.method == "rcnn" and self.model:
            words += ["--model", self.model]
        words += ["--shell", str(self.shell)] if self.shell else []
        if self.target_file:
            words += ["--target-grad" if is_world_table(self.target_file) else "--target-bvecs", self.target_file]
        else:
            words += ["--directions", str(self.directions)]
        return words + settings.job_options(self.device, self.threads)


def is_world_table(path: str | Path) -> bool:
    """Return True for a file of rows ``x y z b``, which are in world space; three rows or columns are FSL's."""
    try:
        lines = [line.split("#")[0].split() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError):
        return False  # the core says what is wrong with it
    rows = [line for line in lines if line]
    return len(rows) != 3 and bool(rows) and all(len(row) == 4 for row in rows)


def needed_extras(options: UpsampleOptions, *, mask: bool) -> tuple[str, ...]:
    """Return the extras of the core that a run needs: DIPY for masks and tensors, the report for errors."""
    dmri = options.fa or options.md or options.errors or (options.method == "rcnn" and not mask)
    return (("dmri",) if dmri else ()) + (("report",) if options.errors else ())


def why_not(volume: Any) -> str:
    """Return why a diffusion scan cannot be used, in a sentence; empty when it can."""
    try:
        diffusion.check_dwi(volume)
    except nodes.GlueError as error:
        return str(error)
    return ""


def plain_words(text: str) -> str:
    """Return a sentence of the core in the terms of the panel: controls in place of options, the scan, not its file."""
    known = {
        "--method sh": _("the method Spherical harmonics"),
        "with --mask": _("under Mask"),
        "--mask": _("a mask"),
        "with --shell": _("under Shell"),
        "--report": _("the errors"),
        "scan.nrrd": _("the scan"),
        "mask.nrrd": _("the mask"),
    }
    for word, plain in known.items():
        text = text.replace(word, plain)
    return for_the_panel(text[:1].upper() + text[1:] if text.startswith(_("the scan")) else text)


def listed(volumes: Sequence[int]) -> str:
    """Return numbers of volumes as they stand in sentences, the core's too."""
    return ", ".join(map(str, volumes))


def told_otherwise(warnings: Sequence[str], facts: Mapping[str, Any]) -> list[str]:
    """Return the core's warnings for the panel, without the one that lists what is read: the panel tells it itself."""
    read = listed(facts.get("context") or [])
    return [plain_words(text) for text in warnings if not (facts.get("unused") and f" {read} " in text)]


@dataclass
class UpsampleOutputs:
    """The nodes that a run made or filled, and what it has to say.

    ``predicted`` are the numbers of the predicted volumes of ``volume``, from 0. ``errors`` and ``chart`` hold the
    errors on measured directions that were left out; ``verdict`` says what they mean (``level``: good or doubtful).
    """

    volume: Any = None
    predicted: list[int] = field(default_factory=list)
    b0: Any = None
    fa: Any = None
    md: Any = None
    errors: Any = None
    chart: Any = None
    verdict: str = ""
    level: str = ""
    warnings: list[str] = field(default_factory=list)
    model: str = ""
    device: str = ""
    seconds: float = 0.0


class UpsampleRun(SceneRun):
    """Predicts directions of one diffusion scan.

    Parameters
    ----------
    volume : diffusion-weighted volume node.
    options : see :class:`UpsampleOptions`.
    mask : label map or segmentation node, or None for a computed one.
    result, b0, fa, md, errors : nodes to fill instead of new ones.
    callbacks : as for :class:`MRIDeepToolsLib.scene_run.SceneRun`.

    """

    outputs: UpsampleOutputs

    def __init__(
        self,
        volume: Any,
        options: UpsampleOptions,
        *,
        mask: Any = None,
        result: Any = None,
        b0: Any = None,
        fa: Any = None,
        md: Any = None,
        errors: Any = None,
        **callbacks: Any,
    ) -> None:
        self.options = options
        targets = {"result": result, "b0": b0, "fa": fa, "md": md, "errors": errors}
        super().__init__({"input": volume, "mask": mask}, targets, **callbacks)

    def words(self, text: str) -> str:
        """Return a sentence of the core as the panel is to say it."""
        return plain_words(text)

    def check_input(self, name: str, volume: Any) -> None:
        """Check the scan; the mask is judged when it is written on the grid of the scan."""
        if name == "input":
            diffusion.check_dwi(volume)
            if volume in self.targets.values():
                raise NodeError(_("The scan itself cannot be overwritten; choose another output."))

    # ------------------------------------------------------------------------------------------------------ going out

    def arguments(self, folder: Path) -> list[Any]:
        """Write scan and mask into the job's folder and return the words of the command."""
        scan, mask = self.inputs["input"], self.inputs["mask"]
        diffusion.export_dwi(scan, folder / "scan.nrrd")
        words = ["upsample-dmri", folder / "scan.nrrd", folder / "result.nii", "--save-grad", folder / "result.b"]
        words += ["--hide-names", "--keep-measured", *self.options.words()]
        if mask is not None:
            diffusion.export_mask(mask, scan, folder / "mask.nrrd")
            words += ["--mask", folder / "mask.nrrd"]
        wanted = {"fa": (self.options.fa, "fa.nii"), "md": (self.options.md, "md.nii")}
        wanted["report"] = (self.options.errors, "errors.html")
        for option, (made, name) in wanted.items():
            words += [f"--{option}", folder / name] if made else []
        return words

    # ------------------------------------------------------------------------------------------------------- coming in

    def take_in(self, outcome: Any) -> UpsampleOutputs:
        """Make nodes of the files of the core."""
        reference, facts = self.guard.node("input"), outcome.results[-1] if outcome.results else {}
        outputs = UpsampleOutputs(warnings=told_otherwise(outcome.warnings, facts), seconds=outcome.seconds)
        outputs.model, outputs.device = str(facts.get("model", "")), str(outcome.device.get("device", ""))
        self._take_volume(outputs, reference, [str(kind) for kind in facts.get("volumes") or []])
        self._take_maps(outputs, reference)
        check = facts.get("check")
        if self.options.errors and isinstance(check, Mapping):
            self._take_errors(outputs, reference, check)
        sidecar = self.job.folder / "result.json"
        for node in (outputs.volume, outputs.b0, outputs.fa, outputs.md, outputs.errors, outputs.chart):
            if node is not None:
                nodes.place_beside(node, reference)
                nodes.set_provenance(node, sidecar)
        outputs.volume.SetAttribute(PREDICTED, " ".join(map(str, outputs.predicted)))
        if outputs.b0 is not None:
            outputs.b0.SetAttribute(f"{PREFIX}Synthetic", None)  # it was measured
        return outputs

    def _take_volume(self, outputs: UpsampleOutputs, reference: Any, kinds: Sequence[str]) -> None:
        keep = list(range(len(kinds)))
        if not self.options.keep_measured:
            keep = [index for index in keep if kinds[index] != "measured"]
            if len(keep) < diffusion.SMALLEST_SAVED:
                text = _("The measured volumes were kept: Slicer cannot save a scan of only {count} volumes.")
                outputs.warnings.append(text.format(count=len(keep)))
                keep = list(range(len(kinds)))
        if len(keep) < diffusion.SMALLEST_SAVED:
            text = _(
                "The result has {count} volumes, and Slicer cannot save fewer than {least}; ask for more directions."
            )
            raise ResultError(text.format(count=len(keep), least=diffusion.SMALLEST_SAVED))
        outputs.predicted = [new for new, old in enumerate(keep) if kinds[old] == "predicted"]
        target, folder = self.guard.node("result"), self.job.folder
        name = nodes.output_name(reference, _("synthetic directions"))
        made = diffusion.import_dwi(folder / "result.nii", folder / "result.b", reference, name, target, keep=keep)
        outputs.volume = self.keep(made, target)
        measured = [new for new, old in enumerate(keep) if kinds[old] == "b0"]
        if self.options.b0 and measured:
            values = slicer.util.arrayFromVolume(made)[..., measured].mean(axis=-1, dtype="f4")
            outputs.b0 = self._new_volume(values, reference, _("b = 0"), self.guard.node("b0"))
        elif self.options.b0:
            outputs.warnings.append(_("The scan has no volume at b = 0, so there is no mean of them."))

    def _new_volume(self, values: Any, reference: Any, what: str, target: Any) -> Any:
        """Return a scalar volume of values (k, j, i) on the grid of the reference."""
        node = target
        if node is None:
            name = nodes.output_name(reference, what)
            node = self.keep(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name))
        slicer.util.updateVolumeFromArray(node, values)
        node.CopyOrientation(reference)
        node.CreateDefaultDisplayNodes()
        return node

    def _take_maps(self, outputs: UpsampleOutputs, reference: Any) -> None:
        maps = (
            ("fa", self.options.fa, _("FA (synthetic)"), _FA_RANGE),
            ("md", self.options.md, _("MD (synthetic)"), _MD_RANGE),
        )
        for key, wanted, what, window in maps:
            if not wanted:
                continue
            target = self.guard.node(key)
            name = nodes.output_name(reference, what)
            node = self.keep(nodes.import_volume(self.job.folder / f"{key}.nii", reference, name, target), target)
            node.GetDisplayNode().SetAutoWindowLevel(False)
            node.GetDisplayNode().SetWindowLevelMinMax(*window)
            setattr(outputs, key, node)

    def _take_errors(self, outputs: UpsampleOutputs, reference: Any, check: Mapping[str, Any]) -> None:
        outputs.verdict = plain_words(" ".join([str(check.get("Verdict", "")), *map(str, check.get("Notes") or [])]))
        outputs.level = str(check.get("Level", ""))
        rows = error_rows(check)
        if not rows:
            return
        path, target = self.job.folder / "errors.csv", self.guard.node("errors")
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows(rows)
        name = nodes.output_name(reference, _("errors of directions"))
        outputs.errors = self.keep(nodes.import_table(path, name, target), target)
        for key, one in check["Errors"].items():
            outputs.errors.SetColumnDescription(_short_name(key, one), str(one["Name"]))
        outputs.chart = errors_chart(outputs.errors, outputs.errors.GetName(), self.keep)


def error_rows(check: Mapping[str, Any]) -> list[list[Any]]:
    """Return header and rows of the table of errors: left-out direction, and each method's mean error in percent."""
    errors, directions = check.get("Errors") or {}, check.get("Directions") or []
    if not errors or not directions:
        return []
    share = {name: one["MAEPercent"] / one["MAE"] if one["MAE"] else 0.0 for name, one in errors.items()}
    header = [_("Left out"), *(f"{_short_name(key, one)} (%)" for key, one in errors.items())]
    rows = [
        [_("volume {number}").format(number=row["Volume"]), *(f"{row['MAE'][n] * share[n]:.2f}" for n in errors)]
        for row in directions
    ]
    return [header, *rows]


def _short_name(key: str, one: Mapping[str, Any]) -> str:
    """Return a title of a column for a method of the core's record; SH are spherical harmonics."""
    known = {"method": _("This method"), "sh": _("SH, same"), "sh_all": _("SH, all"), "mean": _("Mean")}
    return known.get(key, str(one["Name"]))
