"""The parts of the demonstration after the segmentation: harmonization, super-resolution, contrasts, directions.

Each part makes its sample data, runs the command that a person would run, and returns what the page shows of it; the
command's own report lies in the part's folder.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..progress import Progress

if TYPE_CHECKING:
    from ..report import Section
    from ..volume import Volume

__all__ = ["TASKS", "DemoTask"]

THICKNESS_MM = 4
MEASURED, DIRECTIONS = 10, 30
TRANSLATED, FAT_OVER_BRAIN = "70:110", 1.9


@dataclass(frozen=True)
class DemoTask:
    """One part: its folder below that of the demonstration, the bundled model it needs, and how it runs."""

    folder: str
    model: str
    run: Callable[[Path, argparse.Namespace, Progress], list[Section]]


def _command(name: str, words: Sequence[object], args: argparse.Namespace, progress: Progress) -> None:
    """Run a command of this program with the demonstration's device and precision."""
    module = importlib.import_module(f".{name}", __package__)
    parser = argparse.ArgumentParser(prog=f"mri-deep-tools {name.replace('_', '-')}")
    module.add_arguments(parser)
    threads = ["--threads", args.threads] if args.threads else []
    common = ["--device", args.device, "--precision", args.precision, *threads, "--quiet", "--overwrite"]
    module.run(parser.parse_args([str(word) for word in (*words, *common)]), progress)


def _sample(volume: Volume, path: Path) -> Path:
    from ..volume import write_volume

    path.parent.mkdir(parents=True, exist_ok=True)
    return write_volume(volume, path, description="ICBM 152 2009 (C) L. Collins, McGill")


def _sidecar(image: Path) -> dict[str, Any]:
    from ..provenance import sidecar_path

    record: dict[str, Any] = json.loads(sidecar_path(image).read_text(encoding="utf-8"))
    return record


def _harmonize(folder: Path, args: argparse.Namespace, progress: Progress) -> list[Section]:
    """Harmonize the template as two sites might have taken it."""
    import numpy as np

    from ..harmonize.report import comparison_png
    from ..report import KeyValues, Picture, Text
    from ..sample_scans import other_site, template_scan
    from ..volume import read_volume

    template = template_scan()
    sites = {"a": template, "b": other_site(template)}
    before, after = {}, {}
    for name, scan in sites.items():
        path = _sample(scan, folder / f"site-{name}_T1w.nii.gz")
        result, given = (
            folder / f"site-{name}_desc-harmonized_T1w.nii.gz",
            folder / f"site-{name}_desc-prepared_T1w.nii.gz",
        )
        words = [path, result, "--model", "iguane-lite", "--skull-stripped", "--space", "template"]
        more = ["--save-preprocessed", given, "--report", folder / ("report.html" if name == "b" else "report-a.html")]
        _command("harmonize", [*words, *more], args, progress)
        before[name], after[name] = read_volume(given), read_volume(result)
    box = tuple(slice(a, a + n) for a, n in _box(before["a"], after["a"]))
    inside = (before["a"].data > 0) & (before["b"].data > 0)
    first = np.abs(before["a"].data - before["b"].data)[inside].mean()
    second = np.abs(after["a"].data[box] - after["b"].data[box])[inside].mean()
    picture = comparison_png(before["b"], before["b"].with_data(after["b"].data[box]), folder / "comparison.png")
    return [
        Text(
            "Harmonization of two sites",
            [
                "The template, and the same brain with the contrast, bias field and noise that another scanner might "
                "give it (simulated), were both brought to the style of one reference site.",
                "Harmonized images are synthetic.",
            ],
        ),
        Picture("The other site: before, after, change", picture, "Three planes of each", "In template space."),
        KeyValues(
            "Difference between the two sites in the brain",
            {
                "Before": f"{100 * first / 500:.1f} % of the brain median",
                "After": f"{100 * second / 500:.1f} % of the brain median",
            },
        ),
    ]


def _box(small: Volume, large: Volume) -> list[tuple[int, int]]:
    """Return first voxel and length of a crop along each axis of the grid that it was cut from."""
    import numpy as np

    start = np.linalg.solve(large.affine, small.affine[:, 3])[:3]
    return [(round(float(a)), n) for a, n in zip(start, small.shape3, strict=True)]


def _superresolve(folder: Path, args: argparse.Namespace, progress: Progress) -> list[Section]:
    """Super-resolve thick slices of the template with turned-round contrast, whose truth is known."""
    from ..report import KeyValues, Picture, Text
    from ..sample_scans import template_scan, thick_slices, without_t1_contrast
    from ..superresolve.metrics import similarity
    from ..superresolve.report import comparison_png
    from ..volume import read_volume

    template = template_scan()
    truth = without_t1_contrast(template)
    t1 = _sample(template, folder / "icbm152_T1w.nii.gz")
    t2 = _sample(thick_slices(truth, THICKNESS_MM), folder / f"icbm152_acq-{THICKNESS_MM}mm_T2w.nii.gz")
    result, plain = folder / "icbm152_desc-synthetic_T2w.nii.gz", folder / "icbm152_desc-interpolated_T2w.nii.gz"
    words = [result, "--t2", t2, "--t1", t1, "--model", "superresolve-lite", "--registered"]
    more = ["--interpolated", plain, "--report", folder / "report.html", "--honesty", folder / "honesty.nii.gz"]
    _command("superresolve", [*words, *more], args, progress)
    made, interpolated = read_volume(result), read_volume(plain)
    scores = {name: _against(truth, volume, similarity) for name, volume in (("c", interpolated), ("s", made))}
    picture = comparison_png(interpolated, made, folder / "comparison.png")
    return [
        Text(
            "Super-resolution of thick slices",
            [
                f"The template with turned-round contrast and {THICKNESS_MM} mm slices (simulated) was brought to 1 mm "
                "with the template as its T1w scan.",
                "What lies between measured slices is what the network holds likely: the result is synthetic.",
            ],
        ),
        Picture("Interpolation, result, difference", picture, "Three planes of each", "Look at the thin structures."),
        KeyValues(
            "Likeness to the truth, in the brain",
            {"Cubic interpolation": scores["c"], "Result": scores["s"], "Measured slices": _honesty(result)},
        ),
    ]


