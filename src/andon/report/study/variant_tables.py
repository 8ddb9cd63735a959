"""Tables 11 to 14: augmentation, window sizes, EfficientAD's normalisation, and which method suits what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from andon.benchmark import comparability, derive_suitability, published
from andon.data import Augmentation
from andon.evaluation import AveragedRoc, averaged_roc
from andon.report.cells import mark_best, measured_cell, not_comparable
from andon.report.metrics import Metric
from andon.report.results import Column, DatasetResults, Row, plain
from andon.report.study.measured import cell_of, column_notes, method_rows, printed_text, short
from andon.report.study.model import Block, Cell, StudyRow, StudyTable, folded, missing_table
from andon.report.study.parts import Part, Study, experiment_ids, mean_by_category
from andon.report.tables import is_autovi

__all__ = ["averaged_cell", "variant_tables"]


def variant_tables(study: Study) -> list[StudyTable]:
    """Tables 11 to 14; each says why where it is not there."""
    return [_augmentation(study), _windows(study), _normalisation(study), _suitability(study)]


# Table 11


def _augmentation(study: Study) -> StudyTable:
    key, title = "table-11", "Training images augmented: AUROC (%)"
    if why := study.missing("table11"):
        return missing_table(key, title, why, 11)
    results = study.parts["table11"].main
    pairs = _pairs(results)
    if not pairs:
        return missing_table(key, title, "no method was run both with and without augmentation", 11)
    metric = study.metrics["auroc"]
    areas, means = [], []
    for plain_column, augmented in pairs:
        notes = _augmented_notes(study, augmented)
        area = [_area_cell(study, results, row, plain_column, augmented) for row in results.rows]
        mean = [_gain_cell(study, metric, results, row, plain_column, augmented) for row in results.rows]
        if len(results.rows) > 1:
            area.append(_mean_of(area, metric))
            mean.append(_mean_of(mean, metric))
        different = published.quantity_differences("auroc", augmented.method)
        label = plain_column.label
        areas.append(StudyRow(label, tuple(area), notes))
        means.append(StudyRow(label, tuple(mean), notes, different if any(c.published for c in mean) else ()))
    columns = tuple(short(row.label) for row in results.rows) + (("Mean",) if len(results.rows) > 1 else ())
    blocks = [
        *folded(Block(columns, tuple(means), "Mean AUROC")),
        *folded(Block(columns, tuple(areas), "Area under the averaged ROC curve")),
    ]
    drawn = dict.fromkeys(_words(c.protocol.augmentation) for _, c in pairs if c.protocol.augmentation is not None)
    under = [
        "Underlined: above the same method without augmentation. Averaged: the mean TPR at every FPR.",
        f"Augmentation: {plain('; '.join(drawn), 600)}.",
    ]
    if any(row.has_published for row in means):
        under.append(
            f"Italic: published, {published.SOURCE}; it says area under the averaged curve, its ± can only be that of "
            "the runs' AUROCs."
        )
    return StudyTable(key, title, tuple(blocks), 11, notes=tuple(under))


def _pairs(results: DatasetResults) -> list[tuple[Column, Column]]:
    """A method without and with augmentation, all else equal."""
    alone = {_identity(c): c for c in results.columns if c.protocol.augmentation is None}
    return [
        (alone[_identity(c)], c)
        for c in results.columns
        if c.protocol.augmentation is not None and _identity(c) in alone
    ]


def _words(augmentation: Augmentation) -> str:
    a = augmentation
    return (
        f"rotation by up to {a.rotation:g}° with probability {a.rotation_probability:g}, Gaussian noise of variance "
        f"{a.noise_variance[0]:g} to {a.noise_variance[1]:g} with probability {a.noise_probability:g}; {a.versions} "
        f"versions of every image for trained methods, {a.extra_passes} beside the image for those of one pass"
    )


def _identity(column: Column) -> str:
    protocol = column.protocol.model_copy(update={"augmentation": None, "calibration_folds": 0})
    content = [column.method, column.spec.config, protocol.model_dump(mode="json"), column.spec.code_fingerprint]
    return json.dumps(content, sort_keys=True)


def _comparable_augmented(column: Column) -> bool:
    """Whether Table 11's figures may stand beside it: the study's preset and the study's augmentation."""
    bare = column.protocol.model_copy(update={"augmentation": None})
    found = comparability(column.method, column.spec.config, bare, random_weights=tuple(column.random_weights))
    chosen = column.protocol.augmentation
    return found.comparable and chosen is not None and _drawn_alike(chosen)


def _drawn_alike(augmentation: Augmentation) -> bool:
    """Rotation and noise as in the study, which states no number of versions."""
    study = Augmentation()
    names = ("rotation", "rotation_probability", "noise_variance", "noise_probability")
    return all(getattr(augmentation, name) == getattr(study, name) for name in names)


