"""Blocks of measured figures: methods down, categories across, the study's figures where they may stand there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from andon.benchmark import Summary, published
from andon.report.cells import TableCell, mark_best, mean_cell, measured_cell, not_comparable, published_beside
from andon.report.metrics import Metric
from andon.report.results import Column, DatasetResults, Row, Runs
from andon.report.study.model import Block, Cell, StudyRow
from andon.report.study.parts import Study, experiment_ids
from andon.report.tables import RANDOM_WEIGHTS

__all__ = ["Printed", "cell_of", "column_notes", "metric_block", "printed_text", "published_of", "short"]

Printed = Callable[[Column, Row | None], published.Published | None]
"""What the study printed for a method and a category (None: the mean); None where nothing may stand there."""


def short(category: str) -> str:
    """What the study's tables call a category."""
    return published.short_name(category)


def printed_text(printed: published.Published, digits: int = 1) -> str:
    """ "77.2 ± 0.3", with "!" where it cannot be right."""
    return f"{printed.mean:,.{digits}f} ± {printed.sd:,.{digits}f}" + (" !" if printed.misprint else "")


def cell_of(cell: TableCell, metric: Metric, runs: Sequence[Runs]) -> Cell:
    """A table's cell with the experiments behind it."""
    summary, printed = cell.summary, cell.published
    tip = "; ".join(t for t in (cell.reason, printed.misprint if printed else "") if t)
    return Cell(
        text=cell.text,
        value=summary.mean if summary else None,
        sd=summary.sd if summary else None,
        n=summary.n if summary else 0,
        best=cell.best,
        muted=cell.status != "ok",
        mark=cell.mark,
        published=printed_text(printed, 0 if metric.unit == "s" else 1) if printed else "",
        published_value=printed.mean if printed else None,
        published_sd=printed.sd if printed else None,
        tip=tip,
        ids=experiment_ids(runs),
    )


def column_notes(study: Study, column: Column, *, compared: bool = True) -> tuple[str, ...]:
    """What a reader has to know of a method wherever its figures stand.

    Args:
        compared: whether the study has such a table, so that it is to be said what differs from it.
    """
    notes = []
    if column.random_weights:
        notes.append(f"{RANDOM_WEIGHTS}: {', '.join(column.random_weights)}. The features are not pretrained.")
    if column.shortened:
        notes.append(f"Trained for {column.shortened} of the full length.")
    why = not_comparable(column) if compared else ""
    if why:
        notes.append(f"Not compared with the study: {why}." if study.on_autovi else f"{why[:1].upper()}{why[1:]}.")
    return tuple(notes)


def published_of(study: Study, metric: Metric) -> Printed:
    """The study's Tables 6 to 10, on AutoVI and for its own configurations."""

    def printed(column: Column, row: Row | None) -> published.Published | None:
        return published_beside(metric, column, row.category if row else None) if study.on_autovi else None

    return printed


def metric_block(study: Study, metric: Metric, title: str = "", *, fused: bool = True) -> Block:
    """All methods of the main part on all categories, with the mean over them; ensembles set apart below.

    The best of each category are those of ``StudyProtocol.best_set`` among the methods.
    """
    results = study.main
    rows = method_rows(study, results, metric, published_of(study, metric))
    if fused and study.fused is not None:
        rows += _fused_rows(study, metric)
    columns = tuple(short(row.label) for row in results.rows)
    return Block((*columns, "Mean") if len(results.rows) > 1 else columns, tuple(rows), title)


def method_rows(study: Study, results: DatasetResults, metric: Metric, printed: Printed) -> list[StudyRow]:
    """A row a method, best of each category marked."""
    below: list[list[TableCell]] = []
    means: list[tuple[TableCell, Summary | None]] = []
    for column in results.columns:
        runs = [results.get(row, column) for row in results.rows]
        cells = [
            measured_cell(metric, r, printed(column, row), study.protocol)
            for r, row in zip(runs, results.rows, strict=True)
        ]
        below.append(cells)
        means.append(mean_cell(metric, cells, runs, printed(column, None), study.protocol))
    for index in range(len(results.rows)):
        one = [cells[index] for cells in below]
        for cells, marked in zip(below, mark_best(metric, one, [c.summary for c in one], study.protocol), strict=True):
            cells[index] = marked
    mean_cells = mark_best(metric, [cell for cell, _ in means], [test for _, test in means], study.protocol)
    rows = []
    for column, cells, mean in zip(results.columns, below, mean_cells, strict=True):
        runs = [results.get(row, column) for row in results.rows]
        shown = [cell_of(c, metric, [r]) for c, r in zip(cells, runs, strict=True)]
        if len(results.rows) > 1:
            shown.append(cell_of(mean, metric, runs))
        rows.append(
            StudyRow(
                column.label,
                tuple(shown),
                column_notes(study, column, compared=metric.published is not None),
                _differences(results, metric, column, cells, mean),
            )
        )
    return rows


def _differences(
    results: DatasetResults, metric: Metric, column: Column, cells: Sequence[TableCell], mean: TableCell
) -> tuple[str, ...]:
    """Why the published figures of a row are not quite the same quantity."""
    if metric.published is None or not any(cell.published for cell in (*cells, mean)):
        return ()
    notes = list(published.quantity_differences(metric.published, column.method))
    general = set(notes)
    for row, cell in zip(results.rows, cells, strict=True):
        if cell.published is None:
            continue
        own = published.quantity_differences(metric.published, column.method, row.category)
        notes += [f"{short(row.category)}: {note}" for note in own if note not in general]
        if cell.published.misprint:
            notes.append(f"{short(row.category)}, “!”: {cell.published.misprint}")
    if mean.published is not None and mean.published.misprint:
        notes.append(f"Mean, “!”: {mean.published.misprint}")
    return tuple(notes)


def _fused_rows(study: Study, metric: Metric) -> list[StudyRow]:
    results, main = study.fused, study.main
    assert results is not None
    by_key = {row.key: row for row in results.rows}
    rows = []
    for column in results.columns:
        runs = [results.get(by_key[row.key], column) if row.key in by_key else Runs() for row in main.rows]
        cells = [measured_cell(metric, r, None, study.protocol) for r in runs]
        if all(cell.summary is None for cell in cells):
            continue
        shown = [cell_of(c, metric, [r]) for c, r in zip(cells, runs, strict=True)]
        if len(main.rows) > 1:
            shown.append(cell_of(mean_cell(metric, cells, runs, None, study.protocol)[0], metric, runs))
        rows.append(StudyRow(column.label, tuple(shown), kind="fused"))
    return rows
