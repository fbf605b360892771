"""Templates in whose frame to work: a file of the user's, or an atlas of the list of models by its name."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, WeightsError
from ..volume import read_volume
from .frames import is_working_grid

__all__ = ["TASK", "find_template", "require_template"]

TASK = "template"
"""Task of the atlases in the list of models."""


def find_template(template: str | Path) -> Path:
    """Return the file of a template: a path that exists, or the name of an atlas in the list of models.

    Raises
    ------
    InputError : neither. WeightsError : the atlas is not on this machine, or damaged; the hint says how to get it.

    """
    path = Path(template)
    if path.exists():
        return path
    from ..models import list_models, model_path

    names = [model.name for model in list_models(TASK)]
    if str(template) in names:
        return model_path(str(template))
    known = f"; atlases by name: {', '.join(names)}" if names else ""
    raise InputError(f"{path.name} does not exist", f"check the path of the template{known}")


def require_template(path: str | Path) -> None:
    """Raise WeightsError where a file is not one volume with content at 1 mm."""
    name = Path(path).name
    try:
        volume = read_volume(path)
    except InputError as error:
        raise WeightsError(f"{name} is not an image", "fetch the file again") from error
    if volume.data.ndim != 3 or not is_working_grid(volume) or not (volume.data > 0).any():
        raise WeightsError(f"{name} is not one volume at 1 mm", "fetch the file again or use another one")
