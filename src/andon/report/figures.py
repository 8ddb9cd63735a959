"""Curves and histograms of the report.

Palette: after Okabe and Ito (2008), told apart with every common kind of colour blindness; dashes repeat the
distinction for print in grey. The page's style sheet has variants for its dark mode under the same names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from andon._tools.spacing import evenly_spaced
from andon.evaluation import roc_curve, stacked_curves
from andon.report.svg import Plot

__all__ = [
    "DASHES",
    "HUGE",
    "PALETTE",
    "Band",
    "average_curve",
    "curves_svg",
    "histogram_svg",
    "losses_svg",
    "roc_band",
    "style_index",
]

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
"""Of methods, ``--m0`` … in the page."""
DASHES = ("", "5 2", "1.5 1.5", "6 1.5 1.5 1.5", "8 3", "3 1", "4 1 1 1 1 1", "2 3")
HUGE = 1e100
"""No figure is drawn of values from here on: their differences overflow."""
_GOOD, _DEFECTIVE = "var(--good,#1a8f6a)", "var(--defective,#d0561a)"

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """Curves of several seeds, averaged vertically.

    Attributes:
        x: abscissae, ascending; a jump of the curves has two equal ones. ``[K]``.
        mean, low, high: over the seeds. ``[K]``.
        n: curves averaged.
    """

    x: _Float64
    mean: _Float64
    low: _Float64
    high: _Float64
    n: int


def style_index(position: int) -> int:
    """Index of the colour and the dashes of the ``position``-th method."""
    return position % len(PALETTE)


def average_curve(curves: Sequence[tuple[_Float64, _Float64]], at: _Float64) -> Band:
    """Mean, lowest and highest of piecewise linear curves at the abscissae ``at`` (ascending, distinct).

    Jumps are kept: every abscissa appears twice, with the left and the right limits. Where ``at`` holds the abscissae
    of all corners, the area under the mean is the mean of the areas.

    Raises:
        ValueError: no curves.
    """
    stacked = stacked_curves(curves, at)
    return Band(np.repeat(at, 2), stacked.mean(0), stacked.min(0), stacked.max(0), len(curves))


def roc_band(runs: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]], points: int = 200) -> Band | None:
    """The averaged ROC curve of runs given as (scores ``[N]``, labels ``[N]``); None where no run has a curve.

    Every FPR that occurs is an abscissa as long as there are at most ``points``; then the area under the mean curve is
    the mean AUROC. Above that it is thinned evenly, for plotting.
    """
    curves = [(fpr, tpr) for fpr, tpr, _ in (roc_curve(scores, labels) for scores, labels in runs) if len(fpr)]
    if not curves:
        return None
    at = np.unique(np.concatenate([fpr for fpr, _ in curves]))
    if len(at) > points:
        at = at[evenly_spaced(len(at), points)]
    return average_curve(curves, at)


def colour(index: int) -> str:
    """CSS colour of a style."""
    return f"var(--m{index},{PALETTE[index]})"


def curves_svg(
    bands: Sequence[tuple[int, Band]],
    *,
    x_label: str,
    y_label: str,
    x_limit: float = 1.0,
    diagonal: bool = False,
    marked: float | None = None,
) -> str:
    """Mean curves with their bands, values in 0..1.

    Args:
        bands: (style index, curve).
        x_limit: right end of the horizontal axis.
        diagonal: draw that of a toss of a coin.
        marked: an abscissa to mark: up to it the area is taken.
    """
    plot = Plot((350, 290), (0, x_limit), (0, 1.02), x_label, y_label)
    if diagonal:
        plot.line((0, 1), (0, 1), "var(--line,#ccc)", width=1.5)
    if marked is not None and marked < x_limit:
        plot.vertical(marked, "2 2")
    visible = [(index, band, int(np.searchsorted(band.x, x_limit, side="right"))) for index, band in bands]
    for index, band, stop in visible:
        if band.n > 1:
            plot.area(band.x[:stop], band.low[:stop], band.high[:stop], colour(index), 0.18)
    for index, band, stop in visible:
        plot.line(band.x[:stop], band.mean[:stop], colour(index), DASHES[index])
    return plot.to_svg()


def histogram_svg(
    good: npt.NDArray[Any], defective: npt.NDArray[Any], thresholds: Sequence[tuple[str, float]] = (), bins: int = 28
) -> str:
    """Histograms of the scores of good and defective images, each as a percentage of its own images.

    Scores far above the rest (more than six interquartile ranges over the upper quartile) are counted in the last bin.

    Args:
        good, defective: finite scores ``[n]``, at least one in all.
        thresholds: (dashes, score) to mark.
    """
    everything = np.concatenate([good, defective]).astype(np.float64)
    low, high = float(everything.min()), float(everything.max())
    lower, upper = np.quantile(everything, [0.25, 0.75])
    high = min(high, float(upper + 6 * (upper - lower))) if upper > lower else high
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    edges = np.linspace(low, high, bins + 1)
    shares = []
    for values, css in ((good, _GOOD), (defective, _DEFECTIVE)):
        if len(values):
            counts, _ = np.histogram(np.clip(values.astype(np.float64), low, high), edges)
            shares.append((100 * counts / len(values), css))
    top = 1.05 * max(float(share.max()) for share, _ in shares)
    plot = Plot((270, 180), (low, high), (0, top), "image score", "% of images", grid="y", ticks=(4, 3))
    x = np.repeat(edges, 2)
    for share, css in shares:
        outline = np.concatenate([[0.0], np.repeat(share, 2), [0.0]])
        plot.area(x, np.zeros(len(x)), outline, css, 0.35)
        plot.line(x, outline, css, width=1.3)
    for dashes, score in thresholds:
        plot.vertical(min(max(score, low), high), dashes)
    return plot.to_svg()


def losses_svg(curves: Sequence[tuple[int, Sequence[tuple[int, float]]]]) -> str | None:
    """Loss curves, one line a run; a logarithmic axis where they fall to less than a fiftieth.

    Args:
        curves: (style index, [(step, value), …]); values that are not finite, or beyond ``HUGE``, are left out.

    Returns:
        None where no curve has two values.
    """
    drawn: list[tuple[int, list[int], list[float]]] = []
    for index, points in curves:
        finite = [(step, value) for step, value in points if abs(value) < HUGE]
        chosen = finite[:: max(1, len(finite) // 200)]
        if len(chosen) > 1:
            drawn.append((index, [p[0] for p in chosen], [p[1] for p in chosen]))
    if not drawn:
        return None
    steps, values = [s for _, x, _ in drawn for s in x], [v for _, _, y in drawn for v in y]
    low, high = min(values), max(values)
    log = low > 0 and high / low > 50
    if not log:
        low = min(low, 0.0)
        high = high if high - low > 1e-300 else low + max(1.0, abs(low))
    first, last = min(steps), max(steps)
    plot = Plot(
        (270, 180),
        (first, last if last > first else first + 1),
        (low, high),
        "step",
        "loss",
        ticks=(5, 4),
        integer_x=True,
        log_y=log,
        left=54,
    )
    for index, x, y in drawn:
        plot.line(x, y, colour(index), width=1.2)
    return plot.to_svg()
