"""Training sets from folders of pictures: ``<stem>_{train,val,test}.hdf5`` exactly as AxonDeepSynth writes them.

Every folder is searched at every depth, split for itself, and its pictures are scaled by its own factor with nearest
neighbour. Layouts of BIDS (pictures under ``sub-*/micr``, labels under ``derivatives``) and of nnU-Net (``imagesTr``)
are understood. Files are taken in sorted order, so that the split is the same on every machine; the published program
takes them as the disk lists them, which ``compatible`` keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from .._atomic import atomic_path
from ..errors import InputError, RequestError
from ..progress import Progress
from .dataset_sources import SPLITS
from .dataset_split import Ratios, split, split_groups, subject_of
from .pictures import PICTURE_SUFFIXES, list_pictures, read_picture
from .tiles import resize_nearest

__all__ = ["EXCLUDED", "PictureFolder", "list_folder", "set_paths", "split_folder", "write_picture_sets"]

EXCLUDED = ("derivatives", ".git")
_PUBLISHED_SUFFIXES = (".png", ".tif")
_FEWEST_GREYS = 4
Warn = Callable[[str], None]


@dataclass(frozen=True)
class PictureFolder:
    """A folder of pictures of one contrast, its scale factor, and names of sub-folders that are passed over."""

    path: Path
    factor: float = 1.0
    excluded: Sequence[str] = field(default=EXCLUDED)


def set_paths(folder: str | Path, stem: str = "dataset", *, parts: Sequence[str] = SPLITS) -> dict[str, Path]:
    """Return the file of each part.

    Raises
    ------
    RequestError : the stem is no plain file name.

    """
    if not stem or Path(stem).name != stem:
        raise RequestError(f"{stem!r} cannot begin a file name", "give letters, digits, - and _")
    return {part: Path(folder) / f"{stem}_{part}.hdf5" for part in parts}


def list_folder(folder: PictureFolder, *, compatible: bool = False, on_warning: Warn | None = None) -> list[Path]:
    """Return the pictures of a folder, at every depth.

    A data set of nnU-Net (a folder with ``imagesTr``) gives what is in ``imagesTr``, with a message.

    Raises
    ------
    InputError : the folder does not exist, or has no pictures.

    """
    place = Path(folder.path)
    if not compatible and (place / "imagesTr").is_dir():
        others = [name for name in ("imagesTs", "labelsTr", "labelsTs") if (place / name).is_dir()]
        if others and on_warning is not None:
            on_warning(f"{place.name} is a data set of nnU-Net: imagesTr is used, {', '.join(others)} not")
        place = place / "imagesTr"
    suffixes = _PUBLISHED_SUFFIXES if compatible else PICTURE_SUFFIXES
    found = list_pictures(place, recursive=True, excluded=folder.excluded, suffixes=suffixes, in_order=not compatible)
    if not found:
        raise InputError(f"the folder {Path(folder.path).name} has no pictures", f"they end in {', '.join(suffixes)}")
    return found


def split_folder(
    files: Sequence[Path], ratios: Ratios, *, seed: int = 42, by_subject: bool = False
) -> dict[str, list[Path]]:
    """Return the files of each part, in the order in which they are stored.

    Parameters
    ----------
    files : of one folder; the split follows their order.
    by_subject : keep pictures of one BIDS subject together; a file without one counts as a subject of its own.

    Raises
    ------
    InputError : too few files or subjects.

    """
    if by_subject:
        parts = split_groups([subject_of(path.as_posix()) or path.as_posix() for path in files], ratios, seed=seed)
    else:
        parts = split(len(files), ratios, seed=seed, what="pictures of a folder")
    return {part: [files[k] for k in numbers] for part, numbers in parts.items()}


def write_picture_sets(
    outputs: Mapping[str, Path],
    contents: Mapping[str, Sequence[tuple[PictureFolder, Mapping[str, Sequence[Path]]]]],
    *,
    compatible: bool = False,
    progress: Progress | None = None,
) -> dict[str, dict[str, list[str]]]:
    """Write the sets, all of them or none.

    Parameters
    ----------
    outputs : file of each part; parts that are not named are left out.
    contents : of each contrast its folders with their files by part (:func:`split_folder`).
    compatible : let Pillow turn every picture into 8-bit grey without a word.

    Returns
    -------
    The name of the original of every entry, by part and contrast, in the order of the entries.

    Raises
    ------
    InputError : a picture that cannot be read, or that has three grey values or fewer, as a label map or an empty
        picture has. OutputError : the place cannot be written to.

    """
    progress = progress or Progress()
    count = sum(len(parts[part]) for folders in contents.values() for _, parts in folders for part in outputs)
    done = 0
    names: dict[str, dict[str, list[str]]] = {part: {} for part in outputs}
    with ExitStack() as stack:
        for part, path in outputs.items():
            temporary = stack.enter_context(atomic_path(path))
            with h5py.File(temporary, "w") as file:
                for contrast, folders in contents.items():
                    group = file.create_group(contrast)
                    entries = names[part].setdefault(contrast, [])
                    for folder, parts in folders:
                        for source in parts[part]:
                            group[str(len(entries))] = _picture(source, folder.factor, compatible, progress.warn)
                            entries.append(_name(source, folder.path))
                            done += 1
                            progress.update(done / count)
    return names


def _picture(path: Path, factor: float, compatible: bool, warn: Warn) -> np.ndarray:
    image = read_picture(path, compatible=compatible, on_warning=warn)
    greys = int(np.count_nonzero(np.bincount(image.ravel(), minlength=256)))
    if greys < _FEWEST_GREYS:
        raise InputError(
            f"{path.name} has only {greys} grey value{'s' * (greys > 1)}, as a label map or an empty picture has",
            "take it away, or exclude its folder (--exclude)",
        )
    return resize_nearest(image, factor)


def _name(path: Path, folder: Path) -> str:
    """Return a path within its folder, for the record."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
