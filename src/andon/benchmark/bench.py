"""Running a plan into a store, going on with it, and saying where it stands.

Running again *is* resuming: what has a result is left alone, what has none or failed is done. A failed experiment is
tried again (the cause is usually outside: memory, a timeout, a full disk) unless ``retry_failed`` is off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from andon._tools.models import first_fault
from andon.benchmark._files import StoreWriteError
from andon.benchmark.engine import Engine, Job, LocalEngine
from andon.benchmark.events import (
    Event,
    ExperimentEvent,
    Failed,
    Finished,
    ImportsCode,
    Planned,
    Progressed,
    Repaired,
    Restarted,
    RunEvent,
    Started,
)
from andon.benchmark.expansion import ExpandedPlan, expand
from andon.benchmark.foreign import foreign_code, refuse_unknown_code
from andon.benchmark.jobs import experiment_jobs
from andon.benchmark.needed import check_weights
from andon.benchmark.plan import Plan, PlanContent, load_plan
from andon.benchmark.preflight import check_data, remember_clean
from andon.benchmark.record import ExperimentSpec, Failure, StoredDataset, StoredPlan
from andon.benchmark.remote import remote_jobs
from andon.benchmark.runner import keep_gallery
from andon.benchmark.store import Store
from andon.core import ProgressCallback, StoreError, listed, no_progress

__all__ = ["ExperimentState", "PlanStatus", "RunSummary", "plan_status", "resume_plan", "run_plan"]


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    Attributes:
        finished: experiments that got a result in this run.
        skipped: those that had one (or, with ``retry_failed`` off, had failed).
        failed: those without one.
        repaired: one line for each damaged entry that was moved aside.
        seconds: wall seconds.
    """

    finished: tuple[ExperimentSpec, ...]
    skipped: tuple[ExperimentSpec, ...]
    failed: tuple[Failure, ...]
    repaired: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class ExperimentState:
    """Where an experiment of a plan stands."""

    spec: ExperimentSpec
    state: Literal["done", "failed", "missing"]
    reason: str = ""


@dataclass(frozen=True)
class PlanStatus:
    """Where the plans of a store stand."""

    experiments: tuple[ExperimentState, ...]
    problems: tuple[str, ...]
    """Damaged entries; the next run does them again."""

    def count(self, state: Literal["done", "failed", "missing"]) -> int:
        """Experiments in a state."""
        return sum(e.state == state for e in self.experiments)


def run_plan(
    plan: Plan | str | Path,
    store_dir: str | Path,
    *,
    data: Sequence[str | Path] = (),
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    cache: Literal[False] | str | Path | None = None,
    retry_failed: bool = True,
    anyway: bool = False,
    skip_bad: bool = False,
    engine: Engine | None = None,
    on_event: Callable[[RunEvent], None] = lambda event: None,
    progress: ProgressCallback = no_progress,
) -> RunSummary:
    """Does what is left of a plan; results go to the store as they come.

    Args:
        plan: a plan, a YAML file, or the name of a plan that comes with Andon.
        store_dir: the store's folder; made if it is not there.
        data: folders of the plan's data sets in its order, instead of the plan's own; relative to the working folder.
        jobs, threads: see ``LocalEngine``; not with an ``engine`` of your own.
        device: "cpu", "cuda", …
        cache: folder for images and features; None for the store's own, False for none (then every seed computes its
            features anew, and all times are the methods' whole cost).
        retry_failed: whether experiments that failed before are tried again.
        anyway: whether to run on data that ``data info`` finds errors in.
        skip_bad: runs without the images that cannot be read, whatever the plan says (``andon.benchmark.skipping``).
        engine: what runs the experiments; this machine's processes by default, ``RayEngine`` for a cluster.
        on_event: told what happens; an exception from it ends the run.
        progress: stage "fingerprint" while the files of the data sets are hashed.

    Raises:
        AndonError: the plan or its data is not right (see ``anyway``), another run holds the store.
        StoreWriteError: the store cannot be written; finished experiments are kept.
        KeyboardInterrupt: the experiments in flight are lost, the store is consistent.
    """
    start = time.perf_counter()
    expanded = expand(_read_plan(plan, data, skip_bad), progress=progress)
    engine, cache_root = engine or _local_engine(jobs, threads, device), _cache_root(cache, Path(store_dir))

    looked_at = {"anyway": anyway, "on_event": on_event, "progress": progress, "cache": cache_root}
    # A first run that is refused, or stopped before it starts, leaves nothing behind.
    first = None if Store.is_at(store_dir) else _checked(expanded, expanded.specs, engine, **looked_at)
    store = Store(store_dir, create=True)
    with store.lock():
        repaired, (skipped, todo) = _repaired(store, on_event), _left(expanded, store, retry_failed)
        remember_clean(cache_root, _checked(expanded, todo, engine, **looked_at) if first is None else first)
        store.write_plan(_stored(expanded))
        on_event(Planned(f"{len(todo)} experiments to do, {len(skipped)} done before", len(todo)))
        run = _Run(store, todo, on_event)
        try:
            engine.run(_work(engine, expanded, todo, store, cache_root, device, run.log), run.handle)
        finally:
            store.empty_scratch()
        return RunSummary(
            tuple(run.finished), tuple(skipped), tuple(run.failed), tuple(repaired), time.perf_counter() - start
        )


