"""The notebook of the documentation runs from top to bottom and shows its pictures.

It names the bundled model; where the package does not carry it yet, a small network takes its name in the list of
models of this test alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from mri_deep_tools.errors import MRIDeepToolsError
from mri_deep_tools.models import import_models, model_status

NOTEBOOK = Path(__file__).resolve().parents[2] / "Resources" / "docs" / "superresolve.ipynb"


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Have a model called superresolve-lite, the bundled one or a small one."""
    try:
        if model_status("superresolve-lite") == "bundled":
            return
    except MRIDeepToolsError:
        pass
    from mri_deep_tools.superresolve.network import ResUNet, ResUNetSpec
    from mri_deep_tools.superresolve.train import begin_as_identity
    from mri_deep_tools.superresolve.weights import save_network

    network = ResUNet(ResUNetSpec((4, 8), 1, residual=True, t2_alone=True))
    begin_as_identity(network)
    path = save_network(network, tmp_path / "model.safetensors", 32)
    facts = {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "sources": []}
    entry = {"name": "superresolve-lite", "task": "superresolve", "bundled": False, "description": "small", "pages": []}
    entry |= {"files": [{"name": path.name, **facts}], "licence": "none", "citation": ["-"], "input_needs": {"dims": 3}}
    (tmp_path / "registry.json").write_text(json.dumps({"format": 1, "models": [entry]}))
    monkeypatch.setenv("MRI_DEEP_TOOLS_REGISTRY", str(tmp_path / "registry.json"))
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "cache"))
    import_models(tmp_path, ["superresolve-lite"])


@pytest.mark.slow
def test_the_notebook_runs_and_shows_pictures(tmp_path, model):
    nbformat, client = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    text = "".join(output.get("text", "") for output in outputs)
    assert "24 axial slices of 4 mm every 4 mm" in text
    assert "agrees with them to" in text
    assert text.count("PSNR") == 3
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3
    assert all(len(base64.b64decode(picture)) > 10_000 for picture in pictures)


def test_the_notebook_is_current():
    """Commands that it names exist, and what is stored of its outputs shows no fault."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in content["cells"]]
    assert any("mri-deep-tools superresolve" in source for source in sources)
    for cell in content["cells"]:
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"
