"""Set-up with a real pip, real wheels and a scratch folder: this environment is never changed."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest
from glue_helpers import REPOSITORY

VERSION = "9.9.1"


def make_wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = (), body: str = "") -> Path:
    """Write a pure wheel with one module."""
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {text}" for text in requires]
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{module}/__init__.py", f'__version__ = "{version}"\n{body}')
        archive.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        names = [*archive.namelist(), f"{info}/RECORD"]
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in names))
    return path


def make_environment(folder: Path) -> tuple[Path, Path]:
    """Make a virtual environment with a copy of this one's pip; return its interpreter and where packages go."""
    import pip

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    source = Path(pip.__file__).parent
    shutil.copytree(source, site / "pip")  # with its compiled files, which save seconds
    info = next(source.parent.glob("pip-*.dist-info"))
    shutil.copytree(info, site / info.name)
    return folder / "bin" / "python", site


class Scratch:
    """An extension with its own wheel, a folder of other wheels, and the folder where things get installed."""

    def __init__(self, root: Path, monkeypatch):
        from MRIDeepToolsLib import packages, processes, settings, setup_core

        self.setup, self.packages, self.settings = setup_core, packages, settings
        self.extension, self.wheels = root / "the extension", root / "wheels \u00e9"
        for folder in (self.extension, self.wheels):
            folder.mkdir()
        self.python, self.site = make_environment(root / "environment")
        monkeypatch.setattr(processes, "python_slicer", lambda: str(self.python))
        monkeypatch.setattr(setup_core, "_HERE", self.extension)
        monkeypatch.setattr(setup_core, "_SEARCH_PATH", [str(self.site)])
        monkeypatch.setenv("PIP_NO_COMPILE", "1")
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        settings.set_value("wheelFolder", str(self.wheels))
        self.asked, self.lines = [], []

    def carry_core(self, version: str = VERSION, requires: tuple[str, ...] = ("torch>=2.3", "tiny-package>=1.0")):
        return make_wheel(self.extension / "Resources" / "Wheels", "mri-deep-tools", version, requires)

    def offer(self, name: str, version: str, requires: tuple[str, ...] = ()):
        return make_wheel(self.wheels, name, version, requires)

    def offer_all(self):
        self.carry_core()
        self.offer("torch", "2.9.0")
        self.offer("tiny-package", "1.2")

    def all_installed(self):
        """Put the core and what it needs in place as pip would, but faster."""
        self.offer_all()
        for path in (*self.wheels.glob("*.whl"), self.setup.core_source()):
            with zipfile.ZipFile(path) as archive:
                archive.extractall(self.site)
        assert self.setup.state().ready

    def ask(self, answer: bool):
        def asked(question, details):
            self.asked.append((question, details))
            return answer

        return asked

    def ensure(self, answer: bool = True, **options):
        return self.setup.ensure_core(self.ask(answer), self.lines.append, **options)

    def installed(self) -> dict[str, str]:
        names = ("mri-deep-tools", "torch", "tiny-package", "numpy")
        found = {name: self.packages.installed_version(name, [str(self.site)]) for name in names}
        return {name: version for name, version in found.items() if version}


@pytest.fixture
def scratch(host, tmp_path, monkeypatch):
    return Scratch(tmp_path, monkeypatch)


# -------------------------------------------------------------------------------------------------------- the good case


def test_everything_from_a_folder_of_wheels(scratch):
    scratch.offer_all()
    before = scratch.setup.state()
    assert not before.ready and len(before.problems) == 2 and before.core_wanted == VERSION
    steps = []
    after = scratch.ensure(on_step=steps.append)
    assert after.ready and after.problems == [] and after == scratch.setup.state()
    assert scratch.installed() == {"mri-deep-tools": VERSION, "torch": "2.9.0", "tiny-package": "1.2"}
    assert len(scratch.asked) == 1 and "torch" in scratch.asked[0][1] and VERSION in scratch.asked[0][1]
    assert steps == ["Installing PyTorch", "Installing the core"]
    log = "\n".join(scratch.lines)
    assert "Successfully installed" in log and log.rstrip().endswith("Set-up complete.")
    # A second time there is nothing to ask and nothing to do.
    scratch.asked.clear()
    assert scratch.ensure(answer=False).ready and scratch.asked == []


