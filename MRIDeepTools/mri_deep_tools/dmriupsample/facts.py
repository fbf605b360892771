"""What a network of our own was trained for: the metadata of its safetensors file. Read without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import WeightsError

__all__ = ["Facts", "read_facts"]

_HEADER_LIMIT = 1 << 24


@dataclass(frozen=True)
class Facts:
    """What cannot be seen in the tensors.

    Attributes
    ----------
    directions : numbers of measured directions that the network was trained to read; one file may serve several.
    shell : b-value (s/mm^2) of its training data, or None for a network of several shells.
    percentile : trained on data that were divided by their 99th percentile inside the mask, all context volumes
        together; else by the fixed value of the shell (:data:`.shells.XMAX`).
    spacing_mm : voxel edge of its training data, or None where it does not matter (simulated single voxels).
    trained_on : a word for people: ``"simulated"``, ``"HCP"``.

    """

    directions: tuple[int, ...]
    shell: int | None
    percentile: bool = False
    spacing_mm: float | None = None
    trained_on: str = ""

    def as_metadata(self) -> dict[str, str]:
        """Return the facts as the strings that a safetensors file can hold."""
        return {
            "directions": " ".join(map(str, self.directions)),
            "shell": "all" if self.shell is None else str(self.shell),
            "percentile": "true" if self.percentile else "false",
            "spacing_mm": "any" if self.spacing_mm is None else f"{self.spacing_mm:g}",
            "trained_on": self.trained_on,
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Facts:
        """Return the facts of a file; ValueError or KeyError where they are not there."""
        spacing = metadata.get("spacing_mm", "any")
        return cls(
            directions=tuple(int(word) for word in metadata["directions"].split()),
            shell=None if metadata["shell"] == "all" else int(metadata["shell"]),
            percentile=metadata.get("percentile", "false") == "true",
            spacing_mm=None if spacing == "any" else float(spacing),
            trained_on=metadata.get("trained_on", ""),
        )


def read_facts(path: str | Path) -> Facts | None:
    """Return what the metadata of a safetensors file say of its network, or None where they say nothing.

    Raises
    ------
    WeightsError : the file cannot be read, or its facts make no sense.

    """
    path = Path(path)
    metadata = _metadata(path)
    if "directions" not in metadata:
        return None
    try:
        facts = Facts.from_metadata(metadata)
    except (KeyError, ValueError):
        raise WeightsError(
            f"{path.name} says nothing sensible of its training", "write it with train dmri-rcnn"
        ) from None
    if not facts.directions or min(facts.directions) < 1:
        raise WeightsError(f"{path.name} does not say how many directions it reads", "write it with train dmri-rcnn")
    return facts


def _metadata(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= _HEADER_LIMIT:
                raise ValueError("no header")
            header = json.loads(file.read(size))
        metadata = header.get("__metadata__", {})
        return {str(key): str(value) for key, value in metadata.items()}
    except OSError as error:
        raise WeightsError(f"{path.name} cannot be read ({error.strerror})", "check the path of the weights") from None
    except (ValueError, AttributeError):
        raise WeightsError(f"{path.name} cannot be read as safetensors", "copy it again") from None
