"""AUsPRO in two passes: the defects' pixels, then the others. Why: ``andon.evaluation.localization``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core import GOOD, ConfigError, DataError, GroundTruth
from andon.evaluation.counting import Counts, FloatCounter, IntegerCounter
from andon.evaluation.positives import Run, image_positives, merged, stretches
from andon.evaluation.spool import Column, Scratch

__all__ = ["FPR_LIMITS", "LocalisationResult", "SproCounts"]

FPR_LIMITS: tuple[float, ...] = (0.05, 0.01, 0.1, 0.3, 1.0)
"""Limits of the official evaluator, the one of the paper's tables first."""

_Map = npt.NDArray[Any]
_Float64 = npt.NDArray[np.float64]
_Int64 = npt.NDArray[np.int64]
_Bool = npt.NDArray[np.bool_]


def _segment_weight(above: _Int64, at_least: _Int64, n_negatives: int, limit: float) -> _Float64:
    """``w`` of ``andon.evaluation.localization``: mean of (limit − FPR)⁺ over the segment of a score.

    Args:
        above: negatives above each score ``[E]``.
        at_least: negatives at or above it ``[E]``.
        n_negatives: N, at least 1.
        limit: L in (0, 1].
    """
    start, end = above / n_negatives, at_least / n_negatives
    whole = np.maximum(limit - (start + end) / 2, 0.0)
    cut = (start < limit) & (end > limit)
    whole[cut] = (limit - start[cut]) ** 2 / (2 * (end[cut] - start[cut]))
    whole[start >= limit] = 0.0
    return whole


@dataclass(frozen=True)
class LocalisationResult:
    """Localisation figures of some images; fractions in 0..1, None (or no entry) where undefined.

    Attributes:
        n_images: images counted, good ones included.
        n_channels: channels with at least one pixel.
        n_components: 8-connected components of the images' unions.
        n_negatives: pixels outside the unions.
        auspro: by limit.
        aupro: by limit.
        curve: the FPR–sPRO curve.
    """

    n_images: int
    n_channels: int
    n_components: int
    n_negatives: int
    auspro: dict[float, float]
    aupro: dict[float, float]
    pixel_auroc: float | None
    pixel_ap: float | None
    curve: Callable[[float, int], tuple[_Float64, _Float64]] = field(repr=False, compare=False)
    """``curve(limit, points)``: FPR and sPRO ``[k]``, k ≤ about 2·points, from (0, 0) to FPR = limit; thinned so that
    neighbouring points of the polyline are nowhere further apart than one step of either axis."""


