"""The section of the home module for many scans: the command ``mri-deep-tools batch`` with a table of states."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt

from . import settings, setup_core
from .batch_scans import TABLE, images_in, read_states, studies, volumes_of, write_images, write_table
from .errors import GlueError
from .i18n import _
from .jobs import CoreJob
from .widgets import ProgressPanel, abandon, duration_words, level_colour

__all__ = ["SOURCES", "TASKS", "BatchPanel"]

TASKS = {
    "segment": "--fast --volumes",
    "harmonize": "--change --report",
    "superresolve": "--report",
    "translate": "--to T2w",
    "upsample-dmri": "--directions 60",
    "predict": "--model NAME",
}
"""Commands that one scan each is enough for, and an example of their options."""
NEEDED = {"translate": ("--to",), "upsample-dmri": ("--directions", "--target-")}
"""Beginnings of options of which a command needs one."""
SOURCES = ("folder", "bids", "scene")
COLUMNS = ("subject", "state", "time", "message")
OVERVIEW = "batch.html"


class BatchPanel:
    """Behaviour of the section.

    Parameters
    ----------
    ui : child widgets of ``MRIDeepTools.ui``.
    on_changed : called when a batch begins or ends.

    """

    def __init__(self, ui: Any, on_changed: Callable[[], None] = lambda: None) -> None:
        self.ui, self._on_changed = ui, on_changed
        self.job: CoreJob | None = None
        self.open_page = open_page
        self._rows: dict[str, int] = {}
        self._items: list[int] = []
        self.progress = ProgressPanel(ui.batchProgressContainer, self.cancel)
        for name, text in zip(TASKS, _task_words()):  # noqa: B905 - Python 3.9
            ui.batchTaskComboBox.addItem(text, name)
        for name, text in zip(  # noqa: B905 - Python 3.9
            SOURCES, (_("Images of a folder"), _("A BIDS data set"), _("Volumes of this scene"))
        ):
            ui.batchSourceComboBox.addItem(text, name)
        ui.batchInputPathLineEdit.currentPath = settings.get("batchInput")
        ui.batchOutputPathLineEdit.currentPath = settings.get("batchOutput")
        self._connect()
        self.update()

    def _connect(self) -> None:
        ui = self.ui
        ui.batchCollapsibleButton.connect("contentsCollapsed(bool)", self.update)
        ui.batchTaskComboBox.connect("currentIndexChanged(int)", self.update)
        ui.batchSourceComboBox.connect("currentIndexChanged(int)", self.update)
        ui.batchOptionsLineEdit.connect("textChanged(QString)", self.update)
        ui.batchInputPathLineEdit.connect("currentPathChanged(QString)", self.update)
        ui.batchOutputPathLineEdit.connect("currentPathChanged(QString)", self._output_chosen)
        ui.batchStartButton.connect("clicked(bool)", lambda: self.start())
        ui.batchResumeButton.connect("clicked(bool)", lambda: self.start(resume=True))
        ui.batchOverviewButton.connect("clicked(bool)", self.show_overview)

    # ------------------------------------------------------------------------------------------------ following state

    @property
    def task(self) -> str:
        """One of :data:`TASKS`."""
        return list(TASKS)[max(self.ui.batchTaskComboBox.currentIndex, 0)]

    @property
    def source(self) -> str:
        """One of :data:`SOURCES`."""
        return SOURCES[max(self.ui.batchSourceComboBox.currentIndex, 0)]

    @property
    def output(self) -> Path | None:
        """Folder of the results; None when none is chosen."""
        text = self.ui.batchOutputPathLineEdit.currentPath.strip()
        return Path(text) if text else None

    def update(self, *_args: Any) -> None:
        """Bring everything in line with what is chosen and what lies in the folder of the results."""
        ui, source, output = self.ui, self.source, self.output
        if not ui.batchCollapsibleButton.collapsed:
            ui.batchInputPathLineEdit.visible = ui.batchInputLabel.visible = source != "scene"
            ui.batchStudyComboBox.visible = ui.batchStudyLabel.visible = source == "scene"
            if source == "scene":
                self._fill_studies()
        ui.batchOptionsLineEdit.placeholderText = _("for example {options}").format(options=TASKS[self.task])
        begun = output is not None and (output / ".batch").is_dir()
        reason = self._why_not()
        idle = self.job is None
        ui.batchStartButton.enabled = idle and not reason and not begun
        ui.batchStartButton.toolTip = reason or (
            _("The folder of the results holds a batch. Continue it, or choose another folder.")
            if begun
            else _("Start.")
        )
        ui.batchResumeButton.enabled = idle and begun and not reason
        ui.batchOverviewButton.enabled = output is not None and (output / OVERVIEW).is_file()
        for control in (ui.batchTaskComboBox, ui.batchSourceComboBox, ui.batchOutputPathLineEdit):
            control.enabled = idle

    def _why_not(self) -> str:
        """Return why no batch can be started; empty when one can."""
        if not setup_core.state().ready:
            return _("Set up first.")
        if self.output is None:
            return _("Choose a folder for the results.")
        reason = _lacking(self.task, self.ui.batchOptionsLineEdit.text)
        if reason:
            return reason
        if self.source == "scene" and self.task == "upsample-dmri":
            return _("Diffusion scans need the files of their directions: choose a folder or a BIDS data set.")
        if self.source == "scene":
            return "" if self._items else _("The scene holds no volumes.")
        text = self.ui.batchInputPathLineEdit.currentPath.strip()
        if not text or not Path(text).is_dir():
            return _("Choose the folder of the scans.")
        same = Path(text).resolve() == self.output.resolve()
        return _("The results need a folder of their own.") if same else ""

    def _fill_studies(self) -> None:
        box, found = self.ui.batchStudyComboBox, studies()
        if [item for item, _name, _count in found] == self._items:
            return
        box.clear()
        self._items = [item for item, _name, _count in found]
        for _item, name, count in found:
            box.addItem(_("{name} ({count})").format(name=name, count=count))

    def _output_chosen(self, path: str) -> None:
        settings.set_value("batchOutput", path)
        if self.job is None:
            self._show_rows(read_states(self.output) if self.output is not None else [])
        self.update()

    # -------------------------------------------------------------------------------------------------------- running

    def start(self, *, resume: bool = False) -> None:
        """Start the batch that is described, or continue the one in the folder of the results."""
        output = self.output
        if self.job is not None or output is None or self._why_not():
            self.update()
            return
        settings.set_value("batchInput", self.ui.batchInputPathLineEdit.currentPath)
        try:
            words = self._words(output, resume=resume)
            self.job = CoreJob(
                words,
                on_progress=self.progress.progress,
                on_log=self.progress.log,
                on_subject=self._subject_done,
                on_finished=self._finished,
            )
            self.progress.begin(_("Starting"))
            self.job.start()
        except (GlueError, OSError) as error:
            self.job = None
            self.progress.end(str(error), "error")
            self.update()
            return
        job = self.job
        self.progress.follow(lambda: job.log)
        self.update()
        self._on_changed()

    def _words(self, output: Path, *, resume: bool) -> list[Any]:
        """Write what the batch works on and return the words of the command."""
        try:
            more = shlex.split(self.ui.batchOptionsLineEdit.text)
        except ValueError:
            raise GlueError(_("The further options cannot be read: a quotation mark is open.")) from None
        if self.source == "bids":
            given = ["--bids", Path(self.ui.batchInputPathLineEdit.currentPath)]
        else:
            if not (resume and (output / TABLE).is_file()):
                names = write_table(self._images(output), output)
                self._show_rows([{"id": name, "state": "not yet"} for name in names])
            given = ["--table", output / TABLE]
        words = ["batch", self.task, *given, output, *more, *settings.job_options()]
        return [*words, *(["--resume"] if resume else [])]

    def _images(self, output: Path) -> Sequence[Path]:
        if self.source == "folder":
            return images_in(Path(self.ui.batchInputPathLineEdit.currentPath))
        item = self._items[max(self.ui.batchStudyComboBox.currentIndex, 0)]
        volumes = volumes_of(item)
        if not volumes:
            raise GlueError(_("This part of the scene holds no volumes any more."))
        return write_images(volumes, output / "scans")

    def cancel(self) -> None:
        """Cancel; what is finished stays, and the batch can be continued."""
        if self.job is not None:
            self.job.cancel()

    def _subject_done(self, subject: dict[str, Any]) -> None:
        self._show_row({name: subject.get(name) for name in ("id", "state", "seconds", "message")})

    def _finished(self, outcome: Any) -> None:
        self.job = None
        output = self.output
        rows = read_states(output) if output is not None else []
        if rows:
            self._show_rows(rows)
        kind = {"done": "good", "cancelled": ""}.get(outcome.status, "error")
        told = _("All scans are done.") if outcome.ok else _in_the_panel(outcome.sentence)
        if outcome.status == "cancelled":
            told = _("Cancelled. What is finished stays; Continue goes on.")
        self.progress.end(told, kind)
        self.update()
        self._on_changed()

    def close(self) -> None:
        """End what runs; the panel is going away."""
        if self.job is not None:
            abandon(self.job)
            self.job = None

    # -------------------------------------------------------------------------------------------------------- results

    def _show_rows(self, rows: Sequence[dict[str, Any]]) -> None:
        self.ui.batchTable.setRowCount(0)
        self._rows = {}
        for row in rows:
            self._show_row(row)
        self.ui.batchTable.resizeColumnsToContents()

    def _show_row(self, row: dict[str, Any]) -> None:
        """Show the state of a subject, in its row or a new one."""
        table, name = self.ui.batchTable, str(row["id"])
        number = self._rows.setdefault(name, len(self._rows))
        if number >= table.rowCount:
            table.setRowCount(number + 1)
        state = str(row.get("state") or "")
        try:
            seconds = duration_words(float(row.get("seconds") or 0)) if state in ("done", "failed") else ""
        except ValueError:
            seconds = ""
        words = {"done": _("done"), "failed": _("failed"), "not yet": _("waiting")}
        for column, text in enumerate((name, words.get(state, state), seconds, str(row.get("message") or ""))):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(text)
            if column == 1 and state in ("done", "failed"):
                item.setForeground(qt.QBrush(qt.QColor(level_colour("good" if state == "done" else "error"))))
            table.setItem(number, column, item)

    def show_overview(self) -> None:
        """Open the page of all scans in the browser."""
        if self.output is not None and (self.output / OVERVIEW).is_file():
            self.open_page(self.output / OVERVIEW)


def _task_words() -> tuple[str, ...]:
    """Return the names of the tasks, in their order."""
    return (
        _("Segment"),
        _("Harmonize"),
        _("Super-resolve"),
        _("Translate into another contrast"),
        _("Add diffusion directions"),
        _("Predict age or diagnosis"),
    )


def _lacking(task: str, options: str) -> str:
    """Return what the further options must name; empty when nothing is missing."""
    if task not in NEEDED or any(word in options for word in NEEDED[task]):
        return ""
    if task == "translate":
        return _("Name the contrast to make under Options: {example}.").format(example=TASKS[task])
    return _("Say under Options how many directions you want: {example}.").format(example=TASKS[task])


def _in_the_panel(sentence: str) -> str:
    """Return a sentence of the core with the controls of the panel in place of files and options."""
    for said, meant in (
        ("Why is in batch.csv", _("The column Message says why")),
        ("--resume", _("Continue")),
        ("--overwrite", _("an empty folder")),
    ):
        sentence = sentence.replace(said, meant)
    return sentence[:1].upper() + sentence[1:]


def open_page(path: Path) -> None:
    """Show a page of this computer in the browser."""
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path)))
