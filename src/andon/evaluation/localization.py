"""Localisation metrics: AUsPRO, exact and streaming, with AUPRO and pixel-wise AUROC and AP as its special cases.

Definition (Bergmann et al., IJCV 2022, *Beyond Dents and Scratches*, section 5; Carvalho et al. 2024, section 4.3)
----------------------------------------------------------------------------------------------------------------
A pixel is positive at threshold t when its score is above t. With s_i the saturation of channel i (one ground-truth
region) and the N *negatives* being the pixels of all images, good ones included, outside the union of their image's
channels:

    sPRO_i(t) = min(1, TP_i(t) / s_i)        sPRO(t) = mean of sPRO_i over all channels of all images
    FPR(t)    = (negatives with score > t) / N

The curve joins the points (FPR, sPRO) of all thresholds, t descending, by straight lines: from (0, 0) to (1, 1), one
point after each distinct score. AUsPRO to the limit L is the area under it for FPR in [0, L], divided by L.
``auspro_by_definition`` computes it in just this way: slow, for reading and for tests.

The fast form, and why it is the same
-------------------------------------
Let v_1 > v_2 > … be the distinct scores. After group k (the pixels of score v_k, of whatever kind) the curve is at
F_k = #{negatives ≥ v_k} / N, and channel i is at S_ik = min(s_i, #{its pixels ≥ v_k}) / s_i. The area is linear in the
curve and the curve is a mean over channels, so each channel's polyline can be integrated by itself. On segment k the
polyline rises evenly by ΔS_ik = S_ik − S_i,k−1 while FPR goes from F_{k−1} to F_k. A rise that happens at FPR = f
stays in the area from f to L, that is, it adds (L − f)⁺. So segment k adds ΔS_ik · w_k with the mean of (L − f)⁺ over
the segment,

    w_k = L − (F_{k−1} + F_k) / 2                       where F_k ≤ L
        = (L − F_{k−1})² / (2 (F_k − F_{k−1}))          where F_{k−1} < L < F_k  (the limit cuts the segment)
        = 0                                             where F_{k−1} ≥ L,

and ΔS_ik · s_i is the number of pixels of group k among the s_i highest-scored pixels of the channel (saturation inside
a tied group included: tied pixels are interchangeable). Hence

    AUsPRO(L) = 1/(C·L) · Σ_channels 1/s_i · Σ_{p among the s_i highest of i} w(score of p),

and w of a score v needs two integers: the negatives above v and those at or above v. With no ties w is (L − FPR(v))⁺.

So only the defects' pixels are kept and the negatives are merely *counted* against the sorted scores of those, which
takes no memory that grows with the number of good images. The same weights give:

    AUPRO        one channel a connected component (8-connectivity) of an image's union, s_i = area
    pixel AUROC  one channel for all positive pixels, s = their number, L = 1
    pixel AP     precision at each distinct score of a positive pixel, from the same two integers

Cost: integer maps need one pass of histograms, about 1 ns a pixel. Float maps need the defects' scores first; then each
negative is sorted among some millions (see ``counting.FloatCounter``). Memory: about 30 bytes a defect pixel and 32 for
each distinct score among them, plus a buffer of 64 MB (128 MB for float64).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from andon.core import GOOD, AndonError, GroundTruth
from andon.evaluation.counting import Counts, FloatCounter, IntegerCounter
from andon.evaluation.placing import place_map

__all__ = [
    "FPR_LIMITS",
    "LocalisationResult",
    "SproAccumulator",
    "auspro",
    "auspro_by_definition",
    "evaluate_localisation",
    "place_map",
    "spro_curve",
]

FPR_LIMITS: tuple[float, ...] = (0.05, 0.01, 0.1, 0.3, 1.0)
"""Limits of the official evaluator, the one of the paper's tables first."""

_Map = npt.NDArray[Any]
_Float64 = npt.NDArray[np.float64]
_Int64 = npt.NDArray[np.int64]
_Bool = npt.NDArray[np.bool_]


def auspro_by_definition(maps: Sequence[_Map], truths: Sequence[GroundTruth], limit: float) -> float:
    """AUsPRO as it is defined: every distinct score is a threshold, then the trapezoids up to the limit.

    O(distinct scores · pixels): for reading and for tests. Needs at least one channel and one negative pixel.
    """
    masks = [truth.union() for truth in truths]
    negatives = np.concatenate([scores[~mask] for scores, mask in zip(maps, masks, strict=True)])
    channels = [
        (scores[channel.mask], channel.saturation)
        for scores, truth in zip(maps, truths, strict=True)
        for channel in truth.channels
        if channel.saturation > 0
    ]
    points = [(0.0, 0.0)]
    for v in np.unique(np.concatenate([scores.ravel() for scores in maps]))[::-1]:
        # The threshold just below v: "above t" is "at least v".
        spro = np.mean([min(1.0, np.count_nonzero(scores >= v) / s) for scores, s in channels])
        points.append((np.count_nonzero(negatives >= v) / len(negatives), float(spro)))
    area = 0.0
    for (f0, s0), (f1, s1) in pairwise(points):
        if f0 >= limit:
            break
        if f1 > limit:
            f1, s1 = limit, s0 + (s1 - s0) * (limit - f0) / (f1 - f0)
        area += (f1 - f0) * (s0 + s1) / 2
    return area / limit


