"""Beyond the study: the operating point of a plant, intervals over images, defect types, and pairwise tests."""

from __future__ import annotations

from collections.abc import Callable

from andon.benchmark import (
    ExperimentRecord,
    Interval,
    Ranking,
    bootstrap_auroc,
    clopper_pearson,
    delong_interval,
    rank_methods,
)
from andon.core import DataError, ProgressCallback
from andon.evaluation import EvaluationArrays
from andon.report.cells import mark_best, measured_cell
from andon.report.metrics import Metric, auspro, defect_auroc, defect_auspro
from andon.report.results import Column, Row, plain
from andon.report.study.measured import cell_of, column_notes, short
from andon.report.study.model import Block, Cell, StudyRow, StudyTable, folded, missing_table
from andon.report.study.parts import Study, experiment_ids, first_run, mean_by_category
from andon.report.tables import primary_limit

__all__ = ["beyond_tables", "operating_cell", "ranking_of", "ranking_table"]

RESAMPLES = 2000
"""Of the bootstrap."""


def beyond_tables(study: Study, progress: ProgressCallback) -> list[StudyTable]:
    """Andon's own tables; each says why where it is not there."""
    titles = {
        "operating-point": "Operating point set on good training images alone: error rates on the test set",
        "delong": "AUROC (%) with its interval over test images: DeLong",
        "bootstrap": "AUROC (%) with its interval over test images: bootstrap",
        "defect-types": "By defect type (%)",
    }
    if why := study.missing("study"):
        return [missing_table(key, title, why) for key, title in titles.items()]
    return [
        _operating_point(study, "operating-point", titles["operating-point"]),
        _intervals(
            study, "delong", titles["delong"], _delong, "95 % interval, normal on the logit of the AUROC.", progress
        ),
        _intervals(
            study,
            "bootstrap",
            titles["bootstrap"],
            _bootstrap,
            f"95 % interval, BCa, {RESAMPLES:,} resamples, good and defective images drawn apart.",
            progress,
        ),
        _defect_types(study, "defect-types", titles["defect-types"]),
    ]


# Operating point


def _operating_point(study: Study, key: str, title: str) -> StudyTable:
    blocks: list[Block] = []
    for target in (0.99, 0.95, 0.90):
        for part, name in (("fpr", "FPR"), ("fnr", "FNR")):
            rows = []
            for column in study.main.columns:
                cells = tuple(
                    operating_cell(first_run(study.main.get(row, column)), target, part) for row in study.main.rows
                )
                if any(cell.value is not None for cell in cells):
                    rows.append(StudyRow(column.label, cells, column_notes(study, column, compared=False)))
            columns = tuple(short(row.label) for row in study.main.rows)
            if rows:
                blocks += folded(Block(columns, tuple(rows), f"{name} (%), threshold for a TNR of {100 * target:g} %"))
    if not blocks:
        why = "no method has scores of held-out training images (calibration_folds of a plan)"
        return missing_table(key, title, why)
    without = [c.label for c in study.main.columns if not c.protocol.calibration_folds]
    notes = [
        "Threshold: from scores of good training images by models that did not see them (contiguous blocks held out). "
        "FPR: good test images that alarm; FNR: defective ones that pass. In brackets the 95 % interval of Clopper and "
        "Pearson. One run, that of the lowest seed: runs share their test images, so their counts must not be added.",
    ]
    if without:
        notes.append(f"No images were held out for: {', '.join(without)}.")
    return StudyTable(key, title, tuple(blocks), notes=tuple(notes))


def operating_cell(record: ExperimentRecord | None, target: float, part: str) -> Cell:
    """An error rate of the threshold from training images, with its interval.

    Args:
        record: the run; None where there is none.
        target: TNR that the threshold was set for.
        part: "fpr" or "fnr".
    """
    if record is None:
        return Cell("–", muted=True, tip="no result")
    points = record.evaluation.operating_points
    point = next((p for p in points if p.source == "train good" and p.target_tnr == target), None)
    rate = None if point is None else getattr(point, part)
    image = record.evaluation.image
    n = image.n_good if part == "fpr" else image.n_defective
    if rate is None or n == 0:
        why = "no training images were held out" if point is None else "no such test images"
        return Cell("–", muted=True, tip=why, ids=(record.id,))
    count = round(rate * n)
    found = clopper_pearson(count, n)
    text = f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    return Cell(text, found.value, n=1, tip=f"{count} of {n} images", ids=(record.id,))


# Intervals


def _delong(arrays: EvaluationArrays) -> Interval | None:
    return delong_interval(arrays.image_scores, arrays.labels())


def _bootstrap(arrays: EvaluationArrays) -> Interval | None:
    return bootstrap_auroc(arrays.image_scores, arrays.labels(), resamples=RESAMPLES)


def _intervals(
    study: Study,
    key: str,
    title: str,
    interval: Callable[[EvaluationArrays], Interval | None],
    note: str,
    progress: ProgressCallback,
) -> StudyTable:
    rows, columns = [], study.main.columns
    for number, column in enumerate(columns):
        progress(f"intervals: {key}", number, len(columns))
        cells = tuple(_interval_cell(study, row, column, interval) for row in study.main.rows)
        rows.append(StudyRow(column.label, cells, column_notes(study, column, compared=False)))
    progress(f"intervals: {key}", len(columns), len(columns))
    block = Block(tuple(short(row.label) for row in study.main.rows), tuple(rows))
    notes = [f"{note} Of the run with the lowest seed: how the figure would vary with other images, not with seeds."]
    marks = {cell.mark for row in rows for cell in row.cells}
    if "no interval" in marks:
        notes.append("No interval: good and defective images do not overlap, which says nothing of other images.")
    notes += [f"!: {tip}." for tip in dict.fromkeys(c.tip for row in rows for c in row.cells if c.mark == "!")]
    return StudyTable(key, title, folded(block), notes=tuple(notes))


