"""The command line: parses, calls, prints. ``andon --help`` reads like a table of contents.

Rooms are imported inside the commands, so that help and mistakes cost no start-up of torch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from andon import __version__
from andon.core import AndonError, ProgressCallback

if TYPE_CHECKING:
    from andon.benchmark import RunEvent, RunSummary
    from andon.benchmark.plan import Plan
    from andon.training.recipe import PretrainReport

__all__ = ["app", "main"]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def _typer(help_text: str, **options: Any) -> typer.Typer:
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        **options,
    )


app = _typer(
    "Learns what good parts look like from good images alone, finds the bad ones, shows where, "
    "and proves how well it does so.",
    epilog="Start with [bold]andon demo demo[/bold]: rendered inspection tasks, a benchmark, a report page.",
)
data_app = _typer("Look into a data set, or render one.")
bench_app = _typer("Run methods on data sets, and compare them.")
methods_app = _typer("The methods and their hyperparameters.")
weights_app = _typer("The learned parts that methods stand on: where they are, whether they are whole.")
pretrain_app = _typer("Make learned parts yourself, on your own images or rendered ones.")

Folder = Annotated[Path, typer.Argument(metavar="DIR", show_default=False)]
Layout = Annotated[str | None, typer.Option(help="autovi, mvtec or folder; found out otherwise.", show_default=False)]
Categories = Annotated[
    list[str] | None, typer.Option("--category", "-c", help="Only this category; repeatable.", show_default=False)
]
StoreFolder = Annotated[
    Path, typer.Option("--store", "-s", metavar="DIR", help="Folder of the results.", show_default=False)
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, help="Experiments at a time, each in its own process.", show_default=False),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")]


def _version(show: bool) -> None:
    if show:
        out.print(f"andon {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


# The whole way


@app.command()
def demo(
    folder: Folder,
    count: Annotated[str, typer.Option(help="Images a task: small, or full (the study's Table 3).")] = "small",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the rendered images.")] = 0,
    jobs: Jobs = None,
) -> None:
    """The whole way in minutes: render inspection tasks, benchmark methods on them, write the report."""
    from andon.benchmark import run_plan
    from andon.benchmark.engine import cpu_count
    from andon.synthetic import MANIFEST, TASKS, generate

    start = time.monotonic()
    images, store = folder / "data", folder / "store"
    if (images / MANIFEST).is_file():
        out.print(f"images: {images} (there already)")
    else:
        with _progress() as progress:
            generate(images, tasks=TASKS, counts=_counts(count), seed=seed, progress=progress)
        out.print(f"images: {images}, rendered in {_duration(time.monotonic() - start)}")
    with _bench_progress() as on_event:
        # Small networks leave a second processor idle: two experiments side by side take a quarter off the time.
        jobs = jobs or max(min(2, cpu_count()), cpu_count() // 4)
        summary = run_plan("demo", store, data=[images], jobs=jobs, on_event=on_event)
    _print_summary(summary)
    _print_tables(store, (6, 9))
    _report(store, folder / "report.html", None)
    out.print(f"done in {_duration(time.monotonic() - start)}; run again, it goes on where it stopped")
    if summary.failed:
        raise typer.Exit(1)


@app.command()
def evaluate(
    maps: Annotated[Path, typer.Option(metavar="DIR", help="Anomaly maps: <category>/<defect type>/<name>.png …")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="The data set they belong to.")],
    categories: Categories = None,
    layout: Layout = None,
    limits: Annotated[
        list[float] | None, typer.Option("--limit", help="Pixel-FPR limit of AUsPRO; repeatable.", show_default=False)
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Image scores; the maxima of the maps otherwise.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="JSON", help="Where to write all figures.")
    ] = None,
    interpolation: Annotated[
        str, typer.Option(help="How maps are resized: bicubic (official) or bilinear.")
    ] = "bicubic",
) -> None:
    """Judge anomaly maps from files: a drop-in for AutoVI's official evaluator, exact and some hundred times faster.

    Maps are PNG (8 or 16 bit), TIFF (float or integer) or NPY files; they are resized to their images' size.
    """
    from andon.benchmark.evaluate import evaluate_maps
    from andon.data import load_dataset
    from andon.evaluation.localization import FPR_LIMITS

    if interpolation not in ("bicubic", "bilinear"):
        raise AndonError(f"--interpolation must be bicubic or bilinear, not {interpolation!r}")
    dataset = load_dataset(data, layout=layout)
    chosen = tuple(limits) if limits else FPR_LIMITS
    with _progress() as progress:
        report = evaluate_maps(
            maps,
            dataset,
            categories=categories or None,
            fpr_limits=chosen,
            scores=scores,
            interpolation=interpolation,  # type: ignore[arg-type]
            progress=progress,
        )
    table = Table(title=f"{dataset.name}: {maps}", title_justify="left")
    table.add_column("category")
    for name in ("AUROC", "AP", *(f"AUsPRO {limit:g}" for limit in chosen), "pixel AUROC"):
        table.add_column(name, justify="right")
    for name, result in report.results.items():
        image, local = result.evaluation.image, result.evaluation.localisation
        values = [image.auroc, image.ap]
        values += [local.auspro.get(f"{limit:g}") if local else None for limit in chosen]
        values.append(local.pixel_auroc if local else None)
        table.add_row(escape(name), *("–" if v is None else f"{100 * v:.2f}" for v in values))
    out.print(table)
    for name, result in report.results.items():
        for note in result.evaluation.notes:
            out.print(f"[yellow]note[/yellow] {escape(name)}: {escape(note)}")
    if output is not None:
        figures = {name: result.evaluation.model_dump(mode="json") for name, result in report.results.items()}
        _write_text(output, json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    for name, reason in report.refused.items():
        err.print(f"[bold red]refused[/bold red] {escape(name)}: {escape(reason)}", soft_wrap=True)
    if report.refused:
        raise typer.Exit(2)


# andon data

app.add_typer(data_app, name="data")


@data_app.command("info")
def data_info(
    folder: Folder,
    layout: Layout = None,
    categories: Categories = None,
) -> None:
    """The study's Table 3 for any data set, and everything in it that does not fit together."""
    from andon.data import dataset_info, load_dataset

    dataset = load_dataset(folder, layout=layout, categories=categories or None)
    with _progress() as progress:
        info = dataset_info(dataset, progress=progress)
    table = Table(title=f"{escape(dataset.name)} ({dataset.layout} layout)", title_justify="left")
    for column, name in enumerate(info.columns):
        table.add_column(name, justify="left" if column == 0 else "right")
    rows = info.table_rows()
    for row in rows:
        if row is rows[-1]:
            table.add_section()
        table.add_row(*(escape(str(cell)) for cell in row))
    out.print(table)
    colours = {"error": "bold red", "warning": "yellow", "info": "dim"}
    for problem in info.problems:
        style = colours[problem.severity]
        out.print(f"[{style}]{problem.severity}[/{style}] {escape(problem.message)}", soft_wrap=True)
    errors, warnings = info.count("error"), info.count("warning")
    out.print(f"{errors} errors, {warnings} warnings" if errors or warnings else "no inconsistency found")
    if errors:
        raise typer.Exit(1)


