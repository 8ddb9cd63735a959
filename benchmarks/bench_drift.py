"""The drift alarm: how often it rises without drift, and how early with it.

    python benchmarks/bench_drift.py [--part normal] [--part real] [--part ramp] [--write]

Without drift: ``--shifts`` shifts of 2,000 parts for each size of the calibration and source of scores, with and
without defective parts; the share that alarms stands beside the promised bound.

With drift: good images of a task of the synthetic line are rendered at several values of its light or dirt knob (no
other drift), and scored by an inspector of 60 good images at knob 1. These scores are the production at each value; in
between it is mixed. A line runs steadily for ``--steady`` parts at knob 1, then the knob is turned up evenly by 1 a
``--pace`` parts. As the production is known, so is its true false-alarm rate at every part, for the inspector's own
thresholds and for those of 2 and 5 %; the part at which it has doubled stands beside the part of the alarm.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from andon.evaluation import clopper_pearson
from andon.inspection import percent, train_inspector
from andon.inspection.station.monitor import DriftMonitor
from andon.synthetic import Knobs, render

RESULTS = Path(__file__).parent / "results" / "drift.md"
LEVELS = {"light": (1.0, 2.0, 3.0, 4.0), "dirt": (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)}
SIZES = (60, 100, 300)
Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]


def image(task: str, split: str, index: int, knob: str, value: float) -> npt.NDArray[np.uint8]:
    """A good image of the production at a knob's value, everything else steady."""
    knobs = Knobs(**{"drift": 0.0, knob: value})
    return render(task, index, "train" if split == "train" else "test", seed=0, knobs=knobs, time=0.25).image


def _images(asked: tuple[str, str, range, str, float]) -> list[npt.NDArray[np.uint8]]:
    import cv2

    cv2.setNumThreads(1)
    task, split, indices, knob, value = asked
    return [image(task, split, index, knob, value) for index in indices]


class Production:
    """Scores of a task's good images at each value of a knob, by an inspector of 60 images; kept in a file."""

    def __init__(self, task: str, knob: str, method: str, count: int, folder: Path, jobs: int) -> None:
        self.task, self.knob, self.levels = task, knob, LEVELS[knob]
        file = folder / f"{task}-{knob}-{method}-{count}.npz"
        if not file.is_file():
            self._measure(file, method, count, jobs)
        kept = np.load(file)
        self.calibration: Floats = kept["calibration"]
        self.thresholds = {"stop": float(kept["stop"]), "look": float(kept["look"])}
        self.pools: list[Floats] = [kept[f"{level:g}"] for level in self.levels]
        ranked = np.sort(self.pools[0])[::-1]
        self.thresholds |= {f"true rate {percent(r)}": float(ranked[round(r * count)]) for r in (0.02, 0.05)}

    def _measure(self, file: Path, method: str, count: int, jobs: int) -> None:
        with ProcessPoolExecutor(jobs) as pool:
            asked = [(self.task, "train", range(60), self.knob, 1.0)]
            for level in self.levels:
                asked += [
                    (self.task, "test", range(i, min(i + 25, count)), self.knob, level) for i in range(0, count, 25)
                ]
            rendered = pool.map(_images, asked)
            inspector = train_inspector(next(rendered), method)
            scores: dict[str, list[float]] = {}
            for (*_, level), images in zip(asked[1:], rendered, strict=True):
                scores.setdefault(f"{level:g}", []).extend(inspector.inspect(one).score for one in images)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            file,
            calibration=inspector.calibration.scores,
            stop=inspector.thresholds.stop,
            look=inspector.thresholds.look,
            **{name: np.array(found) for name, found in scores.items()},
        )

    def draw(self, rng: np.random.Generator, value: float) -> float:
        """The score of a part at a knob's value."""
        low, share = self._between(value)
        return float(rng.choice(self.pools[low + (rng.random() < share)]))

    def rate(self, value: float, threshold: float) -> float:
        """The true false-alarm rate."""
        low, share = self._between(value)
        above = [float(np.mean(pool > threshold)) for pool in self.pools[low : low + 2]]
        return (1 - share) * above[0] + share * above[-1]

    def doubled(self, threshold: float) -> float | None:
        """The knob's value at which it is twice that of knob 1; None where it is 0 there, or never."""
        first = self.rate(1.0, threshold)
        found = [v for v in np.linspace(1, self.levels[-1], 3001) if self.rate(float(v), threshold) >= 2 * first]
        return float(found[0]) if found and first > 0 else None

    def _between(self, value: float) -> tuple[int, float]:
        low = min(int(np.searchsorted(self.levels, value, "right")) - 1, len(self.levels) - 2)
        return low, (value - self.levels[low]) / (self.levels[low + 1] - self.levels[low])


