"""Which features: Patchcore and PaDiM on andon-features, adapted or not, random weights, and the thumbnail floor.

    python benchmarks/features_comparison.py --data DIR [--categories A B] [--train 300] [--seeds 3] [--rows ROW …]

One Markdown row a method and kind of features: image AUROC and AUsPRO (limit 0.05), mean ± standard deviation over the
seeds, and over the categories where there are several. Every row sees the same images at the same size.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from andon.benchmark import evaluate
from andon.core import Category
from andon.data import load_dataset
from andon.data.cache import ArrayCache
from andon.data.images import Images
from andon.data.transform import Transform
from andon.features.andon_features import AndonFeatures
from andon.methods import create_method

EMBEDDED = {"backbone": "andon-features", "layers": ["cells"], "weights": "embedded"}
RANDOM = {"backbone": "resnet18", "weights": "random"}
ROWS: dict[str, tuple[str, dict[str, object]]] = {
    "thumbnail-nn": ("thumbnail-nn", {}),
    "patchcore/random": ("patchcore", RANDOM),
    "patchcore/unadapted": ("patchcore", EMBEDDED | {"patch_size": 1}),
    "patchcore/adapted": ("patchcore", EMBEDDED | {"patch_size": 1}),
    "patchcore/adapted, maximum": ("patchcore", EMBEDDED | {"patch_size": 1, "image_score": "max"}),
    "patchcore/adapted, re-weighted": ("patchcore", EMBEDDED | {"patch_size": 1, "image_score": "reweighted"}),
    "padim/random": ("padim", RANDOM),
    "padim/unadapted": ("padim", EMBEDDED),
    "padim/adapted": ("padim", EMBEDDED),
}


class Unadapted(AndonFeatures):
    """The filter bank alone: nothing is fitted to it."""

    def adapt(self, images: Images, transform: Transform, **options: Any) -> Unadapted:
        return self


def measure(row: str, category: Category, args: argparse.Namespace, seed: int) -> tuple[float, float]:
    name, options = ROWS[row]
    if name != "thumbnail-nn":
        options = {"transform": {"size": (args.size, args.size)}} | options
    if name == "patchcore":
        options = {"image_score": "mean_top_k", "layers": ["layer2", "layer3"]} | options
        options |= {"coreset": args.coreset} | ({"coreset_size": args.bank} if args.bank else {})
    method = create_method(name, options)
    if row.endswith("unadapted"):
        method.extractor = Unadapted()
    train = category.train
    if args.train and args.train < len(train):
        train = tuple(train[i] for i in np.linspace(0, len(train) - 1, args.train).round().astype(int))
    started = time.perf_counter()
    cache = ArrayCache(args.cache) if args.cache else None
    detector = method.fit(Images(train, cache), seed=seed)
    fitted = time.perf_counter()
    evaluation = evaluate(detector, category, images=Images(category.test, cache)).evaluation
    print(
        f"{row} {category.name} seed {seed}: AUROC {evaluation.image.auroc:.4f}, "
        f"AUsPRO {evaluation.localisation.auspro[0.05]:.4f}, "
        f"fit {fitted - started:.0f} s, test {time.perf_counter() - fitted:.0f} s",
        flush=True,
    )
    return evaluation.image.auroc, evaluation.localisation.auspro[0.05]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--categories", nargs="*")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--train", type=int, default=0, help="training images, evenly spaced (all by default)")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--coreset", default="greedy", choices=("greedy", "random"))
    parser.add_argument("--bank", type=int, default=0, help="patches in the bank (a tenth by default)")
    parser.add_argument("--cache", type=Path, help="folder that keeps features, so that seeds share them")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dataset = load_dataset(args.data)
    categories = [dataset[name] for name in args.categories] if args.categories else list(dataset)
    lines = ["| features | " + " | ".join(f"{c.name} AUROC | AUsPRO" for c in categories) + " | mean AUROC | AUsPRO |"]
    lines.append("|---" * (2 * len(categories) + 3) + "|")
    for row in args.rows:
        seeds = 1 if row == "thumbnail-nn" else args.seeds
        figures = np.array([[measure(row, c, args, seed) for c in categories] for seed in range(seeds)])
        cells = [
            f"{100 * m:.1f} ± {100 * s:.1f}"
            for m, s in zip(figures.mean(0).ravel(), figures.std(0).ravel(), strict=True)
        ]
        means = [f"{100 * m:.1f}" for m in figures.mean((0, 1))]
        lines.append(f"| {row} | " + " | ".join(cells + means) + " |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
