"""Counting negative pixels against the sorted scores of positive ones, without keeping the negatives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core import GOOD

__all__ = ["Counts", "FloatCounter", "IntegerCounter"]

_Map = npt.NDArray[Any]
_Int64 = npt.NDArray[np.int64]


class Counts:
    """Negatives above, and at or above, each of some scores."""

    def __init__(self, size: int) -> None:
        self.above = np.zeros(size, dtype=np.int64)
        self.at_least = np.zeros(size, dtype=np.int64)

    def add(self, above: _Int64, at_least: _Int64) -> None:
        self.above += above
        self.at_least += at_least


class IntegerCounter:
    """Negatives of 8- and 16-bit maps: a histogram a group; nothing else is needed, in any order."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.levels = int(np.iinfo(dtype).max) + 1
        self.histograms: dict[str, _Int64] = {}

    def add(self, values: _Map, group: str) -> None:
        histogram = self.histograms.setdefault(group, np.zeros(self.levels, dtype=np.int64))
        histogram += _histogram(values, self.levels)

    def counts(self, groups: Iterable[str], edges: _Map) -> Counts:
        total = np.zeros(self.levels + 1, dtype=np.int64)
        for group in groups:
            if group in self.histograms:
                total[:-1] += self.histograms[group]
        at_least = np.cumsum(total[::-1])[::-1]
        out, level = Counts(0), edges.astype(np.int64)
        out.at_least, out.above = at_least[level], at_least[level + 1]
        return out


def _histogram(values: _Map, levels: int) -> _Int64:
    """Number of pixels of each value, int64 ``[levels]``, of uint8 or uint16 values in one dimension."""
    if levels > 256 or len(values) % 2:
        return np.bincount(values, minlength=levels).astype(np.int64, copy=False)
    # Two bytes at a time: bincount's cost is by element, whatever its width.
    pairs = np.bincount(np.ascontiguousarray(values).view(np.uint16), minlength=65536).reshape(256, 256)
    counts: _Int64 = (pairs.sum(0) + pairs.sum(1)).astype(np.int64, copy=False)
    return counts


class FloatCounter:
    """Counts float negatives against known sorted scores ("edges"), some millions at a time.

    A buffer of negatives is filled, sorted, and the sorted edges are searched in it: with a large buffer the search is
    a small part, and both walk through memory in order. Cost: one vectorised sort, 6–10 ns a negative with AVX2
    (several times that with NumPy's AVX-512 sort on AMD Zen 4, whose compress-store is slow). Tables of buckets that
    spare the sort were tried: their scattered reads cost more than it wherever it is fast.
    """

    CHUNK = 2**24

    def __init__(self, edges: _Map, edges_by_group: dict[str, _Map]) -> None:
        self.edges = edges
        self.total, self.good = Counts(len(edges)), Counts(len(edges))
        self.of_group = {group: Counts(len(own)) for group, own in edges_by_group.items()}
        self.places = {group: np.searchsorted(edges, own) for group, own in edges_by_group.items()}
        self.buffer = np.empty(self.CHUNK, dtype=edges.dtype)
        self.used = 0
        self.current = GOOD

    def add(self, values: _Map, group: str) -> None:
        """Counts values ``[n]`` of the edges' type, of an image of a group."""
        if group != self.current:
            self.finish()
            self.current = group
        while len(values):
            n = min(len(values), self.CHUNK - self.used)
            self.buffer[self.used : self.used + n] = values[:n]
            self.used += n
            values = values[n:]
            if self.used == self.CHUNK:
                self.finish()

    def finish(self) -> None:
        """Makes the counts complete; more may be added after it."""
        if not self.used:
            return
        values = self.buffer[: self.used]
        values.sort()
        left = np.searchsorted(values, self.edges, side="left")
        right = left.copy()
        tied = np.flatnonzero(values[np.minimum(left, len(values) - 1)] == self.edges)
        right[tied] = np.searchsorted(values, self.edges[tied], side="right")
        above, at_least = len(values) - right, len(values) - left
        self.used = 0
        self.total.add(above, at_least)
        if self.current == GOOD:
            self.good.add(above, at_least)
        elif self.current in self.of_group:
            place = self.places[self.current]
            self.of_group[self.current].add(above[place], at_least[place])

    def of_type(self, group: str) -> Counts:
        """Negatives of the good images and the group's, at the group's own edges."""
        place = self.places[group]
        out = Counts(len(place))
        out.add(self.good.above[place], self.good.at_least[place])
        out.add(self.of_group[group].above, self.of_group[group].at_least)
        return out
