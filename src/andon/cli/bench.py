"""``andon bench``: run methods on data sets, and compare them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from andon.cli._options import (
    AddedMethods,
    Address,
    Categories,
    DataFolders,
    Device,
    EngineName,
    Jobs,
    StoreFolder,
    Threads,
    assignment,
    command_group,
    engine_of,
)
from andon.cli._progress import experiment_bars, stage_bars
from andon.cli._show import Cell, duration, out, say, show_table
from andon.core import ConfigError

if TYPE_CHECKING:
    from andon.benchmark import Plan, PlanEstimate, PlanStatus, RowEstimate, RunSummary, Store, StudyRowEstimate

__all__ = [
    "ESTIMATE_COLUMNS",
    "ESTIMATE_FIGURES",
    "app",
    "estimate_cells",
    "plans",
    "print_estimate_sums",
    "print_summary",
    "print_tables",
    "report",
    "resume",
    "run",
    "status",
    "write_page",
]

app = command_group("Run methods on data sets, and compare them.")

PlanArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[PLAN]", help="A YAML file, or a plan that comes with Andon (demo, autovi-study).", show_default=False
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", "-m", help="Without a plan: a method, or file.py:Class; repeatable.", show_default=False),
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Without a plan: METHOD.OPTION=VALUE, as in patchcore.backbone=resnet18.", show_default=False
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(help="Without a plan: named configuration of the methods (andon methods show).", show_default=False),
]
Features = Annotated[
    str | None,
    typer.Option(
        help="Without a plan: 'designed' for features that nothing was learned for (--preset designed); the default's "
        "are learned from ImageNet.",
        metavar="default|designed",
        show_default=False,
    ),
]
Embedded = Annotated[bool, typer.Option("--embedded", help="The same as --features designed.", hidden=True)]
Anyway = Annotated[
    bool, typer.Option("--anyway", help="Run even where andon data info finds errors in the data; they are printed.")
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Run without the images that cannot be read; every table says so.")
]
PlanName = Annotated[str | None, typer.Option(help="Name of the plan, where there are several.", show_default=False)]
ESTIMATE_FIGURES = ("done", "failed", "missing", "time", "MiB")
ESTIMATE_COLUMNS = ("method", *ESTIMATE_FIGURES, "from")
_DEFAULT_METHODS = ("thumbnail-nn", "padim", "patchcore")


@app.command()
def run(
    store: StoreFolder,
    plan: PlanArgument = None,
    data: DataFolders = None,
    methods: Methods = None,
    added: AddedMethods = None,
    options: MethodOptions = None,
    preset: Preset = None,
    features: Features = None,
    embedded: Embedded = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds.", show_default=False)] = None,
    categories: Categories = None,
    jobs: Jobs = None,
    threads: Threads = None,
    device: Device = "cpu",
    engine: EngineName = "local",
    address: Address = None,
    cache: Annotated[bool, typer.Option(help="Share images and features between seeds and methods.")] = True,
    anyway: Anyway = False,
    skip_bad: SkipBad = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done, and what it would cost.")
    ] = False,
) -> None:
    """Run a plan, or methods on folders; what the store has already is not done again.

    Interrupt it at any time, and run it again: it goes on where it stopped.
    """
    from andon.benchmark import run_plan

    preset = _preset(preset, "designed" if embedded else features)
    chosen = _plan(plan, data, methods, options, seeds, categories, preset)
    chosen = chosen.with_methods(added or ())
    chosen = chosen.without_unreadable() if skip_bad else chosen
    chosen_engine = engine_of(engine, address, jobs, threads, device)
    if dry_run:
        _print_estimate(chosen, store, jobs, threads, device)
        return
    with experiment_bars() as on_event:
        summary = run_plan(
            chosen,
            store,
            jobs=jobs,
            threads=threads,
            device=device,
            cache=None if cache else False,
            anyway=anyway,
            skip_bad=skip_bad,
            engine=chosen_engine,
            on_event=on_event,
        )
    _finish(summary, store)


@app.command()
def resume(
    store: StoreFolder,
    plan: PlanName = None,
    data: DataFolders = None,
    jobs: Jobs = None,
    threads: Threads = None,
    device: Device = "cpu",
    engine: EngineName = "local",
    address: Address = None,
    retry_failed: Annotated[bool, typer.Option(help="Try failed experiments again.")] = True,
    anyway: Anyway = False,
    skip_bad: SkipBad = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Import the plan's own code even if you have not run it here before.")
    ] = False,
) -> None:
    """Go on with a store's plan: neither the plan's file nor its options are needed again."""
    from andon.benchmark import resume_plan

    with experiment_bars() as on_event:
        summary = resume_plan(
            store,
            plan,
            data=data or (),
            jobs=jobs,
            threads=threads,
            device=device,
            retry_failed=retry_failed,
            anyway=anyway,
            skip_bad=skip_bad,
            trust=trust,
            engine=engine_of(engine, address, jobs, threads, device),
            on_event=on_event,
        )
    _finish(summary, store)


@app.command()
def status(store: StoreFolder, plan: PlanName = None) -> None:
    """What is done, what failed and why, what is missing."""
    from andon.benchmark import plan_status

    found = plan_status(store, plan)
    states = ("done", "failed", "missing")
    show_table(("data set", "category", "method", *states), _status_rows(found, states), figures=states)
    for item in found.experiments:
        if item.state == "failed":
            where = f"{item.spec.label} on {item.spec.category}, seed {item.spec.seed}"
            say(Text("failed ", style="bold red"), f"{where}: {item.reason}")
            if (details := _store(store).traceback_path(item.spec.id)).is_file():
                say(f"  details: {details}")
    for line in found.problems:
        say(Text("damaged ", style="yellow"), line)
    go_on = "" if found.count("done") == len(found.experiments) else f"; go on with: andon bench resume -s {store}"
    say(f"{found.count('done')} done, {found.count('failed')} failed, {found.count('missing')} missing{go_on}")


def _status_rows(found: PlanStatus, states: tuple[str, ...]) -> list[list[Cell]]:
    groups: dict[tuple[str, str, str], dict[str, int]] = {}
    for item in found.experiments:
        counts = groups.setdefault((item.spec.dataset, item.spec.category, item.spec.label), dict.fromkeys(states, 0))
        counts[item.state] += 1
    return [
        [*key, *(Text(str(n), style="bold red" if state == "failed" and n else "") for state, n in counts.items())]
        for key, counts in groups.items()
    ]


@app.command()
def report(
    store: StoreFolder,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="HTML", help="The page; report.html in the store otherwise."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.", show_default=False)] = None,
    tables: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the tables there: text, Markdown, LaTeX, CSV.", show_default=False),
    ] = None,
) -> None:
    """The study's tables in the terminal, and one self-contained report page."""
    from andon.report import write_tables

    print_tables(store)
    if tables is not None:
        for path in write_tables(_store(store), tables):
            say(f"wrote {path}")
    write_page(store, output or store / "report.html", title)


