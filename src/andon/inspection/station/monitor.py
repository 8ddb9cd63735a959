"""Drift: whether the line's scores are still like those of the calibration, by a sequential test that may run for ever.

Without drift the scores of the line are exchangeable with those of the calibration. Then where a new score falls among
the gaps between the calibration's scores follows Pólya's urn, whatever the scores' (continuous) distribution: the gaps'
probabilities are Dirichlet(1, …, 1), so a gap that ``c`` earlier parts fell into gets the next with a probability of
``(1 + c) / (n + 1 + m)`` after m parts (Wilks 1962; Blackwell & MacQueen 1973). That is the conformal
p-value of the new score among calibration and all earlier parts, known up to its gap; the error of a small calibration
is in it. Bets against these p-values are a conformal test martingale (Vovk, Nouretdinov & Gammerman 2003; Vovk,
Gammerman & Shafer 2022, chapter 8): a fortune of 1 that without drift grows beyond 1/α with a probability of at most α,
ever (Ville 1939). A p-value that is known up to an interval pays the mean of the bet over it, so no
random numbers are needed but between equal scores.

Defective parts are no drift: only scores below the top of the calibration are ranked. Gaps below the top keep their urn
whatever lies above it (a Dirichlet vector is neutral to the right), so how many parts lie above it, and when, does not
matter to the test. Their share is tested by itself, against an allowance.
"""

from __future__ import annotations

import math
import random
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from andon.core import ConfigError
from andon.evaluation import check_scores
from andon.inspection.calibration import DEFAULT_RATE, percent

__all__ = ["DEFAULT_FALSE_ALARMS", "DEFAULT_STOPS", "Direction", "DriftMonitor", "DriftState"]

DEFAULT_FALSE_ALARMS = 0.01
"""Probability of ever alarming without drift."""
DEFAULT_STOPS = 0.05
"""Share of defective parts that is no drift."""

Direction = Literal["higher", "lower", "wider", "narrower", "stops"]
_Float64 = npt.NDArray[np.float64]

_BINS = 64
_RECENT = 200
_ON_STOPS = 0.1
"""Part of the fortune that is bet on the share of parts above the top."""
_ON_TOP = 0.1
"""Part of the false alarms that is left to the calibration's top being an unlucky one."""
_PATIENCE = 1000.0
"""Parts over which bets begin evenly; later ones begin ever more rarely, so that the fortune lasts."""
_SHIFTS = (0.1, 0.2, 0.35, 0.6, 1.0, 1.7, 2.8)
_WIDE_SHIFTS = (0.3, 1.0)
_SPREADS = (0.7, 1.4, 2.0)
_MOST = 1e200
"""So that the fortune stays a number: far above any bound."""


@dataclass(frozen=True)
class DriftState:
    """What the monitor knows after a part.

    Attributes:
        n: parts seen since the start or the last reset.
        evidence: the fortune, 1 at the start: without drift it ever reaches ``bound`` with a probability of at most the
            stated false-alarm rate. The chart draws its logarithm.
        bound: where it alarms.
        alarmed: whether it has ever reached it; stays until a reset.
        since: the part, counted from 1, at which it alarmed.
        began: the part from which on the evidence speaks for a change: an estimate, without a promise.
        direction: how scores changed: "higher", "lower", "wider" (spread more), "narrower", or "stops" (more parts lie
            above the top than defects and false alarms explain); None before an alarm.
        recent: median place of the last (at most 200) parts among the calibration's scores, 0 (lowest) … 1; None
            before the first.
        stops: share of them that lie above the calibration's top.
        sentence: the state, for the foreman.
    """

    n: int
    evidence: float
    bound: float
    alarmed: bool = False
    since: int | None = None
    began: int | None = None
    direction: Direction | None = None
    recent: float | None = None
    stops: float | None = None
    sentence: str = ""

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of ``evidence``."""
        return math.log(self.evidence)


class _Bets:
    """A fortune spread over alternatives and over when they begin to hold; what has not begun yet is kept.

    Attributes:
        count: parts that were bet on.
    """

    def __init__(self, alternatives: int) -> None:
        self._at_work: _Float64 = np.zeros(alternatives)
        self._sums: _Float64 = np.zeros(alternatives)
        self._starts = np.ones(alternatives, dtype=np.int64)
        self.count = 0

    @property
    def fortune(self) -> float:
        return min(float(self._at_work.sum()) + _kept(self.count), _MOST)

    def update(self, factors: _Float64, part: int) -> None:
        """One part's likelihood ratio of each alternative."""
        begun = _kept(self.count) - _kept(self.count + 1)
        self._at_work = np.minimum((self._at_work + begun / len(factors)) * factors, _MOST)
        self.count += 1
        # Page's sums tell where the change began; the test does not use them.
        self._starts[self._sums <= 0] = part
        with np.errstate(divide="ignore"):
            self._sums = np.clip(self._sums + np.log(factors), 0, 1e6)

    def best(self) -> tuple[int, int]:
        """The alternative that won most, and the part where it began."""
        k = int(np.argmax(self._at_work))
        return k, int(self._starts[k])