@data_app.command("synth")
def data_synth(
    folder: Folder,
    tasks: Annotated[
        list[str] | None, typer.Option("--task", "-t", help="Only this task; repeatable.", show_default=False)
    ] = None,
    count: Annotated[
        str, typer.Option(help="Images a task: small, full (Table 3), or train,good,defective such as 40,20,20.")
    ] = "small",
    full: Annotated[bool, typer.Option("--full", help="The same as --count full.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    knobs: Annotated[
        list[str] | None,
        typer.Option("--knob", "-k", help="A difficulty, as in light=2 or drift=0; repeatable.", show_default=False),
    ] = None,
    raw: Annotated[bool, typer.Option(help="Uncropped scenes, as the camera saw them.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace what is in the folder.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes.")] = 2,
) -> None:
    """Render the synthetic line: AutoVI's six inspection tasks, in its layout, at any difficulty."""
    from andon.synthetic import TASKS, Knobs, generate

    values: dict[str, Any] = {}
    for item in knobs or []:
        name, equals, value = item.partition("=")
        if not equals:
            raise AndonError(f"--knob {item!r}: expected NAME=VALUE; knobs: {', '.join(Knobs.model_fields)}")
        values[name.strip()] = value.strip()
    start = time.monotonic()
    with _progress() as progress:
        generate(
            folder,
            tasks=tuple(tasks) if tasks else TASKS,
            counts=_counts("full" if full else count),
            seed=seed,
            knobs=values,
            raw=raw,
            overwrite=overwrite,
            jobs=jobs,
            progress=progress,
        )
    out.print(f"wrote {folder} in {_duration(time.monotonic() - start)}; look at it with: andon data info {folder}")


# andon bench

app.add_typer(bench_app, name="bench")

PlanArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[PLAN]", help="A YAML file, or a plan that comes with Andon (demo, autovi-study).", show_default=False
    ),
]
DataFolders = Annotated[
    list[Path] | None,
    typer.Option("--data", "-d", metavar="DIR", help="Folder of a data set; repeatable.", show_default=False),
]


