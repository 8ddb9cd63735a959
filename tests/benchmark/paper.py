"""The tables of the study, read from the text of its paper where that is at hand."""

from __future__ import annotations

import re
from pathlib import Path

PAPER = Path(__file__).parents[2].parent / "shared" / "facts" / "autovi-paper.txt"


def rows_after(marker: str, count: int, skip: int = 0) -> list[list[str]]:
    """Cells of the ``count`` tab-separated rows behind the line that has ``marker``, after ``skip`` of them."""
    lines = PAPER.read_text(encoding="utf-8").splitlines()
    starts = [i for i, line in enumerate(lines) if marker in line]
    assert len(starts) == 1, f"{marker!r} is in {len(starts)} lines"
    found = [line.split("\t") for line in lines[starts[0] + 1 :] if "\t" in line]
    return [[cell.strip() for cell in row] for row in found[skip : skip + count]]


def numbers(cell: str) -> tuple[float, ...]:
    """The figures of a cell, whatever they are set in."""
    return tuple(float(x.replace(",", "")) for x in re.findall(r"\d[\d,]*(?:\.\d+)?", cell))


def text() -> str:
    """The whole text on one line, without emphasis."""
    return re.sub(r"\s+", " ", PAPER.read_text(encoding="utf-8").replace("*", "").replace("- ", "-"))
