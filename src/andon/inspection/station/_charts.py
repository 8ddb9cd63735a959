"""The page's charts as inline SVG. Colours and fonts are the style sheet's; no text of a user's goes into them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from andon.inspection.calibration import ConformalCalibration, Thresholds

__all__ = ["Axis", "calibration_axis", "calibration_chart", "evidence_chart", "scores_chart"]

_Values = npt.NDArray[np.float64]
_WIDTH, _LEFT, _RIGHT, _FONT = 960.0, 62.0, 946.0, 15
_BINS = 48
_MARKS = {
    # Shapes, so that no colour has to be told from another.
    "pass": "M{x} {y}m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
    "look": "M{x} {y}m0-5l5 5-5 5-5-5z",
    "stop": "M{x} {y}m-4.5-4.5h9v9h-9z",
}


@dataclass(frozen=True)
class Axis:
    """Values low … high, drawn from ``start`` to ``end``, pixels of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Place of a value; what lies outside is drawn at the edge."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """At most ``most`` steps of 1, 2, 2.5 or 5 times a power of ten."""
        span = self.high - self.low
        power = 10.0 ** math.floor(math.log10(span / most))
        step = next(f * power for f in (1, 2, 2.5, 5, 10, 20) if span / (f * power) <= most)
        return [k * step for k in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def calibration_axis(calibration: ConformalCalibration, thresholds: Thresholds) -> Axis:
    """The scores' axis of the thresholds page: all scores and both thresholds, with some room above."""
    low = min(float(calibration.scores.min()), thresholds.look)
    high = max(float(calibration.scores.max()), thresholds.stop)
    span = (high - low) or abs(high) or 1.0
    return Axis(low - 0.04 * span, high + 0.3 * span, 14.0, _RIGHT)


def calibration_chart(calibration: ConformalCalibration, thresholds: Thresholds) -> Markup:
    """Good images by score: a histogram, a tick for each, and movable marks ``line-look`` and ``line-stop``."""
    axis = calibration_axis(calibration, thresholds)
    top, base = 26.0, 168.0
    counts, edges = np.histogram(calibration.scores, bins=_BINS, range=(axis.low, axis.high))
    scale = (base - top - 12) / max(1, int(counts.max()))
    bars = "".join(
        f"M{axis(a):.1f} {base}V{base - count * scale:.1f}H{axis(b) - 1:.1f}V{base}Z"
        for count, a, b in zip(counts.tolist(), edges[:-1], edges[1:], strict=True)
        if count
    )
    each = "".join(f"M{axis(v):.1f} {base + 3}v9" for v in np.unique(calibration.scores).tolist())
    marks = "".join(
        f'<g id="line-{name}" transform="translate({axis(value):.2f} 0)">'
        f'<path class="at-{name}" d="M0 20V{base + 12}"/>'
        f'<text class="at-{name}" x="{shift}" y="{top - 10}" text-anchor="{anchor}">{name}</text></g>'
        for name, value, anchor, shift in (
            ("look", thresholds.look, "end", -4),
            ("stop", thresholds.stop, "start", 4),
        )
    )
    parts = (
        f'<path class="bars" d="{bars}"/><path class="tick" d="{each}"/><path class="axis" d="M14 {base}H{_RIGHT}"/>'
    )
    told = f"Histogram of the scores of {len(calibration)} good parts, with the thresholds of look and stop"
    return _svg(216, told, parts + marks + _texts_below(axis, base + 32, base, 0))


def scores_chart(
    first: int, scores: _Values, thresholds: Thresholds, band: tuple[float, float], calibration: ConformalCalibration
) -> Markup:
    """Scores in the order of time, over the band of most of the calibration's.

    Args:
        first: number of the first of them.
        scores: ``[n]``, n ≥ 1.
        thresholds: drawn as lines.
        band: from where to where most good parts scored.
        calibration: whose scores are all on the axis.
    """
    top, base = 8.0, 262.0
    low = min(float(calibration.scores.min()), float(scores.min()), thresholds.look)
    high = max(float(calibration.scores.max()), float(scores.max()), thresholds.stop)
    # A few monsters must not press all others flat: they are drawn at the edge.
    high = min(high, low + 4 * (max(thresholds.stop, float(calibration.scores.max())) - low) or high)
    span = (high - low) or abs(high) or 1.0
    y = Axis(low - 0.05 * span, high + 0.05 * span, base, top)
    x = _counted(first, len(scores))
    parts = [
        f'<rect class="band" x="{_LEFT}" width="{_RIGHT - _LEFT}" y="{y(band[1]):.1f}" '
        f'height="{max(1.0, y(band[0]) - y(band[1])):.1f}"/>',
        _grid(y, _LEFT),
    ]
    for name, threshold in (("look", thresholds.look), ("stop", thresholds.stop)):
        parts.append(f'<path class="at-{name}" d="M{_LEFT} {y(threshold):.1f}H{_RIGHT}"/>')
    places: dict[str, list[str]] = {kind: [] for kind in _MARKS}
    for number, score in enumerate(scores.tolist(), first):
        kind = thresholds.decide(score)
        places[kind].append(_MARKS[kind].format(x=f"{x(number):.1f}", y=f"{y(score):.1f}"))
    parts += [f'<path class="point is-{kind}" d="{"".join(drawn)}"/>' for kind, drawn in places.items() if drawn]
    parts += [f'<path class="axis" d="M{_LEFT} {top}V{base}H{_RIGHT}"/>', _texts_below(x, base + 20, base, first)]
    told = f"Scores of parts {first} to {first + len(scores) - 1}, with the thresholds and where good parts scored"
    return _svg(310, told, "".join(parts) + _axis_names(top, base, "score"))


