"""The rules of the house that a machine can check: imports, documentation, metadata, sizes, versions."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CORE = REPOSITORY / "MRIDeepTools" / "mri_deep_tools"
HEAVY = ("torch", "nibabel", "SimpleITK", "h5py", "scipy", "matplotlib", "lightning")
FORBIDDEN = {"slicer", "qt", "ctk", "vtk", "PySide6"}


def core_files() -> list[Path]:
    return sorted(CORE.rglob("*.py"))


def repository_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := REPOSITORY / name).is_file()]


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


# ------------------------------------------------------------------------------------------------------------ imports


def test_import_is_quick_and_light():
    code = (
        "import sys, time; begin = time.process_time(); import mri_deep_tools, mri_deep_tools.cli; "
        f"print(time.process_time() - begin, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    runs = [python(code) for _ in range(3)]
    assert all(run.endswith("[]") for run in runs), runs[0]
    assert min(float(run.split()[0]) for run in runs) < 0.5


@pytest.mark.parametrize("words", [["--help"], ["segment", "--help"], ["models", "--help"], ["--version"]])
def test_help_needs_no_torch(words):
    code = (
        f"import sys; from mri_deep_tools.cli import main; status = main({words!r}); "
        "print('torch' in sys.modules, status)"
    )
    assert python(code).endswith("False 0")


def test_core_never_imports_slicer():
    broken = {path.name: found for path in core_files() if (found := imported_packages(path) & FORBIDDEN)}
    assert broken == {}


# --------------------------------------------------------------------------------------------------- documentation


def public_definitions(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Yield the public classes and functions of a module, and the public methods of its public classes."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for item in node.body:
                    if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
                        yield f"{node.name}.{item.name}", item


def missing_annotations(node: ast.AST, method: bool) -> list[str]:
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return []
    static = any(isinstance(item, ast.Name) and item.id == "staticmethod" for item in node.decorator_list)
    arguments = [*node.args.posonlyargs, *node.args.args]
    arguments = arguments[1:] if method and not static else arguments
    arguments += node.args.kwonlyargs + [item for item in (node.args.vararg, node.args.kwarg) if item]
    return [item.arg for item in arguments if item.annotation is None] + ([] if node.returns else ["return"])


def overrides_documented(node: ast.AST) -> bool:
    names = [item.id for item in getattr(node, "decorator_list", []) if isinstance(item, ast.Name)]
    names += [item.attr for item in getattr(node, "decorator_list", []) if isinstance(item, ast.Attribute)]
    return bool({"overload", "setter", "override"} & set(names))


@pytest.mark.parametrize("path", core_files(), ids=lambda path: path.relative_to(CORE).as_posix())
def test_public_names_are_documented_and_typed(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or path.name == "__main__.py", f"{path.name} has no docstring"
    if path.name.startswith("_") and path.name != "__init__.py":
        return  # a private module
    for name, node in public_definitions(path):
        assert ast.get_docstring(node) or overrides_documented(node), f"{path.name}: {name} has no docstring"
        assert missing_annotations(node, "." in name) == [], f"{path.name}: {name}"


def own_lines(function: ast.AST) -> int:
    """Count the lines of a function without those of the functions and classes inside it."""
    inner = [node for node in ast.iter_child_nodes(function) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return function.end_lineno - function.lineno - sum(node.end_lineno - node.lineno for node in inner)


@pytest.mark.parametrize("path", core_files(), ids=lambda path: path.relative_to(CORE).as_posix())
def test_no_loose_ends(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)
    assert len(text.splitlines()) <= 500, f"{path.name} says more than one thing"
    for node in ast.walk(ast.parse(text)):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{path.name}:{node.lineno}"
        assert not isinstance(node, ast.Assert), f"{path.name}:{node.lineno}: assert does not survive python -O"
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert own_lines(node) < 80, f"{path.name}: {node.name} does not fit on a screen"


# --------------------------------------------------------------------------------------------------------- packaging


def requirements() -> dict[str, str]:
    """Return the base requirements of the package: name -> specifier."""
    text = (REPOSITORY / "MRIDeepTools" / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.S | re.M)
    assert block, "no dependencies in pyproject.toml"
    items = re.findall(r'"([A-Za-z0-9_.-]+)([^"]*)"', block[1])
    return {name.lower(): specifier for name, specifier in items}


@pytest.mark.parametrize(
    ("name", "bundled"),
    [("numpy", "2.0.2"), ("numpy", "2.4.6"), ("scipy", "1.17.0"), ("scipy", "1.13.0"), ("simpleitk", "2.5.0")],
)
def test_slicers_own_packages_are_never_replaced(name, bundled):
    specifier = requirements()[name]
    lower = re.fullmatch(r">=([0-9.]+)", specifier)
    assert lower, f"{name}{specifier}: only a lower bound lets pip leave Slicer's copy alone"
    assert tuple(map(int, bundled.split("."))) >= tuple(map(int, lower[1].split(".")))


def test_base_requirements_are_only_what_inference_needs():
    allowed = ["numpy", "scipy", "simpleitk", "nibabel", "torch", "safetensors", "h5py", "tqdm", "psutil", "filelock"]
    assert set(requirements()) <= set(allowed)


def test_requirements_are_really_used():
    modules = set().union(*(imported_packages(path) for path in core_files()))
    assert {name.lower() for name in modules} >= set(requirements()) - {"simpleitk", "filelock"}


def test_versions_agree():
    from mri_deep_tools import __version__

    number = re.match(r"\d+\.\d+\.\d+", __version__)[0]
    patterns = {
        "CMakeLists.txt": r'set\(MRIDeepTools_VERSION "([^"]+)"\)',
        "CHANGELOG.md": r"^## \[([^\]]+)\]",
        "CITATION.cff": r"^version: (\S+)",
    }
    for name, pattern in patterns.items():
        found = re.search(pattern, (REPOSITORY / name).read_text(encoding="utf-8"), re.M)
        assert found, f"{name} names no version"
        assert found[1] == number, name


def test_every_changelog_entry_says_whether_results_change():
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.findall(r"^- (.*?)(?=^- |^#|\Z)", text, re.S | re.M)
    assert entries
    for entry in entries:
        assert re.search(r"Results\s+change: (yes|no)", entry), entry


def test_citation_names_the_papers():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == "Apache-2.0"
    assert citation["authors"] and citation["title"] and citation["message"]
    references = citation["references"]
    assert {entry.get("doi") for entry in references} >= {
        "10.1016/j.media.2023.102789",
        "10.1073/pnas.2216399120",
        "10.1016/j.media.2024.103388",
        "10.48550/arXiv.2207.08208",
        "10.48550/arXiv.2203.15598",
    }
    assert any("9222513" in entry.get("notes", "") for entry in references)
    assert any(entry["title"] == "AxonDeepSynth" for entry in references)
    for entry in references:
        assert entry["title"] and entry["authors"] and entry["type"], entry


def test_licence_is_the_whole_apache_text():
    text = (REPOSITORY / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


# -------------------------------------------------------------------------------------------------------- repository


def test_no_big_files():
    big = {path.name: path.stat().st_size for path in repository_files() if path.stat().st_size > 15 << 20}
    assert big == {}


def test_bundled_weights_are_small_and_described():
    for folder in (path for path in (CORE / "weights").glob("*") if path.is_dir()):
        assert (folder / "README.md").is_file(), f"{folder.name} has no model card"
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert size <= 12 << 20, f"{folder.name}: {size} bytes"


def test_makefile_has_the_targets():
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test", "check", "test-slow", "benchmark", "wheel", "clean"):
        assert re.search(rf"^{target}:", text, re.M), target
        assert re.search(rf"^\.PHONY:.*\b{target}\b", text, re.M), target


def test_extension_metadata_is_complete():
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    order = ["cmake_minimum_required(", "project(MRIDeepTools)"]
    order += [f"set(EXTENSION_{key} " for key in ("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL")]
    order += ["set(EXTENSION_SCREENSHOTURLS ", "set(EXTENSION_DEPENDS ", "find_package(Slicer REQUIRED)"]
    order += ["include(${Slicer_USE_FILE})", "## NEXT_MODULE", "include(${Slicer_EXTENSION_GENERATE_CONFIG})"]
    order += ["include(${Slicer_EXTENSION_CPACK})"]
    places = [text.find(item) for item in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)
    modules = re.search(r"set\(MRIDeepTools_MODULES\n(.*?)\)", text, re.S)[1].split()
    for module in modules:
        assert (REPOSITORY / module / "CMakeLists.txt").is_file(), module


# ------------------------------------------------------------------------------------------------------------- README


def readme_commands() -> list[list[str]]:
    """Return the words of each `mri-deep-tools ...` line in the code blocks of the README."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.S | re.M)
    shell = [block for language, block in blocks if language in ("", "sh", "bash", "shell", "console")]
    lines = "\n".join(shell).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].split()[1:] for line in lines if line.startswith("mri-deep-tools ")]


def test_readme_shows_commands_and_options_that_exist(capsys):
    from mri_deep_tools.cli import COMMANDS, main

    shown = readme_commands()
    assert {words[0] for words in shown if not words[0].startswith("-")} == set(COMMANDS)
    for words in shown:
        assert main([words[0], "--help"]) == 0
        text = capsys.readouterr().out
        if re.search(r"\[-h\] (ACTION|SYSTEM|TASK) ", text):  # the options stand with the action
            assert main([*words[:2], "--help"]) == 0
            text = capsys.readouterr().out
        for option in (word for word in words[1:] if word.startswith("--")):
            assert re.search(rf"{re.escape(option)}\b", text), f"{words[0]} has no option {option}"


def test_readme_names_the_two_commands_and_the_packages():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for needed in ("make demo", "make test", "apt-get install", "esearch use only"):
        assert needed in text, needed


def test_readme_links_lead_somewhere():
    for path in (REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "MRIDeepTools" / "README.md"):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (path.parent / target).exists(), f"{path.name}: {target}"
