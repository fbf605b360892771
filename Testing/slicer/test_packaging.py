"""The extension as a package: file lists, CMake, catalogue entry, icons, .ui files. Needs no part of Slicer."""

from __future__ import annotations

import ast
import json
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path
from urllib.parse import urlparse

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MODULES = ("DMRIUpsample", "Harmonize", "MRIDeepTools", "SuperResolve", "SynthSegment")
STUB = REPOSITORY / "Testing" / "cmake_stub"


def cmake_list(module: str, name: str) -> list[str]:
    """Return the entries of a `set(NAME ...)` of a module's CMakeLists.txt."""
    text = (REPOSITORY / module / "CMakeLists.txt").read_text(encoding="utf-8")
    block = re.search(rf"^set\({name}\n(.*?)^  \)", text, re.S | re.M)
    assert block, f"{module} sets no {name}"
    return [entry.replace("${MODULE_NAME}", module) for entry in block[1].split()]


def files_below(folder: Path, pattern: str = "*") -> list[str]:
    return [
        path.relative_to(folder.parent if folder.name.endswith("Lib") else folder).as_posix()
        for path in folder.rglob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    ]


@pytest.mark.parametrize("module", MODULES)
def test_scripts_of_cmake_are_those_on_disk(module):
    folder = REPOSITORY / module
    on_disk = [f"{module}.py", *files_below(folder / f"{module}Lib", "*.py")]
    assert sorted(cmake_list(module, "MODULE_PYTHON_SCRIPTS")) == sorted(on_disk)


@pytest.mark.parametrize("module", MODULES)
def test_resources_of_cmake_are_those_on_disk(module):
    resources = REPOSITORY / module / "Resources"
    on_disk = [f"Resources/{name}" for name in files_below(resources) if not name.startswith("Wheels/")]
    assert sorted(cmake_list(module, "MODULE_PYTHON_RESOURCES")) == sorted(on_disk)


def test_every_folder_with_a_module_is_built():
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    built = re.search(r"set\(MRIDeepTools_MODULES\n(.*?)\)", text, re.S)[1].split()
    assert built == [path.parent.name for path in sorted(REPOSITORY.glob("*/CMakeLists.txt"))]
    assert set(MODULES) <= set(built)


