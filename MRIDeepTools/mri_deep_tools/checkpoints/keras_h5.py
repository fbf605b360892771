"""Read weights that Keras 1 or 2 wrote into HDF5, as plain arrays by layer name.

Two layouts exist. *Weights only*: the root attribute ``layer_names`` lists all layers; each layer is a group whose
attribute ``weight_names`` lists its tensors, and each name is the tensor's path inside the group. *Full model* (a
training checkpoint): the same structure inside the group ``model_weights``. A layer's tensors are taken in the order
of ``weight_names`` (convolution: kernel, bias; batch normalisation: gamma, beta, moving mean, moving variance), never
by their inner path, which changes with the graph that was saved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._files import human_size
from ..errors import WeightsError
from ._sniff import kind_of, remedy_for

if TYPE_CHECKING:
    import h5py

__all__ = ["conv_kernel_to_torch", "keras_layers", "match", "read_keras_h5"]

_AGAIN = "copy or download it again"
_SHOWN = 3  # how many layers an error names


def read_keras_h5(path: str | Path) -> dict[str, list[np.ndarray]]:
    """Return the tensors of every layer, in the file's order of layers and of tensors.

    Parameters
    ----------
    path :
        an HDF5 file in either layout.

    Returns
    -------
    Layer name -> its tensors, float32, C-contiguous, in Keras' own axis order (convolution kernels: D, H, W, input
    channels, output channels). Layers without weights have an empty list.

    Raises
    ------
    WeightsError : the file is missing, cut, not HDF5, not written by Keras, or holds values that are not finite.

    """
    return {layer: [array for _, array in tensors] for layer, tensors in _walk(Path(path), _read_tensor).items()}


def keras_layers(path: str | Path) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """Return the name and shape of every tensor of every layer without reading the data: a quick look at a file.

    Raises
    ------
    WeightsError : as :func:`read_keras_h5`, but for the values.

    """
    return _walk(Path(path), lambda dataset, _where: tuple(int(n) for n in dataset.shape))


def match(
    layers: Mapping[str, Sequence[np.ndarray]], needed: Mapping[str, Sequence[tuple[int, ...]]], file_name: str
) -> dict[str, list[np.ndarray]]:
    """Return the needed layers alone, each with the needed shapes; layers that nobody asked for are ignored.

    Parameters
    ----------
    layers :
        what :func:`read_keras_h5` returned.
    needed :
        layer name -> shapes of its tensors, in their order.
    file_name :
        for the message.

    Raises
    ------
    WeightsError : a needed layer is missing, or has another number of tensors or other shapes.

    """
    missing = [name for name in needed if not layers.get(name) and needed[name]]
    hint = "choose the model that this file was made for"
    if missing:
        known = sum(1 for tensors in layers.values() if tensors)
        many = "the layer" if len(missing) == 1 else f"{len(missing)} of {len(needed)} layers:"
        raise WeightsError(
            f"{file_name} belongs to another network: it lacks {many} {_first(missing)} "
            f"(it has {known} layers with weights)",
            hint,
        )
    wrong = []
    for name, shapes in needed.items():
        found = [tuple(tensor.shape) for tensor in layers.get(name, ())]
        if found != [tuple(shape) for shape in shapes]:
            wrong.append(f"{name} has {_shapes(found)} where {_shapes(shapes)} is needed")
    if wrong:
        raise WeightsError(f"{file_name} belongs to another network: {_first(wrong, '; ')}", hint)
    return {name: list(layers.get(name, ())) for name in needed}


def conv_kernel_to_torch(kernel: np.ndarray) -> np.ndarray:
    """Return a convolution kernel in torch's axis order: (D, H, W, I, O) -> (O, I, D, H, W), contiguous float32.

    Kernels of one or two spatial axes are turned in the same way. A pure permutation: Keras and torch both correlate.
    """
    axes = (kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2))
    return np.ascontiguousarray(kernel.transpose(axes), dtype=np.float32)


def _walk(path: Path, take: Any) -> dict[str, list[Any]]:
    """Go through all layers; ``take(dataset, where)`` gives what is kept of each tensor, paired with its name."""
    import h5py

    _check_kind(path)
    try:
        with h5py.File(path, "r") as file:
            root = _layer_root(file, path.name)
            return {layer: _layer(root, layer, take) for layer in _names(root, "layer_names")}
    except _DamagedError as error:
        raise WeightsError(f"{path.name} is damaged: {error}", _AGAIN) from None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise _cut_or_damaged(path, error) from None


class _DamagedError(Exception):
    """The structure of the file contradicts itself."""


def _check_kind(path: Path) -> None:
    """Refuse what is not HDF5, saying what it is."""
    import h5py

    try:
        if path.is_dir():
            raise WeightsError(f"{path.name} is a folder, not a weights file", "name the file inside it")
        if not path.exists():
            raise WeightsError(f"{path.name} does not exist", "check the path of the weights file")
        if h5py.is_hdf5(path):  # also where the signature comes after a user block
            return
        kind = kind_of(path)
    except PermissionError:
        raise WeightsError(f"{path.name} cannot be read (no permission)", "check the rights of the file") from None
    except OSError as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path.name} cannot be read ({error.strerror or error})", _AGAIN) from None
    if kind == "an HDF5 file":
        raise WeightsError(f"{path.name} is only the beginning of an HDF5 file", _AGAIN)
    raise WeightsError(
        f"{path.name} is not a Keras weights file (HDF5): it is {kind}",
        remedy_for(kind) or "name a file that Keras saved as .h5",
    )


def _cut_or_damaged(path: Path, error: Exception) -> WeightsError:
    full = re.search(r"stored_eof = (\d+)", str(error))
    size = path.stat().st_size
    if full and int(full[1]) > size:
        whole = human_size(int(full[1]))
        return WeightsError(f"{path.name} is cut short: {human_size(size)} of {whole} are here", _AGAIN)
    return WeightsError(f"{path.name} is damaged and cannot be read as HDF5", _AGAIN)


def _layer_root(file: h5py.File, name: str) -> h5py.Group:
    """Return the group that lists the layers, in either layout."""
    import h5py

    inner = file.get("model_weights")
    for group in (inner, file):
        if isinstance(group, h5py.Group) and ("layer_names" in group.attrs or "layer_names0" in group.attrs):
            return group
    if "layers" in file or "_layer_checkpoint_dependencies" in file:
        hint = "save the model with Keras 2, or with its legacy .h5 format"
        raise WeightsError(f"{name} was written by Keras 3, whose layout is not read here", hint)
    held = ", ".join(list(file)[:_SHOWN]) or "nothing"
    raise WeightsError(
        f"{name} is an HDF5 file but not one of Keras weights (no layer names; it holds {held})",
        "name a file that Keras saved as .h5",
    )


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Return a list of names kept as an attribute, or in numbered pieces where it was too long for one."""
    if attribute in group.attrs:
        return _texts(group.attrs[attribute])
    names: list[str] = []
    piece = 0
    while f"{attribute}{piece}" in group.attrs:
        names += _texts(group.attrs[f"{attribute}{piece}"])
        piece += 1
    if not piece:
        raise _DamagedError(f"the group {group.name} has no {attribute}")
    return names


