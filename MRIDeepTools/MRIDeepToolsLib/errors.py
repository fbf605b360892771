"""Errors of the glue. Each message is a sentence for the person who pressed the button."""

from __future__ import annotations

__all__ = [
    "GeometryError",
    "GeometryMismatchError",
    "GlueError",
    "JobStartError",
    "NodeError",
    "ResultError",
    "SceneChangedError",
    "SetupDeclined",
    "SetupError",
]


class GlueError(RuntimeError):
    """Base of all errors of the glue."""


class NodeError(GlueError):
    """A node cannot be used: empty, of the wrong kind, or unusable values."""


class GeometryError(NodeError):
    """The grid or the transform of a node cannot be written to a file without a change of the anatomy."""


class GeometryMismatchError(GlueError):
    """A result does not lie on the grid that it must have; nothing was imported."""


class ResultError(GlueError):
    """A result file is missing or cannot be read."""


class JobStartError(GlueError):
    """The program could not be started."""


class SceneChangedError(GlueError):
    """The scene was closed, or a node was deleted, while the work ran; its results cannot be placed."""


class SetupError(GlueError):
    """The set-up failed or is not possible here."""


class SetupDeclined(SetupError):  # noqa: N818 - the name says what happened, it is no fault
    """The person did not agree to the installation."""
