"""The study as plans: one for each part of its results, as published, as its code was released, or small.

A part's plan is a packaged one (``andon bench plans``). What several parts need is the same experiment in each, so in
one store it is run once: Table 11 and Figure 5 compare with the experiments of Tables 6 to 10.

>>> [(part.name, part.raw) for part in study_plans(small=True, synthetic=True)[:3]]
[('synthetic-study-small', False), ('synthetic-table11-small', False), ('synthetic-table12-small', True)]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from andon.benchmark.plan import DatasetEntry, MethodEntry, Plan, PlanContent, load_plan
from andon.core import ConfigError
from andon.methods import method_class

__all__ = ["SHOTS", "SMALL", "ProtocolName", "Scale", "StudyPlan", "few_shot_entries", "study_plans"]

ProtocolName = Literal["paper", "released-code"]
SHOTS: tuple[int | None, ...] = (1, 2, 4, 8, 10, 16, 32, 64, None)
"""Figure 5's numbers of training images; None for all."""
SYNTHETIC = "synthetic line"
"""The name of the synthetic line as a data set."""

_PARTS = (
    ("study", "autovi-study", "Tables 6 to 10, Figure 3"),
    ("table11", "autovi-table11", "Table 11"),
    ("table12", "autovi-table12", "Table 12"),
    ("table13", "autovi-table13", "Table 13"),
    ("figure5", "autovi-figure5", "Figure 5"),
)
_GIVEN = "autovi-table12-given"


@dataclass(frozen=True)
class Scale:
    """How much of the study is done where time is short.

    Attributes:
        seeds: runs of each experiment.
        folds: of the calibration, where there is one.
        budgets: part of its training that each trained method gets; others as they are.
        shots: numbers of training images of the few-shot curve; None for all.
        draws: of each number.
        versions: of each image, for trained methods on augmented images.
        categories: of each part, by its name; all of them otherwise.
        other_budget: part of its training that a trained method beside those of ``budgets`` gets, if it has the option.
    """

    seeds: int
    folds: int
    budgets: Mapping[str, float]
    shots: tuple[int | None, ...]
    draws: int
    versions: int
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    other_budget: float = 0.05


SMALL = Scale(
    seeds=2,
    folds=2,
    budgets={"cflow": 0.5, "draem": 0.05, "dsr": 0.12, "efficientad": 0.05},
    shots=(1, 4, 8, None),
    draws=3,
    versions=4,
    categories={"table11": ("engine_wiring", "pipe_staple"), "figure5": ("pipe_staple", "underbody_screw")},
)
"""For the default presets: minutes on two processors. Two seeds, because one has no deviation to show."""


@dataclass(frozen=True)
class StudyPlan:
    """One part of the study.

    Attributes:
        part: "study" (the main one), "table11", "table12", "table13", "figure5".
        plan: its experiments, without the folders of its data sets.
        shows: which tables and figures it fills.
        raw: whether it is for the uncropped images.
    """

    part: str
    plan: Plan
    shows: str
    raw: bool = False

    @property
    def name(self) -> str:
        """Of the plan, within a store."""
        return self.plan.name

    def on(self, data: str | Path, raw: str | Path | None = None) -> Plan:
        """The plan on a folder of images.

        Args:
            data: the data set.
            raw: its uncropped images.

        Raises:
            ConfigError: the part is for uncropped images, and there are none.
        """
        folder = raw if self.raw else data
        if folder is None:
            raise ConfigError(
                f"plan {self.name}: is for uncropped images; name their folder, or use the windows within the given "
                "images (study_plans(raw=False))"
            )
        return self.plan.with_data([folder] * len(self.plan.content.datasets))