@bench_app.command("run")
def bench_run(
    store: StoreFolder,
    plan: PlanArgument = None,
    data: DataFolders = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method", "-m", help="Without a plan: a method, or file.py:Class; repeatable.", show_default=False
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Without a plan: METHOD.OPTION=VALUE, as in patchcore.backbone=resnet18.", show_default=False
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            help="Without a plan: named configuration of the methods (andon methods show).",
            show_default=False,
        ),
    ] = None,
    embedded: Annotated[
        bool,
        typer.Option("--embedded", help="Without a plan: --preset embedded, which needs no weights from elsewhere."),
    ] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds.", show_default=False)] = None,
    categories: Categories = None,
    jobs: Jobs = None,
    device: Device = "cpu",
    cache: Annotated[bool, typer.Option(help="Share images and features between seeds and methods.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be done.")] = False,
) -> None:
    """Run a plan, or methods on folders; what the store has already is not done again.

    Interrupt it at any time, and run it again: it goes on where it stopped.
    """
    from andon.benchmark import expand, run_plan

    if embedded and preset not in (None, "embedded"):
        raise AndonError(f"--embedded and --preset {preset}: give one of them")
    chosen = _plan(plan, data, methods, options, seeds, categories, "embedded" if embedded else preset)
    if dry_run:
        with _progress() as progress:
            progress("data", 0, 1)
            expanded = expand(chosen)
        table = Table("id", "data set", "category", "method", "seed")
        for spec in expanded.specs:
            table.add_row(spec.id, *map(escape, (spec.dataset, spec.category, spec.label)), str(spec.seed))
        out.print(table)
        out.print(f"{len(expanded.specs)} experiments")
        return
    with _bench_progress() as on_event:
        summary = run_plan(chosen, store, jobs=jobs, device=device, cache=None if cache else False, on_event=on_event)
    _finish(summary, store)


@bench_app.command("resume")
def bench_resume(
    store: StoreFolder,
    plan: Annotated[
        str | None, typer.Option(help="Name of the plan, where the store has several.", show_default=False)
    ] = None,
    data: DataFolders = None,
    jobs: Jobs = None,
    device: Device = "cpu",
    retry_failed: Annotated[bool, typer.Option(help="Try failed experiments again.")] = True,
) -> None:
    """Go on with a store's plan: neither the plan's file nor its options are needed again."""
    from andon.benchmark import resume_plan

    with _bench_progress() as on_event:
        summary = resume_plan(
            store, plan, data=data or (), jobs=jobs, device=device, retry_failed=retry_failed, on_event=on_event
        )
    _finish(summary, store)


@bench_app.command("status")
def bench_status(
    store: StoreFolder,
    plan: Annotated[str | None, typer.Option(help="Name of the plan.", show_default=False)] = None,
) -> None:
    """What is done, what failed and why, what is missing."""
    from andon.benchmark import plan_status

    status = plan_status(store, plan)
    groups: dict[tuple[str, str, str], dict[str, int]] = {}
    for item in status.experiments:
        counts = groups.setdefault((item.spec.dataset, item.spec.category, item.spec.label), {})
        counts[item.state] = counts.get(item.state, 0) + 1
    table = Table("data set", "category", "method")
    for name in ("done", "failed", "missing"):
        table.add_column(name, justify="right")
    for key, counts in groups.items():
        failed = counts.get("failed", 0)
        table.add_row(
            *map(escape, key),
            str(counts.get("done", 0)),
            f"[bold red]{failed}[/bold red]" if failed else "0",
            str(counts.get("missing", 0)),
        )
    out.print(table)
    for item in status.experiments:
        if item.state == "failed":
            where = f"{item.spec.label} on {item.spec.category}, seed {item.spec.seed}"
            out.print(f"[bold red]failed[/bold red] {escape(where)}: {escape(item.reason)}", soft_wrap=True)
    for line in status.problems:
        out.print(f"[yellow]damaged[/yellow] {escape(line)}", soft_wrap=True)
    out.print(
        f"{status.count('done')} done, {status.count('failed')} failed, {status.count('missing')} missing"
        + ("" if status.count("done") == len(status.experiments) else f"; go on with: andon bench resume -s {store}")
    )


