"""A plot with two axes as a small inline SVG that takes its colours from the page.

A page of a whole study has hundreds of such plots. Drawn here one costs a few milliseconds and kilobytes; a plotting
library takes many times both (``benchmarks/bench_report.py``), and its colours would have to be put right afterwards.

Text and axes have the page's text colour, everything else a CSS variable with a fallback, so that a plot follows a
light and a dark page and can stand alone. No text of a user's goes into it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Plot"]

_Values = npt.NDArray[np.float64]

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
        named_x: places and texts of the horizontal axis' ticks, instead of its own; the texts are no user's.
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
        named_x: Sequence[tuple[float, str]] | None = None,
    ) -> None:
        self.size, self.left = size, left
        self._x, self._y, self._log = x, y, log_y
        self._labels = (x_label, y_label)
        self._x_texts = None if named_x is None else [text for _, text in named_x]
        x_ticks = [v for v, _ in named_x] if named_x is not None else _linear_ticks(*x, ticks[0], integer_x)
        y_ticks = _log_ticks(*y, ticks[1]) if log_y else _linear_ticks(*y, ticks[1])
        self._ticks = (x_ticks, y_ticks)
        right, bottom = size[0] - _RIGHT, size[1] - _BOTTOM
        lines = [f"M{self.at_x(v):.1f} {_TOP:g}V{bottom:g}" for v in x_ticks if "x" in grid]
        lines += [f"M{left:g} {self.at_y(v):.1f}H{right:g}" for v in y_ticks if "y" in grid]
        self._parts = [f'<path d="{"".join(lines)}" style="stroke:var(--line,#ccc)"/>']

    def at_x(self, value: float) -> float:
        """Horizontal place of a value, pixels."""
        return float(self._xs(np.asarray([value]))[0])

    def at_y(self, value: float) -> float:
        """Vertical place of a value, pixels from the top."""
        return float(self._ys(np.asarray([value]))[0])

    def _xs(self, values: _Values) -> _Values:
        # What lies far outside is drawn just outside.
        unit = ((values - self._x[0]) / (self._x[1] - self._x[0])).clip(-1, 2)
        return self.left + unit * (self.size[0] - _RIGHT - self.left)

    def _ys(self, values: _Values) -> _Values:
        low, high = self._y
        if self._log:
            low, high, values = math.log(low), math.log(high), np.log(values.clip(1e-300))
        unit = ((values - low) / (high - low)).clip(-1, 2)
        return self.size[1] - _BOTTOM - unit * (self.size[1] - _BOTTOM - _TOP)

    def line(self, x: npt.ArrayLike, y: npt.ArrayLike, colour: str, dashes: str = "", width: float = 2) -> None:
        """A polyline; ``colour`` is CSS."""
        dash = f";stroke-dasharray:{dashes.replace(' ', ',')}" if dashes else ""
        self._parts.append(f'<path d="M{self._points(x, y)}" style="stroke:{colour};stroke-width:{width:g}{dash}"/>')

    def area(self, x: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike, colour: str, opacity: float) -> None:
        """The area between two polylines over the same abscissae."""
        back = self._points(np.asarray(x)[::-1], np.asarray(low)[::-1])
        points = f"{self._points(x, high)}L{back}"
        self._parts.append(f'<path d="M{points}Z" style="fill:{colour};fill-opacity:{opacity:g};stroke:none"/>')

    def vertical(self, x: float, dashes: str = "", colour: str = "currentColor") -> None:
        """A line over the whole height."""
        self.line((x, x), self._y, colour, dashes, 1.2)

    def mark(self, x: float, y: float, colour: str, *, filled: bool = True, text: str = "") -> None:
        """A disc, or a ring, with a short text of nobody's beside it."""
        fill = f"fill:{colour}" if filled else "fill:var(--paper,#fff)"
        a, b = self.at_x(x), self.at_y(y)
        self._parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" style="{fill};stroke:{colour};stroke-width:1.5"/>')
        if text:
            self._parts.append(f'<text x="{a + 7:.1f}" y="{b + 3.5:.1f}" style="fill:currentColor">{text}</text>')

    def _points(self, x: npt.ArrayLike, y: npt.ArrayLike) -> str:
        xs, ys = self._xs(np.asarray(x, dtype=np.float64)), self._ys(np.asarray(y, dtype=np.float64))
        places = _corners(np.rint(10 * np.stack([xs, ys], axis=1)).astype(np.int64))
        return "L".join([f"{_tenths(a)} {_tenths(b)}" for a, b in places.tolist()])

    def to_svg(self) -> str:
        """The element; a class ``figure`` for the page's style sheet."""
        width, height = self.size
        right, bottom = width - _RIGHT, height - _BOTTOM
        x_texts = [
            f'<text x="{self.at_x(v):.1f}" y="{bottom + 14:g}" text-anchor="middle">{text}</text>'
            for v, text in zip(self._ticks[0], self._x_texts or _tick_texts(self._ticks[0]), strict=True)
        ]
        y_texts = [
            f'<text x="{self.left - 6:g}" y="{self.at_y(v) + 3.5:.1f}" text-anchor="end">{text}</text>'
            for v, text in zip(self._ticks[1], _tick_texts(self._ticks[1], self._log), strict=True)
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
    """Multiples of 1, 2, 2.5 or 5 times a power of ten in [low, high], at most ``count`` steps apart."""
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / count))
    steps = [factor * power for factor in (1, 2, 2.5, 5, 10)]
    if integer:
        steps = sorted(step for step in (1.0, *steps) if step == int(step))
    step = next(step for step in steps if span / step <= count * (1 + 1e-9))
    slack = 1e-9 * span / step
    numbers = range(math.ceil(low / step - slack), math.floor(high / step + slack) + 1)
    # Where the span is near the rounding error of its ends, neighbouring multiples can be one number.
    return list(dict.fromkeys(number * step for number in numbers))


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    """Powers of ten in [low, high], at most ``count`` of them; the ends where there are not two."""
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    ticks = [10.0**power for power in powers[:: max(1, -(-len(powers) // count))]]
    ticks = [tick for tick in ticks if low <= tick <= high]
    return ticks if len(ticks) > 1 else [low, high]


def _tick_texts(ticks: Sequence[float], log: bool = False) -> list[str]:
    """With as many decimals as tell them apart; on a logarithmic axis each with its own."""
    largest = max((abs(t) for t in ticks), default=0.0)
    spec = "g"
    if ticks and not 1e-3 <= largest < 1e5:
        spec = ".2g"
    elif len(ticks) > 1 and not log:
        step = min(b - a for a, b in pairwise(ticks))
        decimals = next((d for d in range(7) if abs(round(step, d) - step) < 1e-6 * step), 6)
        spec = f".{decimals}f"
    return [format(t, spec).replace("-", "−") for t in ticks]


def _corners(points: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Points ``[n, 2]`` without those that repeat the one before, or lie on the straight between their neighbours along
    an axis (the stairs of a ROC curve have many)."""
    moved = np.any(points[1:] != points[:-1], axis=1)
    points = points[np.concatenate([[True], moved])]
    if len(points) > 2:
        steps = np.sign(np.diff(points, axis=0))
        straight = (steps[1:] == steps[:-1]).all(axis=1) & (steps[1:] == 0).any(axis=1)
        points = points[np.concatenate([[True], ~straight, [True]])]
    # A lone point would draw nothing.
    return points if len(points) > 1 else np.repeat(points, 2, axis=0)


@cache
def _tenths(number: int) -> str:
    """A tenth of a number, as short as can be: "12.5", "3"."""
    return f"{number / 10:g}"
