"""The study's tables from a store: rows are inspection tasks, columns methods, cells mean ± deviation over the seeds.

As in Carvalho et al. 2024 (Tables 6–10): figures in %, one decimal; a Mean row (mean over the tasks ± standard
deviation across them); the best set of every row by Welch's t-test at 5 % (``andon.benchmark.statistics``). Where the
data set is AutoVI the study's own figures stand beside the measured ones. What is missing is said in its cell: a figure
from fewer runs than planned carries "2/3", a method without any "failed" or "not run".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from andon.benchmark import Store, Summary, published
from andon.report.cells import TableCell, mark_best, mean_cell, measured_cell, not_comparable, published_beside
from andon.report.metrics import (
    Metric,
    Source,
    aupro,
    auspro,
    defect_auroc,
    defect_auspro,
    image_metrics,
    point_metric,
)
from andon.report.reasons import reason_notes
from andon.report.results import Column, DatasetResults, Results, Row, Runs, collect, plain

__all__ = [
    "RANDOM_WEIGHTS",
    "RowGroup",
    "Table",
    "TableCell",
    "TableRow",
    "build_tables",
    "category_tables",
    "is_autovi",
    "make_tables",
    "primary_limit",
    "published_text",
    "random_weights",
    "shortened_training",
]

RANDOM_WEIGHTS = "Random weights"
"""Start of the note that names the methods that ran on them."""


@dataclass(frozen=True)
class TableRow:
    """A row of cells, one a column of the table."""

    label: str
    cells: tuple[TableCell, ...]
    is_mean: bool = False


@dataclass(frozen=True)
class RowGroup:
    """Rows of one metric."""

    metric: Metric
    rows: tuple[TableRow, ...]


@dataclass(frozen=True)
class Table:
    """A table, to be rendered by ``andon.report.renderers``.

    Attributes:
        name: file name without suffix, unique within a report.
        title: what it shows.
        dataset: of which data set.
        stub: what the rows are ("Task").
        columns: labels of the methods.
        groups: rows by metric.
        notes: to be printed under it.
        study_table: its number in the study; None if it has none there.
        detail: shown folded in the page.
    """

    name: str
    title: str
    dataset: str
    columns: tuple[str, ...]
    groups: tuple[RowGroup, ...]
    notes: tuple[str, ...] = ()
    stub: str = "Task"
    study_table: int | None = None
    detail: bool = False
    dataset_key: str = ""
    """The data set's name as it is in the store."""

    @property
    def cells(self) -> list[TableCell]:
        return [cell for group in self.groups for row in group.rows for cell in row.cells]

    @property
    def has_published(self) -> bool:
        return any(cell.published is not None for cell in self.cells)


def is_autovi(dataset: str) -> bool:
    """Whether the study's figures belong beside those of a data set of this name."""
    return dataset.strip().casefold() == "autovi"


def primary_limit(results: DatasetResults) -> float:
    """The pixel-FPR limit of the tables: the first one of the protocols."""
    return next((column.protocol.fpr_limits[0] for column in results.columns), 0.05)


def make_tables(store: Store) -> list[Table]:
    """All tables of a store, data set by data set.

    Raises:
        AndonError: nothing has finished in the store.
    """
    return build_tables(collect(store))


def build_tables(results: Results) -> list[Table]:
    """All tables of collected results."""
    tables: list[Table] = []
    for index, dataset in enumerate(results.datasets):
        prefix = "" if len(results.datasets) == 1 else f"{_slug(dataset.name) or 'dataset'}-{index + 1}-"
        tables += _dataset_tables(dataset, prefix)
    return tables


