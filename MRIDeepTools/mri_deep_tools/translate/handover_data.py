"""What nnU-Net keeps on the disk: the three folders, raw data sets and trained models; found and checked before work.

Nothing here imports nnU-Net. Layout: ``nnUNet_raw/Dataset123_Name/{imagesTr,labelsTr,imagesTs,dataset.json}``, images
``case_0000.png`` (one file per channel), labels ``case.png``; ``nnUNet_results/Dataset123_Name/TRAINER__PLANS__2d/
fold_0/checkpoint_final.pth``. Source: Isensee et al., nnU-Net, Nature Methods 18, 2021, 203-211.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, RequestError, WeightsError
from .pictures import is_picture_path

__all__ = ["Case", "RawSet", "TrainedModel", "Workspace", "list_cases", "read_model"]

_DATASET = re.compile(r"Dataset(\d{3})_.+")
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_KEYS = ("channel_names", "labels", "numTraining", "file_ending")
_FOLDS = 5
_SHOWN = 3  # names of files in a message
_BLOCK = 1 << 20

FINAL, BEST = "checkpoint_final.pth", "checkpoint_best.pth"
Fold = int | str


@dataclass(frozen=True)
class Workspace:
    """The folder that holds nnU-Net's three folders."""

    root: Path

    @classmethod
    def of(cls, root: str | Path) -> Workspace:
        """Return the workspace in ``root``; InputError where there is none."""
        root = Path(root)
        if not root.is_dir():
            raise InputError(f"the folder {root.name} does not exist", "check the path")
        if root.name == "nnUNet_raw":
            root = root.absolute().parent
        if _DATASET.fullmatch(root.name):
            raise InputError(
                f"{root.name} is one data set, not the folder of nnU-Net", "give the folder that holds nnUNet_raw"
            )
        if not (root / "nnUNet_raw").is_dir():
            raise InputError(
                f"{root.name} is not a folder of nnU-Net: it has no nnUNet_raw", "put data sets into nnUNet_raw inside"
            )
        return cls(root)

    @property
    def raw(self) -> Path:
        """Folder of the data sets."""
        return self.root / "nnUNet_raw"

    @property
    def preprocessed(self) -> Path:
        """Folder of what nnU-Net made of them."""
        return self.root / "nnUNet_preprocessed"

    @property
    def results(self) -> Path:
        """Folder of the trained models."""
        return self.root / "nnUNet_results"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that tell nnU-Net the three folders."""
        return {path.name: str(path.absolute()) for path in (self.raw, self.preprocessed, self.results)}

    def find(self, dataset: int | str) -> RawSet:
        """Return a data set by number or name.

        Raises
        ------
        RequestError : there is none, or nnU-Net could not tell two with one number apart.
        InputError : the data set is not complete.

        """
        here = {path.name for path in self.raw.iterdir() if path.is_dir() and _DATASET.fullmatch(path.name)}
        text = str(dataset)
        number = int(text) if text.isascii() and text.isdigit() else None
        if number is None and (match := _DATASET.fullmatch(text)):
            number = int(match[1])
        fitting = sorted(name for name in here if name == text or int(name[7:10]) == number)
        if number is None or not fitting or (text.startswith("Dataset") and text not in here):
            known = ", ".join(sorted(here)) or "none"
            raise RequestError(f"there is no data set {text!r} in nnUNet_raw", f"there is {known}")
        folders = [folder for folder in (self.raw, self.preprocessed, self.results) if folder.is_dir()]
        taken = {path.name for folder in folders for path in folder.iterdir() if path.is_dir()}
        twice = sorted(name for name in taken if name.startswith(f"Dataset{number:03d}"))
        if len(twice) > 1:
            raise RequestError(
                f"the number {number} is taken by {' and by '.join(twice)}", "give one of them another number"
            )
        return _read_raw(self.raw / fitting[0])


@dataclass(frozen=True)
class RawSet:
    """A labelled data set in nnU-Net's raw form."""

    folder: Path
    info: Mapping[str, Any]
    cases: tuple[str, ...]

    @property
    def name(self) -> str:
        """``Dataset123_Name``."""
        return self.folder.name

    @property
    def number(self) -> int:
        """Its number."""
        return int(self.folder.name[7:10])

    @property
    def ending(self) -> str:
        """End of the names of its images."""
        return str(self.info["file_ending"])

    @property
    def test_folder(self) -> Path | None:
        """Folder of unlabelled images, None where it is absent or empty."""
        folder = self.folder / "imagesTs"
        return folder if folder.is_dir() and any(folder.glob(f"*{self.ending}")) else None

    def files(self) -> Iterator[Path]:
        """Give every file of the training part, in order."""
        for part in ("imagesTr", "labelsTr"):
            yield from sorted(path for path in (self.folder / part).glob(f"*{self.ending}") if path.is_file())

    def fingerprint(self) -> str:
        """Return a number of the content: it changes when a picture, a label or dataset.json does."""
        value = 0
        for path in (self.folder / "dataset.json", *self.files()):
            value = zlib.crc32(path.relative_to(self.folder).as_posix().encode(), value)
            with path.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    value = zlib.crc32(block, value)
        return f"{value:08x}"

    def check_labels(self) -> None:
        """Check codes and sizes of label pictures; other kinds of file are nnU-Net's to check.

        Raises
        ------
        InputError : a label picture has a code that dataset.json does not name, or another size than its image.

        """
        codes = [code for code in self.info["labels"].values() if isinstance(code, int)]
        if not is_picture_path(f"x{self.ending}") or len(codes) != len(self.info["labels"]):
            return
        import numpy as np

        from .pictures import read_picture

        for case in self.cases:
            path = self.folder / "labelsTr" / f"{case}{self.ending}"
            labels = read_picture(path, labels=True)
            strange = sorted(set(np.unique(labels).tolist()) - set(codes))
            if strange:
                found = ", ".join(map(str, strange[:_SHOWN])) + (", ..." if len(strange) > _SHOWN else "")
                raise InputError(
                    f"{path.name} has the codes {found}, dataset.json names {', '.join(map(str, sorted(codes)))}",
                    "correct the labels; grey levels such as 127 and 255 must become 1 and 2",
                )
            size = _picture_size(self.folder / "imagesTr" / f"{case}_0000{self.ending}")
            if size != labels.shape:
                raise InputError(
                    f"{path.name} has {labels.shape[0]}x{labels.shape[1]} pixels, its image {size[0]}x{size[1]}",
                    "bring both to one size",
                )


