"""More diffusion directions from few, from the outside: :func:`upsample`.

Reproduces dMRI-RCNN (Lyon, Armitage and Álvarez, MIDL 2022, arXiv 2203.15598) with published weights. By default it
differs from the published program where that is blind: the geometry is right for any orientation of the image, volumes
without diffusion weighting are kept, a legal subset of the measured directions is chosen, directions are of unit
length, and voxels outside the mask are 0. ``compatible=True`` brings the published behaviour back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RequestError
from ..inference import peak_memory_bytes, pick_device, run_with_fallback, set_threads
from ..kept import file_key, kept
from ..progress import Progress, ProgressCallback
from ..volume import Volume
from .baseline import condition_of, sh_matrix, sh_predict
from .directions import choose_context, even_directions, same_axis_angle
from .gradients import GradientTable, read_mrtrix, target_table
from .masks import compute_mask, read_mask
from .model_choice import Choice, choose_model
from .scan import DiffusionScan, check_directions, check_scan, read_scan, read_targets
from .shells import TRAINING_TOLERANCE, XMAX, pick_shell, published_shell

if TYPE_CHECKING:
    from .network import RCNN

__all__ = ["METHODS", "STAGES", "Shell", "UpsampleOptions", "UpsampleResult", "Upsampler", "choose_targets", "upsample"]

METHODS = ("rcnn", "sh")
STAGES = (("read", 2.0), ("mask", 3.0), ("predict", 90.0))
_CROWDED = 30.0


@dataclass(frozen=True)
class UpsampleOptions:
    """Everything :func:`upsample` can be asked for beside the files; see there."""

    directions: int | None = None
    shell: float | None = None
    method: str = "rcnn"
    model: str | None = None
    weights: str | Path | None = None
    dims: int | None = None
    combined: bool = False
    percentile: bool = False
    sh_order: int = 2
    mask_method: str = "otsu"
    keep_measured: bool = False
    compatible: bool = False
    device: str = "auto"
    threads: int | None = None
    precision: str = "auto"
    memory: int | None = None

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if self.method not in METHODS:
            raise RequestError(f"unknown method {self.method!r}", f"use one of {', '.join(METHODS)}")
        if self.method == "sh" and (self.model or self.weights or self.combined or self.dims):
            raise RequestError(
                "spherical harmonics need no model", "drop --model, --weights, --model-dim and --combined"
            )
        if self.dims not in (None, 1, 3):
            raise RequestError(f"there is no {self.dims}D model", "use 1 or 3")
        if self.precision not in ("auto", "fp32"):
            raise RequestError(f"precision {self.precision} is not for this network", "use --precision fp32")
        if self.directions is not None and not 1 <= self.directions <= 1000:
            raise RequestError(f"{self.directions} directions cannot be made", "ask for 1 to 1000")


@dataclass(frozen=True)
class UpsampleResult:
    """What one scan gave.

    Attributes
    ----------
    image : (X, Y, Z, n) float32 on the scan's grid: volumes without diffusion weighting, then (when asked for)
        measured ones of the shell, then predicted ones.
    gradients : one row per volume of ``image``.
    kinds : ``"b0"``, ``"measured"`` or ``"predicted"`` for each volume.
    context : which volumes of the scan were read by the method, in its order.
    unused : other volumes of the shell.
    shell : b-value of the shell.
    mask : (X, Y, Z) uint8, or None where none was used.
    method, model : what predicted.
    weights : the file of the weights, or None.
    xmax : intensity that became 1 in the network, or None.
    seconds, peak_memory_bytes, device, threads, warnings : the cost, and what a person should know.
    part : the scan with its shell, as it was worked on.

    """

    image: Volume
    gradients: GradientTable
    kinds: tuple[str, ...]
    context: tuple[int, ...]
    unused: tuple[int, ...]
    shell: int
    mask: Volume | None
    method: str
    model: str
    weights: Path | None
    xmax: float | None
    seconds: dict[str, float]
    peak_memory_bytes: int
    device: str
    threads: int
    warnings: tuple[str, ...]
    part: Shell

    @property
    def predicted(self) -> Volume:
        """The predicted volumes alone."""
        return self.image.with_data(self.image.data[..., np.array(self.kinds) == "predicted"])

    def directions(self) -> dict[str, list[list[float]]]:
        """Return the directions of the shell and the predicted ones as unit vectors in RAS, for the record."""
        world = self.part.scan.table.world
        groups = {
            "MeasuredRead": world[self.part.context],
            "MeasuredUnused": world[self.part.unused],
            "Predicted": self.gradients.world[np.array(self.kinds) == "predicted"],
        }
        return {name: [[round(float(x), 6) for x in row] for row in rows] for name, rows in groups.items()}


@dataclass(frozen=True)
class Shell:
    """The part of a scan that is worked on: its shell, and which of its volumes the method reads."""

    scan: DiffusionScan
    value: int
    volumes: np.ndarray
    context: np.ndarray
    choice: Choice | None
    model: str

    @property
    def unused(self) -> np.ndarray:
        """Volumes of the shell that are not read."""
        return np.setdiff1d(self.volumes, self.context)


class Upsampler:
    """Predicts directions of one scan after the other; a network is loaded once. Takes :class:`UpsampleOptions`."""

    def __init__(self, options: UpsampleOptions | None = None, **keywords: object) -> None:
        self.options = options if options is not None else UpsampleOptions(**keywords)  # type: ignore[arg-type]
        self.device = pick_device(self.options.device)
        self._network: tuple[Path, RCNN] | None = None

    def prepare(self, scan: DiffusionScan, progress: Progress) -> Shell:
        """Choose shell, model and context volumes of a scan, and say so.

        Raises
        ------
        MRIDeepToolsError : see :func:`upsample`.

        """
        options = self.options
        value, volumes = pick_shell(scan.table, options.shell, scan.name)
        world = scan.table.world[volumes]
        check_directions(world, scan.name)
        if options.compatible:
            volumes = np.arange(len(scan.table))
        if options.method == "sh":
            sh_matrix(world, world, options.sh_order)  # complains of too few directions before any work
            return Shell(scan, value, volumes, volumes, None, f"spherical harmonics of order {options.sh_order}")
        choice = choose_model(
            value,
            len(volumes),
            model=options.model,
            weights=options.weights,
            dims=options.dims,
            combined=options.combined,
            percentile=options.percentile,
            all_directions=options.compatible,
        )
        if choice.note:
            progress.warn(choice.note)
        count = len(volumes) if options.compatible else choice.directions or len(volumes)
        picked = volumes[choose_context(world, count)] if not options.compatible else volumes
        if len(picked) < len(volumes):
            listed = ", ".join(map(str, picked))
            progress.warn(
                f"{choice.model} reads {count} directions and {len(volumes)} were measured at b = {value}: volumes "
                f"{listed} (numbered from 0) are used, spread by the published rule; --method sh uses all"
            )
        self._warn_of_shell(scan, picked, choice, progress)
        return Shell(scan, value, volumes, picked, choice, choice.model)

    def _warn_of_shell(self, scan: DiffusionScan, context: np.ndarray, choice: Choice, progress: Progress) -> None:
        if self.options.compatible:
            return
        values = scan.table.bvals[context]
        trained = choice.facts.shell if choice.facts is not None else None
        if trained is not None and np.abs(values - trained).max() > TRAINING_TOLERANCE:
            spread = (
                f"b = {values.min():g}" if values.min() == values.max() else f"b = {values.min():g} to {values.max():g}"
            )
            progress.warn(f"{spread}, where {choice.model} was trained at {trained} \N{PLUS-MINUS SIGN} 30")
        if condition_of(scan.table.world[context]) > _CROWDED:
            progress.warn(f"the {len(context)} measured directions are spread unevenly; expect larger errors")

    def predict(
        self, shell: Shell, targets: GradientTable, mask: np.ndarray | None, progress: Progress
    ) -> tuple[np.ndarray, float | None]:
        """Return predicted volumes (X, Y, Z, q_out), float32, and the intensity that became 1 (None for SH).

        Parameters
        ----------
        shell :
            What :meth:`prepare` gave.
        targets :
            Wanted directions.
        mask :
            (X, Y, Z) bool; may be None for spherical harmonics.
        progress :
            Is told the share that is done.

        """
        table, options, data = shell.scan.table, self.options, shell.scan.image.data
        if shell.choice is None:
            return self._harmonics(shell, targets, mask), None
        from .pipeline import Task, run_network

        if mask is None:
            raise RequestError("the network needs a mask", "give --mask")
        context = shell.scan.image.with_data(data[..., shell.context])
        raw = options.compatible and table.raw is not None and targets.raw is not None
        xmax = self._xmax(shell, context.data, mask)
        if not options.compatible:
            spacing = shell.choice.facts.spacing_mm if shell.choice.facts else None
            check_scan(shell.scan, shell.context, mask, xmax, spacing, progress)
        given = table.raw[shell.context] if raw and table.raw is not None else table.world[shell.context]
        wanted = targets.raw if raw and targets.raw is not None else targets.world
        task = Task(context, mask, given, wanted, xmax, raw=raw, inside_only=not options.compatible)
        network = self._load(shell.choice)

        def run(device: object) -> np.ndarray:
            self.device = pick_device(str(device))
            return run_network(task, network.to(self.device), self.device, options.memory, progress.update)

        return run_with_fallback(run, self.device, progress), xmax

    def _harmonics(self, shell: Shell, targets: GradientTable, mask: np.ndarray | None) -> np.ndarray:
        table, data = shell.scan.table, shell.scan.image.data
        order = self.options.sh_order
        if mask is None:
            return sh_predict(data[..., shell.context], table.world[shell.context], targets.world, order)
        out = np.zeros((*data.shape[:3], len(targets)), dtype=np.float32)
        out[mask] = sh_predict(data[mask][:, shell.context], table.world[shell.context], targets.world, order)
        return out

    def _xmax(self, shell: Shell, context: np.ndarray, mask: np.ndarray) -> float:
        if self.options.percentile or (shell.choice is not None and shell.choice.percentile):
            return float(np.percentile(context[mask].astype(np.float32), 99))
        facts = shell.choice.facts if shell.choice is not None else None
        return XMAX[published_shell(facts.shell if facts is not None and facts.shell is not None else shell.value)]

    def _load(self, choice: Choice) -> RCNN:
        from .weights import load_network

        if self._network is None or self._network[0] != choice.path:
            network = kept(("upsample-dmri", file_key(choice.path)), lambda: load_network(choice.path))
            self._network = choice.path, network
        return self._network[1]


def upsample(
    dwi: str | Path | Volume | DiffusionScan,
    *,
    bvecs: str | Path | None = None,
    bvals: str | Path | None = None,
    gradients: str | Path | GradientTable | None = None,
    target_bvecs: str | Path | np.ndarray | None = None,
    target_gradients: str | Path | GradientTable | None = None,
    mask: str | Path | Volume | None = None,
    options: UpsampleOptions | None = None,
    progress: ProgressCallback | Progress | None = None,
    upsampler: Upsampler | None = None,
    **keywords: object,
) -> UpsampleResult:
    """Predict volumes of further diffusion directions of one shell.

    Parameters
    ----------
    dwi :
        4-D image file (NIfTI, NRRD with gradients, MGZ, MHA), a Volume (X, Y, Z, n), or a scan with its gradients.
    bvecs, bvals :
        FSL's files. Without b-values all volumes are of the shell ``shell``.
    gradients :
        A MRtrix table (file), or a :class:`.gradients.GradientTable`, in place of both.
    target_bvecs :
        Wanted directions in FSL's convention: a file, or an array (n, 3).
    target_gradients :
        Wanted directions in world space: a MRtrix table, or a :class:`.gradients.GradientTable`; rows that are not
        diffusion-weighted are left out. Or give ``directions``.
    mask :
        Brain mask on the scan's grid; None: computed by ``mask_method`` (``otsu``, ``synthseg``); spherical harmonics
        need none.
    options, upsampler :
        Options, or a prepared :class:`Upsampler`, in place of keywords.
    progress :
        Receives events; an exception it raises ends the work.
    keywords :
        ``directions``: that many evenly spread ones. ``shell``: its b-value where there are several. ``method``:
        ``rcnn`` or ``sh``. ``model``, ``weights``: a name or a file (checkpoint or safetensors). ``dims``: 1 or 3.
        ``combined``: the model of three shells. ``percentile``: scale by the 99th percentile. ``sh_order``: 2, 4, ...
        ``keep_measured``: put the shell's measured volumes in the result. ``compatible``: the published program to
        the last rule (all volumes as context, raw b-vectors on stored axes, whole patches, predicted volumes alone).
        ``device``, ``threads``, ``precision``; ``memory``: bytes that the network may take.

    Raises
    ------
    RequestError, InputError, WeightsError, DependencyError, OutOfMemoryError : see :mod:`mri_deep_tools.errors`.

    """
    upsampler = upsampler or Upsampler(options, **keywords)
    options = upsampler.options
    progress = progress if isinstance(progress, Progress) else Progress(progress, STAGES)
    before = len(progress.warnings), dict(progress.seconds)
    threads = set_threads(options.threads)
    with progress.stage("read"):
        if not isinstance(dwi, DiffusionScan):
            files = {"bvecs": bvecs, "bvals": bvals}
            dwi = read_scan(dwi, **files, gradients=gradients, shell=options.shell, progress=progress)
        shell = upsampler.prepare(dwi, progress)
        targets = choose_targets(shell, options, bvecs=target_bvecs, gradients=target_gradients)
    device = "cpu" if shell.choice is None else str(upsampler.device)
    progress.device(device, threads=threads, model=shell.model)
    with progress.stage("mask"):
        inside = _mask(mask, shell, options, progress)
    with progress.stage("predict"):
        predicted, xmax = upsampler.predict(shell, targets, inside, progress)
    seconds = {name: value - before[1].get(name, 0.0) for name, value in progress.seconds.items()}
    return UpsampleResult(
        **_assembled(shell, targets, predicted, options),
        mask=None if inside is None else dwi.image.with_data(inside.astype(np.uint8)),
        method=options.method,
        xmax=xmax,
        seconds={name: value for name, value in seconds.items() if value > 0},
        peak_memory_bytes=peak_memory_bytes(upsampler.device),
        device="cpu" if shell.choice is None else str(upsampler.device),
        threads=threads,
        warnings=tuple(progress.warnings[before[0] :]),
    )


def choose_targets(
    shell: Shell,
    options: UpsampleOptions,
    *,
    bvecs: str | Path | np.ndarray | None = None,
    gradients: str | Path | GradientTable | None = None,
) -> GradientTable:
    """Return the wanted directions: those of a file or table, or ``options.directions`` evenly spread ones.

    Raises
    ------
    RequestError : none or several are given, or they are no directions.
    InputError : the file cannot be read.

    """
    given = sum(wanted is not None for wanted in (bvecs, gradients, options.directions))
    if given != 1:
        what = "no target directions were given" if given == 0 else "target directions were given twice"
        raise RequestError(what, "give one of --target-bvecs FILE, --target-grad FILE and --directions N")
    if gradients is not None:
        return _world_targets(gradients, shell.value)
    if bvecs is not None:
        name = Path(bvecs).name if isinstance(bvecs, (str, Path)) else "the targets"
        vectors = read_targets(bvecs) if isinstance(bvecs, (str, Path)) else np.asarray(bvecs, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != 3 or not len(vectors):
            raise RequestError(f"target directions of shape {vectors.shape}", "give an array (n, 3)")
        return target_table(vectors, shell.value, shell.scan.image.affine, name)
    world = _turned_away(even_directions(options.directions or 1), shell.scan.table.world[shell.volumes])
    return GradientTable(np.full(len(world), float(shell.value)), world)


def _world_targets(gradients: str | Path | GradientTable, value: int) -> GradientTable:
    """Return the weighted rows of a table at the b-value of the shell."""
    table = gradients if isinstance(gradients, GradientTable) else read_mrtrix(gradients)
    world = table.world[~table.is_b0]
    if not len(world):
        raise RequestError("the target table has no diffusion-weighted row", "give directions with their b-value")
    return GradientTable(np.full(len(world), float(value)), world)


def _turned_away(vectors: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return a set turned about z so that it keeps as far as it can from the measured directions; deterministic."""
    best, farthest = vectors, -1.0
    for angle in np.radians(np.arange(0, 180, 7.5)):
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        turned = vectors @ turn.T
        nearest = float(same_axis_angle(turned, measured).min())
        if nearest > farthest + 1e-6:
            best, farthest = turned, nearest
    return best