def study_plans(
    protocol: ProtocolName = "paper",
    *,
    small: bool | Scale = False,
    synthetic: bool = False,
    raw: bool = True,
    added: Sequence[str] = (),
    seeds: int | None = None,
) -> tuple[StudyPlan, ...]:
    """The plans of the whole study, the main one first.

    Args:
        protocol: settings of the paper, or of its released code where that differs (``autovi-study-released``).
        small: with fewer seeds, shortened trainings, fewer categories (``SMALL``, or another ``Scale``).
        synthetic: for the synthetic line: every method has its preset "default", which needs nothing from outside of
            the package. What a part varies (augmentation, windows, normalisation, shots) stays.
        raw: whether there are uncropped images for Table 12; without them it is of windows within the given images.
        added: more methods (see ``andon.methods.method_class``), for every part that has several methods, Figure 5
            included: with their preset "study" if they have it, and without calibration if they are trained.
        seeds: runs of every experiment, instead of the plans' and the scale's.

    Raises:
        ConfigError: an unknown protocol; "released-code" together with ``synthetic``, whose presets are others; an
            unknown method.
    """
    if protocol not in ("paper", "released-code"):
        raise ConfigError(f"protocol must be 'paper' or 'released-code', not {protocol!r}")
    if protocol == "released-code" and synthetic:
        raise ConfigError(
            "protocol 'released-code' and the synthetic line: its settings are for the published weights and full "
            "lengths, the synthetic line stands on the default presets"
        )
    scale = (SMALL if small is True else small) or None
    parts = []
    for part, packaged, shows in _PARTS:
        given = part == "table12" and not raw
        plan = load_plan(_GIVEN if given else packaged)
        content = _with_added(plan, part, added)
        name = plan.name
        if protocol == "released-code":
            content, name = _released(content, part), f"{name.removesuffix('-given')}-released"
        if synthetic:
            content, name = _synthetic(content), f"synthetic-{part}"
        if scale is not None:
            content, name = _scaled(content, part, scale), f"{name}-small"
        if seeds is not None:
            content = _with_seeds(content, seeds)
        parts.append(StudyPlan(part, _as_plan(plan, name, content), shows, raw=part == "table12" and raw))
    return tuple(parts)


def few_shot_entries(
    entry: MethodEntry, shots: Sequence[int | None] = SHOTS, draws: int = 8, *, title: str | None = None
) -> tuple[MethodEntry, ...]:
    """The methods of a few-shot curve, for a plan.

    Args:
        entry: any method; what it says of its protocol stays, but those on few images have no calibration, which would
            need some to be held out.
        shots: numbers of training images, drawn anew for every seed and number; None for all.
        draws: seeds of each.
        title: what labels begin with; the entry's label or the method's title otherwise.
    """
    title = title or entry.label or method_class(entry.method).title
    entries = []
    for n in shots:
        many = "all images" if n is None else "1 image" if n == 1 else f"{n} images"
        protocol = entry.protocol if n is None else {**entry.protocol, "shots": n, "calibration_folds": 0}
        update = {"label": f"{title}, {many}", "protocol": protocol, "seeds": tuple(range(draws))}
        entries.append(entry.model_copy(update=update))
    return tuple(entries)


def _as_plan(plan: Plan, name: str, content: PlanContent) -> Plan:
    """A plan with another content; its text is made from it, so that what a store keeps is what is run."""
    if content == plan.content:
        return plan
    content = content.model_copy(update={"name": name})
    source = yaml.safe_dump(content.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)
    # The lines are those of another text.
    return replace(plan, name=name, content=content, source=source, where=f"plan {name}", lines={})


def _with_added(plan: Plan, part: str, references: Sequence[str]) -> PlanContent:
    """A part's content with more methods, each as that part varies its own."""
    content = plan.content
    if not references or part == "table13":  # which is of an option of EfficientAD
        return content
    methods = list(content.methods)
    for added in plan.with_methods(list(dict.fromkeys(references))).content.methods[len(methods) :]:
        cls = method_class(added.method)
        preset = "study" if "study" in cls.presets else None
        entry = added.model_copy(
            update={"preset": preset, "protocol": {"calibration_folds": 0} if cls.trained else added.protocol}
        )
        if part == "figure5":
            # All images are the main part's experiments, with its seeds.
            methods += [
                e if "shots" in e.protocol else e.model_copy(update={"seeds": None}) for e in few_shot_entries(entry)
            ]
            continue
        methods.append(entry)
        if part == "table11":
            augmented = {**entry.protocol, "augmentation": "study"}
            methods.append(
                entry.model_copy(update={"label": f"{entry.label or cls.title}, augmented", "protocol": augmented})
            )
    return content.model_copy(update={"methods": tuple(methods)})


