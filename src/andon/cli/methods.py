"""``andon methods``: the methods and their hyperparameters."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from andon.cli._options import command_group
from andon.cli._show import say, show_table

__all__ = ["app", "list_methods", "show"]

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

    from andon.methods import method_class

    cls = method_class(name)
    say(Text(cls.title, style="bold"), f"  {cls.paper}".rstrip())
    config = cls.Config().model_dump(mode="json")
    text = yaml.safe_dump({"method": name, "config": config}, sort_keys=False, default_flow_style=None, width=100)
    say(text.rstrip())
    for preset, options in cls.presets.items():
        changed = cls.Config(**options).model_dump(mode="json", include=set(options))
        words = yaml.safe_dump(changed, sort_keys=False, default_flow_style=True, width=10_000).strip()
        say(f"preset {preset}: {words if options else 'as above'}")
