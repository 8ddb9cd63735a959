"""A plot with two axes as a small inline SVG that takes its colours from the page.

A page of a whole study has hundreds of such plots. Drawn here one costs about 1 ms and 3 kB; a plotting library's,
40 ms and 12 kB (``benchmarks/bench_report.py``), and its colours would have to be put right afterwards. Where ticks lie
is left to matplotlib.

Text and axes have the page's text colour, everything else a CSS variable with a fallback, so that a plot follows a
light and a dark page and can stand alone. No text of a user's goes into it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

from matplotlib.ticker import LogLocator, MaxNLocator

__all__ = ["Plot"]

_TOP, _RIGHT, _BOTTOM = 6.0, 8.0, 34.0
_FONT = 10.5


class Plot:
    """Axes to draw on, in the order of the calls.

    Args:
        size: (width, height), CSS pixels; the SVG scales with its place.
        x, y: (low, high) of the axes, low < high.
        x_label, y_label: their names.
        grid: directions of grid lines: "x", "y" or "xy".
        ticks: at most how many an axis (x, y).
        integer_x: ticks at whole numbers only.
        log_y: logarithmic vertical axis (y[0] > 0).
    """

    def __init__(
        self,
        size: tuple[float, float],
        x: tuple[float, float],
        y: tuple[float, float],
        x_label: str,
        y_label: str,
        *,
        grid: Literal["x", "y", "xy"] = "xy",
        ticks: tuple[int, int] = (5, 5),
        integer_x: bool = False,
        log_y: bool = False,
        left: float = 46.0,
    ) -> None:
        self.size, self.left = size, left
        self._x, self._y, self._log = x, y, log_y
        self._labels = (x_label, y_label)
        x_ticks = _linear_ticks(*x, ticks[0], integer_x)
        y_ticks = _log_ticks(*y, ticks[1]) if log_y else _linear_ticks(*y, ticks[1])
        self._ticks = (x_ticks, y_ticks)
        right, bottom = size[0] - _RIGHT, size[1] - _BOTTOM
        lines = [f"M{self.at_x(v):.1f} {_TOP:g}V{bottom:g}" for v in x_ticks if "x" in grid]
        lines += [f"M{left:g} {self.at_y(v):.1f}H{right:g}" for v in y_ticks if "y" in grid]
        self._parts = [f'<path d="{"".join(lines)}" style="stroke:var(--line,#ccc)"/>']

    def at_x(self, value: float) -> float:
        """Horizontal place of a value, pixels; far outside ones are drawn just outside."""
        low, high = self._x
        unit = min(max((value - low) / (high - low), -1.0), 2.0)
        return self.left + unit * (self.size[0] - _RIGHT - self.left)

    def at_y(self, value: float) -> float:
        """Vertical place of a value, pixels from the top."""
        low, high = self._y
        if self._log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-300))
        unit = min(max((value - low) / (high - low), -1.0), 2.0)
        return self.size[1] - _BOTTOM - unit * (self.size[1] - _BOTTOM - _TOP)

    def line(self, x: Iterable[float], y: Iterable[float], colour: str, dashes: str = "", width: float = 2) -> None:
        """A polyline; ``colour`` is CSS."""
        dash = f";stroke-dasharray:{dashes.replace(' ', ',')}" if dashes else ""
        self._parts.append(f'<path d="M{self._points(x, y)}" style="stroke:{colour};stroke-width:{width:g}{dash}"/>')

    def area(
        self, x: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str, opacity: float
    ) -> None:
        """The area between two polylines over the same abscissae."""
        points = f"{self._points(x, high)}L{self._points(x[::-1], low[::-1])}"
        self._parts.append(f'<path d="M{points}Z" style="fill:{colour};fill-opacity:{opacity:g};stroke:none"/>')

    def vertical(self, x: float, dashes: str = "", colour: str = "currentColor") -> None:
        """A line over the whole height."""
        self.line((x, x), self._y, colour, dashes, 1.2)

    def _points(self, x: Iterable[float], y: Iterable[float]) -> str:
        places = ((round(self.at_x(a), 1), round(self.at_y(b), 1)) for a, b in zip(x, y, strict=True))
        return "L".join(f"{a:g} {b:g}" for a, b in _without_repeats(places))

    def to_svg(self) -> str:
        """The element; a class ``figure`` for the page's style sheet."""
        width, height = self.size
        right, bottom = width - _RIGHT, height - _BOTTOM
        x_texts = [
            f'<text x="{self.at_x(v):.1f}" y="{bottom + 14:g}" text-anchor="middle">{text}</text>'
            for v, text in zip(self._ticks[0], _tick_texts(self._ticks[0]), strict=True)
        ]
        y_texts = [
            f'<text x="{self.left - 6:g}" y="{self.at_y(v) + 3.5:.1f}" text-anchor="end">{text}</text>'
            for v, text in zip(self._ticks[1], _tick_texts(self._ticks[1]), strict=True)
        ]
        middle = (_TOP + bottom) / 2
        names = (
            f'<text x="{(self.left + right) / 2:g}" y="{height - 5:g}" text-anchor="middle">{self._labels[0]}</text>'
            f'<text transform="translate(11 {middle:g}) rotate(-90)" text-anchor="middle">{self._labels[1]}</text>'
        )
        # An inner <svg> clips to the axes' area (and half a line more) without an id that could occur twice in a page.
        x, y, w, h = self.left - 1, _TOP - 1, right - self.left + 2, bottom - _TOP + 2
        box = f'x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" viewBox="{x:g} {y:g} {w:g} {h:g}"'
        inner = f"<svg {box}>{''.join(self._parts)}</svg>"
        frame = f'<path d="M{self.left:g} {_TOP:g}V{bottom:g}H{right:g}" style="stroke:currentColor"/>'
        return (
            f'<svg class="figure" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'font-size="{_FONT:g}" font-family="sans-serif" fill="none" stroke-linejoin="round">{inner}{frame}'
            f'<g style="fill:currentColor">{"".join(x_texts)}{"".join(y_texts)}{names}</g></svg>'
        )