def _checked(expanded: ExpandedPlan, todo: Sequence[ExperimentSpec], engine: Engine, **options: Any) -> list[str]:
    """``check_data``, then whether weights are missing; what is to be remembered as clean."""
    clean = check_data(expanded, todo, **options)
    if isinstance(engine, LocalEngine):  # another's machines have weights of their own
        check_weights(expanded, todo)
    return clean


def _work(
    engine: Engine, expanded: ExpandedPlan, todo: Sequence[ExperimentSpec], store: Store, *rest: Any
) -> list[Job]:
    """The jobs of ``experiment_jobs``; only this machine's processes see the store for sure."""
    jobs = experiment_jobs(expanded, todo, store, *rest)
    return jobs if isinstance(engine, LocalEngine) else remote_jobs(jobs, store)


def _read_plan(plan: Plan | str | Path, data: Sequence[str | Path], skip_bad: bool) -> Plan:
    read = (plan if isinstance(plan, Plan) else load_plan(plan)).with_data(data)
    return read.without_unreadable() if skip_bad else read


def _repaired(store: Store, on_event: Callable[[RunEvent], None]) -> list[str]:
    lines = list(store.repair())
    for line in lines:
        on_event(Repaired(line))
    return lines


def _cache_root(cache: Literal[False] | str | Path | None, store: Path) -> Path | None:
    return None if cache is False else Store.cache_of(store) if cache is None else Path(cache)


def _local_engine(jobs: int | None, threads: int | None, device: str) -> LocalEngine:
    device_jobs = 1 if jobs is None and device != "cpu" else jobs
    return LocalEngine(device_jobs, threads, preload=("andon.benchmark.runner",))


def _left(
    expanded: ExpandedPlan, store: Store, retry_failed: bool
) -> tuple[list[ExperimentSpec], list[ExperimentSpec]]:
    """Experiments that are done (or, without ``retry_failed``, failed), and those that are left to do."""
    failed_before = {f.id for f in store.failures()}
    skipped = [s for s in expanded.specs if s.id in store or (s.id in failed_before and not retry_failed)]
    # An experiment keeps its category's gallery; one that was damaged or removed since has none left to do that.
    for spec in {(s.dataset, s.category): s for s in skipped if s.id in store}.values():
        keep_gallery(store, spec, expanded.category(spec))
    skip = {s.id for s in skipped}
    return skipped, [s for s in expanded.specs if s.id not in skip]


def resume_plan(store_dir: str | Path, name: str | None = None, *, trust: bool = False, **options: Any) -> RunSummary:
    """Goes on with a plan from what the store knows of it: neither the plan's file nor its options are needed again.

    Args:
        store_dir: the store's folder.
        name: the plan, where the store has several.
        trust: import the code from outside that the plan names even if this user has not run it before, or if it has
            changed since.
        options: as for ``run_plan`` (``data`` where the images have moved).

    Raises:
        AndonError: the store has no plan, or several and none was named; code from outside that is not known here;
            otherwise as ``run_plan``.
    """
    store = Store(store_dir)
    plans = store.plans()
    if name is None and len(plans) > 1:
        raise StoreError(f"{store.root}: has several plans ({listed(p.name for p in plans)}): name one")
    stored = plans[0] if name is None and plans else store.plan(name or "")
    if stored is None:
        known = f"it has: {listed(p.name for p in plans)}" if plans else "run one first"
        raise StoreError(f"{store.root}: has no plan{f' {name!r}' if name else ''}; {known}")
    where = f"plan {stored.name} of {store.root}"
    try:
        content = PlanContent.model_validate(stored.content)
    except ValidationError as error:
        raise StoreError(f"{where}: cannot be run ({first_fault(error)})") from error
    plan = Plan(stored.name, content, stored.source, where, Path(stored.base))
    if not trust:
        refuse_unknown_code(stored, plan, where)
    on_event = options.get("on_event", lambda event: None)
    for code in foreign_code(plan):
        on_event(ImportsCode(f"imports {code.reference} from {code.path} (SHA-256 {code.sha256})"))
    return run_plan(plan, store_dir, **options)


