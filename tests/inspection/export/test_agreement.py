"""When two runtimes say the same."""

from __future__ import annotations

import math

import pytest

from andon.inspection import Agreement
from andon.inspection.export.agreement import relative_difference


def agreement(reference: list[float], found: list[float], **thresholds: float) -> Agreement:
    return Agreement(tuple("abcdefgh"[: len(found)]), tuple(reference), tuple(found), thresholds)


def test_differences_are_relative_to_each_score() -> None:
    assert relative_difference([2.002, -0.999], [2.0, -1.0]) == pytest.approx([1e-3, 1e-3])


def test_a_score_near_zero_counts_as_a_hundredth_of_the_largest() -> None:
    assert relative_difference([1e-7, 10.0], [0.0, 10.0]) == pytest.approx([1e-7 / 0.1, 0])


def test_what_is_not_finite_on_one_side_differs_infinitely() -> None:
    inf, nan = math.inf, math.nan
    assert relative_difference([inf, inf, nan, 1.0], [inf, 1.0, nan, nan]).tolist() == [0, inf, inf, inf]


def test_it_agrees_within_the_tolerance() -> None:
    assert agreement([1.0, 2.0], [1.0009, 2.0]).agrees
    assert not agreement([1.0, 2.0], [1.0011, 2.0]).agrees
    assert not agreement([], []).agrees


def test_a_decision_that_changes_is_named_however_small_the_difference() -> None:
    found = agreement([1.0, 2.0], [1.0, 2.0001], look=0.5, stop=2.00005)
    assert found.changed == ("b",)
    assert not found.agrees
    assert "1 decided otherwise (b)" in found.describe()


def test_a_score_at_the_threshold_is_not_above_it() -> None:
    assert agreement([1.0], [1.0000001], stop=1.0).changed == ("a",)
    assert agreement([1.0], [0.9999999], stop=1.0).changed == ()


def test_the_line_says_where_there_is_no_threshold() -> None:
    assert "no threshold" in agreement([1.0], [1.0]).describe()
    assert agreement([1.0], [1.0], stop=3.0).describe().startswith("1 image: ")
