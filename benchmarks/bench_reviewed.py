"""The methods that the AutoVI study reviews and does not run: a training each on the synthetic line, beside a floor.

    python benchmarks/bench_reviewed.py METHOD [METHOD …] [--task TASK …] [--budget 1] [--data DIR] [--write]

Preset ``default`` of each on 60 good images of a task, judged on 30 good and 30 defective ones, beside ``thumbnail-nn``
on the same images. ``--data`` names a rendered line; without it one is rendered. With ``--write`` a method's table,
loss curves (SVG) and gallery (test images with truth and map) go to benchmarks/results/reviewed/METHOD.md, .svg, .jpg.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from _trainings import beside_the_floor, machine, prediction_ms, shown_samples, truth_image
from andon.core import Category, ImageArray
from andon.data import ArrayCache, Images, load_dataset
from andon.evaluation import auroc
from andon.methods import Detector, branch_scores, create_method
from andon.synthetic import TASKS, Counts, generate

RESULTS = Path(__file__).parent / "results" / "reviewed"
COLOURS = ("#1b6ca8", "#c8553d", "#3f7d20", "#7b4b94", "#8a6d1d", "#444444")


def trained(name: str, category: Category, budget: float, cache: ArrayCache) -> tuple[Detector, str]:
    """The detector, and its row of the table."""
    images = Images(category.train, cache)
    start = time.process_time()
    detector = create_method(name, budget=budget).fit(images)
    seconds = time.process_time() - start
    figures = beside_the_floor(detector, category, images)
    steps = sum(points[-1][0] for loss, points in detector.report.curves.items() if loss.split("/")[-1] == "loss")
    if not steps:
        steps = max(points[-1][0] for points in detector.report.curves.values())
    each_ms = prediction_ms(detector, category)
    cells = [category.name, *figures, f"{seconds:.0f} s", f"{steps:,}", f"{each_ms:.0f} ms"]
    return detector, f"| {' | '.join(cells)} |"


def branch_lines(detector: Detector, category: Category) -> list[str]:
    """Image AUROC of a detector's branches alone, in %."""
    defective = [sample.is_defective for sample in category.test]
    found = branch_scores(detector, Images(category.test))
    told = [f"{name} {100 * (auroc(scores, defective) or 0):.1f}" for name, scores in found.items()]
    return [f"{category.name}: image AUROC of each branch alone: {', '.join(told)} %."] if told else []


def gallery(detector: Detector, category: Category) -> ImageArray:
    """Eight defective images and two good ones: image, truth, map (all maps on one scale)."""
    chosen = shown_samples(category)
    images, rows = Images(chosen), []
    maps = detector.predict(images).anomaly_maps
    assert maps is not None
    low, high = float(np.median(maps)), float(np.median(maps[: len(chosen) - 2].max((1, 2))))
    for index, sample in enumerate(chosen):
        image = cv2.resize(images.resized(index, detector.transform), (128, 128), interpolation=cv2.INTER_AREA)
        level = (255 * ((maps[index] - low) / max(high - low, 1e-12)).clip(0, 1)).astype(np.uint8)
        heat = cv2.applyColorMap(cv2.resize(level, (128, 128)), cv2.COLORMAP_INFERNO)[..., ::-1]
        rows.append(np.concatenate([image, truth_image(sample, (128, 128)), heat], axis=1))
    half = len(rows) // 2
    picture: ImageArray = np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half:])], axis=1)
    return picture


def curves_svg(detector: Detector, title: str) -> str:
    """Loss curves by step; the losses' axis is logarithmic where none goes below 0."""
    width, height, margin = 640, 320, 48
    curves = {name: points for name, points in detector.report.curves.items() if len(points) > 1}
    values = [value for points in curves.values() for _, value in points]
    logarithmic = min(values) > 0
    scale = (lambda v: math.log10(v)) if logarithmic else (lambda v: v)
    low, high = min(map(scale, values)), max(map(scale, values))
    last = max(points[-1][0] for points in curves.values())

    def at(step: int, value: float) -> str:
        x = margin + (width - 2 * margin) * step / last
        y = height - margin - (height - 2 * margin) * (scale(value) - low) / max(high - low, 1e-12)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{margin}" y="20">{title}{" (logarithmic)" if logarithmic else ""}</text>',
        f'<path d="M{margin} {margin}V{height - margin}H{width - margin}" fill="none" stroke="#999"/>',
        f'<text x="4" y="{height - margin}">{min(values):.3g}</text><text x="4" y="{margin}">{max(values):.3g}</text>',
        f'<text x="{width - margin}" y="{height - margin + 16}" text-anchor="end">{last:,} steps</text>',
    ]
    for number, (name, points) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(at(step, value) for step, value in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{width - margin - 150}" y="{40 + 15 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def measure(name: str, options: argparse.Namespace, root: Path, cache: ArrayCache) -> None:
    method = create_method(name)
    lines = [
        f"# {method.title} on the synthetic line",
        "",
        machine(),
        f"Preset `default` at budget {options.budget:g}, seed 0: 60 good images a task to learn from, 30 good and 30",
        "defective ones to judge. Image AUROC, AUsPRO to a pixel FPR of 0.05, in %. Fit: CPU time of all threads.",
        "",
        "| task | AUROC | AUsPRO | thumbnail-nn: AUROC | AUsPRO | fit | steps | prediction |",
        "|---|---|---|---|---|---|---|---|",
    ]
    branches: list[str] = []
    for number, task in enumerate(options.task):
        category = load_dataset(root)[task]
        detector, row = trained(name, category, options.budget, cache)
        print(f"{name} {row}", flush=True)
        lines.append(row)
        branches += branch_lines(detector, category)
        if not options.write:
            continue
        RESULTS.mkdir(exist_ok=True)
        if number == 0:
            cv2.imwrite(
                str(RESULTS / f"{name}.jpg"), gallery(detector, category)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85]
            )
            (RESULTS / f"{name}.svg").write_text(curves_svg(detector, f"{method.title}, {task}: losses"), "utf-8")
        told = f"{options.task[0]}: image, truth, map; the last two images are good."
        pictures = ["", f"![Loss curves]({name}.svg)", "", f"![Gallery]({name}.jpg)", "", told, ""]
        (RESULTS / f"{name}.md").write_text(
            "\n".join([*lines, *(["", *branches] if branches else []), *pictures]), encoding="utf-8"
        )
    print("\n".join(branches))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--task", nargs="*", default=["underbody_screw"], choices=list(TASKS))
    parser.add_argument("--budget", type=float, default=1.0)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or Path(folder) / "line"
        if options.data is None:
            generate(root, tasks=options.task, counts=Counts(train=60, good=30, defective=30))
        cache = ArrayCache(options.cache or Path(folder) / "cache")
        for name in options.methods:
            measure(name, options, root, cache)


if __name__ == "__main__":
    main()
