"""What the study leaves open, decided in one place: ``paper`` (Andon's readings) or ``released-code`` (its code's).

docs/protocol.md gives the reason for each. How experiments are trained is not here but in the methods' presets
("study", "released-code") and the plans; these options change how their results are read, and how images are resized.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy.typing as npt

from andon._tools.models import FrozenModel
from andon.benchmark.statistics import Alternative, Correction, Summary, best_set, summarise, welch_p_value
from andon.core import ConfigError
from andon.evaluation import average_precision, tpr_at_nearest_tnr, tpr_at_tnr, trapezoidal_ap

__all__ = ["STUDY_PROTOCOLS", "ApReading", "StudyProtocol", "TnrReading", "study_protocol"]

TnrReading = Literal["at least", "nearest"]
ApReading = Literal["step-wise", "trapezoidal"]


class StudyProtocol(FrozenModel):
    """How the study's figures are read.

    Attributes:
        ddof: of the standard deviation that is shown: 0 for the population's, 1 for the sample's. Tests always use
            the unbiased variance.
        alternative: sidedness of Welch's test.
        correction: of its p-values for the number of methods compared with the best.
        alpha: its level.
        tnr: operating point of TPR at TNR: a TNR of at least the target, or the one nearest to it.
        ap: average precision: step-wise, or the trapezoidal area under the precision–recall curve.
        antialias: of ``Transform``: whether images are resized with a filter that widens with the reduction.
    """

    ddof: Literal[0, 1] = 0
    alternative: Alternative = "two-sided"
    correction: Correction = "none"
    alpha: float = 0.05
    tnr: TnrReading = "at least"
    ap: ApReading = "step-wise"
    antialias: bool = True

    def summarise(self, values: Iterable[float | None], *, exact: bool = False) -> Summary:
        """Mean and deviation of the runs' values (``andon.benchmark.summarise``)."""
        return summarise(values, exact=exact, ddof=self.ddof)

    def p_value(self, a: Summary, b: Summary) -> float:
        """Welch's test of two cells, uncorrected; one-sided: that mean(a) is greater."""
        return welch_p_value(a, b, self.alternative)

    def best_set(self, cells: Mapping[str, Summary], *, higher_is_better: bool = True) -> frozenset[str]:
        """The best cells of a row (``andon.benchmark.best_set``)."""
        return best_set(
            cells,
            alpha=self.alpha,
            alternative=self.alternative,
            correction=self.correction,
            higher_is_better=higher_is_better,
        )

    def average_precision(self, scores: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
        """AP of image scores ``[n]`` with labels ``[n]`` (true for defective), 0..1; None where a class is missing."""
        return (average_precision if self.ap == "step-wise" else trapezoidal_ap)(scores, labels)

    def tpr_at_tnr(self, scores: npt.ArrayLike, labels: npt.ArrayLike, tnr: float) -> float | None:
        """TPR at a TNR in (0, 1], of scores and labels as ``average_precision``."""
        return (tpr_at_tnr if self.tnr == "at least" else tpr_at_nearest_tnr)(scores, labels, tnr)


STUDY_PROTOCOLS: Mapping[str, StudyProtocol] = MappingProxyType(
    {
        "paper": StudyProtocol(),
        "released-code": StudyProtocol(tnr="nearest", ap="trapezoidal", antialias=False),
    }
)
"""By name. The released code has no test and no table: deviation, sidedness and correction are the paper's there."""


def study_protocol(name: str) -> StudyProtocol:
    """The protocol of a name; ConfigError for an unknown one."""
    if name not in STUDY_PROTOCOLS:
        raise ConfigError(f"unknown study protocol {name!r}; known: {', '.join(STUDY_PROTOCOLS)}")
    return STUDY_PROTOCOLS[name]
