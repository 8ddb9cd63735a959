"""The sentences of the study's text against figures: "the study says …, here …".

Figures are in the units of the print (%, seconds, images a second), by (quantity, method, category). A claim about a
mean agrees where the measured runs do not differ significantly from the printed cell (Welch's test), or lie within the
claim's tolerance; every other claim is a plain comparison. Where a figure is missing the check says which.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast, get_args

from andon.benchmark.protocols import StudyProtocol
from andon.benchmark.published import CATEGORIES, CLAIMS, METHODS, RUNS, Metric, StudyClaim, published
from andon.benchmark.statistics import Summary, summarise, welch_p_value

__all__ = ["ClaimCheck", "Figures", "RunFigures", "check_claim", "check_claims", "published_figures"]


@dataclass(frozen=True)
class RunFigures:
    """A figure of several runs.

    Attributes:
        summary: mean and variance.
        minimum, maximum: over the runs; None where only mean and deviation are known.
    """

    summary: Summary
    minimum: float | None = None
    maximum: float | None = None

    @classmethod
    def of(cls, values: Iterable[float | None], *, exact: bool = False) -> RunFigures:
        """Of the runs' values, None and NaN left out; ``exact``: the one value stands for every seed."""
        given = [v for v in values if v is not None and not math.isnan(v)]
        return cls(summarise(given, exact=exact), min(given, default=None), max(given, default=None))


Figures = Mapping[tuple[str, str, str], RunFigures]
"""(quantity, method, category) → figure; category "" for a mean over all categories that is known as such."""


@dataclass(frozen=True)
class ClaimCheck:
    """A claim and what was found.

    Attributes:
        claim: what the study says.
        measured: the same statistic here; None where it cannot be had.
        agrees: None where it cannot be said.
        reason: why not, or what the verdict rests on beside the plain comparison.
    """

    claim: StudyClaim
    measured: float | None
    agrees: bool | None
    reason: str = ""


class _MissingFigureError(Exception):
    """A figure that a claim needs is not there; the message names it."""


def published_figures() -> dict[tuple[str, str, str], RunFigures]:
    """The study's own cells as figures: what its tables say to its text."""
    figures = {}
    for metric in get_args(Metric):
        for method in METHODS:
            for category in (*CATEGORIES, None):
                cell = published(metric, method, category)
                # Table 10 has no rows but the mean; elsewhere it follows from the others.
                if cell is not None and (category is not None or metric == "training_seconds"):
                    summary = Summary.from_printed(cell.mean, cell.sd, RUNS)
                    figures[metric, method, category or ""] = RunFigures(summary)
    return figures


def check_claims(
    figures: Figures, protocol: StudyProtocol | None = None, claims: Sequence[StudyClaim] = CLAIMS
) -> list[ClaimCheck]:
    """Checks claims, in their order; ``protocol`` (None for the paper's) decides how best sets are tested."""
    return [check_claim(claim, figures, protocol) for claim in claims]


def check_claim(claim: StudyClaim, figures: Figures, protocol: StudyProtocol | None = None) -> ClaimCheck:
    """Checks one claim."""
    check = _Check(claim, figures, protocol or StudyProtocol())
    try:
        measured = check.measured()
    except _MissingFigureError as missing:
        return ClaimCheck(claim, None, None, str(missing))
    if _holds(claim, measured):
        return ClaimCheck(claim, measured, True)
    p = check.p_value_against_print()
    if p is not None and p >= check.protocol.alpha:
        return ClaimCheck(claim, measured, True, f"not significantly different from the printed cell (p = {p:.2g})")
    return ClaimCheck(claim, measured, False, "" if p is None else f"differs significantly (p = {p:.2g})")


def _holds(claim: StudyClaim, measured: float) -> bool:
    slack = claim.tolerance + 1e-9
    if claim.relation == "equals":
        return abs(measured - claim.figure) <= slack
    if claim.relation in ("below", "at most"):
        return measured < claim.figure or (claim.relation == "at most" and measured <= claim.figure + slack)
    return measured > claim.figure or (claim.relation == "at least" and measured >= claim.figure - slack)


@dataclass(frozen=True)
class _Check:
    claim: StudyClaim
    figures: Figures
    protocol: StudyProtocol

    def measured(self) -> float:
        claim = self.claim
        if claim.over == "how many categories":
            return float(sum(self._counts(claim.method, category) for category in CATEGORIES))
        values = [self._value(method, place) for method in self._methods() for place in self._places()]
        # Of several, the one that is furthest against the claim.
        return max(values) if claim.relation in ("below", "at most") else min(values)

    def p_value_against_print(self) -> float | None:
        """Welch's test, two-sided, against the printed cell that a claim of a mean quotes; None where there is none."""
        claim = self.claim
        if (claim.statistic, claim.over, claim.relation) != ("mean", "category", "equals"):
            return None
        if claim.quantity not in get_args(Metric):
            return None
        cell = published(cast(Metric, claim.quantity), claim.method, claim.category)
        if cell is None or cell.misprint:
            return None
        printed = Summary.from_printed(cell.mean, cell.sd, RUNS)
        p = welch_p_value(self._cell(claim.method, claim.category).summary, printed)
        return None if math.isnan(p) else p

    def _methods(self) -> tuple[str, ...]:
        return (self.claim.method,) if self.claim.method else tuple(METHODS)

    def _places(self) -> tuple[str, ...]:
        """Categories, "" for the mean over all."""
        over = self.claim.over
        return (self.claim.category,) if over == "category" else ("",) if over == "categories" else tuple(CATEGORIES)

    def _counts(self, method: str, category: str) -> bool:
        if self.claim.statistic == "above chance":
            return self._above_chance(method, category)
        if self.claim.threshold is None:
            raise ValueError(f"a claim that counts categories needs a threshold: {self.claim.text}")
        return self._mean(method, category) > self.claim.threshold

    def _value(self, method: str, place: str) -> float:
        statistic = self.claim.statistic
        if statistic == "mean":
            return self._mean(method, place)
        if statistic in ("minimum", "maximum"):
            cell = self._cell(method, place)
            found = cell.minimum if statistic == "minimum" else cell.maximum
            if found is None:
                raise _MissingFigureError(f"no single runs of {method} on {place}")
            return found
        if statistic == "above chance":
            return float(self._above_chance(method, place))
        if statistic == "in best set":
            return float(method in self.protocol.best_set({m: self._cell(m, place).summary for m in METHODS}))
        means = {m: self._mean(m, place) for m in METHODS}
        sign = 1 if statistic == "rank" else -1
        return 1.0 + sum(sign * mean > sign * means[method] for mean in means.values())

    def _above_chance(self, method: str, category: str) -> bool:
        p = welch_p_value(self._cell(method, category).summary, Summary(1, 50.0, 0.0, exact=True), "one-sided")
        if math.isnan(p):
            raise _MissingFigureError(f"a single run of {method} on {category} cannot be tested")
        return p < self.protocol.alpha

    def _cell(self, method: str, category: str) -> RunFigures:
        found = self.figures.get((self.claim.quantity, method, category))
        if found is None or found.summary.mean is None:
            where = f" on {category}" if category else ""
            raise _MissingFigureError(f"no {self.claim.quantity} of {method}{where}")
        return found

    def _mean(self, method: str, place: str) -> float:
        if not place and (self.claim.quantity, method, "") not in self.figures:
            return math.fsum(self._mean(method, category) for category in CATEGORIES) / len(CATEGORIES)
        mean = self._cell(method, place).summary.mean
        assert mean is not None
        return mean
