"""A store's content arranged as tables need it: data sets, categories (rows), methods (columns), runs (seeds)."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from andon.benchmark import ExperimentRecord, ExperimentSpec, Failure, Protocol, Store, Summary, summarise
from andon.core import StoreError, listed

__all__ = ["Column", "DatasetResults", "Results", "Row", "Runs", "arrange", "collect", "plain"]


def plain(text: str, limit: int = 200) -> str:
    """Text that no terminal, page or file can take for a command: names come from folders that anybody may have named.

    Control, format (bidirectional overrides), line-breaking and surrogate characters become "�"; longer texts end in
    "…".
    """
    clean = "".join("�" if unicodedata.category(c).startswith(("C", "Zl", "Zp")) else c for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


@dataclass(frozen=True)
class Column:
    """A method with its configuration and protocol: what is averaged over seeds.

    Attributes:
        key: identifies it within the report.
        label: what tables call it; unique within its data set.
        method: registered name or ``path/to/file.py:Class``.
        spec: one of its experiments.
        random_weights: parts that ran on random weights, e.g. "resnet18 (orthogonal, seed 0)".
    """

    key: str
    label: str
    method: str
    spec: ExperimentSpec = field(repr=False)
    random_weights: tuple[str, ...] = ()

    @property
    def protocol(self) -> Protocol:
        return self.spec.protocol

    @property
    def shortened(self) -> str:
        """Part of the training's length that was trained, as "2 %"; "" for a full one (``Config.budget``)."""
        budget = self.spec.config.get("budget", 1)
        shortened = isinstance(budget, int | float) and 0 < budget < 1
        return f"{100 * budget:.3g} %" if shortened else ""


@dataclass(frozen=True)
class Row:
    """A category: one inspection task."""

    key: str
    label: str
    category: str
    data_fingerprint: str


@dataclass(frozen=True)
class Runs:
    """All runs of one method on one category, by seed.

    Attributes:
        records: those with a result.
        failures: those that have none.
        pending: planned but not run yet.
    """

    records: tuple[ExperimentRecord, ...] = ()
    failures: tuple[Failure, ...] = ()
    pending: int = 0

    @property
    def expected(self) -> int:
        """Runs asked for."""
        return len(self.records) + len(self.failures) + self.pending

    @property
    def exact(self) -> bool:
        """Whether the seed changes nothing: one run then stands for all."""
        return bool(self.records) and not any(r.seeded for r in self.records)

    def values(self, read: Callable[[ExperimentRecord], float | None]) -> dict[int, float | None]:
        """A figure by seed; None where it is undefined or not finite."""
        values = {r.spec.seed: read(r) for r in self.records}
        return {s: v if v is not None and math.isfinite(v) else None for s, v in values.items()}

    def summary(self, read: Callable[[ExperimentRecord], float | None], ddof: int = 0) -> Summary:
        """Mean and variance of a figure over the runs that have a result."""
        return summarise(self.values(read).values(), exact=self.exact, ddof=ddof)


@dataclass(frozen=True)
class DatasetResults:
    """All results of one data set.

    Attributes:
        name: the data set's.
        rows: its categories, in the plans' order.
        columns: methods, in the plans' order.
        runs: by (row key, column key); a pair that no plan asks for is not in it.
    """

    name: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    runs: Mapping[tuple[str, str], Runs] = field(repr=False)

    def get(self, row: Row, column: Column) -> Runs:
        """The runs of a cell; empty where no plan asks for any."""
        return self.runs.get((row.key, column.key), Runs())

    @property
    def records(self) -> list[ExperimentRecord]:
        """All results, by row, column and seed."""
        return [r for row in self.rows for column in self.columns for r in self.get(row, column).records]

    @property
    def skipped(self) -> str:
        """Images that experiments ran without because they cannot be read, "bolt: test/good/001"; "" for none."""
        by_category = {r.spec.category: r.skipped for r in self.records if r.skipped}
        return "; ".join(f"{category}: {listed(ids)}" for category, ids in by_category.items())

    @property
    def failures(self) -> list[Failure]:
        """All failures, by row, column and seed."""
        return [f for row in self.rows for column in self.columns for f in self.get(row, column).failures]


@dataclass(frozen=True)
class Results:
    """All results of a store, by data set.

    Attributes:
        datasets: in the plans' order.
        titles: of the plans that were run.
        problems: one line for every entry that could not be read.
    """

    datasets: tuple[DatasetResults, ...]
    titles: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def records(self) -> list[ExperimentRecord]:
        return [r for d in self.datasets for r in d.records]

    @property
    def failures(self) -> list[Failure]:
        return [f for d in self.datasets for f in d.failures]


