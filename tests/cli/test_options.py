"""Options from models, and ``NAME=VALUE``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from andon._tools.models import FrozenModel
from andon.cli._options import assignment, create_model, model_command, model_help, options_model
from andon.core import ConfigError


class Base(FrozenModel):
    """Shared.

    Attributes:
        steps: of the optimiser.
        seed: of everything.

    Not an attribute: this.
    """

    steps: int = Field(100, ge=1, le=1000)
    seed: int = 0


class Options(Base):
    """Every kind of field.

    Attributes:
        seed: of weights, order
            and crops [in brackets].
        width, height: of the crops.
    """

    width: int | None = None
    height: int | None = None
    rate: float = Field(0.1, gt=0, lt=1, description="at its highest")
    size: Literal["small", "medium"] = "small"
    side: Literal[1, 3] | None = None
    layers: tuple[str, ...] | None = None
    limits: tuple[float, ...] = (0.3, 0.05)
    flip: bool = True
    images: str = "rendered"
    folder: Path | None = None
    nested: dict[str, int] = Field({})


runner = CliRunner()


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer(rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False)

    @app.command(cls=model_command(f"{__name__}:Options", {"images": ("--images", "-p"), "layers": ("--layer",)}))
    def run(context: typer.Context, file: str, device: str = "cpu") -> None:
        typer.echo(f"{file} {device} {options_model(context, Options).model_dump_json(exclude_unset=True)}")

    return app


def given(app: typer.Typer, *args: str) -> str:
    done = runner.invoke(app, ["f", *args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output.strip()


def test_only_what_was_given_reaches_the_model(app: typer.Typer) -> None:
    assert given(app) == "f cpu {}"
    assert given(app, "--device", "cuda", "--steps", "7") == 'f cuda {"steps":7}'


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("--layer", "a", "--layer", "b"), '{"layers":["a","b"]}'),
        (("--limits", "0.3333333"), '{"limits":[0.3333333]}'),
        (("--no-flip",), '{"flip":false}'),
        (("-p", "here"), '{"images":"here"}'),
        (("--side", "3"), '{"side":3}'),
        (("--size", "medium", "--width", "8"), '{"width":8,"size":"medium"}'),
        (("--folder", "a/b"), '{"folder":"a/b"}'),
    ],
)
def test_every_kind_of_field_is_an_option(app: typer.Typer, args: tuple[str, ...], expected: str) -> None:
    assert given(app, *args) == f"f cpu {expected}"


@pytest.mark.parametrize("args", [("--steps", "0"), ("--steps", "many"), ("--size", "large"), ("--nested", "{}")])
def test_what_the_parser_knows_it_refuses(app: typer.Typer, args: tuple[str, ...]) -> None:
    done = runner.invoke(app, ["f", *args])
    assert done.exit_code == 2
    assert args[0] in done.output


def test_what_only_the_model_knows_is_one_sentence(app: typer.Typer) -> None:
    with pytest.raises(ConfigError, match="option 'rate': Input should be less than 1"):
        runner.invoke(app, ["f", "--rate", "2"], catch_exceptions=False)


def test_help_shows_type_default_bounds_choices_and_words(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = runner.invoke(app, ["--help"]).output
    for words in (
        "Of weights, order and crops [in brackets].",
        "At its highest (above 0 and below 1)",
        "[1<=x<=1000]",
        "[default: 100]",
        "small|medium",
        "--no-flip",
        "[default: 0.3, 0.05]",
    ):
        assert words in text, words
    assert "--nested" not in text


def test_help_comes_from_descriptions_and_docstrings_of_the_model_and_its_bases() -> None:
    assert model_help(Options) == {
        "steps": "Of the optimiser.",
        "seed": "Of weights, order and crops [in brackets].",
        "width": "Of the crops.",
        "height": "Of the crops.",
        "rate": "At its highest",
    }


def test_the_model_is_not_imported_before_it_is_needed() -> None:
    app = typer.Typer()

    @app.command(cls=model_command("tests.cli.absent_module:Model"))
    def run(context: typer.Context) -> None:
        pass

    @app.command()
    def other() -> None:
        typer.echo("fine")

    assert runner.invoke(app, ["other"]).output == "fine\n"
    assert "tests.cli.absent_module" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        runner.invoke(app, ["run"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("light=2", "light", 2),
        ("patchcore.backbone = resnet18", "patchcore.backbone", "resnet18"),
        ("padim.transform.size=[64, 64]", "padim.transform.size", [64, 64]),
        ("modes=null", "modes", None),
        ("a=b=c", "a", "b=c"),
        ("rate=0.3333333", "rate", 0.3333333),
    ],
)
def test_an_assignment_has_a_name_and_a_value_in_yaml(text: str, name: str, value: Any) -> None:
    read = assignment(text, "--set")
    assert (read.name, read.value, read.text) == (name, value, text)


@pytest.mark.parametrize("text", ["light", "=2", "", "a..b=1", "a=[1", "a={[}", "a=2026-99-99"])
def test_what_is_no_assignment_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        assignment(text, "--set")


def test_a_wrong_value_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown option 'sepal'; known: steps, seed"):
        create_model(Base, {"sepal": 1})
    with pytest.raises(ConfigError, match="option 'steps'"):
        create_model(Base, {"steps": 0})
