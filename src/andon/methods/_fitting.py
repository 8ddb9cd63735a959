"""The circumstances of a fit, its clock and its report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from andon.core import ProgressCallback, no_progress
from andon.weights import WeightsRecord

__all__ = ["FitReport", "FitRun", "StageClock"]


@dataclass(frozen=True)
class FitRun:
    """What does not change the result of a fit.

    Attributes:
        device: "cpu", "cuda", "cuda:1", "mps".
        progress: called as ``progress(stage, done, total)``.
        checkpoints: folder where a trained method keeps the state of its training, to go on from there; None keeps
            none. Whoever names it gives each fit its own, and removes it when the result is stored.
        checkpoint_seconds: least time between two checkpoints.
    """

    device: torch.device | str = "cpu"
    progress: ProgressCallback = no_progress
    checkpoints: Path | None = None
    checkpoint_seconds: float = 60.0


@dataclass(frozen=True)
class FitReport:
    """What happened in ``fit``; kept in the experiment's record.

    Attributes:
        n_train: training images.
        seconds: seconds by stage ("features", "coreset").
        weights: learned parts that were used.
        notes: what a reader of the result has to know ("coreset 4,704 of 47,040 patches").
        curves: loss curves by name, ``[(step, value), …]``.
        n_constant: training images of one colour.
    """

    n_train: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    weights: tuple[WeightsRecord, ...] = ()
    notes: tuple[str, ...] = ()
    curves: Mapping[str, list[tuple[int, float]]] = field(default_factory=dict)
    n_constant: int = 0


class StageClock:
    """Wall seconds by stage. A stage inside another is not counted twice: the outer one stands still meanwhile."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Counts the time of the block to ``stage``."""
        self._lap()
        self._running.append(stage)
        self.seconds.setdefault(stage, 0.0)
        try:
            yield
        finally:
            self._lap()
            self._running.pop()

    def add(self, stage: str, seconds: float) -> None:
        """Counts seconds that were measured elsewhere."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def forget(self, stage: str) -> None:
        """Drops a stage that turned out to be nothing."""
        self.seconds.pop(stage, None)

    def _lap(self) -> None:
        now = time.perf_counter()
        if self._running:
            self.add(self._running[-1], now - self._since)
        self._since = now
