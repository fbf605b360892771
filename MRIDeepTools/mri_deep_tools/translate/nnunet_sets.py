"""Whole data sets of nnU-Net: labelled pictures in, the same labels with pictures of another contrast out.

The layout is that of AxonDeepSynth: ``nnUNet_raw/Dataset<ddd>_SYNTH_<target>_from_<source>`` with ``imagesTr``,
``labelsTr``, an empty ``imagesTs`` and ``dataset.json``. A set appears whole, under its own name, or not at all.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, OutputError, RequestError
from .folders import MAPPING_NAME, mapping_text
from .pictures import write_picture

if TYPE_CHECKING:
    from .dataset_tiles import Original

__all__ = ["AXON_LABELS", "NewDataset", "check_channels", "dataset_folder", "label_names", "new_dataset"]

AXON_LABELS = {"background": 0, "myelin": 1, "axon": 2}
_CHANNEL = "_0000"
_LARGEST_ID = 999


def check_channels(originals: Sequence[Original], name: str) -> None:
    """Refuse pictures of several channels (InputError): the network takes one."""
    further = [item.image.name for item in originals if re.search(r"_000[1-9]\.\w+$", item.image.name)]
    if further:
        raise InputError(f"{name} has pictures of several channels ({further[0]})", "give a set of one channel")


def label_names(folder: Path) -> dict[str, Any]:
    """Return the names of the labels as ``dataset.json`` has them; those of axons and myelin where there is none."""
    path = folder / "dataset.json"
    if not path.is_file():
        return dict(AXON_LABELS)
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"dataset.json of {folder.name} does not name the labels", "write it anew") from error
    if not isinstance(labels, dict) or not labels:
        raise InputError(f"dataset.json of {folder.name} does not name the labels", "write it anew")
    return labels


def dataset_folder(output: Path, number: int | None, source: str, target: str) -> Path:
    """Return where a new data set goes, ``<output>/nnUNet_raw/Dataset<ddd>_SYNTH_<target>_from_<source>``.

    Parameters
    ----------
    output : the folder of nnU-Net, or its ``nnUNet_raw``.
    number : of the data set, 1 to 999; None takes the first that is free.
    source, target : names of the contrasts.

    Raises
    ------
    RequestError : the number cannot be, belongs to another data set, or none is free.

    """
    raw = output if output.name == "nnUNet_raw" else output / "nnUNet_raw"
    taken = {
        int(match[1]): path.name
        for path in (raw.iterdir() if raw.is_dir() else ())
        if path.is_dir() and (match := re.match(r"Dataset(\d{3})_", path.name))
    }
    if number is None:
        number = next((k for k in range(1, _LARGEST_ID + 1) if k not in taken), None)
        if number is None:
            raise RequestError("all numbers of data sets are taken", "remove one, or name another folder")
    if not 1 <= number <= _LARGEST_ID:
        raise RequestError(f"{number} is no number of a data set", f"use 1 to {_LARGEST_ID}")
    name = f"Dataset{number:03d}_SYNTH_{target}_from_{source}"
    if taken.get(number, name) != name:
        raise RequestError(f"the number {number} belongs to {taken[number]}", "choose another with --dataset-id")
    return raw / name


class NewDataset:
    """A data set that is being written; see :func:`new_dataset`."""

    def __init__(self, folder: Path, final: Path, target: str) -> None:
        self.folder, self.final, self.target = folder, final, target
        self.mapping: dict[str, str] = {}
        for name in ("imagesTr", "labelsTr", "imagesTs"):
            (folder / name).mkdir()

    def add(self, name: str, image: np.ndarray, labels: np.ndarray, original: str, text: dict[str, str]) -> None:
        """Write a picture (H, W) uint8 under its published name, and its labels under theirs."""
        write_picture(image, self.folder / "imagesTr" / name, text=text)
        write_picture(labels, self.folder / "labelsTr" / name.replace(f"{_CHANNEL}.png", ".png"))
        self.mapping[str(self.final / "imagesTr" / name)] = original

    def finish(self, labels: dict[str, Any]) -> None:
        """Write the mapping of names and ``dataset.json``."""
        (self.folder / "imagesTr" / MAPPING_NAME).write_text(mapping_text(self.mapping), encoding="utf-8")
        kind = "axon and myelin segmentation" if labels == AXON_LABELS else "segmentation"
        content = {
            "name": f"SYNTH_{self.target}",
            "description": f"Synthetic {self.target} {kind} dataset for nnUNetv2",
            "labels": labels,
            "channel_names": {"0": "rescale_to_0_1"},
            "numTraining": len(self.mapping),
            "numTest": 0,
            "file_ending": ".png",
        }
        (self.folder / "dataset.json").write_text(json.dumps(content, indent=4), encoding="utf-8")


@contextmanager
def new_dataset(final: Path, target: str, *, overwrite: bool) -> Iterator[NewDataset]:
    """Open a data set under a temporary name in its folder; it gets its own name when the work inside is done.

    Raises
    ------
    OutputError : it exists and may not be replaced, or the place cannot be written to.

    """
    if final.exists() and not overwrite:
        raise OutputError(f"{final.name} exists already", "choose another number, or allow overwriting (--overwrite)")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".new-", dir=final.parent))
    except OSError as error:
        raise OutputError(f"{final.parent.name} cannot be written to ({error.strerror})", "choose another") from error
    try:
        folder.chmod(0o755)
        yield NewDataset(folder, final, target)
        if final.exists():
            shutil.rmtree(final)
        folder.rename(final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
