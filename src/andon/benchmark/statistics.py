"""Mean ± standard deviation over seeds, and the set of best methods by Welch's t-test.

As in the study (Carvalho et al. 2024, captions of Tables 6–9): a cell is mean ± standard deviation over the runs; the
best cells are the one with the highest mean and every one that does not differ significantly from it by Welch's t-test
at 5 %. What the study does not state, and what is done here:

- *Standard deviation*: the population's (``ddof=0``). Its figures show it: with 18 defective images and 8 runs the
  printed 97.2 ± 5.6, 2.1 ± 2.7 and 0.7 ± 1.8 can be had with ``ddof=0`` only (``tests/benchmark/test_published.py``).
  The test itself uses the unbiased variances, as Welch's test is defined.
- *Sidedness and correction*: two-sided, uncorrected. One-sided, Holm's and Bonferroni's are options. Holm's would put
  Patchcore among the best of pipe_clip's AUROCs, which the paper's section 5.4 does not; on what the text says of the
  best sets one- and two-sided tests agree.
- *The Mean row*: mean over the categories ± standard deviation across the categories. Its test compares each run's mean
  over the categories (``run_means``): across categories nothing in the study's Table 6 would be significant, yet it
  marks one method.
- *One run*: a single seed has no variance, so nothing can be tested: only the highest mean is best.
- *A method without randomness* runs once and its value is exact: the test against it is the one-sample t-test, which is
  Welch's with zero variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

__all__ = [
    "Alternative",
    "Correction",
    "Summary",
    "adjusted_p_values",
    "best_set",
    "mean_over",
    "run_means",
    "summarise",
    "welch_p_value",
]

Alternative = Literal["two-sided", "one-sided"]
Correction = Literal["none", "holm", "bonferroni"]


@dataclass(frozen=True)
class Summary:
    """What several runs gave.

    Attributes:
        n: runs with a defined value.
        mean: their mean; None if there is none.
        variance: unbiased variance (``ddof=1``), for the test; None below two runs, 0 for an exact value.
        exact: the value does not depend on chance (a method without randomness).
        missing: runs whose value is undefined: to be marked wherever ``mean`` is shown.
        ddof: of ``sd``: 0 for the population's, 1 for the sample's.
    """

    n: int
    mean: float | None
    variance: float | None
    exact: bool = False
    missing: int = 0
    ddof: int = 0

    @property
    def sd(self) -> float | None:
        """Standard deviation to show; None where there is nothing to show (fewer than two runs, exact)."""
        if self.variance is None or self.exact or self.n < 2:
            return None
        return math.sqrt(self.variance * (self.n - 1) / (self.n - self.ddof))

    @classmethod
    def from_printed(cls, mean: float, sd: float, n: int, *, ddof: int = 0) -> Summary:
        """From a table's mean ± standard deviation of ``n`` ≥ 2 runs, the latter with ``ddof``."""
        return cls(n, mean, sd**2 * (n - ddof) / (n - 1), ddof=ddof)


def summarise(values: Iterable[float | None], *, exact: bool = False, ddof: int = 0) -> Summary:
    """Mean and variance of the runs' values; None and NaN count as missing.

    Args:
        values: one a run.
        exact: the one value stands for every seed (``ExperimentRecord.seeded`` is False).
        ddof: of the standard deviation to show.

    Raises:
        ValueError: ``ddof`` not 0 or 1; infinite values.
    """
    if ddof not in (0, 1):
        raise ValueError(f"ddof must be 0 or 1, not {ddof}")
    given = list(values)
    defined = np.asarray([v for v in given if v is not None and not math.isnan(v)], dtype=np.float64)
    if not np.isfinite(defined).all():
        raise ValueError("infinite values have no mean")
    n, missing = len(defined), len(given) - len(defined)
    if n == 0:
        return Summary(0, None, None, exact, missing, ddof)
    if defined.min() == defined.max():
        # Not through the mean, whose rounding would leave a variance of 1e-34 and a significance out of nothing.
        return Summary(n, float(defined[0]), 0.0 if n > 1 or exact else None, exact, missing, ddof)
    return Summary(n, float(defined.mean()), float(defined.var(ddof=1)), exact, missing, ddof)


def mean_over(summaries: Sequence[Summary], *, ddof: int = 0) -> Summary:
    """The Mean row: mean of the categories' means ± standard deviation across the categories.

    ``n`` counts categories; those without a value are ``missing``.
    """
    return summarise([s.mean for s in summaries], ddof=ddof)


