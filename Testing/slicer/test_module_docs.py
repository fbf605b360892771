"""The snippets of the documentation run as they stand, and its pictures exist."""

from __future__ import annotations

import re
import sys

import pytest
from module_helpers import REPOSITORY, add_volume, use_fake_core

PAGE = REPOSITORY / "Resources" / "docs" / "slicer.md"


def snippets() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)


@pytest.fixture
def module(host, monkeypatch):
    handle = host.load("SynthSegment")
    use_fake_core(monkeypatch)
    return handle


def test_snippet_for_the_console(host, module, capsys):
    import slicer

    add_volume()
    exec(compile(snippets()[0], str(PAGE), "exec"), {"slicer": slicer})
    assert "4 structures with fake" in capsys.readouterr().out


def test_script_for_many_scans(host, module, tmp_path, monkeypatch):
    """Without main window."""
    import slicer

    host.set_main_window(False)
    for folder in ("scans", "results"):
        (tmp_path / folder).mkdir()
    for name in ("one", "two"):
        assert slicer.util.exportNode(add_volume(name), str(tmp_path / "scans" / f"{name}.nii.gz"), {})
    slicer.mrmlScene.Clear(0)
    monkeypatch.setattr(sys, "argv", ["batch.py", str(tmp_path / "scans"), str(tmp_path / "results")])
    exec(compile(snippets()[1], str(PAGE), "exec"), {"slicer": slicer})
    made = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert {"one.seg.nrrd", "two.seg.nrrd", "one.tsv", "two.tsv"} <= set(made)
    assert slicer.app._s_exit_code == 0
    assert "Left hippocampus" in (tmp_path / "results" / "one.tsv").read_text(encoding="utf-8")


def test_pictures_and_links_lead_somewhere():
    text = PAGE.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)\)", text)
    assert len(targets) >= 4
    for target in targets:
        if not target.startswith("http"):
            assert (PAGE.parent / target).is_file(), target


def test_page_names_only_controls_that_exist():
    """Words in bold are buttons, sections, modules or tabs of the panels."""
    texts = set()
    for path in REPOSITORY.glob("*/Resources/UI/*.ui"):
        texts |= set(re.findall(r"<string>([^<]+)</string>", path.read_text(encoding="utf-8")))
    for path in REPOSITORY.glob("*/*Lib/*.py"):
        texts |= set(re.findall(r'_\("([^"]+)"\)', path.read_text(encoding="utf-8")))
    texts |= {"MRI Deep Tools", "Harmonize", "SynthSegment", "DMRIUpsample", "SuperResolve"}  # titles of modules
    for words in re.findall(r"\*\*([^*]+)\*\*", PAGE.read_text(encoding="utf-8")):
        parts = words.split(" / ")
        if words[0].isupper() and "." not in words and words not in ("MRIDeepTools", "PyTorch"):
            assert all(part in texts for part in parts), words
