"""Cost against accuracy: which methods no other beats in both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CostPoint", "pareto_front"]


@dataclass(frozen=True)
class CostPoint:
    """What a method costs and what it gives for that.

    Attributes:
        cost: less is better: training seconds, seconds an image, MiB.
        accuracy: more is better.
    """

    cost: float
    accuracy: float


def pareto_front(points: Mapping[str, CostPoint]) -> tuple[str, ...]:
    """Names of the points that no other dominates, by rising cost.

    A point dominates another that it equals or beats in both and beats in one; so equal points stand or fall together.
    Points with a coordinate that is NaN cannot be compared and are left out.
    """
    known = {n: p for n, p in points.items() if not (math.isnan(p.cost) or math.isnan(p.accuracy))}
    front: list[str] = []
    best, best_cost = -math.inf, math.nan
    for name in sorted(known, key=lambda n: (known[n].cost, -known[n].accuracy)):
        point = known[name]
        if point.accuracy > best or (point.accuracy == best and point.cost == best_cost) or not front:
            front.append(name)
            best, best_cost = point.accuracy, point.cost
    return tuple(front)