def _interval_cell(
    study: Study, row: Row, column: Column, interval: Callable[[EvaluationArrays], Interval | None]
) -> Cell:
    record = first_run(study.main.get(row, column))
    arrays = None if record is None else study.arrays(record.id)
    if record is None or arrays is None:
        return Cell("–", muted=True, tip="no result" if record is None else "its scores cannot be read")
    try:
        found = interval(arrays)
    except DataError as error:
        return Cell("–", muted=True, tip=plain(str(error)), ids=(record.id,))
    if found is None:
        return Cell("–", muted=True, tip="a single image in a class: no variance can be estimated", ids=(record.id,))
    if found.low == found.high:
        # Not a narrow interval but none: the classes do not overlap, and no resample of them does.
        why = found.note or "all resamples give the same figure"
        return Cell(f"{100 * found.value:.1f}", found.value, n=1, mark="no interval", tip=why, ids=(record.id,))
    text = f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    return Cell(text, found.value, n=1, mark="!" if found.note else "", tip=found.note, ids=(record.id,))


# Defect types


def _defect_types(study: Study, key: str, title: str) -> StudyTable:
    limit = primary_limit(study.main)
    blocks: list[Block] = []
    for row in study.main.rows:
        records = [r for c in study.main.columns for r in study.main.get(row, c).records]
        types = sorted({t for r in records for t in r.evaluation.defect_types})
        counts = {t: r.evaluation.defect_types[t].n for r in records for t in r.evaluation.defect_types}
        if not types:
            continue
        columns = [f"{plain(t)} ({counts[t]})" for t in types]
        detection = [defect_auroc(t) for t in types]
        localisation = [defect_auspro(t, limit) for t in types]
        for metrics, name in ((detection, "AUROC"), (localisation, auspro(limit).title)):
            block = Block(tuple(columns), _type_rows(study, row, metrics), f"{short(row.label)}: {name}")
            if any(cell.value is not None for one in block.rows for cell in one.cells):
                blocks += folded(block)
    if not blocks:
        return missing_table(key, title, "no test image is defective")
    notes = (
        "Images of one defect type (their number in brackets) against all good ones; mean ± standard deviation over "
        "the runs. Bold: best set of a column (Welch).",
    )
    return StudyTable(key, title, tuple(blocks), notes=notes)


def _type_rows(study: Study, row: Row, metrics: list[Metric]) -> tuple[StudyRow, ...]:
    columns = study.main.columns
    runs = [study.main.get(row, column) for column in columns]
    by_metric = []
    for metric in metrics:
        cells = [measured_cell(metric, r, None, study.protocol) for r in runs]
        by_metric.append(mark_best(metric, cells, [c.summary for c in cells], study.protocol))
    return tuple(
        StudyRow(
            column.label,
            tuple(cell_of(cells[i], metric, [runs[i]]) for cells, metric in zip(by_metric, metrics, strict=True)),
            column_notes(study, column, compared=False),
        )
        for i, column in enumerate(columns)
    )


# Ranking


def ranking_of(study: Study, metric: Metric) -> Ranking:
    """The methods ranked over the categories by their mean figures."""
    figures = {column.label: mean_by_category(study, column, metric) for column in study.main.columns}
    # A method without any figure (no maps) would leave no category to rank on.
    figures = {label: means for label, means in figures.items() if any(v is not None for v in means.values())}
    return rank_methods(figures, alpha=study.protocol.alpha)


def ranking_table(study: Study) -> StudyTable:
    """Mean ranks by AUROC, and Wilcoxon's test with Holm's correction for every pair."""
    key, title = "ranks", "Mean ranks over the categories, and p-values of every pair (Wilcoxon, Holm)"
    if why := study.missing("study"):
        return missing_table(key, title, why)
    metric = study.metrics["auroc"]
    ranking = ranking_of(study, metric)
    if len(ranking.mean_ranks) < 2 or not ranking.pairwise:
        return missing_table(key, title, "ranks need two methods and two categories with figures of both")
    by_label = {column.label: column for column in study.main.columns}
    methods = list(ranking.mean_ranks)
    rows = []
    for number, label in enumerate(methods, 1):
        ids = experiment_ids(study.main.get(row, by_label[label]) for row in study.main.rows)
        cells = [Cell(f"{ranking.mean_ranks[label]:.2f}", ranking.mean_ranks[label], ids=ids)]
        for other in methods:
            p = ranking.pairwise.get((label, other), ranking.pairwise.get((other, label)))
            cells.append(Cell("", muted=True) if p is None else Cell(f"{p:.3f}", p, best=p < ranking.alpha))
        rows.append(StudyRow(f"{number}. {label}", tuple(cells)))
    columns = ("Rank", *(f"vs {n}." for n in range(1, len(methods) + 1)))
    statistic = (
        f"Friedman's test: χ² = {ranking.friedman_statistic:.2f}, p = {ranking.friedman_p:.3g}, over "
        f"{len(ranking.categories)} categories. Bold: below {100 * ranking.alpha:g} %."
    )
    notes = [statistic, "By mean AUROC; a category is one observation, so few categories can tell little apart."]
    if ranking.left_out:
        notes.append(f"Left out, not every method has a figure: {', '.join(ranking.left_out)}.")
    return StudyTable(key, title, folded(Block(columns, tuple(rows)), 13), notes=tuple(notes))
