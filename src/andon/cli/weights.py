"""``andon weights``: the learned parts that methods stand on."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from andon.cli._options import command_group
from andon.cli._show import Cell, out, say, show_table, warn
from andon.core import AndonError

if TYPE_CHECKING:
    from andon.methods import PartStatus

__all__ = ["app", "fetch", "list_parts", "verify", "where"]

app = command_group("The learned parts that methods stand on: where they are, whether they are whole.")

PartArgument = Annotated[
    str | None, typer.Argument(metavar="[PART]", help="Only this part, as in efficientad_teacher_small.")
]
NameArgument = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only these weights of it.")]


@app.command("list")
def list_parts(
    part: PartArgument = None,
    output: Annotated[
        Literal["table", "json"], typer.Option("--format", help="table, or json with the whole hashes.")
    ] = "table",
) -> None:
    """Every known learned part: what for, licence, source, whether it is here."""
    from andon.methods import part_status, parts_named

    states = [part_status(known) for known in parts_named(part)]
    if output == "json":
        rows = [{**asdict(s.part), "source": s.source, "path": s.path and str(s.path), "size": s.size} for s in states]
        out.print_json(json.dumps(rows))
        return
    headers = ("part", "weights", "for", "licence", "here", "size", "SHA-256", "from")
    show_table(headers, map(_row, states), figures=("size",))
    say("fetch what is missing with: andon weights fetch PART [NAME]; whole addresses: --format json")


def _row(state: PartStatus) -> list[Cell]:
    known = state.part
    here = Text(state.source, style="green") if state.source else Text("no", style="dim")
    size = "–" if state.size is None else f"{state.size / 1e6:.1f} MB"
    origin = known.origin.removeprefix("https://").partition("/")[0]
    return [known.part, known.name, known.purpose, known.licence or "not stated", here, size, known.sha256[:12], origin]


@app.command()
def fetch(part: Annotated[str, typer.Argument(metavar="PART")], name: NameArgument = None) -> None:
    """Download a part, if it is not here, and check its hash."""
    from andon.methods import fetch_part, parts_named

    for known in parts_named(part, name)[:1]:
        state = fetch_part(known)
        say(f"{known.part} {known.name}: {state.path or 'comes with the package'}")


@app.command()
def verify(part: PartArgument = None, name: NameArgument = None) -> None:
    """Check what is here: hash, every tensor's name, shape and values."""
    from andon.methods import part_status, parts_named, verify_part

    wrong = 0
    for known in parts_named(part, name):
        if part is None and part_status(known).source is None:
            continue
        try:
            state = verify_part(known)
        except AndonError as error:
            wrong += 1
            warn(Text("wrong ", style="bold red"), f"{known.part} {known.name}: {error}")
        else:
            place = state.path or "comes with the package"
            say(Text("whole ", style="green"), f"{known.part} {known.name}: {place}")
    if wrong:
        raise typer.Exit(2)


@app.command()
def where(part: PartArgument = None, name: NameArgument = None) -> None:
    """Where files are looked for, in order; without a part, the cache's folder."""
    from andon.methods import parts_named
    from andon.weights import cache_directory, searched_places

    if part is None:
        say(str(cache_directory() / "weights"))
        return
    for known in parts_named(part, name):
        for source, path in searched_places(known.part, known.name):
            mark = Text("there", style="green") if path.is_file() else Text("no", style="dim")
            say(f"{known.name}  {source}  ", mark, f"  {path}")
        say(f"{known.name}  {known.origin}")
