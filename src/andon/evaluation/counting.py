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
    """Counts float negatives against known sorted scores ("edges") without keeping or sorting most of them.

    A monotone map q takes values to about eight times as many buckets as there are edges. A value in a bucket that
    holds no edge is on the same side of every edge as its bucket, so its histogram count is enough. Only values that
    share a bucket with an edge are ambiguous: they are kept, sorted some millions at a time, and the edges searched
    among them.
    Rounding in q does no harm: it is monotone (x < y never gives q(x) > q(y)), and edges go through the same q.
    """

    MAX_BUCKETS = 2**22
    MAX_KEPT = 2**22
    BLOCK = 2**16  # values at a time: their temporaries stay in the second-level cache

    def __init__(self, edges: _Map, edges_by_group: dict[str, _Map]) -> None:
        self.edges = edges
        self.total, self.good = Counts(len(edges)), Counts(len(edges))
        self.of_group = {group: Counts(len(own)) for group, own in edges_by_group.items()}
        self.places = {group: np.searchsorted(edges, own) for group, own in edges_by_group.items()}
        self.current = GOOD
        # −inf (pixels that the method did not see) is below every finite edge and equal to an edge of −inf.
        self.n_lowest = int(len(edges) > 0 and bool(np.isneginf(edges[0])))
        finite = edges[self.n_lowest :]
        self.finite = finite
        if len(finite):
            self.low = finite[0]
            self.buckets = min(self.MAX_BUCKETS, 2 ** max(8, int(8 * len(finite) - 1).bit_length()))
            # Halves, since the span of two finite floats can overflow.
            half_span = float(finite[-1]) / 2 - float(finite[0]) / 2
            scale = self.buckets / half_span / 2 if half_span > 0 else 1.0
            self.scale = finite.dtype.type(min(scale, float(np.finfo(finite.dtype).max)))
            self.edge_bucket = self._bucket(finite)
            self.ambiguous = np.zeros(self.buckets + 2, dtype=bool)
            self.ambiguous[self.edge_bucket] = True
        else:
            self.buckets = 0
        self.histogram = np.zeros(self.buckets + 2, dtype=np.int64)
        self.kept: list[_Map] = []
        self.n_kept = 0
        self.n_pending = 0
        self.n_pending_lowest = 0

    def _bucket(self, values: _Map) -> _Int64:
        """0 below the lowest finite edge, else 1 + floor((value − lowest) · scale), at most the last bucket."""
        with np.errstate(over="ignore"):
            q = values - self.low
            q *= self.scale
        q += 1
        np.clip(q, 0, self.buckets + 1, out=q)
        buckets: _Int64 = q.astype(np.int64)
        return buckets

    def add(self, values: _Map, group: str) -> None:
        if group != self.current:
            self._fold()
            self.current = group
        values = values.astype(self.edges.dtype, copy=False)
        self.n_pending += len(values)
        if self.n_lowest:
            self.n_pending_lowest += int(np.count_nonzero(np.isneginf(values)))
        if not len(self.finite):
            return
        for start in range(0, len(values), self.BLOCK):
            block = values[start : start + self.BLOCK]
            q = self._bucket(block)
            np.add.at(self.histogram, q, 1)
            unsure = block[self.ambiguous[q]]
            if len(unsure):
                self.kept.append(unsure)
                self.n_kept += len(unsure)
        if self.n_kept >= self.MAX_KEPT:
            self._sort_kept()

    def _add(self, above: _Int64, at_least: _Int64, n_lowest: int) -> None:
        """Adds counts at the edges from ``n_lowest`` on (0, or 1 for finite ones) to all that the group belongs to."""
        places = slice(n_lowest, None)
        self.total.above[places] += above
        self.total.at_least[places] += at_least
        if self.current == GOOD:
            self.good.above[places] += above
            self.good.at_least[places] += at_least
        elif self.current in self.of_group:
            own, place = self.of_group[self.current], self.places[self.current]
            first = int(np.searchsorted(place, n_lowest))
            own.above[first:] += above[place[first:] - n_lowest]
            own.at_least[first:] += at_least[place[first:] - n_lowest]

    def _sort_kept(self) -> None:
        if not self.n_kept:
            return
        values = np.sort(np.concatenate(self.kept))
        self.kept, self.n_kept = [], 0
        left = np.searchsorted(values, self.finite, side="left")
        right = left.copy()
        tied = np.flatnonzero(values[np.minimum(left, len(values) - 1)] == self.finite)
        right[tied] = np.searchsorted(values, self.finite[tied], side="right")
        self._add(len(values) - right, len(values) - left, self.n_lowest)

    def _fold(self) -> None:
        """Brings what is pending of the current group into its counts at the edges."""
        if not self.n_pending:
            return
        if len(self.finite):
            self._sort_kept()
            self.histogram[self.ambiguous] = 0  # these were counted one by one
            from_bucket = np.cumsum(self.histogram[::-1])[::-1]
            higher = from_bucket[self.edge_bucket]
            self._add(higher, higher, self.n_lowest)
            self.histogram[:] = 0
        if self.n_lowest:
            at_lowest = np.zeros(len(self.edges), dtype=np.int64)
            above_lowest = at_lowest.copy()
            at_lowest[0], above_lowest[0] = self.n_pending, self.n_pending - self.n_pending_lowest
            self._add(above_lowest, at_lowest, 0)
        self.n_pending = self.n_pending_lowest = 0

    def finish(self) -> None:
        self._fold()

    def of_type(self, group: str) -> Counts:
        """Negatives of the good pictures and the group's, at the group's own edges."""
        out, own, place = Counts(0), self.of_group[group], self.places[group]
        out.above = own.above + self.good.above[place]
        out.at_least = own.at_least + self.good.at_least[place]
        return out
