"""What good images alone can promise: conformal p-values and thresholds, with what they are worth.

The scores here are of good images that the scoring detector did not see (``andon.inspection.cross_fitting``). If the
next good part is no different from them, its score is as likely to take any place among theirs as any other: that its
p-value, ``p = (1 + #{scores ≥ s}) / (n + 1)``, is at most α has a probability of at most α (Vovk, Gammerman & Shafer
2005; cross-conformal: Vovk 2015, who loses a little of the guarantee to the scores being of different detectors).
A part stops where its score is *above* the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from andon.core import ConfigError
from andon.evaluation import Interval, check_scores, clopper_pearson

__all__ = [
    "DEFAULT_BLOCKS",
    "DEFAULT_LOOK",
    "DEFAULT_RATE",
    "ConformalCalibration",
    "Decision",
    "Thresholds",
    "blocks",
    "images_needed",
    "least_rate",
    "moved_thresholds",
    "percent",
]

DEFAULT_BLOCKS = 10
DEFAULT_RATE = 0.01
"""Wanted false-alarm rate of "stop", where there are images enough for it."""
DEFAULT_LOOK = 0.05
"""Wanted rate of good parts that are looked at or stop."""

_ROUNDING = Fraction(1, 10**9)
"""So that 1/61 as a double is 1/61."""

Decision = Literal["pass", "look", "stop"]
_Float64 = npt.NDArray[np.float64]


def blocks(n: int, k: int = DEFAULT_BLOCKS) -> tuple[range, ...]:
    """``n`` images in shooting order cut into ``k`` contiguous blocks of nearly the same size, or ``n`` blocks of one.

    Contiguous, never at random: neighbouring shots are nearly the same image, and a detector that saw the neighbour
    would promise fewer false alarms than the line will have.

    Raises:
        ValueError: less than 2 images or blocks.
    """
    if n < 2 or k < 2:
        raise ValueError(f"at least 2 images and 2 blocks are needed, not {n} and {k}")
    ends = [n * i // min(n, k) for i in range(min(n, k) + 1)]
    return tuple(range(a, b) for a, b in pairwise(ends))


def least_rate(n: int) -> float:
    """The least false-alarm rate that ``n`` images can promise, 1 / (n + 1)."""
    return 1 / (n + 1)


def images_needed(rate: float) -> int:
    """The good images that a false-alarm rate needs, ⌈1 / rate⌉ − 1."""
    return math.ceil(1 / _exact(rate) - _ROUNDING) - 1


def percent(rate: float) -> str:
    """ "2.5 %", two significant digits."""
    return f"{100 * rate:.2g} %" if rate < 0.995 else f"{100 * rate:.3g} %"


def _exact(rate: float) -> Fraction:
    """The decimal that was meant: 0.07 is 7/100, not the double next to it."""
    return Fraction(str(float(rate)))


@dataclass(frozen=True)
class Thresholds:
    """Two thresholds of the image score.

    Attributes:
        look: what is above it is looked at.
        stop: what is above it stops; at least ``look``. Equal thresholds leave no band in between.
    """

    look: float
    stop: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.look) and math.isfinite(self.stop) and self.look <= self.stop):
            raise ConfigError(
                f"thresholds must be numbers, look's no higher than stop's, not {self.look} and {self.stop}"
            )

    def decide(self, score: float) -> Decision:
        """``pass`` up to the first, ``look`` up to the second, ``stop`` above."""
        if score > self.stop:
            return "stop"
        return "look" if score > self.look else "pass"


@dataclass(frozen=True)
class ConformalCalibration:
    """Scores of good images that the scoring detector did not see.

    Attributes:
        scores: float64 ``[n]``, in shooting order, n ≥ 1, finite.
        map_maxima: float64 ``[n]``: the highest value of each image's map, where it counts; empty without maps.
        map_medians: float64 ``[n]``: the median of each image's map; empty without maps.
        how: how they were come by, in words.
    """

    scores: _Float64
    map_maxima: _Float64 = field(default_factory=lambda: np.empty(0))
    map_medians: _Float64 = field(default_factory=lambda: np.empty(0))
    how: str = ""

    def __post_init__(self) -> None:
        for name in ("scores", "map_maxima", "map_medians"):
            object.__setattr__(self, name, check_scores(getattr(self, name)))
        if len(self.scores) == 0 or not len(self.map_maxima) == len(self.map_medians) in (0, len(self.scores)):
            raise ValueError("a calibration needs a score of every image, and a maximum and a median of every map")

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def least_rate(self) -> float:
        """The least false-alarm rate that can be promised."""
        return least_rate(len(self))

    def p_value(self, score: float) -> float:
        """``(1 + #{scores ≥ s}) / (n + 1)``: how rare so high a score is among good parts."""
        return (1 + int(np.count_nonzero(self.scores >= score))) / (len(self) + 1)

    def alarms(self, threshold: float) -> int:
        """How many of the good images are above a threshold."""
        return int(np.count_nonzero(self.scores > threshold))

    def check_rate(self, rate: float, option: str = "rate") -> float:
        """ConfigError where a false-alarm rate is none, or less than the images can promise."""
        if not 0 < rate < 1:
            raise ConfigError(f"{option} {rate:g}: a false-alarm rate is between 0 and 1, as in 0.01 or 1%")
        if self._place(rate) < 1:
            raise ConfigError(
                f"{option} {percent(rate)}: {len(self)} good images cannot promise less than 1/{len(self) + 1} "
                f"({percent(self.least_rate)}); {images_needed(rate)} would do"
            )
        return rate

    def threshold(self, rate: float) -> float:
        """The lowest threshold above which p-values are at most ``rate``.

        That is the k-th highest score, ``k = ⌊rate·(n + 1)⌋``.

        Raises:
            ConfigError: fewer images than the rate needs; the message says how many.
        """
        self.check_rate(rate)
        return float(np.sort(self.scores)[-self._place(rate)])

    def rate_of(self, threshold: float) -> float:
        """The false-alarm rate that a threshold promises: the p-value of the next score above it."""
        return (1 + self.alarms(threshold)) / (len(self) + 1)

    def interval(self, threshold: float, confidence: float = 0.95) -> Interval:
        """Part of the good images that is above a threshold, and where that of the line may lie (Clopper–Pearson)."""
        return clopper_pearson(self.alarms(threshold), len(self), confidence)

    def pixel_threshold(self, threshold: float) -> float | None:
        """The map's value that as few good images exceed anywhere as exceed ``threshold``; None without maps."""
        if not len(self.map_maxima):
            return None
        return float(np.sort(self.map_maxima)[-min(self.alarms(threshold) + 1, len(self))])

    @property
    def map_floor(self) -> float | None:
        """What a map's value mostly is on a good image: the scale's lower end."""
        return float(np.median(self.map_medians)) if len(self.map_medians) else None

    def default_rates(self, rate: float | None = None, look: float | None = None) -> tuple[float, float]:
        """False-alarm rates of look and stop: those asked for, or 5 % and 1 % where there are images enough.

        Raises:
            ConfigError: a rate that was asked for cannot be promised, or look's is below stop's.
        """
        stop = max(DEFAULT_RATE, self.least_rate) if rate is None else self.check_rate(rate)
        if look is None:
            return max(DEFAULT_LOOK, stop), stop
        if self.check_rate(look, "look") < stop:
            raise ConfigError(f"look {percent(look)}: is less than {percent(stop)}, the rate of stop")
        return look, stop

    def thresholds(self, rate: float | None = None, look: float | None = None) -> Thresholds:
        """``default_rates`` as thresholds."""
        at_look, at_stop = self.default_rates(rate, look)
        return Thresholds(self.threshold(at_look), self.threshold(at_stop))

    def sentence(self, threshold: float, verb: str = "stopped") -> str:
        """What a threshold means, for the foreman."""
        interval = self.interval(threshold)
        return (
            f"at this threshold {self.alarms(threshold)} of your {len(self)} good parts would have {verb} "
            f"(between {percent(interval.low)} and {percent(interval.high)} on the line)"
        )

    def _place(self, rate: float) -> int:
        return int(_exact(rate) * (len(self) + 1) + _ROUNDING)

    @classmethod
    def of(cls, scores: Sequence[float]) -> ConformalCalibration:
        """Of scores alone."""
        return cls(np.asarray(scores, dtype=np.float64))


def moved_thresholds(
    calibration: ConformalCalibration,
    now: Thresholds,
    *,
    rate: float | None = None,
    value: float | None = None,
    look: float | Literal["off"] | None = None,
    look_value: float | None = None,
) -> Thresholds:
    """Thresholds moved by rate or by value; what is not moved stays, but look's is never above stop's.

    Args:
        calibration: what rates are read off.
        now: the thresholds as they are.
        rate, value: of stop, one of them.
        look, look_value: of look, one of them; "off" leaves no band in between.

    Raises:
        ConfigError: both a rate and a value, a rate that cannot be promised, or look's above stop's.
    """
    for by_rate, by_value, option in ((rate, value, ""), (look, look_value, "look-")):
        if by_rate is not None and by_value is not None:
            raise ConfigError(f"give {option or 'the '}threshold by rate or by value, not by both")
    stop = now.stop if value is None else value
    if rate is not None:
        stop = calibration.threshold(rate)
    if look == "off":
        return Thresholds(stop, stop)
    if look_value is not None:
        return Thresholds(look_value, stop)
    if look is not None:
        calibration.check_rate(look, "look")
        return Thresholds(calibration.threshold(look), stop)
    return Thresholds(stop if now.look == now.stop else min(now.look, stop), stop)