@bench_app.command("report")
def bench_report(
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

    _print_tables(store)
    if tables is not None:
        for path in write_tables(_store(store), tables):
            out.print(f"wrote {path}", soft_wrap=True)
    _report(store, output or store / "report.html", title)


@bench_app.command("plans")
def bench_plans() -> None:
    """The plans that come with Andon."""
    from andon.benchmark import packaged_plans

    table = Table("plan", "what it is")
    for name, title in packaged_plans().items():
        table.add_row(name, escape(title))
    out.print(table)


# andon methods

app.add_typer(methods_app, name="methods")


@methods_app.command("list")
def methods_list() -> None:
    """All methods, with their papers."""
    from andon.methods import method_class, method_names

    table = Table("name", "method", "paper")
    for name in method_names():
        cls = method_class(name)
        table.add_row(name, escape(cls.title), escape(cls.paper or "–"))
    out.print(table)


@methods_app.command("show")
def methods_show(name: Annotated[str, typer.Argument(help="A method's name, or file.py:Class.")]) -> None:
    """A method's hyperparameters and their defaults, as a plan takes them."""
    import yaml

    from andon.methods import method_class

    cls = method_class(name)
    out.print(f"[bold]{escape(cls.title)}[/bold]  {escape(cls.paper)}".rstrip(), soft_wrap=True)
    config = cls.Config().model_dump(mode="json")
    text = yaml.safe_dump({"method": name, "config": config}, sort_keys=False, default_flow_style=None, width=100)
    out.print(escape(text.rstrip()))
    for preset, options in cls.presets.items():
        changed = cls.Config(**options).model_dump(mode="json", include=set(options))
        words = yaml.safe_dump(changed, sort_keys=False, default_flow_style=True, width=10_000).strip()
        out.print(f"preset {escape(preset)}: {escape(words) if options else 'as above'}", soft_wrap=True)


# andon weights

app.add_typer(weights_app, name="weights")

PartArgument = Annotated[
    str | None, typer.Argument(metavar="[PART]", help="Only this part, as in efficientad_teacher_small.")
]
NameArgument = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only these weights of it.")]


@weights_app.command("list")
def weights_list(
    part: PartArgument = None,
    output: Annotated[str, typer.Option("--format", help="table, or json with the whole hashes.")] = "table",
) -> None:
    """Every known learned part: what for, licence, source, whether it is here."""
    from andon.methods.parts import part_status, parts_named

    if output not in ("table", "json"):
        raise AndonError(f"--format must be table or json, not {output!r}")
    states = [part_status(known) for known in parts_named(part)]
    if output == "json":
        rows = [{**asdict(s.part), "source": s.source, "path": s.path and str(s.path), "size": s.size} for s in states]
        out.print_json(json.dumps(rows))
        return
    table = Table("part", "weights", "for", "licence", "here", "size", "SHA-256", "from")
    for state in states:
        known = state.part
        here = f"[green]{state.source}[/green]" if state.source else "[dim]no[/dim]"
        size = "–" if state.size is None else f"{state.size / 1e6:.1f} MB"
        cells = (known.part, known.name, known.purpose, known.licence or "not stated")
        origin = known.origin.removeprefix("https://").partition("/")[0]
        table.add_row(*map(escape, cells), here, size, known.sha256[:12], escape(origin))
    out.print(table)
    out.print("fetch what is missing with: andon weights fetch PART [NAME]; whole addresses: --format json")


@weights_app.command("fetch")
def weights_fetch(part: Annotated[str, typer.Argument(metavar="PART")], name: NameArgument = None) -> None:
    """Download a part, if it is not here, and check its hash."""
    from andon.methods.parts import fetch_part, parts_named

    for known in parts_named(part, name)[:1]:
        state = fetch_part(known)
        out.print(f"{known.part} {known.name}: {state.path or 'comes with the package'}", soft_wrap=True)


@weights_app.command("verify")
def weights_verify(part: PartArgument = None, name: NameArgument = None) -> None:
    """Check what is here: hash, every tensor's name, shape and values."""
    from andon.methods.parts import part_status, parts_named, verify_part

    wrong = 0
    for known in parts_named(part, name):
        label = escape(f"{known.part} {known.name}")
        if part is None and part_status(known).source is None:
            continue
        try:
            state = verify_part(known)
        except AndonError as error:
            wrong += 1
            err.print(f"[bold red]wrong[/bold red] {label}: {escape(str(error))}", soft_wrap=True)
        else:
            out.print(f"[green]whole[/green] {label}: {state.path or 'comes with the package'}", soft_wrap=True)
    if wrong:
        raise typer.Exit(2)


@weights_app.command("where")
def weights_where(part: PartArgument = None, name: NameArgument = None) -> None:
    """Where files are looked for, in order; without a part, the cache's folder."""
    from andon.methods.parts import parts_named
    from andon.weights.resolution import cache_directory, searched_places

    if part is None:
        out.print(str(cache_directory() / "weights"), soft_wrap=True)
        return
    for known in parts_named(part, name):
        for source, path in searched_places(known.part, known.name):
            mark = "[green]there[/green]" if path.is_file() else "[dim]no[/dim]"
            out.print(f"{escape(known.name)}  {source}  {mark}  {escape(str(path))}", soft_wrap=True)
        out.print(f"{escape(known.name)}  {escape(known.origin)}", soft_wrap=True)


# andon pretrain

app.add_typer(pretrain_app, name="pretrain")

WeightsFile = Annotated[Path, typer.Argument(metavar="FILE", help="The .safetensors file to write.")]
Images = Annotated[
    str | None,
    typer.Option(
        "--images", "-p", metavar="DIR", help="A folder, or rendered[:SEED] (the default).", show_default=False
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of training.", show_default=False)]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images a step.", show_default=False)]
Rate = Annotated[float | None, typer.Option("--learning-rate", help="At its highest.", show_default=False)]
RateSchedule = Annotated[str | None, typer.Option("--schedule", help="constant or cosine.", show_default=False)]
TrainingSeed = Annotated[int, typer.Option("--seed", min=0)]
Half = Annotated[bool, typer.Option("--half", help="Store float16: half the size.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")]


@pretrain_app.command("backbone")
def pretrain_backbone_command(
    file: WeightsFile,
    objective: Annotated[
        str | None, typer.Option(help="barlow-twins (the default) or dense-contrast.", show_default=False)
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="resnet18 …", show_default=False)] = None,
    last_stage: Annotated[int | None, typer.Option(min=1, max=4, show_default=False)] = None,
    images: Images = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    learning_rate: Rate = None,
    schedule: RateSchedule = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the images.", show_default=False)] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the views.", show_default=False)] = None,
    seed: TrainingSeed = 0,
    device: Device = "cpu",
    half: Half = False,
    overwrite: Overwrite = False,
) -> None:
    """A ResNet without labels. Run it again after an interruption: it goes on."""
    from andon.features.pretraining import BackboneRecipe, pretrain_backbone
    from andon.training.recipe import create_recipe

    options = {
        "objective": objective,
        "architecture": architecture,
        "last_stage": last_stage,
        "image_size": image_size,
        "images": images,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "crop": crop,
        "seed": seed,
    }
    recipe = create_recipe(BackboneRecipe, options)
    with _progress() as progress:
        report = pretrain_backbone(recipe, file, device=device, overwrite=overwrite, half=half, progress=progress)
    _print_pretrained(report)


