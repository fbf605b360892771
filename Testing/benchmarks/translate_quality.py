"""How well a model translates pairs of slices that it has not seen, beside what a mapping of intensities can do.

    python Testing/benchmarks/translate_quality.py --held held.hdf5 --train train.hdf5 --model syndiff-lite

The sets are those of ``mri-deep-tools translate-dataset volumes --paired``. PSNR and SSIM are taken on 0..1 with a data
range of 1, over whole squares and, for PSNR, in the head. Three rivals: the source as it is; one intensity mapping for
all slices, each of 256 grey values to the mean target value that it had in the training set; and the same mapping made
for every slice with its own truth, which is the best that any mapping of intensities could do and needs the answer.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from mri_deep_tools.translate.dataset import ContrastPairs
from mri_deep_tools.translate.metrics import grey_scores
from mri_deep_tools.translate.validation import Validation
from mri_deep_tools.translate.weights import load_direction

_BINS = 256


def lookup(sources, targets):
    """Return the mean target for each of 256 source values, interpolated where none was seen."""
    index = np.clip((sources + 1) * 127.5, 0, 255).astype(int).ravel()
    count = np.bincount(index, minlength=_BINS)
    mean = np.bincount(index, weights=targets.ravel(), minlength=_BINS) / np.maximum(count, 1)
    seen = np.flatnonzero(count)
    return np.interp(np.arange(_BINS), seen, mean[seen])


def mapped(table, source):
    return table[np.clip((source + 1) * 127.5, 0, 255).astype(int)]


def scores(real, made, head):
    found = grey_scores(real[None, None], made[None, None])
    inner = 10 * np.log10(4 / np.mean((real[head] - made[head]) ** 2))
    return found.psnr, found.ssim, inner


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--held", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--contrasts", nargs=2, default=["T1w", "T2w"])
    parser.add_argument("--every", type=int, default=6, help="look at every n-th pair")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    options = {"training": False, "paired": True}
    train = ContrastPairs(args.train, args.contrasts, args.size, **options)
    held = ContrastPairs(args.held, args.contrasts, args.size, **options)
    known = [[image.numpy()[0] for image in train.sample(k)] for k in range(0, len(train), max(len(train) // 200, 1))]
    known = [np.stack(part) for part in zip(*known, strict=True)]
    report = {"pairs": len(range(0, len(held), args.every))}
    for number, target in enumerate(args.contrasts):
        direction = load_direction(args.model, target)
        validation = Validation(held, direction.schedule, seed=args.seed, count=0, latent=direction.network.spec.latent)
        table = lookup(known[1 - number], known[number])
        rows = {name: [] for name in ("source", "one mapping", "own mapping (knows the truth)", "model")}
        with torch.no_grad():
            for k in range(0, len(held), args.every):
                images = [image[None] for image in held.sample(k)]
                real, source = images[number].numpy()[0, 0], images[1 - number].numpy()[0, 0]
                made = validation.translate(direction.network, images[1 - number], [k], number).numpy()[0, 0]
                head = (source > -0.9) | (real > -0.9)
                for name, image in (
                    ("source", source),
                    ("one mapping", mapped(table, source)),
                    ("own mapping (knows the truth)", mapped(lookup(source, real), source)),
                    ("model", made),
                ):
                    rows[name].append(scores(real, image.astype(np.float32), head))
        report[f"{direction.source} to {direction.target}"] = {
            name: dict(zip(("psnr", "ssim", "psnr_head"), np.round(np.mean(row, axis=0), 4).tolist(), strict=True))
            | {"worst_psnr": round(float(np.min([r[0] for r in row])), 2)}
            for name, row in rows.items()
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
