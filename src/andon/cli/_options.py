"""Options: those that several commands have, those that come from a model, and ``NAME=VALUE``.

A command whose options are a pydantic model's is declared with ``cls=model_command("module:Model")``. The model is
imported when the command runs or its help is shown, not before, so that ``andon --help`` costs no start-up of torch.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from rich.markup import escape
from typer.core import TyperCommand

from andon._tools.models import first_fault, set_option
from andon.core import ConfigError

__all__ = [
    "AddedMethods",
    "Address",
    "Assignment",
    "Categories",
    "DataFolders",
    "Device",
    "EngineName",
    "Folder",
    "Jobs",
    "Layout",
    "StoreFolder",
    "Threads",
    "assignment",
    "command_group",
    "config_of",
    "create_model",
    "engine_of",
    "import_object",
    "model_command",
    "model_help",
    "options_model",
]

if TYPE_CHECKING:
    from andon.benchmark import Engine

ModelT = TypeVar("ModelT", bound=BaseModel)

Folder = Annotated[Path, typer.Argument(metavar="DIR", show_default=False)]
Layout = Annotated[
    str | None,
    typer.Option(
        help="autovi, mvtec, folder, or that of a published data set (visa-2cls-fewshot); found out otherwise.",
        show_default=False,
    ),
]
Categories = Annotated[
    list[str] | None, typer.Option("--category", "-c", help="Only this category; repeatable.", show_default=False)
]
DataFolders = Annotated[
    list[Path] | None,
    typer.Option("--data", "-d", metavar="DIR", help="Folder of a data set; repeatable.", show_default=False),
]
StoreFolder = Annotated[
    Path, typer.Option("--store", "-s", metavar="DIR", help="Folder of the results.", show_default=False)
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, help="Experiments at a time, each in its own process.", show_default=False),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="Threads of each experiment, 1 otherwise; at most OMP_NUM_THREADS. They decide the last bits of figures.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")]
EngineName = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="local: processes of this machine. ray: a Ray cluster (andon\\[ray])."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Of the Ray cluster (auto, HOST:6379); RAY_ADDRESS or this machine otherwise.", show_default=False
    ),
]
AddedMethods = Annotated[
    list[str] | None,
    typer.Option(
        "--add-method",
        metavar="METHOD",
        help="One more method: file.py:Class, module:Class, or anomalib:Dinomaly with andon\\[anomalib]; repeatable.",
        show_default=False,
    ),
]


def engine_of(
    name: Literal["local", "ray"], address: str | None, jobs: int | None, threads: int | None, device: str
) -> Engine | None:
    """The engine that the options ask for, for ``run_plan``; None for this machine's processes.

    Raises:
        ConfigError: options that contradict each other; no Ray, or no cluster at the address.
    """
    if name == "local":
        if address is not None:
            raise ConfigError(f"--address {address}: is of a Ray cluster, give --engine ray with it")
        return None
    if jobs is not None:
        raise ConfigError(f"--jobs {jobs}: a Ray cluster runs as many experiments at a time as it has room for")
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"--device {device}: with --engine ray it is cpu or cuda; which GPU is for Ray to say")
    from andon.benchmark import RayEngine

    engine = RayEngine(address, threads or 1, gpus=1.0 if device == "cuda" else 0.0)
    engine.check()  # before a store is made
    return engine


def command_group(help_text: str, **options: Any) -> typer.Typer:
    """A group of commands that shows its help when it is called without any."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        **options,
    )


# Options from a model


def model_command(model: str, names: Mapping[str, Sequence[str]] | None = None) -> type[TyperCommand]:
    """A class of commands (``cls=``) that have an option for every single-valued field of a model, beside their own.

    Args:
        model: ``"module:Model"``. Its callback finds the values by ``options_model``.
        names: flags of fields that are not called as Typer would call them: ``{"images": ("--images", "-p")}``.
    """
    return type("ModelCommand", (_ModelCommand,), {"model": model, "names": dict(names or {})})


def options_model(context: typer.Context, model: type[ModelT]) -> ModelT:
    """The model that was made of a command's options; ConfigError names the first option that is wrong."""
    return create_model(model, context.meta[_VALUES])


def create_model(model: type[ModelT], values: Mapping[str, Any]) -> ModelT:
    """A model of values from the command line; ConfigError names the first one that is wrong."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(first_fault(error, model)) from error


_VALUES = "andon.options"


class _ModelCommand(TyperCommand):
    model: ClassVar[str]
    names: ClassVar[Mapping[str, Sequence[str]]]

    def get_params(self, ctx: Any) -> list[Any]:
        own = super().get_params(ctx)
        arguments = [p for p in own if p.param_type_name == "argument"]
        return [*arguments, *self._model_params(), *(p for p in own if p not in arguments)]

    def _model_params(self) -> list[Any]:
        return _model_params(self.model, tuple((field, tuple(flags)) for field, flags in self.names.items()))

    def invoke(self, ctx: Any) -> Any:
        values = {p.name: (_as_tuple(ctx.params.pop(p.name)), _as_tuple(p.default)) for p in self._model_params()}
        # What was not given (a list then is empty) is left out: the model's own defaults are the ones that count.
        ctx.meta[_VALUES] = {n: value for n, (value, default) in values.items() if value not in (None, default, ())}
        return super().invoke(ctx)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@cache
def _model_params(reference: str, names: tuple[tuple[str, tuple[str, ...]], ...]) -> list[Any]:
    """The parameters as Typer makes them of a function that has the model's fields as arguments."""
    model: type[BaseModel] = import_object(reference)
    helps, flags = model_help(model), dict(names)
    parameters = [
        _parameter(field, info, helps.get(field, ""), flags.get(field, ()))
        for field, info in model.model_fields.items()
        if _typer_type(info.annotation) is not None
    ]

    def holder() -> None:
        pass

    holder.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    holder.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    scratch = typer.Typer(add_completion=False)
    scratch.command()(holder)
    return list(typer.main.get_command(scratch).params)


