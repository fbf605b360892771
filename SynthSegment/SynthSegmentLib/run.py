"""One run: the scan goes out as a file, the core labels it in a process of its own, the results come in as nodes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MRIDeepToolsLib import nodes, settings
from MRIDeepToolsLib.outcomes import for_the_panel
from MRIDeepToolsLib.scene_run import RunFailedError, SceneRun
from slicer.i18n import tr as _

__all__ = ["RunFailedError", "SegmentOptions", "SegmentOutputs", "SegmentRun", "needed_models"]

BEST_MODEL, BUNDLED_MODEL = "synthseg-2.0", "synthseg-lite"
ROBUST_MODEL, PARCELS_MODEL, SCORES_MODEL = "synthseg-robust-2.0", "synthseg-parc-2.0", "synthseg-qc-2.0"


HIDDEN_IN_3D = ("csf",)
"""The fluid around the brain would cover everything else."""


@dataclass(frozen=True)
class SegmentOptions:
    """What a run is asked for, in the terms of ``mri-deep-tools segment``.

    ``model`` and ``weights`` (a file or a folder) exclude each other; both empty: the best model on this computer.
    ``crop`` is the side of the middle cube that is looked at, in mm. ``device`` and ``threads``: None takes the
    application settings. ``grid`` is ``native`` or ``1mm``.
    """

    model: str = ""
    weights: str = ""
    parcels: bool = False
    robust: bool = False
    ct: bool = False
    fast: bool = False
    grid: str = "native"
    crop: int = 0
    volumes: bool = True
    scores: bool = False
    posteriors: bool = False
    device: str | None = None
    threads: int | None = None

    def words(self) -> list[str]:
        """Return the words of the command line that do not name files of a scan."""
        words = []
        if self.weights:
            words += ["--weights", self.weights]
        elif self.model and not self.robust:
            words += ["--model", self.model]
        flags = {"--parcellation": self.parcels, "--robust": self.robust, "--ct": self.ct, "--fast": self.fast}
        words += [flag for flag, wanted in flags.items() if wanted]
        if self.crop:
            words += ["--crop", str(self.crop)]
        return [*words, "--grid", self.grid, *settings.job_options(self.device, self.threads)]


def hide_in_3d(segmentation: Any, structures: Sequence[str]) -> None:
    """Hide structures, by the core's names, in 3D views alone."""
    display = segmentation.GetDisplayNode()
    identities = nodes.structures_of(segmentation)
    for name in structures:
        if display is not None and name in identities:
            display.SetSegmentVisibility3D(identities[name], False)


