"""Image-level metrics and thresholds.

One convention throughout: an image alarms (is predicted defective) when its score is *above* the threshold,
``score > t``. All functions are pure, take one score an image (higher = more anomalous), compute in float64 and cost
O(n log n) time, O(n) memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from andon.core import ConfigError, DataError
from andon.evaluation.result import ImageMetrics, OperatingPoint

__all__ = [
    "TNR_TARGETS",
    "auroc",
    "average_precision",
    "best_f1",
    "check_scores",
    "image_metrics",
    "operating_points",
    "rates_at_threshold",
    "roc_curve",
    "threshold_for_tnr",
    "tpr_at_tnr",
]

TNR_TARGETS: tuple[float, ...] = (0.99, 0.95, 0.90)
"""The operating points of Carvalho et al. 2024, Table 8."""

_Float64 = npt.NDArray[np.float64]
_Bool = npt.NDArray[np.bool_]


def check_scores(scores: npt.ArrayLike, names: Sequence[str] | None = None) -> _Float64:
    """Scores as float64 ``[n]``.

    Args:
        scores: numbers ``[n]``.
        names: what to call each image in a message.

    Raises:
        DataError: a score is NaN or infinite (the first such image is named).
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"scores must be [n], got {list(values.shape)}")
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        first = int(bad[0])
        who = names[first] if names is not None else f"image {first}"
        more = f" (and those of {len(bad) - 1} more images)" if len(bad) > 1 else ""
        raise DataError(f"the image score of {who} is {values[first]}{more}: scores must be finite numbers")
    return values


def _checked(
    scores: npt.ArrayLike, labels: npt.ArrayLike, names: Sequence[str] | None = None
) -> tuple[_Float64, _Bool]:
    values, defective = check_scores(scores, names), np.asarray(labels).astype(bool)
    if values.shape != defective.shape:
        raise ValueError(f"scores and labels must be [n] both, got {list(values.shape)} and {list(defective.shape)}")
    return values, defective


def _ranks(values: _Float64) -> _Float64:
    """Ranks from 1, tied values sharing the mean of theirs ``[n]``."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: _Float64 = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def auroc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that a defective image scores above a good one, ties counting half.

    Computed from ranks (the Mann–Whitney U statistic), so no scale or range of the scores matters.

    Args:
        scores: ``[n]``.
        labels: ``[n]``, true for defective.

    Returns:
        0..1; None without a defective or without a good image.
    """
    values, defective = _checked(scores, labels)
    n_defective = int(defective.sum())
    n_good = len(values) - n_defective
    if n_defective == 0 or n_good == 0:
        return None
    u = float(_ranks(values)[defective].sum()) - n_defective * (n_defective + 1) / 2
    return u / (n_defective * n_good)


