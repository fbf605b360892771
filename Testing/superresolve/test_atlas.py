"""An atlas as the frame: by hand, from a server with a checksum, or any file."""

from __future__ import annotations

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.superresolve.network import ResUNet, ResUNetSpec
from mri_deep_tools.superresolve.train import begin_as_identity
from mri_deep_tools.superresolve.weights import save_network
from mri_deep_tools.volume import Volume, read_volume, write_volume


@pytest.fixture
def atlas(tmp_path):
    """Return a folder with an atlas at 1 mm, under the name that its author gave it."""
    data = np.random.default_rng(3).random((40, 44, 48)).astype(np.float32)
    affine = np.array([[-1, 0, 0, 20], [0, 1, 0, -22], [0, 0, 1, -24], [0, 0, 0, 1.0]])
    folder = tmp_path / "hub"
    folder.mkdir()
    write_volume(Volume(data, affine), folder / "infant_atlas.nii.gz")
    return folder


@pytest.fixture
def words(tmp_path):
    """Return the words of a command on a small thick-slice scan, without registration."""
    network = ResUNet(ResUNetSpec((4, 8), 1, residual=True, t2_alone=True))
    begin_as_identity(network)
    weights = save_network(network, tmp_path / "small.safetensors", 32)
    data = np.random.default_rng(1).random((36, 40, 12)).astype(np.float32) + 0.2
    affine = np.array([[-1, 0, 0, 18], [0, 1, 0, -20], [0, 0, 3, -18], [0, 0, 0, 1.0]])
    scan = write_volume(Volume(data, affine), tmp_path / "t2.nii.gz")
    given = ["--t2", str(scan), "--weights", str(weights), "--registered", "--threads", "1", "--quiet"]
    return ["superresolve", *given, "--space", "template", str(tmp_path / "sr.nii.gz")]


def test_an_atlas_without_checksum_is_imported_by_hand(tmp_path, atlas, words, capsys):
    assert main([*words, "--template", "baby-ai-atlas"]) == 2
    err = capsys.readouterr().err
    assert "not on this machine" in err
    assert "models import" in err
    assert main(["models", "download", "baby-ai-atlas"]) != 0
    assert main(["models", "import", str(atlas), "--model", "baby-ai-atlas"]) == 0
    assert "trusted on first use" in capsys.readouterr().out
    try:
        assert main([*words, "--template", "baby-ai-atlas"]) == 0
        assert read_volume(tmp_path / "sr.nii.gz").shape3 == (40, 44, 48)
        record = json.loads((tmp_path / "sr.json").read_text())
        assert [item["Name"] for item in record["Inputs"]] == ["t2.nii.gz", "infant_atlas.nii.gz"]
        assert len(record["Inputs"][1]["SHA256"]) == 64
    finally:
        assert main(["models", "remove", "baby-ai-atlas"]) == 0


def test_what_is_no_atlas_is_refused(tmp_path, atlas, capsys):
    for content, expected in ((b"no image", "not an image"), (None, "not one volume at 1 mm")):
        path = atlas / "infant_atlas.nii.gz"
        if content is None:
            write_volume(Volume(np.ones((9, 9, 9), np.float32), np.diag([2, 2, 2, 1.0])), path)
        else:
            path.write_bytes(content)
        assert main(["models", "import", str(atlas), "--model", "baby-ai-atlas"]) != 0
        assert expected in capsys.readouterr().err


def test_an_atlas_with_checksum_is_downloaded_and_checked(tmp_path, atlas, words, monkeypatch, capsys):
    """A site's own list names it; the server is real, the network is this machine's own."""
    monkeypatch.delenv("MRI_DEEP_TOOLS_OFFLINE")
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "cache"))
    handler = partial(SimpleHTTPRequestHandler, directory=str(atlas))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    content = (atlas / "infant_atlas.nii.gz").read_bytes()
    file = {"name": "infant_atlas.nii.gz", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    file["sources"] = [f"http://127.0.0.1:{server.server_port}/infant_atlas.nii.gz"]
    entry = {"name": "site-atlas", "task": "template", "description": "An atlas", "bundled": False, "files": [file]}
    entry |= {"licence": "CC0", "citation": ["A"], "input_needs": {"dims": 3}, "pages": []}
    listed = tmp_path / "registry.json"
    listed.write_text(json.dumps({"format": 1, "models": [entry]}))
    monkeypatch.setenv("MRI_DEEP_TOOLS_REGISTRY", str(listed))
    try:
        assert main(["models", "download", "site-atlas"]) == 0
        assert "Licence: CC0" in capsys.readouterr().out
        assert main([*words, "--template", "site-atlas"]) == 0
        assert read_volume(tmp_path / "sr.nii.gz").shape3 == (40, 44, 48)
        assert main(["models", "remove", "site-atlas"]) == 0
        (atlas / "infant_atlas.nii.gz").write_bytes(content[:-1] + b"x")
        assert main(["models", "download", "site-atlas"]) == 1
    finally:
        server.shutdown()
        server.server_close()


def test_any_file_is_a_template_and_a_wrong_name_is_told(tmp_path, atlas, words, capsys):
    assert main([*words, "--template", str(atlas / "infant_atlas.nii.gz")]) == 0
    assert main([*words, "--overwrite", "--template", str(tmp_path / "none.nii.gz")]) == 2
    err = capsys.readouterr().err
    assert "none.nii.gz does not exist" in err
    assert "baby-ai-atlas" in err