def _against(truth: Volume, found: Volume, compare: Callable[..., Any]) -> str:
    from ..geometry import resample_to

    there = resample_to(truth, found.shape3, found.affine, order=1).data
    score = compare(there, found.data, data_range=1000.0, mask=there > 0)
    return f"PSNR {score.psnr:.1f} dB, SSIM {score.ssim:.3f}"


def _honesty(image: Path) -> str:
    found = _sidecar(image)["Honesty"]
    return f"the result, reduced to them again, agrees with PSNR {found['PsnrDb']:.1f} dB"


def _dmri(folder: Path, args: argparse.Namespace, progress: Progress) -> list[Section]:
    """Predict directions of a simulated diffusion scan, whose FA is known."""
    import numpy as np

    from ..dmriupsample.figures import Tile, tiles_png
    from ..report import KeyValues, Picture, Text
    from ..volume import read_volume

    scan, result, fa = (
        folder / name for name in ("phantom_dwi.nii.gz", "phantom_desc-synthetic_dwi.nii.gz", "fa.nii.gz")
    )
    folder.mkdir(parents=True, exist_ok=True)
    _command("simulate", ["dmri", scan, "--directions", MEASURED, "--b0", 2], args, progress)
    words = [scan, result, "--directions", DIRECTIONS, "--mask", folder / "phantom_dwi_mask.nii.gz", "--fa", fa]
    _command("upsample_dmri", [*words, "--report", folder / "report.html"], args, progress)
    truth, found = read_volume(folder / "phantom_dwi_fa.nii.gz"), read_volume(fa)
    mask = read_volume(folder / "phantom_dwi_mask.nii.gz").data > 0
    tiles = [[Tile("FA, truth", truth.data, 0, 1, unit="FA"), Tile("FA, found", found.data, 0, 1, unit="FA")]]
    picture = tiles_png(tiles, truth, mask, folder / "fa.png")
    error = float(np.abs(truth.data - found.data)[mask].mean())
    return [
        Text(
            "More diffusion directions",
            [
                f"{MEASURED} directions of a simulated brain with crossing fibres and noise were brought to "
                f"{MEASURED + DIRECTIONS}; predicted volumes are synthetic.",
                _sidecar(result)["LeaveOut"]["Verdict"],
            ],
        ),
        Picture("Fractional anisotropy", picture, "One axial slice of both maps"),
        KeyValues("Against the truth", {"Mean absolute error of FA": f"{error:.3f}"}),
    ]


def _translate(folder: Path, args: argparse.Namespace, progress: Progress) -> list[Section]:
    """Make a T2w image of the template, whose T2w contrast is simulated too."""
    import numpy as np

    from ..report import KeyValues, Picture, Text
    from ..sample_scans import template_scan, without_t1_contrast
    from ..translate.report import scan_png
    from ..volume import read_volume

    template = template_scan()
    t1 = _sample(template, folder / "icbm152_T1w.nii.gz")
    result = folder / "icbm152_desc-synthetic_T2w.nii.gz"
    # the model learned from heads, whose fat is about twice as bright as the brain; the template has no fat
    constant = FAT_OVER_BRAIN * float(template.data.max() / template.data.mean())
    words = [t1, result, "--to", "T2w", "--model", "syndiff-lite", "--slices", TRANSLATED, "--background", "zero"]
    _command("translate", [*words, "--constant", f"{constant:.3f}", "--report", folder / "report.html"], args, progress)
    made, turned = read_volume(result), without_t1_contrast(template)
    shown = made.data > 0
    rows = [("T1w", template, "gray"), ("T2w (synthetic)", made, "gray")]
    picture = scan_png(rows, made, "axial", folder / "slices.png")
    with_t1, with_t2 = (float(np.corrcoef(made.data[shown], scan.data[shown])[0, 1]) for scan in (template, turned))
    return [
        Text(
            "Another contrast",
            [
                "A T2w image of some slices of the template was made from the template, by a small model that learned "
                "from simulated people.",
                "It was not measured: fluid is bright as it should be, but cortex is blurred, and dark patches are "
                "faults.",
            ],
        ),
        Picture("T1w and synthetic T2w", picture, "Axial slices, T1w above, synthetic T2w below"),
        KeyValues(
            "Correlation of the grey values with",
            {"the T1w template": f"{with_t1:.2f}", "the template with turned-round contrast": f"{with_t2:.2f}"},
        ),
    ]


TASKS = (
    DemoTask("harmonize", "iguane-lite", _harmonize),
    DemoTask("superresolve", "superresolve-lite", _superresolve),
    DemoTask("translate", "syndiff-lite", _translate),
    DemoTask("dmri", "dmri-rcnn-lite", _dmri),
)