def _kept(count: int) -> float:
    """Part of the fortune that has not begun to bet after ``count`` parts: falls from 1 to 0, slower than any power."""
    return 1 / (1 + math.log1p(count / _PATIENCE))


class DriftMonitor:
    """Tells whether the line's scores have drifted from the calibration's.

    The promise: as long as

    - the good parts' scores are independent and of one distribution, that of the calibration's,
    - defective parts score above the top of the calibration (its highest score, or its highest hundredth), and
    - each part is defective with a probability of at most ``stops``, given all before it,

    the probability that it *ever* alarms is at most ``false_alarms``, however long it runs; a reset starts it anew.
    When it has alarmed, the rates that were promised for "stop" and "look" are not to be relied on.

    The same scores in the same order give the same state. An update costs the same after millions of parts, some tens
    of microseconds, and nothing grows.

    Args:
        calibration_scores: ``[n]``, of good images, finite.
        false_alarms: the promise, 0 < α < 1.
        stops: share of defective parts that is no drift, 0 ≤ share < 1.
        seed: decides between equal scores, at random.

    Raises:
        ConfigError: a rate out of range, or no scores.
    """

    def __init__(
        self,
        calibration_scores: Sequence[float] | _Float64,
        *,
        false_alarms: float = DEFAULT_FALSE_ALARMS,
        stops: float = DEFAULT_STOPS,
        seed: int = 0,
    ) -> None:
        if not 0 < false_alarms < 1:
            raise ConfigError(f"false alarms {false_alarms:g}: the drift alarm's rate is between 0 and 1, as in 0.01")
        if not 0 <= stops < 1:
            raise ConfigError(f"stops {stops:g}: the share of defective parts is at least 0 and below 1")
        scores = check_scores(calibration_scores)
        if not len(scores):
            raise ConfigError("drift cannot be watched without calibration scores")
        self.false_alarms, self.seed = false_alarms, seed
        self.calibration_size = n = len(scores)
        self._ranked = sorted((float(s), self._lot(f"calibration {i}")) for i, s in enumerate(scores))
        above = max(1, int(DEFAULT_RATE * (n + 1) + 1e-9))
        self._top = self._ranked[n - above]
        gaps = n - above + 1
        ends = [gaps * i // min(_BINS, gaps) for i in range(min(_BINS, gaps) + 1)]
        self._edges = [self._ranked[end - 1] for end in ends[1:-1]]
        self._urn = np.diff(np.asarray(ends, dtype=np.float64))
        # A good part is above the top with a probability that is Beta(above, n + 1 − above) distributed.
        worst = float(special.betaincinv(above, n + 1 - above, 1 - _ON_TOP * false_alarms))
        self.allowed_stops = stops + (1 - stops) * worst
        self.bound = 1 / ((1 - _ON_TOP) * false_alarms)
        self._lock = threading.RLock()  # the page asks while the line goes on
        self.reset()

    def reset(self) -> None:
        """Forgets all parts, as after maintenance that was confirmed: the promise starts anew."""
        with self._lock:
            self._counts = self._urn.copy()
            self._body = _Bets(len(_MEANS))
            self._stops = _Bets(len(_TIMES))
            self._recent: deque[tuple[float, bool]] = deque(maxlen=_RECENT)
            self._parts, self._evidence = 0, 1.0
            self._alarm: tuple[int, int, Direction] | None = None

    @property
    def state(self) -> DriftState:
        """After the last part."""
        with self._lock:
            state = DriftState(self._parts, self._evidence, self.bound)
            if self._alarm is not None:
                since, began, direction = self._alarm
                state = replace(state, alarmed=True, since=since, began=began, direction=direction)
            if self._recent:
                recent = float(np.median([place for place, _ in self._recent]))
                state = replace(state, recent=recent, stops=sum(stops for _, stops in self._recent) / len(self._recent))
        return replace(state, sentence=self._sentence(state))

    def update(self, score: float) -> DriftState:
        """Takes the next part's score; the state after it.

        Raises:
            ValueError: not a finite number (a part that was not found has no score: leave it out).
        """
        with self._lock:
            self._take(score)
            return self.state

    def update_all(self, scores: Iterable[float]) -> DriftState:
        """Takes scores in order, as when it is restored from the journal; the state after them."""
        with self._lock:
            for score in scores:
                self._take(score)
            return self.state

    def trace(self, scores: Iterable[float]) -> list[float]:
        """Takes scores in order; the evidence after each."""
        with self._lock:
            found = []
            for score in scores:
                self._take(score)
                found.append(self._evidence)
            return found

    def _take(self, score: float) -> None:
        if not math.isfinite(score):
            raise ValueError(f"a score must be a finite number, not {score}")
        self._parts += 1
        placed = (float(score), self._lot(f"part {self._parts}") if self._ties(score) else 0.0)
        stops = placed > self._top
        self._stops.update(_stop_factors(stops, self.allowed_stops), self._parts)
        if not stops:
            self._rank(bisect_left(self._edges, placed))
        self._recent.append((bisect_left(self._ranked, placed) / self.calibration_size, stops))
        on_body, on_stops = (1 - _ON_STOPS) * self._body.fortune, _ON_STOPS * self._stops.fortune
        self._evidence = on_body + on_stops
        if self._evidence >= self.bound and self._alarm is None:
            k, began = (self._stops if on_stops > on_body else self._body).best()
            self._alarm = self._parts, began, "stops" if on_stops > on_body else _direction(k)

    def _rank(self, place: int) -> None:
        """Bets on a part in a bin, then counts it."""
        below = self._counts[:place].sum()
        ends = np.array([below, below + self._counts[place]]) / self._counts.sum()
        z = special.ndtri(np.clip(ends, 0, 1))
        masses = special.ndtr((z[:, None] - _MEANS) / _DEVIATIONS)
        self._body.update((masses[1] - masses[0]) / (ends[1] - ends[0]), self._parts)
        self._counts[place] += 1

    def _ties(self, score: float) -> bool:
        place = bisect_left(self._ranked, (float(score),))
        return place < self.calibration_size and self._ranked[place][0] == score

    def _lot(self, name: str) -> float:
        """Uniform in [0, 1), of its own for each score: neither order nor restarts change it."""
        return random.Random(f"{self.seed} {name}").random()

    def _sentence(self, state: DriftState) -> str:
        if not state.n:
            return f"No part yet to compare with the {self.calibration_size} good parts of the calibration."
        if not state.alarmed or state.direction is None:
            return (
                f"No drift noticed: the scores of {state.n:,} {'part' if state.n == 1 else 'parts'} may well be those "
                f"of the {self.calibration_size} good parts of the calibration."
            )
        recent, stops = state.recent or 0.0, state.stops or 0.0
        what = _WORDS[state.direction].format(
            below=percent(recent), above=percent(1 - recent), stops=percent(stops), allowed=percent(self.allowed_stops)
        )
        return (
            f"Drift, noticed at part {state.since:,} and perhaps begun at part {state.began:,}: {what} The promised "
            f"rate of false alarms no longer holds. Look at light, lens, fixture and the parts themselves; then reset "
            f"this alarm, or update the inspector with good parts of today. Without drift there is such an alarm with "
            f"a probability of at most {percent(self.false_alarms)}."
        )


_WORDS: dict[Direction, str] = {
    "higher": "parts score higher than they did (half of the last ones higher than {below} of the good parts of the "
    "calibration), so more good parts will stop.",
    "lower": "parts score lower than they did (half of the last ones lower than {above} of the good parts of the "
    "calibration), so defects may pass: is something before the lens?",
    "wider": "scores are spread more widely than they were, so more good parts will stop.",
    "narrower": "scores are spread less than they were: is the camera seeing the parts?",
    "stops": "of the last parts {stops} score as the worst of the calibration or higher, and defects and false alarms "
    "explain no more than {allowed}.",
}


def _alternatives() -> tuple[_Float64, _Float64]:
    """Means and deviations of what a part's place, on the normal scale, may be after a change (before it: 0 and 1)."""
    moved = [(sign * shift, 1.0) for shift in _SHIFTS for sign in (1, -1)]
    wider = [(sign * shift, _SPREADS[1]) for shift in _WIDE_SHIFTS for sign in (1, -1)]
    spread = [(0.0, spread) for spread in _SPREADS]
    means, deviations = np.array([*moved, *wider, *spread], dtype=np.float64).T
    return means, deviations


_MEANS, _DEVIATIONS = _alternatives()
_TIMES: _Float64 = np.array([0.1, 0.3, 0.6, 0.9])
"""How far, from what is allowed to all, the share of parts above the top may be after a change."""


def _direction(k: int) -> Direction:
    if _MEANS[k]:
        return "higher" if _MEANS[k] > 0 else "lower"
    return "wider" if _DEVIATIONS[k] > 1 else "narrower"


def _stop_factors(stops: bool, allowed: float) -> _Float64:
    """Likelihood ratios of larger shares to the allowed one: for any smaller share their expectation is below 1."""
    shares = allowed + (1 - allowed) * _TIMES
    return shares / allowed if stops else (1 - shares) / (1 - allowed)
