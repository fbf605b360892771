"""What a harmonization model does for simulated travelling subjects: one anatomy seen at many sites.

Persons are drawn from label maps that the model never saw, and each is shown by sites that it never saw (other seed
than in training) and by some that it did. Before and after harmonization, at 1 mm:

* spread between sites: standard deviation over the sites of the mean intensity of a tissue of one person, and of single
  voxels of that tissue, in units of a brain median of 500; the mean over persons;
* a site classifier: logistic regression on the brain's histogram and on tissue means, leave one person out;
* distance to the true rendering of the person in the reference style: mean absolute error, structural similarity;
* anatomy: Dice of segmentations (synthseg-lite) before and after, and of both with the truth; tissue volumes.

    python Testing/benchmarks/iguane_travelling.py --labels FOLDER --only seg_06 seg_12 seg_19 --weights FILE
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from mri_deep_tools.harmonize.change import structural_similarity
from mri_deep_tools.harmonize.engine import GeneratorEngine
from mri_deep_tools.harmonize.preprocess import TEMPLATE_GRID
from mri_deep_tools.harmonize.simulated_sites import (
    REFERENCE,
    REFERENCE_UNIT,
    Anatomy,
    SitesConfig,
    SiteSimulator,
    draw_site,
)
from mri_deep_tools.harmonize.template_maps import START
from mri_deep_tools.harmonize.weights import load_generator
from mri_deep_tools.synthsegment.generator.draws import Draws

TISSUES = {"white matter": (2,), "grey matter": (3,), "deep grey": (6, 7, 8, 9), "fluid": (1,)}
BINS = np.linspace(-1, 1.5, 41)


def tissue_means(image: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Return the mean of each tissue."""
    classes = anatomy.tissues.numpy()
    return np.array([image[np.isin(classes, codes)].mean() for codes in TISSUES.values()])