def plan_status(store_dir: str | Path, plan: str | None = None) -> PlanStatus:
    """Where a store's plans stand (or the one named), without reading any data set.

    Raises:
        AndonError: no store there, or it has no such plan.
    """
    store = Store(store_dir)
    plans = store.plans()
    if plan is not None:
        plans = tuple(p for p in plans if p.name == plan)
        if not plans:
            raise StoreError(f"{store.root}: has no plan {plan!r}; it has: {listed(p.name for p in store.plans())}")
    done = {r.id: r for r in store.records()}
    failures = {f.id: f for f in store.failures()}
    states: dict[str, ExperimentState] = {}
    for stored in plans:
        for spec in stored.specs:
            if spec.id in done:
                states[spec.id] = ExperimentState(spec, "done")
            elif spec.id in failures:
                states[spec.id] = ExperimentState(spec, "failed", failures[spec.id].reason)
            else:
                states[spec.id] = ExperimentState(spec, "missing")
    return PlanStatus(tuple(states.values()), tuple(store.problems))


# Inside


class _Run:
    """Turns the engine's events into the store's failures and the caller's events."""

    def __init__(self, store: Store, todo: Sequence[ExperimentSpec], on_event: Callable[[RunEvent], None]) -> None:
        self.store = store
        self.specs = {s.id: s for s in todo}
        self.finished: list[ExperimentSpec] = []
        self.failed: list[Failure] = []
        self._on_event = on_event
        self._start = time.monotonic()
        self._started: dict[str, str] = {}

    def log(self, spec: ExperimentSpec) -> Path:
        return self.store.scratch.absolute() / f"{spec.id}.log"

    def handle(self, event: Event) -> None:
        spec = self.specs[event.id]
        match event:
            case Started():
                self._started[spec.id] = datetime.now(UTC).isoformat(timespec="seconds")
                self._tell(event, _title(spec))
            case Progressed(stage=stage):
                self._tell(event, f"{_title(spec)}: {stage}")
            case Restarted(reason=reason):
                self._tell(event, f"{_title(spec)}: {reason}")
            case Finished():
                self._finish(spec, event)
            case Failed():
                # Killed after its result was in its place: that is a result.
                if spec.id in self.store:
                    self._finish(spec, Finished(event.id, event.seconds))
                    return
                if event.error == StoreWriteError.__name__:
                    # Nothing that is still to come could be kept either.
                    raise StoreWriteError(event.reason)
                failure = Failure(
                    id=spec.id,
                    spec=spec,
                    kind=event.kind,
                    reason=event.reason,
                    detail=event.detail,
                    started=self._started.get(spec.id, ""),
                    seconds=event.seconds,
                )
                self.store.write_failure(failure)
                self.failed.append(failure)
                self.log(spec).unlink(missing_ok=True)
                where = f"; details: {self.store.traceback_path(spec.id)}" if event.detail else ""
                self._tell(event, f"{_title(spec)}: {event.reason}{where}")

    def _finish(self, spec: ExperimentSpec, event: Finished) -> None:
        self.finished.append(spec)
        self.log(spec).unlink(missing_ok=True)
        self._tell(event, f"{_title(spec)}: {event.seconds:.1f} s")

    def _tell(self, event: Event, message: str) -> None:
        ended, wanted = len(self.finished) + len(self.failed), len(self.specs)
        eta = (time.monotonic() - self._start) / ended * (wanted - ended) if ended else None
        self._on_event(ExperimentEvent(self.specs[event.id], event, message, ended, wanted, eta))


def _title(spec: ExperimentSpec) -> str:
    return f"{spec.label} on {spec.category}, seed {spec.seed}"


def _stored(expanded: ExpandedPlan) -> StoredPlan:
    plan = expanded.plan
    content = plan.content.model_dump(mode="json")
    for entry, name in zip(content["datasets"], expanded.datasets, strict=True):
        entry["name"] = name  # which may come from the folder: with the name kept, moved data is the same data
        entry["path"] = str((plan.base / Path(entry["path"]).expanduser()).absolute())
    return StoredPlan(
        name=plan.name,
        title=plan.content.title,
        source=plan.source,
        content=content,
        base=str(plan.base.absolute()),
        seeds=plan.content.seeds,
        datasets=tuple(
            StoredDataset(name=d.name, path=str(d.root), layout=d.layout, categories=tuple(d.categories))
            for d in expanded.datasets.values()
        ),
        specs=expanded.specs,
        code=foreign_code(plan, seal=True),
    )
