"""Drawn figures: few-shot curves, critical-difference diagram, cost against accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from andon.benchmark import CostPoint, Ranking, pareto_front
from andon.report.figures import DASHES, colour, style_index
from andon.report.metrics import Metric, auspro
from andon.report.results import Column, DatasetResults, Row
from andon.report.study.beyond import ranking_of
from andon.report.study.measured import short
from andon.report.study.model import Figure
from andon.report.study.parts import Study, experiment_ids
from andon.report.svg import Plot
from andon.report.tables import primary_limit

__all__ = ["difference_svg", "drawn_figures", "few_shot_figures"]

_FONT = 'font-family="sans-serif"'


def drawn_figures(study: Study) -> list[Figure]:
    """Figure 5 and Andon's own; each says why where it is not there."""
    return [*few_shot_figures(study), *_rankings(study), *_paretos(study)]


# Figure 5


def few_shot_figures(study: Study) -> list[Figure]:
    """One figure a method: AUROC against the number of training images, a curve a category."""
    title = "AUROC by number of training images"
    if why := study.missing("figure5"):
        return [Figure("figure-5", title, missing=why)]
    results = study.parts["figure5"].main
    families: dict[str, list[Column]] = {}
    for column in results.columns:
        families.setdefault(column.method, []).append(column)
    figures: list[Figure] = []
    for method, columns in families.items():
        if not any(c.protocol.shots for c in columns):
            continue
        key = "figure-5" if not figures else f"figure-5-{len(figures) + 1}"
        columns = sorted(columns, key=lambda c: math.inf if c.protocol.shots is None else c.protocol.shots)
        figures.append(_few_shots(study, results, key, f"{title}: {_family(columns, method)}", columns))
    return figures or [Figure("figure-5", title, missing="no method of its plan was trained on a few images")]


def _family(columns: Sequence[Column], method: str) -> str:
    """The method's name: what the labels have in common, before the number of images."""
    names = {column.label.partition(",")[0] for column in columns}
    return names.pop() if len(names) == 1 else method


def _few_shots(study: Study, results: DatasetResults, key: str, title: str, columns: Sequence[Column]) -> Figure:
    metric = study.metrics["auroc"]
    places = [(float(i), "all" if c.protocol.shots is None else str(c.protocol.shots)) for i, c in enumerate(columns)]
    curves = [(style_index(i), row, _curve(metric, results, row, columns)) for i, row in enumerate(results.rows)]
    drawn = [(style, row, points) for style, row, points in curves if points]
    if not drawn:
        return Figure(key, title, missing="no run has an AUROC")
    low = min(mean - sd for _, _, points in drawn for _, mean, sd in points)
    bottom = max(0.0, math.floor(10 * low) / 10)
    last = max(len(columns) - 1, 1)
    plot = Plot((440, 300), (-0.15, last + 0.15), (bottom, 1.02), "training images", "AUROC", named_x=places, grid="y")
    for style, _, points in drawn:
        x, mean, sd = (np.asarray(values) for values in zip(*points, strict=True))
        plot.area(x, (mean - sd).clip(0, 1), (mean + sd).clip(0, 1), colour(style), 0.15)
    for style, _, points in drawn:
        x, mean, _ = (np.asarray(values) for values in zip(*points, strict=True))
        plot.line(x, mean, colour(style), DASHES[style])
        for a, b in zip(x, mean, strict=True):
            plot.mark(float(a), float(b), colour(style))
    legend = [(style, short(row.label)) for style, row, _ in drawn]
    runs = [results.get(row, column) for row in results.rows for column in columns]
    draws = sorted({len(r.records) for r in runs if r.records})
    counted = f"{draws[0]}" if len(draws) == 1 else f"{draws[0]} to {draws[-1]}"
    text = (
        f"Line: mean over {counted} runs, each with images drawn anew; band: ± one standard deviation. The axis counts "
        "the sizes, it is not to scale."
    )
    return Figure(key, title, with_legend(plot.to_svg(), (440, 300), legend), text, ids=experiment_ids(runs))


def _curve(
    metric: Metric, results: DatasetResults, row: Row, columns: Sequence[Column]
) -> list[tuple[float, float, float]]:
    """(place, mean, deviation) of the sizes that have a figure."""
    points = []
    for place, column in enumerate(columns):
        summary = results.get(row, column).summary(metric.read)
        if summary.mean is not None:
            points.append((float(place), summary.mean, summary.sd or 0.0))
    return points


# Rankings