def _dataset_tables(results: DatasetResults, prefix: str) -> list[Table]:
    metrics = image_metrics()
    limit = primary_limit(results)
    targets = ("99", "95", "90")
    tables = [
        _table(results, f"{prefix}auroc", "Image-level detection: AUROC (%)", [metrics["auroc"]], study=6),
        _table(results, f"{prefix}ap", "Image-level detection: average precision (%)", [metrics["ap"]], study=7),
        _table(
            results,
            f"{prefix}tpr-at-tnr",
            "Defective images found (TPR, %) when 99, 95 and 90 % of the good ones pass",
            [metrics[f"tpr_at_tnr_{t}"] for t in targets],
            study=8,
            notes=("Thresholds are set on the test set's own good images.",),
        ),
        _table(
            results,
            f"{prefix}train-threshold",
            "Threshold set on good training images alone: error rates on the test set (%)",
            [
                replace(metrics[f"{rate}_train_good_{t}"], title=f"{rate.upper()}, threshold set for TNR {t} %")
                for t in targets
                for rate in ("fpr", "fnr")
            ],
            notes=(
                "Thresholds come from scores of training images by models that did not see them. "
                "FPR: good images that alarm (promised: 100 % − TNR). FNR: defective images that pass.",
            ),
        ),
        _table(results, f"{prefix}auspro", f"Localisation: AUsPRO to a pixel FPR of {limit:g} (%)", [auspro(limit)], 9),
        _table(
            results,
            f"{prefix}speed",
            "Training time (s), prediction speed (images a second), peak memory (MiB)",
            [metrics["training_seconds"], metrics["images_per_second"], metrics["peak_memory_mb"]],
            study=10,
        ),
    ]
    others, region_limits = _other_limits(results, limit)
    more = [auspro(other) for other in others] + [aupro(other) for other in region_limits]
    more += [metrics["pixel_auroc"], metrics["pixel_ap"]]
    tables.append(
        _table(results, f"{prefix}localisation", "Localisation: other measures (%)", more, detail=True),
    )
    tables.append(_table(results, f"{prefix}best-f1", "Best F1 (%)", [metrics["best_f1"]], detail=True))
    optional = {f"{prefix}train-threshold", f"{prefix}localisation", f"{prefix}auspro", f"{prefix}best-f1"}
    return [t for t in tables if t.name not in optional or any(cell.summary is not None for cell in t.cells)]


def _other_limits(results: DatasetResults, primary: float) -> tuple[list[float], list[float]]:
    """Limits of AUsPRO beside the tables' and of AUPRO, ascending."""
    found: set[float] = set()
    regions: set[float] = set()
    for record in results.records:
        if record.evaluation.localisation is not None:
            found |= record.evaluation.localisation.auspro.keys()
            regions |= record.evaluation.localisation.aupro.keys()
    return sorted(found - {primary}), sorted(regions)


def category_tables(results: DatasetResults, row: Row) -> list[Table]:
    """The tables of one task: by defect type, and operating points; those that have a figure."""
    tables = [_defect_types(results, row), _operating_points(results, row)]
    return [table for table in tables if any(cell.summary is not None for cell in table.cells)]


def _defect_types(results: DatasetResults, row: Row) -> Table:
    limit = primary_limit(results)
    runs = [results.get(row, column) for column in results.columns]
    counts: dict[str, int] = {}
    for found in runs:
        for record in found.records:
            for defect_type, metrics in record.evaluation.defect_types.items():
                counts[defect_type] = max(counts.get(defect_type, 0), metrics.n)
    families: tuple[Callable[[str], Metric], ...] = (defect_auroc, lambda name: defect_auspro(name, limit))
    groups = []
    for family in families:
        rows = tuple(
            TableRow(f"{plain(name)} ({count})", _row_cells(family(name), results.columns, runs, None))
            for name, count in sorted(counts.items())
        )
        if any(cell.summary is not None for r in rows for cell in r.cells):
            groups.append(RowGroup(family(""), rows))
    return _assemble(
        results,
        f"defect-types-{row.key}",
        f"{row.label}: by defect type (%)",
        groups,
        stub="Defect type (images)",
        notes=("Images of one defect type against all good ones.",),
    )


