"""What inspectors promise, against good test images that they never saw; and the time from good images to a file.

    python benchmarks/bench_inspector.py --data LINE --data MTD [--category NAME …] [--method padim] [--write]

For every (category, seed): calibration on the training images alone (at most ``--images``, the first in shooting
order), thresholds for a promised 1, 5 and 10 % (where there are images enough), and how many of the good test images
are above. A promise is kept where it lies in the 95 % Clopper–Pearson interval of that count. Beside it, the threshold
over the one that the good test images themselves would give. ``--time``: only the time from 60 good 400×400 images to a
file.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from andon.core import Category, ConfigError
from andon.data import ArrayCache, Images, load_dataset
from andon.evaluation import clopper_pearson
from andon.inspection import ConformalCalibration, Regions, load_inspector, percent, train_inspector
from andon.inspection.cross_fitting import readings_of

RESULTS = Path(__file__).parent / "results" / "inspector.md"
RATES = (0.01, 0.05, 0.1)


def promised(category: Category, method: str, seed: int, most: int, cache: ArrayCache) -> list[str]:
    """A line of the table a rate that can be promised."""
    train = Images(category.train[:most], cache)
    inspector = train_inspector(train, method, seed=seed, cache=cache)
    good = [sample for sample in category.test if not sample.is_defective]
    scores = readings_of(inspector.detector, Images(good, cache), Regions()).scores
    lines = []
    for rate in RATES:
        try:
            threshold = inspector.calibration.threshold(rate)
        except ConfigError:
            continue
        above = int(np.count_nonzero(scores > threshold))
        interval = clopper_pearson(above, len(scores))
        kept = interval.low <= rate <= interval.high
        own = ConformalCalibration(scores)
        ideal = f"{threshold / own.threshold(rate):.2f}" if own.least_rate <= rate else "–"
        lines.append(
            f"| {category.name} | {seed} | {len(train)} | {percent(rate)} | {above} of {len(scores)} | "
            f"{percent(interval.low)} – {percent(interval.high)} | {'yes' if kept else 'no'} | {ideal} |"
        )
    return lines


def timed(method: str) -> list[str]:
    """Seconds from 60 good 400×400 images to a file, and from the file to a first verdict."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 180, (25, 25, 3)).repeat(16, 0).repeat(16, 1)
    images = [(ground + rng.normal(0, 8, ground.shape)).clip(0, 255).astype(np.uint8) for _ in range(60)]
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / "part.andon", time.perf_counter()
        inspector = train_inspector(images, method)
        inspector.save(path)
        trained = time.perf_counter() - start
        start = time.perf_counter()
        load_inspector(path).inspect(images[0])
        verdict = time.perf_counter() - start
        size = path.stat().st_size / 2**20
    blocks = inspector.calibration.how
    return [
        f"60 good 400×400 images to a calibrated file with `{method}` ({blocks}; {size:.0f} MB): {trained:.1f} s. "
        f"The file opened and a first verdict, imports done: {verdict:.1f} s."
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", type=Path, default=[])
    parser.add_argument("--category", action="append")
    parser.add_argument("--method", default="patchcore")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    lines = [
        "# What an inspector promises",
        "",
        f"{datetime.date.today()}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python "
        f"{platform.python_version()}, load average at the start {load:.1f} on {os.cpu_count()} cores. "
        f"`python benchmarks/bench_inspector.py --method {options.method}"
        f"{' --time' if options.time else f' --seeds {options.seeds} --images {options.images}'} …`",
        "",
    ]
    if options.time:
        lines += timed(options.method)
    else:
        header = (
            "| category | seed | training images | promised | good test images above | their 95 % interval | kept | "
        )
        lines += [header + "threshold ÷ the test images' own |", "|---|---:|---:|---:|---:|---:|---|---:|"]
        with tempfile.TemporaryDirectory() as folder:
            for data in options.data:
                for category in load_dataset(data):
                    if options.category and category.name not in options.category:
                        continue
                    cache = ArrayCache(Path(folder) / category.name)
                    for seed in range(options.seeds):
                        lines += promised(category, options.method, seed, options.images, cache)
                        print(lines[-1], flush=True)
    print("\n".join(lines))
    if options.write:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
