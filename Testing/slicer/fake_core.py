"""A program in place of the core, for the tests of the modules: quick, and able to misbehave.

It segments like the core, files and events and all, but by a rule of thumb: left and right of the middle, and a box in
it; it super-resolves by interpolation. The environment variable FAKE_CORE_MODE tells it how to misbehave; all other
commands go to the real core.
"""

from __future__ import annotations

import csv
import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

MODE = os.environ.get("FAKE_CORE_MODE", "good")

NAMES = {
    2: ("left cerebral white matter", "#f5f5f5", "left", "SCT", "68523003", "Cerebral White Matter"),
    17: ("left hippocampus", "#dcd814", "left", "SCT", "5366008", "Hippocampus"),
    41: ("right cerebral white matter", "#f5f5f5", "right", "SCT", "68523003", "Cerebral White Matter"),
    53: ("right hippocampus", "#dcd814", "right", "SCT", "5366008", "Hippocampus"),
}
HEADER = ("index", "name", "color", "side", "coding_scheme", "concept_code", "concept_meaning")


def event(kind: str, **fields) -> None:
    print("@mri-deep-tools " + json.dumps({"event": kind, **fields}), flush=True)


def wait_for_go() -> None:
    """Wait until the file that the test names is there."""
    end = time.monotonic() + 60
    while not Path(os.environ["FAKE_CORE_GO"]).exists() and time.monotonic() < end:
        time.sleep(0.02)


def misbehave() -> None:
    """Do what the mode says before the work; nothing for a good program."""
    if MODE == "slow":
        while not Path(os.environ["MRI_DEEP_TOOLS_CANCEL_FILE"]).exists():
            time.sleep(0.02)
        event("error", code="cancelled", message="Cancelled", hint="nothing was written")
        sys.exit(1)
    if MODE == "step":
        wait_for_go()
    if MODE == "error":
        event("error", code="memory", message="the GPU is full", hint="choose the CPU")
        sys.exit(1)
    if MODE in ("crash", "killed"):
        os.kill(os.getpid(), signal.SIGSEGV if MODE == "crash" else signal.SIGKILL)
    if MODE == "garbage":
        sys.stdout.buffer.write(b"\xff\xfe\x00\xe9\n@mri-deep-tools {no json\n" + b"x" * 500_000 + b"\n")
    if MODE == "flood":
        for number in range(100_000):
            print("line", number, "of a very talkative library")


def write(path: str, rows: list, delimiter: str = ",") -> None:
    with Path(path).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows(rows)