def _augmented_notes(study: Study, column: Column) -> tuple[str, ...]:
    notes = column_notes(study, column, compared=False)
    if study.on_autovi and column.method in published.METHODS and not _comparable_augmented(column):
        bare = replace(
            column,
            spec=column.spec.model_copy(update={"protocol": column.protocol.model_copy(update={"augmentation": None})}),
        )
        why = not_comparable(bare) or "the augmentation is another one"
        notes = (*notes, f"Not compared with the study: {why}.")
    return notes


def _averaged(study: Study, results: DatasetResults, row: Row, column: Column) -> AveragedRoc | None:
    runs = []
    for record in results.get(row, column).records:
        arrays = study.arrays(record.id)
        if arrays is not None:
            runs.append((arrays.image_scores, arrays.labels()))
    return averaged_roc(runs) if runs else None


def averaged_cell(with_: AveragedRoc | None, without: AveragedRoc | None, ids: tuple[str, ...]) -> Cell:
    """The area under a method's averaged curve, underlined where it is above that without augmentation."""
    if with_ is None:
        return Cell("–", muted=True, tip="no run has a ROC curve", ids=ids)
    better = without is not None and with_.area > without.area
    tip = "" if without is None else f"without augmentation {100 * without.area:.1f}"
    return Cell(f"{100 * with_.area:.1f}", with_.area, n=len(with_.aurocs), underlined=better, tip=tip, ids=ids)


def _area_cell(study: Study, results: DatasetResults, row: Row, alone: Column, augmented: Column) -> Cell:
    ids = experiment_ids([results.get(row, augmented), results.get(row, alone)])
    return averaged_cell(_averaged(study, results, row, augmented), _averaged(study, results, row, alone), ids)


def _gain_cell(
    study: Study, metric: Metric, results: DatasetResults, row: Row, alone: Column, augmented: Column
) -> Cell:
    runs, base = results.get(row, augmented), results.get(row, alone)
    cell = cell_of(measured_cell(metric, runs, None, study.protocol), metric, [runs, base])
    without = base.summary(metric.read).mean
    better = cell.value is not None and without is not None and cell.value > without
    printed = None
    if is_autovi(results.name) and _comparable_augmented(augmented):
        printed = published.published_augmented(augmented.method, row.category)
    return replace(
        cell,
        underlined=better,
        tip=cell.tip if without is None else f"without augmentation {100 * without:.1f}",
        published="" if printed is None else printed_text(printed.auroc),
        published_value=None if printed is None else printed.auroc.mean,
        published_sd=None if printed is None else printed.auroc.sd,
    )


def _mean_of(cells: Sequence[Cell], metric: Metric) -> Cell:
    """The mean of a row's figures, where it has all of them."""
    values = [cell.value for cell in cells if cell.value is not None]
    if len(values) < len(cells):
        return Cell("–", muted=True, tip="not every category has a figure")
    mean = sum(values) / len(values)
    ids = tuple(dict.fromkeys(i for cell in cells for i in cell.ids))
    return Cell(metric.format(mean), mean, n=len(values), ids=ids)


# Table 12


def _windows(study: Study) -> StudyTable:
    key, title = "table-12", "Window sizes: AUROC (%)"
    if why := study.missing("table12"):
        return missing_table(key, title, why, 12)
    part = study.parts["table12"]
    categories = dict.fromkeys(row.category for results in part.datasets for row in results.rows)
    blocks = [b for category in categories for b in folded(_window_block(study, part, category))]
    notes = ["Width × height of the window, pixels of the images it is cut from. Bold: the best of a column (Welch)."]
    if not part.plan.raw:
        notes.append(
            "Windows within the given images: those larger than the images cannot be cut from them and are not here."
        )
    return StudyTable(key, title, tuple(blocks), 12, notes=tuple(notes))


def _window_block(study: Study, part: Part, category: str) -> Block:
    metric = study.metrics["auroc"]
    places = [(results, row) for results in part.datasets for row in results.rows if row.category == category]
    places.sort(key=lambda place: _area(study, *place))
    names: list[str] = []
    labels = dict.fromkeys(column.label for results, _ in places for column in results.columns)
    cells: dict[str, list[Cell]] = {label: [] for label in labels}
    notes: dict[str, tuple[str, ...]] = {}
    for results, row in places:
        size = _window_size(study, results, row)
        names.append("whole image" if size is None else f"{size[0]}×{size[1]}")
        by_label = {column.label: column for column in results.columns}
        columns = [by_label.get(label) for label in labels]
        table_cells = [
            measured_cell(metric, results.get(row, c), _printed_window(c, results, row, size), study.protocol)
            for c in columns
            if c is not None
        ]
        best = iter(mark_best(metric, table_cells, [c.summary for c in table_cells], study.protocol))
        for label, column in zip(labels, columns, strict=True):
            if column is None:
                cells[label].append(Cell("–", muted=True, tip="not planned"))
                continue
            cells[label].append(cell_of(next(best), metric, [results.get(row, column)]))
            notes[label] = column_notes(study, column, compared=results.name.casefold().startswith("autovi"))
    rows = [_window_row(label, tuple(cells[label]), notes.get(label, ()), part) for label in labels]
    return Block(tuple(names), tuple(rows), short(category))