def _cumulative(values: _Float64, defective: _Bool) -> tuple[_Float64, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Distinct scores, descending, and the numbers of true and false positives of ``score >= v`` at each."""
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1) if len(ordered) else np.zeros(0, dtype=np.intp)
    true_positives = np.cumsum(defective[order], dtype=np.int64)[last]
    return ordered[last], true_positives, last.astype(np.int64) + 1 - true_positives


def _counted(
    scores: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[_Float64, npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """``_cumulative`` of what was checked; None without a defective or without a good image."""
    values, defective = _checked(scores, labels)
    if defective.all() or not defective.any():
        return None
    return _cumulative(values, defective)


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Average precision, step-wise: ``Σ (R_k − R_{k−1}) P_k`` over the distinct scores, descending.

    scikit-learn's definition. No interpolation: the trapezoid under the precision–recall curve is too optimistic
    (Davis and Goadrich 2006).

    Args:
        scores: ``[n]``.
        labels: ``[n]``, true for defective.

    Returns:
        0..1; None without a defective or without a good image.
    """
    found = _counted(scores, labels)
    if found is None:
        return None
    _, tp, fp = found
    steps = np.diff(tp, prepend=0) / tp[-1]
    return float(np.sum(steps * (tp / (tp + fp))))


def roc_curve(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[_Float64, _Float64, _Float64]:
    """ROC curve at every distinct threshold.

    Args:
        scores: ``[n]``.
        labels: ``[n]``, true for defective.

    Returns:
        FPR, TPR and thresholds t (``score > t``), each ``[k + 1]`` for k distinct scores: t runs over the scores,
        descending, then −inf, so the curve starts at (0, 0) and ends at (1, 1). Empty arrays where a class is missing.
    """
    found = _counted(scores, labels)
    if found is None:
        empty = np.zeros(0)
        return empty, empty.copy(), empty.copy()
    distinct, tp, fp = found
    return (
        np.concatenate([[0.0], fp / fp[-1]]),
        np.concatenate([[0.0], tp / tp[-1]]),
        np.concatenate([distinct, [-np.inf]]),
    )


def _order_statistic(n: int, tnr: float) -> int:
    """Least k with ``k / n >= tnr``; the decimal that was written counts, not its binary neighbour."""
    return max(1, math.ceil(Fraction(repr(float(tnr))) * n))


def threshold_for_tnr(good_scores: npt.ArrayLike, tnr: float) -> float:
    """The smallest threshold at which at least a fraction ``tnr`` of these good images does not alarm.

    It is the ``ceil(tnr · n)``-th smallest score: an order statistic without interpolation, so the target is met on
    these scores whatever the ties. (With ``tnr`` above ``1 − 1/n`` it is their maximum.) What it achieves on *new*
    images varies with n; for a promise about those, calibration has to add a margin.

    Args:
        good_scores: ``[n]``, at least one.
        tnr: target in (0, 1].

    Raises:
        ConfigError: a target outside (0, 1].
        DataError: no scores, or a score that is not finite.
    """
    values = check_scores(good_scores)
    if not 0 < tnr <= 1:
        raise ConfigError(f"the true-negative rate must be in (0, 1], not {tnr}")
    if len(values) == 0:
        raise DataError("a threshold needs the scores of at least one good image")
    k = _order_statistic(len(values), tnr)
    return float(np.partition(values, k - 1)[k - 1])


def tpr_at_tnr(scores: npt.ArrayLike, labels: npt.ArrayLike, tnr: float) -> float | None:
    """TPR at the operating point whose TNR on the good images is at least ``tnr``.

    The threshold is ``threshold_for_tnr`` of the good scores. A defective image that ties with it does not count as
    found, and good images that tie make the TNR higher than asked for, never lower: both ways ties are conservative.

    Args:
        scores: ``[n]``.
        labels: ``[n]``, true for defective.
        tnr: target in (0, 1].

    Returns:
        0..1; None without a defective or without a good image.
    """
    values, defective = _checked(scores, labels)
    if defective.all() or not defective.any():
        return None
    return float(np.mean(values[defective] > threshold_for_tnr(values[~defective], tnr)))


def rates_at_threshold(
    scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float
) -> tuple[float | None, float | None]:
    """(FPR, FNR) of ``score > threshold``; each None where its class has no image."""
    values, defective = _checked(scores, labels)
    alarms = values > threshold
    fpr = float(np.mean(alarms[~defective])) if not defective.all() else None
    fnr = float(np.mean(~alarms[defective])) if defective.any() else None
    return fpr, fnr


def best_f1(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[float, float] | None:
    """Highest F1 score over all thresholds, and a threshold that gives it.

    Set on the test set itself, so an upper bound of what a real threshold can do. Of several best thresholds the
    highest is taken (fewest alarms). It is the highest score that does not alarm; just below the lowest score where all
    images alarm.

    Returns:
        (F1 in 0..1, threshold); None without a defective or without a good image.
    """
    found = _counted(scores, labels)
    if found is None:
        return None
    distinct, tp, fp = found
    f1 = 2 * tp / (tp + fp + tp[-1])
    k = int(np.argmax(f1))
    threshold = distinct[k + 1] if k + 1 < len(distinct) else np.nextafter(distinct[-1], -np.inf)
    return float(f1[k]), float(threshold)


def _percent(tnr: float) -> str:
    return f"{100 * tnr:g}"


def image_metrics(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    tnr_targets: Sequence[float] = TNR_TARGETS,
    names: Sequence[str] | None = None,
) -> ImageMetrics:
    """All image-level figures.

    Args:
        scores: ``[n]``, higher = more anomalous, any scale.
        labels: ``[n]``, true for defective.
        tnr_targets: targets of TPR at TNR.
        names: what to call each image in a message.

    Raises:
        DataError: a score is NaN or infinite.
    """
    values, defective = _checked(scores, labels, names)
    n_defective = int(defective.sum())
    f1 = best_f1(values, defective)
    at = {_percent(tnr): tpr_at_tnr(values, defective, tnr) for tnr in tnr_targets}
    return ImageMetrics(
        n_good=len(values) - n_defective,
        n_defective=n_defective,
        auroc=auroc(values, defective),
        ap=average_precision(values, defective),
        tpr_at_tnr={key: value for key, value in at.items() if value is not None},
        best_f1=None if f1 is None else f1[0],
        best_f1_threshold=None if f1 is None else f1[1],
    )


def operating_points(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    calibration_scores: npt.ArrayLike | None = None,
    tnr_targets: Sequence[float] = TNR_TARGETS,
) -> tuple[OperatingPoint, ...]:
    """Thresholds, and the FPR and FNR that each has on the test set.

    "test good" thresholds are set on the test set's own good images (what Table 8 of Carvalho et al. 2024 fits);
    "train good" ones on ``calibration_scores``, training images scored by models that did not see them: what a plant
    can really have. "best F1" looks at the test labels.

    Args:
        scores: ``[n]`` of the test images.
        labels: ``[n]``, true for defective.
        calibration_scores: ``[m]``, of good images; None for no such thresholds.
        tnr_targets: the TNRs to set thresholds for.
    """
    values, defective = _checked(scores, labels)
    points: list[OperatingPoint] = []

    def add(source: str, target: float | None, threshold: float) -> None:
        fpr, fnr = rates_at_threshold(values, defective, threshold)
        points.append(
            OperatingPoint.model_validate(
                {"source": source, "target_tnr": target, "threshold": threshold, "fpr": fpr, "fnr": fnr}
            )
        )

    if not defective.all():
        for tnr in tnr_targets:
            add("test good", tnr, threshold_for_tnr(values[~defective], tnr))
    if calibration_scores is not None:
        good = check_scores(calibration_scores)
        for tnr in tnr_targets:
            add("train good", tnr, threshold_for_tnr(good, tnr))
    f1 = best_f1(values, defective)
    if f1 is not None:
        add("best F1", None, f1[1])
    return tuple(points)
