"""A table as text: for a terminal, Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from andon.benchmark import ExperimentRecord, Failure
from andon.report.metrics import long_values
from andon.report.results import Results, plain
from andon.report.tables import RowGroup, Table, TableCell, TableRow, published_text

__all__ = ["csv_text", "latex_text", "long_csv", "to_csv", "to_latex", "to_markdown", "to_rich", "to_text"]


def heading(table: Table) -> str:
    """Title, data set, and the table's number in the study."""
    study = f" (the study's Table {table.study_table})" if table.study_table and table.has_published else ""
    return f"{table.dataset} · {table.title}{study}"


def published_row(group: RowGroup, row: TableRow) -> list[str] | None:
    """The study's figures of a row, "" where it printed none; None if it printed none at all."""
    texts = [published_text(cell, group.metric) for cell in row.cells]
    return texts if any(texts) else None


# Terminal


def to_rich(table: Table) -> RenderableType:
    """For a ``rich`` console. The best set is bold, and starred for terminals that show no bold.

    Where the console is too narrow for all columns, the rest of them follow below under the same rows: neither a name
    nor a figure is cut.
    """
    return _TerminalTable(table)


@dataclass(frozen=True)
class _TerminalTable:
    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(heading(self.table), style="bold")
        for columns in _fitting_columns(self.table, options.max_width):
            yield Text()
            yield _rich_grid(self.table, columns, options.max_width)
        yield Text()
        for note in _starred(self.table):
            yield Text(f"  {note}", style="dim")


_PADDING = 2
"""Characters between two columns; the grid draws one of them."""
_LEAST_LABEL = 24
"""Names of rows and columns are folded to no fewer characters than this, or their longest word if it has fewer."""


def _fitting_columns(table: Table, width: int) -> list[list[tuple[int, int]]]:
    """The columns and their widths, in runs that fit side by side, the names of the rows before each."""
    parts: list[list[tuple[int, int]]] = [[]]
    free = room = width - _stub_width(table, width)
    for index in range(len(table.columns)):
        needed = _column_width(table, index)
        if needed + _PADDING > free and parts[-1]:
            parts.append([])
            free = room
        parts[-1].append((index, needed))
        free -= needed + _PADDING
    return parts


def _stub_width(table: Table, width: int) -> int:
    labels = [table.stub, "  published", *(row.label for group in table.groups for row in group.rows)]
    if len(table.groups) > 1:
        labels += [group.metric.title for group in table.groups]
    return min(max(map(cell_len, labels)), max(_LEAST_LABEL, width // 3))


def _column_width(table: Table, index: int) -> int:
    words = max(map(cell_len, table.columns[index].split()), default=1)
    figures = [
        max(cell_len(_rich_cell(row.cells[index]).plain), cell_len(published_text(row.cells[index], group.metric)))
        for group in table.groups
        for row in group.rows
    ]
    return max(min(words, _LEAST_LABEL), *figures, 1)


def _rich_grid(table: Table, columns: Sequence[tuple[int, int]], width: int) -> RichTable:
    stub = _stub_width(table, width)
    # Names of columns that have room on one line get it.
    labels = sum(max(cell_len(table.columns[index]), least) + _PADDING for index, least in columns)
    whole = stub + labels <= width
    grid = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _PADDING - 1, 0, 0))
    grid.add_column(Text(table.stub), overflow="fold", width=stub)
    for index, least in columns:
        label = table.columns[index]
        grid.add_column(
            Text(label), justify="right", overflow="fold", width=max(cell_len(label), least) if whole else least
        )
    for number, group in enumerate(table.groups):
        if len(table.groups) > 1:
            if number:
                grid.add_section()
            grid.add_row(Text(group.metric.title, style="italic"))
        for row in group.rows:
            if row.is_mean:
                grid.add_section()
            cells = [_rich_cell(row.cells[index]) for index, _ in columns]
            grid.add_row(Text(row.label, style="bold" if row.is_mean else ""), *cells)
            printed = published_row(group, row)
            if printed is not None:
                grid.add_row(Text("  published", style="dim"), *(Text(printed[i], style="dim") for i, _ in columns))
    return grid


def _starred(table: Table) -> list[str]:
    return [f"* {note}" if note.startswith("Best of a row") else note for note in table.notes]


def _rich_cell(cell: TableCell) -> Text:
    text = Text(cell.text, style={"ok": "", "failed": "red"}.get(cell.status, "dim"))
    if cell.best:
        text = Text(f"{cell.text} *", style="bold")
    if cell.mark:
        text.append(f" ({cell.mark})", style="yellow")
    return text


def to_text(table: Table, width: int | None = None) -> str:
    """As a terminal of ``width`` characters without colours shows it; None: as wide as it needs to be."""
    console = Console(
        file=io.StringIO(), width=width or _UNBOUNDED, force_terminal=False, color_system=None, legacy_windows=False
    )
    with console.capture() as capture:
        console.print(to_rich(table))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n") + "\n"


_UNBOUNDED = 100_000
"""Wider than any table."""


# Markdown

