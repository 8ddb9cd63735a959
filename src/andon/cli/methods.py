"""``andon methods``: the methods and their hyperparameters."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from andon.cli._options import command_group, config_of
from andon.cli._show import out, say, show_table

__all__ = ["app", "check", "list_methods", "show"]

app = command_group("The methods and their hyperparameters.")


@app.command("list")
def list_methods() -> None:
    """All methods, with their papers."""
    from andon.methods import method_class, method_names

    classes = [(name, method_class(name)) for name in method_names()]
    show_table(("name", "method", "paper"), [(name, cls.title, cls.paper or "–") for name, cls in classes])


@app.command()
def show(name: Annotated[str, typer.Argument(help="A method's name, or file.py:Class.")]) -> None:
    """A method's hyperparameters and their defaults, as a plan takes them."""
    import yaml

    from andon.methods import method_class, method_presets

    cls = method_class(name)
    say(Text(cls.title, style="bold"), f"  {cls.paper}".rstrip())
    config = cls.Config().model_dump(mode="json")
    text = yaml.safe_dump({"method": name, "config": config}, sort_keys=False, default_flow_style=None, width=100)
    say(text.rstrip())
    for preset, options in method_presets(name).items():
        changed = cls.Config(**options).model_dump(mode="json", include=set(options))
        words = yaml.safe_dump(changed, sort_keys=False, default_flow_style=True, width=10_000).strip()
        say(f"preset {preset}: {words if options else 'as above'}")


_MARKS = {"kept": ("✓", "green"), "broken": ("✗", "bold red"), "not checked": ("–", "dim")}


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A method's name, or file.py:Class.", show_default=False)],
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="OPTION=VALUE of its Config, as in transform.size=[64, 64].", show_default=False),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Named configuration of the method.", show_default=False)] = None,
) -> None:
    """Try a method against the contract on tiny generated images, before any long run.

    Exits with 2 where something is broken.
    """
    from andon.methods import check_method

    report = check_method(name, config_of(options), preset=preset)
    say(Text(report.title, style="bold"), f"  {report.method}")
    for note in report.notes:
        say(note)
    for item in report.items:
        mark, style = _MARKS[item.outcome]
        first = Text(f"{mark} " if out.is_terminal else f"{item.outcome}: ", style=style)
        say(first, item.requirement, f" ({item.detail})" if item.detail else "")
    broken = sum(item.outcome == "broken" for item in report.items)
    say(f"{broken} of {len(report.items)} broken" if broken else "the contract is kept, as far as this can show")
    if broken:
        raise typer.Exit(2)