class SproCounts:
    """AUsPRO, AUPRO, pixel AUROC and pixel AP in two passes, exact; by defect type too.

    ``add_positives`` for every image with channels, ``add_negatives`` for every image; of float maps all positives
    before the first negatives, of integer maps (uint8, uint16) in any order. ``LocalisationAccumulator`` sees to that.
    Memory does not depend on the number of good images.

    A defect type's figures are those of its images and all good ones: their negatives, its images' channels.

    Args:
        limits: FPR limits, each in (0, 1].
    """

    def __init__(self, limits: Sequence[float] = FPR_LIMITS) -> None:
        for limit in limits:
            if not 0 < limit <= 1:
                raise ConfigError(f"an FPR limit must be in (0, 1], not {limit:g}")
        self.limits = tuple(float(limit) for limit in limits)
        self._positives: dict[str, list[Run]] = {}
        self._scratch: dict[str, Scratch] = {}
        self._n_channels: dict[str, int] = {}
        self._n_components: dict[str, int] = {}
        self._n_images: dict[str, int] = {}
        self._n_negatives: dict[str, int] = {}
        self._dtype: np.dtype[Any] | None = None
        self._counter: IntegerCounter | FloatCounter | None = None
        self._frozen: tuple[Run, dict[str, Run]] | None = None

    def _checked(self, anomaly_map: _Map, truth: GroundTruth) -> _Map:
        scores = np.asarray(anomaly_map)
        if scores.ndim != 2 or scores.shape != tuple(truth.size):
            raise ValueError(f"the map must be [H, W] at the image's size {truth.size}, got {list(scores.shape)}")
        if scores.dtype == np.float16:
            scores = scores.astype(np.float32)
        if scores.dtype in (np.float32, np.float64):
            highest = scores.max(initial=-np.inf)
            if np.isnan(highest) or highest == np.inf:
                raise DataError(f"an anomaly map holds {'NaN' if np.isnan(highest) else 'infinity'}")
        elif scores.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"maps must be uint8, uint16 or float, not {scores.dtype}")
        if self._dtype is not None and scores.dtype != self._dtype:
            raise DataError(f"anomaly maps of one category must be of one type, not {self._dtype} and {scores.dtype}")
        self._dtype = scores.dtype
        return scores

    def add_positives(self, anomaly_map: _Map, truth: GroundTruth, group: str) -> None:
        """Takes the defect pixels of one image.

        Args:
            anomaly_map: ``[H, W]`` at image size; uint8, uint16 or float; −inf where the method did not see.
            truth: its channels; a channel of saturation 0 (empty) does not count.
            group: its defect type.
        """
        scores = self._checked(anomaly_map, truth)
        if isinstance(self._counter, FloatCounter):
            raise ValueError("all positives of float maps must be added before the first negatives")
        union = truth.union()
        if not union.any():
            return
        positives, n_channels, n_components = image_positives(scores, truth, union)
        self._frozen = None
        runs = self._positives.setdefault(group, [])
        runs.append(Run.of(positives, self._scratch.setdefault(group, Scratch())))
        if scores.dtype.kind == "u" and len(runs) >= 16:  # at most one row a grey level
            self._scratch[group] = Scratch()
            runs[:] = [merged(runs, self._scratch[group])]
        self._n_channels[group] = self._n_channels.get(group, 0) + n_channels
        self._n_components[group] = self._n_components.get(group, 0) + n_components

    def add_negatives(self, anomaly_map: _Map, truth: GroundTruth, group: str = GOOD) -> None:
        """Counts the pixels of one image outside its channels; arguments as in ``add_positives``."""
        scores = self._checked(anomaly_map, truth)
        values = scores[~truth.union()] if truth.channels else scores.reshape(-1)
        if self._counter is None:
            if scores.dtype.kind == "u":
                self._counter = IntegerCounter(scores.dtype)
            else:
                self._counter = FloatCounter(*self._freeze())
        self._counter.add(values, group)
        self._n_images[group] = self._n_images.get(group, 0) + 1
        self._n_negatives[group] = self._n_negatives.get(group, 0) + len(values)

    def add_unseen(self, truth: GroundTruth, group: str = GOOD) -> None:
        """Counts an image whose map does not matter, there being no channel to compare it with."""
        self._n_images[group] = self._n_images.get(group, 0) + 1
        self._n_negatives[group] = self._n_negatives.get(group, 0) + truth.size[0] * truth.size[1]

    def forget_negatives(self) -> None:
        """Takes back all negatives, so that positives may be added again."""
        self._counter = None
        self._n_images, self._n_negatives = {}, {}

    @property
    def n_channels(self) -> int:
        """Channels with at least one pixel so far."""
        return sum(self._n_channels.values())

    def _freeze(self) -> tuple[Run, dict[str, Run]]:
        if self._frozen is None:
            scratch = Scratch()
            by_group = {group: merged(runs, scratch) for group, runs in self._positives.items()}
            everything = merged(list(by_group.values()), scratch) if by_group else self._no_run()
            self._frozen = everything, by_group
        return self._frozen

    def _no_run(self) -> Run:
        return Run.empty(Scratch(), self._dtype or np.dtype(np.float32), 0)

    def _counts(self, group: str | None, positives: Run) -> Counts:
        if isinstance(self._counter, IntegerCounter):
            return self._counter.counts(self._n_images if group is None else (GOOD, group), positives.scores)
        return Counts.zeros(len(positives)) if self._counter is None else self._counter.counts(group)

    def result(self, group: str | None = None) -> LocalisationResult:
        """The figures of all images, or of one defect type (its images and all good ones)."""
        everything, by_group = self._freeze()
        positives = everything if group is None else by_group.get(group, self._no_run())
        has_counts = group is None or group in by_group
        counts = self._counts(group, positives) if has_counts else Counts.zeros(0)
        members = set(self._n_images) | set(self._n_channels) if group is None else {GOOD, group}
        n_negatives = sum(self._n_negatives.get(g, 0) for g in members)
        n_channels = sum(self._n_channels.get(g, 0) for g in members)
        n_components = sum(self._n_components.get(g, 0) for g in members)
        figures = _Figures({}, {}, None, None)
        if n_negatives and n_channels:
            figures = _figures(positives, counts, self.limits, n_negatives, n_channels, n_components)

        def curve(limit: float, points: int) -> tuple[_Float64, _Float64]:
            if not n_negatives or not n_channels:
                return np.zeros(0), np.zeros(0)
            return _curve(positives, counts, n_channels, n_negatives, limit, points)

        return LocalisationResult(
            n_images=sum(self._n_images.get(g, 0) for g in members),
            n_channels=n_channels,
            n_components=n_components,
            n_negatives=n_negatives,
            auspro=figures.auspro,
            aupro=figures.aupro,
            pixel_auroc=figures.pixel_auroc,
            pixel_ap=figures.pixel_ap,
            curve=curve,
        )


@dataclass(frozen=True)
class _Figures:
    auspro: dict[float, float]
    aupro: dict[float, float]
    pixel_auroc: float | None
    pixel_ap: float | None