def needed_models(options: SegmentOptions, models: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the models that a run needs and that are not on this computer, of the core's list of models."""
    absent = {model["name"]: model for model in models if model["status"] == "absent"}
    wanted = []
    if options.robust:
        wanted.append(ROBUST_MODEL)
    elif options.model:
        wanted.append(options.model)
    elif BUNDLED_MODEL in absent:  # otherwise the core falls back to the bundled one
        wanted.append(BEST_MODEL)
    if options.weights:
        return []  # the core looks for the other parts beside them, and says what is missing
    wanted += [PARCELS_MODEL] if options.parcels else []
    wanted += [SCORES_MODEL] if options.scores else []
    return [absent[name] for name in wanted if name in absent]


@dataclass
class SegmentOutputs:
    """The nodes that a run made or filled, and what it has to say.

    For a sequence, ``segmentation`` shows the current time point (None where the sequence has no browser) and
    ``sequence`` holds all of them.
    """

    segmentation: Any = None
    sequence: Any = None
    volumes: Any = None
    chart: Any = None
    scores: Any = None
    posteriors: Any = None
    warnings: list[str] = field(default_factory=list)
    model: str = ""
    device: str = ""
    seconds: float = 0.0


class SegmentRun(SceneRun):
    """Labels one volume, or all time points of its sequence.

    Parameters
    ----------
    volume : scalar volume node.
    options : see :class:`SegmentOptions`.
    segmentation, volumes, scores, posteriors : nodes to fill instead of new ones.
    all_time_points : label the whole sequence that the volume belongs to.
    callbacks : as for :class:`MRIDeepToolsLib.scene_run.SceneRun`.

    """

    outputs: SegmentOutputs

    def __init__(
        self,
        volume: Any,
        options: SegmentOptions,
        *,
        segmentation: Any = None,
        volumes: Any = None,
        scores: Any = None,
        posteriors: Any = None,
        all_time_points: bool = False,
        **callbacks: Any,
    ) -> None:
        self.options, self.all_time_points = options, all_time_points
        self._frames: list[Any] = []
        targets = {"segmentation": segmentation, "volumes": volumes, "scores": scores, "posteriors": posteriors}
        super().__init__({"input": volume}, targets, **callbacks)

    # ------------------------------------------------------------------------------------------------------ going out

    def arguments(self, folder: Path) -> list[Any]:
        """Write the input into the job's folder and return the words of the command."""
        if self.all_time_points:
            return self._sequence_arguments(folder)
        nodes.export_volume(self.inputs["input"], folder / "scan.nii")
        words = ["segment", folder / "scan.nii", folder / "scan_dseg.nii", "--hide-names", *self.options.words()]
        for option, name in self._wanted_files().items():
            words += [f"--{option}", folder / f"scan_{name}"]
        return words

    def _sequence_arguments(self, folder: Path) -> list[Any]:
        """Write all time points and lists of files: one command labels them with one loaded network."""
        self._frames = nodes.export_sequence(self.inputs["input"], folder)
        endings = {"labels": "dseg.nii", **self._wanted_files()}
        lists = {"scans": [f"{frame.stem}.nii" for frame in self._frames]}
        lists.update({key: [f"{frame.stem}_{end}" for frame in self._frames] for key, end in endings.items()})
        for key, names in lists.items():
            lines = "".join(f"{folder / name}\n" for name in names)
            (folder / f"{key}.txt").write_text(lines, encoding="utf-8")
        words = ["segment", folder / "scans.txt", folder / "labels.txt", "--hide-names", *self.options.words()]
        for option in self._wanted_files():
            words += [f"--{option}", folder / f"{option}.txt"]
        return words

    def _wanted_files(self) -> dict[str, str]:
        """Return option of the core -> end of the file name."""
        wanted = {"volumes": "volumes.csv"} if self.options.volumes else {}
        if self.options.scores:
            wanted["qc"] = "scores.csv"
        if self.options.posteriors and not self.all_time_points:
            wanted["posteriors"] = "posteriors.nii"
        return wanted

    # ------------------------------------------------------------------------------------------------------- coming in

    def take_in(self, outcome: Any) -> SegmentOutputs:
        """Make nodes of the files of the core."""
        reference = self.guard.node("input")
        outputs = SegmentOutputs(warnings=[for_the_panel(text) for text in outcome.warnings], seconds=outcome.seconds)
        outputs.model = str(outcome.results[-1].get("model", "")) if outcome.results else ""
        outputs.device = str(outcome.device.get("device", ""))
        if self.all_time_points:
            self._take_in_sequence(outputs, reference)
        else:
            self._take_in_volume(outputs, reference)
        return outputs

    def _take_in_volume(self, outputs: SegmentOutputs, reference: Any) -> None:
        """Read the labels first: they are what everything else belongs to."""
        folder, native = self.job.folder, self.options.grid == "native"
        target = {name: self.guard.node(name) for name in self.targets}
        labels, table = folder / "scan_dseg.nii", folder / "scan_dseg.tsv"
        name = nodes.output_name(reference, _("labels"))
        outputs.segmentation = self.keep(
            nodes.import_segmentation(labels, table, reference, name, target["segmentation"], same_grid=native),
            target["segmentation"],
        )
        hide_in_3d(outputs.segmentation, HIDDEN_IN_3D)
        if self.options.volumes:
            name = nodes.output_name(reference, _("volumes"))
            made = nodes.import_volumes_table(folder / "scan_volumes.csv", name, target["volumes"])
            outputs.volumes = self.keep(made, target["volumes"])
            outputs.chart = self.keep(nodes.volumes_chart(made, made.GetName()))
            outputs.chart.SetName(f"{made.GetName()} - {_('chart')}")
        if self.options.scores:
            name = nodes.output_name(reference, _("quality"))
            made = nodes.import_scores_table(folder / "scan_scores.csv", name, target["scores"])
            outputs.scores = self.keep(made, target["scores"])
        if self.options.posteriors:
            name, same = nodes.output_name(reference, _("soft maps")), reference if native else None
            path = folder / "scan_posteriors.nii"
            made = nodes.import_posteriors(path, same, name, target["posteriors"], table_path=table)
            outputs.posteriors = self.keep(made, target["posteriors"])
        self._place(outputs, reference, folder / "scan_dseg.json")

    def _take_in_sequence(self, outputs: SegmentOutputs, reference: Any) -> None:
        folder, stem = self.job.folder, self._frames[0].stem
        name = nodes.output_name(reference, _("labels"))
        made = nodes.import_segmentation_sequence(self._frames, folder, reference, name)
        outputs.sequence, outputs.segmentation = made
        for node in made:
            if node is not None:
                self.keep(node)
        for option, ending, what in (("volumes", "volumes", _("volumes")), ("qc", "scores", _("quality"))):
            if option not in self._wanted_files():
                continue
            merged = self._merge([folder / f"{frame.stem}_{ending}.csv" for frame in self._frames])
            target = self.guard.node(ending)
            table = nodes.import_table(merged, nodes.output_name(reference, what), target)
            setattr(outputs, ending, self.keep(table, target))
        self._place(outputs, reference, folder / f"{stem}_dseg.json")

    def _merge(self, paths: list[Path]) -> Path:
        """Write the tables of all time points as one, with the number of the time point in the first column."""
        rows: list[list[str]] = []
        for path, frame in zip(paths, self._frames):  # noqa: B905 - Python 3.9
            with path.open(encoding="utf-8", newline="") as stream:
                header, *values = list(csv.reader(stream))
            rows = rows or [[_("Time point"), *header[1:]]]
            rows += [[frame.index, *row[1:]] for row in values]
        merged = paths[0].with_name(f"all_{paths[0].name}")
        with merged.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows(rows)
        return merged

    def _place(self, outputs: SegmentOutputs, reference: Any, sidecar: Path) -> None:
        """Put all outputs beside the input, in the subject hierarchy and in the world, and note where they are from."""
        tables = (outputs.volumes, outputs.chart, outputs.scores)
        for node in (outputs.segmentation, outputs.sequence, *tables, outputs.posteriors):
            if node is not None:
                nodes.place_beside(node, reference)
                nodes.set_provenance(node, sidecar)
