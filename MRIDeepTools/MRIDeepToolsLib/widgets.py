"""Widgets that the modules share: progress and log, the button that runs and cancels, device and threads, disclaimer.

The looks are made in Qt Designer (`Resources/UI/`); what stands here gives them their behaviour.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer

from . import settings
from .i18n import _

__all__ = [
    "ApplyButton",
    "DeviceChoice",
    "ProgressPanel",
    "ThreadsChoice",
    "abandon",
    "ask_person",
    "coloured",
    "device_name",
    "disclaimer",
    "documentation_url",
    "duration_words",
    "level_colour",
    "progress_words",
    "resource",
    "sentence",
    "show_lines",
    "too_old",
]

OLDEST_SLICER = (5, 10)
"""Older versions have a Python for which there is no core."""
HOMEPAGE = "https://github.com/MRIDeepTools/SlicerMRIDeepTools"
_COLOURS = {"good": "#2a9d4a", "warning": "#c77700", "error": "#d13b3b", "quiet": "#808080"}
_SIGNS = {"good": "\u2713", "warning": "\u26a0", "error": "\u2715"}
_LOG_BLOCKS = 4000  # lines that the pane holds; Copy gives all that was kept


def resource(*parts: str) -> str:
    """Return the path of a file below this module's ``Resources``, in the source tree and in an installation."""
    return str(Path(__file__).resolve().parent.parent.joinpath("Resources", *parts))


def documentation_url(page: str = "slicer.md") -> str:
    """Return the address of a page of the documentation."""
    return f"{HOMEPAGE}/blob/main/Resources/docs/{page}"


def disclaimer() -> str:
    """Return the sentence that stands at the end of every panel, as rich text."""
    text = _("Research use only. Not a medical device. Look at every result yourself.")
    return f'<span style="color:{_COLOURS["quiet"]}">{html.escape(text)}</span>'


def coloured(text: str, kind: str = "") -> str:
    """Return plain text as rich text in the colour of ``good``, ``warning``, ``error`` or ``quiet``, with its sign."""
    body = html.escape(text).replace("\n", "<br>")
    if kind not in _COLOURS:
        return body
    sign = f"{_SIGNS[kind]} " if kind in _SIGNS else ""
    return f'<span style="color:{_COLOURS[kind]}">{sign}{body}</span>'


def level_colour(kind: str) -> str:
    """Return the colour of ``good``, ``warning``, ``error`` or ``quiet``, readable on light and dark grounds."""
    return _COLOURS[kind]


