"""The defects' pixels by score: of an image in memory, of many in a scratch file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core import GroundTruth
from andon.evaluation.spool import Column, Scratch

__all__ = ["Positives", "Run", "image_positives", "merged", "stretches"]

ROWS = 2**19
"""Rows of a column that are in memory at once."""
_STRIDE = 2**12

_Map = npt.NDArray[Any]
_Float64 = npt.NDArray[np.float64]
_Int64 = npt.NDArray[np.int64]
_Bool = npt.NDArray[np.bool_]


def stretches(size: int) -> Iterator[tuple[int, int]]:
    """Start and stop of consecutive rows, some at a time."""
    for start in range(0, size, ROWS):
        yield start, min(start + ROWS, size)


def _sums(index: npt.NDArray[np.intp], values: _Map, size: int) -> _Float64:
    """Sum of the values by index, float64 ``[size]``."""
    return np.bincount(index, values, size).astype(np.float64, copy=False)


@dataclass
class Positives:
    """Scores of defect pixels with what each adds: sorted, distinct.

    Attributes:
        scores: distinct scores, ascending ``[E]``.
        spro: Σ 1/s_i over channels whose s_i highest pixels have this score ``[E]``.
        pro: Σ 1/area over components' pixels of this score ``[E]``.
        pixels: pixels of the unions with this score ``[E]``.
    """

    scores: _Map
    spro: _Float64
    pro: _Float64
    pixels: _Int64

    @classmethod
    def merge(cls, parts: Sequence[Positives]) -> Positives:
        scores, inverse = np.unique(np.concatenate([p.scores for p in parts]), return_inverse=True)
        size = len(scores)
        return cls(
            scores,
            _sums(inverse, np.concatenate([p.spro for p in parts]), size),
            _sums(inverse, np.concatenate([p.pro for p in parts]), size),
            # Counts as float64 weights are exact below 2^53.
            _sums(inverse, np.concatenate([p.pixels for p in parts]), size).astype(np.int64),
        )


@dataclass
class Run:
    """``Positives`` in a scratch file.

    Attributes:
        marks: every ``_STRIDE``-th score, in memory.
    """

    scores: Column
    spro: Column
    pro: Column
    pixels: Column
    marks: _Map = field(repr=False)

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls, scratch: Scratch, dtype: np.dtype[Any], size: int) -> Run:
        """Room for ``size`` rows; ``fill`` writes them."""
        spro, pro = scratch.column(np.float64, size), scratch.column(np.float64, size)
        pixels = scratch.column(np.int64, size)
        return cls(scratch.column(dtype, size), spro, pro, pixels, np.zeros(0, dtype=dtype))

    @classmethod
    def of(cls, positives: Positives, scratch: Scratch) -> Run:
        """The rows of one image."""
        run = cls.empty(scratch, positives.scores.dtype, len(positives.scores))
        run.fill([positives])
        return run

    def fill(self, parts: Sequence[Positives] | Iterator[Positives]) -> None:
        """Writes rows that ascend from part to part, and gives back what room is left."""
        size, marks = 0, [self.marks]
        for part in parts:
            self.scores.write(size, part.scores)
            self.spro.write(size, part.spro)
            self.pro.write(size, part.pro)
            self.pixels.write(size, part.pixels)
            marks.append(part.scores[-size % _STRIDE :: _STRIDE])
            size += len(part.scores)
        for column in (self.scores, self.spro, self.pro, self.pixels):
            column.size = size
        self.marks = np.concatenate(marks)

    def read(self, start: int, stop: int) -> Positives:
        return Positives(*(c.read(start, stop) for c in (self.scores, self.spro, self.pro, self.pixels)))

    def up_to(self, score: Any) -> int:
        """Number of rows of a score, and below it."""
        block = int(np.searchsorted(self.marks, score, side="right"))
        if block == 0:
            return 0
        start = (block - 1) * _STRIDE
        rows = self.scores.read(start, min(start + _STRIDE, len(self)))
        return start + int(np.searchsorted(rows, score, side="right"))


def merged(runs: Sequence[Run], scratch: Scratch) -> Run:
    """One run with the rows of all; rows of one score are added in the order of the runs, as ``Positives.merge``."""
    if len(runs) == 1:
        return runs[0]
    out = Run.empty(scratch, runs[0].scores.dtype, sum(len(run) for run in runs))
    out.fill(_merged_parts(runs))
    return out


def _merged_parts(runs: Sequence[Run]) -> Iterator[Positives]:
    """The scores are cut into ranges of about ``ROWS`` rows: what lies in a range is merged in memory."""
    marks = np.sort(np.concatenate([run.marks for run in runs]))
    step = max(1, ROWS // _STRIDE)
    done = [0] * len(runs)
    for cut in [*np.unique(marks[step::step]), None]:
        stops = [len(run) if cut is None else run.up_to(cut) for run in runs]
        parts = [run.read(*rows) for run, *rows in zip(runs, done, stops, strict=True) if rows[0] < rows[1]]
        if parts:
            yield Positives.merge(parts)
        done = stops


def image_positives(scores: _Map, truth: GroundTruth, union: _Bool) -> tuple[Positives, int, int]:
    """What the defect pixels of one image add, and its numbers of channels and components."""
    import cv2

    inside = np.flatnonzero(union)
    values = scores.ravel()[inside]
    spro = np.zeros(len(inside))
    n_channels = 0
    for channel in truth.channels:
        s = channel.saturation
        if s <= 0:
            continue
        n_channels += 1
        member = np.flatnonzero(channel.mask.ravel()[inside])
        own = values[member]
        if s < len(own):
            least = np.partition(own, len(own) - s)[len(own) - s]  # score of the s-th highest pixel
            higher, tied = own > least, own == least
            # Which of the pixels that tie for the last places are among the s highest does not matter: share evenly.
            share = (s - np.count_nonzero(higher)) / np.count_nonzero(tied)
            spro[member] += (higher + tied * share) / s
        else:
            spro[member] += 1.0 / s
    n_labels, labels = cv2.connectedComponents(union.astype(np.uint8), connectivity=8)
    label = labels.ravel()[inside]
    pro = 1.0 / np.bincount(label, minlength=n_labels)[label]
    distinct, inverse = np.unique(values, return_inverse=True)
    size = len(distinct)
    positives = Positives(
        distinct,
        _sums(inverse, spro, size),
        _sums(inverse, pro, size),
        np.bincount(inverse, minlength=size).astype(np.int64),
    )
    return positives, n_channels, n_labels - 1