@pretrain_app.command("efficientad-teacher")
def pretrain_teacher_command(
    file: WeightsFile,
    size: Annotated[str | None, typer.Option(help="small or medium.", show_default=False)] = None,
    extractor: Annotated[
        str | None, typer.Option(help="What is imitated: andon-features, wide_resnet50_2, …", show_default=False)
    ] = None,
    layers: Annotated[
        list[str] | None, typer.Option("--layer", help="Its layers; repeatable.", show_default=False)
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Its weights: a name or a file.", show_default=False)] = None,
    images: Images = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    learning_rate: Rate = None,
    schedule: RateSchedule = None,
    statistics_images: Annotated[
        int | None, typer.Option(min=1, help="Images for the channels' statistics.", show_default=False)
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=1, max=56, help="Side of what is learned from an image.", show_default=False)
    ] = None,
    closed_form: Annotated[
        int | None, typer.Option(min=0, help="Images from which the last layer is solved.", show_default=False)
    ] = None,
    seed: TrainingSeed = 0,
    device: Device = "cpu",
    half: Half = False,
    overwrite: Overwrite = False,
) -> None:
    """EfficientAD's teacher: a small network imitates an extractor. Run it again after an interruption: it goes on."""
    from andon.methods.efficientad.pretraining import TeacherRecipe, pretrain_teacher
    from andon.training.recipe import create_recipe

    options = {
        "size": size,
        "extractor": extractor,
        "layers": tuple(layers) if layers else None,
        "weights": weights,
        "images": images,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "statistics_images": statistics_images,
        "window": window,
        "closed_form": closed_form,
        "seed": seed,
    }
    recipe = create_recipe(TeacherRecipe, options)
    with _progress() as progress:
        report = pretrain_teacher(recipe, file, device=device, overwrite=overwrite, half=half, progress=progress)
    _print_pretrained(report)


