"""The whole study in one store: its images, its parts one after the other, and what it would cost.

Parts share experiments, which are run (and counted) once. Images, and the learned parts that methods stand on, are
looked at for all parts before anything is run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from andon.benchmark.bench import RunSummary, run_plan
from andon.benchmark.engine import Engine, LocalEngine
from andon.benchmark.estimate import PlanEstimate, RowEstimate, estimate_plan
from andon.benchmark.events import DataProblem, ExperimentEvent, Failed, Finished, Planned, RunEvent
from andon.benchmark.expansion import ExpandedPlan, expand
from andon.benchmark.needed import check_weights
from andon.benchmark.plan import DatasetEntry, Filter, MethodEntry, Plan
from andon.benchmark.preflight import check_data, remember_clean
from andon.benchmark.record import ExperimentSpec, Failure
from andon.benchmark.store import Store
from andon.benchmark.study import ProtocolName, StudyPlan, study_plans
from andon.core import ProgressCallback, no_progress
from andon.methods import method_class, method_names

__all__ = [
    "StudyEstimate",
    "StudyRowEstimate",
    "estimate_study",
    "joined_plan",
    "prepare_study",
    "run_study",
    "with_images",
]


def prepare_study(
    protocol: ProtocolName = "paper",
    *,
    small: bool = False,
    synthetic: bool = False,
    raw: bool = True,
    added: Sequence[str] = (),
    all_methods: bool = False,
    seeds: int | None = None,
) -> tuple[StudyPlan, ...]:
    """The study's parts (``study_plans``), still without folders of images (``with_images``).

    Args:
        protocol, small, synthetic, raw, added, seeds: see ``study_plans``.
        all_methods: adds every installed method that the study does not have.

    Raises:
        ConfigError: as ``study_plans``.
    """
    more = list(dict.fromkeys(added))
    if all_methods:
        known = {entry.method for entry in study_plans()[0].plan.content.methods}
        more = [*(name for name in method_names() if name not in known and name not in more), *more]
    return study_plans(protocol, small=small, synthetic=synthetic, raw=raw, added=more, seeds=seeds)


def with_images(parts: Iterable[StudyPlan], data: str | Path, raw: str | Path | None = None) -> tuple[StudyPlan, ...]:
    """The parts on folders of images: of the data set, and of its uncropped images.

    Raises:
        ConfigError: a part is for uncropped images, and there are none.
    """
    return tuple(replace(part, plan=part.on(data, raw)) for part in parts)


def joined_plan(parts: Sequence[StudyPlan]) -> Plan:
    """All experiments of several parts as one plan, each once, under the label of the first part that has it."""
    datasets: dict[str, DatasetEntry] = {}
    methods: dict[str, MethodEntry] = {}
    wanted: dict[Filter, None] = {}
    for part in parts:
        content = part.plan.content
        labels = [_joined_label(methods, entry, part) for entry in content.methods]
        for entry in content.datasets:
            assert entry.name is not None
            datasets[entry.name] = _united(datasets.get(entry.name), entry)
            for category in entry.categories or (None,):
                wanted |= {Filter(dataset=entry.name, category=category, method=label): None for label in labels}
    first = parts[0].plan
    content = first.content.model_copy(
        update={
            "datasets": tuple(datasets.values()),
            "methods": tuple(methods.values()),
            "include": tuple(wanted),
            "title": "",
        }
    )
    return replace(first, name="study", content=content, where="the study", lines={})


def _joined_label(methods: dict[str, MethodEntry], entry: MethodEntry, part: StudyPlan) -> str:
    """The label of an entry among those of other parts, to which it is added if it is not one of them."""
    unlabelled = entry.model_copy(update={"label": None})
    for label, known in methods.items():
        if known.model_copy(update={"label": None}) == unlabelled:
            return label
    label = entry.label or method_class(entry.method).title
    if label in methods:
        label = f"{label} ({part.name})"
    methods[label] = entry.model_copy(update={"label": label})
    return label


def _united(known: DatasetEntry | None, entry: DatasetEntry) -> DatasetEntry:
    if known is None or known.categories is None:
        return known or entry
    both = None if entry.categories is None else tuple(dict.fromkeys((*known.categories, *entry.categories)))
    return known.model_copy(update={"categories": both})


# Running


def run_study(
    parts: Sequence[StudyPlan],
    store_dir: str | Path,
    *,
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    engine: Engine | None = None,
    anyway: bool = False,
    on_event: Callable[[RunEvent], None] = lambda event: None,
    on_part: Callable[[StudyPlan, int, int], None] = lambda part, todo, done: None,
    progress: ProgressCallback = no_progress,
) -> RunSummary:
    """Does what is left of all parts; a part that is done costs next to nothing.

    Args:
        parts: of ``with_images``.
        store_dir, jobs, threads, device, engine, anyway: see ``run_plan``.
        on_event: told what happens; experiments done, all there are, and the time left are those of the whole study.
        on_part: told before a part: it, its experiments to do, and those done already.
        progress: see ``run_plan``.

    Returns:
        Of all parts together.

    Raises:
        AndonError: as ``run_plan``, of any part, before an experiment of the first one is run.
    """
    start = time.perf_counter()
    whole = expand(joined_plan(parts), progress=progress)
    before = _done(Store(store_dir), whole.specs) if Store.is_at(store_dir) else set()
    todo = [spec for spec in whole.specs if spec.id not in before]
    cache = Store.cache_of(Path(store_dir))
    clean = check_data(whole, todo, anyway=anyway, on_event=on_event, progress=progress, cache=cache)
    if engine is None or isinstance(engine, LocalEngine):  # another's machines have weights of their own
        check_weights(whole, todo)
    store = Store(store_dir, create=True)
    remember_clean(cache, clean)
    on_event(Planned(f"{len(todo)} experiments to do, {len(before)} done before", len(todo)))
    tally = _Tally(todo, on_event)
    how = {"jobs": jobs, "threads": threads, "device": device, "engine": engine, "anyway": anyway}
    for number, part in enumerate(parts):
        expanded = expand(part.plan, progress=progress)
        done = _done(store, expanded.specs)
        on_part(part, len(expanded.specs) - len(done), len(done))
        # The first part's run looks for damage, which may lie in any part.
        if number and len(done) == len(expanded.specs) and _is_stored(Store(store_dir), expanded):
            continue
        _forget_failures(store, {spec.id for spec in expanded.specs} - tally.ended)
        options: dict[str, Any] = {**how, "retry_failed": False, "on_event": tally, "progress": progress}
        tally.add(run_plan(part.plan, store_dir, **options))
    return tally.summary(whole.specs, before, time.perf_counter() - start)


def _done(store: Store, specs: Iterable[ExperimentSpec]) -> set[str]:
    return {spec.id for spec in specs if spec.id in store}


def _forget_failures(store: Store, ids: set[str]) -> None:
    """Has a part's run try again what failed in an earlier start; what failed in this one is not tried once more by
    each part that shares it."""
    with store.lock():
        for failure in Store(store.root).failures():
            if failure.id in ids:
                store.forget_failure(failure.id)


def _is_stored(store: Store, expanded: ExpandedPlan) -> bool:
    """Whether a store knows a plan as it is."""
    stored = store.plan(expanded.plan.name)
    return (
        stored is not None
        and (stored.specs, stored.source) == (expanded.specs, expanded.plan.source)
        and [d.path for d in stored.datasets] == [str(d.root) for d in expanded.datasets.values()]
    )


class _Tally:
    """Turns the events of one part's run after the other into those of the whole study."""

    def __init__(self, todo: Sequence[ExperimentSpec], on_event: Callable[[RunEvent], None]) -> None:
        self._finished: dict[str, ExperimentSpec] = {}
        self._failed: dict[str, Failure] = {}
        self._repaired: list[str] = []
        self._wanted = {spec.id: spec for spec in todo}
        self._ended: dict[str, float] = {}
        self._on_event = on_event
        self._start = time.monotonic()

    def __call__(self, event: RunEvent) -> None:
        match event:
            case Planned() | DataProblem():
                pass  # told of all parts already
            case ExperimentEvent(spec=spec, event=happened):
                self._wanted.setdefault(spec.id, spec)  # one that was found damaged
                if isinstance(happened, Finished | Failed):
                    self._ended[spec.id] = happened.seconds
                total = len(self._wanted)
                self._on_event(replace(event, done=len(self._ended), total=total, eta_seconds=self._left()))
            case _:
                self._on_event(event)

    def _left(self) -> float | None:
        """Seconds, by what experiments of the same kind have taken so far."""
        if not self._ended:
            return None
        taken: dict[tuple[object, ...], list[float]] = {}
        for key, seconds in self._ended.items():
            for kind in _kinds(self._wanted[key]):
                taken.setdefault(kind, []).append(seconds)
        means = {kind: sum(seconds) / len(seconds) for kind, seconds in taken.items()}
        left = 0.0
        for spec in self._wanted.values():
            if spec.id not in self._ended:
                left += next(means[kind] for kind in _kinds(spec) if kind in means)
        # How many run at a time shows in how much was done in the time so far.
        spent = sum(self._ended.values())
        return left * (time.monotonic() - self._start) / spent if spent > 0 else None

    @property
    def ended(self) -> set[str]:
        """Ids of experiments that were tried in this run of the study."""
        return set(self._ended)

    def add(self, summary: RunSummary) -> None:
        """A part's run is over."""
        for spec in summary.finished:
            self._finished[spec.id] = spec
            self._failed.pop(spec.id, None)
        self._failed |= {failure.id: failure for failure in summary.failed}
        self._repaired += summary.repaired

    def summary(self, specs: Iterable[ExperimentSpec], before: set[str], seconds: float) -> RunSummary:
        """Of all parts, whose experiments are ``specs``, those in ``before`` done before."""
        skipped = tuple(spec for spec in specs if spec.id in before and spec.id not in self._finished)
        return RunSummary(
            tuple(self._finished.values()), skipped, tuple(self._failed.values()), tuple(self._repaired), seconds
        )


