"""PSNR and SSIM of a super-resolution model against cubic interpolation, on simulated people that it never saw.

Each person is a T1w/T2w pair drawn from a label map (``simulate contrast-pairs``). Thick slices with noise are taken of
the T2w, interpolated back to 1 mm with cubic splines (the baseline), and super-resolved with the T1w, which is slightly
misaligned, and without it, through the public Python interface. Volumes are scaled (1st to
99th percentile of the truth to 0..1, clipped); scores are taken over the head, data range 1.

    python Testing/benchmarks/superresolve_accuracy.py --labels FOLDER --only seg_06 seg_12 seg_19 --csv scores.csv
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from mri_deep_tools.geometry import Crop, Reorient, resample_to
from mri_deep_tools.superresolve.metrics import similarity
from mri_deep_tools.superresolve.predict import SuperResolver
from mri_deep_tools.superresolve.preprocess import Scaling
from mri_deep_tools.superresolve.simulate import SliceStack, acquire, array_axis
from mri_deep_tools.superresolve.simulate_pairs import PairConfig, SimulatedPair, simulate_pair
from mri_deep_tools.volume import Volume, list_images, read_volume

DIRECTIONS = ("axial", "coronal", "sagittal")
SHAPE = (120, 180, 120)  # around the brain; whole numbers of slices of every thickness, so that grids coincide
WAYS = ("cubic", "t1w+t2w", "t2w alone")


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=None, help="parts of file names")
    parser.add_argument("--number", type=int, default=1, help="people per map")
    parser.add_argument("--seed", type=int, default=9_000)
    parser.add_argument("--thickness", type=float, nargs="+", default=[2, 3, 4, 5], help="mm")
    parser.add_argument("--directions", nargs="+", choices=DIRECTIONS, default=DIRECTIONS)
    parser.add_argument("--misalignment", type=float, default=0.25, help="std of a shift of the T1w, mm per axis")
    parser.add_argument("--noise", type=float, default=0.01, help="Rician, share of the bright intensities")
    parser.add_argument("--profile", choices=("gaussian", "box"), default="gaussian", help="of the slices")
    parser.add_argument("--model", default="superresolve-lite", help="model name")
    parser.add_argument("--weights", default=None, help="weights file")
    parser.add_argument("--window", default="uniform")
    parser.add_argument("--csv", type=Path, default=None)
    args = parser.parse_args()
    model = {"weights": args.weights} if args.weights else {"model": args.model}
    resolver = SuperResolver(**model, registered=True, window=args.window)
    paths = [p for p in list_images(args.labels) if args.only is None or any(part in p.name for part in args.only)]
    rows: list[dict[str, object]] = []
    for number in range(len(paths) * args.number):
        labels = paths[number % len(paths)]
        config = PairConfig(output_shape=[256] * 3, misalignment=args.misalignment)
        pair = cropped(read_volume(labels), simulate_pair(read_volume(labels), args.seed + number, config))
        for direction in args.directions:
            for size in args.thickness:
                stack = SliceStack(array_axis(pair.t2, direction), float(size), float(size), args.profile)
                scores = compare(resolver, pair, stack, args.noise, args.seed + number)
                person = {"map": labels.name, "seed": args.seed + number, "direction": direction, "mm": size}
                rows += [{**person, "way": way, **values} for way, values in scores.items()]
                told = "  ".join(f"{way} {v['psnr']:.2f} dB {v['ssim']:.4f}" for way, v in scores.items())
                print(f"{labels.name} {direction:9s}{size:g} mm  {told}", flush=True)
    _print_table(rows, args)
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


def cropped(labels: Volume, pair: SimulatedPair) -> SimulatedPair:
    """Return a pair cut down to the region of the label map's brain."""
    brain = np.argwhere(np.isin(Reorient.to_ras(labels).apply(labels).data, (2, 3, 41, 42)))
    middle = (brain.min(0) + brain.max(0)) // 2
    start = [int(np.clip(m - n // 2, 0, s - n)) for m, n, s in zip(middle, SHAPE, pair.t1.shape3, strict=True)]
    stop = [a + n for a, n in zip(start, SHAPE, strict=True)]
    box = Crop(tuple(start), tuple(stop), pair.t1.shape3)  # type: ignore[arg-type]
    return SimulatedPair(box.apply(pair.t1), box.apply(pair.t2), pair.drawn)


def compare(
    resolver: SuperResolver, pair: SimulatedPair, stack: SliceStack, noise: float, seed: int
) -> dict[str, dict[str, float]]:
    """Return PSNR and SSIM of the interpolation and of the results with and without T1w."""
    truth = pair.t2
    thick = acquire(truth, stack, noise=noise, seed=seed)
    both, alone = resolver.superresolve(thick, pair.t1), resolver.superresolve(thick)
    found = {"cubic": both.interpolated, "t1w+t2w": both.image, "t2w alone": alone.image}
    scaling, scores = Scaling.of(truth.data), {}
    reference, head = scaling.apply(truth.data), truth.data > scaling.low
    for way, volume in found.items():
        there = resample_to(volume, truth.shape3, truth.affine, order=3)  # the voxels coincide: nothing is blurred
        score = similarity(reference, scaling.apply(there.data), mask=head)
        scores[way] = {"psnr": score.psnr, "ssim": score.ssim}
    return scores


def _print_table(rows: list[dict[str, object]], args: argparse.Namespace) -> None:
    print("\nmean PSNR (dB) / SSIM over people; in brackets the least gain over cubic of any person")
    print(f"{'slices':16s}" + "".join(f"{way:>28s}" for way in WAYS))
    for direction in args.directions:
        for size in args.thickness:
            line = f"{direction} {size:g} mm"
            cells = [_cell(rows, direction, size, way) for way in WAYS]
            print(f"{line:16s}" + "".join(f"{cell:>28s}" for cell in cells))


def _cell(rows: list[dict[str, object]], direction: str, size: float, way: str) -> str:
    def values(kind: str, which: str) -> np.ndarray:
        chosen = (r for r in rows if (r["direction"], r["mm"], r["way"]) == (direction, size, kind))
        return np.array([float(r[which]) for r in chosen])  # type: ignore[arg-type]

    text = f"{values(way, 'psnr').mean():.2f} / {values(way, 'ssim').mean():.4f}"
    if way == "cubic":
        return text
    gain = (values(way, "psnr") - values("cubic", "psnr")).min(), (values(way, "ssim") - values("cubic", "ssim")).min()
    return f"{text} ({gain[0]:+.2f} {gain[1]:+.4f})"


if __name__ == "__main__":
    sys.exit(main())
