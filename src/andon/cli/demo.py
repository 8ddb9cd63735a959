"""``andon demo``: the whole way in minutes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from andon.cli._options import Folder, Jobs
from andon.cli._progress import experiment_bars, stage_bars
from andon.cli._show import duration, say
from andon.cli.bench import print_summary, print_tables, write_page
from andon.cli.data import image_counts

__all__ = ["demo"]


_REAL_TRAIN, _REAL_TEST = 120, 60
"""Images a category of the real demonstration: minutes on two processors."""


def demo(
    folder: Folder,
    count: Annotated[
        str | None, typer.Option(help="Images a rendered task: small (the default), or full (the study's Table 3).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the rendered images, or of the real ones' split.")] = 0,
    jobs: Jobs = None,
    real: Annotated[
        bool, typer.Option("--real", help="On real images: ELPV, solar cells, from the package elpv-dataset.")
    ] = False,
) -> None:
    """The whole way in minutes: images, a benchmark of methods on them, the report.

    The images are inspection tasks that are rendered here, or with --real the solar cells of ELPV.
    """
    from andon.benchmark import cpu_count, run_plan
    from andon.core import ConfigError

    if real and count is not None:
        raise ConfigError("--count is of rendered images; the real ones are as many as the package has: leave it out")
    start = time.monotonic()
    images, store = folder / "data", folder / "store"
    if real:
        _real_images(images, seed)
    else:
        _rendered_images(images, count or "small", seed)
    with experiment_bars() as on_event:
        # Small networks leave a second processor idle: two experiments side by side take a quarter off the time.
        jobs = jobs or max(min(2, cpu_count()), cpu_count() // 4)
        plan = "demo-real" if real else "demo"
        summary = run_plan(plan, store, data=[images], jobs=jobs, on_event=on_event)
    print_summary(summary)
    print_tables(store, (6,) if real else (6, 9))
    write_page(store, folder / "report.html", None)
    say(f"done in {duration(time.monotonic() - start)}; run again, it goes on where it stopped")
    if summary.failed:
        raise typer.Exit(1)


def _rendered_images(images: Path, count: str, seed: int) -> None:
    from andon.synthetic import MANIFEST, TASKS, generate

    start = time.monotonic()
    if (images / MANIFEST).is_file():
        say(f"images: {images} (there already)")
        return
    with stage_bars() as progress:
        generate(images, tasks=TASKS, counts=image_counts(count), seed=seed, progress=progress)
    say(f"images: {images}, rendered in {duration(time.monotonic() - start)}")


def _real_images(images: Path, seed: int) -> None:
    from andon.core import DataError
    from andon.data import ELPV_LICENCE, ELPV_PACKAGE, elpv_folder, write_elpv

    say(f"images: ELPV, cells of solar modules by electroluminescence; licence: {ELPV_LICENCE}")
    if images.exists():
        say(f"images: {images} (there already)")
        return
    source = elpv_folder()
    if source is None:
        say(f"installing the package {ELPV_PACKAGE} (90 MB) ...")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", ELPV_PACKAGE]
        if subprocess.run(command, check=False).returncode == 0:
            source = elpv_folder()
    if source is None:
        raise DataError(
            f"the package {ELPV_PACKAGE} is not installed and could not be: where there is a package index, "
            f"pip install --no-deps {ELPV_PACKAGE}; without one, andon demo FOLDER renders its images"
        )
    counts = write_elpv(source, images, train=_REAL_TRAIN, test=_REAL_TEST, seed=seed)
    for name, (train, good, bad) in counts.items():
        say(f"  {name}: {train} good images to learn from, {good} good and {bad} defective ones to judge")
