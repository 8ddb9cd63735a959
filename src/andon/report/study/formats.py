"""The tables as LaTeX (booktabs) and CSV, figures as files of their own."""

from __future__ import annotations

import csv
import importlib.util
import io
import re
from collections.abc import Sequence

from andon.report.renderers import csv_text, latex_text
from andon.report.study.model import Block, Cell, StudyRow, StudyTable

__all__ = ["can_write_pdf", "footnote_mark", "standalone_svg", "svg_to_pdf", "table_csv", "to_latex"]

_VARIABLE = re.compile(r"var\(--[a-z0-9-]+,([^()]*)\)")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def footnote_mark(index: int) -> str:
    """ "a", "b", … "z", "aa", …"""
    mark = _LETTERS[index % 26]
    return mark if index < 26 else footnote_mark(index // 26 - 1) + mark


# LaTeX


def to_latex(table: StudyTable) -> str:
    """A ``table`` environment, ready to be pasted; needs booktabs and graphicx, and tabularx for tables of words.

    A block that is wider than the line is shrunk to it.

    A table that is not there is a comment that says why.
    """
    if table.missing:
        return f"% {table.name or table.title}: not here, {table.missing}\n".replace("\n", " ").strip() + "\n"
    marks = {note: footnote_mark(i) for i, note in enumerate(table.footnotes())}
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{latex_text(table.title)}}}",
        rf"\label{{tab:{table.key}}}",
    ]
    for number, block in enumerate(table.blocks):
        lines += [r"\par\medskip"] if number else []
        lines += [rf"\emph{{{latex_text(block.title)}}}\par\smallskip"] if block.title else []
        lines += _latex_block(table, block, marks)
    notes = [rf"\textsuperscript{{{mark}}}~{latex_text(note)}" for note, mark in marks.items()]
    notes = [*(latex_text(note) for note in table.notes), *notes]
    if notes:
        lines.append(r"\par\smallskip\footnotesize\raggedright " + " ".join(notes))
    lines.append(r"\end{table}")
    return "\n".join(lines) + "\n"


def _latex_block(table: StudyTable, block: Block, marks: dict[str, str]) -> list[str]:
    count = len(block.columns)
    begin = rf"\resizebox{{\ifdim\width>\linewidth\linewidth\else\width\fi}}{{!}}{{\begin{{tabular}}{{l{'r' * count}}}"
    end = r"\end{tabular}}"
    if block.words:
        begin, end = rf"\begin{{tabularx}}{{\linewidth}}{{l{'X' * count}}}", r"\end{tabularx}"
    lines = [begin, r"\toprule", " & ".join(latex_text(t) for t in (table.stub, *block.columns)) + r" \\", r"\midrule"]
    kind = block.rows[0].kind if block.rows else ""
    for row in block.rows:
        if row.kind != kind:
            lines.append(r"\midrule")
            kind = row.kind
        label = latex_text(row.label) + _superscript(row.notes, marks)
        lines.append(" & ".join([label, *(_latex_cell(cell) for cell in row.cells)]) + r" \\")
        if row.has_published:
            label = r"\quad\emph{published}" + _superscript(row.published_notes, marks)
            cells = [rf"\emph{{{latex_text(c.published)}}}" if c.published else "" for c in row.cells]
            lines.append(" & ".join([label, *cells]) + r" \\")
    return [*lines, r"\bottomrule", end]


def _superscript(notes: Sequence[str], marks: dict[str, str]) -> str:
    return rf"\textsuperscript{{{','.join(marks[n] for n in notes)}}}" if notes else ""


def _latex_cell(cell: Cell) -> str:
    text = latex_text(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    text = rf"\underline{{{text}}}" if cell.underlined else text
    return rf"{text} {{\footnotesize({latex_text(cell.mark)})}}" if cell.mark else text


# CSV

_HEADER = (
    "table", "title", "block", "row", "kind", "column", "text", "value", "sd", "runs", "best", "underlined", "mark",
    "published", "published value", "published sd", "note", "experiments",
)  # fmt: skip


def table_csv(tables: Sequence[StudyTable]) -> str:
    """Every cell of every table on a line of its own, unrounded, with the experiments behind it.

    Values are in the metric's own unit (percentages as fractions), published ones in the print's. A table that is not
    there has one line that says why.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_HEADER)
    for table in tables:
        head = [table.key, table.title]
        if table.missing:
            line = [*head, *([""] * (len(_HEADER) - 4)), f"not here: {table.missing}", ""]
            writer.writerow([csv_text(t) for t in line])
        for block in table.blocks:
            for row in block.rows:
                for column, cell in zip(block.columns, row.cells, strict=True):
                    writer.writerow([csv_text(t) for t in [*head, *_line(block, row, column, cell)]])
    return out.getvalue()


def _line(block: Block, row: StudyRow, column: str, cell: Cell) -> list[str]:
    def number(value: float | None) -> str:
        return "" if value is None else repr(value)

    return [
        block.title,
        row.label,
        row.kind,
        column,
        cell.text,
        number(cell.value),
        number(cell.sd),
        str(cell.n) if cell.n else "",
        "yes" if cell.best else "",
        "yes" if cell.underlined else "",
        cell.mark,
        cell.published,
        number(cell.published_value),
        number(cell.published_sd),
        "; ".join(t for t in (cell.tip, *row.notes) if t),
        " ".join(cell.ids),
    ]


# Figures


def standalone_svg(svg: str) -> str:
    """A page's drawing as a file of its own: colours as they are in the light page, a size, black text."""
    svg = _VARIABLE.sub(r"\1", svg).replace("currentColor", "#000")
    found = re.search(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', svg)
    head = svg[: svg.index(">")]
    if found and " width=" not in head:
        svg = svg.replace("<svg ", f'<svg width="{found[1]}" height="{found[2]}" ', 1)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{svg}\n'


def can_write_pdf() -> bool:
    """Whether the extra ``andon[pdf]`` is there."""
    return importlib.util.find_spec("cairosvg") is not None


def svg_to_pdf(svg: str) -> bytes:
    """A standalone drawing as a PDF of one page, its text as text; needs ``andon[pdf]``."""
    import cairosvg

    content: bytes = cairosvg.svg2pdf(bytestring=svg.encode())
    return content
