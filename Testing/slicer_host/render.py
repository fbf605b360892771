"""Pictures: of panels by Qt, of slices and surfaces by VTK with the displayable managers of Slicer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from .host import Host


def grab(host: Host, what: Any, path: Path, size: tuple[int, int] | None = None) -> Path:
    """Write a PNG of a widget or of the panel of a module handle; *size* is in pixels, else as it wants to be."""
    widget = what.module.widgetRepresentation() if hasattr(what, "module") else what
    widget = getattr(widget, "parent", widget) if not hasattr(widget, "grab") else widget
    if size is not None:
        widget.resize(*size)
    else:
        widget.adjustSize()
    widget.show()
    host.pump(0.05)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not widget.grab().save(str(path)):
        raise OSError(f"the picture {path} could not be written")
    return path
