"""A few of many, evenly spaced."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from andon._tools.spacing import evenly_spaced


@given(st.integers(1, 500), st.integers(1, 60))
def test_as_many_as_wanted_from_end_to_end(n: int, most: int) -> None:
    chosen = evenly_spaced(n, most)
    assert len(chosen) == min(n, most)
    assert chosen[0] == 0
    assert most == 1 or chosen[-1] == n - 1
    steps = {b - a for a, b in pairwise(chosen)}
    assert not steps or (min(steps) >= 1 and max(steps) - min(steps) <= 1)


def test_of_none_there_are_none() -> None:
    assert evenly_spaced(0, 5) == []
