"""What a process of its own costs an experiment: fresh spawned processes against those of the local engine.

python benchmarks/bench_engine.py [--jobs-to-run 20]

Baseline: ``multiprocessing``'s "spawn", which imports torch and Andon anew in every process. Both run the same empty
job, one at a time; the engine's first job also pays for its server.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import platform
import time
from datetime import UTC, datetime

import torch

from andon.benchmark.engine import Job, LocalEngine
from andon.benchmark.runner import _cpu_model


def empty() -> None:
    import andon.benchmark.runner  # noqa: F401


def spawned(count: int) -> list[float]:
    context = multiprocessing.get_context("spawn")
    times = []
    for _ in range(count):
        start = time.perf_counter()
        process = context.Process(target=empty)
        process.start()
        process.join()
        assert process.exitcode == 0
        times.append(time.perf_counter() - start)
    return times


def engine(count: int) -> list[float]:
    ends = [time.perf_counter()]
    runner = LocalEngine(jobs=1, preload=("andon.benchmark.runner",))
    # ``dict`` takes any keyword and does nothing; a job's function must not be of the main module.
    runner.run(
        [Job(str(i), dict) for i in range(count)],
        lambda event: ends.append(time.perf_counter()) if type(event).__name__ == "Finished" else None,
    )
    assert len(ends) == count + 1
    return [b - a for a, b in itertools.pairwise(ends)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs-to-run", type=int, default=20)
    count = parser.parse_args().jobs_to_run
    baseline = sorted(spawned(max(3, count // 4)))
    first, *rest = engine(count)
    typical, ours = baseline[len(baseline) // 2], sorted(rest)[len(rest) // 2]
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{datetime.now(UTC).date()}, {versions}, {_cpu_model()}, load {os.getloadavg()[0]:.1f}\n")
    print("| process | s an experiment (median) | ratio |\n|---|---|---|")
    print(f"| spawned, imports torch and Andon | {typical:.2f} | 1 |")
    print(f"| local engine, first experiment (starts the server) | {first:.2f} | {typical / first:.1f} |")
    print(f"| local engine, every further one | {ours:.3f} | {typical / ours:.0f} |")


if __name__ == "__main__":
    main()
