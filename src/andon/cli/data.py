"""``andon data``: look into a data set, or render one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.text import Text

from andon.cli._options import Categories, Folder, Layout, assignment, command_group, create_model
from andon.cli._progress import stage_bars
from andon.cli._show import duration, say, show_table
from andon.core import ConfigError

if TYPE_CHECKING:
    from andon.synthetic import Counts

__all__ = ["app", "image_counts", "info", "synth"]

app = command_group("Look into a data set, or render one.")


@app.command()
def info(folder: Folder, layout: Layout = None, categories: Categories = None) -> None:
    """The study's Table 3 for any data set, and everything in it that does not fit together."""
    from andon.data import dataset_info, load_dataset

    dataset = load_dataset(folder, layout=layout, categories=categories or None)
    with stage_bars() as progress:
        found = dataset_info(dataset, progress=progress)
    rows = [[str(cell) for cell in row] for row in found.table_rows()]
    title = f"{dataset.name} ({dataset.layout} layout)"
    show_table(found.columns, rows, figures=found.columns[1:], title=title, last_apart=True)
    colours = {"error": "bold red", "warning": "yellow", "info": "dim"}
    for problem in found.problems:
        say(Text(problem.severity, style=colours[problem.severity]), f" {problem.message}")
    errors, warnings = found.count("error"), found.count("warning")
    say(f"{errors} errors, {warnings} warnings" if errors or warnings else "no inconsistency found")
    if errors:
        raise typer.Exit(1)


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
