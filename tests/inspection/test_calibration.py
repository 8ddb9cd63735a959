"""What calibration promises, against its definition, scipy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from andon.benchmark import clopper_pearson as of_the_benchmark
from andon.core import ConfigError, DataError
from andon.evaluation import clopper_pearson
from andon.inspection import (
    ConformalCalibration,
    Thresholds,
    blocks,
    images_needed,
    least_rate,
    moved_thresholds,
)

scores = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60)


@given(st.integers(2, 300), st.integers(2, 40))
def test_blocks_are_contiguous_and_nearly_equal(n: int, k: int) -> None:
    cut = blocks(n, k)
    assert [i for block in cut for i in block] == list(range(n))
    assert len(cut) == min(n, k)
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


def test_blocks_need_two_of_each() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        blocks(1, 10)
    with pytest.raises(ValueError, match="at least 2"):
        blocks(10, 1)


@given(scores, st.floats(-1e6, 1e6, width=32))
def test_p_value_is_its_definition(values: list[float], score: float) -> None:
    calibration = ConformalCalibration.of(values)
    assert calibration.p_value(score) == (1 + sum(v >= score for v in values)) / (len(values) + 1)


@given(scores, st.floats(0.001, 0.999))
def test_above_the_threshold_is_where_p_is_at_most_the_rate(values: list[float], rate: float) -> None:
    calibration = ConformalCalibration.of(values)
    if rate * (len(values) + 1) < 1:
        with pytest.raises(ConfigError, match=f"{images_needed(rate)} would do"):
            calibration.threshold(rate)
        return
    threshold = calibration.threshold(rate)
    assert calibration.p_value(np.nextafter(threshold, np.inf)) <= rate + 1e-9
    assert calibration.p_value(threshold) > rate or calibration.alarms(threshold) == 0 or len(set(values)) < len(values)


@pytest.mark.parametrize(("rate", "n"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.07, 14), (1 / 61, 60), (0.5, 1)])
def test_how_many_images_a_rate_needs(rate: float, n: int) -> None:
    assert images_needed(rate) == n
    assert ConformalCalibration(np.arange(n)).threshold(rate) == n - 1
    if n > 1:
        with pytest.raises(ConfigError, match=f"{n - 1} good images cannot promise less than 1/{n}"):
            ConformalCalibration(np.arange(n - 1)).threshold(rate)


def test_the_foremans_sentence() -> None:
    calibration = ConformalCalibration(np.arange(60))
    threshold = calibration.threshold(0.05)  # the third highest of 60: ⌊0.05·61⌋ = 3
    assert threshold == 57
    interval = stats.binomtest(2, 60).proportion_ci(0.95, "exact")
    assert interval.low == pytest.approx(0.00406, abs=1e-5)
    assert calibration.interval(threshold).high == pytest.approx(interval.high, rel=1e-9)
    assert calibration.sentence(threshold) == (
        "at this threshold 2 of your 60 good parts would have stopped (between 0.41 % and 12 % on the line)"
    )


@pytest.mark.parametrize(("k", "n"), [(0, 7), (7, 7), (3, 20), (1, 400)])
def test_the_interval_is_scipys(k: int, n: int) -> None:
    expected = stats.binomtest(k, n).proportion_ci(0.95, "exact")
    found = clopper_pearson(k, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert of_the_benchmark is clopper_pearson


def test_promises_hold_for_exchangeable_scores() -> None:
    rng = np.random.default_rng(0)
    rates, trials, n = (0.02, 0.05, 0.1), 4000, 60
    drawn = rng.gamma(2.0, size=(trials, n + 1))
    for rate in rates:
        alarms = sum(row[-1] > ConformalCalibration(row[:-1]).threshold(rate) for row in drawn)
        # The exact rate is ⌊rate·61⌋/61.
        exact = int(rate * (n + 1) + 1e-9) / (n + 1)
        assert stats.binomtest(int(alarms), trials, exact).pvalue > 1e-3
        assert exact <= rate


def test_two_thresholds() -> None:
    thresholds = Thresholds(1.0, 2.0)
    assert [thresholds.decide(s) for s in (0.5, 1.0, 1.5, 2.0, 2.5)] == ["pass", "pass", "look", "look", "stop"]
    off = Thresholds(2.0, 2.0)
    assert [off.decide(s) for s in (1.9, 2.0, 2.1)] == ["pass", "pass", "stop"]
    for look, stop in ((3.0, 2.0), (float("nan"), 1.0), (0.0, float("inf"))):
        with pytest.raises(ConfigError):
            Thresholds(look, stop)


def test_default_rates_are_what_so_few_can_promise() -> None:
    many, few = ConformalCalibration(np.arange(200)), ConformalCalibration(np.arange(9))
    assert many.default_rates() == (0.05, 0.01)
    assert few.default_rates() == (least_rate(9), least_rate(9))
    assert many.thresholds(0.02, 0.1) == Thresholds(180, 196)
    with pytest.raises(ConfigError, match="9 good images cannot promise less than 1/10"):
        few.default_rates(rate=0.01)
    with pytest.raises(ConfigError, match="is less than"):
        many.default_rates(rate=0.1, look=0.05)


def test_thresholds_are_moved_by_rate_or_value() -> None:
    calibration, now = ConformalCalibration(np.arange(99)), Thresholds(90.0, 98.0)
    assert moved_thresholds(calibration, now, rate=0.02) == Thresholds(90.0, 97.0)
    assert moved_thresholds(calibration, now, value=80.0) == Thresholds(80.0, 80.0)
    assert moved_thresholds(calibration, now, value=123.5) == Thresholds(90.0, 123.5)
    assert moved_thresholds(calibration, now, look="off") == Thresholds(98.0, 98.0)
    assert moved_thresholds(calibration, now, look=0.2) == Thresholds(79.0, 98.0)
    assert moved_thresholds(calibration, Thresholds(5, 5), rate=0.02) == Thresholds(97.0, 97.0)
    with pytest.raises(ConfigError, match="not by both"):
        moved_thresholds(calibration, now, rate=0.1, value=3.0)
    with pytest.raises(ConfigError, match="look's no higher"):
        moved_thresholds(calibration, now, look_value=99.0)


def test_pixel_threshold_lets_as_many_images_through() -> None:
    calibration = ConformalCalibration(np.arange(10.0), np.arange(10.0)[::-1] * 2, np.full(10, 0.5))
    assert calibration.pixel_threshold(7.0) == 14.0  # two scores above, two maxima above
    assert calibration.pixel_threshold(100.0) == 18.0
    assert calibration.map_floor == 0.5
    assert ConformalCalibration.of([1.0]).pixel_threshold(0.0) is None


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="finite"):
        ConformalCalibration.of([1.0, float("nan")])
    with pytest.raises(ValueError, match="a score of every image"):
        ConformalCalibration.of([])
    with pytest.raises(ConfigError, match="between 0 and 1"):
        ConformalCalibration.of([1.0]).threshold(1.5)