def _figures(
    positives: Run, counts: Counts, limits: Sequence[float], n_negatives: int, n_channels: int, n_components: int
) -> _Figures:
    """In memory are two float64 columns: what is multiplied. (The product of whole columns, not of parts of them: its
    last digit depends on where they are cut.)"""
    size = len(positives)
    weight, values = np.empty(size), np.empty(size)

    def product(column: Column) -> float:
        for start, stop in stretches(size):
            values[start:stop] = column.read(start, stop)
        return float(weight @ values)

    def weigh(limit: float) -> None:
        for start, stop in stretches(size):
            weight[start:stop] = _segment_weight(*counts.read(start, stop), n_negatives, limit)

    auspro_by, aupro_by = {}, {}
    for limit in limits:
        weigh(limit)
        # (Rounding may exceed 1 by an ulp.)
        auspro_by[limit] = min(1.0, product(positives.spro) / (n_channels * limit))
        aupro_by[limit] = min(1.0, product(positives.pro) / (n_components * limit))
    n_pixels = sum(int(positives.pixels.read(*rows).sum()) for rows in stretches(size))
    weigh(1.0)
    pixel_auroc = min(1.0, product(positives.pixels) / n_pixels)
    lower = 0
    for start, stop in stretches(size):  # the weight of a score is now the precision at it
        pixels = positives.pixels.read(start, stop)
        found = n_pixels - lower - np.cumsum(pixels) + pixels
        weight[start:stop] = found / (found + counts.at_least.read(start, stop))
        lower += int(pixels.sum())
    return _Figures(auspro_by, aupro_by, pixel_auroc, min(1.0, product(positives.pixels) / n_pixels))


def _vertices(positives: Run, counts: Counts, n_channels: int, n_negatives: int) -> Iterator[tuple[_Float64, _Float64]]:
    """FPR and sPRO of the curve's vertices from (0, 0) to FPR 1, some at a time."""
    yield np.zeros(1), np.zeros(1)
    level = np.zeros(1)
    for start, stop in reversed(list(stretches(len(positives)))):
        above, at_least = counts.read(start, stop)
        rise = positives.spro.read(start, stop) / n_channels
        total = np.cumsum(np.concatenate([level, rise[::-1]]))
        level = total[-1:]
        # Each score's segment: from its first negative to its last; between the segments the curve is flat.
        fpr, spro = np.empty(2 * len(rise)), np.empty(2 * len(rise))
        fpr[::2], fpr[1::2] = above[::-1] / n_negatives, at_least[::-1] / n_negatives
        spro[::2], spro[1::2] = total[:-1], total[1:]
        yield fpr, spro
    yield np.ones(1), level


def _cut(vertices: Iterator[tuple[_Float64, _Float64]], limit: float) -> Iterator[tuple[_Float64, _Float64]]:
    """The vertices up to FPR = ``limit``, with one there."""
    last = np.zeros(1), np.zeros(1)
    for fpr, spro in vertices:
        end = int(np.searchsorted(fpr, limit, side="right"))
        if end < len(fpr):
            x, y = np.concatenate([last[0], fpr[:end]]), np.concatenate([last[1], spro[:end]])
            slope = (limit - x[-1]) / (fpr[end] - x[-1])
            yield np.append(x[1:], limit), np.append(y[1:], y[-1] + slope * (spro[end] - y[-1]))
            return
        yield fpr, spro
        last = fpr[-1:], spro[-1:]


def _curve(
    positives: Run, counts: Counts, n_channels: int, n_negatives: int, limit: float, points: int
) -> tuple[_Float64, _Float64]:
    """Vertices of the curve up to FPR = ``limit``, thinned to about ``2·points``.

    Both coordinates ascend, so their sum does: of each step of it the last vertex before and the first after are kept.
    The curve is walked along three times, as it need not fit in memory.
    """

    def vertices() -> Iterator[tuple[_Float64, _Float64]]:
        return _cut(_vertices(positives, counts, n_channels, n_negatives), limit)

    size, end = 0, 0.0
    for fpr, spro in vertices():
        size, end = size + len(fpr), float(fpr[-1] / limit + spro[-1])
    marks = np.linspace(0.0, end, points)
    after = np.zeros(len(marks), dtype=np.intp)
    for fpr, spro in vertices():
        after += np.searchsorted(fpr / limit + spro, marks, side="left")
    after = np.minimum(after, size - 1)
    keep = np.unique(np.concatenate([[0], after, np.maximum(after - 1, 0), [size - 1]]))
    out, start = [], 0
    for fpr, spro in vertices():
        own = keep[np.searchsorted(keep, start) : np.searchsorted(keep, start + len(fpr))] - start
        out.append((fpr[own], spro[own]))
        start += len(fpr)
    x, y = (np.concatenate(axis) for axis in zip(*out, strict=True))
    return x, np.minimum(y, 1.0)