def rule_of_thumb(scan: str, out: str):
    """Label left and right of the middle, and a box in it, where the scan is bright; return the labels."""
    import nibabel
    import numpy as np

    image = nibabel.load(scan)
    data = np.asarray(image.dataobj)
    positions = np.indices(data.shape).reshape(3, -1)
    right = (image.affine[0, :3] @ positions + image.affine[0, 3]).reshape(data.shape)
    labels = np.where(right < right.mean(), 2, 41).astype(np.int16)
    middle = tuple(slice(n // 3, n - n // 3) for n in data.shape)
    labels[middle] = np.where(labels[middle] == 2, 17, 53)
    labels[data < 150] = 0
    affine = image.affine.copy()
    affine[0, 3] += 2 * (MODE == "shifted")
    nibabel.save(nibabel.Nifti1Image(labels, affine), out)
    return labels, affine


def from_file(out: str):
    """Give the labels of a file, for pictures; return labels, affine and the names of the core."""
    import nibabel
    import numpy as np
    from mri_deep_tools.synthsegment.labels import LABELS

    image = nibabel.load(os.environ["FAKE_CORE_LABELS"])
    nibabel.save(image, out)
    data = np.asarray(image.dataobj)
    names = {}
    for code in sorted(set(np.unique(data).tolist()) - {0}):
        item = LABELS[code]
        colour = "#{:02x}{:02x}{:02x}".format(*item.colour)
        concept = (item.coding_scheme or "n/a", item.concept_code or "n/a", item.concept_meaning or "n/a")
        names[code] = (item.name, colour, item.side, *concept)
    return data, image.affine, names


def label(scan: str, out: str, volumes: str | None, qc: str | None, posteriors: str | None) -> None:
    """Label one scan and write all that the core writes."""
    import nibabel
    import numpy as np

    if MODE == "picture":
        labels, affine, names = from_file(out)
    else:
        (labels, affine), names = rule_of_thumb(scan, out), NAMES
    stem = Path(out).with_suffix("")
    background = (0, "background", "#000000", "neutral", "n/a", "n/a", "n/a")
    write(str(stem.with_suffix(".tsv")), [HEADER, background, *((code, *item) for code, item in names.items())], "\t")
    record = {
        "GeneratedBy": [{"Version": "1.2.3", "Command": "segment"}],
        "Models": [{"Name": "fake", "SHA256": "ab" * 32}],
        "Device": {"Name": "cpu"},
        "Options": {"fast": "--fast" in sys.argv},
    }
    stem.with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")
    size = abs(float(np.linalg.det(affine[:3, :3])))
    sizes = {item[0]: float((labels == code).sum()) * size for code, item in names.items()}
    if volumes:
        write(
            volumes,
            [["subject", *(f"{name} (mm^3)" for name in sizes)], ["scan", *(f"{v:.3f}" for v in sizes.values())]],
        )
    if qc:
        write(
            qc, [["subject", "general white matter", "cerebellum", "thalamus"], ["scan", "0.9000", "0.7000", "0.4000"]]
        )
    if posteriors:
        soft = np.stack([labels == code for code in (0, *names)], axis=-1).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(soft, affine), posteriors)
    event(
        "result",
        scan="scan",
        outputs=[out],
        volumes_mm3=sizes,
        qc=None,
        model="fake" if MODE != "picture" else "a label map",
    )


def lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def download(names: list[str]) -> None:
    """Pretend to fetch models; in the mode "damaged" what arrives has another checksum."""
    event("progress", stage="download", fraction=0.5, eta_s=3.0, elapsed_s=3.0)
    if MODE == "step":
        wait_for_go()
    if MODE == "damaged":
        event("error", code="checksum", message=f"{names[0]} was damaged on the way", hint="try again")
        sys.exit(1)
    for name in names:
        event("result", model=name, files=[])


def super_resolve(words: list[str]) -> None:
    """Interpolate to 1 mm, a little brighter in the second quarter of the slices; write all that the core writes."""
    import numpy as np
    from mri_deep_tools.geometry import Grid, resample_to
    from mri_deep_tools.superresolve.honesty import check_honesty
    from mri_deep_tools.superresolve.slices import detect_slices
    from mri_deep_tools.volume import read_volume, write_volume

    given = {word[2:]: words[number + 1] for number, word in enumerate(words[:-1]) if word.startswith("--")}
    scan = read_volume(given["t2"])
    grid = Grid.of(scan).with_spacing(1.0)
    if given.get("space") == "template":
        grid = Grid.of(read_volume(given["template"]))
    plain = resample_to(scan, grid.shape, grid.affine, order=1)
    values = plain.data.astype(np.float32)
    quarter = values.shape[2] // 4
    values[:, :, quarter : 2 * quarter] *= 1.1
    affine = np.array(grid.affine)
    affine[0, 3] += 50 * (MODE == "shifted")
    result = plain.with_affine(values, affine)
    thickness = float(given["slice-thickness"]) if "slice-thickness" in given else None
    slices = detect_slices(scan, given["t2"], direction=given.get("slice-direction"), thickness_mm=thickness)
    honesty = check_honesty(result, plain, scan, slices.axis, slices.thickness_mm, 300.0)
    write_volume(result, words[1])
    if "interpolated" in given:
        write_volume(plain, given["interpolated"])
    if "honesty" in given:
        write_volume(honesty.difference, given["honesty"])
    record = {
        "GeneratedBy": [{"Version": "1.2.3", "Command": "superresolve"}],
        "Models": [{"Name": "fake", "SHA256": "ab" * 32}],
        "Device": {"Name": "cpu"},
        "Synthetic": True,
        "Options": {"registered": "--registered" in words, "guided": "t1" in given},
    }
    Path(words[1]).with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")
    told = {"slices": slices.as_record(), "honesty": honesty.as_record(), "model": "fake", "synthetic": True}
    told["honesty"]["RmsPerSlice"] = [None if value != value else value for value in honesty.rms_per_slice]
    event("result", scan="T2w.nii", outputs=[words[1]], **told)


def main(words: list[str]) -> None:
    if words[:2] == ["models", "download"]:
        download([word for word in words[2:] if word.startswith(("synthseg", "superresolve"))])
        return
    if words[0] not in ("segment", "superresolve") or "--describe" in words:
        sys.argv = ["mri-deep-tools", *words]
        runpy.run_module("mri_deep_tools", run_name="__main__")
        return
    event("device", device="cpu", threads=1)
    stage = "segment" if words[0] == "segment" else "super-resolve"
    event("progress", stage=stage, fraction=0.43, eta_s=21.0, elapsed_s=1.0)
    print("fake core:", *(Path(word).name for word in words[3:]), flush=True)
    misbehave()
    if words[0] == "superresolve":
        super_resolve(words)
        event("warning", message="T2w.nii: the scan is dark")
        return
    tables = [words[words.index(name) + 1] if name in words else None for name in ("--volumes", "--qc", "--posteriors")]
    if words[1].endswith(".txt"):
        columns = [lines(path) if path else None for path in (words[1], words[2], *tables)]
        for number in range(len(columns[0])):
            label(*(column[number] if column else None for column in columns))
    else:
        label(words[1], words[2], *tables)
    if MODE != "picture":
        event("warning", message="the scan is dark")


if __name__ == "__main__":
    main(sys.argv[1:])
