"""Intervals for what was measured on finitely many images: DeLong, bootstrap, Clopper–Pearson.

Seeds say how a method varies when it is trained anew; these say how a figure would vary with other test images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from andon.core import DataError
from andon.evaluation import Interval, check_confidence, check_scores, clopper_pearson

__all__ = [
    "BootstrapKind",
    "Interval",
    "bootstrap_auroc",
    "bootstrap_interval",
    "clopper_pearson",
    "delong_interval",
    "delong_p_value",
    "delong_variance",
]

BootstrapKind = Literal["percentile", "bca"]

_Float64 = npt.NDArray[np.float64]
_MANY = 2_000_000
"""Elements of a block of resamples: 16 MB."""


def _classes(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[_Float64, _Float64]:
    """Scores of the defective and of the good images."""
    values, defective = check_scores(scores), np.asarray(labels).astype(bool)
    if values.shape != defective.shape:
        raise ValueError(f"scores and labels must be [n] both, got {list(values.shape)} and {list(defective.shape)}")
    if defective.all() or not defective.any():
        raise DataError("an AUROC needs defective and good images")
    return values[defective], values[~defective]


def _placements(defective: _Float64, good: _Float64) -> tuple[_Float64, _Float64]:
    """For each defective image the part of the good ones below it, for each good one the part above it; ties half."""
    below, others = np.sort(good), np.sort(defective)
    v10 = (np.searchsorted(below, defective, "left") + np.searchsorted(below, defective, "right")) / (2 * len(good))
    v01 = 1 - (np.searchsorted(others, good, "left") + np.searchsorted(others, good, "right")) / (2 * len(defective))
    return v10, v01


def delong_variance(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Variance of the AUROC over test sets of this size (DeLong, DeLong and Clarke-Pearson 1988).

    Args:
        scores: ``[n]``, higher = more anomalous.
        labels: ``[n]``, true for defective.

    Returns:
        None with a single image in a class: no variance can be estimated.

    Raises:
        DataError: a class without an image, or a score that is not finite.
    """
    defective, good = _classes(scores, labels)
    if len(defective) < 2 or len(good) < 2:
        return None
    v10, v01 = _placements(defective, good)
    return float(v10.var(ddof=1) / len(defective) + v01.var(ddof=1) / len(good))


def delong_interval(
    scores: npt.ArrayLike, labels: npt.ArrayLike, confidence: float = 0.95, *, logit: bool = True
) -> Interval | None:
    """Interval of the AUROC from DeLong's variance.

    Args:
        scores, labels, confidence: as ``delong_variance``; 0..1.
        logit: normal on the logit of the AUROC, which keeps the ends in 0..1 and covers better near 1; False for the
            plain normal interval, cut at 0 and 1.

    Returns:
        None where there is no variance. At an AUROC of 0 or 1 the estimated variance is 0 and the interval is that
        point, which says nothing: its note does.
    """
    variance = delong_variance(scores, labels)
    if variance is None:
        return None
    value = float(_placements(*_classes(scores, labels))[0].mean())
    z = float(special.ndtri(0.5 + check_confidence(confidence) / 2))
    if value in (0.0, 1.0) or variance == 0:
        note = "DeLong's variance is 0 here: the classes do not overlap, and the interval means nothing"
        return Interval(value, value, value, confidence, note)
    if not logit:
        half = z * variance**0.5
        return Interval(value, max(0.0, value - half), min(1.0, value + half), confidence)
    centre, half = special.logit(value), z * variance**0.5 / (value * (1 - value))
    return Interval(value, float(special.expit(centre - half)), float(special.expit(centre + half)), confidence)


