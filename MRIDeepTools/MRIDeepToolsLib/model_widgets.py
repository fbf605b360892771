"""Widgets that show models: what each is, whether it is here, its licence and citation; choice, list, and download."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import qt

from .i18n import _
from .widgets import coloured, level_colour

__all__ = ["OWN_WEIGHTS", "ModelChoice", "ModelTable", "about_model", "download_question", "status_words"]

OWN_WEIGHTS = "own"
"""Stands for weights of the person's own in place of the name of a model."""

Model = Mapping[str, Any]

_YEAR = re.compile(r"\((\d{4})\)")
_DOI = re.compile(r"doi:(10\.\S+?)(?=[;,)\s]|$)")


def status_words(model: Model) -> str:
    """Return whether a model is on this computer, in words."""
    words = {"bundled": _("comes along"), "installed": _("installed"), "absent": _("to download")}
    if model["status"] == "absent" and not can_download(model):
        return _("not available") if model.get("bundled") else _("to fetch by hand")
    return words.get(model["status"], model["status"])


def can_download(model: Model) -> bool:
    """Return True when the model is absent and can be fetched."""
    known = all(file.get("sources") for file in model.get("files") or [])
    return model["status"] == "absent" and not model.get("bundled") and known


def about_model(model: Model, *, short: bool = False) -> str:
    """Return description, state, needs, licence and citations of a model as rich text with links.

    ``short`` names papers by author and year alone.
    """
    kind = "good" if model["status"] != "absent" else "warning"
    state = f"{status_words(model)}, {model['size_text']}" if model.get("size") else status_words(model)
    lines = [f"{html.escape(model['description'])}.", f"<b>{_('State')}:</b> {coloured(state, kind)}"]
    needs = model.get("input_needs") or {}
    wanted = [str(needs[key]).partition(";")[0] for key in ("contrast", "field_of_view") if needs.get(key)]
    if wanted and not short:
        lines.append(f"<b>{_('Input')}:</b> {html.escape('; '.join(wanted))}")
    lines.append(f"<b>{_('Licence')}:</b> {html.escape(str(model['licence']))}")
    if model.get("citation"):
        cited = "; ".join(_linked(text, short=short) for text in model["citation"])
        lines.append(f"<b>{_('Please cite')}:</b> {cited}")
    return "<br>".join(lines)


def download_question(models: Sequence[Model]) -> str:
    """Return the question before a download: which models, how large, under which licence, whom to cite."""
    parts = [_("These models are not on this computer. Download them from their authors now?")]
    for model in models:
        text = _("{name} ({size})\nLicence: {licence}\nPlease cite: {citation}")
        citation = "; ".join(model.get("citation") or [])
        fields = {"name": model["name"], "size": model["size_text"], "licence": model["licence"], "citation": citation}
        parts.append(text.format(**fields))
    return "\n\n".join(parts)


