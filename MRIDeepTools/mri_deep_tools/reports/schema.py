"""The schema of the sidecars: which versions can be read, and the tables of the documentation.

``python -m mri_deep_tools.reports.schema PAGE`` writes the tables into ``Resources/docs/provenance.md`` anew.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ..provenance import SCHEMA_VERSION

__all__ = ["fields_of", "is_readable", "page_with_tables", "sidecar_schema", "tables"]

_BEGIN, _END = "<!-- tables of the schema: begin -->", "<!-- tables of the schema: end -->"


def sidecar_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the sidecars, which ships with the package."""
    file = resources.files("mri_deep_tools").joinpath("schemas", "sidecar.schema.json")
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return schema


def is_readable(version: object) -> bool:
    """Return whether a record of this schema version can be read: any of the same major version, newer ones too."""
    found = re.fullmatch(r"(\d+)\.\d+(\.\d+)?", version) if isinstance(version, str) else None
    return found is not None and found[1] == SCHEMA_VERSION.partition(".")[0]


def fields_of(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Mapping[str, Any]], list[str]]]:
    """Yield command ("" for all), its top-level fields, and which of them must be there."""
    yield "", schema["properties"], schema["required"]
    for rule in schema["allOf"]:
        command = rule["if"]["properties"]["GeneratedBy"]["items"]["properties"]["Command"]["const"]
        yield command, rule["then"]["properties"], rule["then"]["required"]


def tables(schema: Mapping[str, Any]) -> str:
    """Return the fields as Markdown: a table for all commands, and one for each command that adds some."""
    parts = [f"Version {schema['version']}."]
    for command, fields, required in fields_of(schema):
        parts.append(f"### {f'Of `{command}` besides' if command else 'Of every sidecar'}")
        rows = [
            f"| `{name}` | {_kind(field)} | {'yes' if name in required else 'no'} | {field.get('description', '')} |"
            for name, field in fields.items()
        ]
        parts.append("\n".join(["| field | type | always | meaning |", "|---|---|---|---|", *rows]))
    for name in ("file", "model", "grid"):
        part = schema["$defs"][name]
        rows = [
            f"| `{key}` | {_kind(field, schema)} | {'yes' if key in part['required'] else 'no'} | "
            f"{_resolved(field, schema).get('description', '')} |"
            for key, field in part["properties"].items()
        ]
        parts.append(f"### A {name}")
        parts.append("\n".join(["| field | type | always | meaning |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts)


def page_with_tables(text: str, schema: Mapping[str, Any]) -> str:
    """Return the documentation page with the tables between their marks written anew."""
    head, _, rest = text.partition(_BEGIN)
    return f"{head}{_BEGIN}\n\n{tables(schema)}\n\n{_END}{rest.partition(_END)[2]}"


def _resolved(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return schema["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else field


def _kind(field: Mapping[str, Any], schema: Mapping[str, Any] | None = None) -> str:
    if schema is not None:
        field = _resolved(field, schema)
    kind = field["type"]
    if kind == "array" and "$ref" in field["items"]:
        return f"list of {field['items']['$ref'].rpartition('/')[2]}s"
    items = field.get("additionalProperties")
    if kind == "object" and isinstance(items, dict) and "$ref" in items:
        return f"object of {items['$ref'].rpartition('/')[2]}s"
    names = [kind] if isinstance(kind, str) else kind
    return " or ".join({"array": "list"}.get(name, name) for name in names)


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(page_with_tables(page.read_text(encoding="utf-8"), sidecar_schema()), encoding="utf-8")
