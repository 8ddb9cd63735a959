"""``andon study``: the AutoVI study, whole."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from andon.cli._options import (
    AddedMethods,
    Address,
    Device,
    EngineName,
    Jobs,
    Threads,
    command_group,
    engine_of,
)
from andon.cli._progress import experiment_bars, stage_bars
from andon.cli._show import duration, say, show_table
from andon.cli.bench import (
    ESTIMATE_COLUMNS,
    ESTIMATE_FIGURES,
    estimate_cells,
    print_estimate_sums,
    print_summary,
)
from andon.core import ConfigError

if TYPE_CHECKING:
    from andon.benchmark import RunSummary, StudyPlan

__all__ = ["app", "autovi", "literature"]

app = command_group("The study of Carvalho et al. (2024), whole: every table and figure.")


Data = Annotated[Path | None, typer.Option("--data", "-d", metavar="DIR", help="AutoVI's folder.", show_default=False)]
Raw = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Its uncropped images, for Table 12; windows in the given images otherwise."),
]
Synthetic = Annotated[
    bool, typer.Option("--synthetic", help="On rendered images instead, with what is installed with the package.")
]
Small = Annotated[bool, typer.Option("--small", help="Fewer runs, shorter trainings: minutes instead of days.")]
Results = Annotated[
    Path | None,
    typer.Option("--store", "-s", metavar="DIR", help="Folder of the results; named after the study otherwise."),
]
Pages = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder of the pages; STORE-report otherwise.")
]
Whose = Annotated[
    Literal["paper", "released-code"],
    typer.Option("--protocol", help="What counts where the study's text and its code differ."),
]
AllMethods = Annotated[
    bool, typer.Option("--all-methods", help="Every installed method, beside the study's six and the trivial floor.")
]
Seeds = Annotated[int | None, typer.Option(min=1, help="Runs of every experiment.", show_default=False)]
Anyway = Annotated[
    bool, typer.Option("--anyway", help="Run even where andon data info finds errors in the data; they are printed.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done, and what it would cost.")]


@app.command()
def autovi(
    data: Data = None,
    raw: Raw = None,
    synthetic: Synthetic = False,
    small: Small = False,
    store: Results = None,
    out: Pages = None,
    protocol: Whose = "paper",
    added: AddedMethods = None,
    all_methods: AllMethods = False,
    seeds: Seeds = None,
    jobs: Jobs = None,
    threads: Threads = None,
    device: Device = "cpu",
    engine: EngineName = "local",
    address: Address = None,
    anyway: Anyway = False,
    dry_run: DryRun = False,
) -> None:
    """Run what is left of the study, and write its results section.

    Interrupt it at any time, and run it again: it goes on where it stopped.
    """
    from andon.benchmark import prepare_study, with_images

    _check_images(data, raw, synthetic)
    how = {"jobs": jobs, "threads": threads, "device": device}
    chosen_engine = engine_of(engine, address, jobs, threads, device)
    parts = prepare_study(
        protocol,
        small=small,
        synthetic=synthetic,
        raw=synthetic or raw is not None,
        added=added or (),
        all_methods=all_methods,
        seeds=seeds,
    )
    store = store or Path(parts[0].name)
    if synthetic:
        data, raw = _rendered(store, small, jobs)
    assert data is not None
    parts = with_images(parts, data, raw)
    if dry_run:
        _print_estimate(parts, store, how)
        return
    summary = _run(parts, store, **how, engine=chosen_engine, anyway=anyway)
    if summary.finished or summary.skipped:
        _write(parts, store, out or Path(f"{os.path.abspath(store)}-report"), protocol)
    if summary.failed:
        say(f"why experiments failed: andon bench status -s {store}; the same command tries them again")
        raise typer.Exit(1)


@app.command()
def literature(
    output: Annotated[
        Literal["terminal", "markdown", "latex", "csv"], typer.Option("--format", help="How it is written.")
    ] = "terminal",
) -> None:
    """The study's Table 2: what others had published of the methods, with its sources."""
    from andon.report import LITERATURE_COLUMNS, literature_notes, literature_rows, literature_text

    if output != "terminal":
        typer.echo(literature_text(output), nl=False)
        return
    show_table(LITERATURE_COLUMNS, literature_rows(), figures=LITERATURE_COLUMNS[1:])
    for note in literature_notes():
        say(note)


def _check_images(data: Path | None, raw: Path | None, synthetic: bool) -> None:
    if synthetic:
        for option, folder in (("--data", data), ("--raw", raw)):
            if folder is not None:
                raise ConfigError(f"--synthetic and {option} {folder}: give one of them")
    elif data is None:
        raise ConfigError("nothing to run on: give AutoVI's folder with --data DIR, or --synthetic for rendered images")


def _rendered(store: Path, small: bool, jobs: int | None) -> tuple[Path, Path]:
    from andon.benchmark import cpu_count, render_study_line

    start = time.monotonic()
    with stage_bars() as progress:
        line = render_study_line(store, small=small, jobs=jobs or min(16, cpu_count()), progress=progress)
    how = f"{line.rendered} rendered in {duration(time.monotonic() - start)}" if line.rendered else "there already"
    say(f"images: {line.data} and {line.raw} ({how})")
    say("every method stands on what is installed with the package, so no figure is one of the study's")
    return line.data, line.raw


def _run(parts: Sequence[StudyPlan], store: Path, **options: Any) -> RunSummary:
    from andon.benchmark import run_study

    with experiment_bars() as on_event:
        summary = run_study(parts, store, on_event=on_event, on_part=_print_part, **options)
    print_summary(summary)
    return summary


def _print_part(part: StudyPlan, todo: int, done: int) -> None:
    say(f"{part.shows} (plan {part.name}): {todo} experiments to do, {done} done before")


def _write(parts: Sequence[StudyPlan], store: Path, folder: Path, protocol: str) -> None:
    from andon.benchmark import Store, study_protocol
    from andon.report import write_study

    with stage_bars() as progress:
        written = write_study(Store(store), parts, folder, protocol=study_protocol(protocol), progress=progress)
    pages = [path for path in written if path.suffix == ".html"]
    say(f"{len(written)} files in {folder}")
    for page in pages[:1]:
        say(f"results section: {page}")


def _print_estimate(parts: Sequence[StudyPlan], store: Path, how: Mapping[str, Any]) -> None:
    from andon.benchmark import estimate_study

    with stage_bars() as progress:
        found = estimate_study(parts, store, progress=progress, **how)
    for part in parts:
        rows = [(row.dataset, *estimate_cells(row)) for row in found.rows if row.part is part]
        show_table(("data set", *ESTIMATE_COLUMNS), rows, figures=ESTIMATE_FIGURES, title=part.shows)
        say()
    say("experiments that several parts share are counted where they come first")
    print_estimate_sums(found.whole)
