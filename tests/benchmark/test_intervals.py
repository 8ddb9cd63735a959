from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from andon.benchmark.intervals import (
    bootstrap_auroc,
    bootstrap_interval,
    clopper_pearson,
    delong_interval,
    delong_p_value,
    delong_variance,
)
from andon.core import DataError
from andon.evaluation import auroc


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95]))
def test_clopper_pearson_is_scipys_exact_interval(counts: tuple[int, int], confidence: float) -> None:
    ours, theirs = clopper_pearson(*counts, confidence), stats.binomtest(*counts).proportion_ci(confidence, "exact")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert ours.low <= ours.value <= ours.high


def test_clopper_pearson_in_closed_form() -> None:
    none = clopper_pearson(0, 20)
    assert (none.low, none.high) == pytest.approx((0, 1 - 0.025 ** (1 / 20)))
    for bad in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="successes"):
            clopper_pearson(*bad)
    with pytest.raises(ValueError, match="confidence"):
        clopper_pearson(1, 2, 1.0)


def variance_by_definition(scores: np.ndarray, labels: np.ndarray) -> float:
    """DeLong et al. 1988, equations for S10 and S01, pair by pair."""
    x, y = scores[labels], scores[~labels]
    psi = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    return float(np.var(psi.mean(1), ddof=1) / len(x) + np.var(psi.mean(0), ddof=1) / len(y))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=20), st.lists(st.integers(0, 9), min_size=2, max_size=20))
def test_delong_by_its_definition(defective: list[int], good: list[int]) -> None:
    scores = np.asarray(defective + good, dtype=float)
    labels = np.arange(len(scores)) < len(defective)
    expected = variance_by_definition(scores, labels)
    assert delong_variance(scores, labels) == pytest.approx(expected, abs=1e-12)
    interval = delong_interval(scores, labels)
    assert interval is not None
    assert interval.value == pytest.approx(auroc(scores, labels))
    assert 0 <= interval.low <= interval.value + 1e-12
    assert interval.value <= interval.high + 1e-12 <= 1 + 1e-9
    plain = delong_interval(scores, labels, logit=False)
    assert plain is not None
    if not interval.note:
        half = stats.norm.ppf(0.975) * expected**0.5
        assert plain.low == pytest.approx(max(0, interval.value - half), abs=1e-12)
        assert plain.high == pytest.approx(min(1, interval.value + half), abs=1e-12)


def test_delong_of_two_methods_is_the_normal_test_of_their_difference() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(80) < 30
    a = rng.normal(0, 1, 80) + labels
    b = a + rng.normal(0, 1, 80)

    def placements(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        above = s[labels][:, None] > s[~labels][None]
        return above.mean(1), above.mean(0)

    (a10, a01), (b10, b01) = placements(a), placements(b)
    s10, s01 = np.cov(a10, b10), np.cov(a01, b01)
    weights = np.array([1, -1])
    variance = weights @ (s10 / 30 + s01 / 50) @ weights
    z = (a10.mean() - b10.mean()) / variance**0.5
    assert delong_p_value(a, b, labels) == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert delong_p_value(a, 3 * a + 1, labels) == 1.0


def test_what_delong_cannot_say() -> None:
    assert delong_variance([1, 2, 3], [True, False, False]) is None
    assert delong_interval([1, 2, 3], [True, False, False]) is None
    assert delong_p_value([1, 2, 3], [3, 2, 1], [True, False, False]) is None
    apart = delong_interval([1, 2, 3, 4], [False, False, True, True])
    assert apart is not None
    assert (apart.low, apart.high) == (1, 1)
    assert "means nothing" in apart.note
    with pytest.raises(DataError, match="defective and good"):
        delong_variance([1, 2], [True, True])
    with pytest.raises(DataError, match="finite"):
        delong_variance([1, np.nan], [True, False])


def test_delong_covers_as_promised() -> None:
    rng, covered = np.random.default_rng(0), 0
    truth = stats.norm.cdf(1 / 2**0.5)
    labels = np.arange(120) < 50
    for _ in range(400):
        found = delong_interval(rng.normal(0, 1, 120) + labels, labels)
        assert found is not None
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize("kind", ["percentile", "bca"])
def test_bootstrap_agrees_with_scipys(kind: str) -> None:
    rng = np.random.default_rng(3)
    defective, good = rng.normal(1, 1, 40).round(1), rng.normal(0, 1, 60).round(1)
    scores, labels = np.concatenate([defective, good]), np.arange(100) < 40

    def statistic(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        x, y = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
        above = (x[..., :, None] > y[..., None, :]) + 0.5 * (x[..., :, None] == y[..., None, :])
        return above.mean((-1, -2))

    theirs = stats.bootstrap(
        (defective, good),
        statistic,
        method="BCa" if kind == "bca" else "percentile",
        n_resamples=4000,
        batch=500,
        random_state=np.random.default_rng(0),
    ).confidence_interval
    ours = bootstrap_auroc(scores, labels, kind=kind, resamples=20000)  # type: ignore[arg-type]
    assert ours.value == pytest.approx(auroc(scores, labels))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)
    general = bootstrap_interval(
        lambda i: auroc(scores[i], labels[i]) or 0.0,
        labels,
        kind=kind,
        resamples=3000,  # type: ignore[arg-type]
    )
    assert (general.low, general.high) == pytest.approx((ours.low, ours.high), abs=0.008)


def test_bootstrap_is_seeded_and_groups_keep_their_sizes() -> None:
    scores, labels = np.arange(20.0) % 7, np.arange(20) % 2 == 0
    assert bootstrap_auroc(scores, labels, seed=4) == bootstrap_auroc(scores, labels, seed=4)
    assert bootstrap_auroc(scores, labels, seed=4) != bootstrap_auroc(scores, labels, seed=5)
    sizes = set()

    def counting(indices: np.ndarray) -> float:
        sizes.add((len(indices), int(labels[indices].sum())))
        return float(scores[indices].mean())

    first = bootstrap_interval(counting, labels, resamples=50, seed=1)
    assert sizes == {(20, 10)}
    assert first == bootstrap_interval(counting, labels, resamples=50, seed=1)
    with pytest.raises(ValueError, match="resamples"):
        bootstrap_interval(counting, labels, resamples=1)


def test_bootstrap_of_classes_apart_says_what_it_is() -> None:
    found = bootstrap_auroc([1, 2, 3, 4], [False, False, True, True])
    assert (found.value, found.low, found.high) == (1, 1, 1)
    one = bootstrap_interval(lambda i: float(len(i)), [0, 0, 1], kind="bca", resamples=20)
    assert (one.low, one.high) == (3, 3)