@app.command()
def plans() -> None:
    """The plans that come with Andon."""
    from andon.benchmark import packaged_plans

    show_table(("plan", "what it is"), packaged_plans().items())


def print_tables(store: Path, numbers: tuple[int, ...] | None = None) -> None:
    """The tables of the study (or those with these numbers), without the ones that the page shows folded."""
    from andon.report import make_tables, to_rich, to_text

    for table in make_tables(_store(store)):
        if table.study_table in numbers if numbers is not None else not table.detail:
            if out.is_terminal:
                out.print(to_rich(table))
            else:
                say(to_text(table).rstrip())
            out.print()


def write_page(store: Path, path: Path, title: str | None) -> None:
    """Writes the report page and says where it is."""
    from andon.report import write_report

    say(f"report: {write_report(_store(store), path, title=title)}")


def print_summary(summary: RunSummary) -> None:
    """How many experiments a run did, found done, and lost."""
    parts = [f"{len(summary.finished)} experiments done in {duration(summary.seconds)}"]
    if summary.skipped:
        parts.append(f"{len(summary.skipped)} were there already")
    if summary.failed:
        parts.append(f"{len(summary.failed)} failed")
    say("; ".join(parts))


def _finish(summary: RunSummary, store: Path) -> None:
    print_summary(summary)
    if summary.finished or summary.skipped:
        say(f"tables and report page: andon bench report -s {store}")
    if summary.failed:
        raise typer.Exit(1)


def _store(folder: Path) -> Store:
    from andon.benchmark import Store

    return Store(folder)


def _print_estimate(plan: Plan, store: Path, jobs: int | None, threads: int | None, device: str) -> None:
    from andon.benchmark import estimate_plan

    with stage_bars() as progress:
        found = estimate_plan(plan, store, jobs=jobs, threads=threads, device=device, progress=progress)
    rows = [(row.dataset, row.category, *estimate_cells(row)) for row in found.rows]
    show_table(("data set", "category", *ESTIMATE_COLUMNS), rows, figures=ESTIMATE_FIGURES)
    print_estimate_sums(found)


def estimate_cells(row: RowEstimate | StudyRowEstimate) -> tuple[str, ...]:
    """A line of an estimate, under ``ESTIMATE_COLUMNS``."""
    return (
        row.label,
        *(str(n) for n in (row.done, row.failed, row.missing)),
        "–" if row.seconds is None else duration(row.seconds),
        "–" if row.memory_mb is None else f"{row.memory_mb:.0f}",
        row.basis,
    )


def print_estimate_sums(found: PlanEstimate) -> None:
    """What is done, what is left, and what that would cost."""
    say(f"{sum(row.done for row in found.rows)} experiments done, {found.todo} to do")
    if found.unknown < found.todo:
        say(
            f"about {duration(found.wall_seconds)} with {found.jobs} at a time ({duration(found.seconds)} one after "
            f"the other, less where features are shared), {found.memory_mb:.0f} MiB"
        )
    if found.unknown:
        say(f"{found.unknown} experiments without an estimate")


def _preset(preset: str | None, features: str | None) -> str | None:
    """The preset that --preset or --features asks for; None for the methods' default."""
    if features is None:
        return preset
    if features not in ("default", "designed"):
        raise ConfigError(f"--features {features}: there are 'default' and 'designed'")
    if preset not in (None, features):
        raise ConfigError(f"--features {features} and --preset {preset}: give one of them")
    return features


def _plan(
    source: str | None,
    data: list[Path] | None,
    methods: list[str] | None,
    options: list[str] | None,
    seeds: int | None,
    categories: list[str] | None,
    preset: str | None,
) -> Plan:
    from andon.benchmark import load_plan, make_plan

    if source is not None:
        if methods or options or preset:
            raise ConfigError(
                "--method, --set, --preset and --features are for running without a plan; write them into the plan "
                "instead"
            )
        return load_plan(source, data=data or (), seeds=seeds, categories=categories or None)
    if not data:
        raise ConfigError("nothing to run: name a plan, or give --data DIR (see: andon bench plans)")
    return make_plan(
        data,
        methods or _DEFAULT_METHODS,
        options=[assignment(text, "--set", "METHOD.OPTION=VALUE").text for text in options or ()],
        seeds=seeds or 1,
        categories=categories or None,
        preset=preset,
    )
