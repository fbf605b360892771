"""Small runs of every command that writes a sidecar, by the real program; each test process makes them once."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

SHAPE, SPACING = (48, 60, 48), 3.0


def brain(folder: Path, name: str, spacing: float = SPACING, shape: tuple[int, ...] = SHAPE) -> Path:
    """Write a coarse copy of the template brain that ships with the package."""
    from mri_deep_tools.geometry import resample_to
    from mri_deep_tools.harmonize.template import load_template
    from mri_deep_tools.volume import write_volume

    template = load_template()
    middle = template.affine @ [*((n - 1) / 2 for n in template.shape3), 1]
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = middle[:3] - (np.array(shape) - 1) / 2 * spacing
    scan = resample_to(template, shape, affine, order=1)
    return write_volume(scan.with_data(scan.data.clip(min=0).astype(np.float32)), folder / name)


def generator(folder: Path) -> Path:
    """Write a narrow generator that changes an image a little."""
    import torch
    from mri_deep_tools.harmonize.network import Generator, GeneratorSpec
    from safetensors.torch import save_file

    torch.manual_seed(5)
    network = Generator(GeneratorSpec(width=2))
    network.head.weight.data *= 0.05
    save_file(network.state_dict(), folder / "narrow.safetensors")
    return folder / "narrow.safetensors"


def predictor(folder: Path) -> Path:
    """Write a random predictor of age for images of 32 voxels a side."""
    import torch
    from mri_deep_tools.harmonize.network import Predictor
    from mri_deep_tools.harmonize.predictor_weights import PredictorSpec, save_prediction_model

    torch.manual_seed(1)
    spec = PredictorSpec(shape=(32, 32, 32), trained_range=(20.0, 80.0))
    return save_prediction_model(folder / "age.safetensors", Predictor.for_shape(spec.shape).state_dict(), spec)


def run(*words: object) -> None:
    """Run the program in this process; it must end well."""
    from mri_deep_tools.cli import main

    asked = [str(word) for word in words]
    status = main([*asked, "--quiet", "--threads", "1", "--device", "cpu"])
    if status:
        raise RuntimeError(f"{' '.join(asked)} ended with {status}")


def segment(folder: Path) -> Path:
    scan = brain(folder, "sub-1_T1w.nii.gz", 1.0, (40, 44, 40))
    run("segment", scan, folder / "sub-1_dseg.nii.gz", "--model", "synthseg-lite", "--fast", "--report",
        folder / "sub-1_report.html")  # fmt: skip
    return folder / "sub-1_dseg.json"


def harmonize(folder: Path) -> Path:
    scan = prepared(folder, "sub-2_T1w.nii.gz")
    run("harmonize", scan, folder / "sub-2_desc-harmonized_T1w.nii.gz", "--weights", generator(folder),
        "--preprocessed", "--change", folder / "sub-2_change.nii.gz", "--report", folder / "sub-2.html")  # fmt: skip
    return folder / "sub-2_desc-harmonized_T1w.json"


def superresolve(folder: Path) -> Path:
    t1 = brain(folder, "sub-3_T1w.nii.gz", 1.0, (40, 44, 40))
    run("simulate", "thick-slices", t1, folder / "thick", "--direction", "axial", "--thickness", "4")
    (t2,) = folder.glob("thick/*.nii.gz")
    run("superresolve", folder / "sub-3_T2w.nii.gz", "--t2", t2, "--t1", t1, "--registered",
        "--model", "superresolve-lite", "--honesty", folder / "sub-3_honesty.nii.gz",
        "--report", folder / "sub-3.html")  # fmt: skip
    return folder / "sub-3_T2w.json"


def upsample_dmri(folder: Path) -> Path:
    run("simulate", "dmri", folder / "sub-4_dwi.nii.gz", "--size", 12, 12, 12, "--directions", "12", "--seed", "3")
    run("upsample-dmri", folder / "sub-4_dwi.nii.gz", folder / "sub-4_more.nii.gz", "--directions", "8",
        "--mask", folder / "sub-4_dwi_mask.nii.gz", "--fa", folder / "sub-4_fa.nii.gz",
        "--report", folder / "sub-4.html")  # fmt: skip
    return folder / "sub-4_more.json"


def prepared(folder: Path, name: str) -> Path:
    """Write a ball of noise with a median of 500, as the published preparation would leave it."""
    from mri_deep_tools.volume import Volume, write_volume

    away = np.linalg.norm(np.indices((32, 32, 32)) - 15.5, axis=0)
    values = np.where(away < 13, np.random.default_rng(0).uniform(200, 800, away.shape), 0)
    affine = np.array([[-1.0, 0, 0, 30], [0, 1, 0, -40], [0, 0, 1, -20], [0, 0, 0, 1]])
    values = (values * 500 / np.median(values[values > 0])).astype(np.float32)
    return write_volume(Volume(values, affine), folder / name)


def predict(folder: Path) -> Path:
    run("predict", prepared(folder, "sub-5_T1w.nii.gz"), "--csv", folder / "ages.csv", "--weights", predictor(folder),
        "--preprocessed")  # fmt: skip
    return folder / "ages.json"


def label_map(folder: Path) -> Path:
    from mri_deep_tools.volume import Volume, write_volume

    away = np.linalg.norm(np.indices((32, 32, 32)) - 15.5, axis=0)
    codes = np.select([away < 6, away < 10, away < 13], [2, 3, 24], 0).astype(np.int16)
    return write_volume(Volume(codes, np.diag([2.0, 2.0, 2.0, 1.0])), folder / "map.nii.gz", intent="label")


def simulate_scan(folder: Path) -> Path:
    run("simulate", "labels-to-image", label_map(folder), folder / "drawn.nii.gz", "--seed", "1")
    return folder / "drawn.json"


def simulate_thick(folder: Path) -> Path:
    run("simulate", "thick-slices", brain(folder, "iso.nii.gz", 3.0, (20, 24, 20)), folder / "thick", "--direction",
        "axial", "--thickness", "6")  # fmt: skip
    return next(folder.glob("thick/*.json"))


def simulate_pairs(folder: Path) -> Path:
    run("simulate", "contrast-pairs", label_map(folder), folder / "pairs", "--seed", "1")
    return next(folder.glob("pairs/*_T2w.json"))


def simulate_dmri(folder: Path) -> Path:
    run("simulate", "dmri", folder / "phantom.nii.gz", "--size", 12, 12, 12, "--directions", "6", "--seed", "3")
    return folder / "phantom.json"


def translate(folder: Path) -> Path:
    import torch
    from mri_deep_tools.translate.network import NCSNpp, NCSNppSpec
    from mri_deep_tools.translate.weights import ModelFacts, save_model

    torch.manual_seed(3)
    spec = NCSNppSpec(32, 2, 16, (1, 1), 1, (16,), 8, 16, 1)
    save_model(folder / "model", {2: NCSNpp(spec)}, ModelFacts(("T1w", "T2w"), slice_axis="axial"))
    scan = brain(folder, "sub-8_T1w.nii.gz", 6.0, (28, 32, 26))
    run("translate", scan, folder / "sub-8_T2w.nii.gz", "--weights", folder / "model", "--to", "T2w", "--slices",
        "12:14", "--samples", "2", "--report", folder / "sub-8.html")  # fmt: skip
    return folder / "sub-8_T2w.json"


EXAMPLES = {
    "segment": segment,
    "harmonize": harmonize,
    "superresolve": superresolve,
    "upsample-dmri": upsample_dmri,
    "translate": translate,
    "predict": predict,
    "simulate labels-to-image": simulate_scan,
    "simulate thick-slices": simulate_thick,
    "simulate contrast-pairs": simulate_pairs,
    "simulate dmri": simulate_dmri,
}
"""By command: what runs it in a folder and returns the sidecar."""


@functools.cache
def example(command: str) -> Path:
    """Return the sidecar of a run of the command; made once, not to be changed."""
    folder = Path(tempfile.mkdtemp(prefix=f"{command.split()[-1]}-"))
    return EXAMPLES[command](folder)
