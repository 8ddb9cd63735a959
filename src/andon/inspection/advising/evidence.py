"""How candidates compare on the same images, and how sure that is.

A candidate's scores of good images and of defects are one matrix of comparisons: entry (i, j) is 1 where defect j
scores above good image i, ½ where they tie. Its mean is the AUROC. Two candidates are compared by the difference of
their matrices, and the bootstrap draws images, not entries: a good image and the defects that were pasted into it come
and go together, for both candidates alike. So what all candidates find hard does not count as a difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from andon.evaluation import Interval

__all__ = [
    "LEAST_DEFECTS",
    "Choice",
    "Comparisons",
    "Evidence",
    "auroc_interval",
    "carried",
    "choose",
    "compared",
    "comparisons",
    "margins_over",
]

LEAST_DEFECTS = 8
"""Real defects below which nothing is chosen."""
RESAMPLES = 4000

_Float64 = npt.NDArray[np.float64]
_Index = npt.NDArray[np.intp]
Kind = Literal["real", "synthetic"]


@dataclass(frozen=True)
class Comparisons:
    """One candidate's good images against defects.

    Attributes:
        won: float64 ``[n, m]``: 1, ½ or 0.
        base: int ``[m]``: the good image that each defect was pasted into; None for real defects, drawn by themselves.
    """

    won: _Float64
    base: _Index | None = None

    @property
    def auroc(self) -> float:
        """The chance that a defect scores above a good image, ties counting half."""
        return float(self.won.mean())


def comparisons(good: npt.ArrayLike, defective: npt.ArrayLike, base: npt.ArrayLike | None = None) -> Comparisons:
    """The matrix.

    Args:
        good: scores ``[n]``.
        defective: scores ``[m]``, or ``[n, m]`` where the detector that scored good image i gave defect j its own.
        base: see ``Comparisons``.
    """
    above, below = np.asarray(defective, dtype=np.float64), np.asarray(good, dtype=np.float64)[:, None]
    above = np.broadcast_to(above, (len(below), above.shape[-1]))
    won = (above > below) + 0.5 * (above == below)
    return Comparisons(won, None if base is None else np.asarray(base, dtype=np.intp))


def _draws(found: Comparisons, seed: int) -> tuple[_Float64, _Float64]:
    """How often each good image and each defect is drawn, ``[RESAMPLES, n]`` and ``[RESAMPLES, m]``."""
    n, m = found.won.shape
    rng = np.random.default_rng(seed)
    rows = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)
    if found.base is not None:
        return rows, rows[:, found.base]
    return rows, rng.multinomial(m, np.full(m, 1 / m), size=RESAMPLES).astype(np.float64)


def compared(
    one: Comparisons,
    other: Comparisons,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    draws: tuple[_Float64, _Float64] | None = None,
) -> Interval:
    """How much higher the first candidate's AUROC is, with the interval of the paired bootstrap.

    ``draws`` are those of ``seed``, where they are at hand.

    Raises:
        ValueError: the two were not measured on the same images.
    """
    alike = one.won.shape == other.won.shape and (one.base is None) == (other.base is None)
    if not alike or (one.base is not None and other.base is not None and not np.array_equal(one.base, other.base)):
        raise ValueError("only candidates that were measured on the same images can be compared")
    return _interval(one.won - other.won, one, confidence, _draws(one, seed) if draws is None else draws)


def auroc_interval(found: Comparisons, *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The AUROC with its bootstrap interval; a note where that cannot be told."""
    interval = _interval(found.won, found, confidence, _draws(found, seed))
    if np.ptp(found.won) == 0:
        return replace(interval, note="all comparisons come out alike: no resampling can tell the error")
    return interval


def _interval(values: _Float64, found: Comparisons, confidence: float, draws: tuple[_Float64, _Float64]) -> Interval:
    """The expanded percentile interval (Hesterberg, The American Statistician 2015): the plain one is too short for few
    images, by the difference between the normal and the t distribution and by n against n − 1."""
    rows, columns = draws
    weights = rows.sum(axis=1) * columns.sum(axis=1)
    drawn = np.einsum("rm,rm->r", rows @ values, columns) / np.where(weights > 0, weights, np.nan)
    n = min(values.shape) if found.base is None else len(values)
    alpha = (1 - confidence) / 2
    if n > 1:
        alpha = float(stats.norm.cdf(stats.t.ppf(alpha, n - 1) * (n / (n - 1)) ** 0.5))
    low, high = np.nanquantile(drawn, [alpha, 1 - alpha])
    return Interval(float(values.mean()), float(low), float(high), confidence)


