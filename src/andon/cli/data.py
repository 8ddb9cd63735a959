"""``andon data``: look into a data set, get a published one, or render one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.text import Text

from andon.cli._options import Categories, Folder, Layout, assignment, command_group, create_model
from andon.cli._progress import stage_bars
from andon.cli._show import duration, say, show_table
from andon.cli.data_prepare import PREPARE_COMMAND, check, prepare
from andon.core import ConfigError

if TYPE_CHECKING:
    from andon.data import DatasetInfo
    from andon.report import CountComparison
    from andon.synthetic import Counts

__all__ = ["app", "fetch", "image_counts", "info", "synth"]

app = command_group("Look into a data set, get a published one, make one's own, or render one.")

app.command(cls=PREPARE_COMMAND)(prepare)
app.command()(check)


@app.command()
def info(
    folder: Folder,
    layout: Layout = None,
    categories: Categories = None,
    every: Annotated[bool, typer.Option("--all", help="Every problem, not the first few of each kind.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All of it as JSON on stdout.")] = False,
) -> None:
    """The study's Table 3 for any data set, and everything in it that does not fit together.

    Of a published data set also the counts that the study prints and those of its owner. DIR may be an archive (zip,
    tar): it is unpacked into a folder beside it. Ends with exit code 1 where results would be wrong or impossible.
    """
    from andon.data import dataset_info, load_dataset
    from andon.report import compare_counts

    dataset = load_dataset(folder, layout=layout, categories=categories or None)
    with stage_bars() as progress:
        found = dataset_info(dataset, progress=progress)
    compared = compare_counts(found)
    if as_json:
        published = None if compared is None else compared.as_dict()
        typer.echo(json.dumps({**found.as_dict(), "published": published}, indent=1, ensure_ascii=True))
    else:
        _print_info(found, f"{dataset.name} ({dataset.layout} layout)", every, compared)
    if found.count("error"):
        raise typer.Exit(1)


def _print_info(found: DatasetInfo, title: str, every: bool, compared: CountComparison | None) -> None:
    rows = [[str(cell) for cell in row] for row in found.table_rows()]
    show_table(found.columns, rows, figures=found.columns[1:], title=title, last_apart=True)
    if found.rule:
        say(f"split: {found.rule}")
    if compared is not None:
        show_table(compared.columns, compared.rows, figures=compared.columns[1:], title=compared.title)
        for note in compared.notes:
            say(note)
    colours = {"error": "bold red", "warning": "yellow", "info": "dim"}
    shortened = False
    for group in found.groups():
        lines = group.lines(len(group.problems)) if every else group.lines()
        shortened |= len(lines) < len(group.problems)
        for line in lines:
            say(Text(group.severity, style=colours[group.severity]), f" {line}")
    if shortened:
        say("all of them: --all, or --json")
    errors, warnings = found.count("error"), found.count("warning")
    counts = ", ".join(f"{n:,} {what}{'s' * (n != 1)}" for n, what in ((errors, "error"), (warnings, "warning")))
    say(counts if errors or warnings else "no inconsistency found")


@app.command()
def fetch(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A published data set; without one, they are listed.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for it; NAME otherwise.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Its archive, a folder of its archives, or the unpacked data set."),
    ] = None,
    categories: Categories = None,
) -> None:
    """Get a published data set: download it where nobody has to agree to anything, or unpack its archive.

    A download that was stopped goes on when it is started again. What comes is checked against the published size and
    checksums.
    """
    from andon.data import fetch_set, published_set, published_sets

    if name is None:
        entries = published_sets()
        rows = [[e.name, e.title, e.licence, "yes" if e.unattended or e.package else "no"] for e in entries]
        show_table(("Name", "Data set", "Licence", "Downloads"), rows, title="Published data sets")
        return
    entry = published_set(name)
    say(entry.title)
    say(f"licence: {entry.licence}; {entry.page}")
    with stage_bars() as progress:
        fetched = fetch_set(entry, out or Path(name), source=source, categories=categories or None, progress=progress)
    for note in fetched.notes:
        say(note)
    dataset = fetched.dataset
    images = sum(len(category.samples) for category in dataset)
    say(f"{images:,} images in {len(dataset)} categories; look at it with: andon data info {dataset.root}")


@app.command()
def synth(
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

    given = [assignment(text, "--knob") for text in knobs or []]
    start = time.monotonic()
    with stage_bars() as progress:
        generate(
            folder,
            tasks=tuple(tasks) if tasks else TASKS,
            counts=image_counts("full" if full else count),
            seed=seed,
            knobs=create_model(Knobs, {item.name: item.value for item in given}),
            raw=raw,
            overwrite=overwrite,
            jobs=jobs,
            progress=progress,
        )
    say(f"wrote {folder} in {duration(time.monotonic() - start)}; look at it with: andon data info {folder}")


def image_counts(text: str) -> Counts | Literal["small", "full"]:
    """What ``--count`` says: the name of a number of images, or three numbers."""
    from andon.synthetic import Counts

    if text in ("small", "full"):
        return cast(Literal["small", "full"], text)
    parts = text.split(",")
    if len(parts) != 3:
        raise ConfigError(f"--count must be small, full, or three numbers train,good,defective, not {text!r}")
    try:
        return create_model(Counts, dict(zip(("train", "good", "defective"), parts, strict=True)))
    except ConfigError as error:
        raise ConfigError(f"--count {text}: {error}") from error
