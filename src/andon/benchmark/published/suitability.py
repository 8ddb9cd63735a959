"""Table 14 of the study: which method suits which problem, as its authors judged."""

from __future__ import annotations

from andon.benchmark.published.cells import METHODS

__all__ = ["CHARACTERISTICS", "published_suitability"]

_PRINTED = """
    High variability  0 0 1 0 0 1
    Small defects     0 1 0 1 1 1
    Complex scenes    0 0 1 1 0 1
    Struct. defects   1 1 1 1 1 1
    Logical defects   0 0 0 1 0 0
"""


def _parse() -> dict[tuple[str, str], bool]:
    cells = {}
    for line in _PRINTED.strip().splitlines():
        name, marks = line.strip()[:16].strip(), line.split()[-len(METHODS) :]
        for method, mark in zip(METHODS, marks, strict=True):
            cells[name, method] = mark == "1"
    return cells


_CELLS = _parse()
CHARACTERISTICS: tuple[str, ...] = tuple(dict.fromkeys(name for name, _ in _CELLS))
"""Rows of Table 14, as printed."""


def published_suitability(characteristic: str, method: str) -> bool | None:
    """Whether Table 14 marks the method as suitable; None for a method or row that it does not have."""
    return _CELLS.get((characteristic, method))