def _mask(
    mask: str | Path | Volume | None, shell: Shell, options: UpsampleOptions, progress: Progress
) -> np.ndarray | None:
    if mask is not None:
        return read_mask(mask, shell.scan.image, progress, compatible=options.compatible)
    if shell.choice is None:
        return None
    return compute_mask(shell.scan.mean_b0(), shell.scan.image, options.mask_method, progress, options.device)


def _assembled(shell: Shell, targets: GradientTable, predicted: np.ndarray, options: UpsampleOptions) -> dict[str, Any]:
    """Put kept and predicted volumes together; return these and what they are, by the result's names."""
    image, table = shell.scan.image, shell.scan.table
    b0 = np.flatnonzero(table.is_b0)
    if options.compatible:
        b0 = b0[:0]
    measured = shell.volumes if options.keep_measured and not options.compatible else b0[:0]
    kept = np.concatenate([b0, measured]).astype(int)
    data, gradients = predicted, targets
    if kept.size:
        data = np.empty((*predicted.shape[:3], len(kept) + len(targets)), dtype=np.float32)
        data[..., : len(kept)] = image.data[..., kept]
        data[..., len(kept) :] = predicted
        gradients = table.pick(kept).joined(targets)
    return {
        "image": image.with_data(data),
        "gradients": gradients,
        "kinds": ("b0",) * len(b0) + ("measured",) * len(measured) + ("predicted",) * len(targets),
        "context": tuple(int(index) for index in shell.context),
        "unused": tuple(int(index) for index in shell.unused),
        "shell": shell.value,
        "model": shell.model,
        "weights": shell.choice.path if shell.choice else None,
        "part": shell,
    }
