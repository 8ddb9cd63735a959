"""A plan: data sets × categories × methods × seeds, written in YAML, and the experiments it stands for.

    name: screws                      # optional: the file's name otherwise
    datasets:
      - ../data/mtd                   # relative to the plan's file
      - {path: /data/autovi, name: autovi, categories: [tank_screw, pipe_clip]}
      - {path: /data/raw, categories: [pipe_clip], window: {size: [200, 200], place: template}}
    methods:
      - thumbnail-nn
      - {method: patchcore, label: Patchcore R18, config: {backbone: resnet18}}
      - {method: patchcore, label: Patchcore 10 shots, protocol: {shots: 10}}
      - {method: patchcore, label: Patchcore augmented, protocol: {augmentation: study}}
      - {method: my_method.py:MyMethod}
    seeds: 3                          # 0, 1, 2; or a list; a method's own seeds win
    protocol: {calibration_folds: 3}  # see ``Protocol``; a method's own protocol wins
    exclude: [{category: pipe_clip, method: padim}]
    keep_maps: gallery                # raw anomaly maps kept: gallery (of the first seed), first (all of it), all, none
    keep_models: false
    skip_bad: false                   # true: run without the images that cannot be read; every table says so
    timeout: 3600                     # seconds an experiment may take

Plans that come with Andon (``packaged_plans``) are used by name; their data sets' paths are given by the caller.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, field_validator

from andon._tools.files import read_regular
from andon._tools.models import FrozenModel, set_option
from andon.benchmark._yaml import Lines, Location, error_at, parse
from andon.benchmark.record import ExperimentSpec, Protocol
from andon.core import ConfigError, listed
from andon.data import Augmentation, Window
from andon.methods import method_class, method_presets

__all__ = [
    "DatasetEntry",
    "Filter",
    "MethodEntry",
    "Plan",
    "PlanContent",
    "load_plan",
    "make_plan",
    "packaged_plans",
    "validated",
]

MAX_PLAN_BYTES = 1_000_000
ModelT = TypeVar("ModelT", bound=BaseModel)


def _counted(value: Any) -> Any:
    """A number of seeds as a list of them."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 10_000:
            raise ValueError(f"a number of seeds must be 1 to 10000, not {value} (or give a list of seeds)")
        return tuple(range(value))
    return value


def _different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**32 or len(set(seeds)) < len(seeds):
        raise ValueError("must be different whole numbers in 0..2^32 - 1, at least one")
    return seeds


Seeds = Annotated[tuple[int, ...], BeforeValidator(_counted), AfterValidator(_different)]


class DatasetEntry(FrozenModel):
    """A data set of a plan.

    Attributes:
        path: its folder, relative to the plan's file; None where the caller gives it.
        name: its name in tables; the reader's name for it otherwise.
        layout: "autovi", "mvtec", "folder"; found out otherwise.
        categories: those wanted; all otherwise.
        train_fraction: share of the good images that is for training, in a layout without a split.
        window: the inspection area cut out of every image and mask (``andon.data.Window``); None for whole images.
            Windows are a data set of their own: without a ``name`` their size goes behind the data set's.
    """

    path: str | None = None
    name: str | None = None
    layout: str | None = None
    categories: tuple[str, ...] | None = Field(default=None, min_length=1)
    train_fraction: float = Field(default=0.8, gt=0, lt=1)
    window: Window | None = None


class MethodEntry(FrozenModel):
    """A method of a plan.

    Attributes:
        method: registered name, or ``path/to/file.py:Class`` with the path relative to the plan's file.
        label: what tables call it; the method's title otherwise. Unique in a plan.
        preset: named configuration of the method ("designed", "study", …; ``method_presets``), below ``config``.
        config: options of the method's Config that differ from its defaults.
        protocol: options of ``Protocol`` that differ from the plan's.
        seeds: of this method; the plan's otherwise.
    """

    method: str
    label: str | None = None
    preset: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    protocol: dict[str, Any] = Field(default_factory=dict)
    seeds: Seeds | None = None


class Filter(FrozenModel):
    """Experiments by data set, category and method (name or label); what is not given matches all."""

    dataset: str | None = None
    category: str | None = None
    method: str | None = None

    def matches(self, spec: ExperimentSpec, entry: MethodEntry) -> bool:
        return (
            self.dataset in (None, spec.dataset)
            and self.category in (None, spec.category)
            and self.method in (None, spec.label, entry.method)
        )


