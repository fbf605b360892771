"""Errors of a diffusion model against spherical harmonics, on simulated scans of known truth and on real volumes.

Simulated: the phantom of ``simulate dmri`` (built in, or with the anatomy of a label map), both fibre models, two noise
levels; 30 even directions are predicted from 6 or 10 that were measured, either spread evenly by themselves or chosen
by the program from a scheme of 45, and compared with the scan without noise. Real: the 64 directions at b = 1000 that
the package DIPY carries (10x10x10 voxels of one brain); the program chooses 6 or 10, the others are predicted and
compared with what was measured, which has noise itself; several times, with another volume first.

Every prediction goes through the public Python interface. ``sh`` is the published baseline, ``damped sh`` the same with
Laplace-Beltrami regularisation of 0.006, ``measured alone`` a tensor fit without any predicted volume. MAE is in
percent of the white matter's signal at b = 0 (real: of the mean b = 0 signal); FA and MD errors are mean absolute
differences of tensors fitted to measured and predicted volumes together.

    python Testing/benchmarks/dmri_accuracy.py --model dmri-rcnn-lite --csv dmri.csv
    python Testing/benchmarks/dmri_accuracy.py --weights model.safetensors --labels training_seg_01.nii.gz
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mri_deep_tools.dmriupsample import upsample
from mri_deep_tools.dmriupsample.directions import even_directions
from mri_deep_tools.dmriupsample.gradients import GradientTable
from mri_deep_tools.dmriupsample.harmonics import damped_matrix
from mri_deep_tools.dmriupsample.phantom import built_in_labels, make_phantom
from mri_deep_tools.dmriupsample.simulate import WHITE_SIGNAL, even_scheme, simulate_dmri
from mri_deep_tools.dmriupsample.tensor import fit_tensors
from mri_deep_tools.volume import Volume, read_volume

TARGETS = 30
REPEATS = 8


@dataclass
class Case:
    """A scan to predict from, what is wanted, and the truth; arrays of voxels are (V, n)."""

    group: str
    measured: int
    image: Volume
    table: GradientTable
    mask: np.ndarray
    targets: np.ndarray
    truth: np.ndarray
    fa: np.ndarray
    md: np.ndarray
    unit: float


def simulated_cases(labels: Volume, spacing: float | None, seed: int) -> Iterator[Case]:
    """Yield simulated scans."""
    for number, (fibre_model, snr) in enumerate(
        (f, s) for f in ("multi-tensor", "ball-and-stick") for s in (12.0, 30.0)
    ):
        phantom = make_phantom(labels, spacing, seed=seed + number)
        wanted = GradientTable(np.r_[0.0, np.full(TARGETS, 1000.0)], np.r_[np.zeros((1, 3)), even_directions(TARGETS)])
        clean = simulate_dmri(phantom, wanted, model=fibre_model, snr=0)
        for measured in (6, 10):
            for scheme, count in (("even", measured), ("chosen of 45", 45)):
                table = even_scheme([1000], [count], b0=1, seed=seed + number)
                scan = simulate_dmri(phantom, table, model=fibre_model, snr=snr, seed=seed + number)
                yield Case(
                    f"simulated, {scheme}, SNR {snr:g}",
                    measured,
                    scan.image,
                    table,
                    phantom.mask,
                    wanted.world[1:],
                    clean.image.data[phantom.mask][:, 1:],
                    scan.fa.data[phantom.mask],
                    scan.md.data[phantom.mask],
                    WHITE_SIGNAL,
                )


def real_cases() -> Iterator[Case]:
    """Yield DIPY's small data set with its volumes in several orders."""
    import nibabel as nib
    from dipy.data import get_fnames

    path, bvals, bvecs = get_fnames(name="small_64D")
    image = nib.load(path)
    data, values, vectors = image.get_fdata(dtype=np.float32), np.loadtxt(bvals), np.loadtxt(bvecs)
    vectors[values < 50] = 0
    table = GradientTable(values, vectors)
    mask = np.ones(data.shape[:3], dtype=bool)
    flat = data[mask]
    reference = fit_tensors(flat, table)
    for repeat in range(REPEATS):
        order = np.r_[0, 1 + np.random.default_rng(repeat).permutation(64)]
        for measured in (6, 10):
            own = table.pick(order)
            yield Case(
                "real, chosen of 64",
                measured,
                Volume(data[..., order], np.diag([2.0, 2, 2, 1])),
                own,
                mask,
                own.world,
                flat[:, order],
                reference.fa,
                reference.md,
                float(flat[:, 0].mean()),
            )


