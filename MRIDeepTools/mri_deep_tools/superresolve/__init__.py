"""SuperResolve: thick-slice T2w scans to 1 mm isotropic ones with a T1w guide; simulation, scores, training."""

from __future__ import annotations