def collect(store: Store) -> Results:
    """Reads the results, failures and plans of a store.

    Results are averaged over seeds only where all else is equal: a label that stands for several configurations is
    split into several columns, a category whose data changed into several rows.

    Raises:
        StoreError: the store has neither a result nor a failure.
    """
    records, failures, specs = store.records(), store.failures(), store.specs()
    if not records and not failures:
        broken = f" ({len(store.problems)} damaged entries: {store.problems[0]})" if store.problems else ""
        raise StoreError(f"no finished experiments in {store.root}{broken}; run a plan first: andon bench run PLAN")
    titles = tuple(dict.fromkeys(plain(plan.title or plan.name) for plan in store.plans()))
    return Results(arrange(specs, records, failures), titles, tuple(plain(p, 400) for p in store.problems))


def arrange(
    specs: Iterable[ExperimentSpec], records: Sequence[ExperimentRecord], failures: Sequence[Failure] = ()
) -> tuple[DatasetResults, ...]:
    """Arranges experiments by data set, category and method.

    Args:
        specs: those that were planned, in the order of rows and columns.
        records, failures: what became of them.
    """
    done = {r.id for r in records} | {f.id for f in failures}
    cells: dict[str, dict[tuple[str, str], _Cell]] = {}
    rows: dict[str, dict[str, ExperimentSpec]] = {}
    columns: dict[str, dict[str, ExperimentSpec]] = {}

    def cell(spec: ExperimentSpec) -> _Cell:
        row, column = _row_key(spec), _column_key(spec)
        rows.setdefault(spec.dataset, {}).setdefault(row, spec)
        columns.setdefault(spec.dataset, {}).setdefault(column, spec)
        return cells.setdefault(spec.dataset, {}).setdefault((row, column), _Cell())

    for spec in specs:
        here = cell(spec)
        here.pending += spec.id not in done
    for record in records:
        cell(record.spec).records.append(record)
    for failure in failures:
        cell(failure.spec).failures.append(failure)
    random_weights = _random_weights(records)
    return tuple(
        DatasetResults(
            name,
            _rows(rows[name]),
            _columns(columns[name], random_weights),
            {key: found.runs() for key, found in cells[name].items()},
        )
        for name in cells
    )


@dataclass
class _Cell:
    """A cell being filled."""

    records: list[ExperimentRecord] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    pending: int = 0

    def runs(self) -> Runs:
        return Runs(
            tuple(sorted(self.records, key=lambda r: r.spec.seed)),
            tuple(sorted(self.failures, key=lambda f: f.spec.seed)),
            self.pending,
        )


def _row_key(spec: ExperimentSpec) -> str:
    return _short_hash("row", spec.dataset, spec.category, spec.data_fingerprint)


def _column_key(spec: ExperimentSpec) -> str:
    """What must be equal for two experiments to be averaged over seeds, and their label."""
    variant = spec.model_copy(update={"seed": 0, "category": "", "data_fingerprint": "", "dataset": ""})
    return _short_hash("column", spec.label, variant.id)


def _short_hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def _rows(found: Mapping[str, ExperimentSpec]) -> tuple[Row, ...]:
    count = Counter(spec.category for spec in found.values())
    rows = []
    for key, spec in found.items():
        suffix = f" [data {plain(spec.data_fingerprint, 8)}]" if count[spec.category] > 1 else ""
        rows.append(Row(key, plain(spec.category) + suffix, spec.category, spec.data_fingerprint))
    return tuple(rows)


def _columns(found: Mapping[str, ExperimentSpec], random_weights: Mapping[str, Sequence[str]]) -> tuple[Column, ...]:
    count = Counter(spec.label for spec in found.values())
    columns = []
    for key, spec in found.items():
        label = plain(spec.label) + (f" [{key}]" if count[spec.label] > 1 else "")
        columns.append(Column(key, label, spec.method, spec, tuple(random_weights.get(key, ()))))
    return tuple(columns)


def _random_weights(records: Iterable[ExperimentRecord]) -> dict[str, list[str]]:
    """Parts on random weights by column, as "part (name)"."""
    found: dict[str, list[str]] = {}
    for record in records:
        parts = found.setdefault(_column_key(record.spec), [])
        for weights in record.weights:
            if weights.get("pretrained") is False:
                text = plain(f"{weights.get('part', '?')} ({weights.get('name', '?')})")
                if text not in parts:
                    parts.append(text)
    return found
