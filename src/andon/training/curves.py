"""Losses of a run: their curves, and when they say that it has gone wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from andon.core import TrainingError

__all__ = ["TOTAL", "LossCurve", "LossWatch"]

TOTAL = "loss"
"""Name of the sum of all losses in curves; a single loss keeps its own name."""
_WARM_UP = 20
"""Losses of this many steps say what is normal for a run."""


@dataclass
class LossCurve:
    """The course of named losses in at most ``limit`` (even) points, each the mean over as many steps as the others.

    When it is full, neighbours are merged: the interval doubles. Memory does not depend on the number of steps.
    """

    limit: int = 500
    interval: int = 1
    points: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    _sums: dict[str, float] = field(default_factory=dict)
    _count: int = 0
    _steps: int = 0

    def add(self, losses: Mapping[str, float]) -> None:
        """Takes the losses of the next step; the same names every time."""
        self._steps += 1
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if self._count < self.interval:
            return
        for name, total in self._sums.items():
            self.points.setdefault(name, []).append((self._steps, total / self._count))
        self._sums, self._count = {}, 0
        if any(len(points) >= self.limit for points in self.points.values()):
            self.interval *= 2
            self.points = {
                name: [(b[0], (a[1] + b[1]) / 2) for a, b in zip(points[::2], points[1::2], strict=True)]
                for name, points in self.points.items()
            }

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """``{name: [(steps done, mean loss since the point before), …]}``, the unfinished last interval included."""
        curves = {name: list(points) for name, points in self.points.items()}
        if self._count:
            for name, total in self._sums.items():
                curves.setdefault(name, []).append((self._steps, total / self._count))
        return curves

    def to_json(self) -> str:
        return json.dumps([self.limit, self.interval, self.points, self._sums, self._count, self._steps])

    @classmethod
    def from_json(cls, text: str) -> LossCurve:
        limit, interval, points, *rest = json.loads(text)
        return cls(limit, interval, {n: [(int(s), v) for s, v in p] for n, p in points.items()}, *rest)


class LossWatch:
    """Records losses and stops a run that has gone wrong, before any checkpoint of it is written."""

    def __init__(self, curve: LossCurve, stage: str, explosion: float, first: int, every: int) -> None:
        self.latest = math.nan
        self._curve, self._stage, self._explosion, self._every = curve, stage, explosion, every
        self._pending: list[tuple[int, list[str], torch.Tensor]] = []
        # After a resumption the curve knows how large losses are; its points are means of the same losses.
        self._largest = {name: max(abs(v) for _, v in points[:_WARM_UP]) for name, points in curve.points.items()}
        self._seen = first

    def see(self, step: int, losses: Mapping[str, torch.Tensor], total: torch.Tensor) -> None:
        names, values = list(losses), [loss.detach().float() for loss in losses.values()]
        if len(names) > 1 and TOTAL not in names:
            names, values = [*names, TOTAL], [*values, total.detach().float()]
        self._pending.append((step, names, torch.stack(values)))
        if len(self._pending) >= self._every:
            self.flush()

    def flush(self) -> None:
        pending, self._pending = self._pending, []
        for step, names, values in pending:
            losses = dict(zip(names, values.tolist(), strict=True))
            for name, value in losses.items():
                self._check(step, name, value)
            self._seen += 1
            self._curve.add(losses)
            self.latest = losses.get(TOTAL, next(iter(losses.values())))

    def _check(self, step: int, name: str, value: float) -> None:
        advice = "use a smaller learning rate, clip gradients, or look for broken images among the training ones"
        if not math.isfinite(value):
            raise TrainingError(f"{self._stage}: loss {name!r} is {value} at step {step + 1}; {advice}")
        largest = self._largest.get(name, 0.0)
        if self._seen < _WARM_UP:
            self._largest[name] = max(largest, abs(value))
        elif value > self._explosion * max(largest, 1.0):
            raise TrainingError(
                f"{self._stage}: loss {name!r} explodes: {value:.3g} at step {step + 1}, at most {largest:.3g} in the "
                f"beginning; {advice}"
            )
