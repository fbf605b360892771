"""A small list of anatomy under the names of Slicer's standard terminologies, whose logic wants them at start.

A checkout of Slicer brings the whole lists; this one has what a brain segmentation asks of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_SCHEMA = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/{}-context-schema.json#"
_CATEGORIES = (("Tissue", "85756007"), ("Anatomical Structure", "123037004"))
_TYPES = (("Brain", "12738006", (250, 250, 225)), ("Tissue", "85756007", (128, 174, 128)))
_SIDES = (("Right", "24028007"), ("Left", "7771000"), ("Right and left", "51440002"))


def write(folder: Path) -> None:
    """Write the three files that vtkSlicerTerminologiesModuleLogic loads when it gets a scene."""
    for file, name in (("SlicerGeneralAnatomy", "3D Slicer General Anatomy"), ("DICOM-Master", "DICOM master")):
        context = {
            "SegmentationCategoryTypeContextName": f"Segmentation category and type - {name} list",
            "@schema": _SCHEMA.format("segment"),
            "SegmentationCodes": {"Category": [_category(*category) for category in _CATEGORIES]},
        }
        (folder / f"SegmentationCategoryTypeModifier-{file}.term.json").write_text(json.dumps(context))
    context = {"AnatomicContextName": "Anatomic codes - DICOM master list", "@schema": _SCHEMA.format("anatomic")}
    context["AnatomicCodes"] = {"AnatomicRegion": [_code("Brain", "12738006")]}
    (folder / "AnatomicRegionAndModifier-DICOM-Master.term.json").write_text(json.dumps(context))


def _code(meaning: str, value: str) -> dict[str, Any]:
    return {"CodeMeaning": meaning, "CodingSchemeDesignator": "SCT", "CodeValue": value}


def _category(meaning: str, value: str) -> dict[str, Any]:
    types = []
    for name, code, colour in _TYPES:
        modifiers = [_code(*side) | {"recommendedDisplayRGBValue": list(colour)} for side in _SIDES]
        types.append(_code(name, code) | {"recommendedDisplayRGBValue": list(colour), "Modifier": modifiers})
    return _code(meaning, value) | {"showAnatomy": True, "Type": types}
