"""What is kept in memory as much as fits."""

from __future__ import annotations

from andon._tools.memory import BoundedStore, capacity


def test_the_first_that_fit_stay() -> None:
    store = BoundedStore[str](2)
    for index, value in enumerate("abc"):
        store.put(index, value)
    assert [store.get(index) for index in range(3)] == ["a", "b", None]
    assert len(store) == 2


def test_capacity_is_what_fits() -> None:
    assert capacity(1, 2**30) == 1
    assert capacity(0.5, 2**20) == 512
    assert capacity(3.5 * 7 / 2**30, 7) == 3
    assert capacity(0, 1) == 0
