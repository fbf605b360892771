"""What Slicer's own Python files offer to modules, in a minimal version of ours, or the real ones from a checkout."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import slicer

if TYPE_CHECKING:
    from pathlib import Path

# Name below ``slicer`` -> our module that stands for it.
OWN = {
    "i18n": "i18n",
    "parameterNodeWrapper": "parameter_nodes",
    "ScriptedLoadableModule": "scripted",
    "testing": "testing",
}


def install(checkout: Path | None) -> None:
    """Make ``slicer.ScriptedLoadableModule`` and its like importable.

    Args:
        checkout: Slicer source tree; where given, its files of ``Base/Python/slicer`` are used instead of ours.
    """
    if checkout is not None:
        slicer.__path__.append(str(checkout / "Base/Python/slicer"))
        _stub_subject_hierarchy_widgets()
        for name in OWN:
            setattr(slicer, name, importlib.import_module(f"slicer.{name}"))
        return
    for name, own in OWN.items():
        module = importlib.import_module(f"{__name__}.{own}")
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)


def _stub_subject_hierarchy_widgets() -> None:
    """Slicer's connectors import two widget classes by name; they are not in the wheel and match no widget here."""
    import types

    stub = types.ModuleType("qSlicerSubjectHierarchyModuleWidgetsPythonQt")
    for name in ("qMRMLSubjectHierarchyTreeView", "qMRMLSubjectHierarchyComboBox"):
        cls = type(name, (slicer.qMRMLWidget,), {"_stand_in": True})
        setattr(stub, name, cls)
        setattr(slicer, name, cls)
    sys.modules[stub.__name__] = stub
