"""One command for one module: ``PYTHONPATH=Testing python -m slicer_host SynthSegment --test --screenshots pictures``.

Shows the panel, checks what Slicer's generic module test checks, and on request presses Apply on a scan, runs the
module's Test class and takes pictures. Exit status 1 and a list if anything failed or was found.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .host import Host

if TYPE_CHECKING:
    from .modules import ModuleHandle


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    args = _parser().parse_args(arguments)
    host = Host.boot(args.slicer_checkout, main_window=not args.no_main_window)
    try:
        handle = host.load(args.module)
        _run(host, handle, args)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told and makes the status 1
        traceback.print_exc()
        host.findings.append(f"{type(error).__name__}: {error}")
    for finding in host.findings:
        print(f"finding: {finding}")
    status = 1 if host.findings else 0
    print(f"{args.module}: {'fine' if status == 0 else f'{len(host.findings)} finding(s)'}")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m slicer_host", description=__doc__.split("\n\n")[1])
    parser.add_argument("module", help="name of a module of this repository, or the path of a module's .py file")
    parser.add_argument("--no-main-window", action="store_true", help="be as Slicer --no-main-window")
    parser.add_argument("--apply", metavar="SCAN", type=Path, help="load this scan, press Apply and wait")
    parser.add_argument(
        "--timeout", type=float, default=1800.0, metavar="S", help="longest run of Apply (default 1800)"
    )
    parser.add_argument("--test", action="store_true", help="run the module's Test class")
    parser.add_argument("--screenshots", metavar="DIR", type=Path, help="write pictures of panel and results here")
    parser.add_argument("--slicer-checkout", metavar="DIR", help="use the Python files of this Slicer source tree")
    return parser


def _run(host: Host, handle: ModuleHandle, args: argparse.Namespace) -> None:
    from . import generic

    host.findings.extend(f"generic test: {problem}" for problem in generic.problems(handle))
    handle.widget()
    _picture(host, handle, args.screenshots, "panel")
    if args.apply is not None:
        _apply(host, handle, args)
    handle.leave()
    handle.enter()
    handle.reload()
    handle.close()
    if args.test:
        _test(host, handle)
    host.close_panels()


def _picture(host: Host, handle: ModuleHandle, folder: Path | None, name: str) -> None:
    if folder is not None:
        print(f"picture: {host.grab(handle, folder / f'{handle.name}-{name}.png')}")


def _apply(host: Host, handle: ModuleHandle, args: argparse.Namespace) -> None:
    """Load the scan, let the panel choose it, press Apply and wait until the button says Apply again."""
    import slicer

    volume = slicer.util.loadVolume(str(args.apply))
    widget = handle.widget()
    for selector in widget.parent.findChildren(slicer.qMRMLNodeComboBox):
        if any("VolumeNode" in kind for kind in selector.nodeTypes) and not selector.addEnabled:
            selector.setCurrentNode(volume)
    button = slicer.util.findChild(widget.parent, "applyButton")
    text = button.text
    if not host.wait_until(lambda: button.enabled, 60):
        raise AssertionError(f"Apply stays disabled: {button.toolTip}")
    before = _nodes()
    button.click()
    host.pump(0.5)
    _picture(host, handle, args.screenshots, "running")
    if not host.wait_until(lambda: button.enabled and button.text == text, args.timeout):
        raise AssertionError(f"Apply did not end within {args.timeout:.0f} s")
    made = [slicer.mrmlScene.GetNodeByID(i) for i in sorted(_nodes() - before)]
    print("made:", ", ".join(f"{node.GetName()} ({node.GetClassName()})" for node in made) or "nothing")
    for dialog in host.dialogs.shown:
        print(f"dialog: {dialog.title}: {dialog.text}")
    segmentations = [node for node in made if node.IsA("vtkMRMLSegmentationNode")]
    if not made:
        host.findings.append("Apply made no node")
    _picture(host, handle, args.screenshots, "done")
    if args.screenshots is not None and segmentations:
        _result_pictures(host, handle, args.screenshots, volume, segmentations[0])


def _nodes() -> set[str]:
    import slicer

    kinds = ("vtkMRMLVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLTableNode")
    return {node.GetID() for kind in kinds for node in slicer.util.getNodesByClass(kind)}


def _result_pictures(host: Host, handle: ModuleHandle, folder: Path, volume: Any, segmentation: Any) -> None:
    for orientation in ("Axial", "Coronal", "Sagittal"):
        path = folder / f"{handle.name}-{orientation.lower()}.png"
        host.slice_view(path, background=volume, segmentation=segmentation, orientation=orientation)
        print(f"picture: {path}")
    print(f"picture: {host.view_3d(folder / f'{handle.name}-3d.png', segmentation)}")


def _test(host: Host, handle: ModuleHandle) -> None:
    """Run the Test class both ways that Slicer does: by unittest's loader (CTest), and by runTest (the button)."""
    import unittest

    import slicer

    host.set_testing(True)
    suite = unittest.defaultTestLoader.loadTestsFromModule(handle.python)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    for case, trace in (*result.failures, *result.errors):
        host.findings.append(f"test failed: {case}: {trace.strip().splitlines()[-1]}")
    if result.testsRun == 0:
        host.findings.append("the module has no tests")
    slicer.mrmlScene.Clear(0)
    slicer.selfTests[handle.name]()
    host.set_testing(False)


if __name__ == "__main__":
    status = main()
    Host.boot().leave(status)