def test_extras_are_asked_for_and_installed(scratch):
    """What an extra adds is nothing that the core misses; it is named, asked for once, and installed."""
    wheel = scratch.carry_core(requires=("torch>=2.3", "tiny-package>=1.0", 'more-package>=2; extra == "more"'))
    scratch.offer("torch", "2.9.0")
    scratch.offer("tiny-package", "1.2")
    for path in (*scratch.wheels.glob("*.whl"), wheel):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(scratch.site)
    assert scratch.setup.state().ready
    assert scratch.setup.missing_extras(()) == []
    assert scratch.setup.missing_extras(("other",)) == []
    assert scratch.setup.missing_extras(("more", "other")) == ["more-package>=2"]
    scratch.offer("more-package", "2.1")
    with pytest.raises(scratch.setup.SetupDeclined):
        scratch.setup.ensure_extras(("more",), scratch.ask(False))
    assert scratch.packages.installed_version("more-package", [str(scratch.site)]) is None
    scratch.setup.ensure_extras(("more",), scratch.ask(True), scratch.lines.append)
    assert scratch.packages.installed_version("more-package", [str(scratch.site)]) == "2.1"
    scratch.setup.ensure_extras(("more",), scratch.ask(True))
    assert len(scratch.asked) == 2
    assert all("more-package>=2" in question for question, _details in scratch.asked)


def test_version_that_does_not_fit_is_repaired(scratch):
    scratch.all_installed()
    scratch.extension.joinpath("Resources", "Wheels").rename(scratch.extension / "old")
    scratch.carry_core("9.9.2", ("torch>=2.3", "tiny-package>=1.3"))
    state = scratch.setup.state()
    assert not state.ready and not state.core_fits and "9.9.1" in state.problems[0] and "9.9.2" in state.problems[0]
    scratch.offer("tiny-package", "1.4")
    scratch.asked.clear()
    assert scratch.ensure().core_version == "9.9.2"
    assert scratch.installed()["tiny-package"] == "1.4" and scratch.installed()["torch"] == "2.9.0"
    assert "torch" not in scratch.asked[0][1]


def test_missing_requirement_is_seen_and_repaired(scratch):
    scratch.all_installed()
    for path in scratch.site.glob("tiny_package*"):
        shutil.rmtree(path)
    state = scratch.setup.state()
    assert state.core_fits and not state.ready and state.unmet == ["tiny-package>=1.0"]
    assert "tiny-package" in state.problems[0]
    assert scratch.ensure().ready


def test_repair_installs_again(scratch):
    scratch.all_installed()
    broken = scratch.site / "mri_deep_tools" / "__init__.py"
    broken.write_text("broken")
    scratch.ensure(repair=True)
    assert "broken" not in broken.read_text() and len(scratch.asked) == 1


def test_files_that_are_gone_are_brought_back(scratch):
    """Metadata of the right version alone does not make a core."""
    scratch.all_installed()
    shutil.rmtree(scratch.site / "mri_deep_tools")
    state = scratch.setup.state()
    assert not state.ready and state.problems == ["The files of the core are missing."]
    scratch.ensure()
    assert (scratch.site / "mri_deep_tools" / "__init__.py").is_file()


def test_source_tree_of_a_developer(scratch, monkeypatch):
    """Without a wheel the source tree is installed, and nothing is left in it."""
    source = REPOSITORY / "MRIDeepTools"
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(source / name, scratch.extension)
    package = scratch.extension / "mri_deep_tools"
    package.mkdir()
    (package / "__init__.py").write_text('"""Part of the core."""\n__version__ = "0.1.2"\n')
    assert scratch.setup.core_source() == scratch.extension and scratch.setup.state().core_wanted == "0.1.2"
    built = []
    monkeypatch.setattr(scratch.setup, "_pip", lambda words, log: built.append([*words]))
    scratch.setup._install_core(scratch.lines.append, repair=False)
    assert len(built) == 1 and built[0][-1] != str(scratch.extension)
    assert sorted(path.name for path in scratch.extension.iterdir()) == [
        "README.md",
        "mri_deep_tools",
        "pyproject.toml",
    ]


# ------------------------------------------------------------------------------------------------- what must not happen


def test_declined_changes_nothing(scratch):
    scratch.offer_all()
    with pytest.raises(scratch.setup.SetupDeclined, match="declined"):
        scratch.ensure(answer=False)
    assert scratch.installed() == {} and len(scratch.asked) == 1


def test_nothing_is_installed_unasked(host, scratch):
    """Without an own question the dialog is asked; in the testing mode of a build machine nobody says yes."""
    scratch.offer_all()
    host.dialogs.answer(False)
    with pytest.raises(scratch.setup.SetupDeclined):
        scratch.setup.ensure_core()
    assert len(host.dialogs.shown) == 1 and scratch.installed() == {}


