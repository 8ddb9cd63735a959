"""A plan: data sets × categories × methods × seeds, written in YAML, and the experiments it stands for.

    name: screws                      # optional: the file's name otherwise
    datasets:
      - ../data/mtd                   # relative to the plan's file
      - {path: /data/autovi, name: autovi, categories: [tank_screw, pipe_clip]}
    methods:
      - thumbnail-nn
      - {method: patchcore, label: Patchcore R18, config: {backbone: resnet18}}
      - {method: patchcore, label: Patchcore 10 shots, protocol: {shots: 10}}
      - {method: my_method.py:MyMethod}
    seeds: 3                          # 0, 1, 2; or a list; a method's own seeds win
    protocol: {calibration_folds: 3}  # see ``Protocol``; a method's own protocol wins
    exclude: [{category: pipe_clip, method: padim}]
    keep_maps: gallery                # raw anomaly maps kept: gallery (of the first seed), all, none
    keep_models: false
    timeout: 3600                     # seconds an experiment may take

Plans that come with Andon (``packaged_plans``) are used by name; their data sets' paths are given by the caller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from andon.benchmark.record import ExperimentSpec, Protocol
from andon.core import AndonError, Category, Dataset, ProgressCallback, canonical_json, listed, no_progress
from andon.data import category_fingerprint, load_dataset
from andon.methods.registry import create_method, method_class, preset_config

__all__ = [
    "DatasetEntry",
    "ExpandedPlan",
    "Filter",
    "MethodEntry",
    "Plan",
    "PlanContent",
    "expand",
    "load_plan",
    "make_plan",
    "packaged_plans",
]

MAX_PLAN_BYTES = 1_000_000
ModelT = TypeVar("ModelT", bound=BaseModel)
_FEATURE_KEYS = ("backbone", "layers", "stages", "weights", "transform")


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


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetEntry(_Frozen):
    """A data set of a plan.

    Attributes:
        path: its folder, relative to the plan's file; None where the caller gives it.
        name: its name in tables; the reader's name for it otherwise.
        layout: "autovi", "mvtec", "folder"; found out otherwise.
        categories: those wanted; all otherwise.
        train_fraction: share of the good images that is for training, in a layout without a split.
    """

    path: str | None = None
    name: str | None = None
    layout: str | None = None
    categories: tuple[str, ...] | None = Field(default=None, min_length=1)
    train_fraction: float = Field(default=0.8, gt=0, lt=1)


class MethodEntry(_Frozen):
    """A method of a plan.

    Attributes:
        method: registered name, or ``path/to/file.py:Class`` with the path relative to the plan's file.
        label: what tables call it; the method's title otherwise. Unique in a plan.
        preset: named configuration of the method ("embedded", "study", …; ``Method.presets``), below ``config``.
        config: options of the method's Config that differ from its defaults.
        protocol: options of ``Protocol`` that differ from the plan's.
        seeds: of this method; the plan's otherwise.
    """

    method: str
    label: str | None = None
    preset: str | None = None
    config: dict[str, Any] = {}
    protocol: dict[str, Any] = {}
    seeds: Seeds | None = None


class Filter(_Frozen):
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


class PlanContent(_Frozen):
    """What a plan's file holds; see the module's text."""

    name: str | None = Field(default=None, min_length=1)
    title: str = ""
    datasets: tuple[DatasetEntry, ...] = Field(min_length=1)
    methods: tuple[MethodEntry, ...] = Field(min_length=1)
    seeds: Seeds = (0,)
    protocol: Protocol = Protocol()
    include: tuple[Filter, ...] = ()
    exclude: tuple[Filter, ...] = ()
    keep_maps: Literal["gallery", "all", "none"] = "gallery"
    keep_models: bool = False
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
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict, repr=False)

    def with_data(self, folders: Sequence[str | Path]) -> Plan:
        """The plan with its first data sets in these folders (relative to the working folder)."""
        entries = list(self.content.datasets)
        if len(folders) > len(entries):
            raise AndonError(f"{self.where}: has {len(entries)} data set(s), but {len(folders)} folders were given")
        for index, folder in enumerate(folders):
            entries[index] = entries[index].model_copy(update={"path": str(Path(folder).absolute())})
        return replace(self, content=self.content.model_copy(update={"datasets": tuple(entries)}))

    def error(self, location: tuple[str | int, ...], message: str) -> AndonError:
        """An error that names the plan, the line and the key."""
        return _error(self.where, self.lines, location, message)


@dataclass(frozen=True)
class ExpandedPlan:
    """A plan's experiments and the data they need.

    Attributes:
        plan: the plan.
        datasets: its data sets by name.
        specs: its experiments: by category, then those that share features, then seeds.
        references: for each experiment's id what ``create_method`` is called with (absolute paths for methods by file).
        unseeded: ids of experiments whose result does not depend on the seed: they run once for all seeds.
    """

    plan: Plan
    datasets: Mapping[str, Dataset]
    specs: tuple[ExperimentSpec, ...]
    references: Mapping[str, str]
    unseeded: frozenset[str]

    def category(self, spec: ExperimentSpec) -> Category:
        """The category of an experiment."""
        return self.datasets[spec.dataset][spec.category]


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
        AndonError: no such plan, YAML syntax, unknown or invalid key: the message names file, line and key.
    """
    path = Path(source)
    if isinstance(source, str) and not path.is_file() and source in packaged_plans():
        text = resources.files("andon.benchmark").joinpath("plans", f"{source}.yaml").read_text(encoding="utf-8")
        where, base, name = f"plan {source}", Path.cwd(), source
    else:
        text, where, base, name = _read(path), str(path), path.resolve().parent, path.stem
    value, lines = _parse(text, where)
    if not isinstance(value, dict):
        raise AndonError(f"{where}: is not a plan: it must be a mapping with the keys datasets and methods")
    if seeds is not None:
        value["seeds"] = list(seeds) if isinstance(seeds, Sequence) else seeds
    content = _validate(PlanContent, value, where, lines)
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
        preset: named configuration ("embedded", "study", …) of those methods that have it; ``options`` win over it.

    Its name says methods, options and folders, so that several of them in one store stand side by side.

    Raises:
        AndonError: an option of no method or without a value, a preset of none; the rest comes with ``expand``.
    """
    having = [m for m in methods if preset is not None and preset in method_class(m).presets]
    if preset is not None and not having:
        known = dict.fromkeys(p for m in methods for p in method_class(m).presets)
        raise AndonError(f"preset {preset!r}: no method of the plan has it; presets: {listed(known) or 'none'}")
    configs: dict[str, dict[str, Any]] = {m: {} for m in methods}
    changes: dict[str, list[str]] = {method: [] for method in methods}
    for option in options:
        method = max((m for m in methods if option.startswith(f"{m}.")), key=len, default=None)
        place, equals, text = option.removeprefix(f"{method}.").partition("=")
        if method is None or not equals or not all(place.split(".")):
            raise AndonError(
                f"option {option!r}: expected METHOD.OPTION=VALUE with one of the methods {', '.join(methods)}"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise AndonError(f"option {option!r}: the value is not valid YAML") from None
        *above, name = place.split(".")
        config = configs[method]
        for part in above:
            config = config.setdefault(part, {})
            if not isinstance(config, dict):
                raise AndonError(f"option {option!r}: {part!r} was given a value before")
        config[name] = value
        changes[method].append(f"{place}={text}")
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
    value = {
        "name": f"{what} on {', '.join(Path(d).resolve().name for d in data)}",
        "datasets": [
            {"path": str(Path(d).absolute()), **({"categories": list(categories)} if categories else {})} for d in data
        ],
        "methods": entries,
        "seeds": list(seeds) if isinstance(seeds, Sequence) else seeds,
    }
    where = "the command's plan"
    content = _validate(PlanContent, value, where, {})
    source = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return Plan(str(value["name"]), content, source, where, Path.cwd())


def expand(plan: Plan, *, progress: ProgressCallback = no_progress) -> ExpandedPlan:
    """A plan's experiments. Reads the data sets' folders and hashes their files (no pixel is decoded).

    Args:
        plan: the plan.
        progress: stage "fingerprint", files of one category after the other.

    Raises:
        AndonError: missing folder, unknown category, category without good training or without test images, unknown
            method or option, labels that are not unique, nothing left by include and exclude.
    """
    content = plan.content
    methods = [_resolve_method(plan, index) for index in range(len(content.methods))]
    labels = [m.label for m in methods]
    for index, label in enumerate(labels):
        if label in labels[:index]:
            raise plan.error(("methods", index), f"a second method called {label!r}: give it a label of its own")
    datasets = dict(_load_datasets(plan))
    specs: list[ExperimentSpec] = []
    references: dict[str, str] = {}
    unseeded: set[str] = set()
    filters = {f"{key}[{i}]": f for key in ("include", "exclude") for i, f in enumerate(getattr(content, key))}
    used: set[str] = set()
    # Of the methods of a category those that share features come together, so that a cache that cannot hold
    # everything still holds them; otherwise the plan's order stays.
    keys = [m.feature_key for m in methods]
    methods.sort(key=lambda m: keys.index(m.feature_key))
    for dataset in datasets.values():
        for category in dataset:
            fingerprint = category_fingerprint(category, progress=progress)
            for method in methods:
                seeds = method.entry.seeds or content.seeds
                for seed in seeds if method.seeded else seeds[:1]:
                    spec = ExperimentSpec(
                        dataset=dataset.name,
                        category=category.name,
                        data_fingerprint=fingerprint,
                        method=method.entry.method,
                        label=method.label,
                        config=method.config,
                        protocol=method.protocol,
                        seed=seed,
                        code_fingerprint=method.code_fingerprint,
                    )
                    matching = {name for name, f in filters.items() if f.matches(spec, method.entry)}
                    used |= matching
                    kinds = {name.partition("[")[0] for name in matching}
                    if "exclude" in kinds or (content.include and "include" not in kinds):
                        continue
                    if spec.id in references:
                        raise plan.error(
                            ("methods", method.index),
                            f"{method.label!r} is the same experiment as another method of the plan",
                        )
                    specs.append(spec)
                    references[spec.id] = method.reference
                    if not method.seeded:
                        unseeded.add(spec.id)
    for name in filters:
        if name not in used:
            key, _, number = name.rstrip("]").partition("[")
            raise plan.error((key, int(number)), "matches no experiment of the plan (is a name misspelt?)")
    if not specs:
        raise AndonError(f"{plan.where}: no experiment is left by include and exclude")
    return ExpandedPlan(plan, datasets, tuple(specs), references, frozenset(unseeded))


@dataclass(frozen=True)
class _ResolvedMethod:
    index: int
    entry: MethodEntry
    label: str
    reference: str
    config: dict[str, Any]
    protocol: Protocol
    seeded: bool
    code_fingerprint: str
    feature_key: str


def _resolve_method(plan: Plan, index: int) -> _ResolvedMethod:
    entry = plan.content.methods[index]
    location = ("methods", index)
    reference, code = entry.method, ""
    if ".py:" in reference:
        filename, _, class_name = reference.rpartition(":")
        path = plan.base / filename
        reference = f"{path}:{class_name}"
        if path.is_file():
            code = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    try:
        if entry.preset:
            preset_config(reference, entry.preset)
    except AndonError as error:
        raise plan.error((*location, "preset"), str(error)) from error
    try:
        method = create_method(reference, entry.config, preset=entry.preset)
    except AndonError as error:
        raise plan.error((*location, "config") if entry.config else location, str(error)) from error
    except TypeError as error:
        raise plan.error((*location, "config"), f"option names must be words ({error})") from error
    values = plan.content.protocol.model_dump() | entry.protocol
    protocol = _validate(Protocol, values, plan.where, plan.lines, (*location, "protocol"))
    config = method.config.model_dump(mode="json")
    try:
        canonical_json(config)
        shared = {k: config[k] for k in _FEATURE_KEYS if k in config}
        features = canonical_json(shared) if "backbone" in config else entry.method
    except ValueError as error:
        raise plan.error((*location, "config"), f"options must be finite ({error})") from error
    return _ResolvedMethod(
        index,
        entry,
        entry.label or type(method).title,
        reference,
        config,
        protocol,
        # With a random draw of training images the seed matters to every method.
        type(method).seeded or protocol.shots is not None,
        code,
        features,
    )


def _load_datasets(plan: Plan) -> Iterator[tuple[str, Dataset]]:
    names: set[str] = set()
    for index, entry in enumerate(plan.content.datasets):
        location = ("datasets", index)
        if entry.path is None:
            raise plan.error(location, f"data set {entry.name or index + 1} has no path: give its folder (--data DIR)")
        folder = plan.base / Path(entry.path).expanduser()
        try:
            dataset = load_dataset(
                folder,
                layout=entry.layout,
                name=entry.name,
                categories=entry.categories,
                train_fraction=entry.train_fraction,
            )
        except AndonError as error:
            raise plan.error(location, str(error)) from error
        if dataset.name in names:
            raise plan.error(location, f"a second data set called {dataset.name!r}: give it a name of its own")
        for category in dataset:
            for what, samples in (("good training", category.train), ("test", category.test)):
                if not samples:
                    raise plan.error(location, f"category {category.name} ({category.root}) has no {what} images")
        names.add(dataset.name)
        yield dataset.name, dataset


def _read(path: Path) -> str:
    try:
        if path.is_dir():
            raise AndonError(f"{path}: is a folder, not a plan's YAML file")
        if not path.exists():
            raise AndonError(
                f"{path}: there is no such plan; give a YAML file or one of: {', '.join(packaged_plans())}"
            )
        if path.stat().st_size > MAX_PLAN_BYTES:
            raise AndonError(f"{path}: is too large for a plan")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise AndonError(f"{path}: is not a text in UTF-8, so not a plan") from None
    except OSError as error:
        raise AndonError(f"{path}: cannot be read ({error.strerror})") from error


def _parse(text: str, where: str) -> tuple[Any, dict[tuple[str | int, ...], int]]:
    """The YAML's value, and the line of each of its keys and entries."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[tuple[str | int, ...], int] = {}
        if node is not None:
            for location, line, duplicate in _walk(node, (), frozenset(), set()):
                if duplicate:
                    raise AndonError(f"{where}:{line}: {_dotted(location)} is given twice")
                lines[location] = line
        return yaml.safe_load(text), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f":{mark.line + 1}" if mark else ""
        raise AndonError(f"{where}{at}: is not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise AndonError(f"{where}: is not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise AndonError(f"{where}: is nested too deeply for a plan") from error
    except (ValueError, TypeError, OverflowError) as error:  # a date like 2026-99-99, a list as a key
        raise AndonError(f"{where}: is not valid YAML: {error}") from error


def _walk(
    node: yaml.Node, location: tuple[str | int, ...], above: frozenset[int], seen: set[int]
) -> Iterator[tuple[tuple[str | int, ...], int, bool]]:
    if id(node) in above:
        raise RecursionError
    if id(node) in seen:
        return  # an alias: walking it again each time is how a small file becomes a billion nodes
    seen.add(id(node))
    above = above | {id(node)}
    if isinstance(node, yaml.MappingNode):
        names = set()
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            yield (*location, name), key.start_mark.line + 1, name in names and name not in ("<<", "?")
            names.add(name)
            yield from _walk(value, (*location, name), above, seen)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield (*location, position), value.start_mark.line + 1, False
            yield from _walk(value, (*location, position), above, seen)


def _validate(
    model: type[ModelT],
    value: Any,
    where: str,
    lines: Mapping[tuple[str | int, ...], int],
    prefix: tuple[str | int, ...] = (),
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
        raise _error(where, lines, location, message) from error


def _model_at(model: type[BaseModel], location: tuple[str | int, ...]) -> type[BaseModel]:
    """The model that holds the keys at a location of ``model``."""
    if model is not PlanContent or not location:
        return model
    models: dict[str, type[BaseModel]] = {"datasets": DatasetEntry, "methods": MethodEntry, "protocol": Protocol}
    return models.get(str(location[0]), Filter)


def _error(
    where: str, lines: Mapping[tuple[str | int, ...], int], location: tuple[str | int, ...], message: str
) -> AndonError:
    known = next((location[:n] for n in range(len(location), 0, -1) if location[:n] in lines), None)
    line = f":{lines[known]}" if known else ""
    place = f"{_dotted(location)}: " if location else ""
    return AndonError(f"{where}{line}: {place}{message}")


def _dotted(location: tuple[str | int, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
