"""The whole command line, and what becomes of errors. ``andon --help`` reads like a table of contents.

Rooms are imported inside the commands, so that help and mistakes cost no start-up of torch.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, NoReturn

import typer
from rich.text import Text

from andon import __version__
from andon.cli import bench, data, methods, pretrain, study, weights
from andon.cli._options import command_group
from andon.cli._show import say, warn
from andon.cli.advise import advise
from andon.cli.demo import demo
from andon.cli.evaluate import evaluate
from andon.cli.export import export, speed, verify
from andon.cli.inspect import explain, inspect, threshold, train
from andon.cli.serve import ServeCommand, serve
from andon.cli.update import update
from andon.core import AndonError

__all__ = ["app", "main"]

app = command_group(
    "Learns what good parts look like from good images alone, finds the bad ones, shows where, "
    "and proves how well it does so.",
    epilog="Start with [bold]andon demo demo[/bold]: rendered inspection tasks, a benchmark, a report page.",
)
app.command()(advise)
app.command()(train)
app.command()(inspect)
app.command()(threshold)
app.command()(explain)
app.command()(update)
app.command(cls=ServeCommand)(serve)
app.command()(demo)
app.command()(evaluate)
app.command()(export)
app.command()(verify)
app.command()(speed)
app.add_typer(data.app, name="data")
app.add_typer(study.app, name="study")
app.add_typer(bench.app, name="bench")
app.add_typer(methods.app, name="methods")
app.add_typer(weights.app, name="weights")
app.add_typer(pretrain.app, name="pretrain")

_INTERRUPTED = 130
# Typer shows one class of those that its parser raises; where their base lies differs from version to version.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _version(show: bool) -> None:
    if show:
        say(f"andon {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Entry point: a mistake becomes one line and exit code 2, an interrupt exit code 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks must not end the command
            stream.reconfigure(errors="replace")
    sys.exit(_run())


def _run() -> int:
    try:
        # Not standalone: Typer would make an exit code of an interrupt, and a box of several lines of a mistake.
        code = app(standalone_mode=False)
    except AndonError as error:
        return _mistake(str(error))
    except _UsageError as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        # `andon … | head` closed the pipe: point stdout elsewhere, so that the interpreter's flush does not fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if code == _INTERRUPTED:
        warn("interrupted; run the same command again to go on")
    return code if isinstance(code, int) else 0


def _mistake(message: str) -> int:
    warn(Text("error: ", style="bold red"), " ".join(message.split("\n")))
    return 2


def _usage(error: Exception) -> int:
    """Says what the parser did not understand; it has shown the help already where no command was given."""
    message = getattr(error, "format_message", error.__str__)().replace("Value error, ", "").strip()
    context = getattr(error, "ctx", None)
    if not message:
        return 2
    return _mistake(message + (f" (see: {context.command_path} --help)" if context is not None else ""))


if __name__ == "__main__":
    main()