def test_state_and_import_start_nothing(scratch, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **options: pytest.fail("a process was started"))
    before = set(sys.modules)
    assert scratch.setup.state().torch_version is None
    assert not {"torch", "mri_deep_tools"} & (set(sys.modules) - before)


def test_bundled_packages_are_never_replaced(scratch):
    """A core that asks for another numpy fails with a sentence; numpy stays as it is."""
    make_wheel(scratch.wheels, "numpy", "99.0")
    scratch.site.joinpath("numpy-1.26.4.dist-info").mkdir()
    (scratch.site / "numpy-1.26.4.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.4\n"
    )
    scratch.carry_core(requires=("torch>=2.3", "numpy>=99"))
    scratch.offer("torch", "2.9.0")
    with pytest.raises(scratch.setup.SetupError, match="installation failed"):
        scratch.ensure()
    assert scratch.installed()["numpy"] == "1.26.4" and "mri-deep-tools" not in scratch.installed()
    assert "constraint" in "\n".join(scratch.lines)


def test_constraints_hold_what_is_installed(host, tmp_path):
    from importlib import metadata

    from MRIDeepToolsLib import packages

    lines = packages.write_constraints(tmp_path / "c.txt", ["torch"]).read_text().split()
    assert f"numpy=={metadata.version('numpy')}" in lines and f"torch=={metadata.version('torch')}" in lines
    assert not any(line.startswith("highdicom") for line in lines)  # not installed here
    assert all(packages._requirement_class()(line) for line in lines)


def test_damaged_wheel_is_told(scratch):
    scratch.all_installed()
    (scratch.site / "mri_deep_tools" / "__init__.py").unlink()
    path = scratch.setup.core_source()
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(scratch.setup.SetupError, match="installation failed"):
        scratch.ensure()
    assert not scratch.setup.state().ready


def test_wrong_checksum_is_told(scratch):
    """A wheel whose content is not that of its hash is refused by pip; the sentence says so."""
    scratch.offer_all()
    wheel = scratch.offer("tiny-package", "1.9")
    page = scratch.wheels / "index" / "tiny-package"
    page.mkdir(parents=True)
    page.joinpath("index.html").write_text(f'<a href="{wheel.as_uri()}#sha256={"0" * 64}">{wheel.name}</a>')
    with pytest.raises(scratch.setup.SetupError, match=r"installation failed.*(HASH|hash)"):
        scratch.setup._pip(
            ["--find-links", page.joinpath("index.html").as_uri(), "tiny-package==1.9"], scratch.lines.append
        )
    assert "tiny-package" not in scratch.installed()


@pytest.mark.parametrize("case", ["no torch wheel", "no folder", "missing requirement", "network forbidden", "no core"])
def test_offline_faults_are_sentences(scratch, case):
    scratch.offer_all()
    pieces = {
        "no torch wheel": "no wheel of torch",
        "no folder": "does not exist",
        "missing requirement": "tiny-package",
        "network forbidden": "forbid",
        "no core": "incomplete",
    }
    if case == "no torch wheel":
        next(scratch.wheels.glob("torch*")).unlink()
    elif case == "no folder":
        scratch.settings.set_value("wheelFolder", str(scratch.wheels / "gone"))
    elif case == "missing requirement":
        next(scratch.wheels.glob("tiny*")).unlink()
    elif case == "network forbidden":
        scratch.settings.set_value("wheelFolder", "")
        scratch.settings.set_value("offline", True)
    else:
        scratch.setup.core_source().unlink()
    with pytest.raises(scratch.setup.SetupError, match=pieces[case]):
        scratch.ensure()
    assert "mri-deep-tools" not in scratch.installed()


def test_no_network_is_told(scratch, monkeypatch):
    """A proxy that is not there: the sentence speaks of the network."""
    scratch.offer_all()
    scratch.settings.set_value("wheelFolder", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "1")
    with pytest.raises(scratch.setup.SetupError, match="network"):
        scratch.setup._pip(["tiny-package"], scratch.lines.append)


# -------------------------------------------------------------------------------------------------------------- torch


class PyTorchUtils:
    """The interface of the PyTorch extension, which installs from our folder."""

    def __init__(self, scratch, answer=True):
        self.scratch, self.answer, self.calls = scratch, answer, []

    def PyTorchUtilsLogic(self):  # noqa: N802 - its name
        return self

    def installTorch(self, **options):  # noqa: N802
        self.calls.append(options)
        if not self.answer:
            return None
        words = ["--no-index", "--find-links", str(self.scratch.wheels), "torch"]
        subprocess.run([str(self.scratch.python), "-m", "pip", "install", "-q", *words], check=True)
        return object()


