"""Work on many files by a few threads."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ordered_map", "shared_pool"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


_pool: ThreadPoolExecutor | None = None
_mutex = threading.Lock()


def shared_pool() -> ThreadPoolExecutor:
    """The process's pool of at most four threads for short work that releases the interpreter lock (decoding).

    Nothing that runs in it may wait for something else in it.
    """
    global _pool
    with _mutex:
        if _pool is None:
            _pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="andon-shared")
        return _pool


def _forget_pool() -> None:
    """A forked child has the pool's object but none of its threads."""
    global _pool, _mutex
    _pool, _mutex = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


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