@pretrain_app.command("dsr-codebook")
def pretrain_codebook_command(
    file: WeightsFile,
    images: Images = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    learning_rate: Rate = None,
    schedule: RateSchedule = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the images.", show_default=False)] = None,
    crop: Annotated[
        int | None, typer.Option(help="Side of the crops that are learned from.", show_default=False)
    ] = None,
    seed: TrainingSeed = 0,
    device: Device = "cpu",
    half: Half = False,
    overwrite: Overwrite = False,
) -> None:
    """DSR's discrete latent model (VQ-VAE-2). Run it again after an interruption: it goes on."""
    from andon.methods.dsr.pretraining import CodebookRecipe, pretrain_codebook
    from andon.training.recipe import create_recipe

    options = {
        "images": images,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "image_size": image_size,
        "crop": crop,
        "seed": seed,
    }
    recipe = create_recipe(CodebookRecipe, options)
    with _progress() as progress:
        report = pretrain_codebook(recipe, file, device=device, overwrite=overwrite, half=half, progress=progress)
    _print_pretrained(report)


def _print_pretrained(report: PretrainReport) -> None:
    training = report.training
    resumed = f" (resumed at step {training.resumed_at})" if training.resumed_at else ""
    out.print(f"{training.steps} steps in {_duration(training.seconds)}{resumed}, loss {training.final_loss:.4g}")
    for name, value in report.figures.items():
        out.print(f"{name}: {value:.4g}")
    out.print(f"wrote {report.path}, SHA-256 {report.sha256}", soft_wrap=True)


# Inside


def _store(folder: Path) -> Any:
    from andon.benchmark import Store

    return Store(folder)


def _print_tables(store: Path, numbers: tuple[int, ...] | None = None) -> None:
    """The tables of the study (or those with these numbers), without the ones that the page shows folded."""
    from andon.report import make_tables
    from andon.report.renderers import to_rich

    for table in make_tables(_store(store)):
        if table.study_table in numbers if numbers is not None else not table.detail:
            out.print(to_rich(table))
            out.print()


def _report(store: Path, path: Path, title: str | None) -> None:
    from andon.report import write_report

    written = write_report(_store(store), path, title=title)
    out.print(f"report: {written}", soft_wrap=True)


def _finish(summary: RunSummary, store: Path) -> None:
    _print_summary(summary)
    if summary.finished or summary.skipped:
        out.print(f"tables and report page: andon bench report -s {store}", soft_wrap=True)
    if summary.failed:
        raise typer.Exit(1)


def _print_summary(summary: RunSummary) -> None:
    parts = [f"{len(summary.finished)} experiments done in {_duration(summary.seconds)}"]
    if summary.skipped:
        parts.append(f"{len(summary.skipped)} were there already")
    if summary.failed:
        parts.append(f"{len(summary.failed)} failed")
    out.print("; ".join(parts))


def _plan(
    source: str | None,
    data: list[Path] | None,
    methods: list[str] | None,
    options: list[str] | None,
    seeds: int | None,
    categories: list[str] | None,
    preset: str | None,
) -> Plan:
    from andon.benchmark.plan import load_plan, make_plan

    if source is not None:
        if methods or options or preset:
            raise AndonError(
                "--method, --set, --preset and --embedded are for running without a plan; write them into the plan "
                "instead"
            )
        return load_plan(source, data=data or (), seeds=seeds, categories=categories or None)
    if not data:
        raise AndonError("nothing to run: name a plan, or give --data DIR (see: andon bench plans)")
    return make_plan(
        data,
        methods or ("thumbnail-nn", "padim", "patchcore"),
        options=options or (),
        seeds=seeds or 1,
        categories=categories or None,
        preset=preset,
    )