def test_torch_comes_through_its_extension(scratch, monkeypatch):
    scratch.offer_all()
    scratch.settings.set_value("wheelFolder", "")
    extension = PyTorchUtils(scratch)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", scratch.wheels.as_uri())
    assert scratch.ensure().ready
    assert extension.calls == [{"askConfirmation": False, "torchVersionRequirement": ">=2.3"}]


def test_torch_declined_in_its_extension(scratch, monkeypatch):
    scratch.offer_all()
    scratch.settings.set_value("wheelFolder", "")
    monkeypatch.setitem(sys.modules, "PyTorchUtils", PyTorchUtils(scratch, answer=False))
    with pytest.raises(scratch.setup.SetupDeclined, match="PyTorch"):
        scratch.ensure()
    assert scratch.installed() == {}


def test_missing_extension_is_named_and_cpu_is_offered(scratch, monkeypatch):
    scratch.offer_all()
    scratch.settings.set_value("wheelFolder", "")
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    answers = iter([True, False])

    def ask(question, details):
        scratch.asked.append(question)
        return next(answers)

    with pytest.raises(scratch.setup.SetupDeclined, match="Install the extension PyTorch"):
        scratch.setup.ensure_core(ask, scratch.lines.append)
    assert "extension PyTorch" in scratch.asked[1] and scratch.installed() == {}
    # With consent pip brings it; here from our folder instead of the network.
    monkeypatch.setenv("PIP_FIND_LINKS", scratch.wheels.as_uri())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert scratch.ensure().ready


# ---------------------------------------------------------------------------------------- Slicer's own pip, where it is


@pytest.fixture
def slicer_packaging(scratch, monkeypatch):
    """Give this Slicer what 5.12 has: the two functions that are used, on Slicer's own way to run a Python module."""
    import slicer

    assert importlib.util.find_spec("slicer.packaging") is None or os.environ.get("SLICER_CHECKOUT")
    launcher = scratch.python.parent / "PythonSlicer"
    launcher.write_text(f'#!/bin/sh\nexec "{scratch.python}" "$@"\n')
    launcher.chmod(0o755)
    monkeypatch.setenv("PATH", f"{launcher.parent}{os.pathsep}{os.environ['PATH']}")
    if importlib.util.find_spec("slicer.packaging") is not None:
        return

    def pip_install(
        requirements, constraints=None, *, blocking, show_progress, requester, logCallback, completedCallback
    ):
        assert blocking is False and show_progress is False and requester
        words = ["install", *requirements, "-c", constraints]
        slicer.util.executePythonModule(
            "pip", words, blocking=False, logCallback=logCallback, completedCallback=completedCallback
        )

    module = types.ModuleType("slicer.packaging")
    module.__spec__ = importlib.machinery.ModuleSpec("slicer.packaging", None)
    module.pip_install, module.isPipInstallInProgress = pip_install, lambda: False
    monkeypatch.setitem(sys.modules, "slicer.packaging", module)
    monkeypatch.setattr(slicer, "packaging", module, raising=False)


def test_through_slicer_packaging(scratch, slicer_packaging, host):
    scratch.all_installed()
    for path in scratch.site.glob("tiny_package*"):
        shutil.rmtree(path)
    host.set_testing(True)
    assert not scratch.packages._slicer_can()  # it would block there, so our own way is used
    host.set_testing(False)
    assert scratch.packages._slicer_can()
    assert scratch.ensure().ready and "Successfully installed" in "\n".join(scratch.lines)


@pytest.mark.parametrize("own", [True, False], ids=["own", "slicer.packaging"])
def test_a_log_that_fails_does_not_hang_the_setup(scratch, slicer_packaging, monkeypatch, own):
    if own:
        monkeypatch.setattr(scratch.packages, "_slicer_can", lambda: False)
    scratch.offer("tiny-package", "1.2")
    with pytest.raises(ZeroDivisionError):
        scratch.setup._pip(["tiny-package"], lambda text: 1 / 0)
    assert scratch.installed() == {"tiny-package": "1.2"}


def test_failure_and_occupied_slicer_packaging(scratch, slicer_packaging, monkeypatch):
    import slicer

    with pytest.raises(scratch.setup.SetupError, match="no-such-package"):
        scratch.setup._pip(["no-such-package"], scratch.lines.append)
    monkeypatch.setattr(slicer.packaging, "isPipInstallInProgress", lambda: True)
    with pytest.raises(scratch.setup.SetupError, match="Another installation"):
        scratch.setup._pip(["tiny-package"], scratch.lines.append)
