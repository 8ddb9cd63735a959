"""What a plan would cost: experiments in the store say it, or a few timed steps of each method.

An experiment takes what one of the same method, options and protocol took in the store, on the same kind of device: of
the same category as it was, of another one in proportion to its images. Where there is none, a process of its own times
a short fit and the evaluation of eight images on the first category. Features that seeds and methods share are counted
for each experiment: a run takes less.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from andon.benchmark.engine import Job, LocalEngine
from andon.benchmark.events import Event, Failed
from andon.benchmark.expansion import ExpandedPlan, expand
from andon.benchmark.judge import evaluate
from andon.benchmark.plan import Plan
from andon.benchmark.record import ExperimentRecord, ExperimentSpec
from andon.benchmark.runner import draw_shots, peak_memory_mb, training_images
from andon.benchmark.store import Store
from andon.core import Category, ProgressCallback, Sample, canonical_json, no_progress
from andon.data import placed
from andon.methods import FitRun, recorded_method, time_fit

__all__ = ["PlanEstimate", "RowEstimate", "estimate_plan"]

TRIAL_IMAGES = 8
TRIAL_TIMEOUT = 600.0


@dataclass(frozen=True)
class Cost:
    """Of one experiment.

    Attributes:
        fit, rest: seconds of fitting (calibration folds included), and of all else.
        memory_mb: peak of its process, MiB.
        n_train, n_test: images that it is of.
        basis: where it comes from, for people.
    """

    fit: float
    rest: float
    memory_mb: float
    n_train: int
    n_test: int
    basis: str

    def scaled(self, n_train: int, n_test: int) -> float:
        """Seconds for another number of images."""
        return self.fit * n_train / max(1, self.n_train) + self.rest * n_test / max(1, self.n_test)


@dataclass(frozen=True)
class RowEstimate:
    """A method on a category.

    Attributes:
        done, failed, missing: experiments of the plan in each state; failed ones are tried again.
        seconds: estimate for one experiment; None where none can be given.
        memory_mb: peak memory of one, MiB; None likewise.
        basis: what the estimate stands on, or why there is none.
    """

    dataset: str
    category: str
    label: str
    done: int
    failed: int
    missing: int
    seconds: float | None
    memory_mb: float | None
    basis: str


@dataclass(frozen=True)
class PlanEstimate:
    """What is left of a plan, and what it would cost.

    Attributes:
        rows: in the order of the plan's experiments.
        jobs: experiments at a time that ``wall_seconds`` reckons with.
    """

    rows: tuple[RowEstimate, ...]
    jobs: int

    @property
    def todo(self) -> int:
        """Experiments that a run would do."""
        return sum(row.failed + row.missing for row in self.rows)

    @property
    def unknown(self) -> int:
        """Those of them without an estimate."""
        return sum(row.failed + row.missing for row in self.rows if row.seconds is None)

    @property
    def seconds(self) -> float:
        """Of all experiments to be done, one after the other, as far as it is known."""
        return sum((row.failed + row.missing) * (row.seconds or 0.0) for row in self.rows)

    @property
    def wall_seconds(self) -> float:
        """With ``jobs`` at a time."""
        left = self.todo - self.unknown
        return self.seconds / max(1, min(self.jobs, left))

    @property
    def memory_mb(self) -> float:
        """Of the ``jobs`` largest experiments at a time, MiB."""
        sizes = [row.memory_mb or 0.0 for row in self.rows for _ in range(row.failed + row.missing)]
        return sum(sorted(sizes, reverse=True)[: self.jobs])


def estimate_plan(
    plan: Plan,
    store_dir: str | Path,
    *,
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    progress: ProgressCallback = no_progress,
) -> PlanEstimate:
    """What a run of the plan into the store would do and cost. Nothing is written.

    Args:
        plan: the plan, with its data.
        store_dir: the store's folder, which need not be there.
        jobs, threads, device: see ``run_plan``.
        progress: stages "fingerprint", then "timed steps", one step a method.

    Raises:
        AndonError: the plan or its data is not right; the folder is something else than a store.
    """
    expanded = expand(plan, progress=progress)
    engine = LocalEngine(1 if jobs is None and device != "cpu" else jobs, threads)
    known = _Known(store_dir, device)
    groups: dict[tuple[str, str, str], list[ExperimentSpec]] = {}
    for spec in expanded.specs:
        groups.setdefault((spec.dataset, spec.category, spec.label), []).append(spec)
    costs = _trials(expanded, [s for s in expanded.specs if s.id not in known.done], known, engine, device, progress)
    rows = []
    for (dataset, category, label), specs in groups.items():
        done = sum(s.id in known.done for s in specs)
        failed = sum(s.id in known.failed for s in specs)
        seconds, memory, basis = None, None, ""
        if done < len(specs):
            cost = known.cost(specs[0]) or costs[_variant(specs[0])]
            if isinstance(cost, Cost):
                images = expanded.category(specs[0])
                n_train = len(images.train) if specs[0].protocol.shots is None else specs[0].protocol.shots
                seconds, memory, basis = cost.scaled(n_train, len(images.test)), cost.memory_mb, cost.basis
            else:
                basis = cost
        rows.append(
            RowEstimate(dataset, category, label, done, failed, len(specs) - done - failed, seconds, memory, basis)
        )
    assert engine.jobs is not None
    return PlanEstimate(tuple(rows), engine.jobs)


class _Known:
    """What a store says of experiments, done and failed."""

    def __init__(self, store_dir: str | Path, device: str) -> None:
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self._records: dict[str, list[ExperimentRecord]] = {}
        if not Store.is_at(store_dir):
            return
        store = Store(store_dir)
        self.done = {i for i in store.ids() if i in store}
        self.failed = {failure.id for failure in store.failures()} - self.done
        for record in store.records(everything=True):
            if (record.hardware.device == "cpu") == (device == "cpu"):
                self._records.setdefault(_variant(record.spec), []).append(record)

    def cost(self, spec: ExperimentSpec) -> Cost | None:
        """From experiments that differ in nothing but the seed, or the category."""
        alike = self._records.get(_variant(spec), [])
        same = [r for r in alike if r.spec.data_fingerprint == spec.data_fingerprint]
        chosen = same or alike
        if not chosen:
            return None
        whole = [r for r in chosen if not r.features_cached] or chosen
        fits = [r.fit_seconds.get("total", 0.0) + (r.calibration_seconds or 0.0) for r in whole]
        other = "" if same else " of other categories"
        return Cost(
            fit=_mean(fits),
            rest=_mean([r.seconds - fit for r, fit in zip(whole, fits, strict=True)]),
            memory_mb=max(r.peak_memory_mb for r in chosen),
            n_train=round(_mean([r.n_train for r in whole])),
            n_test=round(_mean([r.evaluation.image.n_good + r.evaluation.image.n_defective for r in whole])),
            basis=f"{len(whole)} in the store{other}",
        )


def _variant(spec: ExperimentSpec) -> str:
    """What two experiments share that cost the same a image."""
    return canonical_json([spec.method, spec.config, spec.protocol.model_dump(mode="json"), spec.code_fingerprint])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# Timed steps


@dataclass(frozen=True)
class _Trial:
    spec: ExperimentSpec
    reference: str
    category: Category = field(repr=False)
    device: str
    result: Path


def _trials(
    expanded: ExpandedPlan,
    todo: Iterable[ExperimentSpec],
    known: _Known,
    engine: LocalEngine,
    device: str,
    progress: ProgressCallback,
) -> dict[str, Cost | str]:
    """For each kind of experiment that the store does not know: what it costs, or why that cannot be told."""
    first: dict[str, ExperimentSpec] = {}
    for spec in todo:
        if known.cost(spec) is None:
            first.setdefault(_variant(spec), spec)
    costs: dict[str, Cost | str] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = {}
        for number, (variant, spec) in enumerate(first.items()):
            result = Path(folder) / f"{number}.json"
            trial = _Trial(spec, expanded.references[spec.id], expanded.category(spec), device, result)
            job = Job(str(number), run_trial, (trial,), log=Path(folder) / f"{number}.log", timeout=TRIAL_TIMEOUT)
            work[job.id] = variant, trial, job

        def on_event(event: Event) -> None:
            variant, trial, _ = work[event.id]
            if isinstance(event, Failed):
                costs[variant] = f"no estimate: {event.reason}"
            elif trial.result.is_file():
                costs[variant] = Cost(**json.loads(trial.result.read_text(encoding="utf-8")))
            progress("timed steps", len(costs), len(work))

        # One at a time: what runs beside it would be timed, too.
        one = LocalEngine(1, engine.threads, preload=("andon.benchmark.runner",))
        one.run([job for _, _, job in work.values()], on_event)
    return costs


def run_trial(trial: _Trial, progress: ProgressCallback) -> None:
    """Runs in a process of its own; writes a ``Cost`` as JSON."""
    category, spec = trial.category, trial.spec
    placed(category, None)
    train = draw_shots(category.train, spec.protocol.shots, spec.seed, category.name)
    method = recorded_method(trial.reference, spec.config)
    timed = time_fit(method, training_images(train, method, spec, None), run=FitRun(trial.device, progress))
    some = _some(category.test)
    start = time.perf_counter()
    evaluate(timed.detector, some, fpr_limits=spec.protocol.fpr_limits)
    rest = (time.perf_counter() - start) / len(some) * len(category.test)
    folds = min(spec.protocol.calibration_folds, len(train))
    cost = {
        "fit": timed.seconds * (1 + max(0, folds - 1)),
        "rest": rest,
        "memory_mb": peak_memory_mb(),
        "n_train": len(train),
        "n_test": len(category.test),
        "basis": "timed steps",
    }
    trial.result.write_text(json.dumps(cost), encoding="utf-8")


def _some(test: Sequence[Sample]) -> tuple[Sample, ...]:
    """A few test images, half of them good."""
    good = [s for s in test if s.defect_type == "good"][: TRIAL_IMAGES // 2]
    defective = [s for s in test if s.defect_type != "good"][: TRIAL_IMAGES // 2]
    return (*good, *defective)
