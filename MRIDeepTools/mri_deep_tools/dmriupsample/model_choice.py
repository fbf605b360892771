"""Which network serves a scan: by name, by a weights file, or by shell and number of measured directions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RequestError, WeightsError
from .shells import published_shell

__all__ = ["TASK", "Choice", "choose_model"]

TASK = "upsample-dmri"


@dataclass(frozen=True)
class Choice:
    """A network to use: its name, its weights (see :func:`.weights.load_network`), how many directions it reads.

    ``directions`` is None where the weights do not say; ``percentile`` says that it was trained on data scaled by
    their 99th percentile.
    """

    model: str
    path: Path
    directions: int | None
    percentile: bool = False
    note: str = ""


def choose_model(
    shell: float,
    measured: int,
    *,
    model: str | None = None,
    weights: str | Path | None = None,
    dims: int | None = None,
    combined: bool = False,
    percentile: bool = False,
    all_directions: bool = False,
) -> Choice:
    """Return the network for a shell with ``measured`` directions.

    Of those on this machine the one that reads the most directions is taken; a named model or weights file wins.

    Parameters
    ----------
    shell, measured :
        b-value, and number of measured directions.
    model, weights :
        A name of the model list, or a file or folder.
    dims :
        1 or 3; None: 3, or 1 where only that is on this machine.
    combined :
        The model trained on three shells together; with ``percentile`` the one scaled by percentiles.
    all_directions :
        Only a model that reads exactly ``measured`` directions will do (the published program's rule).

    Raises
    ------
    RequestError : contradictions, too few directions, no model for this shell.
    WeightsError : the model is not on this machine.

    """
    if model is not None and weights is not None:
        raise RequestError("a model and a weights file were both given", "give one of them")
    if weights is not None:
        return _own(Path(weights), percentile)
    known = _known()
    if model is not None:
        if model not in known:
            raise RequestError(f"there is no diffusion model called {model}", f"choose one of {', '.join(known)}")
        return _installed(model, known[model])
    fitting = _fitting(known, shell, measured, dims, combined, percentile, all_directions)
    present = [name for name in fitting if _status(name) != "absent"]
    if present:
        name = present[0]
        note = "" if name == fitting[0] or not known[name]["bundled"] else _lite_note(name, fitting[0])
        choice = _installed(name, known[name])
        return Choice(choice.model, choice.path, choice.directions, choice.percentile, note)
    return _installed(fitting[0], known[fitting[0]])  # raises, and says how to get it


def _fitting(
    known: dict[str, dict[str, Any]],
    shell: float,
    measured: int,
    dims: int | None,
    combined: bool,
    percentile: bool,
    all_directions: bool,
) -> list[str]:
    """Return the names of the models that would do, the best first."""
    wanted_shell = "all" if combined else published_shell(shell)
    of_shell = {
        name: needs
        for name, needs in known.items()
        if needs["shell"] == wanted_shell and (not combined or bool(needs.get("percentile")) == percentile)
    }
    right = {name: needs for name, needs in of_shell.items() if dims in (None, needs["kernel_dims"])}
    if not right:
        raise RequestError(f"there is no {dims}D model for this shell", "use --model-dim 3" if combined else "")
    sizes = sorted({needs["directions"] for needs in right.values()})
    good = [size for size in sizes if (size == measured if all_directions else size <= measured)]
    if not good:
        raise RequestError(
            f"{measured} directions were measured at b = {shell:g}; models read {', '.join(map(str, sizes))}",
            "use --method sh" if not all_directions else "give as many volumes as a model reads, or drop --compatible",
        )
    names = [name for name in right if right[name]["directions"] in good]
    return sorted(names, key=lambda n: (-right[n]["directions"], right[n]["bundled"], -right[n]["kernel_dims"]))


def _known() -> dict[str, dict[str, Any]]:
    from ..models import list_models

    return {model.name: {**model.input_needs, "bundled": model.bundled} for model in list_models(TASK)}


def _status(name: str) -> str:
    from ..models import model_status

    return model_status(name)


def _installed(name: str, needs: dict[str, Any]) -> Choice:
    from ..models import get_model, model_path

    paths = [model_path(name, file.name) for file in get_model(name).files]
    return Choice(name, paths[0], int(needs["directions"]), bool(needs.get("percentile")))


def _lite_note(name: str, published: str) -> str:
    return (
        f"{published} is not installed, so the small bundled model {name} is used; "
        f"get the published one with 'mri-deep-tools models download {published}'"
    )


def _own(path: Path, percentile: bool) -> Choice:
    """Describe weights of the user: a published folder says in its name how many directions the network reads."""
    if not path.exists() and not path.with_name(f"{path.name}.index").exists():
        raise WeightsError(f"weights {path.name} do not exist", "name a checkpoint's folder or .index, or .safetensors")
    folder = path if path.is_dir() else path.parent
    config = folder / "config.json"
    if config.is_file() and (path.is_dir() or path.suffix == ".safetensors"):
        try:
            facts = json.loads(config.read_text(encoding="utf-8"))
            return Choice(path.name, path, int(facts["directions"]), bool(facts.get("percentile", percentile)))
        except (ValueError, KeyError, TypeError):
            raise WeightsError(f"{config.name} beside the weights cannot be read", "remove or correct it") from None
    match = re.fullmatch(r".*_(\d+)in", folder.name)
    return Choice(path.name, path, int(match[1]) if match else None, percentile)
