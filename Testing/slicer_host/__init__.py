"""An in-process host for scripted 3D Slicer modules: real MRML scene, real Qt widgets, no Slicer binary.

``Host.boot()`` starts it. The parts: `scene` (MRML scene and logics of the package slicer-core), `pythonqt` and
`signals` (PySide6 with the manners of PythonQt), `ctk_widgets` and `mrml_widgets` (stand-ins for C++ widgets),
`ui_loader`, `application` and `modules` (``slicer.app``, ``slicer.modules``), `base` (base classes of scripted modules,
the parameter node wrapper), `dialogs` and `findings` (what a person would have seen; what went wrong unseen), `render`.
"""

from .host import Host

__all__ = ["Host"]
