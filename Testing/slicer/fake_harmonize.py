"""A program in place of the core for the tests of the module Harmonize: quick, and able to misbehave.

It harmonizes and translates like the core, files and events and all, but by a rule of thumb: the brain is what is
bright (or the mask), its intensities are bent a little; another contrast is the root of the intensities. FAKE_CORE_MODE
tells it how to misbehave; all other commands go to fake_core.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fake_core
import numpy as np

TEMPLATE_TO_SCAN = np.array(
    [[0.0, -1.0, 0.0, 12.0], [0.96, 0.0, -0.28, -7.0], [0.28, 0.0, 0.96, 31.0], [0.0, 0.0, 0.0, 1.0]]
)
"""What the registration finds, whatever it is given: a rotation and a shift, RAS mm."""


def option(words: list[str], name: str) -> str | None:
    return words[words.index(name) + 1] if name in words else None


def harmonize(words: list[str]) -> None:
    """Write all that the core writes."""
    import nibabel

    image = nibabel.load(words[1])
    scan, affine = np.asarray(image.dataobj, dtype=np.float32), image.affine.copy()
    given = option(words, "--mask")
    mask = np.asarray(nibabel.load(given).dataobj) > 0 if given else scan > 150
    median = float(np.median(scan[mask]))
    before = np.where(mask, scan * 500 / median, 0).astype(np.float32)
    after = np.where(mask, 500 * (before / 500) ** 0.8 + 20, 0).astype(np.float32)
    result = np.where(mask, after, scan * 500 / median) if "--keep-head" in words else after
    if "template" in words:  # the grid does not matter here, only that it is another one
        affine = np.diag([4.0, 4.0, 4.0, 1.0])
        affine[:3, 3] = (-90, -126, -72)
    affine[0, 3] += 2 * (fake_core.MODE == "shifted")

    def save(path: str | None, values, place=affine) -> None:
        if path:
            nibabel.save(nibabel.Nifti1Image(values, place), path)

    save(words[2], result.astype(np.float32))
    save(option(words, "--change"), after - before)
    save(option(words, "--save-preprocessed"), before)
    save(option(words, "--save-mask"), mask.astype(np.uint8), image.affine)
    matrix = place(words)
    record = _record(words, before, after, median, matrix)
    Path(words[2]).with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")
    fake_core.event("result", scan="scan.nii", outputs=[words[2]], stages=record["Stages"], model="fake")


def place(words: list[str]):
    """Write the transform, the given one or that of the registration; return its matrix."""
    from mri_deep_tools.registration import read_transform, write_transform

    given = option(words, "--transform")
    matrix = read_transform(given) if given else TEMPLATE_TO_SCAN
    wanted = option(words, "--save-transform")
    if wanted:
        written = np.linalg.inv(matrix) if fake_core.MODE == "inverted" else matrix
        write_transform(wanted, written)
    return matrix


def translate(words: list[str]) -> None:
    """Write all that the core writes for another contrast."""
    import nibabel

    image = nibabel.load(words[1])
    scan, affine = np.asarray(image.dataobj, dtype=np.float32), image.affine.copy()
    affine[0, 3] += 2 * (fake_core.MODE == "shifted")
    values = np.sqrt(np.clip(scan, 0, None) / scan.max()).astype(np.float32)
    if "--slices" in words:
        first, last = option(words, "--slices").split(":")
        values[..., : int(first)] = values[..., int(last) :] = 0
    nibabel.save(nibabel.Nifti1Image(values, affine), words[2])
    spread = option(words, "--save-std")
    if spread and fake_core.MODE != "half":
        nibabel.save(nibabel.Nifti1Image(0.2 * values * (1 - values), affine), spread)
    record = {
        "GeneratedBy": [{"Version": "1.2.3", "Command": "translate"}],
        "Synthetic": True,
        "Models": [{"Name": "fake", "SHA256": "ab" * 32, "Licence": "CC0"}],
        "Device": {"Name": "cpu"},
        "Options": {"to": option(words, "--to"), "seed": int(option(words, "--seed")), "output_factor": 1.0},
    }
    Path(words[2]).with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")
    told = {"source": option(words, "--from"), "target": option(words, "--to"), "model": "fake", "synthetic": True}
    fake_core.event("result", scan="scan.nii", outputs=[words[2]], **told)


def _record(words: list[str], before, after, median: float, matrix) -> dict:
    from mri_deep_tools.harmonize.change import describe_change

    tissues = {"white matter": 500e3, "grey matter": 600e3}
    return {
        "GeneratedBy": [{"Version": "1.2.3", "Command": "harmonize"}],
        "Synthetic": True,
        "Models": [{"Name": "fake", "SHA256": "ab" * 32, "Licence": "CC0"}],
        "Device": {"Name": "cpu"},
        "Options": {"space": option(words, "--space")},
        "Stages": {
            "brain mask": "given" if "--mask" in words else "fake",
            "bias field": "skipped" if "--no-bias-correction" in words else "N4",
            "registration": "given" if "--transform" in words else "rigid",
            "harmonize": "IGUANe",
        },
        "BrainMedianBefore": median,
        "Change": describe_change(before, after).as_record(),
        "TissueVolumes": {"before_mm3": tissues, "after_mm3": {name: 1.01 * value for name, value in tissues.items()}}
        if "--tissues" in words
        else None,
        "Registration": {
            "TemplateToScanRasMm": matrix.tolist(),
            "RotationDegrees": 20.0,
            "TranslationMm": 12.5,
            "Correlation": 0.9,
            "Overlap": 0.95,
        },
    }


TASKS = {
    "harmonize": (harmonize, ("brain mask", "registration", "harmonize")),
    "translate": (translate, ("read", "prepare", "translate")),
}
REFUSALS = {
    "harmonize": (
        "scan.nii does not look like a T1w scan",
        "check contrast, brain mask and field of view, or switch this check off (--unchecked)",
    ),
    "translate": ("scan.nii has no slice that shows more than background", "check the scan, or --slices"),
}
WARNINGS = {
    "harmonize": "scan.nii has voxels of 6.0 mm; the model was made for about 1 mm",
    "translate": "3.0 % of the voxels of scan.nii are above the largest value of training and are cut",
}


def main(words: list[str]) -> None:
    if words[:2] == ["models", "download"]:
        fake_core.download([word for word in words[2:] if word.startswith(("iguane", "syndiff"))])
        return
    if words[0] not in TASKS or "--describe" in words:
        fake_core.main(words)
        return
    work, stages = TASKS[words[0]]
    fake_core.event("device", device="cpu", threads=1)
    for stage, fraction in zip(stages, (0.1, 0.3, 0.43), strict=True):
        fake_core.event("progress", stage=stage, fraction=fraction, eta_s=21.0, elapsed_s=1.0)
    print("fake core:", *(Path(word).name for word in words), flush=True)
    if fake_core.MODE == "refuse":
        message, hint = REFUSALS[words[0]]
        fake_core.event("error", code="input", message=message, hint=hint)
        sys.exit(1)
    fake_core.misbehave()
    work(words)
    fake_core.event("warning", message=WARNINGS[words[0]])


if __name__ == "__main__":
    main(sys.argv[1:])
