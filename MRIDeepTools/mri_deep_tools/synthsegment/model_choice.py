"""What a segmentation was asked to be, and which weights files that takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import RequestError, WeightsError
from .qc import QC_BOX
from .robust import ROBUST_PREFIXES

if TYPE_CHECKING:
    import torch

    from .backend import Backend
    from .network import QCRegressor, UNet

__all__ = ["Networks", "SegmentOptions", "WeightsFiles", "find_weights", "load"]

WeightsLike = str | Path | Mapping[str, str | Path] | None

DEFAULT_MODEL, LITE_MODEL = "synthseg-2.0", "synthseg-lite"
VERSIONS = {"1.0": "synthseg-1.0", "2.0": "synthseg-2.0"}
ROBUST_MODEL = "synthseg-robust-2.0"
EXTRA_MODELS = {"parcellation": "synthseg-parc-2.0", "qc": "synthseg-qc-2.0"}
ROLES = ("segmentation", *EXTRA_MODELS)


@dataclass(frozen=True)
class SegmentOptions:
    """Everything :func:`.predict.segment` can be asked for; see there. Contradictions raise RequestError."""

    model: str | None = None
    weights: WeightsLike = None
    version: str | None = None
    parcellation: bool = False
    robust: bool = False
    fast: bool = False
    ct: bool = False
    grid: Literal["native", "1mm"] = "native"
    crop: int | Sequence[int] | None = None
    qc: bool = False
    posteriors: bool = False
    resampled: bool = False
    compatible: bool = False
    device: str = "auto"
    threads: int | None = None
    precision: str = "auto"
    qc_box: int = QC_BOX

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if self.model is not None and self.weights is not None:
            raise RequestError("a model and a weights file were both given", "give one of them")
        if self.grid not in ("native", "1mm"):
            raise RequestError(f"unknown grid {self.grid!r}", "use native or 1mm")
        if self.version is not None and self.version not in VERSIONS:
            raise RequestError(f"unknown version {self.version!r}", "use 1.0 or 2.0")
        if self.robust and "1.0" in (self.version, (self.model or "")[-3:]):
            raise RequestError("there is no robust mode of version 1.0", "drop --robust or --v1")
        named = {name: version for version, name in VERSIONS.items()}.get(self.model or "")
        if named and self.version not in (None, named):
            raise RequestError(f"the model {self.model} is not of version {self.version}", "drop one of the two")
        if self.robust and self.model not in (None, ROBUST_MODEL):
            raise RequestError(f"the model {self.model} has no robust mode", f"drop --robust or use {ROBUST_MODEL}")
        if self.model in EXTRA_MODELS.values():
            raise RequestError(f"{self.model} does not segment by itself", "use --parcellation or --qc for it")
        if self.crop is not None and not isinstance(self.crop, int) and len(self.crop) not in (1, 3):
            raise RequestError(f"crop takes one or three sizes, not {len(self.crop)}", "give N or N N N")

    @property
    def is_robust(self) -> bool:
        """Say whether the robust chain is meant, by option or by model name."""
        return self.robust or self.model == ROBUST_MODEL

    @property
    def crop_sides(self) -> tuple[int, int, int] | None:
        """Return the crop as three sides, RAS order."""
        if self.crop is None:
            return None
        sides = [self.crop] if isinstance(self.crop, int) else [int(side) for side in self.crop]
        x, y, z = sides * 3 if len(sides) == 1 else sides
        return x, y, z


@dataclass(frozen=True)
class WeightsFiles:
    """Names of the model and the files of its parts (``segmentation``, ``parcellation``, ``qc``)."""

    model: str
    files: dict[str, Path]
    note: str = ""


def find_weights(options: SegmentOptions) -> WeightsFiles:
    """Find the weights files on this machine without reading them.

    Parts that were not named are looked for beside the file that was, then among the installed models. Raises
    WeightsError, with the way to get it, for a part that is nowhere.
    """
    wanted = ["segmentation", *(role for role in EXTRA_MODELS if getattr(options, role))]
    given, folder = _given(options.weights, options)
    files, name, note = {}, "", ""
    for role in wanted:
        if role in given:
            files[role] = _existing(given[role])
        elif role == "segmentation":
            name, note = _model_name(options)
            files[role] = _in_folder(folder, name) or _installed(name)
        else:
            files[role] = _in_folder(folder, EXTRA_MODELS[role]) or _installed(EXTRA_MODELS[role])
    return WeightsFiles(name or files["segmentation"].name, files, note)


def _given(weights: WeightsLike, options: SegmentOptions) -> tuple[dict[str, Path], Path | None]:
    """Return the parts that were named, and the folder in which to look for the others."""
    if weights is None:
        return {}, None
    if isinstance(weights, Mapping):
        unknown = [role for role in weights if role not in ROLES]
        if unknown:
            raise RequestError(f"unknown part {unknown[0]!r} of the weights", f"parts are {', '.join(ROLES)}")
        return {role: Path(path) for role, path in weights.items()}, None
    path = Path(weights)
    if path.is_dir():
        if (path / "config.json").is_file():
            return {"segmentation": path}, path
        if _in_folder(path, _published_name(options)) is None:
            message = f"the folder {path.name} holds no weights of {_published_name(options)}"
            raise WeightsError(message, "name a folder with the published files, or one file")
        return {}, path
    return {"segmentation": path}, path.parent


def _published_name(options: SegmentOptions) -> str:
    if options.is_robust:
        return ROBUST_MODEL
    return options.model or VERSIONS[options.version or "2.0"]


def _model_name(options: SegmentOptions) -> tuple[str, str]:
    """Return the model to use and a note when it is not the one a person would expect."""
    from ..models import model_status

    name = _published_name(options)
    free = options.model is None and options.version is None and options.weights is None and not options.is_robust
    if free and model_status(DEFAULT_MODEL) == "absent" and model_status(LITE_MODEL) != "absent":
        note = (
            f"the small bundled model {LITE_MODEL} is used, because {DEFAULT_MODEL} is not installed; "
            f"get the published one with 'mri-deep-tools models download {DEFAULT_MODEL}'"
        )
        return LITE_MODEL, note
    return name, ""


def _in_folder(folder: Path | None, model: str) -> Path | None:
    """Return a model's weights file in a folder, by any of its known names."""
    from ..models import get_model

    if folder is None:
        return None
    names = [name for file in get_model(model).files for name in file.names]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _installed(model: str) -> Path:
    from ..models import model_path

    path = model_path(model)
    return path.parent if model == LITE_MODEL else path