class PlanContent(FrozenModel):
    """What a plan's file holds; see the module's text."""

    name: str | None = Field(default=None, min_length=1)
    title: str = ""
    datasets: tuple[DatasetEntry, ...] = Field(min_length=1)
    methods: tuple[MethodEntry, ...] = Field(min_length=1)
    seeds: Seeds = (0,)
    protocol: Protocol = Protocol()
    include: tuple[Filter, ...] = ()
    exclude: tuple[Filter, ...] = ()
    keep_maps: Literal["gallery", "first", "all", "none"] = "gallery"
    keep_models: bool = False
    skip_bad: bool = False
    timeout: float | None = Field(default=None, gt=0)

    @field_validator("datasets", mode="before")
    @classmethod
    def _short_datasets(cls, value: Any) -> Any:
        return [{"path": v} if isinstance(v, str) else v for v in value] if isinstance(value, list | tuple) else value

    @field_validator("methods", mode="before")
    @classmethod
    def _short_methods(cls, value: Any) -> Any:
        return [{"method": v} if isinstance(v, str) else v for v in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Plan:
    """A plan that was read and checked.

    Attributes:
        name: identifies it within a store.
        content: what it says.
        source: its YAML text.
        where: what messages call it (its file, or "plan demo").
        base: the folder that its relative paths start from.
        lines: line (from 1) of each key and entry, for messages.
    """

    name: str
    content: PlanContent
    source: str
    where: str
    base: Path
    lines: Lines = field(default_factory=dict, repr=False)

    def with_data(self, folders: Sequence[str | Path]) -> Plan:
        """The plan with its first data sets in these folders (relative to the working folder).

        One folder is that of all data sets where none has a path: windows of one size or another, of the same images.
        """
        entries = list(self.content.datasets)
        if len(folders) == 1 and all(entry.path is None for entry in entries):
            folders = [folders[0]] * len(entries)
        if len(folders) > len(entries):
            raise ConfigError(f"{self.where}: has {len(entries)} data set(s), but {len(folders)} folders were given")
        for index, folder in enumerate(folders):
            entries[index] = entries[index].model_copy(update={"path": str(Path(folder).absolute())})
        return replace(self, content=self.content.model_copy(update={"datasets": tuple(entries)}))

    def with_methods(self, references: Sequence[str]) -> Plan:
        """The plan with more methods behind its own, each with its defaults and the plan's seeds and protocol.

        Args:
            references: see ``andon.methods.method_class``; files, and modules that are no more than a file, are looked
                for in the working folder.
        """
        added = tuple(MethodEntry(method=_method_reference(text, self.base)) for text in references)
        return replace(self, content=self.content.model_copy(update={"methods": (*self.content.methods, *added)}))

    def without_unreadable(self) -> Plan:
        """The plan with ``skip_bad``."""
        return replace(self, content=self.content.model_copy(update={"skip_bad": True}))

    def error(self, location: Location, message: str) -> ConfigError:
        """An error that names the plan, the line and the key."""
        return error_at(self.where, self.lines, location, message)


def _method_reference(text: str, base: Path) -> str:
    """A method as a plan in the folder ``base`` names it, of a method as it is named in the working folder.

    ``my_module:MyMethod`` is ``my_module.py:MyMethod`` where no such module can be imported and the file is there.
    """
    name, colon, class_name = text.rpartition(":")
    words = name.split(".")
    if colon and not name.endswith(".py") and all(word.isidentifier() for word in words):
        file = Path(*words).with_suffix(".py")
        if words[0] not in sys.modules and importlib.util.find_spec(words[0]) is None and file.is_file():
            name = str(file)
    if not name.endswith(".py"):
        return text
    return f"{name if Path(name).is_absolute() else os.path.relpath(name, base)}:{class_name}"


def packaged_plans() -> dict[str, str]:
    """Names and titles of the plans that come with Andon."""
    found = {}
    for item in sorted(resources.files("andon.benchmark").joinpath("plans").iterdir(), key=lambda p: p.name):
        if item.name.endswith(".yaml"):
            title = yaml.safe_load(item.read_text(encoding="utf-8")).get("title", "")
            found[item.name.removesuffix(".yaml")] = str(title)
    return found


def load_plan(
    source: str | Path,
    *,
    data: Sequence[str | Path] = (),
    seeds: int | Sequence[int] | None = None,
    categories: Sequence[str] | None = None,
) -> Plan:
    """Reads and checks a plan. No data set is read yet.

    Args:
        source: a YAML file, or the name of a plan that comes with Andon ("demo", "autovi-study").
        data: folders of the plan's data sets in its order, instead of the plan's own; relative to the working folder.
        seeds: instead of the plan's, its methods' own included.
        categories: instead of those of every data set of the plan.

    Raises:
        ConfigError: no such plan, YAML syntax, unknown or invalid key: the message names file, line and key.
    """
    path = Path(source)
    if isinstance(source, str) and not path.is_file() and source in packaged_plans():
        text = resources.files("andon.benchmark").joinpath("plans", f"{source}.yaml").read_text(encoding="utf-8")
        where, base, name = f"plan {source}", Path.cwd(), source
    else:
        text, where, base, name = _read(path), str(path), path.resolve().parent, path.stem
    value, lines = parse(text, where)
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: is not a plan: it must be a mapping with the keys datasets and methods")
    if seeds is not None:
        value["seeds"] = list(seeds) if isinstance(seeds, Sequence) else seeds
    content = validated(PlanContent, value, where, lines)
    if seeds is not None:
        methods = tuple(entry.model_copy(update={"seeds": None}) for entry in content.methods)
        content = content.model_copy(update={"methods": methods})
    if categories is not None:
        entries = tuple(e.model_copy(update={"categories": tuple(categories)}) for e in content.datasets)
        content = content.model_copy(update={"datasets": entries})
    return Plan(content.name or name, content, text, where, base, lines).with_data(data)


def make_plan(
    data: Sequence[str | Path],
    methods: Sequence[str],
    *,
    options: Sequence[str] = (),
    seeds: int | Sequence[int] = 1,
    categories: Sequence[str] | None = None,
    preset: str | None = None,
) -> Plan:
    """A plan without a file: methods on folders.

    Args:
        data: folders of data sets, relative to the working folder like the methods' files.
        methods: names, or ``path/to/file.py:Class``.
        options: ``METHOD.OPTION=VALUE``, the value in YAML: ``patchcore.coreset_ratio=0.2``,
            ``padim.transform.size=[128, 128]``.
        seeds: their number, or a list.
        categories: those wanted of every data set; all otherwise.
        preset: named configuration ("designed", "study", …) of those methods that have it; ``options`` win over it.

    Its name says methods, options and folders, so that several of them in one store stand side by side.

    Raises:
        ConfigError: an option of no method or without a value, a preset of none; the rest comes with ``expand``.
    """
    having = [m for m in methods if preset is not None and preset in method_presets(m)]
    if preset is not None and not having:
        # What every method has comes last, whichever method is first.
        known = sorted(dict.fromkeys(p for m in methods for p in method_presets(m)), key=lambda p: p == "paper")
        raise ConfigError(f"preset {preset!r}: no method of the plan has it; presets: {listed(known) or 'none'}")
    configs, changes = _options(methods, options)
    entries: list[Any] = []
    for method in methods:
        words = ([preset] if preset and method in having else []) + changes[method]
        if words:
            entry: dict[str, Any] = {"method": method, "label": f"{method_class(method).title} {', '.join(words)}"}
            entry |= {"preset": preset} if method in having else {}
            entries.append(entry | ({"config": configs[method]} if configs[method] else {}))
        else:
            entries.append(method)
    what = ", ".join([*methods, *options, *([preset] if preset else [])])
    chosen = {"categories": list(categories)} if categories else {}
    value = {
        "name": f"{what} on {', '.join(Path(d).resolve().name for d in data)}",
        "datasets": [{"path": str(Path(d).absolute()), **chosen} for d in data],
        "methods": entries,
        "seeds": list(seeds) if isinstance(seeds, Sequence) else seeds,
    }
    where = "the command's plan"
    content = validated(PlanContent, value, where, {})
    source = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return Plan(str(value["name"]), content, source, where, Path.cwd())


def _options(methods: Sequence[str], options: Sequence[str]) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    """Of ``METHOD.OPTION=VALUE``: the configuration of each method, and what was said of it."""
    configs: dict[str, dict[str, Any]] = {m: {} for m in methods}
    changes: dict[str, list[str]] = {method: [] for method in methods}
    for option in options:
        method = max((m for m in methods if option.startswith(f"{m}.")), key=len, default=None)
        place, equals, text = option.removeprefix(f"{method}.").partition("=")
        if method is None or not equals or not all(place.split(".")):
            raise ConfigError(
                f"option {option!r}: expected METHOD.OPTION=VALUE with one of the methods {', '.join(methods)}"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"option {option!r}: the value is not valid YAML") from None
        try:
            set_option(configs[method], place, value)
        except ValueError as error:
            raise ConfigError(f"option {option!r}: {error}") from None
        changes[method].append(f"{place}={text}")
    return configs, changes


def _read(path: Path) -> str:
    try:
        if not path.exists():
            raise ConfigError(
                f"{path}: there is no such plan; give a YAML file or one of: {', '.join(packaged_plans())}"
            )
        return read_regular(path, MAX_PLAN_BYTES, what="a plan", error=ConfigError).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not a text in UTF-8, so not a plan") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error


def validated(
    model: type[ModelT],
    value: Any,
    where: str,
    lines: Lines,
    prefix: Location = (),
) -> ModelT:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # A misspelt key comes first: it explains why the right one is missing.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        location = (*prefix, *first["loc"])
        if first["type"] == "extra_forbidden":
            known = _model_at(model, first["loc"][:-1]).model_fields
            message = f"unknown key; known: {', '.join(known)}"
        elif first["type"] == "missing":
            message = "is missing"
        else:
            message = first["msg"].removeprefix("Value error, ")
            given = first["input"]
            if given is None or isinstance(given, str | int | float):
                message += f" (got {given!r})"
        raise error_at(where, lines, location, message) from error


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel]:
    """The model that holds the keys at a location of ``model``."""
    inner: dict[str, type[BaseModel]] = {"augmentation": Augmentation, "window": Window}
    if location and str(location[-1]) in inner:
        return inner[str(location[-1])]
    if model is not PlanContent or not location:
        return model
    models: dict[str, type[BaseModel]] = {"datasets": DatasetEntry, "methods": MethodEntry, "protocol": Protocol}
    return models.get(str(location[0]), Filter)
