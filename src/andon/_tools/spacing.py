"""A few of many, evenly spaced."""

from __future__ import annotations

import numpy as np

__all__ = ["evenly_spaced"]


def evenly_spaced(n: int, most: int) -> list[int]:
    """At most ``most`` of the indices 0..n − 1, ascending, from the first to the last; all where there are no more."""
    return [int(i) for i in np.unique(np.linspace(0, n - 1, min(n, most)).round())]
