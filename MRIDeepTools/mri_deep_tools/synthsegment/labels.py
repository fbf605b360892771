"""The label table: every code, name, side, terminology code and colour, and the lists derived from it.

One file, ``labels.csv``, serves all outputs. Codes, names and classes are those of SynthSeg (Billot et al., Medical
Image Analysis 86, 2023, and PNAS 120, 2023); colours are FreeSurfer's; terminology codes are those of DICOM CID 7140
(SNOMED CT where it has a concept, else DICOM's own). Cortical parcels carry the code of the cerebral cortex, because
SNOMED CT has no concept for each Desikan-Killiany parcel.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

__all__ = [
    "GENERATION",
    "LABELS",
    "PARCEL_CODES",
    "PARCEL_NAMES",
    "QC_NAMES",
    "V1_CHANNELS",
    "V2_CHANNELS",
    "GenerationLabel",
    "Label",
    "channel_names",
    "label",
    "left_right_permutation",
    "qc_classes",
    "robust_groups",
    "swap_table",
    "topological_classes",
]

Side = Literal["neutral", "left", "right"]


@dataclass(frozen=True)
class Label:
    """One structure: FreeSurfer code, name, side, terminology, colour (0-255) and processing classes."""

    code: int
    name: str
    side: Side
    coding_scheme: str
    concept_code: str
    concept_meaning: str
    colour: tuple[int, int, int]
    channel_set: str
    topological_class: int
    qc_class: int
    robust_group: int


@dataclass(frozen=True)
class GenerationLabel:
    """One label of the generative model and what becomes of it (specification tables of SynthSeg 1.0)."""

    code: int
    side: Side
    sided_class: int
    tissue_class: int
    target_v1: int
    target_v2: int
    robust_group: int


def read_table(name: str) -> list[dict[str, str]]:
    """Read one of the package's CSV tables as a list of rows."""
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _label(row: dict[str, str]) -> Label:
    return Label(
        code=int(row["code"]),
        name=row["name"],
        side=row["side"],  # type: ignore[arg-type]
        coding_scheme=row["coding_scheme"],
        concept_code=row["concept_code"],
        concept_meaning=row["concept_meaning"],
        colour=(int(row["red"]), int(row["green"]), int(row["blue"])),
        channel_set=row["channel_set"],
        topological_class=int(row["topological_class"] or 0),
        qc_class=int(row["qc_class"] or 0),
        robust_group=int(row["robust_group"] or 0),
    )


LABELS: dict[int, Label] = {item.code: item for item in map(_label, read_table("labels.csv"))}
"""All output labels by code: 33 structures (with background) and 68 cortical parcels."""

V2_CHANNELS: tuple[int, ...] = tuple(c for c, item in LABELS.items() if item.channel_set in ("v1+v2", "v2"))
"""Codes of the 33 channels of SynthSeg 2.0, in network order (sorted)."""

V1_CHANNELS: tuple[int, ...] = tuple(c for c, item in LABELS.items() if item.channel_set == "v1+v2")
"""Codes of the 32 channels of SynthSeg 1.0, in network order (sorted)."""

PARCEL_CODES: tuple[int, ...] = (0, *(c for c, item in LABELS.items() if item.channel_set == "parcel"))
"""Codes of the 69 channels of the cortical parcellation, background first."""

PARCEL_NAMES: tuple[str, ...] = ("Background", *(LABELS[c].name for c in PARCEL_CODES[1:]))

QC_NAMES: tuple[str, ...] = (
    "general white matter",
    "general grey matter",
    "general csf",
    "cerebellum",
    "brainstem",
    "thalamus",
    "putamen+pallidum",
    "hippocampus+amygdala",
)
"""Names of the quality-control scores 1 to 8."""

GENERATION: tuple[GenerationLabel, ...] = tuple(
    GenerationLabel(
        code=int(row["code"]),
        side=row["side"],  # type: ignore[arg-type]
        sided_class=int(row["sided_class"]),
        tissue_class=int(row["tissue_class"]),
        target_v1=int(row["target_v1"]),
        target_v2=int(row["target_v2"]),
        robust_group=int(row["robust_group"]),
    )
    for row in read_table("generation_labels.csv")
)
"""The 54 labels of the published training maps in training order: neutral, left, right (same order)."""


def label(code: int) -> Label:
    """Return the label with this FreeSurfer code; KeyError when it is not in the table."""
    return LABELS[code]


def channel_names(codes: Sequence[int]) -> tuple[str, ...]:
    """Return the structure names of channels."""
    return tuple(LABELS[code].name for code in codes)


def topological_classes(codes: Sequence[int]) -> tuple[int, ...]:
    """Return the class under which each channel is cleaned up; 0 means never."""
    return tuple(LABELS[code].topological_class for code in codes)


def qc_classes(codes: Sequence[int]) -> tuple[int, ...]:
    """Return the quality-control group (0 to 8) of each channel."""
    return tuple(LABELS[code].qc_class for code in codes)


def robust_groups(codes: Sequence[int]) -> tuple[int, ...]:
    """Return the tissue group (0 to 4) of each channel in the robust chain."""
    return tuple(LABELS[code].robust_group for code in codes)


@cache
def left_right_permutation(codes: tuple[int, ...]) -> tuple[int, ...]:
    """Return, for each channel, the channel of the same structure on the other side (an involution)."""
    by_name = {LABELS[code].name: index for index, code in enumerate(codes)}
    other = {"left": "right", "right": "left"}
    result = []
    for index, code in enumerate(codes):
        item = LABELS[code]
        if item.side == "neutral":
            result.append(index)
        elif item.channel_set == "parcel":
            swapped = code + 1000 if item.side == "left" else code - 1000
            result.append(codes.index(swapped))
        else:
            result.append(by_name[other[item.side] + item.name[len(item.side) :]])
    return tuple(result)


def swap_table(codes: Sequence[int], neutral: int) -> dict[int, int]:
    """Return code -> code of the other side for a list ordered neutral, left, right (same order on both sides).

    When a code occurs several times (merged labels) its first pairing decides.
    """
    per_side = (len(codes) - neutral) // 2
    left, right = codes[neutral : neutral + per_side], codes[neutral + per_side :]
    table = {code: code for code in codes[:neutral]}
    for a, b in zip(left, right, strict=True):
        table.setdefault(a, b)
        table.setdefault(b, a)
    return table