# ------------------------------------------------------------------------------------------------------- configuration


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Configure and build the extension with the stand-in for Slicer's CMake package; return the build folder."""
    if not shutil.which("cmake"):
        pytest.skip("cmake is not installed (pip install cmake, or apt-get install cmake)")
    if not (shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")):
        pytest.skip("no C compiler, which CMake asks for by default")
    folder = tmp_path_factory.mktemp("build")
    options = [f"-DSlicer_DIR={STUB}", f"-DPython3_EXECUTABLE={sys.executable}"]
    if shutil.which("ninja"):
        options += ["-G", "Ninja"]
    for words in (["-S", str(REPOSITORY), "-B", str(folder), *options], ["--build", str(folder)]):
        done = subprocess.run(["cmake", *words], capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_extension_installs_whole(built, tmp_path):
    """What is installed imports from one folder, as in a real installation, and carries the wheel of the core."""
    from mri_deep_tools import __version__

    subprocess.run(["cmake", "--install", str(built), "--prefix", str(tmp_path)], check=True, capture_output=True)
    (modules,) = tmp_path.rglob("qt-scripted-modules")
    for module in MODULES:
        assert (modules / f"{module}.py").is_file()
        assert (modules / "Resources" / "UI" / f"{module}.ui").is_file()
        assert (modules / "Resources" / "Icons" / f"{module}.png").is_file()
    (wheel,) = (modules / "Resources" / "Wheels").glob("*.whl")
    assert wheel.name == f"mri_deep_tools-{__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    core = REPOSITORY / "MRIDeepTools" / "mri_deep_tools"
    expected = {f"mri_deep_tools/{name}" for name in files_below(core) if not name.endswith(".pyc")}
    assert expected <= set(names), sorted(expected - set(names))


def test_build_leaves_the_source_folder_alone(built):
    assert not (REPOSITORY / "MRIDeepTools" / "build").exists()


def test_ctest_knows_the_tests_of_slicer(built):
    listed = subprocess.run(["ctest", "-N"], cwd=built, capture_output=True, text=True, check=True).stdout
    for module in MODULES:
        assert f"py_{module}" in listed
        assert f"py_nomainwindow_qSlicer{module}ModuleGenericTest" in listed


# ---------------------------------------------------------------------------------------------------------- catalogue

ALLOWED_KEYS = {
    *("$schema", "category", "scm_url", "scm_revision", "scm_type", "build_dependencies", "build_subdirectory"),
    *("enabled", "tier", "dicom_support_rule"),
}


def extension_variable(name: str) -> str:
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    return re.search(rf'^set\(EXTENSION_{name} "([^"]*)"\)', text, re.M)[1]


def test_catalogue_entry_fits_the_schema():
    path = REPOSITORY / "MRIDeepTools.json"
    entry = json.loads(path.read_text(encoding="utf-8"))
    assert set(entry) <= ALLOWED_KEYS
    assert {"$schema", "category", "scm_url"} <= set(entry)
    assert entry["$schema"].endswith("/Schemas/slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert urlparse(entry["scm_url"]).scheme in ("https", "git")
    assert Path(entry["scm_url"]).name.startswith("Slicer")
    assert not path.stem.startswith("Slicer")
    assert entry["scm_type"] in ("git", "local")
    assert isinstance(entry["enabled"], bool)
    assert entry["tier"] in range(1, 6)
    assert entry["scm_revision"] == "main"
    assert entry["category"] == extension_variable("CATEGORY") == "Neuroimaging"
    assert f"project({path.stem})" in (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    assert entry["build_dependencies"] == extension_variable("DEPENDS").split() == ["PyTorch"]


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()[:24]
    assert data[:8] == b"\x89PNG\r\n\x1a\n", path.name
    return struct.unpack(">II", data[16:24])


def test_icons_are_128_pixels():
    icons = [REPOSITORY / module / "Resources" / "Icons" / f"{module}.png" for module in MODULES]
    for icon in [REPOSITORY / "Resources" / "MRIDeepTools.png", *icons]:
        assert png_size(icon) == (128, 128), icon.name


def test_pictures_of_the_metadata_are_in_the_repository():
    base = "https://raw.githubusercontent.com/MRIDeepTools/SlicerMRIDeepTools/main/"
    for name in ("ICONURL", "SCREENSHOTURLS"):
        for url in extension_variable(name).split():
            assert url.startswith(base)
            assert min(png_size(REPOSITORY / url.removeprefix(base))) >= 128


# ------------------------------------------------------------------------------------------------- code and .ui files


def slicer_side_files() -> list[Path]:
    files = []
    for module in MODULES:
        files += [REPOSITORY / module / f"{module}.py", *(REPOSITORY / module / f"{module}Lib").glob("*.py")]
    return sorted(files)


def top_level_imports(path: Path) -> set[str]:
    """Return the packages that a file imports when it is imported itself, `try:` and `if` included."""
    found, waiting = set(), list(ast.parse(path.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))
            waiting.extend(child for handler in getattr(node, "handlers", []) for child in handler.body)
    return found


@pytest.mark.parametrize("path", slicer_side_files(), ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_file_scope_imports_only_what_slicer_always_has(path):
    ours = {"MRIDeepToolsLib", *(f"{module}Lib" for module in MODULES), *MODULES}
    allowed = {"slicer", "qt", "ctk", "vtk", *ours, *sys.stdlib_module_names}
    assert top_level_imports(path) <= allowed


@pytest.mark.parametrize("path", slicer_side_files(), ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_files_of_the_slicer_side_parse_on_old_pythons(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 9))
    assert "torch" not in {name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in names(node)}
    assert len(text.splitlines()) <= 450, "says more than one thing"
    assert "from __future__ import annotations" in text or path.name == "__init__.py"


def names(node: ast.Import) -> list[str]:
    return [alias.name.split(".")[0] for alias in node.names]


@pytest.mark.parametrize("path", slicer_side_files(), ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_translated_strings_are_plain(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
            assert [type(item) for item in node.args] == [ast.Constant], f"{path.name}:{node.lineno}"


def ui_files() -> list[Path]:
    return sorted(REPOSITORY.glob("*/Resources/UI/*.ui"))


@pytest.mark.parametrize("path", ui_files(), ids=lambda path: path.name)
def test_ui_files_are_sound(path):
    root = ET.parse(path).getroot()
    declared = {item.findtext("class") for item in root.iter("customwidget")}
    named = [(item.get("class"), item.get("name")) for item in root.iter("widget")]
    assert {kind for kind, _ in named if kind.startswith(("ctk", "qMRML", "qSlicer"))} <= declared
    everything = [item.get("name") for tag in ("widget", "layout", "spacer") for item in root.iter(tag)]
    assert len(everything) == len(set(everything)), "names must be unique"
    assert all(name.isidentifier() for name in everything)
    assert path.stem == named[0][1]
    connected = {item.findtext("receiver") for item in root.iter("connection")}
    needing = ("qMRMLNodeComboBox", "qMRMLSegmentsTableView", "qMRMLTableView")
    needy = {name for kind, name in named[1:] if kind in needing}
    assert needy <= connected, f"without a scene: {needy - connected}"


INTERACTIVE = {
    *("QPushButton", "QCheckBox", "QComboBox", "QSpinBox", "QTableWidget"),
    *("qMRMLNodeComboBox", "ctkPathLineEdit"),
}


@pytest.mark.parametrize("path", ui_files(), ids=lambda path: path.name)
def test_every_control_explains_itself(path):
    for item in ET.parse(path).getroot().iter("widget"):
        if item.get("class") in INTERACTIVE:
            tip = item.find("property[@name='toolTip']/string")
            assert tip is not None and tip.text and tip.text.rstrip().endswith("."), item.get("name")


def test_pythons_own_paths_hold_no_module_of_ours():
    """Module files must be found by Slicer's module path, not because they were installed by pip."""
    site = Path(sysconfig.get_paths()["purelib"])
    assert not any((site / f"{module}.py").exists() for module in MODULES)
