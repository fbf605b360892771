"""Dice of a segmentation model on synthetic scans of label maps that it never saw, per structure and kind of scan.

Scans are drawn by the published generative model at 1 mm (spatial deformation, bias field, gamma) in three kinds:
T1-like contrast at 1 mm, random contrast at 1 mm, and random contrast with slices of 3 to 6 mm along a random axis.
Each is segmented through the public Python interface and compared on its own 1 mm grid.

    python Testing/benchmarks/synthseg_accuracy.py --labels FOLDER --only seg_06 seg_12 seg_19 --number 2 --csv dice.csv
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

import numpy as np
from mri_deep_tools.synthsegment.generator.draws import Draws
from mri_deep_tools.synthsegment.generator.model import GeneratorConfig
from mri_deep_tools.synthsegment.labels import LABELS, V2_CHANNELS
from mri_deep_tools.synthsegment.predict import Segmenter
from mri_deep_tools.synthsegment.simulate import simulate_scan, t1_config
from mri_deep_tools.volume import list_images, read_volume

KINDS = ("t1", "random", "thick")


def config_of(kind: str, draws: Draws) -> GeneratorConfig:
    """Return the generator of one kind of scan."""
    if kind == "t1":
        return t1_config(output_shape=None, randomise_res=False)
    config = GeneratorConfig(output_shape=None, randomise_res=False)
    if kind == "thick":
        size = [1.0, 1.0, 1.0]
        size[draws.integer(3)] = draws.uniform(3.0, 6.0)
        config.data_res = size
    return config


def dice(truth: np.ndarray, found: np.ndarray) -> dict[int, float]:
    """Return Dice per structure; NaN where the truth lacks it."""
    result = {}
    for code in V2_CHANNELS[1:]:
        a, b = truth == code, found == code
        result[code] = 2 * np.count_nonzero(a & b) / (a.sum() + b.sum()) if a.any() else float("nan")
    return result


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=None, help="parts of file names")
    parser.add_argument("--number", type=int, default=1, help="scans per map and kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--model", default="synthseg-lite", help="model name")
    parser.add_argument("--weights", default=None, help="weights file or model folder")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--csv", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=7_000)
    args = parser.parse_args()
    model = {"weights": args.weights} if args.weights else {"model": args.model}
    segmenter = Segmenter(**model, fast=args.fast)
    paths = [p for p in list_images(args.labels) if args.only is None or any(part in p.name for part in args.only)]
    rows = []
    for kind in args.kinds:
        for number in range(len(paths) * args.number):
            seed = args.seed + 1000 * KINDS.index(kind) + number
            labels = read_volume(paths[number % len(paths)])
            scan = simulate_scan(labels, seed, config=config_of(kind, Draws(seed + 500)))
            begin = time.monotonic()
            result = segmenter.segment(scan.image)
            seconds = time.monotonic() - begin
            scores = dice(scan.labels.data, result.labels.data)
            rows.append({"kind": kind, "map": paths[number % len(paths)].name, "seconds": seconds, **scores})
            print(f"{kind:8s}{rows[-1]['map']:28s}{np.nanmean(list(scores.values())):.3f}  {seconds:.1f} s", flush=True)
    table = {k: {c: np.nanmean([r[c] for r in rows if r["kind"] == k]) for c in V2_CHANNELS[1:]} for k in args.kinds}
    print(f"\n{'structure':32s}" + "".join(f"{k:>9s}" for k in args.kinds))
    for code in V2_CHANNELS[1:]:
        print(f"{LABELS[code].name:32s}" + "".join(f"{table[k][code]:9.3f}" for k in args.kinds))
    print(f"{'mean':32s}" + "".join(f"{np.nanmean(list(table[k].values())):9.3f}" for k in args.kinds))
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
