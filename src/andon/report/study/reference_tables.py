"""Tables 1 to 5: other data sets, what others reported, the categories, and the words of the confusion matrix."""

from __future__ import annotations

from andon.benchmark import published
from andon.core import AndonError, Category, Dataset
from andon.report.literature import literature_table
from andon.report.results import DatasetResults, Row
from andon.report.study.model import Block, Cell, StudyRow, StudyTable
from andon.report.study.parts import Study, experiment_ids

__all__ = ["reference_tables"]


def reference_tables(study: Study, dataset: Dataset | None) -> list[StudyTable]:
    """Tables 1 to 5.

    Args:
        dataset: the main part's, where its folder can be read: for the images' sizes.
    """
    return [_datasets(), literature_table(), _categories(study, dataset), _descriptions(), _confusion()]


def _text(value: object) -> Cell:
    return Cell("–", muted=True, tip="the study does not give it") if value is None else Cell(str(value))


def _datasets() -> StudyTable:
    rows = []
    for entry in published.PUBLIC_DATASETS:
        cells = (
            Cell(f"{entry.images:,}", entry.images),
            _text(None) if entry.defects is None else Cell(f"{entry.defects:,}", entry.defects),
            Cell(str(entry.classes), entry.classes),
            Cell(entry.conditions),
            Cell("yes" if entry.logical_defects else "no"),
        )
        rows.append(
            StudyRow(f"{entry.name} ({_source(entry)})", cells, (f"{entry.name}: {entry.note}.",) if entry.note else ())
        )
    block = Block(("Images", "Defects", "Classes", "Conditions", "Logical defects"), tuple(rows))
    note = f"As printed in {published.SOURCE}; nothing here is measured."
    return StudyTable("table-1", "Public data sets for anomaly detection", (block,), 1, "Data set", (note,))


def _source(entry: published.PublicDataset) -> str:
    """Who published it; the study calls itself "Ours"."""
    return "the study" if entry.source == "Ours" else entry.source


def _categories(study: Study, dataset: Dataset | None) -> StudyTable:
    columns = ("Image size", "Training", "Good test", "Defective test", "All")
    printed = []
    for entry in published.AUTOVI_CATEGORIES:
        counts = (entry.train, entry.good, entry.defective, entry.total)
        cells = (Cell(f"{entry.width}×{entry.height}"), *(Cell(f"{n:,}", n) for n in counts))
        printed.append(StudyRow(entry.category, cells))
    totals = [
        sum(getattr(e, name) for e in published.AUTOVI_CATEGORIES) for name in ("train", "good", "defective", "total")
    ]
    printed.append(StudyRow("Total", (Cell(""), *(Cell(f"{n:,}", n) for n in totals)), kind="mean"))
    blocks = [Block(columns, tuple(printed), f"AutoVI, as printed ({published.SOURCE})")]
    notes = []
    if study.has_main:
        blocks.insert(0, Block(columns, _here(study.main, dataset), f"{study.main.name}, as run here"))
        if dataset is None:
            notes.append("Image sizes are not known: the data set's folder cannot be read from here.")
    else:
        notes.append(f"Nothing of the data set here: {study.missing('study')}.")
    return StudyTable("table-3", "The data set's categories", tuple(blocks), 3, "Category", tuple(notes))


def _here(results: DatasetResults, dataset: Dataset | None) -> tuple[StudyRow, ...]:
    rows, totals = [], [0, 0, 0, 0]
    for row in results.rows:
        found = [results.get(row, column) for column in results.columns]
        records = [r for runs in found for r in runs.records]
        size = Cell(_size(dataset, row)) if dataset else Cell("–", muted=True, tip="the folder cannot be read")
        if not records:
            rows.append(StudyRow(row.label, (size, *(Cell("–", muted=True, tip="no result yet") for _ in range(4)))))
            continue
        image = records[0].evaluation.image
        # Methods that hold nothing back train on all images.
        counts = [max(r.n_train for r in records), image.n_good, image.n_defective]
        counts.append(sum(counts))
        totals = [a + b for a, b in zip(totals, counts, strict=True)]
        ids = experiment_ids(found)
        rows.append(StudyRow(row.label, (size, *(Cell(f"{n:,}", n, ids=ids) for n in counts))))
    return (*rows, StudyRow("Total", (Cell(""), *(Cell(f"{n:,}", n) for n in totals)), kind="mean"))


def _size(dataset: Dataset, row: Row) -> str:
    category: Category | None = dataset.categories.get(row.category)
    if category is None or not category.samples:
        return "–"
    try:
        height, width = category.samples[0].size()
    except (AndonError, OSError):
        return "unreadable"
    return f"{width}×{height}"


def _descriptions() -> StudyTable:
    rows = [
        StudyRow(e.category, (Cell("; ".join(e.variations)), Cell("; ".join(e.defects))))
        for e in published.AUTOVI_CATEGORIES
    ]
    block = Block(("What varies between good images", "Defects"), tuple(rows), words=True)
    note = f"AutoVI, after {published.SOURCE}, in other words."
    return StudyTable("table-4", "What the categories are like", (block,), 4, "Category", (note,))


def _confusion() -> StudyTable:
    names = ("positive", "negative")
    rows = [
        StudyRow(
            f"Predicted {'defective' if prediction == 'positive' else 'good'}",
            tuple(Cell(published.CONFUSION_MATRIX[prediction, truth]) for truth in names),
        )
        for prediction in names
    ]
    note = (
        "Positive: defective. FPR = FP / (FP + TN), the good images that alarm; FNR = FN / (FN + TP), the defective "
        "ones that slip through."
    )
    return StudyTable(
        "table-5", "The words of a decision", (Block(("Defective", "Good"), tuple(rows)),), 5, "", (note,)
    )
