"""What the tests of the module SuperResolve share: the module with a quick core behind it, and its panel."""

from __future__ import annotations

import pytest
from module_helpers import use_fake_core, wait_idle
from superresolve_scans import add_guide, add_thick


def model(name: str, status: str, **more) -> dict:
    facts = {"name": name, "task": "superresolve", "status": status, "bundled": status == "bundled"}
    facts |= {"size": 5, "size_text": "5 B", "description": f"About {name}", "licence": "Apache-2.0"}
    return facts | {"citation": ["Lennartsson, BABY-AI (2026), doi:10.1/x"]} | more


MODELS = [
    model("baby-ai", "absent", files=[{"name": "w.pth", "sources": []}], size_text="unknown size"),
    model("superresolve-big", "absent", files=[{"name": "w.safetensors", "sources": ["https://example.org/w"]}]),
    model("superresolve-lite", "bundled"),
]


@pytest.fixture
def module(host, tmp_path, monkeypatch):
    """Return the handle of the module, with the quick core behind it and a model that nothing needs to fetch."""
    handle = host.load("SuperResolve")
    from MRIDeepToolsLib import core_info

    use_fake_core(monkeypatch)
    monkeypatch.setattr(core_info, "_known", {"version": "1.2.3", "devices": [{"name": "cpu"}], "models": MODELS})
    return handle


@pytest.fixture
def widget(host, module):
    """Return the panel's widget, bound to a scene with a pair."""
    add_guide()
    add_thick()
    shown = module.widget()
    wait_idle(host, shown)
    return shown
