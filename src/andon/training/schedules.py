"""The order of samples and the course of learning rates, as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from andon._tools.seeds import numpy_step_generator

__all__ = ["SampleOrder", "Schedule", "cosine_schedule", "step_decay", "steps_of_epochs"]

Schedule = Callable[[int], float]
"""The factor on every learning rate at step 0, 1, 2, …: a function of the step, so it cannot be stepped wrongly."""


class SampleOrder:
    """The order in which samples are drawn, as a pure function of the step: epoch after epoch, each shuffled anew.

    Batches run on over the end of an epoch, so each has ``batch_size`` samples and every sample is seen equally often.

    Args:
        count: number of samples, at least 1.
        batch_size: samples a step.
        seed: of the shuffling.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        if count < 1 or batch_size < 1:
            raise ValueError(f"count and batch_size must be at least 1, not {count} and {batch_size}")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._epoch: tuple[int, np.ndarray[Any, np.dtype[np.int64]]] | None = None

    def __call__(self, step: int) -> list[int]:
        """Indices of the samples of a step."""
        chosen = []
        for position in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, place = divmod(position, self.count)
            known = self._epoch
            if known is None or known[0] != epoch:
                known = epoch, numpy_step_generator(self.seed, "epoch", epoch).permutation(self.count)
                self._epoch = known
            chosen.append(int(known[1][place]))
        return chosen


def steps_of_epochs(epochs: float, count: int, batch_size: int) -> int:
    """Steps in which ``count`` samples are seen ``epochs`` times, at least 1."""
    return max(1, math.ceil(epochs * count / batch_size))


def step_decay(steps: int, at: float | Sequence[float] = 0.95, factor: float = 0.1) -> Schedule:
    """1, and ``factor`` from the fraction ``at`` of all steps on; of several fractions each multiplies by it again."""
    borders = [int(fraction * steps) for fraction in ([at] if isinstance(at, int | float) else at)]
    return lambda step: factor ** sum(step >= border for border in borders)


def cosine_schedule(steps: int, warm_up: int = 0, final: float = 0.0) -> Schedule:
    """Linear from 0 over ``warm_up`` steps to 1, then half a cosine down to ``final`` at the last step."""

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / (warm_up + 1)
        done = (step - warm_up) / max(1, steps - 1 - warm_up)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor
