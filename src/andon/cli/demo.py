"""``andon demo``: the whole way in minutes."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from andon.cli._options import Folder, Jobs
from andon.cli._progress import experiment_bars, stage_bars
from andon.cli._show import duration, say
from andon.cli.bench import print_summary, print_tables, write_page
from andon.cli.data import image_counts

__all__ = ["demo"]


def demo(
    folder: Folder,
    count: Annotated[str, typer.Option(help="Images a task: small, or full (the study's Table 3).")] = "small",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the rendered images.")] = 0,
    jobs: Jobs = None,
) -> None:
    """The whole way in minutes: render inspection tasks, benchmark methods on them, write the report."""
    from andon.benchmark import cpu_count, run_plan
    from andon.synthetic import MANIFEST, TASKS, generate

    start = time.monotonic()
    images, store = folder / "data", folder / "store"
    if (images / MANIFEST).is_file():
        say(f"images: {images} (there already)")
    else:
        with stage_bars() as progress:
            generate(images, tasks=TASKS, counts=image_counts(count), seed=seed, progress=progress)
        say(f"images: {images}, rendered in {duration(time.monotonic() - start)}")
    with experiment_bars() as on_event:
        # Small networks leave a second processor idle: two experiments side by side take a quarter off the time.
        jobs = jobs or max(min(2, cpu_count()), cpu_count() // 4)
        summary = run_plan("demo", store, data=[images], jobs=jobs, on_event=on_event)
    print_summary(summary)
    print_tables(store, (6, 9))
    write_page(store, folder / "report.html", None)
    say(f"done in {duration(time.monotonic() - start)}; run again, it goes on where it stopped")
    if summary.failed:
        raise typer.Exit(1)