def features(image: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Return what the site classifier sees: the brain's histogram, tissue means and noise in white matter."""
    brain = anatomy.inside.numpy()
    histogram = np.histogram(image[brain], bins=BINS)[0] / brain.sum()
    white = anatomy.tissues.numpy() == 2
    steps = np.diff(image, axis=0)[white[1:] & white[:-1]]
    return np.concatenate([histogram, tissue_means(image, anatomy), [steps.std()]])


def site_accuracy(rows: np.ndarray, sites: np.ndarray, persons: np.ndarray) -> float:
    """Return the share of scans whose site is found, leaving one person out at a time."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000))
    return float(cross_val_score(model, rows, sites, groups=persons, cv=LeaveOneGroupOut()).mean())


class Spread:
    """Between-site standard deviations of one person, summed up scan by scan."""

    def __init__(self) -> None:
        self.count, self.total, self.square = 0, 0.0, 0.0
        self.means: list[np.ndarray] = []

    def add(self, image: np.ndarray, anatomy: Anatomy) -> None:
        """Take a scan of the person."""
        self.count, self.total, self.square = self.count + 1, self.total + image, self.square + image.astype(float) ** 2
        self.means.append(tissue_means(image, anatomy))

    def result(self, anatomy: Anatomy) -> dict[str, tuple[float, float]]:
        """Return, per tissue, the spread of its mean and of its voxels, in intensity units."""
        voxels = np.sqrt(np.maximum(self.square / self.count - (self.total / self.count) ** 2, 0))
        classes, spread = anatomy.tissues.numpy(), np.std(self.means, axis=0)
        return {
            name: (500 * float(spread[k]), 500 * float(voxels[np.isin(classes, codes)].mean()))
            for k, (name, codes) in enumerate(TISSUES.items())
        }


def segmented(image: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Return tissues (0 to 3: none, white, grey, fluid) of a prepared image, by synthseg-lite."""
    from mri_deep_tools.synthsegment.labels import LABELS
    from mri_deep_tools.synthsegment.predict import Segmenter
    from mri_deep_tools.volume import Volume

    affine = TEMPLATE_GRID.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ START
    data = np.where(anatomy.inside.numpy(), (image + 1) * 500, 0).astype(np.float32)
    labels = Segmenter(model="synthseg-lite", fast=True).segment(Volume(data, affine)).labels.data
    table = np.zeros(int(max(LABELS)) + 1, dtype=np.int8)
    for code, item in LABELS.items():
        name = item.name.lower()
        fluid = "ventricle" in name or name == "csf"
        table[code] = 3 if fluid else 1 if "white matter" in name else 2 if "cortex" in name else 0
    return table[labels]


def dice(first: np.ndarray, second: np.ndarray) -> list[float]:
    """Return Dice of the three tissues."""
    return [
        float(2 * ((first == k) & (second == k)).sum() / max((first == k).sum() + (second == k).sum(), 1))
        for k in (1, 2, 3)
    ]


def true_tissues(anatomy: Anatomy) -> np.ndarray:
    """Return the truth in the codes of :func:`segmented`: both white matters, both cortices, fluid."""
    table = np.zeros(32, dtype=np.int8)
    table[[2, 4]], table[[3, 5]], table[1] = 1, 2, 3
    return table[anatomy.tissues.numpy()]


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", required=True, help="folder of label maps")
    parser.add_argument("--only", nargs="+", required=True, help="parts of names of the maps to use")
    parser.add_argument("--weights", required=True, help="weights file of a generator")
    parser.add_argument("--persons", type=int, default=2, help="persons per map")
    parser.add_argument("--new-sites", type=int, default=4, help="sites that the training did not have")
    parser.add_argument("--known-sites", type=int, default=2, help="sites of the training")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--training-seed", type=int, default=4, help="simulation.seed of the training")
    parser.add_argument(
        "--every", type=int, default=1, help="show every n-th voxel only (a generator with phases): quicker by n^3"
    )
    parser.add_argument("--segment", type=int, default=4, help="scans that are segmented before and after")
    parser.add_argument("--cache", type=Path, default=None, help="maps.npz of a run")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    figures = run(args)
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


def run(args: argparse.Namespace) -> dict[str, object]:
    """Return the figures."""
    wanted = SitesConfig(labels=args.labels, validation=args.only, coarse_voxels="every")
    simulator = SiteSimulator(wanted, args.cache)
    engine = GeneratorEngine(load_generator(args.weights))
    engine.spec = replace(engine.spec, phases=engine.spec.phases // args.every)
    sites = [draw_site(np.random.default_rng([args.seed, 50, k])) for k in range(args.new_sites)]
    sites += [draw_site(np.random.default_rng([args.training_seed, k])) for k in range(args.known_sites)]
    rows, labels, persons, scores, spreads, overlaps = ([], []), [], [], ([], []), ([], []), []
    jobs = [(chosen, k) for chosen in simulator.held for k in range(args.persons)]
    left, start = args.segment, time.perf_counter()
    for person, (chosen, k) in enumerate(jobs):
        draws = Draws(args.seed * 1000 + person)
        anatomy = simulator.anatomy(chosen, draws, args.every)
        truth = simulator.show(anatomy, REFERENCE, draws, REFERENCE_UNIT).numpy()
        spread = Spread(), Spread()
        for number, site in enumerate(sites):
            before = simulator.show(anatomy, site, draws)
            inside = anatomy.inside
            made = engine.run(torch.where(inside, before, torch.zeros_like(before)))
            pair = before.numpy(), torch.where(inside, made, torch.full_like(made, -1.0)).clamp(min=-1).numpy()
            for which, image in enumerate(pair):
                rows[which].append(features(image, anatomy))
                spread[which].add(image, anatomy)
                scores[which].append(closeness(image, truth, inside.numpy()))
            labels.append(number)
            persons.append(person)
            if left and args.every == 1 and (person + number) % 2 == 0:
                left -= 1
                found = [segmented(image, anatomy) for image in pair]
                overlaps.append(compared(*found, true_tissues(anatomy)))
            print(f"{chosen.name} person {k} site {number}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
        for which in (0, 1):
            spreads[which].append(spread[which].result(anatomy))
    return summary(rows, np.array(labels), np.array(persons), scores, spreads, overlaps)


def closeness(image: np.ndarray, truth: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    """Return the mean absolute error (intensity units) and the structural similarity to the truth in the brain."""
    error = 500 * float(np.abs(image - truth)[inside].mean())
    return error, structural_similarity(image, truth, inside, 1.5)


def compared(before: np.ndarray, after: np.ndarray, truth: np.ndarray) -> dict[str, list[float]]:
    """Return Dice of the segmentations with each other and with the truth, and the change of tissue volumes in %."""
    volumes = [100 * float((after == k).sum() / max((before == k).sum(), 1) - 1) for k in (1, 2, 3)]
    return {
        "before and after": dice(before, after),
        "before and truth": dice(before, truth),
        "after and truth": dice(after, truth),
        "volume change %": volumes,
    }


def summary(rows, labels, persons, scores, spreads, overlaps) -> dict[str, object]:  # type: ignore[no-untyped-def]
    """Return all figures, before and after."""
    figures: dict[str, object] = {"scans": len(labels), "chance of the site classifier": 1 / len(set(labels.tolist()))}
    for which, name in enumerate(("before", "after")):
        figures[name] = {
            "site classifier": site_accuracy(np.array(rows[which]), labels, persons),
            "mean absolute error": float(np.mean([s[0] for s in scores[which]])),
            "structural similarity": float(np.mean([s[1] for s in scores[which]])),
            "spread of means": {t: float(np.mean([s[t][0] for s in spreads[which]])) for t in TISSUES},
            "spread of voxels": {t: float(np.mean([s[t][1] for s in spreads[which]])) for t in TISSUES},
        }
    worse = sum(a[0] > b[0] for b, a in zip(*scores, strict=True))
    figures["scans farther from the truth than before"] = worse
    for key in overlaps[0] if overlaps else ():
        figures[f"segmentation, {key} (white, grey, fluid)"] = np.mean([o[key] for o in overlaps], axis=0).tolist()
    return figures


if __name__ == "__main__":
    main()
