"""Which method ranks higher over several categories (Demšar 2006): Friedman, Nemenyi, and Wilcoxon with Holm.

A category is one observation, however many runs it had: its figure is the mean over them. With the study's six
categories little can be told apart, and the critical difference says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import stats

from andon.benchmark.statistics import Correction, adjusted_p_values

__all__ = ["Ranking", "critical_difference", "friedman", "rank_methods", "wilcoxon_p_values"]


@dataclass(frozen=True)
class Ranking:
    """Methods compared over categories.

    Attributes:
        mean_ranks: by method, 1 = best everywhere; in the order of the ranks.
        categories: those that count: where every method has a figure.
        left_out: categories without a figure of every method.
        friedman_statistic, friedman_p: that all methods are alike, ties corrected for; NaN where nothing can be tested.
        difference: of mean ranks that is significant by Nemenyi's test; None below 2 methods or 2 categories.
        groups: maximal sets of methods less than ``difference`` apart: the bars of a critical-difference diagram.
        pairwise: p-value of Wilcoxon's signed-rank test by pair of methods, corrected over all pairs.
        alpha: level of ``difference``.
    """

    mean_ranks: Mapping[str, float]
    categories: tuple[str, ...]
    left_out: tuple[str, ...]
    friedman_statistic: float
    friedman_p: float
    difference: float | None
    groups: tuple[tuple[str, ...], ...]
    pairwise: Mapping[tuple[str, str], float] = field(default_factory=dict)
    alpha: float = 0.05


def critical_difference(n_methods: int, n_categories: int, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks: q / √2 · √(k (k + 1) / (6 N)).

    q is the studentised range of k methods with infinitely many degrees of freedom (Demšar 2006, section 3.2.2).
    """
    if n_methods < 2 or n_categories < 1:
        raise ValueError(f"needs at least 2 methods and a category, not {n_methods} and {n_categories}")
    q = float(stats.studentized_range.ppf(1 - alpha, n_methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(n_methods * (n_methods + 1) / (6 * n_categories))


def _ranks(table: npt.NDArray[np.float64], higher_is_better: bool) -> npt.NDArray[np.float64]:
    """Ranks 1..k within each row ``[N, k]``, ties sharing their mean."""
    return np.asarray(stats.rankdata(-table if higher_is_better else table, axis=1), dtype=np.float64)


def friedman(table: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Friedman's χ² with ties, and its p-value, of figures ``[categories, methods]``.

    NaN both where nothing can be tested: fewer than two categories or methods, or nothing but ties. (SciPy's function
    refuses two methods, for which this is the sign test's χ².)
    """
    n, k = table.shape
    if n < 2 or k < 2:
        return math.nan, math.nan
    ranks = _ranks(table, higher_is_better=True)
    spread = float(((ranks - (k + 1) / 2) ** 2).sum())
    if spread == 0:
        return math.nan, math.nan
    between = float(((ranks.mean(axis=0) - (k + 1) / 2) ** 2).sum())
    statistic = n * n * (k - 1) * between / spread
    return statistic, float(stats.chi2.sf(statistic, k - 1))


def wilcoxon_p_values(
    figures: Mapping[str, npt.NDArray[np.float64]], correction: Correction = "holm"
) -> dict[tuple[str, str], float]:
    """Two-sided p-value of Wilcoxon's signed-rank test for every pair of methods, corrected over the pairs.

    Args:
        figures: by method, one a category ``[N]``, in the same order.
        correction: "holm", "bonferroni" or "none".

    The test is exact where there are neither ties nor zeros; a pair that is equal everywhere has p = 1.
    """
    pairs = list(combinations(figures, 2))
    raw = []
    for a, b in pairs:
        difference = figures[a] - figures[b]
        nonzero = difference[difference != 0]
        untied = len(nonzero) == len(difference) == len(np.unique(np.abs(nonzero)))
        method = "exact" if untied else "approx"
        raw.append(float(stats.wilcoxon(difference, method=method).pvalue) if len(nonzero) else 1.0)
    return dict(zip(pairs, adjusted_p_values(raw, correction), strict=True))


def rank_methods(
    figures: Mapping[str, Mapping[str, float | None]],
    *,
    higher_is_better: bool = True,
    alpha: float = 0.05,
    correction: Correction = "holm",
) -> Ranking:
    """Ranks methods over the categories in which all of them have a figure.

    Args:
        figures: method → category → mean figure; None, NaN or no entry where there is none.
        higher_is_better: False for error rates and times.
        alpha: level of the critical difference.
        correction: of the pairwise tests.
    """
    methods = list(figures)
    everything = list(dict.fromkeys(c for row in figures.values() for c in row))
    whole = [c for c in everything if all(_defined(figures[m].get(c)) for m in methods)]
    left_out = tuple(c for c in everything if c not in whole)
    if not whole:
        return Ranking({}, (), left_out, math.nan, math.nan, None, (), {}, alpha)
    table = np.asarray([[figures[m][c] for m in methods] for c in whole], dtype=np.float64)
    mean = _ranks(table, higher_is_better).mean(axis=0)
    order = sorted(range(len(methods)), key=lambda i: (mean[i], i))
    ranks = {methods[i]: float(mean[i]) for i in order}
    statistic, p = friedman(table)
    testable = len(methods) > 1 and len(whole) > 1
    difference = critical_difference(len(methods), len(whole), alpha) if testable else None
    pairwise = wilcoxon_p_values({m: table[:, i] for i, m in enumerate(methods)}, correction) if testable else {}
    groups = () if difference is None else _groups(list(ranks.items()), difference)
    return Ranking(ranks, tuple(whole), left_out, statistic, p, difference, groups, pairwise, alpha)


def _defined(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _groups(ordered: Sequence[tuple[str, float]], difference: float) -> tuple[tuple[str, ...], ...]:
    """Maximal runs of at least two methods whose mean ranks lie less than the difference apart."""
    groups: list[tuple[str, ...]] = []
    last = 0
    for start, (_, low) in enumerate(ordered):
        stop = max(i for i, (_, rank) in enumerate(ordered) if rank == low or rank - low < difference) + 1
        if stop - start > 1 and stop > last:
            groups.append(tuple(name for name, _ in ordered[start:stop]))
            last = stop
    return tuple(groups)