def _counts(text: str) -> Any:
    from andon.synthetic import Counts

    if text in ("small", "full"):
        return text
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise AndonError(f"--count must be small, full, or three numbers train,good,defective, not {text!r}")
    train, good, defective = (int(part) for part in parts)
    if train < 1:
        raise AndonError("--count: at least one training image is needed")
    return Counts(train=train, good=good, defective=defective)


def _write_text(path: Path, text: str) -> None:
    """Written aside and renamed: never half a file."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise AndonError(f"{path}: cannot be written ({error.strerror})") from error


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


@contextmanager
def _progress() -> Iterator[ProgressCallback]:
    """A progress bar with an ETA on stderr, one row a stage; silent where stderr is no terminal."""
    with _bars() as bars:
        tasks: dict[str, TaskID] = {}

        def progress(stage: str, done: int, total: int) -> None:
            # What follows the dot changes with every step ("distillation · loss 0.12"): one row all the same.
            name = stage.partition(" · ")[0]
            task = tasks.get(name)
            if task is None:
                task = tasks[name] = bars.add_task(escape(stage), total=total, left="")
            bars.update(task, description=escape(stage), completed=done, total=total, left=_left(bars, task))

        yield progress


def _left(bars: Progress, task: TaskID) -> str:
    remaining = bars.tasks[bars.task_ids.index(task)].time_remaining
    return f"{_duration(remaining)} left" if remaining else ""


@contextmanager
def _bars() -> Iterator[Progress]:
    # On a narrow terminal the description is what gives way.
    fixed = Column(no_wrap=True, min_width=9)
    with Progress(
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=24 if err.width >= 120 else 8),
        MofNCompleteColumn(table_column=fixed),
        TimeElapsedColumn(table_column=fixed.copy()),
        TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True, min_width=15)),
        expand=True,
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as bars:
        yield bars


@contextmanager
def _bench_progress() -> Iterator[Any]:
    """All experiments in one bar with an ETA, a row for each that runs, and a line for each that has ended."""
    with _bars() as bars:
        overall: list[TaskID] = []
        running: dict[str, TaskID] = {}
        stages: dict[str, str] = {}

        def on_event(event: RunEvent) -> None:
            if event.kind == "planned":
                out.print(event.message)
                overall.append(bars.add_task("experiments", total=event.experiments_total, left=""))
                return
            if event.kind == "repaired":
                err.print(f"[yellow]damaged[/yellow] {escape(event.message)}", soft_wrap=True)
                return
            assert event.spec is not None
            key = event.spec.id
            if event.kind == "started":
                running[key] = bars.add_task(escape(event.message), total=None, left="")
            elif event.kind == "progress" and key in running:
                task = running[key]
                stage = event.stage.partition(" · ")[0]
                if stages.get(key) != stage:  # what is left is reckoned from this stage's own speed
                    stages[key] = stage
                    bars.reset(task, total=event.total)
                bars.update(task, description=escape(event.message), completed=event.done, total=event.total)
                bars.update(task, left=_left(bars, task))
            elif event.kind in ("finished", "failed"):
                if key in running:
                    bars.remove_task(running.pop(key))
                count = f"[{event.experiments_done}/{event.experiments_total}]"
                mark = "[bold red]failed[/bold red] " if event.kind == "failed" else ""
                err.print(f"{escape(count)} {mark}{escape(event.message)}", soft_wrap=True)
            left = "" if event.eta_seconds is None else f"{_duration(event.eta_seconds)} left"
            bars.update(overall[0], completed=event.experiments_done, left=left)

        yield on_event


def main() -> NoReturn:
    """Entry point: an ``AndonError`` becomes one line and exit code 2, an interrupt exit code 130."""
    try:
        app()
    except AndonError as error:
        err.print(f"[bold red]error:[/bold red] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("interrupted; run the same command again to go on")
        sys.exit(130)
    except BrokenPipeError:
        # `andon … | head` closed the pipe: point stdout elsewhere, so that the interpreter's flush does not fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


if __name__ == "__main__":
    main()