def _rankings(study: Study) -> list[Figure]:
    titles = {"cd-auroc": "Critical difference: AUROC", "cd-auspro": "Critical difference: AUsPRO"}
    if why := study.missing("study"):
        return [Figure(key, title, missing=why) for key, title in titles.items()]
    metrics = {"cd-auroc": study.metrics["auroc"], "cd-auspro": auspro(primary_limit(study.main))}
    figures = []
    for key, title in titles.items():
        ranking = ranking_of(study, metrics[key])
        if ranking.difference is None:
            why = f"ranks need two methods and two categories with {metrics[key].title} of every method"
            figures.append(Figure(key, title, missing=why))
            continue
        text = (
            f"Mean ranks over {len(ranking.categories)} categories, 1 is best; methods under one bar are not told "
            f"apart (Nemenyi, {100 * ranking.alpha:g} %, critical difference {ranking.difference:.2f}). Friedman: "
            f"χ² = {ranking.friedman_statistic:.2f}, p = {ranking.friedman_p:.3g}."
        )
        figures.append(Figure(key, title, difference_svg(ranking), text, ids=_main_ids(study)))
    return figures


def _main_ids(study: Study) -> tuple[str, ...]:
    results = study.main
    return experiment_ids(results.get(row, column) for row in results.rows for column in results.columns)


def difference_svg(ranking: Ranking) -> str:
    """The diagram of Demšar (2006): an axis of mean ranks, a bar over methods that are not told apart.

    Args:
        ranking: of at least two methods, with a critical difference.
    """
    assert ranking.difference is not None
    methods = list(ranking.mean_ranks.items())
    count, span = len(methods), 320.0
    margin = 24 + 6.6 * max(len(f"{label} 00.00") for label, _ in methods)
    width = span + 2 * margin

    def at(rank: float) -> float:
        return margin + (rank - 1) / max(count - 1, 1) * span

    axis, step = 46.0, 18.0
    bars = axis + 12 + 9 * len(ranking.groups)
    half = (count + 1) // 2
    height = bars + 14 + step * half + 8
    parts = [f'<path d="M{at(1):g} {axis:g}H{at(count):g}" style="stroke:currentColor;stroke-width:1.5"/>']
    for place in range(1, count + 1):
        parts.append(f'<path d="M{at(place):.1f} {axis - 5:g}V{axis:g}" style="stroke:currentColor"/>')
        parts.append(_text(at(place), axis - 9, str(place), "middle"))
    length = min(ranking.difference, count - 1) / max(count - 1, 1) * span
    parts.append(f'<path d="M{margin:g} 14H{margin + length:.1f}M{margin:g} 10v8M{margin + length:.1f} 10v8" {_LINE}/>')
    beyond = "" if ranking.difference <= count - 1 else ", more than all ranks apart"
    parts.append(_text(margin + length + 8, 18, f"CD {ranking.difference:.2f}{beyond}", "start"))
    for number, group in enumerate(ranking.groups):
        y = axis + 10 + 9 * number
        first, last = at(ranking.mean_ranks[group[0]]), at(ranking.mean_ranks[group[-1]])
        parts.append(
            f'<path d="M{first - 3:.1f} {y:g}H{last + 3:.1f}" style="stroke:var(--accent,#0b5cad);stroke-width:4"/>'
        )
    for index, (label, rank) in enumerate(methods):
        left = index < half
        y = bars + 14 + step * (index if left else count - 1 - index)
        end = margin - 10 if left else width - margin + 10
        parts.append(f'<path d="M{at(rank):.1f} {axis:g}V{y:g}H{end:g}" {_LINE}/>')
        name = f"{label} {rank:.2f}" if left else f"{rank:.2f} {label}"
        parts.append(_text(end - 4 if left else end + 4, y + 4, name, "end" if left else "start"))
    return _svg(width, height, "".join(parts))


_LINE = 'style="stroke:currentColor;stroke-width:1"'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill:currentColor">{escape(text)}</text>'


def _svg(width: float, height: float, content: str) -> str:
    return (
        f'<svg class="figure" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" font-size="12" '
        f'{_FONT} fill="none">{content}</svg>'
    )


# Cost against accuracy


def _paretos(study: Study) -> list[Figure]:
    costs = {
        "pareto-speed": ("images_per_second", "Cost and accuracy: seconds an image", "seconds an image"),
        "pareto-training": ("training_seconds", "Cost and accuracy: training", "training, seconds"),
    }
    if why := study.missing("study"):
        return [Figure(key, title, missing=why) for key, (_, title, _) in costs.items()]
    return [_pareto(study, key, *rest) for key, rest in costs.items()]