def _texts(value: Any) -> list[str]:
    """Return names whatever their form: bytes, text, arrays of either, an empty array, h5py.Empty."""
    import h5py

    if isinstance(value, h5py.Empty):
        return []
    items = np.atleast_1d(np.asarray(value, dtype=object)).ravel() if not isinstance(value, bytes | str) else [value]
    return [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in items]


def _layer(root: h5py.Group, layer: str, take: Any) -> list[tuple[str, Any]]:
    import h5py

    group = root.get(layer)
    if not isinstance(group, h5py.Group):
        raise _DamagedError(f"the layer {layer} is listed but not there")
    tensors = []
    for name in _names(group, "weight_names"):
        dataset = group.get(name)
        where = f"{layer} ({name})"
        if not isinstance(dataset, h5py.Dataset):
            raise _DamagedError(f"the tensor {where} is listed but not there")
        if dataset.external or dataset.is_virtual or dataset.file.filename != root.file.filename:
            raise _DamagedError(f"the tensor {where} points outside the file")
        tensors.append((name, take(dataset, where)))
    return tensors


def _read_tensor(dataset: h5py.Dataset, where: str) -> np.ndarray:
    if dataset.dtype.kind not in "fiu":
        raise _DamagedError(f"the tensor {where} does not hold numbers")
    array = np.asarray(dataset[()], dtype=np.float32, order="C")
    if not np.isfinite(array).all():
        raise _DamagedError(f"the tensor {where} holds values that are not finite")
    return array


def _first(items: Sequence[str], separator: str = ", ") -> str:
    more = len(items) - _SHOWN
    return separator.join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _shapes(shapes: Sequence[Sequence[int]]) -> str:
    return " + ".join("x".join(str(n) for n in shape) or "scalar" for shape in shapes) or "no tensor"
