"""The drift monitor: its null against brute force and full conformal ranks, its promise, and what it notices."""

from __future__ import annotations

import math
import threading

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from andon.core import ConfigError
from andon.inspection.station import monitor as module
from andon.inspection.station.monitor import DriftMonitor

Floats = npt.NDArray[np.float64]


def first_alarm(monitor: DriftMonitor, scores: Floats) -> int | None:
    monitor.update_all(scores)
    return monitor.state.since


class Recorder(DriftMonitor):
    """Keeps what each part's bin was expected to be."""

    def _rank(self, place: int) -> None:
        self.seen = getattr(self, "seen", [])
        self.seen.append((place, (self._counts / self._counts.sum()).copy()))
        super()._rank(place)


def test_urn_is_the_distribution_of_the_rank_among_calibration_and_earlier_parts() -> None:
    """Two parts after nine scores: the bins' joint frequencies, whatever the distribution, against Pólya's urn."""
    rng = np.random.default_rng(0)
    pairs: dict[tuple[int, ...], int] = {}
    tried = 40_000
    values = np.exp(2 * rng.normal(size=(tried, 11)))  # nothing like normal
    ranked = np.sort(values[:, :9], axis=1)
    for scores, row in zip(values, ranked, strict=True):
        below = scores[9:] <= row[-1]
        if below.all():
            bins = tuple(int(b) for b in np.searchsorted(row[:-1], scores[9:]))
            pairs[bins] = pairs.get(bins, 0) + 1
    monitor = Recorder([1.0, 2, 3, 4, 5, 6, 7, 8, 9])
    monitor.update_all([3.5, 3.5])
    (first, expected), (second, then) = monitor.seen
    assert first == second == 3
    assert expected == pytest.approx(np.full(9, 1 / 9))
    assert then[3] == pytest.approx(2 / 10)
    # Given that both lie below the top: the first in any gap with 1/9, the second in the same with 2/10, else 1/10.
    total = sum(pairs.values())
    observed = np.array([[pairs.get((i, j), 0) for j in range(9)] for i in range(9)])
    probability = (np.ones((9, 9)) + np.eye(9)) / 90
    assert stats.chisquare(observed.ravel(), (probability * total).ravel()).pvalue > 1e-3


def test_factors_are_bets_that_are_fair_in_every_bin() -> None:
    """Σ probability × factor = 1 for each alternative: the fortune is a martingale, exactly."""
    rng = np.random.default_rng(1)
    monitor = DriftMonitor(rng.normal(size=100))
    monitor.update_all(rng.normal(size=50) - 0.5)
    counts = monitor._counts.copy()
    wins = np.zeros(len(module._MEANS))
    for place in range(len(counts)):
        captured: list[Floats] = []

        class Bets:
            def update(self, factors: Floats, part: int, captured: list[Floats] = captured) -> None:
                captured.append(factors)

        monitor._body, monitor._counts = Bets(), counts.copy()  # type: ignore[assignment]
        monitor._rank(place)
        wins += counts[place] / counts.sum() * captured[0]
    assert wins == pytest.approx(np.ones(len(wins)), abs=1e-9)


def test_factor_is_the_mean_of_the_density_ratio_over_the_gap() -> None:
    """Against numerical integration of the bet over p-values."""
    monitor = DriftMonitor(np.arange(19.0))  # 18 scores and 19 gaps below the top
    captured: list[Floats] = []
    monitor._body.update = lambda factors, part: captured.append(factors)  # type: ignore[method-assign]
    monitor._rank(4)
    u = np.linspace(4 / 19, 5 / 19, 20_001)
    z = stats.norm.ppf(u)
    for k, (mean, deviation) in enumerate(zip(module._MEANS, module._DEVIATIONS, strict=True)):
        ratio = stats.norm.pdf(z, mean, deviation) / stats.norm.pdf(z)
        assert captured[0][k] == pytest.approx(integrate.trapezoid(ratio, u) / (u[-1] - u[0]), rel=1e-5)


