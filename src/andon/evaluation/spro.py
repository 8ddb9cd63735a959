"""AUsPRO in two passes: the defects' pixels, then the others. Why: ``andon.evaluation.localization``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core import GOOD, ConfigError, DataError, GroundTruth
from andon.evaluation.counting import Counts, FloatCounter, IntegerCounter

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


def _sums(index: npt.NDArray[np.intp], values: _Map, size: int) -> _Float64:
    """Sum of the values by index, float64 ``[size]``."""
    return np.bincount(index, values, size).astype(np.float64, copy=False)


@dataclass
class _Positives:
    """Scores of one group's defect pixels with what each adds: sorted, distinct.

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
    def merge(cls, parts: Sequence[_Positives]) -> _Positives:
        scores, inverse = np.unique(np.concatenate([p.scores for p in parts]), return_inverse=True)
        size = len(scores)
        return cls(
            scores,
            _sums(inverse, np.concatenate([p.spro for p in parts]), size),
            _sums(inverse, np.concatenate([p.pro for p in parts]), size),
            # Counts as float64 weights are exact below 2^53.
            _sums(inverse, np.concatenate([p.pixels for p in parts]), size).astype(np.int64),
        )


def _image_positives(scores: _Map, truth: GroundTruth, union: _Bool) -> tuple[_Positives, int, int]:
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
    positives = _Positives(
        distinct,
        _sums(inverse, spro, size),
        _sums(inverse, pro, size),
        np.bincount(inverse, minlength=size).astype(np.int64),
    )
    return positives, n_channels, n_labels - 1


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
        self._positives: dict[str, list[_Positives]] = {}
        self._n_channels: dict[str, int] = {}
        self._n_components: dict[str, int] = {}
        self._n_images: dict[str, int] = {}
        self._n_negatives: dict[str, int] = {}
        self._dtype: np.dtype[Any] | None = None
        self._counter: IntegerCounter | FloatCounter | None = None
        self._frozen: tuple[_Positives, dict[str, _Positives]] | None = None

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
        positives, n_channels, n_components = _image_positives(scores, truth, union)
        self._frozen = None
        parts = self._positives.setdefault(group, [])
        parts.append(positives)
        if scores.dtype.kind == "u" and len(parts) >= 64:
            parts[:] = [_Positives.merge(parts)]  # at most one entry a grey level
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
                everything, by_group = self._freeze()
                self._counter = FloatCounter(everything.scores, {g: p.scores for g, p in by_group.items()})
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

    def _freeze(self) -> tuple[_Positives, dict[str, _Positives]]:
        if self._frozen is None:
            by_group = {group: _Positives.merge(parts) for group, parts in self._positives.items()}
            empty = _Positives(np.zeros(0, dtype=np.float32), np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
            everything = _Positives.merge(list(by_group.values())) if by_group else empty
            self._positives = {group: [merged] for group, merged in by_group.items()}
            self._frozen = everything, by_group
        return self._frozen

    def _counts(self, group: str | None, positives: _Positives) -> Counts:
        if isinstance(self._counter, IntegerCounter):
            return self._counter.counts(self._n_images if group is None else (GOOD, group), positives.scores)
        if isinstance(self._counter, FloatCounter):
            self._counter.finish()
            return self._counter.total if group is None else self._counter.of_type(group)
        return Counts(len(positives.scores))

    def result(self, group: str | None = None) -> LocalisationResult:
        """The figures of all images, or of one defect type (its images and all good ones)."""
        everything, by_group = self._freeze()
        empty = _Positives(everything.scores[:0], np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
        positives = everything if group is None else by_group.get(group, empty)
        has_counts = group is None or group in by_group
        counts = self._counts(group, positives) if has_counts else Counts(0)
        members = set(self._n_images) | set(self._n_channels) if group is None else {GOOD, group}
        n_negatives = sum(self._n_negatives.get(g, 0) for g in members)
        n_channels = sum(self._n_channels.get(g, 0) for g in members)
        n_components = sum(self._n_components.get(g, 0) for g in members)
        n_pixels = int(positives.pixels.sum())
        auspro_by, aupro_by = {}, {}
        pixel_auroc = pixel_ap = None
        if n_negatives and n_channels:
            for limit in self.limits:
                weight = _segment_weight(counts.above, counts.at_least, n_negatives, limit)
                # (Rounding may exceed 1 by an ulp.)
                auspro_by[limit] = min(1.0, float(weight @ positives.spro) / (n_channels * limit))
                aupro_by[limit] = min(1.0, float(weight @ positives.pro) / (n_components * limit))
            whole = _segment_weight(counts.above, counts.at_least, n_negatives, 1.0)
            pixel_auroc = min(1.0, float(whole @ positives.pixels) / n_pixels)
            found = np.cumsum(positives.pixels[::-1])[::-1]
            precision = found / (found + counts.at_least)
            pixel_ap = min(1.0, float(precision @ positives.pixels) / n_pixels)

        def curve(limit: float, points: int) -> tuple[_Float64, _Float64]:
            if not n_negatives or not n_channels:
                return np.zeros(0), np.zeros(0)
            return _curve(counts, positives.spro / n_channels, n_negatives, limit, points)

        return LocalisationResult(
            n_images=sum(self._n_images.get(g, 0) for g in members),
            n_channels=n_channels,
            n_components=n_components,
            n_negatives=n_negatives,
            auspro=auspro_by,
            aupro=aupro_by,
            pixel_auroc=pixel_auroc,
            pixel_ap=pixel_ap,
            curve=curve,
        )


def _curve(counts: Counts, rise: _Float64, n_negatives: int, limit: float, points: int) -> tuple[_Float64, _Float64]:
    """Vertices of the curve up to FPR = ``limit``, thinned to about ``2·points``.

    Args:
        counts: negatives at each score, scores ascending ``[E]``.
        rise: what each score adds to the mean sPRO ``[E]``.
    """
    total = np.cumsum(rise[::-1])
    fpr = np.empty(2 * len(rise) + 2)
    spro = np.empty_like(fpr)
    fpr[0], spro[0] = 0.0, 0.0
    # Each score's segment: from its first negative to its last; between the segments the curve is flat.
    fpr[1:-1:2], fpr[2:-1:2] = counts.above[::-1] / n_negatives, counts.at_least[::-1] / n_negatives
    spro[1:-1:2], spro[2:-1:2] = np.concatenate([[0.0], total[:-1]]), total
    fpr[-1], spro[-1] = 1.0, total[-1]
    end = int(np.searchsorted(fpr, limit, side="right"))
    if end < len(fpr):
        slope = (limit - fpr[end - 1]) / (fpr[end] - fpr[end - 1])
        last = spro[end - 1] + slope * (spro[end] - spro[end - 1])
        fpr, spro = np.append(fpr[:end], limit), np.append(spro[:end], last)
    # Both coordinates ascend, so their sum does: keep the last vertex before and the first after each step of it.
    way = fpr / limit + spro
    marks = np.linspace(0.0, way[-1], points)
    after = np.minimum(np.searchsorted(way, marks, side="left"), len(way) - 1)
    keep = np.unique(np.concatenate([[0], after, np.maximum(after - 1, 0), [len(way) - 1]]))
    return fpr[keep], np.minimum(spro[keep], 1.0)