def _parameter(name: str, info: FieldInfo, text: str, flags: Sequence[str]) -> inspect.Parameter:
    kind = _typer_type(info.annotation)
    default = None if info.is_required() else info.get_default(call_default_factory=True)
    if isinstance(default, tuple):
        default = list(default)
    bounds, outside = _bounds(info, kind)
    option = typer.Option(
        *flags,
        help=escape(" ".join(part for part in (text, outside) if part)),
        show_default=default is not None,
        **bounds,
    )
    # Without a default Typer would ask for the option; whether the model needs it is for the model to say.
    annotation: Any = Annotated[kind if default is not None else kind | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _typer_type(annotation: Any) -> Any:
    """What Typer makes an option of; None for what is no single value (a model, a mapping): it gets no option."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        kinds = [a for a in arguments if a is not type(None)]
        return _typer_type(kinds[0]) if len(kinds) == 1 else None
    if origin is Annotated:
        return _typer_type(arguments[0])
    if origin in (tuple, list) and arguments:
        item: Any = _typer_type(arguments[0])
        return None if item is None else list[item]
    return annotation if origin is Literal or annotation in (bool, int, float, str, Path) else None


def _bounds(info: FieldInfo, kind: Any) -> tuple[dict[str, Any], str]:
    """Bounds that Typer knows, and the others, which it does not, in words."""
    known: dict[str, Any] = {}
    words = []
    for limit in info.metadata if kind in (int, float) else ():
        known |= {"min": limit.ge} if hasattr(limit, "ge") else {}
        known |= {"max": limit.le} if hasattr(limit, "le") else {}
        words += [f"above {limit.gt:g}"] if hasattr(limit, "gt") else []
        words += [f"below {limit.lt:g}"] if hasattr(limit, "lt") else []
    return known, f"({' and '.join(words)})" if words else ""


_ENTRY = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): (.*)")


def model_help(model: type[BaseModel]) -> dict[str, str]:
    """One text a field: its ``description``, or what an ``Attributes:`` section of the model or its bases says."""
    texts: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel:
            texts |= _attributes(inspect.cleandoc(cls.__dict__.get("__doc__") or ""))
    texts |= {name: info.description for name, info in model.model_fields.items() if info.description}
    return {name: text[:1].upper() + text[1:] for name, text in texts.items() if name in model.model_fields}


def _attributes(docstring: str) -> dict[str, str]:
    """The entries of a docstring's ``Attributes:`` section; several names may share one (``a, b: …``)."""
    texts: dict[str, str] = {}
    names: list[str] = []
    section = re.search(r"^Attributes:\n((?:(?:[ ]+.*)?(?:\n|$))*)", docstring, re.MULTILINE)
    for line in inspect.cleandoc(section[1]).splitlines() if section else ():
        entry = _ENTRY.fullmatch(line)
        if entry:
            names = entry[1].split(", ")
            texts |= dict.fromkeys(names, entry[2])
        else:
            texts |= {name: f"{texts[name]} {line.strip()}".strip() for name in names}
    return texts


# NAME=VALUE


@dataclass(frozen=True)
class Assignment:
    """``NAME=VALUE`` from the command line.

    Attributes:
        name: what stands before the equals sign, dots and all.
        value: read as YAML: a number, true, null, a list in brackets, or a text.
        text: as it was given.
    """

    name: str
    value: Any
    text: str


def assignment(text: str, option: str, form: str = "NAME=VALUE") -> Assignment:
    """Reads the value of an option such as ``--set`` or ``--knob``; ConfigError says what it should look like."""
    import yaml

    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not all(name.split(".")):
        raise ConfigError(f"{option} {text!r}: expected {form}")
    try:
        return Assignment(name, yaml.safe_load(value), text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"{option} {text!r}: the value is not valid YAML") from None


def config_of(options: Sequence[str] | None) -> dict[str, Any]:
    """The ``OPTION=VALUE`` of ``--set`` as a configuration; dots lead into mappings."""
    config: dict[str, Any] = {}
    for text in options or ():
        given = assignment(text, "--set", "OPTION=VALUE")
        try:
            set_option(config, given.name, given.value)
        except ValueError as error:
            raise ConfigError(f"--set {text!r}: {error}") from None
    return config


def import_object(reference: str) -> Any:
    """What ``"module:name"`` stands for."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
