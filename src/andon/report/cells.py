"""One cell of a table: the runs behind it, what is missing, what the study printed for it, and the best of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from andon.benchmark import StudyProtocol, Summary, comparability, mean_over, published, run_means
from andon.report.metrics import Metric
from andon.report.reasons import caution_of, missing_reason
from andon.report.results import Column, Runs, plain

__all__ = [
    "Status",
    "TableCell",
    "mark_best",
    "mean_cell",
    "measured_cell",
    "not_comparable",
    "published_beside",
    "timed",
]

Status = Literal["ok", "undefined", "failed", "not run", "not planned"]
_PAPER = StudyProtocol()


@dataclass(frozen=True)
class TableCell:
    """One cell.

    Attributes:
        text: "88.4 ± 0.3", "failed", "not run", "–".
        status: why there is no figure, or "ok".
        summary: the figure, unrounded (percentages as fractions); None without one.
        best: belongs to the best set of its row.
        mark: what the reader has to know of it: "2/3" (runs behind it), "cached", "5/6 tasks".
        published: the study's printed figure, None where it printed none.
        reason: why there is no figure where every run has a result, or what else the figure is.
    """

    text: str
    status: Status = "ok"
    summary: Summary | None = None
    best: bool = False
    mark: str = ""
    published: published.Published | None = None
    reason: str = ""


def measured_cell(
    metric: Metric, runs: Runs, printed: published.Published | None = None, protocol: StudyProtocol = _PAPER
) -> TableCell:
    """The cell of a method on a category.

    Args:
        runs: of the method there.
        printed: what the study printed for it.
        protocol: which deviation is shown.
    """
    if not runs.records:
        status: Status = "failed" if runs.failures else "not run" if runs.pending else "not planned"
        return TableCell("–" if status == "not planned" else status, status, published=printed)
    used, cached = timed(metric, runs)
    summary = _summary(metric, used, protocol)
    if summary.mean is None:
        reason = missing_reason(metric.name, used.records or runs.records)
        return TableCell("–", "undefined", published=printed, reason=plain(reason, 1000))
    mark = f"{summary.n}/{runs.expected}" if summary.n < runs.expected else ""
    if cached:
        mark = f"{mark}, cached" if mark else "cached"
    caution = caution_of(metric.name, runs.records)
    return TableCell(metric.format_summary(summary), "ok", summary, mark=mark, published=printed, reason=caution)


def timed(metric: Metric, runs: Runs) -> tuple[Runs, bool]:
    """The runs whose time is the whole cost; all of them, and True, where every run had its features given."""
    if metric.name != "training_seconds":
        return runs, False
    whole = tuple(r for r in runs.records if not r.features_cached)
    return (Runs(whole), False) if whole else (runs, True)


def _summary(metric: Metric, runs: Runs, protocol: StudyProtocol) -> Summary:
    summary = runs.summary(metric.read, protocol.ddof)
    if metric.unit != "%" and summary.exact:
        # A method without randomness still takes a little longer or shorter every time.
        return Summary(summary.n, summary.mean, None, False, summary.missing, summary.ddof)
    return summary


def mean_cell(
    metric: Metric,
    below: Sequence[TableCell],
    runs: Sequence[Runs],
    printed: published.Published | None = None,
    protocol: StudyProtocol = _PAPER,
) -> tuple[TableCell, Summary | None]:
    """The mean over the categories ± the deviation across them, and what it is compared with others by.

    Args:
        below: the cells of the categories.
        runs: behind each of them.
        printed: what the study printed for the mean.
        protocol: which deviation is shown.

    Returns:
        The cell; each run's mean over the categories, None where it lacks categories or cannot be tested.
    """
    planned = [cell for cell in below if cell.status != "not planned"]
    given = [cell.summary for cell in below if cell.summary is not None]
    if not given:
        failed = bool(planned) and all(cell.status == "failed" for cell in planned)
        return TableCell("failed" if failed else "–", "failed" if failed else "undefined", published=printed), None
    summary = mean_over(given, ddof=protocol.ddof)
    partial = "in part" if any(_lacks_runs(metric, r) for r in runs) else ""
    mark = f"{len(given)}/{len(below)} tasks" if len(given) < len(below) else partial
    cell = TableCell(metric.format_summary(summary), "ok", summary, mark=mark, published=printed)
    # Means over different tasks cannot be compared: such a column takes no part in the test.
    return cell, _mean_test(metric, runs) if len(given) == len(below) else None


def _lacks_runs(metric: Metric, runs: Runs) -> bool:
    if metric.unit != "%":
        # Speed is measured in one run by design, training time where features were computed: those marks say it.
        return 0 < len(runs.records) < runs.expected
    defined = sum(value is not None for value in runs.values(metric.read).values())
    return 0 < defined < runs.expected


def _mean_test(metric: Metric, runs: Sequence[Runs]) -> Summary | None:
    used = [timed(metric, r)[0] for r in runs]
    exact = metric.unit == "%" and all(r.exact for r in used)
    if not exact and any(r.exact for r in used):
        return None
    return run_means([r.values(metric.read) for r in used], exact=exact)


def mark_best(
    metric: Metric,
    cells: Sequence[TableCell],
    tests: Sequence[Summary | None],
    protocol: StudyProtocol = _PAPER,
) -> tuple[TableCell, ...]:
    """The cells of all methods on one category, those of the best set marked."""
    if metric.higher_is_better is None:
        return tuple(cells)
    compared = {str(i): s for i, s in enumerate(tests) if s is not None and s.mean is not None}
    if len(compared) < 2:
        return tuple(cells)
    best = protocol.best_set(compared, higher_is_better=metric.higher_is_better)
    return tuple(replace(cell, best=str(i) in best) for i, cell in enumerate(cells))


def not_comparable(column: Column) -> str:
    """Why the study's figures may not stand beside a method's; "" where they may, or the study has none of it."""
    if column.method not in published.METHODS:
        return ""
    found = comparability(
        column.method, column.spec.config, column.protocol, random_weights=tuple(column.random_weights)
    )
    return plain(found.reason, 1000)


def published_beside(metric: Metric, column: Column, category: str | None) -> published.Published | None:
    """What the study printed for a method on AutoVI, where the method is configured as there; None otherwise.

    Args:
        category: AutoVI's name of it; None for the mean.
    """
    if metric.published is None or not_comparable(column):
        return None
    return published.published(metric.published, column.method, category)