def evidence_chart(first: int, logs: _Values, bound: float, since: int | None) -> Markup:
    """The evidence of drift in the order of time, on a logarithmic axis, with its bound.

    Args:
        first: number of the first of them.
        logs: ``[n]``, natural logarithms, n ≥ 1.
        bound: at which it alarms.
        since: number of the part at which it did.
    """
    top, base = 8.0, 182.0
    tens = logs / math.log(10)
    low, high = min(-1.0, float(tens.min())), max(math.log10(bound) + 0.6, float(tens.max()) + 0.3)
    y, x = Axis(low, high, base, top), _counted(first, len(logs))
    powers = [p for p in range(math.ceil(low), math.floor(high) + 1) if p % max(1, round((high - low) / 6)) == 0]
    grid = "".join(f"M{_LEFT} {y(p):.1f}H{_RIGHT}" for p in powers)
    texts = "".join(f'<text x="{_LEFT - 8}" y="{y(p) + 5:.1f}" text-anchor="end">{_power(p)}</text>' for p in powers)
    points = "L".join(f"{x(k):.1f} {y(v):.1f}" for k, v in _thinned(enumerate(tens.tolist(), first), len(tens)))
    at = f"M{_LEFT} {y(math.log10(bound)):.1f}H{_RIGHT}"
    parts = [
        f'<path class="grid" d="{grid}"/>{texts}<path class="bound" d="{at}"/>',
        f'<text class="at-stop" x="{_LEFT + 8}" y="{y(math.log10(bound)) - 7:.1f}">alarm at {bound:.3g}</text>',
        f'<path class="evidence" d="M{points}{"" if len(tens) > 1 else "h.1"}"/>',
        f'<path class="axis" d="M{_LEFT} {top}V{base}H{_RIGHT}"/>',
        _texts_below(x, base + 20, base, first),
    ]
    if since is not None and since >= first:
        parts.append(f'<path class="at-stop" d="M{x(since):.1f} {top}V{base}"/>')
    told = f"Evidence of drift over parts {first} to {first + len(logs) - 1}; it alarms at {bound:.3g}"
    return _svg(232, told, "".join(parts) + _axis_names(top, base, "evidence"))


def _counted(first: int, count: int) -> Axis:
    return Axis(first - 0.5, first + max(count, 2) - 0.5, _LEFT, _RIGHT)


def _thinned(points: Iterable[tuple[int, float]], count: int, most: int = 1500) -> list[tuple[int, float]]:
    """Not more points than can be seen; the last one always."""
    step = max(1, count // most)
    kept = list(points)
    return [*kept[:-1:step], kept[-1]]


def _power(power: int) -> str:
    if -3 <= power <= 3:
        return f"{10.0**power:,.3f}".rstrip("0").rstrip(".")
    return f'10<tspan dy="-5" font-size="11">{str(power).replace("-", "−")}</tspan>'


def _grid(axis: Axis, left: float) -> str:
    ticks = axis.ticks()
    lines = "".join(f"M{left} {axis(v):.1f}H{_RIGHT}" for v in ticks)
    texts = "".join(
        f'<text x="{left - 8}" y="{axis(v) + 5:.1f}" text-anchor="end">{text}</text>'
        for v, text in zip(ticks, _tick_texts(ticks), strict=True)
    )
    return f'<path class="grid" d="{lines}"/>{texts}'


def _texts_below(axis: Axis, y: float, base: float, first: int) -> str:
    """The ticks of a horizontal axis; whole numbers only where ``first`` counts."""
    ticks = [t for t in axis.ticks(8) if not first or (t == int(t) and t >= first)]
    texts = _tick_texts(ticks)
    drawn = "".join(
        f'<text x="{axis(v):.1f}" y="{y}" text-anchor="middle">{text}</text>'
        for v, text in zip(ticks, texts, strict=True)
    )
    return f'<path class="axis" d="{"".join(f"M{axis(v):.1f} {base}v4" for v in ticks)}"/>{drawn}'


def _tick_texts(ticks: Sequence[float]) -> list[str]:
    if len(ticks) < 2:
        return [f"{t:.4g}" for t in ticks]
    step = abs(ticks[1] - ticks[0])
    decimals = max(0, -math.floor(math.log10(step)) + (0 if _whole(step) else 1))
    if decimals > 6 or max(map(abs, ticks)) >= 1e7:
        return [f"{t:.3g}".replace("-", "−") for t in ticks]
    return [f"{t:,.{decimals}f}".replace("-", "−") for t in ticks]


def _whole(step: float) -> bool:
    """Whether a step is 1, 2 or 5 times a power of ten: 2.5 needs a digit more."""
    lead = step / 10.0 ** math.floor(math.log10(step))
    return abs(lead - round(lead)) < 1e-6


def _axis_names(top: float, base: float, name: str) -> str:
    return (
        f'<text transform="translate(14 {(top + base) / 2}) rotate(-90)" text-anchor="middle">{name}</text>'
        f'<text x="{(_LEFT + _RIGHT) / 2}" y="{base + 42}" text-anchor="middle">part</text>'
    )


def _svg(height: float, told: str, parts: str) -> Markup:
    return Markup(  # numbers and words of this module only
        f'<svg class="chart" viewBox="0 0 {_WIDTH:g} {height:g}" role="img" aria-label="{told}" '
        f'font-size="{_FONT}">{parts}</svg>'
    )
