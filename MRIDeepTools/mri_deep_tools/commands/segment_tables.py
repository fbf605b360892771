"""The tables beside a segmentation: volumes and quality scores as CSV, the label table as TSV.

The published form (``compatible``) writes plain structure names, numbers as Python prints them, subject names that keep
every suffix but ``.nii.gz``, and line ends as on Windows; ours names the unit in the header and strips image suffixes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..synthsegment.labels import LABELS

__all__ = ["dseg_table_path", "scores_row", "subject_name", "volumes_row", "write_csv", "write_label_table"]


def subject_name(scan: Path, *, compatible: bool = False) -> str:
    """Return what stands in the first column: the name of the scan without its suffix."""
    from ..volume import split_suffix

    if compatible:
        return scan.name.removesuffix(".nii.gz")
    return scan.resolve().name if scan.is_dir() else split_suffix(scan)[0]


def volumes_row(subject: str, volumes_mm3: Mapping[str, float], *, compatible: bool = False) -> dict[str, str]:
    """Return one row of the volumes table; volumes are in mm^3, by structure name."""
    if compatible:
        return {"subject": subject} | {name: str(round(float(value), 3)) for name, value in volumes_mm3.items()}
    return {"subject": subject} | {f"{name} (mm^3)": f"{value:.3f}" for name, value in volumes_mm3.items()}


def scores_row(subject: str, scores: Mapping[str, float], *, compatible: bool = False) -> dict[str, str]:
    """Return one row of the table of quality scores (0 to 1)."""
    return {"subject": subject} | {
        name: str(round(float(value), 4)) if compatible else f"{value:.4f}" for name, value in scores.items()
    }


def write_csv(
    path: Path, rows: Sequence[Mapping[str, str]], *, compatible: bool = False, nameless: bool = False
) -> None:
    """Write rows with the same keys; ``nameless`` leaves the first cell of the header empty (published lists)."""
    header = list(rows[0])
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\r\n" if compatible else "\n")
        writer.writerow(["", *header[1:]] if nameless else header)
        writer.writerows(list(row.values()) for row in rows)


def dseg_table_path(labels: Path) -> Path | None:
    """Return where the label table of a BIDS-like ``*_dseg`` output goes, or None for another name."""
    from ..volume import split_suffix

    stem = split_suffix(labels)[0]
    return labels.with_name(f"{stem}.tsv") if stem.endswith("_dseg") else None


def write_label_table(
    path: Path,
    codes: Iterable[int],
    *,
    names: Sequence[str] | None = None,
    sides: Sequence[str] | None = None,
) -> None:
    """Write the label table of BIDS: code, name, colour, and the terminology code of each structure.

    With ``names`` (and ``sides``), one per code, the codes are those of another list; they have no terminology.
    """
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(("index", "name", "color", "side", "coding_scheme", "concept_code", "concept_meaning"))
        if names is not None:
            from ..overlay import label_colour

            for index, (code, name) in enumerate(zip(codes, names, strict=True)):
                colour = "#{:02x}{:02x}{:02x}".format(*label_colour(code))
                writer.writerow((code, name, colour, sides[index] if sides else "n/a", "n/a", "n/a", "n/a"))
            return
        for item in (LABELS[code] for code in codes):
            colour = "#{:02x}{:02x}{:02x}".format(*item.colour)
            concept = (item.coding_scheme, item.concept_code, item.concept_meaning)
            writer.writerow((item.code, item.name, colour, item.side, *(text or "n/a" for text in concept)))
