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
negative is sorted among some millions (see ``counting.FloatCounter``). Memory: 16 bytes for each distinct score of a
defect pixel while figures are computed (two columns of float64), plus what does not grow: about 100 bytes a defect
pixel of the largest image, and a buffer of 64 MB (128 MB for float64). Scores, what they add and counts lie in
temporary files (``spool.Scratch``): 120 to 170 bytes a distinct score, in the folder that ``TMPDIR`` names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core import GOOD, GroundTruth
from andon.evaluation.accumulator import LocalisationAccumulator
from andon.evaluation.spro import FPR_LIMITS, LocalisationResult

__all__ = [
    "FPR_LIMITS",
    "LocalisationAccumulator",
    "LocalisationResult",
    "MapSource",
    "auspro",
    "auspro_by_definition",
    "evaluate_localisation",
    "spro_curve",
]

MapSource = Iterable[tuple[npt.NDArray[Any], GroundTruth, str]]
"""``(anomaly map [H, W], ground truth, defect type)``, one an image."""

_Map = npt.NDArray[Any]
_Float64 = npt.NDArray[np.float64]


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


def evaluate_localisation(images: MapSource, limits: Sequence[float] = FPR_LIMITS) -> LocalisationAccumulator:
    """Accumulates maps that have the size of their images.

    Args:
        images: in any order. What can be iterated over twice (a list, or an object that reads maps from disk anew each
            time) spares keeping the good images' float maps, which an iterator makes necessary.
        limits: FPR limits, each in (0, 1].

    Returns:
        The filled accumulator; ask it for ``compute()``.

    Raises:
        ConfigError: a limit outside (0, 1].
        DataError: a map whose values or type cannot be compared.
    """
    again = not isinstance(images, Iterator)
    accumulator = LocalisationAccumulator(limits, interpolation=None, defective_first=again)
    if again:
        images = chain((i for i in images if i[2] != GOOD), (i for i in images if i[2] == GOOD))
    for anomaly_map, truth, group in images:
        accumulator.update(anomaly_map, truth, group=group)
    return accumulator


def _images(maps: Sequence[_Map], truths: Sequence[GroundTruth]) -> list[tuple[_Map, GroundTruth, str]]:
    """An image whose channels are all empty is a good one."""
    return [
        (m, t, "defect") if any(c.mask.any() for c in t.channels) else (m, GroundTruth(t.size), GOOD)
        for m, t in zip(maps, truths, strict=True)
    ]


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
    with evaluate_localisation(_images(maps, truths), limits) as accumulator:
        return accumulator.compute().auspro


def spro_curve(
    maps: Sequence[_Map], truths: Sequence[GroundTruth], limit: float = 1.0, points: int = 256
) -> tuple[_Float64, _Float64]:
    """FPR and mean sPRO ``[k]`` of the curve from (0, 0) to FPR = ``limit``, thinned to at most ``2·points + 2``."""
    with evaluate_localisation(_images(maps, truths), [limit]) as accumulator:
        return accumulator.compute().curve(limit, points)
