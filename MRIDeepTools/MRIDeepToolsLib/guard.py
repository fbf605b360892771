"""Knows whether the nodes of a job still exist when its results come."""

from __future__ import annotations

from typing import Any

import slicer

from .errors import SceneChangedError
from .i18n import _

__all__ = ["SceneGuard"]


class SceneGuard:
    """Remembers nodes by ID, and notices when the scene is closed or exchanged.

    ::

        guard = SceneGuard(input=volume, output=segmentation)   # None is allowed and stays None
        ...
        volume = guard.node("input")    # SceneChangedError when it is gone
        guard.release()

    A node that was deleted while the scene stayed open is an error only when it is asked for.
    """

    def __init__(self, **nodes: Any) -> None:
        self._scene = slicer.mrmlScene
        self._ids = {name: None if node is None else node.GetID() for name, node in nodes.items()}
        self._addresses = {name: _address(node) for name, node in nodes.items()}
        self._closed = False
        self._tag = self._scene.AddObserver(self._scene.StartCloseEvent, self._on_close)

    @property
    def scene_closed(self) -> bool:
        """True when the scene was closed, or exchanged for another, since the guard was made."""
        return self._closed or slicer.mrmlScene is not self._scene

    def exists(self, name: str) -> bool:
        """Return True when the node of that name was given and is still there."""
        return self._find(name) is not None

    def node(self, name: str) -> Any:
        """Return the node of that name; None when none was given.

        Raises
        ------
        SceneChangedError : the scene was closed, or the node was deleted.

        """
        self.check_scene()
        if self._ids[name] is None:
            return None
        node = self._find(name)
        if node is None:
            text = _("A node that this run needs ({role}) was deleted meanwhile, so the results were dropped.")
            raise SceneChangedError(text.format(role=name))
        return node

    def check_scene(self) -> None:
        """Raise SceneChangedError when the scene was closed."""
        if self.scene_closed:
            raise SceneChangedError(_("The scene was closed meanwhile, so the results were dropped."))

    def release(self) -> None:
        """Stop observing; may be called more than once."""
        if self._tag is not None:
            self._scene.RemoveObserver(self._tag)
            self._tag = None

    def _find(self, name: str) -> Any:
        if self.scene_closed or self._ids[name] is None:
            return None
        node = self._scene.GetNodeByID(self._ids[name])
        return node if node is not None and _address(node) == self._addresses[name] else None

    def _on_close(self, caller: Any, event: str) -> None:
        self._closed = True


def _address(node: Any) -> str:
    return "" if node is None else node.GetAddressAsString("")
