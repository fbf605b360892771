"""Translation into another contrast (SynDiff): one run of ``mri-deep-tools translate``; the scan stays as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MRIDeepToolsLib import nodes, settings
from MRIDeepToolsLib.grids import check_complete
from MRIDeepToolsLib.input_checks import why_not
from MRIDeepToolsLib.map_colours import use_map_colours
from MRIDeepToolsLib.outcomes import for_the_panel
from MRIDeepToolsLib.scene_run import SceneRun
from slicer.i18n import tr as _

from .run import read_record
from .scan_choice import is_synthetic

__all__ = [
    "TASK",
    "TranslateOptions",
    "TranslateOutputs",
    "TranslateRun",
    "directions",
    "sounds_like",
    "translation_notes",
    "why_not_translate",
]

TASK = "translate"
"""Of the models that translate."""
_GENERATOR = re.compile(r"gen_diffusive_([12])(?:_\d+)?\.(?:pth|safetensors)")
_SLICES = re.compile(r"\d+|(?=.*\d)(\d*):(\d*)")
_FULL_COLOUR = 0.1  # standard deviation with the full colour, in units of the brightest that the model makes


@dataclass(frozen=True)
class TranslateOptions:
    """What a translation is asked for, in the terms of ``mri-deep-tools translate``.

    ``target`` is the contrast to make, as the model names it. ``model`` and ``weights`` (the folder of a model) exclude
    each other. ``slices`` is a range such as ``40:60``, or one number, empty for all. ``spread``: the standard
    deviation of the samples too; it needs two or more.
    """

    target: str
    model: str = ""
    weights: str = ""
    source: str = ""
    samples: int = 1
    seed: int = 42
    same_noise: bool = False
    slices: str = ""
    spread: bool = False
    device: str | None = None
    threads: int | None = None

    def words(self) -> list[str]:
        """Return the words of the command line that do not name files of a scan."""
        words = ["--to", self.target, *(["--from", self.source] if self.source else [])]
        words += ["--weights", self.weights] if self.weights else ["--model", self.model] if self.model else []
        words += ["--samples", str(self.samples), "--seed", str(self.seed)]
        words += ["--same-noise"] if self.same_noise else []
        words += ["--slices", self.slices] if self.slices else []
        return words + settings.job_options(self.device, self.threads)


@dataclass
class TranslateOutputs:
    """The nodes that a translation made or filled, and what it has to say. ``spread`` is None unless asked for."""

    before: Any = None
    result: Any = None
    spread: Any = None
    source: str = ""
    target: str = ""
    warnings: list[str] = field(default_factory=list)
    model: str = ""
    device: str = ""
    seconds: float = 0.0


def directions(model: str, folder: str, models: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return what a model can do as pairs of source and target contrast; empty where that is not known.

    Parameters
    ----------
    model : name of a listed model; used where ``folder`` is empty.
    folder : of a model of the person's own, with ``model.json`` beside the generators.
    models : the core's list of models.

    """
    if not folder:
        entry = next((item for item in models if item["name"] == model), {})
        pairs = (entry.get("input_needs") or {}).get("directions") or []
        return [(str(source), str(target)) for source, target in pairs]
    try:
        facts = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
        first, second = (str(name) for name in facts["contrasts"])
        there = {found[1] for path in Path(folder).iterdir() if (found := _GENERATOR.fullmatch(path.name))}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [pair for number, pair in (("2", (first, second)), ("1", (second, first))) if number in there]


def sounds_like(name: str, contrast: str) -> bool:
    """Return True when the name of a scan has a contrast in it; T1 and T1w are one."""
    plain = re.escape(contrast[:-1] if re.fullmatch(r".*[0-9D]w", contrast) else contrast)
    return bool(contrast) and re.search(rf"(?<![a-z0-9]){plain}(?!\d)", name, re.IGNORECASE) is not None


def translation_notes(scan: Any, source: str, target: str) -> list[str]:
    """Return what a person should know of a usable scan before it is translated, in sentences."""
    if is_synthetic(scan):
        return [_("This volume was made by MRI Deep Tools already. Choose the original scan.")]
    name = scan.GetName()
    if source and sounds_like(name, target) and not sounds_like(name, source):
        text = _("The name sounds like {target}, which is to be made from {source}. Check the contrasts.")
        return [text.format(target=target, source=source)]
    return []


def _why_not_model(options: TranslateOptions) -> str:
    """Return why a model cannot be used, or what it is to do is not known; empty when all is well."""
    if not (options.model or options.weights):
        return _("Choose a model that translates, or the folder of one of your own.")
    if options.weights and not (Path(options.weights) / "model.json").is_file():
        return _(
            "The model folder has no model.json, which says its contrasts. Choose the folder of a translation model."
        )
    if options.weights and not directions("", options.weights, []):
        return _("The model folder has no network (gen_diffusive files), or its model.json names no two contrasts.")
    return "" if options.target else _("Choose the contrast to make.")


