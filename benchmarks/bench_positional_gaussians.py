"""Positional Gaussians beside others: image AUROC and AUsPRO (limit 0.05) of every category of data sets.

    python benchmarks/bench_positional_gaussians.py DIR [DIR …] [--method NAME[:PRESET] …]

One Markdown row a data set and method. The chosen tolerances of pose stand behind each figure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from andon.benchmark import evaluate
from andon.data import load_dataset
from andon.methods import create_method

METHODS = ("positional-gaussians", "positional-gaussians:designed", "padim:designed", "patchcore", "patchcore:designed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--method", nargs="+", default=METHODS)
    args = parser.parse_args()
    for folder in args.data:
        categories = load_dataset(folder).categories
        print(f"| {folder.name} | " + " | ".join(categories) + " | mean |")
        print("|---" * (len(categories) + 2) + "|")
        for wanted in args.method:
            name, _, preset = wanted.partition(":")
            cells, figures = [], []
            for category in categories.values():
                detector = create_method(name, preset=preset or None).fit(category)
                found = evaluate(detector, category, fpr_limits=(0.05,)).evaluation
                figures.append((100 * found.image.auroc, 100 * found.localisation.auspro[0.05]))
                notes = [note.split("pose ")[1].split()[0] for note in detector.report.notes if "pose" in note]
                cells.append(f"{figures[-1][0]:.1f} / {figures[-1][1]:.1f} {''.join(notes)}".rstrip())
            means = [sum(column) / len(figures) for column in zip(*figures, strict=True)]
            print(f"| {wanted} | " + " | ".join(cells) + f" | {means[0]:.1f} / {means[1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