def _existing(path: Path) -> Path:
    if not path.exists():
        raise WeightsError(f"weights file {path.name} does not exist", "check the name")
    return path


@dataclass
class Networks:
    """Loaded networks, and where they came from."""

    backend: Backend
    weights: WeightsFiles
    parcellation: UNet | None = None
    qc: QCRegressor | None = None


def load(options: SegmentOptions, weights: WeightsFiles, device: torch.device, dtype: torch.dtype) -> Networks:
    """Load the networks; raises WeightsError when a file is not what the options need."""
    from .weights import load_regressor, load_unets

    networks = Networks(_load_backend(options, weights.files["segmentation"], device, dtype), weights)
    if "parcellation" in weights.files:
        (networks.parcellation,) = load_unets(weights.files["parcellation"], ["unet_parc"])
    if "qc" in weights.files:
        networks.qc = load_regressor(weights.files["qc"])
    return networks


def _load_backend(options: SegmentOptions, path: Path, device: torch.device, dtype: torch.dtype) -> Backend:
    from .backend import PublishedBackend
    from .robust import RobustBackend
    from .weights import check_version, load_states, load_unets, segmentation_codes

    if path.is_dir():
        from .lite import LiteBackend, load_lite

        if options.is_robust or options.version:
            raise RequestError("the compact model has no versions and no robust mode", "drop --robust and --v1")
        return LiteBackend(load_lite(path), device, dtype)
    if options.is_robust:
        chain = load_unets(path, ROBUST_PREFIXES)
        return RobustBackend(chain, segmentation_codes(chain[-1], path.name), device, dtype)
    if "l2l" in load_states(path):
        raise WeightsError(f"{path.name} holds the three networks of the robust chain", "add the option --robust")
    (network,) = load_unets(path)
    codes = segmentation_codes(network, path.name)
    check_version(codes, options.version, path.name)
    return PublishedBackend(network, codes, device, dtype)
