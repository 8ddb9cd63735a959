"""The command line: parses, calls, prints. ``andon --help`` reads like a table of contents."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from andon import __version__
from andon.core import AndonError

__all__ = ["app", "main"]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

app = typer.Typer(
    name="andon",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Learns what good parts look like from good pictures alone, finds the bad ones, shows where, "
    "and proves how well it does so.",
    epilog="Start with [bold]andon demo demo[/bold]: rendered inspection tasks, a benchmark, a report page.",
)


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


def main() -> NoReturn:
    """Entry point: an ``AndonError`` becomes one line and exit code 2, an interrupt exit code 130."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        app(standalone_mode=True)
    except AndonError as error:
        err.print(f"[bold red]error:[/bold red] {_escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        # `andon … | head` closed the pipe: point stdout elsewhere, so that the interpreter's flush does not fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