def _kinds(spec: ExperimentSpec) -> tuple[tuple[object, ...], ...]:
    """What experiments have in common that take about as long, the closest first."""
    protocol = spec.protocol
    return (
        (spec.method, protocol.shots, protocol.augmentation is not None, spec.category),
        (spec.method, protocol.shots, protocol.augmentation is not None),
        (spec.method,),
        (),
    )


# What it would cost


@dataclass(frozen=True)
class StudyRowEstimate:
    """A method on a data set, in a part.

    Attributes:
        part: the first one that has it.
        done, failed, missing: experiments in each state.
        seconds: of those that are left, one after the other; None where none of them has an estimate.
        unknown: experiments that are left without an estimate.
        memory_mb: peak memory of the largest, MiB; None likewise.
        basis: what the estimates stand on, or why there are none.
    """

    part: StudyPlan
    dataset: str
    label: str
    done: int
    failed: int
    missing: int
    seconds: float | None
    unknown: int
    memory_mb: float | None
    basis: str


@dataclass(frozen=True)
class StudyEstimate:
    """What is left of a study, and what it would cost.

    Attributes:
        rows: by part.
        whole: by category, with sums.
    """

    rows: tuple[StudyRowEstimate, ...]
    whole: PlanEstimate


def estimate_study(
    parts: Sequence[StudyPlan],
    store_dir: str | Path,
    *,
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    progress: ProgressCallback = no_progress,
) -> StudyEstimate:
    """What a run of the study into the store would do and cost. Nothing is written.

    Args:
        parts: of ``with_images``.
        store_dir, jobs, threads, device, progress: see ``estimate_plan``.
    """
    plan = joined_plan(parts)
    found = estimate_plan(plan, store_dir, jobs=jobs, threads=threads, device=device, progress=progress)
    owners = _owners(parts)
    groups: dict[tuple[str, str, str], list[RowEstimate]] = {}
    for row in found.rows:
        part = owners[row.dataset, row.label]
        groups.setdefault((part.part, row.dataset, row.label), []).append(row)
    order = {part.part: place for place, part in enumerate(parts)}
    rows = [_study_row(owners[key[1:]], rows) for key, rows in groups.items()]
    rows.sort(key=lambda row: order[row.part.part])
    return StudyEstimate(tuple(rows), found)


