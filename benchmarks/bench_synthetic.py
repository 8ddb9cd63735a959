"""Speed of the synthetic line: images a second on one core, PNG included.

    python benchmarks/bench_synthetic.py [--images 20] [--write]

Beside it, in the same run, the plain way: every image draws its whole scene anew, without the background kept for a
model. Figures are CPU time of one process with one thread, so that a busy machine disturbs them little.
``--write`` puts the table into benchmarks/results/synthetic.md.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import cv2
import numpy as np

import andon
from andon.synthetic import TASKS, render, rendering

TARGET = {(400, 400): 15.0, (750, 1000): 4.0}


def one_image(task: str, index: int) -> None:
    image = render(task, index, "test").image
    cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 2])


def image_anew(task: str, index: int) -> None:
    rendering._backgrounds.clear()
    one_image(task, index)


def rate(draw: Callable[[str, int], None], task: str, count: int) -> float:
    """Images a CPU second, median of three rounds."""
    rates = []
    for _ in range(3):
        start = time.process_time()
        for index in range(count):
            draw(task, index)
        rates.append(count / (time.process_time() - start))
    return float(np.median(rates))


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rows = []
    for task in TASKS:
        for index in range(options.images):
            render(task, index, "test")  # textures, lamps and every model's background
        kept = rate(one_image, task, options.images)
        anew = rate(image_anew, task, max(2, options.images // 5))
        size = rendering.station_of(task).size
        rows.append(
            f"| {task} | {size[1]}×{size[0]} | {kept:.1f} | {TARGET[size]:.0f} | {anew:.1f} | {kept / anew:.1f} |"
        )
        print(rows[-1], flush=True)
    if options.write:
        table = "\n".join(rows)
        text = f"""# Speed of the synthetic line

Images a second of CPU time in one process with one thread, rendered and encoded as PNG; median of three rounds of
{options.images} images. "Anew" draws the background of every image instead of once a model.

| task | size | images/s | wanted | anew, images/s | ratio |
|---|---|---|---|---|---|
{table}

Measured {date.today().isoformat()} with andon {andon.__version__}, NumPy {np.__version__}, OpenCV {cv2.__version__},
Python {platform.python_version()}, on {cpu_name()}, by `python benchmarks/bench_synthetic.py`.
"""
        target = Path(__file__).parent / "results" / "synthetic.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
