"""Mean and standard deviation of values that come in parts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Moments"]


class Moments:
    """Of all values that were added, in float64; parts are merged, so nothing cancels (Chan, Golub & LeVeque 1983)."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0

    def add(self, values: npt.NDArray[Any]) -> None:
        """Takes an array of any shape."""
        part = np.asarray(values, dtype=np.float64).ravel()
        if not part.size:
            return
        mean = float(part.mean())
        total, shift = self.count + part.size, mean - self.mean
        self._squares += float(np.square(part - mean).sum()) + shift**2 * self.count * part.size / total
        self.mean += shift * part.size / total
        self.count = total

    def result(self) -> npt.NDArray[np.float64] | None:
        """Mean and population standard deviation, ``[2]``; None of nothing."""
        if not self.count:
            return None
        return np.array([self.mean, math.sqrt(self._squares / self.count)])
