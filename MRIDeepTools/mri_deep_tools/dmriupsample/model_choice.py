"""Which network serves a scan: by name, by a weights file, or by shell and number of measured directions."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError, WeightsError
from .facts import Facts, read_facts
from .shells import published_shell

if TYPE_CHECKING:
    from ..models import Model, ModelFile

__all__ = ["TASK", "Choice", "choose_model"]

TASK = "upsample-dmri"
_PUBLISHED_SPACING_MM = 1.25
_PUBLISHED_FOLDER = re.compile(r"(b(?P<shell>\d+)|all(?P<norm>_norm)?)_(?P<count>\d+)in")


@dataclass(frozen=True)
class Choice:
    """A network to use: its name, its weights (see :func:`.weights.load_network`), how many directions it reads.

    ``directions`` is None where the weights do not say. ``facts`` are what it was trained for, None where nothing is
    known. ``percentile`` says that it was trained on data scaled by their 99th percentile. ``note`` is for a person.
    """

    model: str
    path: Path
    directions: int | None
    percentile: bool = False
    facts: Facts | None = None
    note: str = ""


@dataclass(frozen=True)
class _Candidate:
    """One weights file of a model of the list."""

    model: Model
    file: str
    facts: Facts
    dims: int

    @property
    def name(self) -> str:
        return self.model.name

    def count(self, measured: int, exactly: bool) -> int | None:
        """Return how many of the measured directions it would read; None where it cannot be used."""
        good = [n for n in self.facts.directions if (n == measured if exactly else n <= measured)]
        return max(good, default=None)

    def choice(self, measured: int, exactly: bool, note: str = "") -> Choice:
        """Return the choice of this file; raises WeightsError where it is not on this machine."""
        from ..models import model_path

        paths = [model_path(self.name, file.name) for file in self._needed()]
        count = self.count(measured, exactly) or min(self.facts.directions)
        return Choice(self.name, paths[0], count, self.facts.percentile, self.facts, note)

    def _needed(self) -> list[ModelFile]:
        first = self.model.file(self.file)
        return [first] if first.name.endswith(".safetensors") else list(self.model.files)


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
        return _own(Path(weights), measured, percentile)
    known = _known()
    if model is not None:
        return _named(model, known, measured, all_directions)
    fitting = _fitting(known, shell, measured, dims, combined, percentile, all_directions)
    present = [one for one in fitting if _is_here(one)]
    if not present:
        try:
            return fitting[0].choice(measured, all_directions)  # raises, and says how to get it
        except WeightsError as error:
            raise WeightsError(error.message, f"{error.hint}; or use --method sh, which needs no weights") from None
    best, used = fitting[0], present[0]
    note = _lite_note(used.name, best.name) if used.model.bundled and not best.model.bundled else ""
    return used.choice(measured, all_directions, note)


def _named(name: str, known: list[_Candidate], measured: int, exactly: bool) -> Choice:
    own = [one for one in known if one.name == name]
    if not own:
        listed = ", ".join(dict.fromkeys(one.name for one in known))
        raise RequestError(f"there is no diffusion model called {name}", f"choose one of {listed}")
    return max(own, key=lambda one: one.count(measured, exactly) or 0).choice(measured, exactly)


def _fitting(
    known: list[_Candidate],
    shell: float,
    measured: int,
    dims: int | None,
    combined: bool,
    percentile: bool,
    all_directions: bool,
) -> list[_Candidate]:
    """Return the files that would do, the best first: most directions, published before bundled, 3D before 1D."""
    wanted = None if combined else published_shell(shell)
    of_shell = [
        one
        for one in known
        if one.facts.shell == wanted and (not combined or one.facts.percentile == percentile or one.model.bundled)
    ]
    right = [one for one in of_shell if dims in (None, one.dims)]
    if not right:
        raise RequestError(f"there is no {dims}D model for this shell", "use --model-dim 3" if combined else "")
    good = [one for one in right if one.count(measured, all_directions) is not None]
    if not good:
        sizes = ", ".join(map(str, sorted({n for one in right for n in one.facts.directions})))
        raise RequestError(
            f"{measured} directions were measured at b = {shell:g}; models read {sizes}",
            "use --method sh" if not all_directions else "give as many volumes as a model reads, or drop --compatible",
        )
    return sorted(good, key=lambda one: (-(one.count(measured, all_directions) or 0), one.model.bundled, -one.dims))


def _known() -> list[_Candidate]:
    from ..models import list_models

    return [one for model in list_models(TASK) for one in _candidates(model)]


def _candidates(model: Model) -> list[_Candidate]:
    """Return the weights files of a model: what the list says of it, or each file's own facts where it has them."""
    from ..models import model_path

    if not model.bundled:
        needs = model.input_needs
        directions = needs.get("directions", ())
        counts = tuple(int(n) for n in (directions if isinstance(directions, (list, tuple)) else [directions]))
        shell = needs.get("shell")
        facts = Facts(counts, shell if isinstance(shell, int) else None, bool(needs.get("percentile")))
        facts = replace(facts, spacing_mm=_PUBLISHED_SPACING_MM)
        return [_Candidate(model, model.files[0].name, facts, int(needs.get("kernel_dims", 3)))] if counts else []
    found = []
    for file in model.files:
        if file.name.endswith(".safetensors"):
            try:
                facts_here = read_facts(model_path(model.name, file.name))
            except WeightsError:
                continue  # a release without this file
            if facts_here is not None:
                found.append(_Candidate(model, file.name, facts_here, int(model.input_needs.get("kernel_dims", 1))))
    return found


def _is_here(one: _Candidate) -> bool:
    from ..models import model_status

    return model_status(one.model) != "absent"


def _lite_note(name: str, published: str) -> str:
    return (
        f"{published} is not installed, so the small bundled model {name} is used; "
        f"get the published one with 'mri-deep-tools models download {published}'"
    )


def _own(path: Path, measured: int, percentile: bool) -> Choice:
    """Describe weights of the user: our own say what they were trained for, a published folder has it in its name."""
    if not path.exists() and not path.with_name(f"{path.name}.index").exists():
        raise WeightsError(f"weights {path.name} do not exist", "name a checkpoint's folder or .index, or .safetensors")
    file = path / "model.safetensors" if path.is_dir() and (path / "model.safetensors").is_file() else path
    if file.suffix.lower() == ".safetensors":
        facts = read_facts(file)
        if facts is None:
            return Choice(path.name, path, None, percentile)
        count = max((n for n in facts.directions if n <= measured), default=min(facts.directions))
        return Choice(path.name, path, count, percentile or facts.percentile, facts)
    folder = path if path.is_dir() else path.parent
    match = _PUBLISHED_FOLDER.fullmatch(folder.name)
    if match is None:
        return Choice(path.name, path, None, percentile)
    shell = int(match["shell"]) if match["shell"] else None
    facts = Facts((int(match["count"]),), shell, bool(match["norm"]), _PUBLISHED_SPACING_MM, "HCP")
    return Choice(path.name, path, facts.directions[0], percentile or facts.percentile, facts)