def no_drift(sources: dict[str, Draw], shifts: int, parts: int) -> list[str]:
    """The table of false alarms."""
    lines = [
        f"| scores | defective | calibration | alarms in {shifts} shifts of {parts:,} parts | 95 % interval | bound |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    total = alarms_in_all = 0
    for source, draw in sources.items():
        for defective in (0.0, 0.01, 0.03):
            for size in SIZES if not defective else SIZES[:1]:
                rng = np.random.default_rng([size, round(100 * defective), len(source)])
                alarms = 0
                for _ in range(shifts):
                    monitor = DriftMonitor(draw(rng, size))
                    scores = draw(rng, parts)
                    scores[rng.random(parts) < defective] = 1e6
                    alarms += monitor.update_all(scores).alarmed
                interval = clopper_pearson(alarms, shifts, 0.95)
                total, alarms_in_all = total + shifts, alarms_in_all + alarms
                lines.append(
                    f"| {source} | {percent(defective)} | {size} | {alarms} ({percent(alarms / shifts)}) | "
                    f"{percent(interval.low)} – {percent(interval.high)} | 1 % |"
                )
                print(lines[-1], flush=True)
    interval = clopper_pearson(alarms_in_all, total, 0.95)
    return [
        *lines,
        "",
        f"In all {alarms_in_all} of {total:,} shifts ({percent(alarms_in_all / total)}; 95 % interval "
        f"{percent(interval.low)} – {percent(interval.high)}); the bound is for ever, not for a shift.",
        "",
    ]


def long_run(parts: int) -> list[str]:
    """Cost of an update early and late; a line."""
    rng = np.random.default_rng(0)
    monitor, took = DriftMonitor(rng.normal(size=60)), []
    for _ in range(2):
        scores = rng.normal(size=parts // 2).tolist()
        begun = time.process_time()
        monitor.update_all(scores[:5000])
        took.append((time.process_time() - begun) / 5000 * 1e6)
        monitor.update_all(scores[5000:])
    return [
        f"An update takes {took[0]:.0f} µs at first and {took[1]:.0f} µs after {parts // 2:,} parts; evidence after "
        f"{parts:,} parts without drift: {monitor.state.evidence:.2g}, alarm from {monitor.bound:.0f}.",
        "",
    ]


def ramps(productions: Sequence[Production], steady: int, pace: int, runs: int) -> list[str]:
    """The table of alarms with drift."""
    lines = [
        "| task, knob | threshold | true rate at knob 1 | doubled at knob | at part of the ramp | alarm at part of the "
        f"ramp: median (lowest – highest of {runs}) | before it doubled | alarm before the ramp |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for production in productions:
        alarms, early = [], 0
        for run in range(runs):
            rng, monitor = np.random.default_rng(run), DriftMonitor(production.calibration)
            monitor.update_all(production.draw(rng, 1.0) for _ in range(steady))
            if monitor.state.alarmed:
                early += 1
                continue
            end = round(pace * (production.levels[-1] - 1))
            part = next(
                (i for i in range(end) if monitor.update_all([production.draw(rng, 1 + i / pace)]).alarmed), None
            )
            alarms.append(float("inf") if part is None else part)
        for name, threshold in production.thresholds.items():
            value = production.doubled(threshold)
            doubled = None if value is None else (value - 1) * pace
            before = "–" if doubled is None else f"{sum(a < doubled for a in alarms)} of {len(alarms)}"
            alarm = f"{_part(float(np.median(alarms)))} ({_part(min(alarms))} – {_part(max(alarms))})"
            lines.append(
                f"| {production.task}, {production.knob} | {name} | {percent(production.rate(1.0, threshold))} | "
                f"{'–' if value is None else f'{value:.2f}'} | {'–' if doubled is None else f'{doubled:,.0f}'} | "
                f"{alarm} | {before} | {early} of {runs} |"
            )
            print(lines[-1], flush=True)
    return [*lines, ""]


def _part(number: float) -> str:
    return "never" if number == float("inf") else f"{number:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=["normal", "real", "ramp"])
    parser.add_argument("--task", action="append")
    parser.add_argument("--knob", action="append", choices=list(LEVELS))
    parser.add_argument("--method", default="thumbnail-nn")
    parser.add_argument("--images", type=int, default=300, help="a value of a knob")
    parser.add_argument("--shifts", type=int, default=200)
    parser.add_argument("--steady", type=int, default=2000)
    parser.add_argument("--pace", type=int, action="append")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--scores", type=Path, default=Path("/tmp/bench_drift"), help="where scores are kept")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    parts, tasks = options.part or ["normal", "real", "ramp"], options.task or ["pipe_clip"]
    knobs = options.knob or list(LEVELS)
    lines = [
        f"{datetime.date.today()}, Python {platform.python_version()}, {os.cpu_count()} cores. `python "
        f"benchmarks/bench_drift.py{''.join(f' --part {part}' for part in parts)} --method {options.method} "
        f"--images {options.images}{''.join(f' --task {task}' for task in tasks)}"
        f"{''.join(f' --knob {knob}' for knob in knobs)}`",
        "",
    ]
    if "normal" in parts:
        lines += ["## Without drift: normal scores", ""]
        lines += no_drift({"normal": lambda rng, n: rng.normal(size=n)}, options.shifts, 2000)
        lines += long_run(200_000)
    productions = [
        Production(task, knob, options.method, options.images, options.scores, options.jobs)
        for task in (tasks if {"real", "ramp"} & set(parts) else [])
        for knob in knobs
    ]
    if "real" in parts:
        real = productions[0].pools[0]
        lines += ["## Without drift: scores of images, resampled", ""]
        name = f"{len(real)} scores of {productions[0].task}"
        lines += no_drift({name: lambda rng, n: rng.choice(real, n)}, options.shifts, 2000)
    if "ramp" in parts:
        lines += ["## With drift", ""]
        for pace in options.pace or [1000, 4000]:
            lines += [
                f"{options.steady:,} steady parts, then the knob goes up by 1 in {pace:,} parts:",
                "",
                *ramps(productions, options.steady, pace, options.runs),
            ]
    print("\n".join(lines))
    if options.write:
        text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else "# The drift alarm\n"
        RESULTS.write_text(text + "\n" + "\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