def _operating_points(results: DatasetResults, row: Row) -> Table:
    runs = [results.get(row, column) for column in results.columns]
    points: list[tuple[Source, str | None, str]] = []
    sources: dict[Source, str] = {"test good": "good test images", "train good": "good training images"}
    for source, where in sources.items():
        points += [(source, t, f"Set on {where}, TNR {t} %") for t in ("99", "95", "90")]
    points.append(("best F1", None, "Best F1 (set on the test set's labels)"))
    parts: tuple[tuple[Literal["fpr", "fnr", "threshold"], str], ...] = (
        ("fpr", "FPR: good images that alarm (%)"),
        ("fnr", "FNR: defective images that pass (%)"),
        ("threshold", "Threshold"),
    )
    groups = []
    for part, title in parts:
        rows = []
        for source, percent, label in points:
            cells = _row_cells(point_metric(source, percent, part), results.columns, runs, None)
            if any(cell.summary is not None for cell in cells):
                rows.append(TableRow(label, cells))
        if rows:
            groups.append(RowGroup(replace(point_metric("best F1", None, part), title=title, name=part), tuple(rows)))
    return _assemble(
        results, f"operating-points-{row.key}", f"{row.label}: operating points", groups, stub="Operating point"
    )


def _table(
    results: DatasetResults,
    name: str,
    title: str,
    metrics: Sequence[Metric],
    study: int | None = None,
    notes: tuple[str, ...] = (),
    detail: bool = False,
) -> Table:
    groups = [_group(results, metric) for metric in metrics]
    return _assemble(results, name, title, groups, notes=notes, study=study, detail=detail)


def _assemble(
    results: DatasetResults,
    name: str,
    title: str,
    groups: Sequence[RowGroup],
    *,
    stub: str = "Task",
    notes: tuple[str, ...] = (),
    study: int | None = None,
    detail: bool = False,
) -> Table:
    return Table(
        name=name,
        title=title,
        dataset=plain(results.name),
        columns=tuple(column.label for column in results.columns),
        groups=tuple(groups),
        notes=(*notes, *_notes(results, groups)),
        stub=stub,
        study_table=study,
        detail=detail,
        dataset_key=results.name,
    )


def _group(results: DatasetResults, metric: Metric) -> RowGroup:
    by_row = [[results.get(row, column) for column in results.columns] for row in results.rows]
    rows = []
    for row, runs in zip(results.rows, by_row, strict=True):
        category = row.category if is_autovi(results.name) else None
        rows.append(TableRow(row.label, _row_cells(metric, results.columns, runs, category)))
    if len(rows) > 1:
        rows.append(_mean_row(results, metric, rows, by_row))
    return RowGroup(metric, tuple(rows))


def _row_cells(
    metric: Metric, columns: Sequence[Column], runs: Sequence[Runs], study_category: str | None
) -> tuple[TableCell, ...]:
    cells = []
    for column, found in zip(columns, runs, strict=True):
        printed = published_beside(metric, column, study_category) if study_category else None
        cells.append(measured_cell(metric, found, printed))
    return mark_best(metric, cells, [cell.summary for cell in cells])


def _mean_row(
    results: DatasetResults, metric: Metric, rows: Sequence[TableRow], by_row: Sequence[Sequence[Runs]]
) -> TableRow:
    cells: list[TableCell] = []
    tests: list[Summary | None] = []
    for index, column in enumerate(results.columns):
        printed = published_beside(metric, column, None) if is_autovi(results.name) else None
        cell, test = mean_cell(metric, [row.cells[index] for row in rows], [runs[index] for runs in by_row], printed)
        cells.append(cell)
        tests.append(test)
    return TableRow("Mean", mark_best(metric, cells, tests), is_mean=True)


