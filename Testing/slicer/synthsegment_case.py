"""What the tests of the module SynthSegment share: the module with a quick core behind it, and its panel."""

from __future__ import annotations

import pytest
from module_helpers import add_volume, use_fake_core, wait_idle


@pytest.fixture
def module(host, tmp_path, monkeypatch):
    """Return the handle of the module, with the quick core behind it and models that nothing needs to fetch."""
    handle = host.load("SynthSegment")
    from MRIDeepToolsLib import core_info

    use_fake_core(monkeypatch)
    monkeypatch.setattr(core_info, "_known", {"version": "1.2.3", "devices": [{"name": "cpu"}], "models": MODELS})
    return handle


def model(name: str, task: str, status: str) -> dict:
    return {
        **{"name": name, "task": task, "status": status, "bundled": status == "bundled", "size": 5, "size_text": "5 B"},
        **{
            "description": f"About {name}",
            "licence": "Apache-2.0",
            "citation": ["Billot et al., A (2023), doi:10.1/x"],
        },
    }


MODELS = [
    model("synthseg-2.0", "segment", "installed"),
    model("synthseg-robust-2.0", "segment", "absent"),
    model("synthseg-parc-2.0", "parcellate", "absent"),
    model("synthseg-qc-2.0", "quality", "installed"),
    model("synthseg-lite", "segment", "bundled"),
]


@pytest.fixture
def widget(host, module):
    """Return the panel's widget, bound to a scene with one volume."""
    add_volume()
    shown = module.widget()
    wait_idle(host, shown)
    return shown
