from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from andon.benchmark.pareto import CostPoint, pareto_front

values = st.one_of(st.integers(0, 5).map(float), st.just(math.inf))
clouds = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.builds(CostPoint, values, values), max_size=12)


@settings(max_examples=300, deadline=None)
@given(clouds)
def test_the_front_is_what_nothing_dominates(points: dict[str, CostPoint]) -> None:
    def dominates(a: CostPoint, b: CostPoint) -> bool:
        return a.cost <= b.cost and a.accuracy >= b.accuracy and a != b

    expected = {n for n, p in points.items() if not any(dominates(q, p) for q in points.values())}
    front = pareto_front(points)
    assert set(front) == expected
    assert [points[n].cost for n in front] == sorted(points[n].cost for n in front)


def test_what_cannot_be_compared_is_left_out() -> None:
    points = {
        "a": CostPoint(1, 0.5),
        "b": CostPoint(math.nan, 0.9),
        "c": CostPoint(2, math.nan),
        "d": CostPoint(3, 0.6),
    }
    assert pareto_front(points) == ("a", "d")
    assert pareto_front({}) == ()