def _notes(results: DatasetResults, groups: Sequence[RowGroup]) -> list[str]:
    """What a reader of these cells has to know, only as far as it applies."""
    cells = [cell for group in groups for row in group.rows for cell in row.cells]
    plain_rows = [cell for group in groups for row in group.rows if not row.is_mean for cell in row.cells]
    notes = reason_notes((row.label, cell) for group in groups for row in group.rows for cell in row.cells)
    if any(cell.summary is not None and cell.summary.sd is not None for cell in plain_rows):
        has_mean = any(row.is_mean for group in groups for row in group.rows)
        notes.append("Mean ± standard deviation over the seeds" + ("; Mean row: over the tasks." if has_mean else "."))
    if any(cell.best for cell in cells):
        notes.append("Best of a row: the best mean and all that do not differ from it (Welch's t-test, 5 %).")
    exact = [
        column.label
        for column in results.columns
        if any(results.get(row, column).exact for row in results.rows) and any(g.metric.unit == "%" for g in groups)
    ]
    if exact:
        notes.append(f"Not dependent on the seed, so one run stands for all: {', '.join(exact)}.")
    single = any(c.summary is not None and c.summary.n == 1 and not c.summary.exact for c in plain_rows)
    if single and any(group.metric.higher_is_better is not None for group in groups):
        notes.append("A figure of a single run has no deviation and cannot be tested.")
    if any("/" in cell.mark for cell in cells):
        notes.append("k/n: only k of the n planned runs (or tasks) have the figure.")
    if any(cell.mark == "in part" for cell in cells):
        notes.append("In part: some of the tasks lack runs.")
    if any(cell.mark.endswith("tasks") for cell in cells):
        notes.append("A mean over part of the tasks is not compared with the others.")
    training = [c for g in groups if g.metric.name == "training_seconds" for r in g.rows for c in r.cells]
    if any(cell.mark for cell in training):
        notes.append(
            "Training time counts runs that computed their own features (“cached”: none did); speed may be measured in "
            "one run alone."
        )
    printed = {cell.published.misprint for cell in cells if cell.published is not None and cell.published.misprint}
    if any(cell.published is not None for cell in cells):
        notes.append(f"Published: {published.SOURCE}, mean ± standard deviation of {published.RUNS} runs.")
        notes += [f"Published figure marked “!”: {misprint}." for misprint in sorted(printed)]
    if is_autovi(results.name) and any(group.metric.published is not None for group in groups):
        reasons = {column.label: not_comparable(column) for column in results.columns}
        notes += [f"No published figures beside {label}: {why}." for label, why in reasons.items() if why]
    named = random_weights(results.columns)
    if named:
        notes.append(f"{RANDOM_WEIGHTS}: {named}. Their features are not pretrained.")
    shortened = shortened_training(results.columns)
    if shortened:
        notes.append(f"Shortened training: {shortened} of the full length.")
    if results.skipped:
        notes.append(f"Run without unreadable images (skip_bad): {results.skipped}.")
    return notes


def shortened_training(columns: Sequence[Column]) -> str:
    """Names the methods that were trained for a part of their full length, "DRAEM 3 %, DSR 2 %"; "" if none was."""
    return ", ".join(f"{column.label} {column.shortened}" for column in columns if column.shortened)


def random_weights(columns: Sequence[Column]) -> str:
    """Names the methods that ran on random weights and what these were; "" if none did."""
    by_parts: dict[tuple[str, ...], list[str]] = {}
    for column in columns:
        if column.random_weights:
            by_parts.setdefault(column.random_weights, []).append(column.label)
    return "; ".join(f"{', '.join(labels)} on {', '.join(parts)}" for parts, labels in by_parts.items())


def _slug(text: str) -> str:
    """Lower-case ASCII letters, digits and hyphens, for file names."""
    return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in text.casefold()).split())[:40]


def published_text(cell: TableCell, metric: Metric) -> str:
    """ "77.2 ± 0.3", with "!" where the printed figure cannot be right; "" where nothing was printed."""
    printed = cell.published
    if printed is None:
        return ""
    digits = 0 if metric.unit == "s" else 1
    flag = " !" if printed.misprint else ""
    return f"{printed.mean:,.{digits}f} ± {printed.sd:,.{digits}f}{flag}"
