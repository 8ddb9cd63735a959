from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from andon.benchmark.ranking import critical_difference, friedman, rank_methods, wilcoxon_p_values
from andon.benchmark.statistics import adjusted_p_values


@pytest.mark.parametrize(
    ("n_methods", "q"),
    # Demšar 2006, Table 5a, α = 0.05.
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (9, 3.102), (10, 3.164)],
)
def test_nemenyis_critical_values_are_demsars(n_methods: int, q: float) -> None:
    expected = q * math.sqrt(n_methods * (n_methods + 1) / (6 * 14))
    assert critical_difference(n_methods, 14) == pytest.approx(expected, abs=1e-3)


def test_demsars_example() -> None:
    """Section 3.2.2: four classifiers on 14 data sets, CD 1.25 at 5 %, 1.12 at 10 %."""
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.01)
    assert critical_difference(4, 14, alpha=0.1) == pytest.approx(1.12, abs=0.01)


def test_friedman_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        table = rng.integers(0, 6, (7, 4)).astype(float)
        theirs = stats.friedmanchisquare(*table.T)
        assert friedman(table) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert all(math.isnan(x) for x in (*friedman(np.ones((5, 3))), *friedman(np.ones((1, 3)))))


def test_holm_and_bonferroni_by_hand() -> None:
    p = [0.01, 0.04, 0.03, math.nan, 0.5]
    assert adjusted_p_values(p, "none")[:3] == p[:3]
    assert adjusted_p_values(p, "bonferroni") == pytest.approx([0.04, 0.16, 0.12, math.nan, 1.0], nan_ok=True)
    # 0.01·4, 0.03·3, max(0.04·2, 0.09), max(0.5, 0.09).
    assert adjusted_p_values(p, "holm") == pytest.approx([0.04, 0.09, 0.09, math.nan, 0.5], nan_ok=True)
    assert adjusted_p_values([], "holm") == []


def test_wilcoxon_holm_is_scipys_corrected() -> None:
    rng = np.random.default_rng(2)
    figures = {name: rng.normal(i, 1, 9) for i, name in enumerate("abc")}
    raw = [stats.wilcoxon(figures[a], figures[b]).pvalue for a, b in (("a", "b"), ("a", "c"), ("b", "c"))]
    found = wilcoxon_p_values(figures)
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert list(found.values()) == pytest.approx(adjusted_p_values(raw, "holm"))
    assert wilcoxon_p_values({"a": np.ones(5), "b": np.ones(5)}) == {("a", "b"): 1.0}


def test_six_categories_can_tell_two_methods_apart_at_best_just() -> None:
    better = {"a": np.arange(6.0) + np.arange(1, 7) / 10, "b": np.arange(6.0)}
    assert wilcoxon_p_values(better, "none")["a", "b"] == pytest.approx(2 / 2**6)


def test_ranking_with_gaps_ties_and_groups() -> None:
    figures: dict[str, dict[str, float | None]] = {
        "good": {f"c{i}": 0.9 + i / 100 for i in range(10)},
        "near": {f"c{i}": 0.9 + i / 100 - (0.01 if i % 2 else -0.01) for i in range(10)},
        "bad": {f"c{i}": 0.5 + i / 100 for i in range(10)},
    }
    figures["bad"]["c9"] = None
    ranking = rank_methods(figures)
    assert ranking.left_out == ("c9",)
    assert len(ranking.categories) == 9
    assert ranking.mean_ranks == pytest.approx({"near": 13 / 9, "good": 14 / 9, "bad": 3.0})
    assert list(ranking.mean_ranks) == ["near", "good", "bad"]
    assert ranking.difference == pytest.approx(critical_difference(3, 9))
    assert ranking.groups == (("near", "good"),)
    assert ranking.friedman_p < 0.01
    assert min(ranking.pairwise, key=ranking.pairwise.__getitem__) in (("good", "bad"), ("near", "bad"))
    backwards = rank_methods(figures, higher_is_better=False)
    assert list(backwards.mean_ranks) == ["bad", "good", "near"]


def test_what_cannot_be_ranked() -> None:
    assert rank_methods({}).mean_ranks == {}
    single = rank_methods({"a": {"x": 1.0}, "b": {"x": 2.0}})
    assert single.mean_ranks == {"b": 1.0, "a": 2.0}
    assert single.difference is None
    assert single.groups == ()
    assert math.isnan(single.friedman_p)
    nothing = rank_methods({"a": {"x": 1.0}, "b": {"y": 2.0}})
    assert (nothing.mean_ranks, nothing.left_out) == ({}, ("x", "y"))
    with pytest.raises(ValueError, match="2 methods"):
        critical_difference(1, 5)
