"""Shells of a diffusion scan: which there are, which one is worked on, and which the published models serve."""

from __future__ import annotations

import numpy as np

from ..errors import InputError, RequestError
from .gradients import GradientTable

__all__ = ["PUBLISHED_SHELLS", "SHELL_TOLERANCE", "XMAX", "find_shells", "pick_shell", "published_shell"]

SHELL_TOLERANCE = 100.0
"""b-values (s/mm^2) this close belong to one shell: scanners vary them with direction by a few per cent."""
PUBLISHED_SHELLS = (1000, 2000, 3000)
XMAX = {1000: 4000.0, 2000: 3000.0, 3000: 2000.0}
"""Intensity that becomes 1, by shell, as published for the Human Connectome Project's data."""
_MODEL_TOLERANCE = 0.1  # a shell this far, relatively, from a published one is still served by its model
TRAINING_TOLERANCE = 30.0
"""What counted as a shell when the models were trained."""


def find_shells(table: GradientTable) -> dict[int, np.ndarray]:
    """Return the shells: rounded mean b-value -> indices of its volumes in file order; b=0 is left out."""
    weighted = np.flatnonzero(~table.is_b0)
    shells: dict[int, np.ndarray] = {}
    group: list[int] = []
    for index in weighted[np.argsort(table.bvals[weighted], kind="stable")]:
        if group and table.bvals[index] - table.bvals[group[0]] > 2 * SHELL_TOLERANCE:
            shells[_name(table, group)] = np.sort(group)
            group = []
        group.append(int(index))
    if group:
        shells[_name(table, group)] = np.sort(group)
    return shells


def _name(table: GradientTable, group: list[int]) -> int:
    mean = float(np.mean(table.bvals[group]))
    nearest = round(mean / 50) * 50
    return int(nearest if abs(nearest - mean) <= 10 else round(mean))


def pick_shell(table: GradientTable, wanted: float | None, name: str = "the scan") -> tuple[int, np.ndarray]:
    """Return (b-value, volumes) of the shell to work on.

    Raises
    ------
    InputError : no volume is diffusion-weighted.
    RequestError : several shells and none named, or no shell near the named one.

    """
    shells = find_shells(table)
    if not shells:
        raise InputError(f"{name} has no diffusion-weighted volume", "check the b-values")
    listed = ", ".join(f"{shell} ({len(index)} directions)" for shell, index in shells.items())
    if wanted is None:
        if len(shells) > 1:
            raise RequestError(f"{name} has several shells: {listed}", "choose one with --shell")
        return next(iter(shells.items()))
    near = min(shells, key=lambda shell: abs(shell - wanted))
    if abs(near - wanted) > SHELL_TOLERANCE:
        raise RequestError(f"{name} has no shell at b = {wanted:g}; it has {listed}", "choose one of them with --shell")
    return near, shells[near]


def published_shell(shell: float) -> int:
    """Return the shell whose models serve this b-value.

    Raises
    ------
    RequestError : none is within 10 %.

    """
    near = min(PUBLISHED_SHELLS, key=lambda known: abs(known - shell))
    if abs(near - shell) > _MODEL_TOLERANCE * near:
        raise RequestError(
            f"no model was trained for b = {shell:g}; there are models for {', '.join(map(str, PUBLISHED_SHELLS))}",
            "use --method sh, which serves any b-value",
        )
    return near