def _can_read_slices(text: str) -> bool:
    found = _SLICES.fullmatch(text)
    return found is not None and not (found[1] and found[2] and int(found[1]) >= int(found[2]))


def why_not_translate(scan: Any, options: TranslateOptions, targets: Mapping[str, Any] | None = None) -> str:
    """Return why a scan cannot be translated like this, in a sentence; empty when it can."""
    reason = why_not(scan, _("Choose a scan.")) or _why_not_model(options)
    if not reason and options.slices and not _can_read_slices(options.slices.strip()):
        reason = _("Give slices as first:end, such as 40:60 (60 is left out), or leave the field empty for all.")
    if not reason and options.spread and options.samples < 2:
        reason = _("An uncertainty needs two samples or more.")
    if not reason and any(node is scan for node in (targets or {}).values()):
        reason = _("The result would overwrite the scan. Choose another output.")
    made = [node for node in (targets or {}).values() if node is not None]
    if not reason and len(made) != len({node.GetID() for node in made}):
        reason = _("Result and uncertainty would be the same volume. Choose two.")
    return reason


class TranslateRun(SceneRun):
    """Translates one volume.

    Parameters
    ----------
    scan : scalar volume node.
    options : see :class:`TranslateOptions`.
    result, spread : nodes to fill instead of new ones.
    callbacks : as for :class:`MRIDeepToolsLib.scene_run.SceneRun`.

    """

    outputs: TranslateOutputs

    def __init__(
        self, scan: Any, options: TranslateOptions, *, result: Any = None, spread: Any = None, **callbacks: Any
    ) -> None:
        self.options = options
        super().__init__({"input": scan}, {"result": result, "spread": spread}, **callbacks)

    def arguments(self, folder: Path) -> list[Any]:
        """Write the scan into the job's folder and return the words of the command."""
        nodes.export_volume(self.inputs["input"], folder / "scan.nii")
        words: list[Any] = ["translate", folder / "scan.nii", folder / "result.nii"]
        words += ["--save-std", folder / "spread.nii"] if self.options.spread else []
        return [*words, "--hide-names", *self.options.words()]

    def words(self, text: str) -> str:
        """Return a sentence of the core for the panel."""
        return _plain(text)

    def take_in(self, outcome: Any) -> TranslateOutputs:
        """Make nodes of the files of the core, of all or of none."""
        scan, told = self.guard.node("input"), outcome.results[-1] if outcome.results else {}
        self._check_files()
        outputs = TranslateOutputs(
            before=scan,
            source=str(told.get("source", "")),
            target=str(told.get("target", "") or self.options.target),
            warnings=[_plain(text) for text in outcome.warnings],
            model=str(told.get("model", "")),
            device=str(outcome.device.get("device", "")),
            seconds=outcome.seconds,
        )
        title = _("{contrast} (synthetic)").format(contrast=outputs.target)
        outputs.result = self._volume("result", title)
        if self.options.spread:
            outputs.spread = self._volume("spread", _("{what}, standard deviation").format(what=title))
            use_map_colours(outputs.spread, self._limit())
        return outputs

    def _check_files(self) -> None:
        """Raise where a result, or the node to fill with it, cannot be used; before anything is changed."""
        place = nodes.node_geometry(self.guard.node("input"))
        for name in ("result", *(["spread"] if self.options.spread else [])):
            path = self.job.folder / f"{name}.nii"
            nodes.require_same_grid(nodes.file_geometry(path), place, _("The synthetic image"))
            check_complete(path)
            self.guard.node(name)

    def _limit(self) -> float:
        record = read_record(self.job.folder / "result.json")
        factor = (record.get("Options") or {}).get("output_factor")
        return _FULL_COLOUR * (float(factor) if isinstance(factor, (int, float)) else 1.0)

    def _volume(self, name: str, what: str) -> Any:
        scan, target = self.guard.node("input"), self.guard.node(name)
        volume = nodes.import_volume(self.job.folder / f"{name}.nii", scan, nodes.output_name(scan, what), target)
        self.keep(volume, target)
        above = volume.GetTransformNodeID()
        nodes.place_beside(volume, scan)
        volume.SetAndObserveTransformNodeID(above)
        nodes.set_provenance(volume, self.job.folder / "result.json")
        return volume


def _plain(text: str) -> str:
    """Return a sentence of the core with the controls of the panel in place of files and options."""
    words = {
        "scan.nii": _("the scan"),
        "give --samples 2 or more": _("choose two samples or more"),
        "or --slices": _("or the range of slices"),
        " (--constant sets it in units of the mean)": "",
        "choose another model, or leave --from out": _("choose another model"),
    }
    for said, meant in words.items():
        text = text.replace(said, meant)
    return for_the_panel(text[:1].upper() + text[1:])