@dataclass(frozen=True)
class Evidence:
    """What was measured of the candidates on one kind of defects.

    Attributes:
        kind: "real" or "synthetic".
        good, defective: how many images.
        candidates: comparisons by the candidate's label; the default is among them.
    """

    kind: Kind
    good: int
    defective: int
    candidates: dict[str, Comparisons]


@dataclass(frozen=True)
class Choice:
    """Which candidate, and why.

    Attributes:
        label: of the candidate; the default's where the evidence does not carry another.
        changed: whether it is another than the default.
        margins: of each other candidate, how much higher its AUROC is than the default's, with its interval.
        best: the candidate with the highest AUROC; the default's label where none is higher.
        reasons: in sentences.
    """

    label: str
    changed: bool
    margins: dict[str, Interval]
    best: str
    reasons: tuple[str, ...]


def margins_over(evidence: Evidence, default: str, *, seed: int = 0) -> dict[str, Interval]:
    """Of each other candidate, how much higher its AUROC is than the default's, 95 % for all of them together."""
    others = [label for label in evidence.candidates if label != default]
    confidence = 1 - 0.05 / max(1, len(others))
    own = evidence.candidates[default]
    draws = _draws(own, seed)  # the same for all, since they were measured on the same images
    return {label: compared(evidence.candidates[label], own, confidence=confidence, draws=draws) for label in others}


def carried(margins: Mapping[str, Interval], default: str) -> str:
    """The candidate with the highest margin of those whose interval is above 0; the default where there is none."""
    above = [label for label, margin in margins.items() if margin.low > 0]
    return max(above, key=lambda label: margins[label].value, default=default)


def choose(evidence: Evidence, default: str, *, seed: int = 0) -> Choice:
    """Another candidate than the default only where real defects say that it is better, by more than their own error.

    The interval of a margin has 95 % for all candidates together (Bonferroni): the best of several looks better than it
    is. Synthetic defects never choose; docs/advise.md has the figures why.

    Args:
        evidence: on real defects where there are any, on synthetic ones otherwise.
        default: label of what is kept otherwise.
        seed: of the bootstrap.
    """
    margins, which = margins_over(evidence, default, seed=seed), _defects(evidence)
    best = max(margins, key=lambda label: margins[label].value, default=default)
    best = best if best != default and margins[best].value > 0 else default
    few = evidence.kind == "synthetic" or evidence.defective < LEAST_DEFECTS
    leads = f"no candidate has a higher AUROC on {which} than the default"
    if best != default:
        leads = f"{best} has the highest AUROC on {which}, {_told(margins[best])}"
    if few:
        return Choice(default, False, margins, best, (_few(evidence), leads))
    chosen = carried(margins, default)
    if chosen == default:
        kept = "" if best == default else ": that is within the error of the comparison, so the default is kept"
        return Choice(default, False, margins, best, (leads + kept,))
    reason = f"on {which} {chosen} has an AUROC {_told(margins[chosen])}: more than the error of the comparison"
    return Choice(chosen, True, margins, best, (reason,))


def _defects(evidence: Evidence) -> str:
    own = "" if evidence.kind == "synthetic" else "your "
    return f"{own}{evidence.defective} {'synthetic ' if not own else ''}defects"


def _told(margin: Interval) -> str:
    low, high = (f"{end:+.3f}" for end in (margin.low, margin.high))
    return f"{margin.value:.3f} above the default's (between {low} and {high})"


def _few(evidence: Evidence) -> str:
    if evidence.kind == "synthetic":
        return (
            "no real defects were given, so only synthetic evidence exists; it is shown but does not choose, and the "
            f"default is kept (--defective with {LEAST_DEFECTS} or more real ones can choose)"
        )
    n = evidence.defective
    what = "real defects are" if n != 1 else "real defect is"
    return f"{n} {what} too few to choose by, {LEAST_DEFECTS} are the least; the default is kept"
