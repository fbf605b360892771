"""Checks the modules inside a Slicer, for those who have one.

::

    Slicer --no-splash --no-main-window --testing --python-script Testing/run_in_slicer.py [MODULE ...]
    xvfb-run -a Slicer ... (Linux without a screen)

Options: --apply IMAGE labels an image with SynthSegment; --weights FOLDER uses weights of your own for it; --output DIR
is where pictures of the panels and the labels go. The exit status is 0 when all passed. The same script runs in the
test host (see test_module_real_runs.py), so that it is known to work.
"""

from __future__ import annotations

import argparse
import sys
import traceback
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer

REPOSITORY = Path(__file__).resolve().parent.parent
MODULES = ("DMRIUpsample", "Harmonize", "MRIDeepTools", "SuperResolve", "SynthSegment")


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(MODULES), help="modules to check (default: all)")
    parser.add_argument("--apply", metavar="IMAGE", help="label an image with SynthSegment")
    parser.add_argument("--weights", default="", help="weights for --apply")
    parser.add_argument("--crop", type=int, default=0, help="work on a cube of so many mm, for a quick check")
    parser.add_argument("--output", metavar="DIR", help="folder for pictures and labels")
    return parser.parse_args(words)


def load(name: str) -> Any:
    """Return a module of this repository, registered with Slicer if it is not yet."""
    if not hasattr(slicer.modules, name.lower()):
        factory = slicer.app.moduleManager().factoryManager()
        factory.registerModule(qt.QFileInfo(str(REPOSITORY / name / f"{name}.py")))
        if not factory.isRegistered(name) or not factory.loadModules([name]):
            raise RuntimeError(f"{name} could not be loaded; the messages above say why")
    return getattr(slicer.modules, name.lower())


def check_module(name: str, output: Path | None) -> None:
    """Run the generic checks, the panel and the module's own tests."""
    module = load(name)
    for fact in ("title", "helpText", "acknowledgementText", "contributors", "categories"):
        if not getattr(module, fact):
            raise AssertionError(f"{name} has no {fact}")
    container = module.widgetRepresentation()
    if container is None or module.logic() is None:
        raise AssertionError(f"{name} has no panel or no logic")
    container.enter()
    slicer.app.processEvents()
    widget = container.self()
    if getattr(widget, "panel", None) is None:
        raise AssertionError(f"the panel of {name} was not built")
    if output is not None:
        container.resize(440, max(container.sizeHint.height(), 700))
        slicer.app.processEvents()
        container.grab().save(str(output / f"{name}.png"))
    container.exit()
    case = getattr(sys.modules[name], f"{name}Test")
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(
        unittest.defaultTestLoader.loadTestsFromTestCase(case)
    )
    if not result.wasSuccessful():
        raise AssertionError(f"tests of {name} failed")


def check_apply(image: str, options: argparse.Namespace, output: Path | None) -> None:
    """Label an image by the logic, as a batch script would."""
    load("SynthSegment")
    import SynthSegment

    volume = slicer.util.loadVolume(image)
    logic = SynthSegment.SynthSegmentLogic()
    segmentation = logic.process(volume, weights=options.weights, crop=options.crop, on_log=print)
    count = segmentation.GetSegmentation().GetNumberOfSegments()
    print(f"{count} segments with {logic.outputs.model} in {logic.outputs.seconds:.1f} s")
    if count == 0 or logic.outputs.volumes is None:
        raise AssertionError("no segments, or no table of volumes")
    if output is not None:
        slicer.util.exportNode(segmentation, str(output / "labels.seg.nrrd"), {})


def run(step: str, function: Callable[..., None], *values: Any) -> bool:
    """Run one step; print how it ended."""
    print(f"--- {step}", flush=True)
    try:
        function(*values)
    except Exception:  # noqa: BLE001 - every fault is to be printed, and to give the exit status
        traceback.print_exc(file=sys.stdout)
        print(f"FAILED {step}", flush=True)
        return False
    print(f"PASSED {step}", flush=True)
    return True


def main(words: list[str]) -> int:
    options = parse(words)
    output = Path(options.output) if options.output else None
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    for name in MODULES:
        folder = str(REPOSITORY / name)
        if folder not in sys.path:
            sys.path.append(folder)
    results = [run(f"module {name}", check_module, name, output) for name in options.modules]
    if options.apply:
        results.append(run("labels of an image", check_apply, options.apply, options, output))
    print(f"{sum(results)} of {len(results)} passed", flush=True)
    return 0 if all(results) else 1


if __name__ == "__main__":
    slicer.util.exit(main(sys.argv[1:]))
