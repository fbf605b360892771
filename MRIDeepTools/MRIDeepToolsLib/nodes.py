"""Nodes to files and back: everything that modules need, under one name."""

from __future__ import annotations

from .errors import GeometryError, GeometryMismatchError, GlueError, NodeError, ResultError, SceneChangedError
from .grids import Grid, file_geometry, node_geometry, require_same_grid
from .guard import SceneGuard
from .hierarchy import new_folder, output_name, place_beside, unique_name
from .labels import Structure, display_name, read_label_table
from .plots import volumes_chart
from .provenance import mark_research_use, set_provenance
from .segmentations import import_labelmap, import_segmentation, structures_of
from .sequences import Frame, export_sequence, import_posteriors, import_segmentation_sequence, sequence_of
from .tables import import_scores_table, import_table, import_volumes_table, score_level, score_words
from .terminology import load_terminology
from .volumes import ExportedVolume, check_volume, export_volume, import_volume

__all__ = [
    "ExportedVolume",
    "Frame",
    "GeometryError",
    "GeometryMismatchError",
    "GlueError",
    "Grid",
    "NodeError",
    "ResultError",
    "SceneChangedError",
    "SceneGuard",
    "Structure",
    "check_volume",
    "display_name",
    "export_sequence",
    "export_volume",
    "file_geometry",
    "import_labelmap",
    "import_posteriors",
    "import_scores_table",
    "import_segmentation",
    "import_segmentation_sequence",
    "import_table",
    "import_volume",
    "import_volumes_table",
    "load_terminology",
    "mark_research_use",
    "new_folder",
    "node_geometry",
    "output_name",
    "place_beside",
    "read_label_table",
    "require_same_grid",
    "score_level",
    "score_words",
    "sequence_of",
    "set_provenance",
    "structures_of",
    "unique_name",
    "volumes_chart",
]
