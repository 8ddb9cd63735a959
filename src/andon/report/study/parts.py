"""The store's content as the study's parts: what each plan asked for and what became of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from andon.benchmark import ExperimentRecord, ExperimentSpec, Failure, Fused, Store, StudyPlan, StudyProtocol, fuse
from andon.core import AndonError, Dataset, ProgressCallback, StoreError
from andon.data import load_dataset
from andon.evaluation import EvaluationArrays
from andon.report.metrics import Metric, image_metrics
from andon.report.results import Column, DatasetResults, Runs, arrange, plain
from andon.report.tables import is_autovi

__all__ = ["Part", "Study", "Window", "experiment_ids", "first_run", "mean_by_category", "read_study"]

_ID = re.compile(r"\b[0-9a-f]{16}\b")
_FUSION = "late-fusion"
"""The method of an ensemble's record."""
_MOST_NAMED = 3
"""Members that an ensemble is called by; more of them are in a note."""
_SIZE = re.compile(r"(\d+)×(\d+)")
Window = tuple[int, int]
"""(width, height)."""


@dataclass(frozen=True)
class Part:
    """A part of the study.

    Attributes:
        plan: what it is.
        datasets: what the store has of it, in the plan's order; empty where it was not run.
    """

    plan: StudyPlan
    datasets: tuple[DatasetResults, ...] = ()

    @property
    def missing(self) -> str:
        """Why there is nothing of it; "" where there is."""
        if not self.datasets:
            return f"the plan {self.plan.name} was not run in this store"
        if not any(results.records for results in self.datasets):
            failed = sum(len(results.failures) for results in self.datasets)
            return f"no experiment of the plan {self.plan.name} has a result" + (
                f" ({failed} failed)" if failed else ""
            )
        return ""

    @property
    def main(self) -> DatasetResults:
        """Its first data set."""
        return self.datasets[0]


@dataclass
class Study:
    """All that the results section is made from.

    Attributes:
        store: the benchmark's.
        protocol: how figures are read.
        parts: by name ("study", "table11", …).
        fused: the ensembles' results, arranged like the main data set's.
        fusion_rule: how the ensembles were chosen, and what they are called.
        fusion_missing: what there is not of them, one line each.
        problems: what could not be read, one line each.
    """

    store: Store
    protocol: StudyProtocol
    parts: dict[str, Part]
    fused: DatasetResults | None = None
    fusion_rule: tuple[str, ...] = ()
    fusion_missing: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)
    _arrays: dict[str, EvaluationArrays] = field(default_factory=dict, repr=False)

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """The metrics by name, read as the protocol has them."""
        metrics = image_metrics()
        if self.protocol.ap != "step-wise":
            metrics["ap"] = replace(metrics["ap"], read=self._ap)
        if self.protocol.tnr != "at least":
            for percent in ("99", "95", "90"):
                name = f"tpr_at_tnr_{percent}"
                metrics[name] = replace(metrics[name], read=self._tpr_reader(int(percent) / 100))
        return metrics

    def _ap(self, record: ExperimentRecord) -> float | None:
        arrays = self.arrays(record.id)
        return None if arrays is None else self.protocol.average_precision(arrays.image_scores, arrays.labels())

    def _tpr_reader(self, tnr: float) -> Callable[[ExperimentRecord], float | None]:
        def read(record: ExperimentRecord) -> float | None:
            arrays = self.arrays(record.id)
            return None if arrays is None else self.protocol.tpr_at_tnr(arrays.image_scores, arrays.labels(), tnr)

        return read

    def arrays(self, experiment_id: str) -> EvaluationArrays | None:
        """Scores of an experiment or an ensemble; None, and a problem, where they cannot be read."""
        if experiment_id not in self._arrays:
            try:
                self._arrays[experiment_id] = self.store.arrays(experiment_id)
            except AndonError as error:
                problem = plain(str(error), 400)
                if problem not in self.problems:
                    self.problems.append(problem)
                return None
        return self._arrays[experiment_id]

    def part(self, name: str) -> Part | None:
        """A part; None where the caller left it out."""
        return self.parts.get(name)

    def missing(self, name: str) -> str:
        """Why there is nothing of a part; "" where there is."""
        part = self.part(name)
        return f"the part {name} of the study was not asked for" if part is None else part.missing

    @property
    def main(self) -> DatasetResults:
        """The main part's data set."""
        return self.parts["study"].main

    @property
    def on_autovi(self) -> bool:
        """Whether the study's figures are of the same images."""
        return is_autovi(self.main.name)

    @property
    def has_main(self) -> bool:
        return not self.missing("study")

    def dataset(self, results: DatasetResults) -> Dataset | None:
        """A data set from the folder where it lay when it was last run; None where that cannot be read."""
        for part in self.parts.values():
            stored = self.store.plan(part.plan.name)
            for entry in stored.datasets if stored is not None else ():
                if entry.name == results.name:
                    try:
                        return load_dataset(entry.path, entry.layout, entry.name, entry.categories)
                    except (AndonError, OSError):
                        return None
        return None

    def window(self, results: DatasetResults) -> Window | None:
        """The size of a data set's windows, by its name; None for whole images."""
        found = _SIZE.search(results.name)
        return None if found is None else (int(found[1]), int(found[2]))