def delong_p_value(a: npt.ArrayLike, b: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Two-sided p-value that two methods have the same AUROC on the same images (DeLong et al. 1988).

    Args:
        a, b: scores ``[n]`` of either method.
        labels: ``[n]``, true for defective.

    Returns:
        None with a single image in a class. If the difference has no variance: 1 where it is 0, else 0.
    """
    placed = [_placements(*_classes(scores, labels)) for scores in (a, b)]
    if any(len(part) < 2 for part in placed[0]):
        return None
    d10, d01 = (placed[0][k] - placed[1][k] for k in (0, 1))
    difference = float(d10.mean())
    variance = float(d10.var(ddof=1) / len(d10) + d01.var(ddof=1) / len(d01))
    if variance == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * special.ndtr(-abs(difference) / variance**0.5))


def bootstrap_interval(
    statistic: Callable[[npt.NDArray[np.intp]], float],
    groups: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    kind: BootstrapKind = "percentile",
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of any figure over images, drawn with replacement within their group.

    Args:
        statistic: figure of the images with these indices ``[n]`` (of the given ones, with repetitions).
        groups: of each image ``[n]``: good or defective, say; every resample has as many of each as there are.
        confidence: 0..1.
        resamples: how many.
        kind: "percentile", or "bca" (bias-corrected and accelerated, Efron 1987; the acceleration by leaving out one
            image at a time, which calls the statistic n more times).
        seed: of the drawing.

    Raises:
        ValueError: no images, fewer than 2 resamples, or a confidence outside (0, 1).
    """
    labels = np.asarray(groups)
    members = [np.flatnonzero(labels == group) for group in np.unique(labels)]
    if not members or resamples < 2:
        raise ValueError("a bootstrap needs images and at least 2 resamples")
    rng = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for k in range(resamples):
        drawn[k] = statistic(np.concatenate([m[rng.integers(0, len(m), len(m))] for m in members]))
    everything = np.arange(len(labels))
    value = float(statistic(everything))
    if kind == "percentile":
        return _ends(value, drawn, confidence, None)
    return _ends(value, drawn, confidence, [_left_out(statistic, everything, m) for m in members])


def _left_out(
    statistic: Callable[[npt.NDArray[np.intp]], float], everything: npt.NDArray[np.intp], members: npt.NDArray[np.intp]
) -> _Float64:
    """Figures without one image of a group, for each of them; empty for a group of one image."""
    if len(members) < 2:
        return np.zeros(0)
    return np.asarray([statistic(np.delete(everything, i)) for i in members], dtype=np.float64)


def bootstrap_auroc(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    kind: BootstrapKind = "bca",
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of the AUROC over images, good and defective ones drawn separately; vectorised.

    Args and raises: as ``bootstrap_interval`` and ``delong_variance``.
    """
    defective, good = _classes(scores, labels)
    if resamples < 2:
        raise ValueError("a bootstrap needs at least 2 resamples")
    v10, v01 = _placements(defective, good)
    m, n = len(defective), len(good)
    # A resample's AUROC is w·A·u: A[i, j] whether defective i is above good j, w and u how often each was drawn.
    # Distinct good scores are few columns: A is never made, the draws of good images are counted below each score.
    order = np.argsort(good, kind="stable")
    left = np.searchsorted(good[order], defective, "left")
    right = np.searchsorted(good[order], defective, "right")
    rng, drawn = np.random.default_rng(seed), np.empty(resamples)
    block = max(1, _MANY // (m + n + 1))
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        w = rng.multinomial(m, np.full(m, 1 / m), size=count)
        u = rng.multinomial(n, np.full(n, 1 / n), size=count)
        below = np.concatenate([np.zeros((count, 1), dtype=np.int64), np.cumsum(u, axis=1)], axis=1)
        drawn[start : start + count] = (w * (below[:, left] + below[:, right])).sum(axis=1) / (2 * m * n)
    value = float(v10.mean())
    if kind == "percentile":
        return _ends(value, drawn, confidence, None)
    # Without image i the mean of the placements over its own class is what is left.
    jackknife = [(v.sum() - v) / (len(v) - 1) if len(v) > 1 else np.zeros(0) for v in (v10, v01)]
    return _ends(value, drawn, confidence, jackknife)


def _ends(value: float, drawn: _Float64, confidence: float, jackknife: list[_Float64] | None) -> Interval:
    """The interval from the resamples' figures: percentile, or BCa with the figures that leave out one image."""
    alpha = (1 - check_confidence(confidence)) / 2
    levels = np.asarray([alpha, 1 - alpha])
    note = ""
    if jackknife is not None:
        adjusted = _bca_levels(value, drawn, levels, jackknife)
        if adjusted is None:
            note = "percentile: all resamples lie on one side of the figure, which BCa cannot correct"
        else:
            levels = adjusted
    low, high = np.quantile(drawn, levels)
    return Interval(value, float(low), float(high), confidence, note)


def _bca_levels(value: float, drawn: _Float64, levels: _Float64, jackknife: list[_Float64]) -> npt.NDArray[Any] | None:
    """Efron's corrected levels; None where all resamples are on one side of the figure.

    With several groups the influence of an image is that on its own group's mean, so the sums run over the groups with
    weights 1/n³ and 1/n² (Davison and Hinkley 1997, section 5.5; with one group it is Efron's acceleration).
    """
    share = float(np.mean((drawn < value) + 0.5 * (drawn == value)))
    if not 0 < share < 1:
        return None
    bias = special.ndtri(share)
    third = second = 0.0
    for figures in jackknife:
        n = len(figures)
        if n:
            influence = (n - 1) * (figures.mean() - figures)
            third += float((influence**3).sum()) / n**3
            second += float((influence**2).sum()) / n**2
    acceleration = third / (6 * second**1.5) if second > 0 else 0.0
    z = bias + special.ndtri(levels)
    return np.asarray(special.ndtr(bias + z / (1 - acceleration * z)))
