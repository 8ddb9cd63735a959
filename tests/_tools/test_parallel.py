from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from andon._tools.parallel import ByteBudget, ordered_map


def test_in_order_whatever_takes_longest() -> None:
    def work(i: int) -> int:
        time.sleep(0.002 * (i % 3))
        return i * i

    assert list(ordered_map(work, range(50), threads=4)) == [i * i for i in range(50)]
    assert list(ordered_map(work, [])) == []


def test_takes_only_a_little_ahead() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = ordered_map(lambda i: i, endless(), threads=2)
    assert [next(results) for _ in range(10)] == list(range(1, 11))
    assert taken <= 10 + 4 * 2 + 1
    before = threading.active_count()
    results.close()
    assert threading.active_count() < before


def test_an_error_arrives_in_its_place() -> None:
    def work(i: int) -> int:
        if i == 3:
            raise ValueError("three")
        return i

    results = ordered_map(work, range(9), threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_threads_never_hold_more_than_the_budget() -> None:
    budget, most, mutex = ByteBudget(10), 0, threading.Lock()

    def work(wish: int) -> None:
        nonlocal most
        with budget.held(wish):
            with mutex:
                most = max(most, budget.taken)
            time.sleep(0.001)

    list(ordered_map(work, [1, 3, 4, 7, 10, 25, 2] * 10, threads=8))
    assert most == 10  # 25 gets all, alone
    assert budget.taken == 0


def test_a_large_wish_is_not_passed_over() -> None:
    budget, order = ByteBudget(10), []
    entered = threading.Event()

    def large() -> None:
        entered.set()
        with budget.held(10):
            order.append("large")

    def small() -> None:
        with budget.held(1):
            order.append("small")

    with budget.held(5):
        first = threading.Thread(target=large)
        first.start()
        entered.wait()
        time.sleep(0.05)
        second = threading.Thread(target=small)
        second.start()
        time.sleep(0.05)
        assert order == []
    first.join(5)
    second.join(5)
    assert order == ["large", "small"]


def test_what_is_held_comes_back_after_an_error() -> None:
    budget = ByteBudget(10)
    with pytest.raises(KeyError), budget.held(10):
        raise KeyError
    with budget.held(10):
        assert budget.taken == 10
