"""Averaged curves and plots."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from andon.evaluation import stacked_curves
from andon.report.figures import (
    DASHES,
    HUGE,
    PALETTE,
    average_curve,
    curves_svg,
    histogram_svg,
    losses_svg,
    roc_band,
)
from andon.report.svg import _linear_ticks, _log_ticks

SVG = "{http://www.w3.org/2000/svg}"


@given(st.integers(2, 40), st.integers(2, 40), st.integers(1, 4), st.integers(1, 8), st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_the_area_under_the_mean_roc_curve_is_the_mean_auroc(
    n_good: int, n_defective: int, runs: int, levels: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = np.r_[np.zeros(n_good), np.ones(n_defective)].astype(bool)
    drawn = [(rng.integers(0, levels + 1, len(labels)).astype(np.float32), labels) for _ in range(runs)]
    band = roc_band(drawn)
    assert band is not None
    assert band.n == runs
    area = float(np.trapezoid(band.mean, band.x))
    assert area == pytest.approx(np.mean([roc_auc_score(y, s) for s, y in drawn]), abs=1e-12)
    assert (np.diff(band.x) >= 0).all()
    assert (band.low <= band.mean + 1e-12).all()
    assert (band.mean <= band.high + 1e-12).all()


def test_a_long_roc_curve_is_thinned_but_keeps_its_ends() -> None:
    rng = np.random.default_rng(0)
    labels = np.r_[np.zeros(5000), np.ones(500)].astype(bool)
    scores = rng.normal(size=5500) + labels
    band = roc_band([(scores, labels)], points=100)
    assert band is not None
    assert len(band.x) == 200
    assert (band.x[0], band.mean[0], band.x[-1], band.mean[-1]) == (0, 0, 1, 1)
    assert float(np.trapezoid(band.mean, band.x)) == pytest.approx(roc_auc_score(labels, scores), abs=2e-3)


def test_no_curve_without_both_classes() -> None:
    assert roc_band([(np.arange(4.0), np.zeros(4, dtype=bool))]) is None


def test_limits_at_jumps_and_between() -> None:
    x, y = np.asarray([0.0, 0.0, 0.5, 0.5, 0.5, 1.0]), np.asarray([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    (both,) = stacked_curves([(x, y)], np.asarray([0.0, 0.25, 0.5, 0.75, 1.0]))
    lower, upper = both[::2], both[1::2]
    assert lower.tolist() == pytest.approx([0.0, 0.3, 0.4, 0.9, 1.0])
    assert upper.tolist() == pytest.approx([0.2, 0.3, 0.8, 0.9, 1.0])


def test_averaging_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no curves"):
        average_curve([], np.zeros(2))


def paths(svg: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter(f"{SVG}path"))


def points(path: ET.Element) -> list[tuple[float, float]]:
    d = path.get("d", "").removeprefix("M").removesuffix("Z")
    return [(float(a), float(b)) for a, b in (p.split() for p in d.split("L"))]


def test_a_curve_is_drawn_where_its_values_are() -> None:
    at = np.linspace(0, 1, 11)
    band = average_curve([(at, at**2), (at, at)], at)
    svg = curves_svg([(1, band)], x_label="FPR", y_label="TPR")
    line = next(p for p in paths(svg) if "stroke:var(--m1" in p.get("style", ""))
    area = next(p for p in paths(svg) if "fill:var(--m1" in p.get("style", ""))
    places = points(line)
    assert len(places) == 11
    x0, y0 = places[0]
    x1, y1 = places[-1]
    assert x0 < x1
    assert y0 > y1
    middle = places[5]
    assert middle[0] == pytest.approx((x0 + x1) / 2, abs=0.11)
    assert (y0 - middle[1]) / (y0 - y1) == pytest.approx((0.5 + 0.25) / 2, abs=0.01)
    assert len(points(area)) == 22
    texts = [t.text for t in ET.fromstring(svg).iter(f"{SVG}text")]
    assert {"0.0", "0.2", "1.0", "FPR", "TPR"} <= set(texts)


def test_every_method_style_is_distinct() -> None:
    assert len(set(PALETTE)) == len(PALETTE) == len(set(DASHES)) == len(DASHES)


def test_a_histogram_shows_shares_of_each_class_and_its_thresholds() -> None:
    good, defective = np.zeros(10, dtype=np.float32), np.asarray([0, 1, 1, 1], dtype=np.float32)
    svg = histogram_svg(good, defective, [("", 0.5), ("4 2", 0.5)], bins=2)
    outlines = {
        c: next(p for p in paths(svg) if f"stroke:var(--{c}" in p.get("style", "")) for c in ("good", "defective")
    }
    base = max(y for _, y in points(outlines["good"]))
    tops = {c: base - min(y for _, y in points(p)) for c, p in outlines.items()}
    assert tops["defective"] / tops["good"] == pytest.approx(0.75, abs=0.01)
    marks = [p for p in paths(svg) if "stroke-width:1.2" in p.get("style", "")]
    assert len(marks) == 2
    assert [("dasharray" in m.get("style", "")) for m in marks] == [False, True]


@pytest.mark.parametrize(
    ("good", "defective"),
    [
        ([1.0], []),
        ([], [2.0]),
        ([3.0, 3.0], [3.0]),
        ([1e30, -1e30], [0.0]),
        ([0, 1, 2, 3] * 9, [1e9]),
        ([1e-30, 2e-30], [3e-30]),
        ([1e9, 1e9 + 64], [1e9]),
    ],
)
def test_histograms_of_odd_scores_are_drawn(good: list[float], defective: list[float]) -> None:
    svg = histogram_svg(np.asarray(good, dtype=np.float32), np.asarray(defective, dtype=np.float32), [("", 1e300)])
    assert ET.fromstring(svg).tag == f"{SVG}svg"
    assert "nan" not in svg
    assert "inf" not in svg


def test_a_far_outlier_leaves_the_rest_readable() -> None:
    svg = histogram_svg(np.arange(100.0), np.asarray([1e6]))
    ticks = [t.text for t in ET.fromstring(svg).iter(f"{SVG}text")]
    assert "1000000" not in ticks


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 10**6), st.floats()), max_size=30).map(sorted), min_size=1, max_size=3)
)
@settings(max_examples=80, deadline=None)
def test_loss_curves_of_any_values_are_drawn_or_left_out(curves: list[list[tuple[int, float]]]) -> None:
    svg = losses_svg(list(enumerate(curves)))
    drawable = [c for c in curves if sum(abs(v) < HUGE for _, v in c) > 1]
    assert (svg is None) == (not drawable)
    if svg is not None:
        assert "nan" not in svg
        assert "inf" not in svg
        assert sum("stroke:var(--m" in p.get("style", "") for p in paths(svg)) == len(drawable)


@given(st.floats(-1e9, 1e9), st.floats(1e-3, 1e9), st.integers(3, 6), st.booleans())
def test_ticks_are_few_round_and_inside(low: float, span: float, count: int, integer: bool) -> None:
    span = max(span, 1.0) if integer else span
    low = float(round(low)) if integer else low
    ticks = _linear_ticks(low, low + span, count, integer)
    assert 1 <= len(ticks) <= count + 1
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[:1], rtol=1e-3)
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)
    assert not integer or all(tick == int(tick) for tick in ticks)


def test_ticks_of_common_axes() -> None:
    assert _linear_ticks(0, 1, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert _linear_ticks(0, 105, 3) == [0, 50, 100]
    assert _linear_ticks(0, 20_000, 5, integer=True) == [0, 5000, 10_000, 15_000, 20_000]
    assert _log_ticks(1e-3, 2, 4) == pytest.approx([1e-3, 1e-2, 0.1, 1])
    assert _log_ticks(1.5, 2, 4) == [1.5, 2]
