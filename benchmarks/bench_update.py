"""What an update gives beside training again: a stream that drifts, and the time that it takes.

    python benchmarks/bench_update.py --data MTD [--first 300] [--more 100] [--method patchcore] [--write]

The first good training images in shooting order are trained on; the next ones are added by ``propose_update``, with the
scores of the first ones kept or made again (``training``); and trained on anew, together. Each is judged on the test
images: good ones above the thresholds that 1 and 5 % were promised for, and the image AUROC.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from andon.core import Category
from andon.data import ArrayCache, Images, load_dataset
from andon.evaluation import auroc
from andon.inspection import Inspector, Regions, propose_update, train_inspector
from andon.inspection.cross_fitting import readings_of

RESULTS = Path(__file__).parent / "results" / "update.md"
RATES = (0.01, 0.05)
T = TypeVar("T")


def compared(category: Category, method: str, first: int, more: int, cache: ArrayCache) -> list[str]:
    """A line of the table each way."""
    old, new = (Images(category.train[a:b], cache) for a, b in ((0, first), (first, first + more)))
    both = Images(category.train[: first + more], cache)
    start = timed(lambda: train_inspector(old, method, cache=cache))
    kept = timed(lambda: propose_update(start[0], new))
    again = timed(lambda: propose_update(start[0], new, training=old))
    anew = timed(lambda: train_inspector(both, method, cache=cache))
    left_out = len(kept[0].left_out)
    rows = [
        (f"first {first}", *start),
        (f"+ {more - left_out} added, {left_out} left out", kept[0].inspector, kept[1]),
        ("the same, the first ones scored again", again[0].inspector, again[1]),
        (f"{len(both)} trained anew", *anew),
    ]
    return [f"| {category.name} | {what} | {judged(i, category, cache)} | {seconds:.1f} |" for what, i, seconds in rows]


def timed(make: Callable[[], T]) -> tuple[T, float]:
    """What is made, and the seconds that it took."""
    start = time.perf_counter()
    return make(), time.perf_counter() - start


def judged(inspector: Inspector, category: Category, cache: ArrayCache) -> str:
    """Good test images above the thresholds of the rates, and the AUROC, as cells of a table."""
    scores = readings_of(inspector.detector, Images(category.test, cache), Regions()).scores
    defective = np.array([sample.is_defective for sample in category.test])
    good = scores[~defective]
    cells = []
    for rate in RATES:
        if rate < inspector.calibration.least_rate:
            cells.append("–")  # so few images cannot promise it
        else:
            cells.append(f"{np.count_nonzero(good > inspector.calibration.threshold(rate))} of {len(good)}")
    return " | ".join([*cells, f"{auroc(scores, defective):.3f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", type=Path, default=[])
    parser.add_argument("--method", default="patchcore")
    parser.add_argument("--first", type=int, default=300)
    parser.add_argument("--more", type=int, default=100)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = [
        f"{datetime.date.today()}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python "
        f"{platform.python_version()}, load average at the start {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores. "
        f"`python benchmarks/bench_update.py --method {options.method} --first {options.first} "
        f"--more {options.more} …`",
        "",
        "| category | images | good test images above, promised 1 % | promised 5 % | AUROC | seconds |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for data in options.data:
        for category in load_dataset(data):
            with tempfile.TemporaryDirectory() as folder:
                lines += compared(category, options.method, options.first, options.more, ArrayCache(Path(folder)))
    print("\n".join(lines))
    if options.write:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
