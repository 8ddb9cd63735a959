"""The averaged ROC curve of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from andon.evaluation.image import auroc, roc_curve

__all__ = ["AveragedRoc", "averaged_roc", "stacked_curves"]

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AveragedRoc:
    """ROC curves of several runs, averaged vertically: the mean TPR at each FPR (Fawcett 2006, section 9.1).

    Attributes:
        fpr: abscissae, ascending; where curves jump there are two equal ones. ``[K]``.
        tpr: mean over the runs, and ``low``, ``high``: their extremes. ``[K]`` each.
        area: under the averaged curve, 0..1.
        aurocs: of the runs.
    """

    fpr: _Float64
    tpr: _Float64
    low: _Float64
    high: _Float64
    area: float
    aurocs: tuple[float, ...]

    @property
    def mean_auroc(self) -> float:
        """Mean of the runs' AUROCs. Averaging is linear, so with ``points=None`` it is ``area`` up to rounding."""
        return float(np.mean(self.aurocs))


def averaged_roc(runs: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]], points: int | None = None) -> AveragedRoc | None:
    """Averages the ROC curves of runs.

    Args:
        runs: (scores ``[n]``, labels ``[n]``) of each; test sets may differ.
        points: evenly spaced FPRs 0..1 to average at, as with a curve kept on a grid; None for every FPR that occurs.

    Returns:
        None where a run has no curve (a class without an image), or there are no runs.
    """
    curves = [roc_curve(scores, labels)[:2] for scores, labels in runs]
    areas = [auroc(scores, labels) for scores, labels in runs]
    found = tuple(a for a in areas if a is not None)
    if not curves or len(found) < len(curves):
        return None
    if points is not None and points < 2:
        raise ValueError(f"an averaged curve needs at least 2 points, not {points}")
    at = np.unique(np.concatenate([fpr for fpr, _ in curves])) if points is None else np.linspace(0, 1, points)
    stacked = stacked_curves(curves, at)
    x, mean = np.repeat(at, 2), stacked.mean(axis=0)
    area = float(np.sum(np.diff(x) * (mean[1:] + mean[:-1]) / 2))
    return AveragedRoc(x, mean, stacked.min(axis=0), stacked.max(axis=0), area, found)


def stacked_curves(curves: Sequence[tuple[_Float64, _Float64]], at: _Float64) -> _Float64:
    """Curves' values at common abscissae, to be averaged vertically.

    Args:
        curves: piecewise linear, as (x ascending, y); a jump has two equal ``x``.
        at: abscissae, ascending and distinct ``[K]``.

    Returns:
        ``[curves, 2 K]``: at each abscissa the limit from the left, then that from the right.

    Raises:
        ValueError: no curves.
    """
    if not curves:
        raise ValueError("no curves to average")
    return np.stack([_both_limits(x, y, at) for x, y in curves])


def _both_limits(fpr: _Float64, tpr: _Float64, at: _Float64) -> _Float64:
    """The curve's limits from the left and the right at each abscissa, alternating ``[2 K]``."""
    first = np.searchsorted(fpr, at, side="left").clip(0, len(fpr) - 1)
    last = (np.searchsorted(fpr, at, side="right") - 1).clip(0, len(fpr) - 1)
    between = np.interp(at, fpr, tpr)
    left = np.where(fpr[first] == at, tpr[first], between)
    right = np.where(fpr[last] == at, tpr[last], between)
    return np.stack([left, right], axis=1).reshape(-1)