_MARKDOWN = {c: f"\\{c}" for c in "\\`*_{}[]#|~$"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def _markdown(text: str) -> str:
    return "".join(_MARKDOWN.get(c, c) for c in text)


def to_markdown(table: Table) -> str:
    """GitHub's Markdown; the best set is bold."""
    lines = [f"### {_markdown(heading(table))}", ""]
    lines.append("| " + " | ".join(_markdown(c) for c in (table.stub, *table.columns)) + " |")
    lines.append("|---|" + "---:|" * len(table.columns))
    for group in table.groups:
        if len(table.groups) > 1:
            lines.append(f"| *{_markdown(group.metric.title)}* |" + " |" * len(table.columns))
        for row in group.rows:
            label = f"**{row.label}**" if row.is_mean else _markdown(row.label)
            lines.append(f"| {label} | " + " | ".join(_markdown_cell(cell) for cell in row.cells) + " |")
            printed = published_row(group, row)
            if printed is not None:
                lines.append("| *published* | " + " | ".join(f"*{p}*" if p else "" for p in printed) + " |")
    if table.notes:
        lines += ["", *(f"- {_markdown(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _markdown_cell(cell: TableCell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} ({cell.mark})" if cell.mark else text


# LaTeX

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "–": "--",
    "−": "$-$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "²": "$^2$",
    "χ": r"$\chi$",
    "✓": r"$\surd$",
    "“": "``",
    "”": "''",
    "…": r"\dots{}",
    "�": "?",
} | {c: f"\\{c}" for c in "&%$#_{}"}


def latex_text(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_LATEX.get(c, c) for c in text)


def to_latex(table: Table) -> str:
    """A ``table`` environment; needs the package booktabs (and T1 or a Unicode engine for names beyond ASCII)."""
    width = len(table.columns)
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{latex_text(heading(table))}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{l{'r' * width}}}",
        r"\toprule",
        " & ".join(latex_text(c) for c in (table.stub, *table.columns)) + r" \\",
        r"\midrule",
    ]
    for index, group in enumerate(table.groups):
        if len(table.groups) > 1:
            if index:
                lines.append(r"\midrule")
            lines.append(rf"\multicolumn{{{width + 1}}}{{l}}{{\emph{{{latex_text(group.metric.title)}}}}} \\")
        for row in group.rows:
            if row.is_mean:
                lines.append(r"\cmidrule{1-" + str(width + 1) + "}" if len(table.groups) > 1 else r"\midrule")
            lines.append(" & ".join([latex_text(row.label), *(_latex_cell(cell) for cell in row.cells)]) + r" \\")
            printed = published_row(group, row)
            if printed is not None:
                cells = [rf"\emph{{{latex_text(p)}}}" if p else "" for p in printed]
                lines.append(" & ".join([r"\quad\emph{published}", *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        lines.append(r"\par\smallskip\footnotesize " + " ".join(latex_text(note) for note in table.notes))
    lines.append(r"\end{table}")
    return "\n".join(lines) + "\n"


def _latex_cell(cell: TableCell) -> str:
    text = latex_text(cell.text)
    if cell.best:
        text = rf"\textbf{{{text}}}"
    return rf"{text} {{\footnotesize({latex_text(cell.mark)})}}" if cell.mark else text


# CSV


def to_csv(table: Table) -> str:
    """One line a row; of each method mean, standard deviation, runs, best, published mean and deviation, unrounded.

    Percentages are fractions in 0..1, published ones too. Empty: no such figure; ``status`` says why.
    """
    parts = ("mean", "sd", "runs", "best", "status", "published mean", "published sd")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header = ["dataset", "table", "metric", "row"] + [f"{label}: {part}" for label in table.columns for part in parts]
    writer.writerow([csv_text(h) for h in header])
    for group in table.groups:
        scale = 100 if group.metric.unit == "%" else 1
        for row in group.rows:
            line: list[str] = [csv_text(table.dataset), table.name, group.metric.name, csv_text(row.label)]
            for cell in row.cells:
                summary, printed = cell.summary, cell.published
                line += [
                    _figure(summary.mean if summary else None),
                    _figure(summary.sd if summary else None),
                    str(summary.n) if summary else "0",
                    "yes" if cell.best else "no",
                    cell.status,
                    _figure(printed.mean / scale if printed else None),
                    _figure(printed.sd / scale if printed else None),
                ]
            writer.writerow([csv_text(field) if i == 2 else field for i, field in enumerate(line)])
    return out.getvalue()


_LONG_HEADER = ("dataset", "category", "method", "label", "seed", "metric", "value", "unit", "status", "experiment")


def long_csv(results: Results) -> str:
    """Every figure of every run on a line of its own, unrounded; failed runs have one line without a value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_LONG_HEADER)
    for dataset in results.datasets:
        for row in dataset.rows:
            for column in dataset.columns:
                runs = dataset.get(row, column)
                for line in _long_lines([*runs.records, *runs.failures], column.label):
                    writer.writerow(line)
    return out.getvalue()


def _long_lines(entries: Iterable[ExperimentRecord | Failure], label: str) -> Iterable[list[str]]:
    for entry in entries:
        spec = entry.spec
        head = [csv_text(plain(t)) for t in (spec.dataset, spec.category, spec.method)] + [
            csv_text(label),
            str(spec.seed),
        ]
        if isinstance(entry, Failure):
            yield [*head, "", "", "", "failed", entry.id]
            continue
        for metric, unit, value in long_values(entry):
            status = "undefined" if value is None else "ok"
            yield [*head, csv_text(plain(metric)), _figure(value), unit, status, entry.id]


def _figure(value: float | None) -> str:
    return "" if value is None else repr(value)


def csv_text(text: str) -> str:
    """A spreadsheet would take a name that starts like a formula for one."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
