import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from andon.core import AndonError
from andon.evaluation import image

CASES = st.lists(
    st.tuples(st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6, width=32)), st.booleans()),
    min_size=2,
    max_size=60,
).filter(lambda rows: len({label for _, label in rows}) == 2)


def split(rows):
    return np.array([s for s, _ in rows]), np.array([label for _, label in rows])


@settings(max_examples=100, deadline=None)
@given(CASES)
def test_auroc_ap_and_curve_are_scikit_learns(rows):
    scores, labels = split(rows)
    assert image.auroc(scores, labels) == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    assert image.average_precision(scores, labels) == pytest.approx(
        sk.average_precision_score(labels, scores), abs=1e-12
    )
    fpr, tpr, thresholds = image.roc_curve(scores, labels)
    assert np.trapezoid(tpr, fpr) == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    for f, t, threshold in zip(fpr, tpr, thresholds, strict=True):
        assert f == np.mean(scores[~labels] > threshold)
        assert t == np.mean(scores[labels] > threshold)


@settings(max_examples=100, deadline=None)
@given(CASES, st.sampled_from([0.5, 0.7, 0.9, 0.95, 0.99, 1.0]))
def test_threshold_is_the_smallest_that_reaches_the_target(rows, tnr):
    scores, labels = split(rows)
    good = scores[~labels]
    threshold = image.threshold_for_tnr(good, tnr)
    # Brute force over every threshold that can differ: each good score, and one below all.
    enough = [t for t in [-np.inf, *good] if np.mean(good <= t) >= tnr - 1e-12]
    assert threshold == min(enough)
    assert image.tpr_at_tnr(scores, labels, tnr) == max(np.mean(scores[labels] > t) for t in enough)


@settings(max_examples=100, deadline=None)
@given(CASES)
def test_best_f1_is_the_best_of_all_thresholds(rows):
    scores, labels = split(rows)
    f1, threshold = image.best_f1(scores, labels)
    assert f1 == pytest.approx(sk.f1_score(labels, scores > threshold), abs=1e-12)
    candidates = [-np.inf, *scores]
    f1s = {t: sk.f1_score(labels, scores > t, zero_division=0) for t in candidates}
    assert f1 == pytest.approx(max(f1s.values()), abs=1e-12)
    # Of equals, no threshold with fewer alarms.
    assert not any(f1s[t] > f1 - 1e-12 and (scores > t).sum() < (scores > threshold).sum() for t in candidates)


def test_known_answers():
    scores = [1, 2, 3, 4, 3, 5, 6, 1]
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    assert image.auroc(scores, labels) == (2.5 + 4 + 4 + 0.5) / 16
    assert image.tpr_at_tnr(scores, labels, 0.75) == 0.5  # threshold 3: the defective 3 ties and is not found
    assert image.rates_at_threshold(scores, labels, 2.5) == (0.5, 0.25)
    assert image.threshold_for_tnr([1, 2, 3, 4], 0.75) == 3
    assert image.threshold_for_tnr([1, 2, 3, 4], 0.76) == 4
    # 0.95 · 20 is 19 in decimal though not in binary; the threshold is the 19th score.
    assert image.threshold_for_tnr(range(20), 0.95) == 18
    assert image.threshold_for_tnr(range(100), 0.07) == 6


def test_raw_scores_of_any_scale():
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.3
    scores = rng.normal(size=200) + labels
    base = image.auroc(scores, labels)
    assert image.auroc(scores * 1e-9 + 20, labels) == base
    assert image.auroc((scores + 20).astype(np.float32), labels) == pytest.approx(base, abs=1e-3)


@pytest.mark.parametrize("label", [True, False])
def test_one_class_only_is_undefined(label):
    scores, labels = [0.1, 0.7], [label, label]
    result = image.image_metrics(scores, labels)
    assert (result.n_defective, result.n_good) == ((2, 0) if label else (0, 2))
    assert result.auroc is None
    assert result.ap is None
    assert result.best_f1 is None
    assert result.tpr_at_tnr == {}
    assert [len(a) for a in image.roc_curve(scores, labels)] == [0, 0, 0]
    fpr, fnr = image.rates_at_threshold(scores, labels, 0.5)
    assert (fpr, fnr) == ((None, 0.5) if label else (0.5, None))
    points = image.operating_points(scores, labels, calibration_scores=[0.2, 0.3])
    assert {p.source for p in points} == ({"train good"} if label else {"train good", "test good"})
    empty = image.image_metrics([], [])
    assert empty.n_good == empty.n_defective == 0
    assert empty.auroc is None


def test_image_metrics_and_operating_points():
    rng = np.random.default_rng(1)
    labels = np.arange(300) < 100
    scores = rng.normal(size=300) + 2 * labels
    calibration = rng.normal(size=50)
    result = image.image_metrics(scores, labels)
    assert list(result.tpr_at_tnr) == ["99", "95", "90"]
    assert result.tpr_at_tnr["99"] <= result.tpr_at_tnr["95"] <= result.tpr_at_tnr["90"]
    points = image.operating_points(scores, labels, calibration_scores=calibration)
    assert [(p.source, p.target_tnr) for p in points] == [
        *[("test good", t) for t in (0.99, 0.95, 0.9)],
        *[("train good", t) for t in (0.99, 0.95, 0.9)],
        ("best F1", None),
    ]
    for p in points:
        assert p.fpr == np.mean(scores[~labels] > p.threshold)
        assert p.fnr == np.mean(scores[labels] <= p.threshold)
        if p.source == "test good":
            assert 1 - p.fpr >= p.target_tnr
            assert 1 - p.fnr == pytest.approx(result.tpr_at_tnr[f"{100 * p.target_tnr:g}"])
        if p.source == "train good":
            assert np.mean(calibration <= p.threshold) >= p.target_tnr


def test_refusals_name_the_image():
    with pytest.raises(AndonError, match=r"b\.png is nan"):
        image.image_metrics([0.0, np.nan], [0, 1], names=["a.png", "b.png"])
    with pytest.raises(AndonError, match=r"image 0 is inf \(and those of 1 more"):
        image.auroc([np.inf, -np.inf], [0, 1])
    with pytest.raises(AndonError, match="at least one good"):
        image.threshold_for_tnr([], 0.9)
    with pytest.raises(AndonError, match=r"in \(0, 1\]"):
        image.threshold_for_tnr([1.0], 0.0)
    with pytest.raises(ValueError, match="both"):
        image.auroc([1.0], [0, 1])
    with pytest.raises(ValueError, match=r"\[n\]"):
        image.auroc([[1.0]], [[1]])
