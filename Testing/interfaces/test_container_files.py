"""The recipe of the containers: linted, and every name in it exists. Images are built where there is an engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = REPOSITORY / "containers" / "Dockerfile"


def test_recipe_is_linted():
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint is not installed")
    made = subprocess.run([linter, RECIPE], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout


def test_what_is_copied_exists_and_enters_the_build():
    text = RECIPE.read_text()
    sources = [word for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.M) for word in line.split()]
    assert sources == ["MRIDeepTools/pyproject.toml", "MRIDeepTools/README.md", "MRIDeepTools/mri_deep_tools"]
    kept = (REPOSITORY / ".dockerignore").read_text().splitlines()
    for source in sources:
        assert (REPOSITORY / source).exists()
        assert f"!{source}" in kept


def test_extras_and_settings_exist():
    text = RECIPE.read_text()
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
    project = tomllib.loads((REPOSITORY / "MRIDeepTools" / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"\.\[([\w,]+)\]", text):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])
    code = "".join(path.read_text() for path in (REPOSITORY / "MRIDeepTools" / "mri_deep_tools").glob("*.py"))
    for name in set(re.findall(r"MRI_DEEP_TOOLS_\w+", text)):
        assert name in code
    assert re.findall(r"^USER (\S+)$", text, re.M) == ["1000:1000"]  # a number: engines can tell that it is not root


@pytest.mark.slow
def test_the_image_works_read_only_without_network(tmp_path):
    engine = shutil.which("docker") or shutil.which("podman")
    if engine is None or subprocess.run([engine, "info"], capture_output=True).returncode:
        pytest.skip("no container engine runs here")
    build = [engine, "build", "-f", RECIPE, "--target", "cpu", "-t", "mri-deep-tools:test", REPOSITORY]
    subprocess.run(build, check=True)
    limits = ["--rm", "--read-only", "--tmpfs", "/tmp", "--network", "none"]
    words = [engine, "run", *limits, "mri-deep-tools:test", "info"]
    made = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "synthseg-lite: bundled" in made.stdout