def _linear_ticks(low: float, high: float, count: int, integer: bool = False) -> list[float]:
    ticks = MaxNLocator(count, integer=integer, min_n_ticks=1).tick_values(low, high)
    slack = 1e-9 * (high - low)
    return [float(t) for t in ticks if low - slack <= t <= high + slack]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    ticks = [float(t) for t in LogLocator(numticks=count).tick_values(low, high) if low <= t <= high]
    return ticks if len(ticks) > 1 else [low, high]


def _tick_texts(ticks: Sequence[float]) -> list[str]:
    """With as many decimals as tell them apart."""
    largest = max((abs(t) for t in ticks), default=0.0)
    spec = "g"
    if ticks and not 1e-3 <= largest < 1e5:
        spec = ".2g"
    elif len(ticks) > 1:
        step = min(b - a for a, b in pairwise(ticks))
        decimals = next((d for d in range(7) if abs(round(step, d) - step) < 1e-6 * step), 6)
        spec = f".{decimals}f"
    return [format(t, spec).replace("-", "−") for t in ticks]


def _without_repeats(points: Iterable[tuple[float, float]]) -> Iterable[tuple[float, float]]:
    """Drops points that repeat, or lie on a horizontal or vertical line between, their neighbours."""
    kept: list[tuple[float, float]] = []
    for point in points:
        if kept and point == kept[-1]:
            continue
        if len(kept) > 1 and any(
            kept[-2][i] == kept[-1][i] == point[i] and _between(kept, point, 1 - i) for i in (0, 1)
        ):
            kept[-1] = point
        else:
            kept.append(point)
    # A lone point would draw nothing.
    return kept if len(kept) > 1 else kept * 2


def _between(kept: Sequence[tuple[float, float]], point: tuple[float, float], i: int) -> bool:
    return min(kept[-2][i], point[i]) <= kept[-1][i] <= max(kept[-2][i], point[i])
