from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from andon.core import ConfigError
from andon.evaluation import (
    auroc,
    average_precision,
    averaged_roc,
    roc_curve,
    tpr_at_nearest_tnr,
    tpr_at_tnr,
    trapezoidal_ap,
)

scored = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@settings(max_examples=100, deadline=None)
@given(scored)
def test_trapezoidal_ap_is_sklearns_area_under_its_curve(rows: list[tuple[int, bool]]) -> None:
    scores, labels = zip(*rows, strict=True)
    precision, recall, _ = metrics.precision_recall_curve(labels, scores)
    assert trapezoidal_ap(scores, labels) == pytest.approx(metrics.auc(recall, precision), abs=1e-12)


def test_the_trapezoid_is_above_the_steps() -> None:
    scores, labels = [4, 3, 2, 1], [True, False, True, False]
    assert average_precision(scores, labels) == pytest.approx((1 + 2 / 3) / 2)
    assert trapezoidal_ap(scores, labels) == pytest.approx(0.5 * (1 + 1) / 2 + 0.5 * (1 / 2 + 2 / 3) / 2)
    assert trapezoidal_ap([1, 2], [True, True]) is None


def by_definition(scores: np.ndarray, labels: np.ndarray, tnr: float) -> float:
    """Every threshold there is, nearest TNR first, then the lower TNR, then the higher TPR."""
    good, defective = scores[~labels], scores[labels]
    points = [
        (abs(round(np.mean(good <= t) - tnr, 12)), np.mean(good <= t), -np.mean(defective > t))
        for t in (-np.inf, *np.unique(scores))
    ]
    return -min(points)[2]


@settings(max_examples=100, deadline=None)
@given(scored, st.sampled_from([0.99, 0.95, 0.9, 0.5, 0.25, 1.0]))
def test_nearest_tnr_by_its_definition(rows: list[tuple[int, bool]], tnr: float) -> None:
    scores, labels = (np.asarray(x) for x in zip(*rows, strict=True))
    assert tpr_at_nearest_tnr(scores, labels, tnr) == pytest.approx(by_definition(scores, labels, tnr))


def test_nearest_may_be_below_the_target_and_at_least_never_is() -> None:
    good, defective = np.arange(1, 17), np.array([16.5, 15.5, 14.5])
    scores, labels = np.concatenate([good, defective]), np.arange(19) >= 16
    # 16 good images: 15/16 = 93.75 % is nearer to 95 % than 100 %.
    assert tpr_at_tnr(scores, labels, 0.95) == pytest.approx(1 / 3)
    assert tpr_at_nearest_tnr(scores, labels, 0.95) == pytest.approx(2 / 3)
    assert tpr_at_nearest_tnr([1.0], [True], 0.95) is None
    with pytest.raises(ConfigError, match="true-negative rate"):
        tpr_at_nearest_tnr(scores, labels, 0)


def test_equally_near_takes_the_lower_tnr() -> None:
    # Of two good images half a false alarm is as far from none as from one.
    assert tpr_at_nearest_tnr([1, 2, 1.5], [False, False, True], 0.75) == 1.0


runs = st.lists(scored, min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(runs)
def test_the_area_under_the_averaged_curve_is_the_mean_auroc(found: list[list[tuple[int, bool]]]) -> None:
    pairs = [tuple(zip(*rows, strict=True)) for rows in found]
    averaged = averaged_roc(pairs)  # type: ignore[arg-type]
    assert averaged is not None
    assert averaged.area == pytest.approx(averaged.mean_auroc, abs=1e-12)
    assert averaged.mean_auroc == pytest.approx(np.mean([metrics.roc_auc_score(y, s) for s, y in pairs]), abs=1e-12)
    assert (averaged.low <= averaged.tpr + 1e-12).all()
    assert (averaged.tpr <= averaged.high + 1e-12).all()


def test_averaged_curve_of_one_run_is_its_curve() -> None:
    scores, labels = [1, 2, 3, 4, 5], [False, True, False, True, True]
    fpr, tpr, _ = roc_curve(scores, labels)
    averaged = averaged_roc([(scores, labels)])
    assert averaged is not None
    np.testing.assert_allclose(averaged.fpr, [0, 0, 0.5, 0.5, 1, 1])
    np.testing.assert_allclose(averaged.tpr, [0, 2 / 3, 2 / 3, 1, 1, 1])
    assert metrics.auc(fpr, tpr) == pytest.approx(averaged.area) == pytest.approx(auroc(scores, labels))


def test_a_grid_gives_another_area() -> None:
    perfect, reverse = ([1, 2, 3, 4], [0, 0, 1, 1]), ([1, 2, 3, 4], [0, 1, 0, 1])
    exact, coarse = averaged_roc([perfect, reverse]), averaged_roc([reverse, reverse], points=2)
    assert exact is not None
    assert coarse is not None
    assert exact.aurocs == (1.0, 0.75)
    assert exact.area == pytest.approx(0.875)
    # (0, 1/2) to (1, 1): the corner between is lost.
    assert coarse.area == pytest.approx(0.75) == pytest.approx(coarse.mean_auroc)
    assert averaged_roc([perfect, ([1, 2], [1, 1])]) is None
    assert averaged_roc([]) is None
    with pytest.raises(ValueError, match="at least 2"):
        averaged_roc([perfect], points=1)