def sentence(text: str) -> str:
    """Return a text as a sentence: a capital letter at the beginning, a full stop at the end."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text[-1:] in ".!?" else ".") if text else ""


def show_lines(label: Any, lines: list[str], kind: str = "warning") -> None:
    """Show sentences in a label, one per line; an empty list hides the label."""
    label.text = "<br>".join(coloured(sentence(line), kind) for line in lines)
    label.visible = bool(lines)


def too_old() -> str:
    """Return why this version of Slicer is too old, in a sentence; empty when it is not."""
    version = (int(slicer.app.majorVersion), int(slicer.app.minorVersion))
    if version >= OLDEST_SLICER:
        return ""
    text = _("Slicer {wanted} or newer is needed; this is {found}.")
    return text.format(wanted="{}.{}".format(*OLDEST_SLICER), found="{}.{}".format(*version))


def abandon(job: Any) -> None:
    """Cancel a job of a panel that goes away; nobody is told any more, for the widgets will be gone."""
    job.on_progress = job.on_log = job.on_warning = job.on_result = job.on_finished = None
    job.cancel()


def ask_person(question: str, details: str = "") -> bool:
    """Ask a question with OK and Cancel. Panels keep this function in a member, so that a test can answer itself."""
    options = {"detailedText": details} if details else {}
    return bool(slicer.util.confirmOkCancelDisplay(question, _("MRI Deep Tools"), **options))


def device_name(device: str) -> str:
    """Return how a device of the core is called in sentences: ``cpu`` is CPU, ``cuda:0`` is GPU."""
    known = {"cpu": _("the CPU"), "mps": _("the GPU (mps)")}
    return known.get(device, _("the GPU ({name})").format(name=device) if device.startswith("cuda") else device)


def duration_words(seconds: float) -> str:
    """Return a duration as people say it: ``40 s``, ``3 min``, ``1 h 20 min``."""
    if seconds < 60:
        return _("{number} s").format(number=max(round(seconds / 5) * 5, 1) if seconds > 10 else max(round(seconds), 1))
    minutes = round(seconds / 60)
    if minutes < 60:
        return _("{number} min").format(number=minutes)
    return _("{hours} h {minutes} min").format(hours=minutes // 60, minutes=minutes % 60)


def progress_words(fraction: float, stage: str, eta_s: float | None) -> str:
    """Return what stands in the bar: stage, percentage, time left."""
    stages = {
        "download": _("Downloading"),
        "import": _("Importing"),
        "verify": _("Verifying"),
        "read": _("Reading the scan"),
        "prepare": _("Preparing the scan"),
        "segment": _("Labelling structures"),
        "parcels": _("Dividing the cortex"),
        "quality": _("Rating the quality"),
        "mask": _("Finding the brain"),
        "predict": _("Predicting directions"),
        "brain mask": _("Finding the brain"),
        "bias field": _("Correcting the bias field"),
        "registration": _("Registering to the template"),
        "harmonize": _("Harmonizing"),
        "translate": _("Translating"),
        "compare": _("Comparing before and after"),
        "tissues before": _("Labelling the tissues before"),
        "tissues after": _("Labelling the tissues after"),
        "clean up": _("Cleaning up"),
        "grid": _("Returning to the grid of the scan"),
        "write": _("Writing"),
        "align": _("Aligning the scans"),
        "load": _("Loading the model"),
        "super-resolve": _("Filling in between the slices"),
        "check": _("Comparing with the slices"),
    }
    words = stages.get(stage, stage[:1].upper() + stage[1:] if stage else _("Starting"))
    text = _("{stage} - {percent} %").format(stage=words, percent=round(100 * fraction))
    if eta_s is not None and fraction < 0.99:
        text = _("{progress} - {time} left").format(progress=text, time=duration_words(eta_s))
    return text


class ProgressPanel:
    """Message, progress bar, Cancel button and log of one panel.

    Parameters
    ----------
    container : widget with a layout, to which the panel is added.
    on_cancel : called when Cancel is pressed; None for no such button (Apply is the Cancel button then).

    """

    def __init__(self, container: Any, on_cancel: Callable[[], None] | None = None) -> None:
        self.widget = slicer.util.loadUI(resource("UI", "ProgressPanel.ui"))
        container.layout().addWidget(self.widget)
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self._whole_log: Callable[[], str] | None = None
        self._on_cancel = on_cancel
        self.ui.logText.maximumBlockCount = _LOG_BLOCKS
        self.ui.cancelButton.connect("clicked(bool)", self._cancel)
        self.ui.copyLogButton.connect("clicked(bool)", self.copy_log)
        self.ui.barRow.visible = False
        self.ui.cancelButton.visible = on_cancel is not None
        self.ui.logSection.visible = False
        self.say("")

    def say(self, text: str, kind: str = "") -> None:
        """Show a sentence below the button; ``kind`` as for :func:`coloured`. An empty text hides it."""
        self.say_rich(coloured(text, kind))

    def say_rich(self, text: str) -> None:
        """Show rich text below the button."""
        self.ui.messageLabel.text = text
        self.ui.messageLabel.visible = bool(text)

    def begin(self, text: str) -> None:
        """Show the bar, empty, and clear message and log of the last run."""
        self.say("")
        self._whole_log = None
        self.ui.logText.clear()
        self.ui.progressBar.value = 0
        self.ui.progressBar.format = text
        self.ui.cancelButton.enabled = True
        self.ui.barRow.visible = True

    def progress(self, fraction: float, stage: str, eta_s: float | None) -> None:
        """Show how far the work is; the signature is that of a job's callback."""
        bar = self.ui.progressBar
        bar.value = round(100 * fraction)
        bar.format = progress_words(fraction, stage, eta_s)

    def log(self, text: str) -> None:
        """Add lines to the log."""
        self.ui.logSection.visible = True
        self.ui.logText.appendPlainText(text)

    def follow(self, whole_log: Callable[[], str]) -> None:
        """Say where Copy finds the whole log, of which the pane shows the end."""
        self._whole_log = whole_log

    def end(self, text: str, kind: str = "") -> None:
        """Hide the bar and say how it ended; after a failure the log is opened."""
        self.ui.barRow.visible = False
        self.say(text, kind)
        if kind == "error" and self.ui.logSection.visible:
            self.ui.logSection.collapsed = False

    @property
    def log_text(self) -> str:
        """The log, as far as it is kept."""
        return self._whole_log() if self._whole_log is not None else self.ui.logText.plainText

    def copy_log(self) -> None:
        """Put the log on the clipboard."""
        slicer.app.clipboard().setText(self.log_text)

    def _cancel(self) -> None:
        self.ui.cancelButton.enabled = False
        if self._on_cancel is not None:
            self._on_cancel()


