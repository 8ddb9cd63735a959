"""Work on many files by a few threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ordered_map"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def ordered_map(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], threads: int | None = None
) -> Generator[ResultT, None, None]:
    """``map`` by threads, results in order; decoding and hashing release the interpreter lock.

    Unlike ``Executor.map`` it takes items only a little ahead of what was consumed, so memory is bounded, and it stops
    when the caller does.
    """
    threads = threads or min(8, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[ResultT]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 4 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