def _owners(parts: Sequence[StudyPlan]) -> Mapping[tuple[str, str], StudyPlan]:
    """The first part of each data set and label of the joined plan."""
    owners: dict[tuple[str, str], StudyPlan] = {}
    for count in range(1, len(parts) + 1):
        content = joined_plan(parts[:count]).content
        for wanted in content.include:
            owners.setdefault((wanted.dataset or "", wanted.method or ""), parts[count - 1])
    return owners


def _study_row(part: StudyPlan, rows: Sequence[RowEstimate]) -> StudyRowEstimate:
    left = {id(row): row.failed + row.missing for row in rows}
    timed = [row for row in rows if row.seconds is not None]
    sizes = [row.memory_mb for row in rows if row.memory_mb is not None]
    return StudyRowEstimate(
        part=part,
        dataset=rows[0].dataset,
        label=rows[0].label,
        done=sum(row.done for row in rows),
        failed=sum(row.failed for row in rows),
        missing=sum(row.missing for row in rows),
        seconds=sum(left[id(row)] * (row.seconds or 0.0) for row in timed) if timed else None,
        unknown=sum(left[id(row)] for row in rows if row.seconds is None),
        memory_mb=max(sizes, default=None),
        basis="; ".join(dict.fromkeys(row.basis for row in rows if row.basis)),
    )
