"""What the results section is made of: tables in blocks, figures, and their words, free of any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

__all__ = ["MOST_COLUMNS", "Block", "Cell", "Figure", "StudyRow", "StudyTable", "folded", "missing_table"]

MOST_COLUMNS = 7
"""Columns beside the names of the rows: six categories and their mean. More are folded into further blocks."""


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what is shown.
        value, sd: unrounded, in the metric's own unit (fractions for percentages); None for words.
        n: runs behind it.
        best: of its column's best set.
        underlined: an improvement.
        muted: there is no figure.
        mark: "2/3", "cached" …
        published: the study's figure, as text; "" where none stands beside it.
        published_value, published_sd: the same as numbers, in the print's unit.
        tip: what the reader may want to know of it.
        ids: experiments that it is made from.
    """

    text: str
    value: float | None = None
    sd: float | None = None
    n: int = 0
    best: bool = False
    underlined: bool = False
    muted: bool = False
    mark: str = ""
    published: str = ""
    published_value: float | None = None
    published_sd: float | None = None
    tip: str = ""
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyRow:
    """One row.

    Attributes:
        label: a method, a category …
        notes: what holds for the row; each becomes a footnote.
        published_notes: what holds for its published figures.
        kind: "" or "fused" (set apart) or "other" (not of the study).
    """

    label: str
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    published_notes: tuple[str, ...] = ()
    kind: str = ""

    @property
    def has_published(self) -> bool:
        return any(cell.published for cell in self.cells)


@dataclass(frozen=True)
class Block:
    """Rows under one head.

    Attributes:
        title: "" where the table has one block.
        columns: names of the columns.
        words: cells are sentences rather than figures: shown left-aligned and wrapped.
    """

    columns: tuple[str, ...]
    rows: tuple[StudyRow, ...]
    title: str = ""
    words: bool = False


@dataclass(frozen=True)
class StudyTable:
    """A table.

    Attributes:
        key: "table-6", file name and anchor.
        title: its caption.
        number: in the study; None for one of Andon's own.
        stub: what rows are.
        notes: printed under it.
        missing: why it is not there; "" where it is.
    """

    key: str
    title: str
    blocks: tuple[Block, ...] = ()
    number: int | None = None
    stub: str = "Method"
    notes: tuple[str, ...] = ()
    missing: str = ""

    @property
    def name(self) -> str:
        """ "Table 6"; for Andon's own its title alone stands."""
        return f"Table {self.number}" if self.number is not None else ""

    @property
    def rows(self) -> list[StudyRow]:
        return [row for block in self.blocks for row in block.rows]

    @property
    def has_published(self) -> bool:
        return any(row.has_published for row in self.rows)

    def footnotes(self) -> tuple[str, ...]:
        """Notes of rows in the order of their first appearance; their places are the footnotes' marks."""
        rows = self.rows
        return tuple(dict.fromkeys(note for row in rows for note in (*row.notes, *row.published_notes)))


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        key: file name and anchor.
        title: its caption.
        svg: the drawing.
        text: what the reader has to know.
        styles: (style index, label) of the legend.
        missing: why it is not there; "" where it is.
        ids: experiments that it is made from.
    """

    key: str
    title: str
    svg: str = field(default="", repr=False)
    text: str = ""
    styles: tuple[tuple[int, str], ...] = ()
    missing: str = ""
    ids: tuple[str, ...] = ()


def missing_table(key: str, title: str, why: str, number: int | None = None) -> StudyTable:
    """A table that says why it is not there."""
    return StudyTable(key, title, number=number, missing=why)


def folded(block: Block, most: int = MOST_COLUMNS) -> tuple[Block, ...]:
    """The block, its columns in as few blocks of at most ``most`` as hold them, of nearly equal width."""
    count = len(block.columns)
    if count <= most or block.words:
        return (block,)
    parts = -(-count // most)
    edges = [round(i * count / parts) for i in range(parts + 1)]
    blocks = []
    for number, (start, stop) in enumerate(pairwise(edges), 1):
        rows: Sequence[StudyRow] = [replace(row, cells=row.cells[start:stop]) for row in block.rows]
        title = f"{block.title} ({number} of {parts})" if block.title else f"Part {number} of {parts}"
        blocks.append(replace(block, columns=block.columns[start:stop], rows=tuple(rows), title=title))
    return tuple(blocks)
