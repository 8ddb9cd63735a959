"""The report: a plot as Andon's own SVG beside matplotlib's, and a whole study's page.

    python benchmarks/bench_report.py [--tasks 6] [--methods 6] [--seeds 8] [--write]

The plot: mean ROC curves of four methods with their bands, eight runs each, 250 good and 80 defective images; both
write an SVG with text as text, after one run to warm up. The page: a store made up for it (the generator of the tests),
of the size of the AutoVI study by default, read back and rendered. Best of three.
"""

from __future__ import annotations

import argparse
import datetime
import io
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))


def best_of(repeats: int, work: Callable[[], object]) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def plots() -> list[tuple[str, float, int]]:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    from andon.report.figures import PALETTE, curves_svg, roc_band

    rng = np.random.default_rng(0)
    labels = np.r_[np.zeros(250), np.ones(80)].astype(bool)
    bands = []
    for index in range(4):
        band = roc_band([(rng.normal(size=330) + labels * (1 + index / 2), labels) for _ in range(8)])
        assert band is not None
        bands.append((index, band))

    def own() -> str:
        return curves_svg(bands, x_label="FPR", y_label="TPR", diagonal=True)

    def theirs() -> str:
        with mpl.rc_context({"svg.fonttype": "none"}):
            figure = Figure(figsize=(3.5, 2.9))
            FigureCanvasSVG(figure)
            axes = figure.add_axes((0.14, 0.14, 0.82, 0.82))
            axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="FPR", ylabel="TPR")
            axes.grid(True)
            axes.plot([0, 1], [0, 1], color="#cccccc")
            for index, band in bands:
                axes.fill_between(band.x, band.low, band.high, color=PALETTE[index], alpha=0.18, linewidth=0)
                axes.plot(band.x, band.mean, color=PALETTE[index])
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", transparent=True)
            return buffer.getvalue()

    rows = []
    for name, draw in (("Andon", own), ("matplotlib", theirs)):
        size = len(draw())
        rows.append((name, statistics.median(best_of(5, draw) for _ in range(3)), size))
    return rows


def page(tasks: int, methods: int, seeds: int) -> tuple[float, int, int]:
    from tests.report import fake

    from andon.benchmark.store import Store
    from andon.report import write_report

    fake.SIZE = (384, 512)
    made = [fake.FakeMethod(f"method{i}", f"Method {i}", 1 + i / 3, curves=i % 2 == 0) for i in range(methods)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = [f"task_{i}" for i in range(tasks)]
        defects = {"missing": 30, "misplaced": 30, "scratched": 20}
        fake.fill(root / "store", methods=made, categories=names, seeds=seeds, n_good=250, defects=defects)
        seconds = best_of(3, lambda: write_report(Store(root / "store"), root / "report.html"))
        return seconds, (root / "report.html").stat().st_size, tasks * methods * seeds


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=6)
    parser.add_argument("--methods", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/report.md")
    options = parser.parse_args()
    rows = plots()
    base = next(seconds for name, seconds, _ in rows if name == "matplotlib")
    lines = [
        "# The report",
        "",
        f"{datetime.date.today()}; {cpu()}; one process; Python {platform.python_version()}, NumPy {np.__version__}, "
        f"matplotlib {version('matplotlib')}.",
        "",
        "| plot (four ROC curves with bands) | ms | kB | times faster |",
        "|---|---:|---:|---:|",
        *(f"| {n} | {1000 * s:.1f} | {size / 1000:.0f} | {base / s:.1f} |" for n, s, size in rows),
        "",
    ]
    seconds, size, experiments = page(options.tasks, options.methods, options.seeds)
    lines += [
        "| page | experiments | s | MB |",
        "|---|---:|---:|---:|",
        f"| {options.tasks} tasks × {options.methods} methods × {options.seeds} seeds, gallery of 512 × 384 images "
        f"| {experiments} | {seconds:.1f} | {size / 1e6:.1f} |",
        "",
    ]
    text = "\n".join(lines)
    print(text)
    if options.write:
        (HERE.parent / "results" / "report.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