def scores(case: Case, weights: dict[str, object]) -> Iterator[tuple[str, float, float, float]]:
    """Yield (method, MAE in percent, FA error, MD error in 1e-3 mm^2/s)."""
    world, flat = case.table.world, case.image.data[case.mask]
    frame = np.array([-1.0, 1, 1]) if np.linalg.det(case.image.affine[:3, :3]) > 0 else np.ones(3)
    axes = case.image.affine[:3, :3] / np.linalg.norm(case.image.affine[:3, :3], axis=0)
    shell = np.flatnonzero(~case.table.is_b0)
    inside = case.image.with_data(case.mask.astype(np.uint8))
    chosen = picked(case, shell)
    left = np.arange(len(case.targets)) if case.group.startswith("sim") else np.setdiff1d(shell, chosen)
    targets = case.targets[left]
    small, table = case.image.with_data(case.image.data[..., np.r_[0, chosen]]), case.table.pick(np.r_[0, chosen])
    given, wanted = (torch.from_numpy(v) for v in (world[chosen], targets))
    found = {"damped sh": flat[:, chosen] @ damped_matrix(given, wanted, 0.006).numpy().T}
    for method, options in {"sh": {"method": "sh"}, "network": weights}.items():
        result = upsample(
            small, gradients=table, target_bvecs=(targets @ axes * frame).astype(np.float32), mask=inside, **options
        )
        found[method] = result.predicted.data[case.mask]
    yield "measured alone", float("nan"), *tensor_error(case, flat[:, np.r_[0, chosen]], table)
    for method in ("sh", "damped sh", "network"):
        error = np.abs(found[method] - case.truth[:, left]).mean() / case.unit
        every = table.joined(GradientTable(np.full(len(left), 1000.0), targets))
        both = np.concatenate([flat[:, np.r_[0, chosen]], found[method]], axis=1)
        yield method, 100 * float(error), *tensor_error(case, both, every)


def picked(case: Case, shell: np.ndarray) -> np.ndarray:
    """Return the volumes that the program would read."""
    from mri_deep_tools.dmriupsample.directions import choose_context

    return shell[choose_context(case.table.world[shell], case.measured)]


def tensor_error(case: Case, signal: np.ndarray, table: GradientTable) -> tuple[float, float]:
    """Return the mean absolute errors of FA and MD (1e-3 mm^2/s)."""
    maps = fit_tensors(signal, table)
    return float(np.abs(maps.fa - case.fa).mean()), 1e3 * float(np.abs(maps.md - case.md).mean())


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--model", default="dmri-rcnn-lite", help="model name")
    chosen.add_argument("--weights", default=None, help="weights file")
    parser.add_argument("--labels", type=Path, default=None, help="label map with the anatomy (default: built in)")
    parser.add_argument("--spacing", type=float, default=4.0, help="voxels of the phantom, mm, with --labels")
    parser.add_argument("--seed", type=int, default=9000)
    parser.add_argument("--csv", type=Path, default=None)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    weights = {"weights": args.weights} if args.weights else {"model": args.model}
    labels = read_volume(args.labels) if args.labels else built_in_labels((40, 44, 36), 4.0)
    rows: dict[tuple[str, int, str], list[tuple[float, float, float]]] = {}
    begin = time.monotonic()
    for cases in (simulated_cases(labels, args.spacing if args.labels else 8.0, args.seed), real_cases()):
        for case in cases:
            for method, *numbers in scores(case, weights):
                rows.setdefault((case.group, case.measured, method), []).append(tuple(numbers))
    sys.stdout.write(
        "| data | measured | method | MAE, % of b = 0 | FA error | MD error, 1e-3 mm2/s |\n|---|---|---|---|---|---|\n"
    )
    table = [(*key, *np.mean(values, axis=0)) for key, values in rows.items()]
    for group, measured, method, mae, fa, md in table:
        sys.stdout.write(f"| {group} | {measured} | {method} | {mae:.2f} | {fa:.4f} | {md:.4f} |\n")
    sys.stdout.write(f"{time.monotonic() - begin:.0f} s\n")
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["data", "measured", "method", "mae_percent", "fa_error", "md_error"])
            writer.writerows(table)


if __name__ == "__main__":
    main()
