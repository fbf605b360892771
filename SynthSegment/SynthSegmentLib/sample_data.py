"""Scans to try the module with, offered in Slicer's Sample Data module."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

__all__ = ["SAMPLES", "register_sample_data"]

_SOURCE = "https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/"

SAMPLES = (
    # name, node, file, SHA-256; heads of volunteers who gave them to Slicer for any use
    ("SynthSegT1", "MRHead", "MR-head.nrrd", "cc211f0dfd9a05ca3841ce1141b292898b2dd2d3f08286affadf823a7e58df93"),
    ("SynthSegT2", "MRBrainT2", "MR-brain-T2.nrrd", "fa1fe5910a69182f2b03c0150d8151ac6c75df986449fb5a6c5ae67141e0f5e7"),
    ("SynthSegCT", "CTBrain", "CT-brain.nrrd", "6a5b6caccb76576a863beb095e3bfb910c50ca78f4c9bf043aa42f976cfa53d1"),
)
"""T1-weighted, T2-weighted and CT: one network, three contrasts."""


def register_sample_data(thumbnail: str) -> bool:
    """Register the samples; False where Slicer has no Sample Data module.

    Parameters
    ----------
    thumbnail : path of a picture for the buttons.

    """
    if not hasattr(slicer.modules, "sampledata"):
        return False
    import SampleData

    for name, node, file, digest in SAMPLES:
        arguments: dict[str, Any] = {
            "category": _("MRI Deep Tools"),
            "sampleName": name,
            "thumbnailFileName": thumbnail,
            "uris": f"{_SOURCE}{digest}",
            "fileNames": file,
            "nodeNames": node,
            "checksums": f"SHA256:{digest}",
        }
        SampleData.SampleDataLogic.registerCustomSampleDataSource(**arguments)
    return True
