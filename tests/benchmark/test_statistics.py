from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from andon.benchmark.statistics import Summary, best_set, mean_over, run_means, summarise, welch_p_value

runs = st.lists(st.integers(0, 1000).map(lambda i: i / 1000), min_size=2, max_size=9)


@settings(max_examples=150, deadline=None)
@given(runs, runs, st.sampled_from(["two-sided", "one-sided"]))
def test_p_value_is_scipys(a: list[float], b: list[float], alternative: str) -> None:
    ours = welch_p_value(summarise(a), summarise(b), alternative)  # type: ignore[arg-type]
    if len(set(a)) == 1 and len(set(b)) == 1:
        greater = a[0] > b[0] if alternative == "one-sided" else a[0] != b[0]
        assert ours == (0.0 if greater else 1.0)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = stats.ttest_ind(
            a, b, equal_var=False, alternative="greater" if alternative == "one-sided" else "two-sided"
        )
    assert ours == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(runs, st.integers(0, 1000).map(lambda i: i / 1000))
def test_against_an_exact_value_it_is_the_one_sample_test(a: list[float], constant: float) -> None:
    ours = welch_p_value(summarise(a), summarise([constant], exact=True))
    if len(set(a)) == 1:
        assert ours == (1.0 if a[0] == constant else 0.0)
    else:
        assert ours == pytest.approx(stats.ttest_1samp(a, constant).pvalue, rel=1e-6, abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(st.floats(-60, 60), st.integers(2, 200))
def test_tails_are_those_of_students_t(t: float, n: int) -> None:
    """Two summaries of which the first alone varies: its variance and n give any t and degrees of freedom."""
    a, b = Summary(n, t, float(n)), Summary(1, 0.0, 0.0, exact=True)
    assert welch_p_value(a, b, "one-sided") == pytest.approx(stats.t.sf(t, n - 1), rel=1e-9)
    assert welch_p_value(a, b) == pytest.approx(2 * stats.t.sf(abs(t), n - 1), rel=1e-9)


def test_summary_of_runs() -> None:
    values = [0.5, 0.7, 0.9]
    assert summarise(values).sd == pytest.approx(np.std(values))
    assert summarise(values, ddof=1).sd == pytest.approx(np.std(values, ddof=1))
    with_gaps = summarise([0.5, None, math.nan, 0.7])
    assert (with_gaps.n, with_gaps.missing, with_gaps.mean) == (2, 2, pytest.approx(0.6))
    nothing = summarise([None])
    assert (nothing.n, nothing.mean, nothing.sd, nothing.missing) == (0, None, None, 1)
    once = summarise([0.5])
    assert (once.mean, once.sd, once.variance) == (0.5, None, None)
    assert summarise([0.1] * 7).sd == 0.0, "rounding of the mean must not look like spread"
    with pytest.raises(ValueError, match="infinite"):
        summarise([math.inf])
    with pytest.raises(ValueError, match="ddof"):
        summarise([1.0], ddof=2)


def test_printed_summary_gives_back_the_printed_deviation() -> None:
    for ddof in (0, 1):
        assert Summary.from_printed(0.5, 0.25, 8, ddof=ddof).sd == pytest.approx(0.25)
    values = [0.1, 0.4, 0.35, 0.8]
    again = Summary.from_printed(float(np.mean(values)), float(np.std(values)), 4)
    assert again.variance == pytest.approx(np.var(values, ddof=1))


def test_best_set() -> None:
    cells = {
        "low": summarise([0.50, 0.52, 0.51]),
        "high": summarise([0.90, 0.92, 0.91]),
        "near": summarise([0.89, 0.92, 0.90]),
        "none": summarise([None]),
    }
    assert best_set(cells) == {"high", "near"}
    assert best_set(cells, higher_is_better=False) == {"low"}
    assert best_set({"none": summarise([])}) == frozenset()
    assert best_set({}) == frozenset()


def test_without_a_possible_test_only_the_highest_mean_is_best() -> None:
    assert best_set({"a": summarise([0.9]), "b": summarise([0.899])}) == {"a"}
    assert best_set({"a": summarise([0.9]), "b": summarise([0.5, 0.899, 0.7])}) == {"a"}
    assert best_set({"a": summarise([0.9]), "b": summarise([0.9])}) == {"a", "b"}


def test_a_method_without_randomness_is_tested_as_exact() -> None:
    spread = summarise([0.80, 0.90, 0.85])
    assert best_set({"floor": summarise([0.86], exact=True), "m": spread}) == {"floor", "m"}
    assert best_set({"floor": summarise([0.99], exact=True), "m": spread}) == {"floor"}
    assert best_set({"floor": summarise([0.99], exact=True), "b": summarise([0.98], exact=True)}) == {"floor"}


def test_zero_variance_on_both_sides_is_decided_by_the_values() -> None:
    assert best_set({"a": summarise([1.0] * 8), "b": summarise([0.998] * 8)}) == {"a"}
    assert best_set({"a": summarise([1.0] * 8), "b": summarise([1.0] * 8)}) == {"a", "b"}


def test_one_sided_finds_more_and_holm_finds_fewer_differences() -> None:
    rng = np.random.default_rng(5)
    top = rng.normal(0.9, 0.05, 8)
    others = {f"m{i}": top - 0.045 + rng.normal(0, 0.03, 8) for i in range(5)}
    cells = {"top": summarise(top), **{k: summarise(v) for k, v in others.items()}}
    p = {k: stats.ttest_ind(top, v, equal_var=False).pvalue for k, v in others.items()}
    assert best_set(cells) == {"top", *(k for k, v in p.items() if v >= 0.05)}
    assert best_set(cells, alternative="one-sided") == {"top", *(k for k, v in p.items() if v / 2 >= 0.05)}
    ordered = sorted(p.items(), key=lambda item: item[1])
    kept = next((i for i, (_, v) in enumerate(ordered) if v >= 0.05 / (len(ordered) - i)), len(ordered))
    assert best_set(cells, correction="holm") == {"top", *(k for k, _ in ordered[kept:])}
    assert best_set(cells, correction="bonferroni") == {"top", *(k for k, v in p.items() if v * len(p) >= 0.05)}
    assert best_set(cells, correction="holm") <= best_set(cells, correction="bonferroni")
    assert best_set(cells, alternative="one-sided") < best_set(cells) < best_set(cells, correction="holm")


def test_mean_row_and_run_means() -> None:
    a, b = {0: 0.5, 1: 0.7}, {0: 0.9, 1: 0.9, 2: 0.8}
    row = mean_over([summarise(a.values()), summarise(b.values())])
    assert row.mean == pytest.approx((0.6 + 2.6 / 3) / 2)
    assert row.sd == pytest.approx(np.std([0.6, 2.6 / 3]))
    by_run = run_means([a, b])
    assert (by_run.n, by_run.missing) == (2, 1)
    assert by_run.mean == pytest.approx((0.7 + 0.8) / 2)
    assert mean_over([summarise([0.5]), summarise([None])]).missing == 1
