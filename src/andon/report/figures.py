"""Curves and histograms as small inline SVG.

Drawn with matplotlib, then made to follow the page: text is text, axes take the page's text colour, and each method's
colour is a CSS variable (``--m0`` …) with a fallback, so that the same SVG works in a light and a dark page and alone.
No text of a user's goes into an SVG. Cost: about 20 ms and 5–15 kB a figure.

Palette: after Okabe and Ito (2008), told apart with every common kind of colour blindness; dashes repeat the
distinction for print in grey.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from andon.evaluation.image import roc_curve

__all__ = [
    "DASHES",
    "PALETTE",
    "Band",
    "average_curve",
    "curves_svg",
    "histogram_svg",
    "limits_of",
    "losses_svg",
    "roc_band",
    "style_index",
]

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
DASHES = ("", "5 2", "1.5 1.5", "6 1.5 1.5 1.5", "8 3", "3 1", "4 1 1 1 1 1", "2 3")
GOOD, DEFECTIVE = "#009e74", "#d55e01"
"""Of histograms; not equal to a method's colours, so that each has its own CSS variable."""

_INK, _GRID, _PAPER = "#010203", "#040506", "#070809"
_VARIABLES = {c: f"var(--m{i}, {c})" for i, c in enumerate(PALETTE)} | {
    GOOD: f"var(--good, {GOOD})",
    DEFECTIVE: f"var(--defective, {DEFECTIVE})",
    _INK: "currentColor",
    _GRID: "var(--line, #cccccc)",
    _PAPER: "var(--paper, #ffffff)",
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "andon",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "path.simplify": True,
    "path.simplify_threshold": 0.2,
}

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


def limits_of(x: _Float64, y: _Float64, at: _Float64) -> tuple[_Float64, _Float64]:
    """Left and right limits at ``at`` of a polyline with ascending ``x`` that may jump (equal ``x``).

    Returns:
        ``lower``: where it arrives from the left, ``upper``: where it leaves to the right.
    """
    first = np.searchsorted(x, at, side="left").clip(0, len(x) - 1)
    last = (np.searchsorted(x, at, side="right") - 1).clip(0, len(x) - 1)
    between = np.interp(at, x, y)
    # Outside [x0, xn] both limits are the end's value, which np.interp gives.
    return np.where(x[first] == at, y[first], between), np.where(x[last] == at, y[last], between)


def average_curve(curves: Sequence[tuple[_Float64, _Float64]], at: _Float64) -> Band:
    """Mean, lowest and highest of piecewise linear curves at the abscissae ``at`` (ascending, distinct).

    Jumps are kept: every abscissa appears twice, with the left and the right limits. Where ``at`` holds the abscissae
    of all corners, the area under the mean is the mean of the areas.

    Raises:
        ValueError: no curves.
    """
    if not curves:
        raise ValueError("no curves to average")
    stacked = np.stack([np.stack(limits_of(x, y, at), axis=1).reshape(-1) for x, y in curves])
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
        at = at[np.unique(np.linspace(0, len(at) - 1, points).round().astype(int))]
    return average_curve(curves, at)


