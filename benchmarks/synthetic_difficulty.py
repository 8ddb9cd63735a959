"""How difficult the six tasks of the synthetic line are: image AUROC of a trivial floor, PaDiM and Patchcore.

    python benchmarks/synthetic_difficulty.py [--train 60 --good 40 --defective 40] [--seeds 0 1] [--tasks …] [--write]

No pretrained weights are assumed: PaDiM and Patchcore run on the embedded extractor (preset ``designed``), and
optionally (``--random``) on random orthogonal ResNet-18 weights.
``--write`` puts the table into benchmarks/results/synthetic_difficulty.md.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

import andon
from andon.core import Category
from andon.data import load_dataset
from andon.data.cache import ArrayCache
from andon.data.images import Images
from andon.methods.base import Method
from andon.methods.registry import create_method
from andon.synthetic import TASKS, Counts, generate

STUDY = {  # Table 6: PaDiM, Patchcore
    "engine_wiring": (79.2, 77.2),
    "pipe_clip": (62.6, 73.3),
    "pipe_staple": (54.6, 92.3),
    "tank_screw": (49.4, 89.3),
    "underbody_pipes": (98.9, 99.8),
    "underbody_screw": (82.6, 98.9),
}


def methods(random: bool) -> dict[str, Method]:
    out = {
        "thumbnail-nn": create_method("thumbnail-nn"),
        "PaDiM": create_method("padim", preset="designed"),
        "Patchcore": create_method("patchcore", preset="designed"),
    }
    if random:
        out["PaDiM (random ResNet-18)"] = create_method("padim", weights="random")
        out["Patchcore (random ResNet-18)"] = create_method("patchcore", backbone="resnet18", weights="random")
    return out


def auroc(method: Method, category: Category, cache: ArrayCache) -> tuple[float, dict[str, float]]:
    """Image AUROC in %, over all defective test images and by defect type (against all good ones)."""
    method.fit(Images(category.train, cache), seed=0)
    test = category.test
    scores = method.predict(Images(test, cache)).image_scores
    types = np.array([sample.defect_type for sample in test])
    by_type = {
        kind: 100 * float(roc_auc_score(types[keep] == kind, scores[keep]))
        for kind in category.defect_types
        for keep in [(types == kind) | (types == "good")]
    }
    return 100 * float(roc_auc_score(types != "good", scores)), by_type


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=60)
    parser.add_argument("--good", type=int, default=40)
    parser.add_argument("--defective", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    counts = Counts(train=options.train, good=options.good, defective=options.defective)
    names = list(methods(options.random))
    rows = []
    start = time.perf_counter()
    for task in options.tasks:
        figures: dict[str, list[float]] = {name: [] for name in names}
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder) / "line"
                generate(root, tasks=[task], counts=counts, seed=seed, jobs=options.jobs)
                category = load_dataset(root)[task]
                cache = ArrayCache(Path(folder) / "cache")
                for name, method in methods(options.random).items():
                    value, by_type = auroc(method, category, cache)
                    figures[name].append(value)
                    detail = ", ".join(f"{kind} {v:.0f}" for kind, v in by_type.items())
                    print(f"{task} seed {seed} {name}: {value:.1f} ({detail})", flush=True)
        means = [float(np.mean(figures[name])) for name in names]
        study = " | ".join(f"{value:.1f}" for value in STUDY[task])
        rows.append(f"| {task} | " + " | ".join(f"{value:.1f}" for value in means) + f" | {study} |")
    head = f"| task | {' | '.join(names)} | study: PaDiM | study: Patchcore |"
    rule = "|---|" + "---|" * (len(names) + 2)
    table = "\n".join([head, rule, *rows])
    print(table)
    print(f"{time.perf_counter() - start:.0f} s")
    if options.write:
        seeds = ", ".join(map(str, options.seeds))
        text = f"""# Difficulty of the synthetic line

Image AUROC in %, mean over the line's seeds {seeds}; {options.train} training, {options.good} good and
{options.defective} defective test images a task, default knobs. PaDiM and Patchcore run on the embedded extractor
(no ImageNet weights); the study's columns (Table 6, ImageNet weights, real images) are the profile aimed at.

{table}

Measured {date.today().isoformat()} with andon {andon.__version__}, torch {torch.__version__}, Python
{platform.python_version()} by `python benchmarks/synthetic_difficulty.py`.
"""
        target = Path(__file__).parent / "results" / "synthetic_difficulty.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