def test_share_of_stops_is_no_bet_for_any_smaller_share() -> None:
    for allowed in (0.05, 0.15, 0.6):
        for share in np.linspace(0, allowed, 5):
            expected = share * module._stop_factors(True, allowed) + (1 - share) * module._stop_factors(False, allowed)
            assert (expected <= 1 + 1e-12).all()


def test_what_has_not_begun_to_bet_is_never_spent() -> None:
    spent = [module._kept(count) - module._kept(count + 1) for count in range(1000)]
    assert min(spent) > 0
    assert module._kept(0) == 1
    assert 0 < module._kept(10**9) < 0.1


@pytest.mark.parametrize("size", [1, 2, 20, 60, 300])
@pytest.mark.parametrize("name", ["normal", "lognormal", "rounded", "resampled"])
def test_no_alarm_without_drift(size: int, name: str) -> None:
    """12 shifts of 300 parts each: all 20 cases together, 240 shifts, may alarm as often as 240 × 1 % says."""
    rng = np.random.default_rng([size, len(name)])
    draw = {
        "normal": lambda n: rng.normal(size=n),
        "lognormal": lambda n: np.exp(rng.normal(size=n)),
        "rounded": lambda n: np.round(rng.normal(size=n), 1),
        "resampled": lambda n: rng.choice(np.linspace(0, 1, 40) ** 3, size=n),
    }[name]
    alarms = sum(first_alarm(DriftMonitor(draw(size)), draw(300)) is not None for _ in range(12))
    assert alarms <= 2  # more has a probability below 0.0002 even if the promise is just kept


def test_evidence_is_on_average_no_more_than_one() -> None:
    """Unlike "no alarm", this fails at once where a bet is better than fair: ties, ends of the scale, the top."""
    rng = np.random.default_rng(5)
    found = [
        DriftMonitor(np.round(rng.normal(size=8), 1)).update_all(np.round(rng.normal(size=12), 1)).evidence
        for _ in range(1500)
    ]
    assert np.mean(found) < 1 + 4 * np.std(found) / math.sqrt(len(found))
    assert np.mean(found) > 0.9  # and it is not idle


def test_defective_parts_are_no_drift() -> None:
    rng = np.random.default_rng(2)
    for share in (0.01, 0.03, 0.05):
        for _ in range(5):
            scores = np.where(rng.random(1500) < share, 40.0, rng.normal(size=1500))
            assert first_alarm(DriftMonitor(rng.normal(size=60)), scores) is None


@pytest.mark.parametrize(
    ("change", "directions"),
    [
        (lambda s: s + 1, {"higher"}),
        (lambda s: s - 1, {"lower"}),
        (lambda s: 2.5 * s, {"wider", "stops"}),
        (lambda s: 0.3 * s, {"narrower"}),
        (lambda s: s + 8, {"stops"}),
        (lambda s: 0 * s - 9, {"lower"}),
        (lambda s: 0 * s, {"narrower"}),
    ],
)
def test_changes_are_noticed_and_named(change: object, directions: set[str]) -> None:
    rng = np.random.default_rng(3)
    monitor = DriftMonitor(rng.normal(size=100))
    assert not monitor.update_all(rng.normal(size=300)).alarmed
    state = monitor.update_all(change(rng.normal(size=300)))  # type: ignore[operator]
    assert state.alarmed
    assert state.since is not None
    assert 300 < state.since < 500
    assert state.direction in directions
    assert state.began is not None
    assert abs(state.began - 301) < 80
    assert f"noticed at part {state.since}" in state.sentence
    assert "at most 1 %" in state.sentence
    assert state.evidence > 0
    assert monitor.update_all(rng.normal(size=50)).since == state.since, "an alarm stays"