def experiment_ids(runs: Iterable[Runs]) -> tuple[str, ...]:
    """Ids of the experiments behind a figure; of an ensemble those of its members."""
    ids: dict[str, None] = {}
    for run in runs:
        for record in run.records:
            members = _ID.findall(" ".join(record.notes)) if record.spec.method == _FUSION else [record.id]
            ids.update(dict.fromkeys(members))
    return tuple(ids)


def read_study(
    store: Store,
    plans: Sequence[StudyPlan],
    protocol: StudyProtocol,
    ensembles: Sequence[Sequence[str]] | None,
    progress: ProgressCallback,
) -> Study:
    """Reads what a store has of the study's parts.

    Args:
        ensembles: labels of the members of each; None for those that the rule gives (``_chosen``).
        progress: stages "reading", "late fusion".

    Raises:
        StoreError: nothing of any part has a result.
    """
    progress("reading", 0, 1)
    records = {r.id: r for r in store.records(everything=True)}
    failures = {f.id: f for f in store.failures()}
    parts = {}
    for plan in plans:
        stored = store.plan(plan.name)
        parts[plan.part] = Part(plan, () if stored is None else _arranged(stored.specs, records, failures))
    if not any(not part.missing for part in parts.values()):
        names = ", ".join(plan.name for plan in plans)
        raise StoreError(f"{store.root}: has no result of the study's plans ({names}); run them first")
    study = Study(store, protocol, parts, problems=[plain(p, 400) for p in store.problems])
    progress("reading", 1, 1)
    if study.has_main:
        _fuse(study, ensembles, progress)
    return study


def _arranged(
    specs: Iterable[ExperimentSpec], records: dict[str, ExperimentRecord], failures: dict[str, Failure]
) -> tuple[DatasetResults, ...]:
    """A plan's experiments, under the plan's own labels."""
    specs = list({spec.id: spec for spec in specs}.values())
    found = [records[s.id].model_copy(update={"spec": s}) for s in specs if s.id in records]
    failed = [failures[s.id].model_copy(update={"spec": s}) for s in specs if s.id in failures and s.id not in records]
    return arrange(specs, found, failed)


def _fuse(study: Study, ensembles: Sequence[Sequence[str]] | None, progress: ProgressCallback) -> None:
    chosen, notes = _chosen(study.main) if ensembles is None else ([tuple(e) for e in ensembles], [])
    dataset = study.dataset(study.main)
    given = {} if dataset is None else {study.main.name: dataset}
    records: list[ExperimentRecord] = []
    missing: list[str] = []
    for number, labels in enumerate(chosen):
        progress("late fusion", number, len(chosen))
        name = None
        if len(labels) > _MOST_NAMED:
            name = f"Late fusion {number + 1} ({len(labels)} methods)"
            notes.append(f"{name}: {', '.join(labels)}.")
        fused: Fused = fuse(study.store, labels, name=name, records=study.main.records, datasets=given)
        records += fused.records()
        study._arrays |= fused.arrays()
        missing += [plain(why, 400) for why in fused.missing]
    progress("late fusion", len(chosen), len(chosen))
    study.fusion_rule, study.fusion_missing = tuple(notes), tuple(missing)
    if records:
        study.fused = arrange((r.spec for r in records), records)[0]


def _chosen(results: DatasetResults) -> tuple[list[tuple[str, ...]], list[str]]:
    """Ensembles by a rule that no result enters, and what the rule is."""
    held_out = [
        c.spec.label
        for c in results.columns
        if c.protocol.calibration_folds and c.method != "thumbnail-nn" and _has(results, c)
    ]
    if len(held_out) < 2:
        why = "fewer than two methods (the trivial floor apart) have scores of held-out training images"
        return [], [f"No late fusion: {why} (calibration_folds)."]
    rule = "Late fusion: all methods with scores of held-out training images together, the trivial floor apart"
    chosen = [tuple(held_out)]
    if len(held_out) == 3:
        rule += ", and every pair of the three"
        chosen += [(a, b) for i, a in enumerate(held_out) for b in held_out[i + 1 :]]
    return chosen, [f"{rule}; chosen by no result. They take no part in the best sets."]


def _has(results: DatasetResults, column: Column) -> bool:
    return any(results.get(row, column).records for row in results.rows)


def mean_by_category(study: Study, column: Column, metric: Metric) -> dict[str, float | None]:
    """A method's mean figure by category of the main data set, as the metric reads it."""
    means: dict[str, float | None] = {}
    for row in study.main.rows:
        means[row.label] = study.main.get(row, column).summary(metric.read).mean
    return means


def first_run(runs: Runs) -> ExperimentRecord | None:
    """The run of the lowest seed: what stands for one test set where seeds must not be mixed."""
    return runs.records[0] if runs.records else None