def _pareto(study: Study, key: str, name: str, title: str, axis: str) -> Figure:
    points = {}
    for column in study.main.columns:
        cost, accuracy = _cost(study, column, study.metrics[name]), _mean(study, column, study.metrics["auroc"])
        if cost is not None and accuracy is not None and cost > 0:
            points[column.label] = CostPoint(cost, accuracy)
    if not points:
        return Figure(key, title, missing=f"no method has both an AUROC on every category and {axis}")
    front = pareto_front(points)
    logs = {label: math.log10(point.cost) for label, point in points.items()}
    low, high = math.floor(min(logs.values())), math.ceil(max(logs.values()))
    high = max(high, low + 1)
    ticks = [(float(power), _power(power)) for power in range(low, high + 1)]
    bottom = max(0.0, math.floor(10 * min(p.accuracy for p in points.values()) - 0.5) / 10)
    plot = Plot((440, 300), (low - 0.1, high + 0.25), (bottom, 1.02), axis, "mean AUROC", named_x=ticks)
    steps_x: list[float] = []
    steps_y: list[float] = []
    for label in front:
        steps_x += [logs[label], logs[label]]
        steps_y += [steps_y[-1] if steps_y else points[label].accuracy, points[label].accuracy]
    plot.line([*steps_x, high + 0.25], [*steps_y, steps_y[-1]], "var(--muted,#777)", "4 3", 1.2)
    numbers = {label: number for number, label in enumerate(points, 1)}
    for label, point in points.items():
        style = style_index(numbers[label] - 1)
        plot.mark(logs[label], point.accuracy, colour(style), filled=label in front, text=str(numbers[label]))
    legend = [(style_index(n - 1), f"{n} {label}") for label, n in numbers.items()]
    left_out = [c.label for c in study.main.columns if c.label not in points]
    text = "Filled: no other method is both cheaper and better (dashed: their front). Cost on a logarithmic axis."
    text += f" Without both figures: {', '.join(left_out)}." if left_out else ""
    return Figure(key, title, with_legend(plot.to_svg(), (440, 300), legend, lines=False), text, ids=_main_ids(study))


def _power(power: int) -> str:
    return f"{10.0**power:g}"


def _mean(study: Study, column: Column, metric: Metric) -> float | None:
    values = [study.main.get(row, column).summary(metric.read).mean for row in study.main.rows]
    given = [v for v in values if v is not None]
    return sum(given) / len(given) if given and len(given) == len(values) else None


def _cost(study: Study, column: Column, metric: Metric) -> float | None:
    """Seconds: of a fit (where features were computed), or an image; mean over the categories that have it."""
    values = []
    for row in study.main.rows:
        records = study.main.get(row, column).records
        if metric.name == "training_seconds":
            records = tuple(r for r in records if not r.features_cached)
        found = [v for v in (metric.read(r) for r in records) if v]
        seconds = found if metric.name == "training_seconds" else [1 / v for v in found]
        if seconds:
            values.append(sum(seconds) / len(seconds))
    return sum(values) / len(values) if values else None


def with_legend(svg: str, size: tuple[float, float], entries: Sequence[tuple[int, str]], *, lines: bool = True) -> str:
    """A plot with its legend beside it, one SVG.

    Args:
        svg: a plot's element.
        size: its (width, height).
        entries: (style index, text); any text.
        lines: keys are lines; discs otherwise.
    """
    width, height = size
    longest = max(len(text) for _, text in entries)
    room = 42 + 6.2 * min(longest, 34)
    total = max(height, 20 + 18 * len(entries))
    parts = []
    for number, (style, text) in enumerate(entries):
        y = 18 + 18 * number
        dash = f";stroke-dasharray:{DASHES[style].replace(' ', ',')}" if DASHES[style] else ""
        parts.append(
            f'<path d="M{width + 8:g} {y:g}h22" style="stroke:{colour(style)};stroke-width:2{dash}"/>'
            if lines
            else f'<circle cx="{width + 19:g}" cy="{y:g}" r="4" style="fill:{colour(style)}"/>'
        )
        shown = text if len(text) <= 34 else text[:33] + "…"
        parts.append(_text(width + 36, y + 4, shown, "start"))
    inner = svg.replace('<svg class="figure" ', f'<svg width="{width:g}" height="{height:g}" ', 1)
    return _svg(width + room, total, inner + "".join(parts))
