"""Other readings of the study's figures: what its released code computes where its text leaves a choice.

Andon's own are in ``andon.evaluation.image``; these are for a report that reads as that code does.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from andon.core import ConfigError
from andon.evaluation.image import _counted, roc_curve

__all__ = ["tpr_at_nearest_tnr", "trapezoidal_ap"]


def trapezoidal_ap(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Area under the precision–recall curve by trapezoids, with the point (recall 0, precision 1) before it.

    What the code of Carvalho et al. 2024 gives as AP (Table 7). Precision is not linear in recall, so it is too
    optimistic (Davis and Goadrich 2006); ``average_precision`` is not.

    Args:
        scores: ``[n]``, higher = more anomalous.
        labels: ``[n]``, true for defective.

    Returns:
        0..1; None without a defective or without a good image.
    """
    found = _counted(scores, labels)
    if found is None:
        return None
    _, tp, fp = found
    recall = np.concatenate([[0.0], tp / tp[-1]])
    precision = np.concatenate([[1.0], tp / (tp + fp)])
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))


def tpr_at_nearest_tnr(scores: npt.ArrayLike, labels: npt.ArrayLike, tnr: float) -> float | None:
    """TPR at the threshold whose TNR on the good images is nearest to ``tnr``, on either side of it.

    Of two that are equally near the one with the lower TNR is taken, as a helper in the code of Carvalho et al. 2024
    does; whether their Table 8 was made with it is not known. Among thresholds of one TNR it is the lowest, hence the
    highest TPR. ``tpr_at_tnr`` never has a lower TNR than asked for.

    Args:
        scores: ``[n]``, higher = more anomalous.
        labels: ``[n]``, true for defective.
        tnr: target in (0, 1].

    Returns:
        0..1; None without a defective or without a good image.

    Raises:
        ConfigError: a target outside (0, 1].
    """
    if not 0 < tnr <= 1:
        raise ConfigError(f"the true-negative rate must be in (0, 1], not {tnr}")
    fpr, tpr, _ = roc_curve(scores, labels)
    if not len(fpr):
        return None
    n_good = len(np.asarray(labels)) - int(np.count_nonzero(labels))
    # In whole images and exact fractions: two distances that are equal must compare as equal.
    target = (1 - Fraction(repr(float(tnr)))) * n_good
    alarms = np.round(fpr * n_good).astype(np.int64)
    nearest = min(set(alarms.tolist()), key=lambda k: (abs(k - target), -k))
    return float(tpr[alarms == nearest].max())
