"""Where a result comes from, as attributes of its node: what was run, with which weights, where, how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["PREFIX", "mark_research_use", "set_provenance"]

PREFIX = "MRIDeepTools."


def mark_research_use(node: Any) -> None:
    """Mark a node as a result that is not for clinical use."""
    node.SetAttribute(f"{PREFIX}ResearchUseOnly", "1")


def set_provenance(node: Any, sidecar_path: str | Path | None) -> None:
    """Set the attributes ``MRIDeepTools.*`` of a node from the record that the core writes beside its output.

    File names and folders are not taken over. A missing or unreadable record leaves only the mark of research use.
    """
    mark_research_use(node)
    record = _read(sidecar_path)
    if record is None:
        return
    made_by = (record.get("GeneratedBy") or [{}])[0]
    device = record.get("Device") or {}
    models = [model for model in record.get("Models") or [] if isinstance(model, dict)]
    values = {
        "Version": made_by.get("Version"),
        "Command": made_by.get("Command"),
        "Model": ", ".join(dict.fromkeys(str(model.get("Name", "")) for model in models)),
        "WeightsSHA256": ", ".join(str(model["SHA256"]) for model in models if model.get("SHA256")),
        "Licence": "; ".join(dict.fromkeys(str(model["Licence"]) for model in models if model.get("Licence"))),
        "Device": " ".join(str(device[key]) for key in ("Name", "Precision") if device.get(key)),
        "Options": json.dumps(record.get("Options") or {}, sort_keys=True, ensure_ascii=False),
        "Synthetic": "1" if record.get("Synthetic") else None,
        "Warnings": "\n".join(str(text) for text in record.get("Warnings") or []),
    }
    for name, value in values.items():
        node.SetAttribute(f"{PREFIX}{name}", str(value) if value else None)


def _read(path: str | Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None
