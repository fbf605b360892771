"""What the core would do with a scan: its shells, which volumes it would read, which directions it would predict.

The core is asked with a stand-in of a few voxels that has the gradients of the scan, so the answer is the one of the
run, and it takes a second or two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import qt
from MRIDeepToolsLib import diffusion
from MRIDeepToolsLib.errors import GlueError
from MRIDeepToolsLib.jobs import CoreJob
from MRIDeepToolsLib.widgets import abandon
from slicer.i18n import tr as _

from .run import UpsampleOptions, listed, plain_words, told_otherwise

__all__ = ["Plan", "Planner"]

_WAIT_MS = 300  # after the last change


@dataclass(frozen=True)
class Plan:
    """The core's answer.

    ``shells`` is b-value -> number of directions, ``b0``, ``context`` and ``unused`` are numbers of volumes from 0,
    ``measured`` and ``targets`` world directions (RAS; zeros at b = 0). ``refusal`` is why it would not run, ``code``
    the core's word for that kind of reason.
    """

    shells: Mapping[int, int] = field(default_factory=dict)
    b0: Sequence[int] = ()
    shell: int = 0
    context: Sequence[int] = ()
    unused: Sequence[int] = ()
    measured: Sequence[Sequence[float]] = ()
    targets: Sequence[Sequence[float]] = ()
    model: str = ""
    warnings: Sequence[str] = ()
    refusal: str = ""
    code: str = ""

    def scan_words(self) -> str:
        """Return what was measured, in a sentence."""
        if not self.shells:
            return ""
        parts = [_("{count} directions at b = {b}").format(count=n, b=b) for b, n in self.shells.items()]
        words = {0: _("none at b = 0"), 1: _("1 volume at b = 0")}
        parts.append(words.get(len(self.b0), _("{count} volumes at b = 0")).format(count=len(self.b0)))
        return ", ".join(parts) + "."

    def work_words(self) -> str:
        """Return what would be done, in a sentence; empty when nothing would."""
        if self.refusal or not self.context:
            return ""
        texts = {
            True: _(
                "Read by {model}: {read} of the {all} (volumes {volumes}; spherical harmonics read all). "
                "Predicted: {count}."
            ),
            False: _("Read by {model}: all {all}. Predicted: {count}."),
        }
        values = {
            "model": self.model,
            "read": len(self.context),
            "all": len(self.context) + len(self.unused),
            "volumes": listed(self.context),
            "count": len(self.targets),
        }
        return texts[bool(self.unused)].format(**values)


class Planner:
    """Asks the core when scan or options have changed; quick changes are asked for once.

    Parameters
    ----------
    on_plan : called with the :class:`Plan`, on the main thread.

    """

    def __init__(self, on_plan: Callable[[Plan], None]) -> None:
        self._on_plan = on_plan
        self._asked: Any = None
        self._wanted: tuple[Any, UpsampleOptions] | None = None
        self._refused = Plan()
        self._job: Any = None
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_WAIT_MS)
        self._timer.connect("timeout()", self._ask)

    @property
    def busy(self) -> bool:
        """True from a change until the answer."""
        return self._job is not None or self._wanted is not None

    def follow(self, volume: Any, options: UpsampleOptions, machine: Any) -> bool:
        """Ask about a scan unless this was asked last; ``machine`` is what else matters. True when it is asked."""
        bvals, world = diffusion.gradients_of(volume)
        grid = diffusion.check_dwi(volume)
        key = (volume.GetID(), grid.affine, bvals.tobytes(), world.tobytes(), tuple(options.words()), machine)
        if key == self._asked:
            return False
        self.forget()
        self._asked, self._wanted = key, (volume, options)
        self._timer.start()
        return True

    def forget(self) -> None:
        """Drop questions and answers."""
        self._timer.stop()
        if self._job is not None:
            abandon(self._job)
        self._job = self._asked = self._wanted = None

    def _ask(self) -> None:
        if self._wanted is None:
            return
        self._start(*self._wanted, self._answered)

    def _start(self, volume: Any, options: UpsampleOptions, on_finished: Callable[[Any], None]) -> None:
        def arguments(folder: Path) -> list[Any]:
            diffusion.export_stand_in(volume, folder / "scan.nrrd")
            return ["upsample-dmri", folder / "scan.nrrd", folder / "result.nii", "--dry-run", *options.words()]

        try:
            self._job = CoreJob(arguments, on_finished=on_finished)
            self._job.start()
        except GlueError as error:
            self._tell(Plan(refusal=str(error), code="start"))

    def _answered(self, outcome: Any) -> None:
        """Tell the plan; after a refusal ask again what the scan holds, in a way that any scan can answer."""
        plan = _plan(outcome)
        if not plan.refusal or self._wanted is None:
            self._tell(plan)
            return
        self._refused = plan
        volume, _options = self._wanted
        largest = round(float(diffusion.gradients_of(volume)[0].max(initial=0)))
        self._start(volume, UpsampleOptions(directions=1, method="sh", shell=largest), self._held)

    def _held(self, outcome: Any) -> None:
        found = _plan(outcome)
        self._tell(replace(self._refused, shells=found.shells, b0=found.b0))

    def _tell(self, plan: Plan) -> None:
        self._job = self._wanted = None
        self._on_plan(plan)


def _plan(outcome: Any) -> Plan:
    """Return the plan of an answer."""
    if not outcome.ok or not outcome.results:
        return Plan(refusal=plain_words(outcome.sentence), code=outcome.code)
    found = outcome.results[-1]
    return Plan(
        shells={int(b): int(count) for b, count in (found.get("shells") or {}).items()},
        b0=found.get("b0") or [],
        shell=int(found.get("shell") or 0),
        context=found.get("context") or [],
        unused=found.get("unused") or [],
        measured=found.get("measured_world") or [],
        targets=found.get("target_world") or [],
        model=str(found.get("model") or ""),
        warnings=told_otherwise(outcome.warnings, found),
    )
