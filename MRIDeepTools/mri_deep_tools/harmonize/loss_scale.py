"""Dynamic loss scaling for trainings in float16 that have many networks, each with a scale of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from .optimiser import KerasAdam

__all__ = ["HoldableAdam", "LossScale"]


class HoldableAdam(KerasAdam):
    """Adam whose :meth:`step` changes and counts nothing while ``held`` is True: a gradient overflowed."""

    held = False

    def step(self, closure: Any = None) -> Any:
        """Make one update, unless held."""
        if self.held:
            return None if closure is None else closure()
        return super().step(closure)


class LossScale:
    """Multiplies a loss so that small gradients survive in float16.

    Doubled after 2000 good updates, halved when a gradient overflows, whose update is left out. With ``enabled`` False
    it does nothing.
    """

    start, patience, factor = 2.0**15, 2000, 2.0

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self.value, self.good = self.start if enabled else 1.0, 0

    def scaled(self, loss: Tensor) -> Tensor:
        """Return what to take the gradient of."""
        return loss * self.value if self.enabled else loss

    def unscale(self, parameters: Iterable[nn.Parameter], used: float) -> bool:
        """Divide gradients by the scale that their loss was multiplied with; False when one is not finite."""
        if not self.enabled:
            return True
        gradients = [p.grad for p in parameters if p.grad is not None]
        for gradient in gradients:
            gradient.div_(used)
        return all(bool(gradient.isfinite().all()) for gradient in gradients)

    def update(self, finite: bool) -> None:
        """Move the scale after an update that was made (``finite``) or left out."""
        if not self.enabled:
            return
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.value = max(self.value / self.factor, 1.0)
        elif self.good >= self.patience:
            self.value, self.good = self.value * self.factor, 0

    def state_dict(self) -> dict[str, float]:
        """Return what is needed to go on."""
        return {"value": self.value, "good": self.good}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from a state."""
        self.value, self.good = float(state["value"]), int(state["good"])