def _picture_size(path: Path) -> tuple[int, int]:
    """Return (rows, columns) from the head of a picture."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            columns, rows = picture.size
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{path.name} cannot be read as a picture", "save it again") from error
    return rows, columns


def _read_raw(folder: Path) -> RawSet:
    info = _read_json(folder / "dataset.json", folder.name)
    missing = [key for key in _KEYS if key not in info]
    if missing:
        raise InputError(f"dataset.json of {folder.name} lacks {', '.join(missing)}", "see nnU-Net's documentation")
    if "dataset" in info:
        raise InputError(
            f"dataset.json of {folder.name} lists its files itself", "bring them into imagesTr and labelsTr instead"
        )
    codes = [code for code in info["labels"].values() if isinstance(code, int)]
    if info["labels"].get("background") != 0 or (codes and sorted(codes) != list(range(len(codes)))):
        raise InputError(
            f"the labels of {folder.name} must be 0 (background), 1, 2 and so on", "correct labels in dataset.json"
        )
    for part in ("imagesTr", "labelsTr"):
        if not (folder / part).is_dir():
            raise InputError(f"{folder.name} has no {part}", "it is not a data set of nnU-Net")
    ending, channels = str(info["file_ending"]), len(info["channel_names"])
    images = list_cases(folder / "imagesTr", ending, channels)
    labelled = {path.name.removesuffix(ending) for path in (folder / "labelsTr").glob(f"*{ending}")}
    cases = {case.name for case in images}
    for names, what, other in ((labelled - cases, "labels", "images"), (cases - labelled, "images", "labels")):
        if names:
            raise InputError(
                f"{folder.name} has {what} without {other}: {_few(names)}", "add what is missing or remove the rest"
            )
    if not cases:
        raise InputError(f"{folder.name} has no images that end in {ending}", "check file_ending in dataset.json")
    if info["numTraining"] != len(cases):
        raise InputError(
            f"{folder.name} has {len(cases)} cases, dataset.json says {info['numTraining']}", "correct numTraining"
        )
    return RawSet(folder, info, tuple(sorted(cases)))


def _few(names: set[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_SHOWN]) + (f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else "")


def _read_json(path: Path, owner: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{owner} has no {path.name}", "it is not a folder of nnU-Net") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} of {owner} cannot be read", "restore it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path.name} of {owner} holds no keys", "restore it")
    return content


# --------------------------------------------------------------------------------------------------------------- cases


@dataclass(frozen=True)
class Case:
    """One thing to segment: its name and the file of each channel."""

    name: str
    files: tuple[Path, ...]


def list_cases(source: Path, endings: str | Sequence[str], channels: int = 1) -> list[Case]:
    """Return the cases of a folder, or that of one file.

    Names may end in nnU-Net's channel (``cell_0000.png``) or, where there is one channel, lack it (``cell.png``).

    Parameters
    ----------
    source : a folder of images, or one image.
    endings : how their names end.
    channels : files per case.

    Raises
    ------
    InputError : nothing there, a channel is missing, or two images would give one result.

    """
    ends = (endings,) if isinstance(endings, str) else tuple(endings)
    if not source.exists():
        raise InputError(f"{source.name} does not exist", "check the path")
    entries = sorted(source.iterdir()) if source.is_dir() else [source]
    paths = [path for path in entries if path.name.lower().endswith(ends) and not path.name.startswith(".")]
    if not paths:
        raise InputError(f"{source.name} has no images that end in {' or '.join(ends)}", "check the folder")
    found: dict[str, dict[int, Path]] = {}
    for path in paths:
        stem = path.name[: -len(next(end for end in ends if path.name.lower().endswith(end)))]
        match = _CHANNEL.fullmatch(stem)
        # With one channel, a number other than 0 is a number of the image, not of the channel: scan_0007.png.
        if match is None or (channels == 1 and match["channel"] != "0000"):
            if channels > 1:
                raise InputError(f"{path.name} names no channel", f"{channels} are needed: NAME_0000, NAME_0001")
            name, channel = stem, 0
        else:
            name, channel = match["case"], int(match["channel"])
        other = found.setdefault(name, {})
        if channel in other:
            raise InputError(f"{other[channel].name} and {path.name} would give one result", "rename one of them")
        other[channel] = path
    for name, files in found.items():
        if sorted(files) != list(range(channels)):
            raise InputError(f"{name} has the channels {sorted(files)}, {channels} are needed", "add what is missing")
    return [Case(name, tuple(files[index] for index in range(channels))) for name, files in sorted(found.items())]


# -------------------------------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class TrainedModel:
    """A model that nnU-Net trained: its folder, the folds that are used, and the file of each."""

    folder: Path
    folds: tuple[Fold, ...]
    checkpoint: str
    info: Mapping[str, Any]

    @property
    def ending(self) -> str:
        """End of the names of its results."""
        return str(self.info["file_ending"])

    @property
    def channels(self) -> int:
        """Files per case."""
        return len(self.info["channel_names"])

    @property
    def files(self) -> list[Path]:
        """The checkpoints."""
        return [self.folder / f"fold_{fold}" / self.checkpoint for fold in self.folds]


def read_model(folder: str | Path, folds: Sequence[Fold] | None = None, *, best: bool = False) -> TrainedModel:
    """Return a trained model.

    Parameters
    ----------
    folder : ``nnUNet_results/Dataset123_Name/TRAINER__PLANS__CONFIGURATION``.
    folds : numbers, or ``"all"``; None takes every numbered fold that has the checkpoint, else fold_all.
    best : the checkpoint with the best validation, not the last one.

    Raises
    ------
    WeightsError : no model, a fold or its checkpoint is missing.

    """
    folder, name = Path(folder), BEST if best else FINAL
    if not folder.is_dir():
        raise WeightsError(f"the model folder {folder.name} does not exist", "check --weights")
    if not (folder / "plans.json").is_file() or not (folder / "dataset.json").is_file():
        inside = sorted(path.parent for path in folder.glob("**/plans.json") if list(path.parent.glob("fold_*")))
        shown = [path.relative_to(folder).as_posix() for path in inside[:_SHOWN]]
        hint = f"inside it is {', '.join(shown)}" if shown else "give TRAINER__PLANS__2d inside nnUNet_results"
        raise WeightsError(f"{folder.name} is not a model of nnU-Net: it has no plans.json", hint)
    info = _read_json(folder / "dataset.json", folder.name)
    there = [path.name.removeprefix("fold_") for path in folder.glob("fold_*") if path.is_dir()]
    ready = sorted(
        (fold for fold in there if (folder / f"fold_{fold}" / name).is_file()), key=lambda fold: (len(fold), fold)
    )
    chosen: list[Fold]
    if folds is None:
        chosen = [int(fold) for fold in ready if fold.isdigit()] or list[Fold](["all"] if "all" in ready else [])
        if not chosen:
            other = "it was stopped; --use-best-checkpoint may find one" if there and not best else "train it first"
            raise WeightsError(f"no fold of {folder.name} has {name}", other)
    else:
        chosen = list(folds)
        for fold in chosen:
            if str(fold) not in there:
                raise WeightsError(f"{folder.name} has no fold {fold}", f"it has {', '.join(sorted(there)) or 'none'}")
            if str(fold) not in ready:
                raise WeightsError(
                    f"fold {fold} of {folder.name} has no {name}",
                    "its training did not end" + ("" if best else "; --use-best-checkpoint may help"),
                )
    return TrainedModel(folder, tuple(chosen), name, info)
