"""The generative model: from a label map to a synthetic scan of random contrast, shape and resolution.

Billot et al., Medical Image Analysis 86 (2023) 102789, section 3. Arrays are (X, Y, Z) label maps and (C, X, Y, Z)
images, axes R, A, S; every random draw comes from a :class:`~.draws.Draws`, so a seed fixes the result.
"""

from __future__ import annotations

from .model import GeneratorConfig, LabelsToImage, Sample

__all__ = ["GeneratorConfig", "LabelsToImage", "Sample"]
