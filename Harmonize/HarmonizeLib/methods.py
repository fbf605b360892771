"""Ways to harmonize a scan: which command runs them, and which models they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["IGUANE", "Method"]


@dataclass(frozen=True)
class Method:
    """A method: command and task of the core, and the models that are taken when the person chooses none."""

    command: str
    task: str
    bundled: str
    published: str

    def needed_models(self, model: str, models: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the models that a run needs and that are not on this computer.

        Parameters
        ----------
        model : name of the chosen model, "" for the best one on this computer.
        models : the core's list of models.

        """
        known = {item["name"]: item["status"] for item in models}
        wanted = model
        if not wanted and known.get(self.bundled, "absent") == "absent":  # otherwise the core takes what is here
            wanted = self.published
        return [item for item in models if item["name"] == wanted and item["status"] == "absent"]


IGUANE = Method(command="harmonize", task="harmonize", bundled="iguane-lite", published="iguane")
