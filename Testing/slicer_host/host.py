"""The host: one object that boots Slicer's parts in this process and drives modules in it."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .modules import ModuleHandle

REPOSITORY = Path(__file__).resolve().parents[2]


class Host:
    """Slicer in this process. Get it with :meth:`boot`."""

    _instance: Host | None = None

    @classmethod
    def boot(cls, slicer_checkout: str | Path | None = None, main_window: bool = True) -> Host:
        """Start the application, scene and modules once per process; later calls return the same host.

        Args:
            slicer_checkout: folder of a Slicer source tree whose Python files, colour tables and terminologies are
                used instead of the host's own; default is the environment variable SLICER_CHECKOUT.
            main_window: whether there is a main window at first.
        """
        if cls._instance is None:
            cls._instance = cls(
                Path(slicer_checkout or os.environ.get("SLICER_CHECKOUT") or "/nonexistent"), main_window
            )
        return cls._instance

    def __init__(self, checkout: Path, main_window: bool) -> None:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        self.home = Path(tempfile.mkdtemp(prefix="slicer_host_"))
        atexit.register(shutil.rmtree, self.home, ignore_errors=True)
        self.checkout = checkout if checkout.is_dir() else None
        self._handles: dict[str, ModuleHandle] = {}
        self._boot()
        self.set_main_window(main_window)
        self.app.startupCompleted.emit()

    def _boot(self) -> None:
        from .importing import import_slicer

        slicer = import_slicer()
        from . import base, dialogs, findings, pythonqt

        findings.install_hooks()
        findings.quiet_qt()
        pythonqt.install()
        dialogs.install()
        self.findings, self.dialogs = findings.findings, dialogs.recorder
        from . import application, mrml_widgets, qt_namespace, scene
        from .modules import qSlicerLoadableModule, qSlicerScriptedLoadableModule

        slicer.qSlicerLoadableModule, slicer.qSlicerScriptedLoadableModule = (
            qSlicerLoadableModule,
            qSlicerScriptedLoadableModule,
        )
        qt_namespace.build()
        _tidy_namespace(slicer)
        application.make_modules_namespace()
        mrml_widgets.install()
        self._settings()
        self.app = slicer.app = application.qSlicerApplication(self.home)
        base.install(self.checkout)
        self._fill_share()
        self.boot_scene = self.app._s_boot = scene.SceneBoot(self.home / "share")
        self.scene = self.boot_scene.scene
        for name, logic in self.boot_scene.logics.items():
            module = qSlicerLoadableModule(scene.TITLES.get(name, name.capitalize()), logic)
            setattr(slicer.modules, name, module)
            self.app.moduleManager()._s_modules[module.name] = module
        self._python_slicer()

    def _settings(self) -> None:
        from PySide6.QtCore import QSettings

        QSettings.setDefaultFormat(QSettings.IniFormat)
        QSettings.setPath(QSettings.IniFormat, QSettings.UserScope, str(self.home / "settings"))

    def _fill_share(self) -> None:
        """Put colour files and terminologies where the logics look for them: a checkout's, or a small list of ours."""
        from . import terminologies

        share = self.home / "share"
        (share / "ColorFiles").mkdir(parents=True, exist_ok=True)
        (share / "qt").mkdir(exist_ok=True)
        if self.checkout is None:
            terminologies.write(share)
            return
        for source in (self.checkout / "Base/Logic/Resources/ColorFiles").glob("*"):
            shutil.copy(source, share / "ColorFiles")
        for source in (self.checkout / "Modules/Loadable/Terminologies/Resources").glob("*.json"):
            shutil.copy(source, share / f"{source.stem}.term.json")

    def _python_slicer(self) -> None:
        """Put a program PythonSlicer on PATH: a launcher, like Slicer's, whose child is this interpreter."""
        folder = self.home / "bin"
        folder.mkdir()
        script = folder / "PythonSlicer"
        script.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n')
        script.chmod(0o755)
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"

    # --- modules ---

    def load(self, module: str | Path) -> ModuleHandle:
        """Load a module by name from the repository, or by the path of its file; once, then the same handle."""
        from . import signals
        from .modules import ModuleHandle

        path = Path(module) if str(module).endswith(".py") else REPOSITORY / str(module) / f"{module}.py"
        path = path.resolve()
        name = path.stem
        if name in self._handles and self._handles[name].path == path:
            return self._handles[name]
        if not path.is_file():
            raise FileNotFoundError(f"no module file {path}")
        for folder in (str(path.parent), str(REPOSITORY / "MRIDeepTools")):
            if folder not in sys.path:
                sys.path.insert(0, folder)
        before = len(signals.connections(self.app))
        self._handles[name] = ModuleHandle(self, name, path)
        # In Slicer all modules are there before start-up is over; here that moment comes for each when it is loaded.
        for signature, _, slot, _ in signals.connections(self.app)[before:]:
            if signature == "startupCompleted()":
                slot()
        return self._handles[name]

    # --- life ---

    def reset(self) -> None:
        """Close all panels, clear the scene, forget dialogs, settings and findings."""
        import slicer
        from PySide6.QtCore import QSettings

        self.close_panels()
        slicer.mrmlScene.Clear(0)
        self.boot_scene.add_views()
        self.set_main_window(True)
        self.set_testing(False)
        QSettings().clear()
        self.pump(0)
        self.dialogs.clear()
        self.findings.clear()

    def close_panels(self) -> None:
        """Leave and delete the panels of all loaded modules, so that faults in that are found too."""
        for handle in self._handles.values():
            handle.close()
        self.pump(0)

    def leave(self, status: int) -> None:
        """End the process with *status*, without the interpreter's own ending.

        Qt, VTK and Python take each other's objects down in an order that can crash, after the tests have passed.
        Functions registered with atexit have run, streams are flushed.
        """
        self.close_panels()
        self.set_main_window(False)
        from PySide6 import QtCore

        atexit.unregister(getattr(QtCore, "__moduleShutdown"))
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            if stream is not None and not stream.closed:
                stream.flush()
        os._exit(status)

    def check(self) -> None:
        """Raise AssertionError if anything was found."""
        if self.findings:
            listed = "\n".join(f"  - {text}" for text in self.findings)
            raise AssertionError(f"{len(self.findings)} finding(s) of the Slicer host:\n{listed}")

    def pump(self, seconds: float = 0.1) -> None:
        """Run the event loop for a while; at least once, deletions included."""
        from PySide6.QtCore import QEvent

        end = time.monotonic() + seconds
        while True:
            self.app.processEvents()
            self.app.sendPostedEvents(None, QEvent.DeferredDelete)
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(0.005, left))

    def wait_until(self, condition: Callable[[], Any], timeout_s: float = 30.0) -> bool:
        """Run the event loop until *condition()* is true; False when the time is up."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                return False
            self.pump(0.02)
        return True

    def set_main_window(self, present: bool) -> None:
        """Have a main window and layout manager, or None for both."""
        self.app._s_set_main_window(present)

    def set_testing(self, enabled: bool) -> None:
        """Be as if started with ``--testing``: then Slicer's display functions show nothing."""
        self.app.commandOptions().testingEnabled = bool(enabled)

    # --- pictures ---

    def grab(self, what: Any, path: str | Path, size: tuple[int, int] | None = None) -> Path:
        """Write a PNG of a widget, or of the panel of a module handle."""
        from .render import grab

        return grab(self, what, Path(path), size)

    def slice_view(self, path: str | Path, **options: Any) -> Path:
        """Write a PNG of a slice; see :func:`slicer_host.render.slice_view`."""
        from .render import slice_view

        return slice_view(self, Path(path), **options)

    def view_3d(self, path: str | Path, segmentation: Any, size: tuple[int, int] = (512, 512)) -> Path:
        """Write a PNG of the closed surfaces of a segmentation, or of a model."""
        from .render import view_3d

        return view_3d(self, Path(path), segmentation, size)


def _tidy_namespace(slicer: Any) -> None:
    """Take the functions of slicer.util off the package: the wheel puts them there, the application does not."""
    import types

    for name, value in list(vars(slicer).items()):
        if isinstance(value, types.FunctionType) or (
            isinstance(value, type) and getattr(value, "__module__", "").startswith("slicer.util")
        ):
            delattr(slicer, name)
