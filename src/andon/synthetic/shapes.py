"""Signed distances, in pixels: negative inside. Every shape takes grids ``x``, ``y`` (float32, any shape)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from andon.core import FloatArray

__all__ = ["Path2D", "box", "circle", "polygon", "regular_polygon", "rotated", "smooth_path"]

Points = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def rotated(x: FloatArray, y: FloatArray, cx: float, cy: float, angle: float) -> tuple[FloatArray, FloatArray]:
    """Coordinates in a frame at (cx, cy) turned by ``angle`` (radians, from x towards y)."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    return c * dx + s * dy, c * dy - s * dx


def circle(x: FloatArray, y: FloatArray, cx: float, cy: float, radius: float) -> FloatArray:
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    distance: FloatArray = np.sqrt(dx * dx + dy * dy) - np.float32(radius)
    return distance


def box(u: FloatArray, v: FloatArray, half_u: float, half_v: float, corner: float = 0.0) -> FloatArray:
    """Rectangle about the origin with rounded corners."""
    qu = np.abs(u) - np.float32(half_u - corner)
    qv = np.abs(v) - np.float32(half_v - corner)
    outside = np.sqrt(np.maximum(qu, 0) ** 2 + np.maximum(qv, 0) ** 2)
    distance: FloatArray = outside + np.minimum(np.maximum(qu, qv), 0) - np.float32(corner)
    return distance


def regular_polygon(u: FloatArray, v: FloatArray, sides: int, apothem: float) -> FloatArray:
    """Regular polygon about the origin (the bound of its half planes: exact inside and along the sides)."""
    out = np.full(u.shape, -np.inf, np.float32)
    for k in range(sides):
        a = 2 * np.pi * k / sides
        out = np.maximum(out, u * np.float32(np.cos(a)) + v * np.float32(np.sin(a)))
    return out - np.float32(apothem)


def polygon(
    x: FloatArray, y: FloatArray, points: Points | Sequence[tuple[float, float]], corner: float = 0.0
) -> FloatArray:
    """Any simple polygon, exact; ``corner`` rounds it outwards (the polygon grows by it)."""
    vertices = np.asarray(points, np.float32)
    best = np.full(x.shape, np.inf, np.float32)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = x - ax, y - ay
        t = np.clip((wx * ex + wy * ey) / max(float(ex * ex + ey * ey), 1e-9), 0, 1)
        best = np.minimum(best, (wx - t * ex) ** 2 + (wy - t * ey) ** 2)
        if ay != by:
            crosses = (ay > y) != (by > y)
            inside ^= crosses & (wx < (y - ay) * (ex / ey))
    distance = np.sqrt(best)
    return np.where(inside, -distance, distance) - np.float32(corner)


@dataclass(frozen=True)
class Path2D:
    """A dense polyline: points ``[N, 2]`` (x, y) and the arc length ``[N]`` at each."""

    points: Points
    arc: np.ndarray[tuple[int], np.dtype[np.float64]]

    @property
    def length(self) -> float:
        return float(self.arc[-1])

    def at(self, s: float) -> tuple[float, float, float]:
        """(x, y, direction in radians) at arc length ``s``, held inside the path."""
        s = float(np.clip(s, 0, self.length))
        i = int(np.clip(np.searchsorted(self.arc, s) - 1, 0, len(self.arc) - 2))
        t = (s - self.arc[i]) / max(self.arc[i + 1] - self.arc[i], 1e-9)
        (ax, ay), (bx, by) = self.points[i], self.points[i + 1]
        return float(ax + t * (bx - ax)), float(ay + t * (by - ay)), float(np.arctan2(by - ay, bx - ax))

    def part(self, start: float, stop: float) -> Path2D:
        """The path between two arc lengths."""
        inner = (self.arc > start) & (self.arc < stop)
        points = np.concatenate([[self.at(start)[:2]], self.points[inner], [self.at(stop)[:2]]])
        return _path(points)

    def offset(self, distance: float) -> Path2D:
        """The parallel path, ``distance`` to the right of the way (y down)."""
        tangent = np.gradient(self.points, axis=0)
        tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
        return _path(self.points + distance * np.stack([-tangent[:, 1], tangent[:, 0]], 1))


def _path(points: Points) -> Path2D:
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return Path2D(points, np.concatenate([[0.0], np.cumsum(steps)]))


def smooth_path(points: Sequence[tuple[float, float]] | Points, step: float = 7.0) -> Path2D:
    """Centripetal Catmull–Rom spline through ``points``, sampled about every ``step`` pixels."""
    knots = np.asarray(points, np.float64)
    knots = np.concatenate([[2 * knots[0] - knots[1]], knots, [2 * knots[-1] - knots[-2]]])
    out = []
    for p0, p1, p2, p3 in zip(knots, knots[1:], knots[2:], knots[3:], strict=False):
        t0 = 0.0
        t1 = t0 + max(float(np.linalg.norm(p1 - p0)), 1e-6) ** 0.5
        t2 = t1 + max(float(np.linalg.norm(p2 - p1)), 1e-6) ** 0.5
        t3 = t2 + max(float(np.linalg.norm(p3 - p2)), 1e-6) ** 0.5
        count = max(2, round(float(np.linalg.norm(p2 - p1)) / step))
        t = np.linspace(t1, t2, count, endpoint=False)[:, None]
        a1 = (t1 - t) / (t1 - t0) * p0 + (t - t0) / (t1 - t0) * p1
        a2 = (t2 - t) / (t2 - t1) * p1 + (t - t1) / (t2 - t1) * p2
        a3 = (t3 - t) / (t3 - t2) * p2 + (t - t2) / (t3 - t2) * p3
        b1 = (t2 - t) / (t2 - t0) * a1 + (t - t0) / (t2 - t0) * a2
        b2 = (t3 - t) / (t3 - t1) * a2 + (t - t1) / (t3 - t1) * a3
        out.append((t2 - t) / (t2 - t1) * b1 + (t - t1) / (t2 - t1) * b2)
    out.append(knots[-2][None])
    return _path(np.concatenate(out))
