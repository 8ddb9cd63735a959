"""Comparisons of candidates: AUROC, its paired error, and when another than the default is chosen."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from andon.benchmark import delong_variance
from andon.evaluation import auroc
from andon.inspection.advising.evidence import Evidence, auroc_interval, choose, compared, comparisons

RNG = np.random.default_rng(0)


def test_the_matrix_gives_the_auroc() -> None:
    good, bad = RNG.integers(0, 8, 30), RNG.integers(3, 12, 17)
    scores, labels = np.concatenate((good, bad)), [0] * 30 + [1] * 17
    found = comparisons(good, bad).auroc
    assert found == pytest.approx(roc_auc_score(labels, scores))
    assert found == pytest.approx(auroc(scores, labels))


def test_a_defect_is_held_against_the_detector_that_scored_the_good_image() -> None:
    found = comparisons([1.0, 10.0], [[2.0, 0.0], [20.0, 10.0]])
    np.testing.assert_array_equal(found.won, [[1.0, 0.0], [1.0, 0.5]])


def test_the_interval_is_as_wide_as_delongs_where_there_are_many_images() -> None:
    good, bad = RNG.normal(0, 1, 300), RNG.normal(1, 1, 200)
    interval = auroc_interval(comparisons(good, bad))
    error = delong_variance(np.concatenate((good, bad)), [0] * 300 + [1] * 200) ** 0.5
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.06)
    assert interval.low < interval.value < interval.high


def test_few_images_make_the_interval_wider_than_plain_percentiles() -> None:
    good, bad = RNG.normal(0, 1, 60), RNG.normal(0.8, 1, 8)
    found = comparisons(good, bad)
    drawn = [
        found.won[np.ix_(rng.integers(0, 60, 60), rng.integers(0, 8, 8))].mean()
        for rng in map(np.random.default_rng, range(4000))
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    interval = auroc_interval(found)
    assert interval.low < low
    assert interval.high > high


def test_pairing_takes_out_what_both_find_hard() -> None:
    good, hard = RNG.normal(0, 1, 40), RNG.normal(1, 2, 30)
    one = comparisons(good, hard)
    other = comparisons(good + RNG.normal(0, 0.05, 40), hard + RNG.normal(0, 0.05, 30))
    alone, paired = auroc_interval(one), compared(one, other)
    assert paired.high - paired.low < 0.4 * (alone.high - alone.low)
    same = compared(one, one)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_pasted_defects_come_and_go_with_their_good_image() -> None:
    # The score is the image's own plus one thing: drawn by themselves, images would look better told apart than pairs.
    own = RNG.normal(0, 1, 30)
    base = np.repeat(np.arange(30), 2)
    together = comparisons(own, own[base] + 0.5, base)
    apart = comparisons(own, own[base] + 0.5)
    widths = [interval.high - interval.low for interval in map(auroc_interval, (together, apart))]
    assert widths[0] < widths[1]


def test_only_the_same_images_compare() -> None:
    with pytest.raises(ValueError, match="same images"):
        compared(comparisons([0, 1], [2, 3], [0, 1]), comparisons([0, 1], [2, 3], [1, 0]))
    with pytest.raises(ValueError, match="same images"):
        compared(comparisons([0, 1], [2, 3]), comparisons([0, 1], [2]))


def test_where_all_are_told_apart_no_error_can_be_told() -> None:
    assert "no resampling" in auroc_interval(comparisons([0, 1, 2], [3, 4])).note
    assert not auroc_interval(comparisons([0, 1, 2], [1.5, 4])).note


def _evidence(kind: str, m: int, quality: dict[str, float], seed: int, n: int = 40) -> Evidence:
    rng = np.random.default_rng(seed)
    good, bad = rng.normal(0, 1, n), rng.normal(1.2, 1, m)
    found = {
        label: comparisons(good + rng.normal(0, 0.4, n), bad + shift + rng.normal(0, 0.4, m))
        for label, shift in quality.items()
    }
    return Evidence(kind, n, m, found)  # type: ignore[arg-type]


def test_synthetic_defects_never_choose() -> None:
    choice = choose(_evidence("synthetic", 60, {"default": 0, "better": 3}, 0), "default")
    assert (choice.label, choice.changed, choice.best) == ("default", False, "better")
    assert choice.margins["better"].low > 0
    assert "only synthetic evidence exists" in choice.reasons[0]


def test_fewer_than_eight_real_defects_never_choose() -> None:
    few = choose(_evidence("real", 7, {"default": 0, "better": 9}, 0), "default")
    assert (few.label, few.best) == ("default", "better")
    assert few.reasons[0].startswith("7 real defects are too few")
    enough = choose(_evidence("real", 30, {"default": 0, "better": 9}, 0), "default")
    assert (enough.label, enough.changed) == ("better", True)
    assert "more than the error" in enough.reasons[0]


def test_a_margin_within_its_error_keeps_the_default_and_says_so() -> None:
    choice = choose(_evidence("real", 12, {"default": 0, "a": 0.3, "b": -2}, 3), "default")
    assert choice.label == "default"
    assert not choice.changed
    assert choice.best == "a"
    assert "that is within the error of the comparison, so the default is kept" in choice.reasons[0]
    worse = choose(_evidence("real", 12, {"default": 0, "b": -2}, 3), "default")
    assert worse.best == "default"
    assert worse.reasons == ("no candidate has a higher AUROC on your 12 defects than the default",)


@pytest.mark.parametrize("m", [8, pytest.param(20, marks=pytest.mark.slow)])
def test_candidates_that_are_no_better_are_seldom_chosen(m: int) -> None:
    alike = {"default": 0.0, "a": 0.0, "b": 0.0, "c": 0.0}
    changed = sum(choose(_evidence("real", m, alike, seed), "default").changed for seed in range(60))
    assert changed <= 6  # 3 of 60 are promised; above 6 would be rarer than 4 in 100


def test_the_same_seed_gives_the_same_choice() -> None:
    evidence = _evidence("real", 12, {"default": 0, "a": 0.6}, 5)
    assert choose(evidence, "default", seed=1) == choose(evidence, "default", seed=1)
    assert choose(evidence, "default", seed=1).margins != choose(evidence, "default", seed=2).margins
