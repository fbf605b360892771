"""A quick program in place of the core's `upsample-dmri`, for the tests of DMRIUpsample; it can misbehave as fake_core.

It writes all the files of the core and sends its events, but the predicted volume number n is 100 + n everywhere. In
the mode "absent" the network's weights are not there. Other commands go to the real core.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import fake_core
from fake_core import MODE, event, misbehave

READ = 6  # directions that the pretended network reads


def read(path: str):
    """Return values (n, i, j, k as Fortran order), affine, b-values and world directions of a NRRD of the glue."""
    import numpy as np

    head, _blank, data = Path(path).read_bytes().partition(b"\n\n")
    fields, keys = {}, {}
    for line in head.decode().splitlines()[1:]:
        name, _colon, text = line.partition(":=" if ":=" in line else ": ")
        (keys if ":=" in line else fields)[name] = text
    sizes = [int(word) for word in fields["sizes"].split()]
    kinds = {"short": "<i2", "float": "<f4", "unsigned char": "u1"}
    values = np.frombuffer(data, kinds[fields["type"]]).reshape(sizes, order="F")
    vectors = [[float(x) for x in word[1:-1].split(",")] for word in fields["space directions"].split() if "(" in word]
    affine = np.eye(4)
    affine[:3, :3] = np.transpose(vectors)
    affine[:3, 3] = [float(x) for x in fields["space origin"][1:-1].split(",")]
    assert fields["space"] == "right-anterior-superior"
    largest = float(keys.get("DWMRI_b-value", 0))
    stored = [[float(x) for x in keys[f"DWMRI_gradient_{n:04d}"].split()] for n in range(sizes[0])] if largest else []
    stored = np.array(stored).reshape(-1, 3)
    length = np.linalg.norm(stored, axis=1, keepdims=True)
    world = stored / np.where(length > 1e-3, length, 1)
    return values, affine, largest * length[:, 0] ** 2, world


def spiral(count: int):
    import numpy as np

    height = 1 - (np.arange(count) + 0.5) / count
    turn = math.pi * (3 - math.sqrt(5)) * np.arange(count)
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)


def option(words: list[str], name: str, default: str = "") -> str:
    return words[words.index(name) + 1] if name in words else default


def refuse(code: str, message: str, hint: str) -> None:
    event("error", code=code, message=message, hint=hint)
    sys.exit(2)


def plan(words: list[str], bvals, world):
    """Return b0, shells, shell, volumes of the shell, those that are read, targets and model as the core would."""
    import numpy as np

    b0 = np.flatnonzero(bvals < 50)
    shells = {round(b / 100) * 100: 0 for b in sorted(bvals) if b > 50}
    shells = {b: int((np.abs(bvals - b) < 60).sum()) for b in shells}
    wanted = int(option(words, "--shell", "0"))
    if not wanted and len(shells) > 1:
        refuse("request", "scan.nrrd has several shells", "choose one with --shell")
    shell = wanted or next(iter(shells))
    volumes = np.flatnonzero(np.abs(bvals - shell) < 60)
    network = option(words, "--method") == "rcnn"
    if network and len(volumes) < READ:
        refuse("request", f"{len(volumes)} directions were measured; models read {READ}", "use --method sh")
    if network and MODE == "absent":
        name = "dmri-rcnn-1d-b1000-q6"
        refuse("weights", f"the model {name} is not on this machine", f"run 'mri-deep-tools models download {name}'")
    context = volumes[:READ] if network else volumes
    file = option(words, "--target-bvecs") or option(words, "--target-grad")
    targets = spiral(int(option(words, "--directions", "1")))
    if file:
        table = np.loadtxt(file, ndmin=2)
        targets = (table.T if len(table) == 3 else table)[:, :3]
    model = "fake-network" if network else "spherical harmonics of order 2"
    return b0, shells, shell, volumes, context, targets, model


def check_record(volumes, network: bool) -> dict:
    """Return what the core says of the errors: two methods, the network a little better."""
    names = {"method": "this method", "mean": "mean of the measured ones"} | ({"sh": "harmonics"} if network else {})
    return {
        "Verdict": "On 3 measured directions that were left out, the error is 4.0 % of the signal.",
        "Level": "good",
        "Errors": {
            key: {"Name": name, "MAE": 20.0 + 5 * n, "RMSE": 30.0, "MAEPercent": 4.0 + n}
            for n, (key, name) in enumerate(names.items())
        },
        "Directions": [
            {"Volume": int(volume), "WorldRAS": [0, 0, 1], "MAE": dict.fromkeys(names, 10.0 + number)}
            for number, volume in enumerate(volumes[:3])
        ],
        "Notes": ["the network was trained to read more; use --method sh"],
    }


def upsample(words: list[str]) -> None:
    import nibabel
    import numpy as np

    values, affine, bvals, world = read(words[1])
    b0, shells, shell, volumes, context, targets, model = plan(words, bvals, world)
    unused = [int(n) for n in volumes if n not in context]
    if len(unused):
        listed = ", ".join(map(str, context))
        event(
            "warning", message=f"{model} reads {len(context)} directions: volumes {listed} (numbered from 0) are used"
        )
        event("warning", message="expect larger errors; look at --report, or use --method sh")
    facts = {"shell": int(shell), "context": [int(n) for n in context], "unused": unused, "model": model}
    if "--dry-run" in words:
        event("result", b0=b0.tolist(), shells={str(b): n for b, n in shells.items()}, **facts,
              measured_world=world.tolist(), target_world=targets.tolist())  # fmt: skip
        return
    event("device", device="cpu", threads=1)
    event("progress", stage="predict", fraction=0.43, eta_s=21.0, elapsed_s=1.0)
    print("fake core:", *(Path(word).name for word in words[1:]), flush=True)
    misbehave()
    kept = np.concatenate([b0, volumes])
    measured = np.moveaxis(values, 0, -1)[..., kept].astype(np.float32)
    predicted = np.broadcast_to(100 + np.arange(len(targets), dtype=np.float32), (*measured.shape[:3], len(targets)))
    affine[0, 3] += 2 * (MODE == "shifted")
    out = Path(words[2])
    nibabel.save(nibabel.Nifti1Image(np.concatenate([measured, predicted], axis=-1), affine), out)
    table = np.concatenate([world[kept], targets]), np.concatenate([bvals[kept], np.full(len(targets), shell)])
    np.savetxt(option(words, "--save-grad"), np.column_stack(table), fmt="%.9f")
    for name, value in (("--fa", 0.5), ("--md", 0.001)):
        if name in words:
            nibabel.save(
                nibabel.Nifti1Image(np.full(measured.shape[:3], value, np.float32), affine), option(words, name)
            )
    if "--mask" in words:
        print("mask of", int((read(option(words, "--mask"))[0] > 0).sum()), "voxels", flush=True)
    record = {
        "GeneratedBy": [{"Version": "1.2.3", "Command": "upsample-dmri"}],
        "Models": [{"Name": model, "SHA256": "ab" * 32}],
        "Device": {"Name": "cpu"},
        "Options": {"shell": int(shell)},
        "Synthetic": True,
    }
    out.with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")
    if MODE != "picture":
        event("warning", message="the scan is dark")
    kinds = ["b0"] * len(b0) + ["measured"] * len(volumes) + ["predicted"] * len(targets)
    check = check_record(volumes, option(words, "--method") == "rcnn") if "--report" in words else None
    event("result", outputs=[str(out)], volumes=kinds, predicted=len(targets), check=check, synthetic=True, **facts)


def main(words: list[str]) -> None:
    if words[:2] == ["models", "download"]:
        fake_core.download([f"synthseg {word}" for word in words[2:] if word.startswith("dmri-rcnn")])
    elif words[0] == "upsample-dmri":
        upsample(words)
    else:
        fake_core.main(words)


if __name__ == "__main__":
    main(sys.argv[1:])
