from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from andon._tools.parallel import ordered_map


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
