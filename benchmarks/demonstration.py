"""All methods in the demonstration: what they reach, and what they cost, from a store that ``andon demo`` filled.

    andon demo DIR
    python benchmarks/demonstration.py DIR [--write]

``--write`` renews benchmarks/results/demonstration.md.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from andon.benchmark.record import ExperimentRecord
from andon.benchmark.store import Store
from andon.core import AndonError

RESULT = Path(__file__).parent / "results" / "demonstration.md"


def find_store(folder: Path) -> Store:
    for candidate in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())):
        try:
            return Store(candidate)
        except AndonError:
            continue
    raise SystemExit(f"{folder}: no benchmark store there")


def table(store: Store) -> str:
    records = store.records()
    specs = [spec for plan in store.plans() for spec in plan.specs]
    labels = list(dict.fromkeys(spec.label for spec in specs))
    tasks = list(dict.fromkeys(spec.category for spec in specs))
    cells: dict[tuple[str, str], list[ExperimentRecord]] = {}
    for record in records:
        cells.setdefault((record.spec.category, record.spec.label), []).append(record)

    def auroc(record: ExperimentRecord) -> float:
        assert record.evaluation.image.auroc is not None
        return 100 * record.evaluation.image.auroc

    def auspro(record: ExperimentRecord) -> float:
        assert record.evaluation.localisation is not None
        return 100 * record.evaluation.localisation.auspro[0.05]

    lines = ["| task | " + " | ".join(labels) + " |", "|---" * (1 + len(labels)) + "|"]
    means = []
    for task in tasks:
        row = [
            tuple(statistics.fmean(f(r) for r in cells[task, label]) for f in (auroc, auspro))
            if (task, label) in cells
            else None
            for label in labels
        ]
        means.append(row)
        lines.append(f"| {task} | " + " | ".join("–" if c is None else f"{c[0]:.1f} / {c[1]:.1f}" for c in row) + " |")
    mean = []
    for column in zip(*means, strict=True):
        known = [c for c in column if c is not None]
        mean.append(
            "–"
            if len(known) < len(tasks)
            else " / ".join(f"{statistics.fmean(v):.1f}" for v in zip(*known, strict=True))
        )
    lines.append("| **mean** | " + " | ".join(mean) + " |")

    lines += ["", "| method | seeds | part of its training | fit, s | images/s |", "|---|---|---|---|---|"]
    for label in labels:
        own = [r for (_, name), found in cells.items() if name == label for r in found]
        budget = own[0].spec.config.get("budget")
        # The first experiment of a category has the cost of the features; the others found them in the cache.
        seconds = sorted(r.fit_seconds["total"] for r in own)
        speeds = [r.images_per_second for r in own if r.images_per_second is not None]
        lines.append(
            f"| {label} | {len({r.spec.seed for r in own})} | {'–' if budget is None else f'{100 * budget:g} %'} | "
            f"{statistics.median(seconds):.1f} ({seconds[0]:.1f}–{seconds[-1]:.1f}) | {statistics.median(speeds):.1f} |"
        )
    first = records[0]
    total = sum(r.seconds for r in records)
    where = f"{first.hardware.cpu}, {first.hardware.threads} threads; torch {first.versions['torch']}"
    return "\n".join(
        [
            "# The methods in the demonstration",
            "",
            f"`andon demo`, {first.started[:10]}, {where}. {len(records)} experiments, {total / 60:.1f} minutes.",
            "",
            "Image AUROC / AUsPRO to a pixel FPR of 0.05, in %, mean over the seeds. 60 good images to learn",
            "from, 30 good and 30 defective ones to judge, every method's preset `default`: what works out of the box.",
            "",
            *lines,
            "",
            "Fit: median (range) over tasks and seeds, wall clock; later seeds find features in the cache.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    text = table(find_store(options.folder))
    print(text)
    if options.write:
        RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