def curves_svg(
    bands: Sequence[tuple[int, Band]],
    *,
    x_label: str,
    y_label: str,
    x_limit: float = 1.0,
    diagonal: bool = False,
    marked: float | None = None,
) -> str:
    """Mean curves with their bands.

    Args:
        bands: (style index, curve).
        x_limit: right end of the horizontal axis.
        diagonal: draw that of a coin toss.
        marked: an abscissa to mark: up to it the area is taken.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(3.5, 2.95)
        axes.set(xlim=(0, x_limit), ylim=(0, 1.02), xlabel=x_label, ylabel=y_label)
        axes.grid(True)
        if diagonal:
            axes.plot([0, 1], [0, 1], color=_GRID, linewidth=1, zorder=1)
        if marked is not None and marked < x_limit:
            axes.axvline(marked, color=_INK, linewidth=0.7, linestyle=(0, (2, 2)), zorder=1)
        for index, band in bands:
            colour, dashes = PALETTE[index], DASHES[index]
            keep = _thinned(band, x_limit)
            if band.n > 1:
                axes.fill_between(
                    band.x[keep], band.low[keep], band.high[keep], color=colour, alpha=0.18, linewidth=0, zorder=2
                )
            (line,) = axes.plot(band.x[keep], band.mean[keep], color=colour, linewidth=1.5, zorder=3)
            if dashes:
                line.set_dashes([float(d) for d in dashes.split()])
        return _svg(figure)


def _thinned(band: Band, x_limit: float) -> npt.NDArray[np.intp]:
    """Points to draw: the visible ones, without those that repeat their neighbours."""
    stop = int(np.searchsorted(band.x, x_limit, side="right")) + 2
    values = np.stack([band.x, band.mean, band.low, band.high])[:, :stop]
    changed = np.any(np.abs(np.diff(values, axis=1)) > 1e-9, axis=0)
    return np.flatnonzero(np.concatenate([[True], changed]))


def histogram_svg(
    good: npt.NDArray[Any], defective: npt.NDArray[Any], thresholds: Sequence[tuple[str, float]] = (), bins: int = 28
) -> str:
    """Histograms of the scores of good and defective pictures, each as a fraction of its own pictures.

    Scores far above the rest (more than six interquartile ranges over the upper quartile) are counted in the last bin.

    Args:
        good, defective: finite scores ``[n]``, at least one in all.
        thresholds: (dashes, score) to mark.
    """
    everything = np.concatenate([good, defective]).astype(np.float64)
    low, high = float(everything.min()), float(everything.max())
    lower, upper = np.quantile(everything, [0.25, 0.75])
    high = min(high, float(upper + 6 * (upper - lower))) if upper > lower else high
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    edges = np.linspace(low, high, bins + 1)
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(2.7, 1.8)
        axes.set(xlim=(low, high), xlabel="image score", ylabel="% of pictures")
        axes.grid(True, axis="y")
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        for values, colour in ((good, GOOD), (defective, DEFECTIVE)):
            if len(values):
                counts, _ = np.histogram(np.clip(values, low, high), edges)
                share = 100 * counts / len(values)
                axes.stairs(share, edges, fill=True, color=colour, alpha=0.35, linewidth=0)
                axes.stairs(share, edges, color=colour, linewidth=1.1)
        for dashes, score in thresholds:
            line = axes.axvline(min(max(score, low), high), color=_INK, linewidth=1)
            if dashes:
                line.set_dashes([float(d) for d in dashes.split()])
        return _svg(figure)


def losses_svg(curves: Sequence[tuple[int, Sequence[tuple[int, float]]]]) -> str:
    """Loss curves, one line a run.

    Args:
        curves: (style index, [(step, value), …]); values that are not finite are left out.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(2.7, 1.8, left=0.56)
        axes.set(xlabel="step", ylabel="loss")
        axes.grid(True)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        values = []
        for index, points in curves:
            finite = [(step, value) for step, value in points if math.isfinite(value)]
            stride = max(1, len(finite) // 200)
            x, y = [p[0] for p in finite[::stride]], [p[1] for p in finite[::stride]]
            axes.plot(x, y, color=PALETTE[index], linewidth=1, alpha=0.85)
            values += y
        if values and min(values) > 0 and max(values) / min(values) > 50:
            axes.set_yscale("log")
            # The formatter of its own writes powers as mathematics, which these figures leave as text.
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        return _svg(figure)


def _axes(width: float, height: float, left: float = 0.5) -> tuple[Figure, Axes]:
    """A figure of a size in inches with fixed margins: laying it out costs nothing, and figures in a row align."""
    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    axes = figure.add_axes(
        (left / width, 0.42 / height, 1 - (left + 0.12) / width, 1 - (0.42 + 0.08) / height), facecolor="none"
    )
    figure.patch.set_visible(False)
    return figure, axes


_COLOUR = re.compile("|".join(re.escape(c) for c in _VARIABLES))
_USELESS = re.compile(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->|<\?xml.*?\?>|<!DOCTYPE.*?>", re.DOTALL)
_GROUP_IDS = re.compile(r' id="(?:figure|axes|patch|text|line2d|xtick|ytick|matplotlib\.axis|FillBetween\w*|\w+)_\d+"')
_PATH = re.compile(r' d="[^"]*"')
_NUMBER = re.compile(r"-?\d+\.\d+")
_REFERENCE = re.compile(r'(id="|url\(#|href="#)([pmC]\w*)')
_FAMILY = re.compile(r" font-family: [^;\"]*;")
_FONT = re.compile(r'font: ([\d.]+)px [^;"]*')


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = _USELESS.sub("", buffer.getvalue())
    text = _GROUP_IDS.sub("", text)
    text = _FONT.sub(r"font-size: \1px", text)
    text = _FAMILY.sub("", text)
    text = _COLOUR.sub(lambda match: _VARIABLES[match[0]], text)
    text = _PATH.sub(lambda match: _NUMBER.sub(_rounded, match[0]).replace("\n", ""), text)
    # Ids are hashes of what they name, so equal ones occur in several figures of a page: each figure gets its own.
    mark = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    text = _REFERENCE.sub(rf"\g<1>\g<2>{mark}", text)
    text = re.sub(r"\s*\n\s*", "\n", text).strip()
    return text.replace("<svg ", '<svg class="figure" ', 1)


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")
