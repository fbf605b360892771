"""No dialog may block a test: each is written down and answered by policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PySide6 import QtWidgets

_ACCEPT = ("Ok", "Yes", "YesToAll", "Retry", "Open", "Save", "Apply", "Discard", "Ignore", "Close")
_REJECT = ("Cancel", "No", "NoToAll", "Close", "Abort", "Ok")


@dataclass
class Dialog:
    """One dialog that a person would have seen."""

    kind: str
    title: str
    text: str
    details: str = ""


class Recorder:
    """The dialogs of a test and the answers to the next ones."""

    def __init__(self) -> None:
        self.shown: list[Dialog] = []
        self._policy: Any = True
        self._once: list[Any] = []

    def answer(self, value: Any, *then: Any) -> None:
        """Set how dialogs are answered: True accepts, False rejects, a text is the file, the input or the button.

        With several values the first dialogs get them in order, and the last value stays the policy.
        """
        values = [value, *then]
        self._once, self._policy = values[:-1], values[-1]

    def clear(self) -> None:
        """Forget the dialogs and go back to accepting."""
        self.shown.clear()
        self._once.clear()
        self._policy = True

    def ask(self, kind: str, title: str, text: str, details: str = "", default: Any = None) -> Any:
        """Write a dialog down; return the answer, where True and False become *default* if one is given."""
        self.shown.append(Dialog(kind, title, text, details))
        answer = self._once.pop(0) if self._once else self._policy
        return default if isinstance(answer, bool) and default is not None else answer


recorder = Recorder()


def install() -> None:
    """Replace everything of Qt that opens a modal window."""
    for cls in (QtWidgets.QDialog, QtWidgets.QFileDialog, QtWidgets.QInputDialog, QtWidgets.QProgressDialog):
        cls.exec = cls.exec_ = _exec_dialog
    QtWidgets.QMessageBox.exec = QtWidgets.QMessageBox.exec_ = _exec_message
    QtWidgets.QMenu.exec = QtWidgets.QMenu.exec_ = _exec_menu
    for name in ("information", "warning", "critical", "question", "about"):
        setattr(QtWidgets.QMessageBox, name, staticmethod(_static_message(name)))
    for name in ("getOpenFileName", "getSaveFileName", "getExistingDirectory"):
        setattr(QtWidgets.QFileDialog, name, staticmethod(_static_file(name)))
    QtWidgets.QFileDialog.getOpenFileNames = staticmethod(
        lambda *arguments, **_: [p for p in [_static_file("getOpenFileNames")(*arguments)] if p]
    )
    for name, default in (
        ("getText", ""),
        ("getMultiLineText", ""),
        ("getItem", ""),
        ("getInt", 0),
        ("getDouble", 0.0),
    ):
        setattr(QtWidgets.QInputDialog, name, staticmethod(_static_input(name, default)))


def _labels(dialog: QtWidgets.QDialog) -> str:
    return "\n".join(child.text for child in dialog.findChildren(QtWidgets.QLabel))


def _exec_dialog(self: QtWidgets.QDialog) -> int:
    accepted = recorder.ask(type(self).__name__, self.windowTitle, _labels(self))
    self.show()
    (self.accept if accepted else self.reject)()
    return int(bool(accepted))


def _exec_message(self: QtWidgets.QMessageBox) -> int:
    answer = recorder.ask(type(self).__name__, self.windowTitle.strip(), self.text, self.detailedText)
    button = _button(self, answer)
    self.show()
    if button is None:
        self.done(0)
        return 0
    code = self.standardButton(button)
    button.click()
    self.hide()
    return int(code) or self.buttons().index(button)


def _button(box: QtWidgets.QMessageBox, answer: Any) -> Any:
    """Choose the button that an answer means: by its text, else the first that accepts or rejects."""
    buttons = box.buttons()
    if not buttons:
        box.setStandardButtons(QtWidgets.QMessageBox.Ok)
        buttons = box.buttons()
    if isinstance(answer, str):
        plain = [b for b in buttons if b.text.replace("&", "") == answer.replace("&", "")]
        if not plain:
            raise AssertionError(f"no button '{answer}' among {[b.text for b in buttons]}")
        return plain[0]
    for name in _ACCEPT if answer else _REJECT:
        button = box.button(getattr(QtWidgets.QMessageBox, name))
        if button is not None:
            return button
    role = QtWidgets.QMessageBox
    wanted = (role.AcceptRole, role.YesRole) if answer else (role.RejectRole, role.NoRole)
    return next((b for b in buttons if box.buttonRole(b) in wanted), buttons[0] if answer else buttons[-1])


def _exec_menu(self: QtWidgets.QMenu, *_: Any) -> Any:
    answer = recorder.ask("QMenu", self.title, "\n".join(a.text for a in self.actions()))
    chosen = next((a for a in self.actions() if isinstance(answer, str) and a.text == answer), None)
    if chosen is not None:
        chosen.trigger()
    return chosen


def _static_message(name: str) -> Any:
    def show(parent: Any, title: str, text: str, buttons: Any = None, *_: Any) -> Any:
        box = QtWidgets.QMessageBox()
        box.windowTitle, box.text = title, text
        box.setStandardButtons(buttons if buttons is not None else _default_buttons(name))
        return QtWidgets.QMessageBox.StandardButton(_exec_message(box))

    return show


def _default_buttons(name: str) -> Any:
    box = QtWidgets.QMessageBox
    return box.Yes | box.No if name == "question" else box.Ok


def _static_file(name: str) -> Any:
    def choose(*arguments: Any, **_: Any) -> str:
        title = arguments[1] if len(arguments) > 1 else ""
        return str(recorder.ask(f"QFileDialog.{name}", title, "", default=""))

    return choose


def _static_input(name: str, default: Any) -> Any:
    def choose(parent: Any = None, title: str = "", label: str = "", *_: Any) -> Any:
        return recorder.ask(f"QInputDialog.{name}", title, label, default=default)

    return choose
