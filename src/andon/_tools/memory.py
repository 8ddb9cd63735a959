"""What is computed once and kept in memory, as much as fits."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

__all__ = ["BoundedStore", "capacity"]

ValueT = TypeVar("ValueT")


def capacity(gib: float, bytes_each: int) -> int:
    """How many values of ``bytes_each`` bytes fit ``gib`` GiB."""
    return int(gib * 2**30 / bytes_each)


class BoundedStore(Generic[ValueT]):
    """Values by index: the first ``capacity`` that come stay, later ones are not kept. For any thread."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._values: dict[int, ValueT] = {}
        self._mutex = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, index: int) -> ValueT | None:
        """The value of an index; None where it is not kept."""
        return self._values.get(index)

    def put(self, index: int, value: ValueT) -> None:
        """Keeps a value where there is room."""
        with self._mutex:
            if len(self._values) < self.capacity:
                self._values[index] = value
