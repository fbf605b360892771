"""Standard terminology of segments: SNOMED CT and DICOM codes, with the side as the modifier of the type.

Slicer's own list lacks most structures of the brain, so the extension brings a list of its own
(`Resources/Terminologies/MRIDeepTools.term.json`), which is loaded when the first segmentation needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

from .labels import Structure

__all__ = ["CONTEXT", "TERMINOLOGY_FILE", "entry", "load_terminology"]

CONTEXT = "MRI Deep Tools - structures of the brain"
TERMINOLOGY_FILE = Path(__file__).resolve().parent.parent / "Resources" / "Terminologies" / "MRIDeepTools.term.json"
ANATOMICAL_CONTEXT = "Anatomic codes - DICOM master list"
CATEGORY = ("SCT", "123037004", "Anatomical Structure")
SIDES = {"left": ("SCT", "7771000", "Left"), "right": ("SCT", "24028007", "Right")}


def entry(structure: Structure) -> str:
    """Return the terminology entry of a structure as Slicer stores it in a segment's tag; empty without a code."""
    if not structure.code:
        return ""
    kind = (structure.scheme, structure.code, structure.meaning)
    triplets = [CATEGORY, kind, SIDES.get(structure.side, ("", "", "")), ("", "", ""), ("", "", "")]
    category, kind_text, modifier, region, region_modifier = ("^".join(triplet) for triplet in triplets)
    return "~".join((CONTEXT, category, kind_text, modifier, ANATOMICAL_CONTEXT, region, region_modifier)) + "|"


def load_terminology() -> bool:
    """Load the extension's list of structures into Slicer, once; False where there is no terminology module.

    Without it segments keep their codes; only the panel that changes them does not list these structures.
    """
    logic = _logic()
    if logic is None or not TERMINOLOGY_FILE.is_file():
        return False
    if not logic.IsTerminologyContextLoaded(CONTEXT):
        logic.LoadTerminologyFromFile(str(TERMINOLOGY_FILE))
    return bool(logic.IsTerminologyContextLoaded(CONTEXT))


def _logic() -> Any:
    module = getattr(getattr(slicer, "modules", None), "terminologies", None)
    return module.logic() if module is not None else None