def _segment_weight(above: _Int64, at_least: _Int64, n_negatives: int, limit: float) -> _Float64:
    """``w`` of the module's docstring: mean of (limit − FPR)⁺ over the segment of a score.

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


class SproAccumulator:
    """Streaming AUsPRO, AUPRO, pixel AUROC and pixel AP, exact; by defect type too.

    Memory does not depend on the number of good images. Integer maps (uint8, uint16): one pass, ``update`` for each
    image in any order. Float maps: first ``add_positives`` for every image with channels, then ``add_negatives``
    for every image; defective images come twice, good ones once.

    A defect type's figures are those of its images and all good ones: their negatives, its images' channels.

    Args:
        limits: FPR limits, each in (0, 1].
    """

    def __init__(self, limits: Sequence[float] = FPR_LIMITS) -> None:
        for limit in limits:
            if not 0 < limit <= 1:
                raise AndonError(f"an FPR limit must be in (0, 1], not {limit:g}")
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
                raise AndonError(f"an anomaly map holds {'NaN' if np.isnan(highest) else 'infinity'}")
        elif scores.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"maps must be uint8, uint16 or float, not {scores.dtype}")
        if self._dtype is not None and scores.dtype != self._dtype:
            raise AndonError(f"anomaly maps of one category must be of one type, not {self._dtype} and {scores.dtype}")
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

    def update(self, anomaly_map: _Map, truth: GroundTruth, group: str = GOOD) -> None:
        """Both of the above for one image: for integer maps, and for good images."""
        if truth.channels:
            self.add_positives(anomaly_map, truth, group)
        self.add_negatives(anomaly_map, truth, group)

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


MapSource = Iterable[tuple[_Map, GroundTruth, str]]
"""``(anomaly map [H, W], ground truth, defect type)``, one an image."""


def evaluate_localisation(images: MapSource, limits: Sequence[float] = FPR_LIMITS) -> SproAccumulator:
    """Runs the passes that the maps' type needs.

    Args:
        images: something that can be iterated over twice (a list, or an object that reads maps from disk anew each
            time); for integer maps, once.

    Returns:
        The filled accumulator; ask it for ``result()``.
    """
    accumulator = SproAccumulator(limits)
    iterator: Iterator[tuple[_Map, GroundTruth, str]] = iter(images)
    first = next(iterator, None)
    if first is None:
        return accumulator
    if np.asarray(first[0]).dtype in (np.uint8, np.uint16):
        accumulator.update(*first)
        for image in iterator:
            accumulator.update(*image)
        return accumulator
    if iterator is images:
        raise ValueError("float maps are read twice: give a list, or an iterable that starts anew, not an iterator")
    for image in images:
        if image[1].channels:
            accumulator.add_positives(*image)
    for image in images:
        accumulator.add_negatives(*image)
    return accumulator


def auspro(
    maps: Sequence[_Map], truths: Sequence[GroundTruth], limits: Sequence[float] = FPR_LIMITS
) -> dict[float, float]:
    """AUsPRO by limit, of maps ``[H, W]`` in memory; empty where there is no channel or no negative pixel.

    >>> import numpy as np
    >>> from andon.core import Channel, GroundTruth
    >>> mask = np.array([[True, True, False, False]])
    >>> truth = GroundTruth((1, 4), (Channel(mask, "scratch", saturation=1),))
    >>> auspro([np.array([[0.1, 0.9, 0.5, 0.2]])], [truth], limits=[0.5])  # one pixel is enough, and it is the highest
    {0.5: 1.0}
    """
    images = [(m, t, "defect" if t.channels else GOOD) for m, t in zip(maps, truths, strict=True)]
    return evaluate_localisation(images, limits).result().auspro


def spro_curve(
    maps: Sequence[_Map], truths: Sequence[GroundTruth], limit: float = 1.0, points: int = 256
) -> tuple[_Float64, _Float64]:
    """FPR and mean sPRO ``[k]`` of the curve from (0, 0) to FPR = ``limit``, thinned to at most ``2·points + 2``."""
    images = [(m, t, "defect" if t.channels else GOOD) for m, t in zip(maps, truths, strict=True)]
    return evaluate_localisation(images, [limit]).result().curve(limit, points)
