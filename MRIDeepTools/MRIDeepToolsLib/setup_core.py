"""Set-up: brings torch and the core into Slicer's Python, when a person asks for it and agrees; never at start-up.

First torch through the PyTorch extension, which chooses the build that suits the graphics card, then the core from the
wheel that the extension carries, so that both always fit together. Slicer's own packages keep their versions.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import slicer

from . import packages, settings
from .errors import SetupDeclined, SetupError
from .i18n import _

__all__ = [
    "CORE",
    "SetupDeclined",
    "SetupError",
    "SetupState",
    "core_source",
    "ensure_core",
    "ensure_extras",
    "missing_extras",
    "state",
]

CORE = "mri-deep-tools"
TORCH_NEEDED = ">=2.3"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

_HERE = Path(__file__).resolve().parent.parent
_SEARCH_PATH: Optional[Sequence[str]] = None
"""Where installed packages are looked for: None for the path of this interpreter. Tests put a scratch folder here."""

Ask = Callable[[str, str], bool]
Log = Callable[[str], None]


@dataclass(frozen=True)
class SetupState:
    """What is installed and what is missing; made without importing any of it."""

    core_version: str | None
    """Installed version of the core."""
    core_wanted: str | None
    """Version that belongs to this extension; None when neither wheel nor source came with it."""
    torch_version: str | None
    unmet: list[str] = field(default_factory=list)
    """Requirements of the core that are missing or of the wrong version, other than torch."""
    core_present: bool = True
    """False when the list of packages names the core, but its files are gone."""

    @property
    def core_fits(self) -> bool:
        """True when the core is installed in the version that belongs to this extension."""
        return self.core_present and self.core_version is not None and self.core_wanted in (None, self.core_version)

    @property
    def ready(self) -> bool:
        """True when nothing needs to be installed."""
        return self.core_fits and self.torch_version is not None and not self.unmet

    @property
    def problems(self) -> list[str]:
        """What has to be done, in sentences; empty when ready."""
        found = []
        if self.torch_version is None:
            found.append(_("PyTorch is not installed."))
        if self.core_version is None:
            found.append(_("The core of MRI Deep Tools is not installed."))
        elif not self.core_present:
            found.append(_("The files of the core are missing."))
        elif not self.core_fits:
            text = _("The core has version {found}; this extension needs {wanted}.")
            found.append(text.format(found=self.core_version, wanted=self.core_wanted))
        if self.unmet:
            found.append(_("Packages are missing or too old: {names}.").format(names=", ".join(self.unmet)))
        return found


def state() -> SetupState:
    """Return what is installed. Cheap: reads metadata, imports nothing, starts nothing."""
    core = packages.installed_version(CORE, _SEARCH_PATH)
    torch = packages.installed_version("torch", _SEARCH_PATH)
    unmet = packages.unmet_requirements(CORE, _SEARCH_PATH) if core else []
    torch_unmet = [text for text in unmet if re.match(r"torch\b", text)]
    return SetupState(
        core_version=core,
        core_wanted=_version_of(core_source()),
        torch_version=None if torch_unmet else torch,
        unmet=[text for text in unmet if text not in torch_unmet],
        core_present=core is None or _core_present(),
    )


def core_source() -> Path | None:
    """Return what the core is installed from: the newest wheel of the extension, else the source tree beside it."""
    wheels = sorted(
        (_HERE / "Resources" / "Wheels").glob("mri_deep_tools-*.whl"), key=lambda path: path.stat().st_mtime
    )
    if wheels:
        return wheels[-1]
    return _HERE if (_HERE / "pyproject.toml").is_file() and (_HERE / "mri_deep_tools").is_dir() else None


def ensure_core(
    ask: Ask | None = None,
    log: Log | None = None,
    *,
    repair: bool = False,
    on_step: Callable[[str], None] | None = None,
) -> SetupState:
    """Install what is missing, after asking once, and return the new state.

    Parameters
    ----------
    ask :
        Called as ``ask(question, details)`` with the list of what will be installed; returns whether to go on. None
        asks in a dialog; in Slicer's testing mode that is never answered with yes, so nothing is installed.
    log : receives lines of text.
    repair : install the core again even when its version is right.
    on_step : told what begins, in a few words.

    Raises
    ------
    SetupDeclined : the person did not agree; nothing was changed.
    SetupError : the installation is not possible or failed; the message says why and what to do.

    """
    now = state()
    if now.ready and not repair:
        return now
    ask, log, on_step = ask or _ask_in_dialog, log or _nothing, on_step or _nothing
    if core_source() is None:
        raise SetupError(_("The extension is incomplete: it carries no core. Install the extension again."))
    _check_network()
    names = _things_to_install(now, repair)
    question = _("{count} Python packages or more will be installed into Slicer. Continue?").format(count=len(names))
    if not ask(question, "\n".join(names)):
        raise SetupDeclined(_("The set-up was declined, so nothing was installed. Press Set up when you are ready."))
    if now.torch_version is None:
        on_step(_("Installing PyTorch"))
        _install_torch(ask, log)
    on_step(_("Installing the core"))
    _install_core(log, repair=repair)
    after = state()
    if not after.ready:
        raise SetupError(_("The set-up is not complete: {reasons}").format(reasons=" ".join(after.problems)))
    log(_("Set-up complete."))
    return after


def missing_extras(extras: Sequence[str]) -> list[str]:
    """Return what extras of the core (``dmri``, ``report``) need and what is not installed; cheap, imports nothing."""
    return packages.unmet_requirements(CORE, _SEARCH_PATH, extras) if extras else []


def ensure_extras(extras: Sequence[str], ask: Ask | None = None, log: Log | None = None) -> None:
    """Install what extras of the installed core need, after asking once.

    Raises
    ------
    SetupDeclined, SetupError : as for :func:`ensure_core`.

    """
    missing = missing_extras(extras)
    if not missing:
        return
    ask, log = ask or _ask_in_dialog, log or _nothing
    _check_network()
    question = _("For what you have chosen, further Python packages will be installed into Slicer: {names}. Continue?")
    if not ask(question.format(names=", ".join(missing)), "\n".join(missing)):
        raise SetupDeclined(_("The installation was declined, so nothing was installed and nothing was started."))
    _pip(missing, log)
    if missing_extras(extras):
        raise SetupError(_("Packages are missing or too old: {names}.").format(names=", ".join(missing_extras(extras))))


def _things_to_install(now: SetupState, repair: bool) -> list[str]:
    names = [] if now.torch_version else [f"torch {TORCH_NEEDED}"]
    if repair or not now.core_fits:
        names.append(f"{CORE} {now.core_wanted or ''}".strip())
    return names + (now.unmet or ([] if now.core_version else [_("and the small packages that these need")]))


def _check_network() -> None:
    if settings.get("offline") and not settings.get("wheelFolder"):
        raise SetupError(
            _(
                "The settings forbid the use of the network. Set a folder of wheels in the settings, or allow the "
                "network."
            )
        )
    folder = settings.get("wheelFolder")
    if folder and not Path(folder).is_dir():
        raise SetupError(_("The folder of wheels in the settings does not exist."))


# -------------------------------------------------------------------------------------------------------------- torch


def _install_torch(ask: Ask, log: Log) -> None:
    if settings.get("wheelFolder"):
        if not any(Path(settings.get("wheelFolder")).glob("torch-*.whl")):
            raise SetupError(_("The folder of wheels holds no wheel of torch for this system."))
        _pip([f"torch{TORCH_NEEDED}"], log)
        return
    try:
        import PyTorchUtils
    except ImportError:
        _install_plain_torch(ask, log)
        return
    log(_("PyTorch is installed by the extension PyTorch; this takes some minutes."))
    try:
        module = PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=False, torchVersionRequirement=TORCH_NEEDED
        )
    except Exception as error:  # the extension lets errors of several libraries through
        raise SetupError(_("The extension PyTorch could not install it: {reason}").format(reason=error)) from error
    if module is None:
        raise SetupDeclined(_("PyTorch was not installed, so the set-up stopped."))


def _install_plain_torch(ask: Ask, log: Log) -> None:
    """Offer the build without graphics card, which needs no choice."""
    question = _(
        "The extension PyTorch is not installed; it finds the PyTorch that suits your graphics card. To use it, "
        "cancel, install the extension PyTorch with the Extensions Manager and restart Slicer. Or continue without "
        "it: with PyTorch for the CPU only?"
    )
    if not ask(question, f"torch {TORCH_NEEDED} (CPU)"):
        raise SetupDeclined(
            _("Install the extension PyTorch with the Extensions Manager, restart Slicer, and press Set up again.")
        )
    index = (
        [] if sys.platform == "darwin" else ["--index-url", CPU_INDEX, "--extra-index-url", "https://pypi.org/simple"]
    )
    _pip([*index, f"torch{TORCH_NEEDED}"], log)


# --------------------------------------------------------------------------------------------------------------- core


def _install_core(log: Log, *, repair: bool) -> None:
    source = core_source()
    with tempfile.TemporaryDirectory(prefix="mdt-setup-") as folder:
        if source.is_dir():  # a copy, for a build leaves files in the tree
            ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
            shutil.copytree(source / "mri_deep_tools", Path(folder) / "core" / "mri_deep_tools", ignore=ignored)
            for name in ("pyproject.toml", "README.md"):
                shutil.copy(source / name, Path(folder) / "core" / name)
            source = Path(folder) / "core"
        if repair or not state().core_present:
            _pip(["--force-reinstall", "--no-deps", str(source)], log)
        if not state().ready:
            _pip([str(source)], log)


def _core_present() -> bool:
    """Return True when the package can be found; nothing is imported."""
    if _SEARCH_PATH is None:
        return importlib.util.find_spec("mri_deep_tools") is not None
    return any((Path(folder) / "mri_deep_tools" / "__init__.py").is_file() for folder in _SEARCH_PATH)


def _pip(words: Sequence[str], log: Log) -> None:
    folder = settings.get("wheelFolder")
    offline = ["--no-index", "--find-links", folder] if folder else []
    with tempfile.TemporaryDirectory(prefix="mdt-setup-") as temporary:
        constraints = packages.write_constraints(Path(temporary) / "constraints.txt", ["torch"], _SEARCH_PATH)
        packages.pip_install([*offline, *words], constraints, log)


def _version_of(source: Path | None) -> str | None:
    """Return the version of a wheel, or of the source tree."""
    if source is None:
        return None
    if source.suffix == ".whl":
        return source.name.split("-")[1]
    text = (source / "mri_deep_tools" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r"^__version__\s*=\s*[\"']([^\"']+)", text, re.MULTILINE)
    return match[1] if match else None


def _ask_in_dialog(question: str, details: str) -> bool:
    if getattr(slicer, "app", None) is None or not hasattr(slicer.util, "confirmOkCancelDisplay"):
        return False
    title = _("MRI Deep Tools - Set up")
    return bool(slicer.util.confirmOkCancelDisplay(question, title, detailedText=details))


def _nothing(*values: Any) -> None:
    return None
