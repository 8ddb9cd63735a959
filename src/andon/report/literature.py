"""The study's Table 2: what others had published of the methods on other data sets."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from andon.benchmark import published
from andon.core import ConfigError

__all__ = ["LITERATURE_COLUMNS", "LITERATURE_NOTES", "literature_rows", "literature_text"]

LITERATURE_COLUMNS = ("method", *published.LITERATURE_DATASETS)
LITERATURE_NOTES = (
    f"Image AUROC, %, mean over a data set's categories; as quoted in Table 2 of {published.SOURCE}.",
    "* from the Papers with Code benchmark; the others from the method's own paper. –: the study quotes none.",
)


def literature_rows() -> list[tuple[str, ...]]:
    """A method a row, under ``LITERATURE_COLUMNS``: "91.5*", or "–" where the study quotes no figure."""
    rows = []
    for method, figures in published.LITERATURE.items():
        cells = [figures.get(dataset) for dataset in published.LITERATURE_DATASETS]
        rows.append((method, *("–" if f is None else f"{f.auroc}{'*' * f.asterisk}" for f in cells)))
    return rows


def literature_text(form: str) -> str:
    """The table in "markdown", "latex" (booktabs), or "csv": there a figure a line, with its source.

    Raises:
        ConfigError: another format.
    """
    writers: dict[str, Callable[[], str]] = {"markdown": _markdown, "latex": _latex, "csv": _csv}
    if form not in writers:
        raise ConfigError(f"unknown format {form!r}; known: {', '.join(writers)}")
    return writers[form]()


def _markdown() -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rows = [[cell.replace("*", r"\*") for cell in row] for row in literature_rows()]
    rule = ["---", *["---:"] * len(published.LITERATURE_DATASETS)]
    notes = [note.replace("*", r"\*") for note in LITERATURE_NOTES]
    return "\n".join([*map(line, (LITERATURE_COLUMNS, rule, *rows)), "", *notes, ""])


def _latex() -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(_escaped(cell) for cell in cells) + r" \\"

    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\caption{Published image-level AUROCs (\%).}",
            rf"\begin{{tabular}}{{l{'r' * len(published.LITERATURE_DATASETS)}}}",
            r"\toprule",
            line([LITERATURE_COLUMNS[0].capitalize(), *LITERATURE_COLUMNS[1:]]),
            r"\midrule",
            *map(line, literature_rows()),
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\smallskip\footnotesize " + " ".join(map(_escaped, LITERATURE_NOTES)),
            r"\end{table}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    return text.replace("%", r"\%").replace("*", r"\textsuperscript{*}").replace("–", "--")


def _csv() -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("method", "data set", "AUROC (%)", "asterisk", "source"))
    for method, figures in published.LITERATURE.items():
        for dataset, figure in figures.items():
            writer.writerow((method, dataset, figure.auroc, "yes" if figure.asterisk else "no", figure.source))
    return out.getvalue()
