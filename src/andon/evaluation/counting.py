"""Counting negative pixels against the sorted scores of positive ones, without keeping the negatives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core import GOOD
from andon.evaluation.positives import Run, stretches
from andon.evaluation.spool import Column, Scratch

__all__ = ["Counts", "FloatCounter", "IntegerCounter"]

_Map = npt.NDArray[Any]
_Int64 = npt.NDArray[np.int64]


@dataclass
class Counts:
    """Negatives above, and at or above, each of some scores: int64 columns."""

    above: Column
    at_least: Column

    def __len__(self) -> int:
        return len(self.above)

    @classmethod
    def zeros(cls, size: int, scratch: Scratch | None = None) -> Counts:
        scratch = scratch or Scratch()
        return cls(scratch.column(np.int64, size), scratch.column(np.int64, size))

    def read(self, start: int, stop: int) -> tuple[_Int64, _Int64]:
        return self.above.read(start, stop), self.at_least.read(start, stop)

    def add(self, start: int, above: _Int64, at_least: _Int64) -> None:
        """Adds counts of the rows from ``start`` on."""
        for column, more in ((self.above, above), (self.at_least, at_least)):
            column.write(start, column.read(start, start + len(more)) + more)


class IntegerCounter:
    """Negatives of 8- and 16-bit maps: a histogram a group; nothing else is needed, in any order."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.levels = int(np.iinfo(dtype).max) + 1
        self.histograms: dict[str, _Int64] = {}

    def add(self, values: _Map, group: str) -> None:
        histogram = self.histograms.setdefault(group, np.zeros(self.levels, dtype=np.int64))
        histogram += _histogram(values, self.levels)

    def counts(self, groups: Iterable[str], edges: Column) -> Counts:
        total = np.zeros(self.levels + 1, dtype=np.int64)
        for group in groups:
            if group in self.histograms:
                total[:-1] += self.histograms[group]
        at_least = np.cumsum(total[::-1])[::-1]
        level = edges.read(0, len(edges)).astype(np.int64)
        out = Counts.zeros(len(edges))
        out.add(0, at_least[level + 1], at_least[level])
        return out


def _histogram(values: _Map, levels: int) -> _Int64:
    """Number of pixels of each value, int64 ``[levels]``, of uint8 or uint16 values in one dimension."""
    if levels > 256 or len(values) % 2:
        return np.bincount(values, minlength=levels).astype(np.int64, copy=False)
    # Two bytes at a time: bincount's cost is by element, whatever its width.
    pairs = np.bincount(np.ascontiguousarray(values).view(np.uint16), minlength=65536).reshape(256, 256)
    counts: _Int64 = (pairs.sum(0) + pairs.sum(1)).astype(np.int64, copy=False)
    return counts


class _Own:
    """Counts at a group's own edges."""

    def __init__(self, run: Run, edges: Column, scratch: Scratch) -> None:
        self.run, self._edges = run, edges
        self.counts = Counts.zeros(len(run), scratch)

    @cached_property
    def rows(self) -> list[tuple[int, int]]:
        """Of each stretch of all edges, the group's that lie in it."""
        stops = [self.run.up_to(self._edges.read(stop - 1, stop)[0]) for _, stop in stretches(len(self._edges))]
        return list(zip([0, *stops], stops, strict=False))


class FloatCounter:
    """Counts float negatives against known sorted scores ("edges"), some millions at a time.

    A buffer of negatives is filled, sorted, and the sorted edges are searched in it: with a large buffer the search is
    a small part, and both walk through memory in order. Cost: one vectorised sort, 6–10 ns a negative with AVX2
    (several times that with NumPy's AVX-512 sort on AMD Zen 4, whose compress-store is slow). Tables of buckets that
    spare the sort were tried: their scattered reads cost more than it wherever it is fast.

    Edges and counts lie in scratch files (48 bytes of counts an edge); in memory are the buffer and a stretch of edges.
    """

    CHUNK = 2**24

    def __init__(self, everything: Run, by_group: dict[str, Run]) -> None:
        self.edges = everything.scores
        scratch = Scratch()
        self.good, self.others = Counts.zeros(len(everything), scratch), Counts.zeros(len(everything), scratch)
        self.of_group = {group: _Own(run, self.edges, scratch) for group, run in by_group.items()}
        self.buffer: _Map | None = None
        self.used = 0
        self.current = GOOD

    def add(self, values: _Map, group: str) -> None:
        """Counts values ``[n]`` of the edges' type, of an image of a group."""
        if group != self.current:
            self.finish()
            self.current = group
        if self.buffer is None:
            self.buffer = np.empty(self.CHUNK, dtype=self.edges.dtype)
        while len(values):
            n = min(len(values), self.CHUNK - self.used)
            self.buffer[self.used : self.used + n] = values[:n]
            self.used += n
            values = values[n:]
            if self.used == self.CHUNK:
                self.finish()

    def finish(self) -> None:
        """Makes the counts complete; more may be added after it."""
        if self.buffer is None or not self.used:
            return
        values = self.buffer[: self.used]
        values.sort()
        self.used = 0
        target = self.good if self.current == GOOD else self.others
        own = self.of_group.get(self.current) if self.current != GOOD else None
        for number, (start, stop) in enumerate(stretches(len(self.edges))):
            edges = self.edges.read(start, stop)
            left = np.searchsorted(values, edges, side="left")
            right = left.copy()
            tied = np.flatnonzero(values[np.minimum(left, len(values) - 1)] == edges)
            right[tied] = np.searchsorted(values, edges[tied], side="right")
            above, at_least = len(values) - right, len(values) - left
            target.add(start, above, at_least)
            if own is not None:
                first, last = own.rows[number]
                place = np.searchsorted(edges, own.run.scores.read(first, last))
                own.counts.add(first, above[place], at_least[place])

    def counts(self, group: str | None = None) -> Counts:
        """Negatives of all images, or of the good ones and a group's at the group's own edges, so far."""
        self.finish()
        self.buffer = None  # room for the figures
        own = None if group is None else self.of_group[group]
        out = Counts.zeros(len(self.edges) if own is None else len(own.run))
        for number, (start, stop) in enumerate(stretches(len(self.edges))):
            above, at_least = self.good.read(start, stop)
            first, last, more = start, stop, self.others
            if own is not None:
                (first, last), more = own.rows[number], own.counts
                place = np.searchsorted(self.edges.read(start, stop), own.run.scores.read(first, last))
                above, at_least = above[place], at_least[place]
            more_above, more_at_least = more.read(first, last)
            out.add(first, above + more_above, at_least + more_at_least)
        return out