class ModelChoice:
    """Combo box of the models for one task, with what is known of the chosen one below it.

    Parameters
    ----------
    combo, about : combo box and label.
    task : of the models that are offered.
    hidden : names of models that are chosen by other controls.
    on_changed : called with the name ("" for the best one, OWN_WEIGHTS) when the person chooses.
    nothing : text of the entry "" where no model is taken by itself.

    """

    def __init__(
        self,
        combo: Any,
        about: Any,
        task: str,
        on_changed: Callable[[str], None],
        hidden: Sequence[str] = (),
        nothing: str = "",
    ) -> None:
        self._first = nothing or _("Best on this computer")
        self._combo, self._about, self._task, self._hidden = combo, about, task, tuple(hidden)
        self._on_changed = on_changed
        self._models: list[Model] = []
        self._filling = False
        self._fill("")
        combo.connect("currentIndexChanged(int)", self._changed)

    def set_models(self, models: Sequence[Model]) -> None:
        """Offer models; the chosen one stays chosen."""
        chosen = self.chosen
        self._models = [model for model in models if model["task"] == self._task and model["name"] not in self._hidden]
        self._fill(chosen)

    @property
    def chosen(self) -> str:
        """Name of the chosen model, "" for the best one, or OWN_WEIGHTS."""
        data = self._combo.itemData(self._combo.currentIndex) if self._combo.currentIndex >= 0 else ""
        return data or ""

    def choose(self, name: str) -> None:
        """Choose a model; one that is not known here is added, so that nothing is changed silently."""
        if name != self.chosen:
            self._fill(name)

    def _fill(self, chosen: str) -> None:
        entries = [("", self._first)]
        entries += [(model["name"], f"{model['name']} ({status_words(model)})") for model in self._models]
        entries.append((OWN_WEIGHTS, _("Weights of your own...")))
        if chosen not in [name for name, _text in entries]:
            entries.insert(1, (chosen, chosen))
        self._filling = True
        self._combo.clear()
        for name, text in entries:
            self._combo.addItem(text, name)
        self._combo.setCurrentIndex([name for name, _text in entries].index(chosen))
        self._filling = False
        self.show_about()

    def _changed(self) -> None:
        if not self._filling:
            self.show_about()
            self._on_changed(self.chosen)

    def show_about(self) -> None:
        """Show what is known of the chosen model, or hide the label."""
        model = next((model for model in self._models if model["name"] == self.chosen), None)
        self._about.text = "" if model is None else about_model(model, short=True)
        self._about.visible = model is not None


class ModelTable:
    """Table of all models; the chosen row is described below it.

    Parameters
    ----------
    table, about : table widget with the columns model, task, state, size; label.
    on_changed : called when another row is chosen.

    """

    def __init__(self, table: Any, about: Any, on_changed: Callable[[], None]) -> None:
        self._table, self._about, self._on_changed = table, about, on_changed
        self._models: list[Model] = []
        table.connect("itemSelectionChanged()", self._changed)
        self._tell()

    def set_models(self, models: Sequence[Model]) -> None:
        """Show models; the chosen row stays chosen."""
        chosen = self.chosen["name"] if self.chosen else None
        self._models = list(models)
        self._table.setRowCount(len(self._models))
        for row, model in enumerate(self._models):
            size = model["size_text"] if model.get("size") else ""
            for column, text in enumerate((model["name"], _task_words(model["task"]), status_words(model), size)):
                item = qt.QTableWidgetItem(text)
                if column == 2 and model["status"] != "absent":
                    item.setForeground(qt.QBrush(qt.QColor(level_colour("good"))))
                self._table.setItem(row, column, item)
        self._table.resizeColumnsToContents()
        names = [model["name"] for model in self._models]
        if chosen in names:
            self._table.selectRow(names.index(chosen))
        self._tell()

    @property
    def chosen(self) -> Model | None:
        """The chosen model, None when no row is."""
        row = self._table.currentRow()
        return self._models[row] if 0 <= row < len(self._models) else None

    def _changed(self) -> None:
        self._tell()
        self._on_changed()

    def _tell(self) -> None:
        self._about.text = about_model(self.chosen) if self.chosen else ""
        self._about.visible = self.chosen is not None


def _task_words(task: str) -> str:
    words = {
        "segment": _("segmentation"),
        "parcellate": _("parcels"),
        "quality": _("quality"),
        "harmonize": _("harmonization"),
        "predict": _("prediction"),
        "translate": _("translation"),
        "superresolve": _("super-resolution"),
        "template": _("template"),
        "upsample-dmri": _("more directions"),
    }
    return words.get(task, task)


def _linked(text: str, *, short: bool) -> str:
    """Return a citation as rich text, its DOI being a link; short: ``Billot et al. 2023``, being the link."""
    doi, year = _DOI.search(text), _YEAR.search(text)
    if short and doi and year:
        return f'<a href="https://doi.org/{doi[1]}">{html.escape(text.partition(",")[0])} {year[1]}</a>'
    return _DOI.sub(lambda match: f'<a href="https://doi.org/{match[1]}">doi:{match[1]}</a>', html.escape(text))
