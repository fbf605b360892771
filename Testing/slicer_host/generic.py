"""What Slicer's generic module test asks of a module (``WITH_GENERIC_TESTS``), and what the catalogue wants of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .modules import ModuleHandle


def problems(handle: ModuleHandle) -> list[str]:
    """Return what is wrong with a loaded module, as sentences; an empty list if nothing is.

    The panel is built with or without a main window, as the host is set at the moment.
    """
    import slicer

    module, found = handle.module, []

    def want(fulfilled: object, otherwise: str) -> None:
        if not fulfilled:
            found.append(otherwise)

    want(getattr(slicer.modules, handle.name.lower(), None) is module, "it is not registered in lower case")
    want(slicer.app.moduleManager().module(handle.name) is module, "the module manager does not know it")
    want(module.title, "it has no title")
    for text in ("categories", "contributors", "acknowledgementText", "helpText"):
        want(getattr(module, text), f"{text} is empty")
    want(not module.icon.isNull(), "it has no icon (Resources/Icons)")
    want(module.logic() is not None and module.logic() is module.logic(), "logic() is not the same twice")
    widget = module.widgetRepresentation()
    want(widget is module.widgetRepresentation(), "widgetRepresentation() is not the same twice")
    want(widget.self() is not None, "the panel could not be built")
    other = slicer.vtkMRMLScene()
    for scene in (other, slicer.mrmlScene):
        module.setMRMLScene(scene)
        want(module.mrmlScene() is scene, "the scene cannot be exchanged")
    for name in ("Widget", "Logic", "Test"):
        want(hasattr(handle.python, f"{handle.name}{name}"), f"there is no class {handle.name}{name}")
    want(Path(module.path) == handle.path, "its path is not that of its file")
    return found