def _with_seeds(content: PlanContent, seeds: int) -> PlanContent:
    methods = tuple(entry.model_copy(update={"seeds": None}) for entry in content.methods)
    return content.model_copy(update={"methods": methods, "seeds": tuple(range(seeds))})


def _released(content: PlanContent, part: str) -> PlanContent:
    """With the released code's settings for every method; what the entries vary stays."""
    released = load_plan("autovi-study-released").content
    settings = {entry.method: entry for entry in released.methods}
    if part == "study":
        known = {entry.method for entry in load_plan("autovi-study").content.methods}
        added = tuple(entry for entry in content.methods if entry.method not in known)
        return released.model_copy(update={"methods": (*released.methods, *added)})
    methods = []
    for entry in content.methods:
        own = settings.get(entry.method)
        if own is None:  # one that was added
            methods.append(entry)
            continue
        methods.append(entry.model_copy(update={"preset": own.preset, "config": {**own.config, **entry.config}}))
    return content.model_copy(update={"methods": tuple(methods)})


def _synthetic(content: PlanContent) -> PlanContent:
    """For the synthetic line: default presets, and the line's name in that of the data sets."""
    methods = [entry.model_copy(update={"preset": None}) for entry in content.methods]
    datasets = [
        entry.model_copy(update={"name": (entry.name or "autovi").replace("autovi", SYNTHETIC, 1)})
        for entry in content.datasets
    ]
    title = content.title.replace("AutoVI", "Synthetic line", 1)
    return content.model_copy(update={"methods": tuple(methods), "datasets": tuple(datasets), "title": title})


def _scaled(content: PlanContent, part: str, scale: Scale) -> PlanContent:
    """With fewer seeds, shorter trainings, fewer categories."""
    methods = [_scaled_method(entry, scale) for entry in content.methods]
    if part == "figure5":
        methods = [entry for entry in methods if entry.protocol.get("shots") in scale.shots]
    protocol = content.protocol.model_copy(
        update={"calibration_folds": min(content.protocol.calibration_folds, scale.folds)}
    )
    return content.model_copy(
        update={
            "methods": tuple(methods),
            "seeds": tuple(range(scale.seeds)),
            "protocol": protocol,
            "datasets": tuple(_scaled_dataset(entry, scale.categories.get(part)) for entry in content.datasets),
            "title": f"{content.title} (small)",
        }
    )


def _scaled_method(entry: MethodEntry, scale: Scale) -> MethodEntry:
    config: dict[str, Any] = dict(entry.config)
    if entry.method in scale.budgets:
        config["budget"] = scale.budgets[entry.method]
    elif (cls := method_class(entry.method)).trained and "budget" in cls.Config.model_fields:
        config["budget"] = scale.other_budget
    protocol = dict(entry.protocol)
    if protocol.get("augmentation") is not None:
        protocol["augmentation"] = {"versions": scale.versions}
    seeds = tuple(range(scale.draws)) if protocol.get("shots") is not None else entry.seeds
    return entry.model_copy(update={"config": config, "protocol": protocol, "seeds": seeds})


def _scaled_dataset(entry: DatasetEntry, categories: tuple[str, ...] | None) -> DatasetEntry:
    if categories is None:
        return entry
    kept = categories if entry.categories is None else tuple(c for c in entry.categories if c in categories)
    return entry.model_copy(update={"categories": kept})
