"""The study's Table 2: what others had published of the methods on other data sets."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from andon.benchmark import published
from andon.core import ConfigError
from andon.report.study.formats import to_latex
from andon.report.study.model import Block, Cell, StudyRow, StudyTable

__all__ = ["LITERATURE_COLUMNS", "literature_notes", "literature_rows", "literature_table", "literature_text"]

LITERATURE_COLUMNS = ("method", *published.LITERATURE_DATASETS)


def literature_table() -> StudyTable:
    """Table 2 as every form of it shows it: image AUROCs in %, "91.5*", or "–" where the study quotes none."""
    best = {
        name: max(row[name].auroc for row in published.LITERATURE.values() if name in row)
        for name in published.LITERATURE_DATASETS
    }
    rows = []
    for method, figures in published.LITERATURE.items():
        cells = []
        for name in published.LITERATURE_DATASETS:
            found = figures.get(name)
            if found is None:
                cells.append(Cell("–", muted=True, tip="the study does not give it"))
                continue
            text = f"{found.auroc:.1f}{'*' if found.asterisk else ''}"
            cells.append(Cell(text, found.auroc / 100, best=found.auroc == best[name], tip=found.source))
        rows.append(StudyRow(method, tuple(cells)))
    notes = (
        f"Image AUROC, mean over a data set's categories; as quoted in Table 2 of {published.SOURCE}.",
        "* from the Papers with Code benchmark; the others from the method's own paper. –: the study quotes none.",
    )
    block = Block(published.LITERATURE_DATASETS, tuple(rows))
    return StudyTable("table-2", "Reported mean AUROC (%)", (block,), 2, "Method", notes)


def literature_notes() -> tuple[str, ...]:
    """What is printed under the table."""
    return literature_table().notes


def literature_rows() -> list[tuple[str, ...]]:
    """A method a row, under ``LITERATURE_COLUMNS``."""
    return [(row.label, *(cell.text for cell in row.cells)) for row in literature_table().rows]


def literature_text(form: str) -> str:
    """The table in "markdown", "latex" (booktabs), or "csv": there a figure a line, with its source.

    Raises:
        ConfigError: another format.
    """
    writers: dict[str, Callable[[], str]] = {
        "markdown": _markdown,
        "latex": lambda: to_latex(literature_table()),
        "csv": _csv,
    }
    if form not in writers:
        raise ConfigError(f"unknown format {form!r}; known: {', '.join(writers)}")
    return writers[form]()


def _markdown() -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rows = [[cell.replace("*", r"\*") for cell in row] for row in literature_rows()]
    rule = ["---", *["---:"] * len(published.LITERATURE_DATASETS)]
    notes = [note.replace("*", r"\*") for note in literature_notes()]
    return "\n".join([*map(line, (LITERATURE_COLUMNS, rule, *rows)), "", *notes, ""])


def _csv() -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("method", "data set", "AUROC (%)", "asterisk", "source"))
    for method, figures in published.LITERATURE.items():
        for dataset, figure in figures.items():
            writer.writerow((method, dataset, figure.auroc, "yes" if figure.asterisk else "no", figure.source))
    return out.getvalue()