def run_means(by_category: Sequence[Mapping[int, float | None]], *, exact: bool = False, ddof: int = 0) -> Summary:
    """Each run's mean over the categories, for the Mean row's test.

    Args:
        by_category: for each category its values by seed. Only seeds with a value in every category count; the others
            are ``missing``.
    """
    seeds = sorted({seed for values in by_category for seed in values})
    means: list[float | None] = []
    for seed in seeds:
        row = [values.get(seed) for values in by_category]
        defined = [v for v in row if v is not None and not math.isnan(v)]
        means.append(float(np.mean(defined)) if len(defined) == len(row) else None)
    return summarise(means, exact=exact, ddof=ddof)


def welch_p_value(a: Summary, b: Summary, alternative: Alternative = "two-sided") -> float:
    """p-value of Welch's t-test that two means are equal (one-sided: against mean(a) > mean(b)).

    NaN where no test is possible: a mean or a variance is undefined (a single run). Two constants: 1 if they are equal,
    0 otherwise (one-sided: 0 if a > b, else 1). The same as ``scipy.stats.ttest_ind(equal_var=False)`` elsewhere.
    """
    if a.mean is None or b.mean is None or a.variance is None or b.variance is None:
        return math.nan
    part_a = 0.0 if a.exact else a.variance / a.n
    part_b = 0.0 if b.exact else b.variance / b.n
    difference = a.mean - b.mean
    if part_a + part_b == 0:
        if alternative == "one-sided":
            return 0.0 if difference > 0 else 1.0
        return 0.0 if difference else 1.0
    # Welch–Satterthwaite on the two shares, so that tiny variances do not underflow when squared.
    share = part_a / (part_a + part_b)
    denominator = (share**2 / (a.n - 1) if part_a else 0.0) + ((1 - share) ** 2 / (b.n - 1) if part_b else 0.0)
    t = difference / math.sqrt(part_a + part_b)
    # Student's t: the chance of more than t is that of less than −t.
    tail = float(special.stdtr(1 / denominator, -t if alternative == "one-sided" else -abs(t)))
    return tail if alternative == "one-sided" else min(1.0, 2 * tail)


def adjusted_p_values(p_values: Sequence[float], correction: Correction = "holm") -> list[float]:
    """p-values corrected for their number, to be compared with the level itself; NaN stays and does not count.

    Args:
        p_values: 0..1.
        correction: "bonferroni" multiplies by their number; "holm" (1979) steps down from the smallest and rejects
            whatever Bonferroni does, and more; "none".
    """
    adjusted = [float(p) for p in p_values]
    order = sorted((i for i, p in enumerate(adjusted) if not math.isnan(p)), key=adjusted.__getitem__)
    if correction == "none":
        return adjusted
    floor = 0.0
    for rank, i in enumerate(order):
        factor = len(order) - (rank if correction == "holm" else 0)
        # Holm: after the first p that is not significant none is.
        floor = max(floor, min(1.0, factor * adjusted[i]))
        adjusted[i] = floor
    return adjusted


def best_set(
    cells: Mapping[str, Summary],
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    correction: Correction = "none",
    higher_is_better: bool = True,
) -> frozenset[str]:
    """Names of the best cells of a row: the best mean and all that do not differ significantly from it.

    Args:
        cells: by name; those without a mean are never best.
        alpha: significance level.
        alternative: "two-sided", or "one-sided" (the best mean is greater).
        correction: "holm" and "bonferroni" correct for the number of comparisons with the best mean.
        higher_is_better: False for error rates and times.

    Where no test is possible (a single run on either side) only an equal mean counts as not different. If several
    cells share the best mean, what any of them does not differ from is best.
    """
    sign = 1.0 if higher_is_better else -1.0
    means = {name: sign * s.mean for name, s in cells.items() if s.mean is not None}
    if not means:
        return frozenset()
    top = max(means.values())
    leaders = [name for name, mean in means.items() if mean == top]
    best = set(leaders)
    others = [name for name in means if name not in leaders]
    for leader in leaders:
        p_values = [_directed(cells[leader], cells[name], alternative, higher_is_better) for name in others]
        # Where no test was possible p is NaN: neither below the level nor at it.
        best |= {n for n, p in zip(others, adjusted_p_values(p_values, correction), strict=True) if p >= alpha}
    return frozenset(best)


def _directed(leader: Summary, other: Summary, alternative: Alternative, higher_is_better: bool) -> float:
    return welch_p_value(leader, other, alternative) if higher_is_better else welch_p_value(other, leader, alternative)
