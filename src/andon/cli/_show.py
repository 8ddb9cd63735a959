"""Printing: lines, and tables that never cut a name or a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["Cell", "duration", "err", "out", "say", "show_table", "warn"]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Cell = str | Text
"""A text as it is (no markup), or a styled one."""

_BETWEEN = 2
"""Characters between two columns; the grid draws one of them."""
_LEAST_TEXT = 12
"""A column of texts is folded to no fewer characters than this."""


def say(*parts: Cell) -> None:
    """One line on stdout; the terminal wraps it, so that a path can be copied whole."""
    out.print(Text.assemble(*map(printable, parts)), soft_wrap=True)


def warn(*parts: Cell) -> None:
    """``say`` on stderr."""
    err.print(Text.assemble(*map(printable, parts)), soft_wrap=True)


def printable(cell: Cell) -> Text:
    """A name from a disk may hold what moves a terminal's cursor or colours it: those characters are replaced."""
    text = cell if isinstance(cell, Text) else Text(cell)
    text.plain = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text.plain)
    return text


def duration(seconds: float) -> str:
    """ "4.2 s", "3 min 05 s", "2 h 00 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def show_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    figures: Iterable[str] = (),
    title: str = "",
    last_apart: bool = False,
) -> None:
    """A table on stdout: every name and figure whole, however narrow the terminal.

    Texts are folded where the terminal is too narrow for them, figures are not; where even so there is no room, each
    row becomes a block of lines ``header  value``. Into a pipe or file goes one line a row, as wide as it needs to be.

    Args:
        headers: of the columns.
        rows: as many cells each.
        figures: headers of the columns that hold figures: to the right, never folded.
        title: the line above.
        last_apart: whether the last row (sums, means) is set apart.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    right = [header in set(figures) for header in headers]
    if title:
        say(Text(title, style="bold"))
    if not out.is_terminal:
        _print_plain(headers, cells, right)
    elif _least_width(headers, cells, right) <= out.width:
        out.print(_grid(headers, cells, right, last_apart))
    else:
        _print_blocks(headers, cells)


def _print_plain(headers: Sequence[str], rows: Sequence[Sequence[Text]], right: Sequence[bool]) -> None:
    lines = [list(headers), *([cell.plain for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = [
            " " * (width - cell_len(cell)) + cell if to_right else cell + " " * (width - cell_len(cell))
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ]
        say((" " * _BETWEEN).join(padded).rstrip())


def _columns(headers: Sequence[str], rows: Sequence[Sequence[Text]]) -> list[tuple[str, int]]:
    """Each header, and the width of what is below it."""
    return [(header, max((row[i].cell_len for row in rows), default=0)) for i, header in enumerate(headers)]


def _longest_word(header: str) -> int:
    return max(map(cell_len, header.split()), default=0)


def _least_width(headers: Sequence[str], rows: Sequence[Sequence[Text]], right: Sequence[bool]) -> int:
    least = [
        max(_longest_word(header), width if figures else min(width, _LEAST_TEXT))
        for (header, width), figures in zip(_columns(headers, rows), right, strict=True)
    ]
    return sum(least) + _BETWEEN * len(least)


def _grid(headers: Sequence[str], rows: Sequence[Sequence[Text]], right: Sequence[bool], last_apart: bool) -> Table:
    columns = _columns(headers, rows)
    fits = sum(max(cell_len(header), width) for header, width in columns) + _BETWEEN * len(columns) <= out.width
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _BETWEEN - 1, 0, 0))
    for (header, width), figures in zip(columns, right, strict=True):
        whole = figures and not fits
        grid.add_column(
            Text(header),
            justify="right" if figures else "left",
            overflow="fold",
            width=max(width, _longest_word(header)) if whole else None,
            min_width=min(max(width, _longest_word(header)), max(_LEAST_TEXT, _longest_word(header))),
        )
    for row in rows:
        if last_apart and row is rows[-1]:
            grid.add_section()
        grid.add_row(*row)
    return grid


def _print_blocks(headers: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    width = max(map(cell_len, headers), default=0)
    for row in rows:
        out.print()
        for header, cell in zip(headers, row, strict=True):
            say(Text(header + " " * (width - cell_len(header)), style="dim"), "  ", cell)