def _window_row(label: str, cells: tuple[Cell, ...], notes: tuple[str, ...], part: Part) -> StudyRow:
    method = next((c.method for results in part.datasets for c in results.columns if c.label == label), "")
    printed = any(cell.published for cell in cells)
    return StudyRow(label, cells, notes, published.quantity_differences("auroc", method) if printed else ())


def _window_size(study: Study, results: DatasetResults, row: Row) -> tuple[int, int] | None:
    """The window's size; of AutoVI's images as they are published their own."""
    size = study.window(results)
    if size is None and is_autovi(results.name):
        entry = next((e for e in published.AUTOVI_CATEGORIES if e.category == row.category), None)
        size = None if entry is None else (entry.width, entry.height)
    return size


def _area(study: Study, results: DatasetResults, row: Row) -> float:
    size = _window_size(study, results, row)
    return float("inf") if size is None else float(size[0] * size[1])


def _printed_window(
    column: Column, results: DatasetResults, row: Row, size: tuple[int, int] | None
) -> published.Published | None:
    if size is None or not results.name.casefold().startswith("autovi") or not_comparable(column):
        return None
    return published.published_window(column.method, row.category, size)


# Table 13


def _normalisation(study: Study) -> StudyTable:
    key, title = "table-13", "EfficientAD's maps normalised on all training images: AUROC (%)"
    if why := study.missing("table13"):
        return missing_table(key, title, why, 13)
    results = study.parts["table13"].main
    metric = study.metrics["auroc"]

    def printed(column: Column, row: Row | None) -> published.Published | None:
        extra = bool(column.spec.config.get("extra_normalisation", False))
        if row is None or not is_autovi(results.name) or not _comparable_but_normalisation(column):
            return None
        return published.published_extra_normalisation(row.category, extra=extra)

    columns = tuple(short(row.label) for row in results.rows) + (("Mean",) if len(results.rows) > 1 else ())
    rows = []
    for column, row in zip(results.columns, method_rows(study, results, metric, printed), strict=True):
        notes = column_notes(study, column, compared=False)
        if study.on_autovi and not _comparable_but_normalisation(column):
            notes = (*notes, f"Not compared with the study: {not_comparable(column)}.")
        rows.append(replace(row, notes=notes))
    note = "Bold: the best mean of a column, and the other where it does not differ from it (Welch's t-test)."
    return StudyTable(key, title, folded(Block(columns, tuple(rows))), 13, notes=(note,))


def _comparable_but_normalisation(column: Column) -> bool:
    config = {**column.spec.config, "extra_normalisation": False}
    found = comparability(column.method, config, column.protocol, random_weights=tuple(column.random_weights))
    return found.comparable


# Table 14


def _suitability(study: Study) -> StudyTable:
    key, title = "table-14", "Which method suits which problem"
    if why := study.missing("study"):
        return missing_table(key, title, why, 14)
    metric = study.metrics["auroc"]
    rows = []
    for column in study.main.columns:
        means = mean_by_category(study, column, metric)
        verdicts = derive_suitability({k: None if v is None else 100 * v for k, v in means.items()})
        compared = study.on_autovi and not not_comparable(column)
        ids = experiment_ids(study.main.get(row, column) for row in study.main.rows)
        cells = []
        for name in published.CHARACTERISTICS:
            verdict = verdicts[name]
            printed = published.published_suitability(name, column.method) if compared else None
            cells.append(
                Cell(
                    "–" if verdict.suits is None else f"{'✓' if verdict.suits else '·'} {verdict.auroc:.1f}",
                    None if verdict.auroc is None else verdict.auroc / 100,
                    best=bool(verdict.suits),
                    muted=verdict.suits is None,
                    published="" if printed is None else "✓" if printed else "·",
                    tip=verdict.reason,
                    ids=ids,
                )
            )
        rows.append(StudyRow(column.label, tuple(cells), column_notes(study, column)))
    notes = (
        "By rule: a method suits (✓) where the mean of its AUROCs over the categories with the characteristic is at "
        "least 80 %. The figure is that mean. Which categories they are is read from the study's text. On the printed "
        "AUROCs the rule gives 22 of the study's 30 marks, which were set by judgement.",
    )
    return StudyTable(key, title, (Block(published.CHARACTERISTICS, tuple(rows)),), 14, notes=notes)
