"""One command of the core on nodes of the scene: files go out, the results come in together or not at all.

A module derives from :class:`SceneRun` and says what the words of the command are and how its files become nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import slicer

from .errors import GlueError
from .guard import SceneGuard
from .i18n import _
from .jobs import CoreJob
from .volumes import check_volume

__all__ = ["RunFailedError", "SceneRun"]


class RunFailedError(GlueError):
    """A run ended without results; ``outcome`` is the job's, None where the results could not be placed."""

    def __init__(self, sentence: str, outcome: Any = None) -> None:
        super().__init__(sentence)
        self.outcome = outcome

    @property
    def cancelled(self) -> bool:
        """True when the person cancelled."""
        return self.outcome is not None and self.outcome.status == "cancelled"


class SceneRun:
    """Runs one command on volumes of the scene.

    Parameters
    ----------
    inputs : name -> volume node (None where it is left out); one of them is called ``input``.
    targets : name -> node to fill instead of a new one (None: a new one).
    on_progress, on_log, on_warning : as for :class:`.jobs.CoreJob`.
    on_done : called once with this run, when ``outputs`` or ``error`` is known; on the main thread.

    """

    def __init__(
        self,
        inputs: Mapping[str, Any],
        targets: Mapping[str, Any],
        *,
        on_progress: Callable[[float, str, float | None], None] | None = None,
        on_log: Callable[[str], None] | None = None,
        on_warning: Callable[[str], None] | None = None,
        on_done: Callable[[Any], None] | None = None,
    ) -> None:
        self.on_done = on_done
        self.outputs: Any = None
        self.error: RunFailedError | None = None
        self.inputs, self.targets = dict(inputs), dict(targets)
        self.guard: Any = None
        self._made: list[Any] = []
        self.job = CoreJob(
            self.arguments, on_progress=on_progress, on_log=on_log, on_warning=on_warning, on_finished=self._finished
        )

    # --------------------------------------------------------------------------------------------- what a module says

    def arguments(self, folder: Path) -> list[Any]:
        """Write the inputs into the job's folder and return the words of the command."""
        raise NotImplementedError

    def check_input(self, name: str, volume: Any) -> None:
        """Raise NodeError or GeometryError when an input cannot be used; here, inputs are scalar volumes."""
        check_volume(volume)

    def take_in(self, outcome: Any) -> Any:
        """Make nodes of the files in the job's folder and return the outputs; may raise GlueError.

        ``self.guard.node(name)`` gives an input or a target. New nodes go through :meth:`keep`.
        """
        raise NotImplementedError

    def words(self, text: str) -> str:
        """Return a sentence of the core as the panel is to say it."""
        return text

    # ------------------------------------------------------------------------------------------------ what people call

    @property
    def running(self) -> bool:
        """True from the start until the results are in the scene, or the error is known."""
        return self.job.running

    def start(self) -> Any:
        """Write the inputs and start the core; returns at once, with this run.

        Raises
        ------
        NodeError, GeometryError : an input cannot be used. JobStartError : the core cannot be started.

        """
        for name, volume in self.inputs.items():
            if volume is not None or name == "input":
                self.check_input(name, volume)
        self.guard = SceneGuard(**self.inputs, **self.targets)
        try:
            self.job.start()
        except BaseException:
            self.guard.release()
            raise
        return self

    def cancel(self) -> None:
        """End the run; within two seconds nothing of it is left."""
        self.job.cancel()

    def abandon(self) -> None:
        """Cancel, and tell nobody any more; for a panel that goes away."""
        self.on_done = self.job.on_progress = self.job.on_log = self.job.on_warning = None
        self.job.cancel()

    def wait(self, timeout_s: float | None = None) -> Any:
        """Wait while the application stays alive, and return the outputs.

        Raises
        ------
        RunFailedError : the run failed, crashed or was cancelled, its results could not be placed, or time is over.

        """
        if self.job.wait(timeout_s) is None:
            raise RunFailedError(_("The run has not ended in time."))
        if self.error is not None:
            raise self.error
        return self.outputs

    def keep(self, node: Any, target: Any = None) -> Any:
        """Remember a new node, so that it can be taken back when a later step fails; returns it."""
        if node is not target:
            self._made.append(node)
        return node

    # ------------------------------------------------------------------------------------------------------- internals

    def _finished(self, outcome: Any) -> None:
        """Put the results into the scene in one step, or keep the reason why there are none."""
        fault: Exception | None = None
        try:
            if outcome.ok:
                self.outputs = self.take_in(outcome)
            else:
                self.error = RunFailedError(self.words(outcome.sentence), outcome)
        except GlueError as error:
            self.error = RunFailedError(str(error))
        except Exception as error:  # noqa: BLE001 - raised again when the panel knows that the run is over
            self.error = RunFailedError(_("The results could not be put into the scene: {reason}").format(reason=error))
            fault = error
        self.guard.release()
        if self.error is not None:
            self._drop_made()
        if self.on_done is not None:
            self.on_done(self)
        if fault is not None:
            raise fault

    def _drop_made(self) -> None:
        for node in reversed(self._made):
            if slicer.mrmlScene.IsNodePresent(node):
                slicer.mrmlScene.RemoveNode(node)
        self._made.clear()
