"""Work on many files by a few threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["ByteBudget", "ordered_map", "shared_pool"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


_pool: ThreadPoolExecutor | None = None
_mutex = threading.Lock()
_budgets: weakref.WeakSet[ByteBudget] = weakref.WeakSet()


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
    """A forked child has the pool's object but none of its threads, and nobody who gives bytes back."""
    global _pool, _mutex
    _pool, _mutex = None, threading.Lock()
    for budget in _budgets:
        budget._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


class ByteBudget:
    """Bytes that threads may take together: who wants more than is left waits until others give theirs back.

    First come, first served, so that a large wish is not passed over by small ones for ever. A wish above ``limit``
    gets all of it, alone. A thread that holds some must not ask for more.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._reset()
        _budgets.add(self)

    def _reset(self) -> None:
        self._taken = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def taken(self) -> int:
        """Bytes that are held at the moment."""
        return self._taken

    @contextmanager
    def held(self, n_bytes: int) -> Iterator[None]:
        """Holds so many bytes for the block."""
        wish, n_bytes = object(), min(n_bytes, self.limit)
        with self._changed:
            self._queue.append(wish)
            try:
                self._changed.wait_for(lambda: self._queue[0] is wish and self._taken + n_bytes <= self.limit)
                self._taken += n_bytes
            finally:
                self._queue.remove(wish)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._taken -= n_bytes
                self._changed.notify_all()


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