class ApplyButton:
    """Apply, which turns into Cancel while work runs, and says why it is disabled.

    Parameters
    ----------
    button : the push button; its text and tool tip in the .ui file are those of the idle state.
    panel : shows the reason below the button.
    on_apply, on_cancel : called for a click.

    """

    def __init__(
        self, button: Any, panel: ProgressPanel, on_apply: Callable[[], None], on_cancel: Callable[[], None]
    ) -> None:
        self._button, self._panel = button, panel
        self._on_apply, self._on_cancel = on_apply, on_cancel
        self._text, self._tip = button.text, button.toolTip
        self._running = self._told = False
        button.connect("clicked(bool)", self._clicked)

    @property
    def running(self) -> bool:
        """True while the button is a Cancel button."""
        return self._running

    def set_ready(self, reason: str = "", note: str = "") -> None:
        """Enable the button, or disable it for a reason; ``note`` says what else a click will do.

        While work runs nothing changes, and the message of the last run stays until there is something new to say.
        """
        if self._running:
            return
        self._button.enabled = not reason
        self._button.toolTip = reason or note or self._tip
        if reason or note or self._told:
            self._panel.say(reason or note, "quiet" if reason or note else "")
        self._told = bool(reason or note)

    def set_running(self, running: bool) -> None:
        """Turn into Cancel, or back into Apply."""
        self._running, self._told = running, False
        self._button.enabled = True
        self._button.text = _("Cancel") if running else self._text
        self._button.toolTip = _("Stop the work. Nothing half-made is kept.") if running else self._tip

    def _clicked(self) -> None:
        if self._running:
            self._button.enabled = False
            self._button.text = _("Cancelling...")
            self._on_cancel()
        else:
            self._on_apply()


class DeviceChoice:
    """Combo box of devices, kept in the application settings: it belongs to the computer, not to the scene."""

    def __init__(self, combo: Any) -> None:
        self._combo = combo
        self._filling = False
        self.fill([])
        combo.connect("currentIndexChanged(int)", self._changed)

    def fill(self, devices: list[dict[str, Any]]) -> None:
        """Offer the devices that the core has found; without any, automatic choice and the CPU.

        The chosen one stays in the list even where it is absent, so that an external GPU may come and go.
        """
        chosen = settings.get("device")
        entries = [("auto", _("Automatic"))]
        found = devices or [{"name": "cpu", "description": ""}]
        for device in found:
            name = str(device.get("name", ""))
            words = [_("CPU") if name == "cpu" else str(device.get("description") or name)]
            if name != "cpu" and device.get("memory_gb"):
                words.append(_("{size:.0f} GB").format(size=float(device["memory_gb"])))
            entries.append((name, ", ".join(words)))
        if chosen not in [name for name, _text in entries]:
            entries.append((chosen, _("{device} (not found)").format(device=chosen)))
        self._filling = True
        self._combo.clear()
        for name, text in entries:
            self._combo.addItem(text, name)
        self._combo.setCurrentIndex([name for name, _text in entries].index(chosen))
        self._filling = False

    def refresh(self) -> None:
        """Take over a choice that was made in another panel."""
        index = self._combo.findData(settings.get("device"))
        if index >= 0 and index != self._combo.currentIndex:
            self._combo.setCurrentIndex(index)

    def _changed(self) -> None:
        if not self._filling and self._combo.currentIndex >= 0:
            settings.set_value("device", self._combo.itemData(self._combo.currentIndex))


class ThreadsChoice:
    """Spin box of CPU threads, kept in the application settings; 0 is automatic."""

    def __init__(self, spin_box: Any) -> None:
        self._spin_box = spin_box
        self.refresh()
        spin_box.connect("valueChanged(int)", self._changed)

    def refresh(self) -> None:
        """Take over a choice that was made in another panel."""
        self._spin_box.value = settings.get("threads")

    def _changed(self) -> None:
        settings.set_value("threads", self._spin_box.value)
