"""Files without a published checksum, from a place that states size and SHA-256 itself and sends on to the bytes."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mri_deep_tools import models
from mri_deep_tools._registry import registry
from mri_deep_tools.cli import main

CONTENT = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Hub:
    """A server that answers as huggingface.co does: a redirect with facts, then the bytes."""

    def __init__(self) -> None:
        self.facts = {"X-Linked-ETag": f'"{DIGEST}"', "X-Linked-Size": str(len(CONTENT))}
        self.content, self.asked = CONTENT, []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                hub.asked.append(("HEAD", self.path))
                self.head()

            def do_GET(self):
                hub.asked.append(("GET", self.path))
                if self.path.startswith("/resolve"):
                    self.head()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(hub.content)))
                self.end_headers()
                self.wfile.write(hub.content)

            def head(self):
                if not self.path.startswith("/resolve/main/"):
                    self.send_error(404)
                    return
                self.send_response(302)
                self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/blob")
                for name, value in hub.facts.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    place = Hub()
    file = {"name": "atlas.nii.gz", "stated": True}
    file["sources"] = [f"http://127.0.0.1:{place.server.server_port}/resolve/main/atlas.nii.gz"]
    entry = {"name": "atlas", "task": "template", "description": "An atlas", "bundled": False, "files": [file]}
    entry |= {"licence": "none stated", "citation": ["A"], "input_needs": {"dims": 3}, "pages": []}
    listed = tmp_path / "registry.json"
    listed.write_text(json.dumps({"format": 1, "models": [entry]}))
    monkeypatch.setenv("MRI_DEEP_TOOLS_REGISTRY", str(listed))
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MRI_DEEP_TOOLS_OFFLINE", raising=False)
    yield place
    place.server.shutdown()
    place.server.server_close()


def test_the_file_comes_whole_and_its_checksum_is_recorded(hub, capsys):
    assert main(["models", "download", "atlas"]) == 0
    assert "nobody published a checksum of atlas.nii.gz" in capsys.readouterr().err
    path = models.model_path("atlas")
    assert path.read_bytes() == CONTENT
    records = [item.read_text() for item in path.parent.iterdir() if item.suffix == ".json"]
    assert any(DIGEST in text for text in records)
    count = len(hub.asked)
    assert main(["models", "download", "atlas", "--progress", "none"]) == 0
    assert len(hub.asked) == count  # it is here: nobody is asked again
    assert main(["models", "verify", "atlas"]) == 0
    path.write_bytes(CONTENT[:-1] + b"x")
    assert main(["models", "verify", "atlas"]) != 0


def test_other_content_than_was_stated_is_refused(hub, tmp_path, capsys):
    hub.content = CONTENT[:-1] + b"x"
    assert main(["models", "download", "atlas", "--progress", "none"]) == 1
    assert "other content" in capsys.readouterr().err
    assert models.model_status("atlas") == "absent"


@pytest.mark.parametrize(
    "facts", [{}, {"X-Linked-Size": "9"}, {"X-Linked-ETag": '"abc"', "X-Linked-Size": "9"}, {"X-Linked-ETag": DIGEST}]
)
def test_without_facts_nothing_is_fetched(hub, facts, capsys):
    hub.facts = facts
    assert main(["models", "download", "atlas", "--progress", "none"]) == 1
    assert "states no checksum of atlas.nii.gz" in capsys.readouterr().err
    assert [kind for kind, _ in hub.asked] == ["HEAD"]


def test_a_place_that_cannot_be_reached_is_named(hub, capsys):
    hub.server.shutdown()
    hub.server.server_close()
    assert main(["models", "download", "atlas", "--progress", "none"]) == 1
    assert "could not be fetched from 127.0.0.1" in capsys.readouterr().err


def test_what_the_list_says_of_published_files():
    stated = {model.name for model in registry() for file in model.files if file.stated}
    assert stated == {"baby-ai", "baby-ai-atlas"}