def test_a_covered_lens_is_noticed_within_a_few_parts() -> None:
    rng = np.random.default_rng(4)
    monitor = DriftMonitor(rng.normal(size=60))
    monitor.update_all(rng.normal(size=500))
    higher = first_alarm(monitor, np.full(60, 50.0))
    assert higher is not None
    assert higher <= 530
    monitor = DriftMonitor(rng.normal(size=60))
    monitor.update_all(rng.normal(size=500))
    lower = first_alarm(monitor, np.full(60, -50.0))
    assert lower is not None
    assert lower <= 530


def test_slow_drift_is_noticed_before_the_false_alarms_have_doubled() -> None:
    """Normal scores that rise by 0.29 deviations, where a rate of 1 % has become 2 %, in 4,000 parts."""
    doubled = float(stats.norm.isf(0.01) - stats.norm.isf(0.02))
    before = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        monitor = DriftMonitor(rng.normal(size=60))
        assert not monitor.update_all(rng.normal(size=2000)).alarmed
        state = monitor.update_all(rng.normal(size=4000) + np.linspace(0, doubled, 4000))
        before += state.alarmed and state.direction == "higher"
    assert before >= 5


def test_state_can_be_asked_for_while_the_line_goes_on() -> None:
    monitor, over, faults = DriftMonitor(np.arange(60.0)), threading.Event(), list[Exception]()

    def ask() -> None:
        while not over.is_set():
            try:
                assert monitor.state.n >= 0
            except Exception as error:
                faults.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    for score in np.random.default_rng(8).normal(30, 9, size=1500):
        monitor.update(float(score))
    over.set()
    asking.join()
    assert not faults


def test_same_scores_same_state_whatever_was_before() -> None:
    rng = np.random.default_rng(6)
    calibration, scores = np.round(rng.normal(size=60), 1), np.round(rng.normal(size=400), 1)
    one, other = DriftMonitor(calibration), DriftMonitor(calibration)
    for score in scores:
        one.update(float(score))
    other.update_all(rng.normal(size=100) + 3)
    assert other.state.alarmed
    other.reset()
    assert other.state == DriftMonitor(calibration).state
    assert other.update_all(scores) == one.state


def test_order_of_the_scale_alone_counts() -> None:
    rng = np.random.default_rng(7)
    calibration, scores = rng.normal(size=60), rng.normal(size=200)
    plain = DriftMonitor(calibration).update_all(scores)
    bent = DriftMonitor(np.exp(3 * calibration)).update_all(np.exp(3 * scores))
    assert bent.evidence == plain.evidence


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=40), st.lists(st.floats(-1e300, 1e300), max_size=120))
def test_any_scores_give_a_state(calibration: list[float], scores: list[float]) -> None:
    state = DriftMonitor(calibration).update_all(scores)
    assert state.n == len(scores)
    assert math.isfinite(state.log_evidence)
    assert state.sentence
    assert state.alarmed == (state.since is not None)


def test_long_runs_stay_numbers_and_small() -> None:
    monitor = DriftMonitor(np.arange(60.0))
    state = monitor.update_all(np.full(20_000, 1e6))
    assert state.evidence < math.inf
    assert state.stops == 1
    assert len(monitor._recent) == 200
    assert len(monitor._counts) <= 64


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="false alarms 0"):
        DriftMonitor([1.0], false_alarms=0)
    with pytest.raises(ConfigError, match="stops 1"):
        DriftMonitor([1.0], stops=1)
    with pytest.raises(ConfigError, match="without calibration"):
        DriftMonitor([])
    with pytest.raises(ValueError, match="finite"):
        DriftMonitor([1.0]).update(float("nan"))


def test_a_trace_is_the_evidence_after_each_part() -> None:
    scores = np.random.default_rng(3).normal(0.5, size=40)
    one, other = (DriftMonitor(np.linspace(-2, 2, 60)) for _ in range(2))
    evidences = [one.update(score).evidence for score in scores]
    assert other.trace(scores[:25]) + other.trace(scores[25:]) == evidences
    assert other.state == one.state
    assert other.trace([]) == []
