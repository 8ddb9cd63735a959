"""From a plan to its experiments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from andon.benchmark.plan import Filter, MethodEntry, Plan, validated
from andon.benchmark.record import ExperimentSpec, Protocol
from andon.benchmark.skipping import readable
from andon.core import AndonError, Category, ConfigError, Dataset, ProgressCallback, canonical_json, no_progress
from andon.data import Window, category_fingerprint, load_dataset, windowed, windowed_fingerprint
from andon.methods import code_fingerprint, create_method, preset_config

__all__ = ["ExpandedPlan", "expand"]

_FEATURE_KEYS = ("backbone", "layers", "stages", "weights", "transform")


@dataclass(frozen=True)
class ExpandedPlan:
    """A plan's experiments and the data they need.

    Attributes:
        plan: the plan.
        datasets: its data sets by name; of windows where the plan says so.
        specs: its experiments: by category, then those that share features, then seeds.
        references: for each experiment's id what ``create_method`` is called with (absolute paths for methods by file).
        unseeded: ids of experiments whose result does not depend on the seed: they run once for all seeds.
        whole: the data sets with the images that ``skip_bad`` leaves out, and without windows.
        skipped: ids of those images, by data set and category.
    """

    plan: Plan
    datasets: Mapping[str, Dataset]
    specs: tuple[ExperimentSpec, ...]
    references: Mapping[str, str]
    unseeded: frozenset[str]
    whole: Mapping[str, Dataset]
    skipped: Mapping[tuple[str, str], tuple[str, ...]]

    def category(self, spec: ExperimentSpec) -> Category:
        """The category of an experiment."""
        return self.datasets[spec.dataset][spec.category]


def expand(plan: Plan, *, progress: ProgressCallback = no_progress) -> ExpandedPlan:
    """A plan's experiments. Reads the data sets' folders and hashes their files (no pixel is decoded).

    Args:
        plan: the plan.
        progress: stage "fingerprint", files of one category after the other; with ``skip_bad`` "images" before it.

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
    whole = dict(_load_datasets(plan))
    datasets, skipped = _usable(plan, whole, progress)
    windows = dict(zip(datasets, (entry.window for entry in content.datasets), strict=True))
    # Of the methods of a category those that share features come together, so that a cache that cannot hold
    # everything still holds them; otherwise the plan's order stays.
    keys = [m.feature_key for m in methods]
    methods.sort(key=lambda m: keys.index(m.feature_key))
    choice = _Choice(plan)
    specs: list[ExperimentSpec] = []
    references: dict[str, str] = {}
    unseeded: set[str] = set()
    for dataset in datasets.values():
        for category in dataset:
            fingerprint = category_fingerprint(category, progress=progress)
            window = windows[dataset.name]
            if window is not None:
                fingerprint = windowed_fingerprint(fingerprint, window)
            for method in methods:
                for spec in _experiments(content.seeds, dataset.name, category.name, fingerprint, method):
                    if not choice(spec, method.entry):
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
    choice.check()
    if not specs:
        raise ConfigError(f"{plan.where}: no experiment is left by include and exclude")
    shown = {name: _windowed(dataset, windows[name]) for name, dataset in datasets.items()}
    return ExpandedPlan(plan, shown, tuple(specs), references, frozenset(unseeded), whole, skipped)


class _Choice:
    """What is left of a plan's experiments by its include and exclude."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._filters: dict[tuple[str, int], Filter] = {
            (key, i): f for key in ("include", "exclude") for i, f in enumerate(getattr(plan.content, key))
        }
        self._used: set[tuple[str, int]] = set()

    def __call__(self, spec: ExperimentSpec, entry: MethodEntry) -> bool:
        matching = {place for place, f in self._filters.items() if f.matches(spec, entry)}
        self._used |= matching
        kinds = {key for key, _ in matching}
        return "exclude" not in kinds and not (self._plan.content.include and "include" not in kinds)

    def check(self) -> None:
        """ConfigError for a filter that matched nothing."""
        for place in self._filters:
            if place not in self._used:
                raise self._plan.error(place, "matches no experiment of the plan (is a name misspelt?)")


def _experiments(
    seeds: tuple[int, ...], dataset: str, category: str, fingerprint: str, method: _ResolvedMethod
) -> Iterator[ExperimentSpec]:
    own = method.entry.seeds or seeds
    for seed in own if method.seeded else own[:1]:
        yield ExperimentSpec(
            dataset=dataset,
            category=category,
            data_fingerprint=fingerprint,
            method=method.entry.method,
            label=method.label,
            config=method.config,
            protocol=method.protocol,
            seed=seed,
            code_fingerprint=method.code_fingerprint,
        )


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
    reference = entry.method
    if ".py:" in reference:
        filename, _, class_name = reference.rpartition(":")
        path = plan.base / filename
        reference = f"{path}:{class_name}"
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
    protocol = validated(Protocol, values, plan.where, plan.lines, (*location, "protocol"))
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
        # With a random draw of training images, or of what is done to them, the seed matters to every method.
        type(method).seeded or protocol.drawn,
        code_fingerprint(reference),
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
        if entry.window is not None and entry.name is None:
            dataset = _renamed(dataset, f"{dataset.name} {entry.window.title}")
        if dataset.name in names:
            raise plan.error(location, f"a second data set called {dataset.name!r}: give it a name of its own")
        _check_split(plan, location, dataset)
        names.add(dataset.name)
        yield dataset.name, dataset


def _renamed(dataset: Dataset, name: str) -> Dataset:
    categories = {key: replace(category, dataset=name) for key, category in dataset.categories.items()}
    return replace(dataset, name=name, categories=categories)


def _windowed(dataset: Dataset, window: Window | None) -> Dataset:
    if window is None:
        return dataset
    return replace(dataset, categories={name: windowed(c, window) for name, c in dataset.categories.items()})


def _check_split(plan: Plan, location: tuple[str, int], dataset: Dataset, why: str = "") -> None:
    for category in dataset:
        for what, samples in (("good training", category.train), ("test", category.test)):
            if not samples:
                raise plan.error(location, f"category {category.name} ({category.root}) has no {what} images{why}")


def _usable(
    plan: Plan, whole: Mapping[str, Dataset], progress: ProgressCallback
) -> tuple[Mapping[str, Dataset], dict[tuple[str, str], tuple[str, ...]]]:
    """The data sets that experiments run on, and what ``skip_bad`` leaves out of them."""
    if not plan.content.skip_bad:
        return whole, {}
    datasets: dict[str, Dataset] = {}
    skipped: dict[tuple[str, str], tuple[str, ...]] = {}
    for index, (name, dataset) in enumerate(whole.items()):
        datasets[name], left_out = readable(dataset, progress=progress)
        _check_split(plan, ("datasets", index), datasets[name], " that can be read")
        skipped |= {(name, category): ids for category, ids in left_out.items()}
    return datasets, skipped
