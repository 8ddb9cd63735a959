"""The report: one HTML file with everything in it, made from the store alone.

The page needs no network and cannot use any: a content security policy forbids every request and every script but its
own. All text of a user's is escaped by the template. Given the same store it is the same file, byte for byte.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from andon.benchmark import ExperimentRecord, Failure, Store
from andon.core import AndonError
from andon.evaluation import EvaluationArrays
from andon.report import figures, gallery
from andon.report._page import page_environment, page_script, page_style
from andon.report.results import Column, DatasetResults, Results, Row, collect, plain
from andon.report.tables import (
    RANDOM_WEIGHTS,
    Table,
    build_tables,
    category_tables,
    primary_limit,
    published_text,
    random_weights,
)

__all__ = ["render_report"]

_THRESHOLDS = (("test good", "", "good test images"), ("train good", "4 2", "good training images"))
"""Marked in the histograms, at TNR 95 %: (source, dashes, words)."""


@dataclass(frozen=True)
class _Chart:
    """A figure with its words."""

    title: str
    svg: Markup
    text: str = ""
    style: int | None = None


@dataclass(frozen=True)
class _Task:
    """A task's part of the page."""

    row: Row
    facts: str
    curves: list[_Chart]
    histograms: list[_Chart]
    losses: list[_Chart]
    tables: list[Table]
    gallery: gallery.Gallery | None
    no_maps: str
    notes: list[str]


@dataclass(frozen=True)
class _Section:
    """A data set's part of the page."""

    key: str
    results: DatasetResults
    headline: list[str]
    counts: list[tuple[str, str]]
    tables: list[Table]
    tasks: list[_Task]
    warning: str
    styles: dict[str, int]


@dataclass(frozen=True)
class _Experiment:
    """A line of the list of experiments."""

    id: str
    dataset: str
    task: str
    label: str
    seed: int
    state: str
    figures: list[tuple[str, str]]
    details: list[tuple[str, str]]
    reason: str = ""


def render_report(store: Store, *, title: str | None = None) -> str:
    """The page as text; ``write_report`` writes it.

    Raises:
        AndonError: nothing has finished in the store.
    """
    results = collect(store)
    problems: list[str] = []
    tables = build_tables(results)
    galleries = gallery.build_galleries(store, results.datasets, problems)
    sections = [
        _section(store, dataset, index, [t for t in tables if t.dataset_key == dataset.name], galleries, problems)
        for index, dataset in enumerate(results.datasets)
    ]
    problems = list(dict.fromkeys([*results.problems, *problems, *(plain(p, 400) for p in store.problems)]))
    environment = page_environment()
    environment.globals |= {"published_text": published_text, "random_note": RANDOM_WEIGHTS}
    page = environment.get_template("report.html.j2").render(
        title=plain(title) if title else _title(results),
        results=results,
        sections=sections,
        style=page_style("report.css"),
        **page_script("report.js"),
        colour_bar=gallery.colour_bar(),
        dashes=figures.DASHES,
        warnings=[s.warning for s in sections if s.warning],
        problems=problems,
        experiments=sorted(_experiments(results), key=lambda e: e.state != "failed"),
        methods=[(section, column) for section in sections for column in section.results.columns],
        method_details=_method_details,
        last=plain(max([r.started for r in results.records] + [f.started for f in results.failures])[:10]),
        version=_version(results),
    )
    # A lone surrogate cannot be written as UTF-8; `plain` took out those of names.
    return page.encode("utf-8", "replace").decode("utf-8")


def _title(results: Results) -> str:
    return results.titles[0] if len(results.titles) == 1 else "Benchmark report"


def _version(results: Results) -> str:
    found = dict.fromkeys(plain(r.versions.get("andon", "")) for r in results.records)
    return ", ".join(v for v in found if v)


# Data sets and tasks


def _section(
    store: Store,
    results: DatasetResults,
    index: int,
    tables: list[Table],
    galleries: dict[str, gallery.Gallery],
    problems: list[str],
) -> _Section:
    styles = {column.key: figures.style_index(i) for i, column in enumerate(results.columns)}
    return _Section(
        key=f"d{index}",
        results=results,
        headline=_headline(results, tables),
        counts=_counts(results),
        tables=tables,
        tasks=[_task(store, results, row, styles, galleries.get(row.key), problems) for row in results.rows],
        warning=_warning(results),
        styles=styles,
    )


def _headline(results: DatasetResults, tables: Sequence[Table]) -> list[str]:
    """One sentence a question: which method is best, and by what figure."""
    sentences = []
    limit = primary_limit(results)
    for suffix, metric, verb in (
        ("auroc", "image AUROC", "detects"),
        ("auspro", f"AUsPRO to FPR {limit:g}", "localises"),
    ):
        table = next((t for t in tables if t.name.endswith(suffix)), None)
        if table is None:
            continue
        row = table.groups[0].rows[-1]
        given = [(c, label) for c, label in zip(row.cells, table.columns, strict=True) if c.summary is not None]
        best = [(c, label) for c, label in given if c.best] or (given if len(given) == 1 else [])
        if not best:
            continue
        named = " and ".join(f"{label} ({cell.text} %)" for cell, label in best)
        over = "mean over the tasks" if row.is_mean else row.label
        if len(given) == 1:
            sentences.append(f"{named}: {metric}, {over}.")
        elif len(best) == 1:
            sentences.append(f"{named} {verb} best: {metric}, {over}.")
        else:
            sentences.append(
                f"{named} {verb.removesuffix('s')} best, with no significant difference: {metric}, {over}."
            )
    return sentences


def _warning(results: DatasetResults) -> str:
    """What every section says of methods on random weights; "" if there are none."""
    named = random_weights(results.columns)
    if not named:
        return ""
    records = [w for r in results.records for w in r.weights if w.get("pretrained") is False]
    orthogonal = all(str(w.get("name", "")).startswith("orthogonal") for w in records)
    kind = "Fixed-seed orthogonal initialisation: features are" if orthogonal else "Features are"
    return f"{named}. {kind} not pretrained; these figures do not show what the methods can do with pretrained ones."


def _counts(results: DatasetResults) -> list[tuple[str, str]]:
    runs = [results.get(row, column) for row in results.rows for column in results.columns]
    done, failed = sum(len(r.records) for r in runs), sum(len(r.failures) for r in runs)
    pending = sum(r.pending for r in runs)
    seeds = len({r.spec.seed for r in results.records if r.seeded}) or 1
    counts = [
        (str(len(results.rows)), "task" if len(results.rows) == 1 else "tasks"),
        (str(len(results.columns)), "method" if len(results.columns) == 1 else "methods"),
        (str(seeds), "seed" if seeds == 1 else "seeds"),
        (str(done), "experiment finished" if done == 1 else "experiments finished"),
    ]
    return counts + [(str(n), word) for n, word in ((failed, "failed"), (pending, "not run")) if n]


def _task(
    store: Store,
    results: DatasetResults,
    row: Row,
    styles: dict[str, int],
    images: gallery.Gallery | None,
    problems: list[str],
) -> _Task:
    arrays: dict[str, list[tuple[ExperimentRecord, EvaluationArrays]]] = {}
    for column in results.columns:
        for record in results.get(row, column).records:
            try:
                arrays.setdefault(column.key, []).append((record, store.arrays(record.id)))
            except AndonError as error:
                problems.append(plain(str(error), 400))
    shown = {c.key for c in images.columns} if images else set()
    without = [c.label for c in results.columns if c.key not in shown and results.get(row, c).records]
    records = [r for c in results.columns for r in results.get(row, c).records]
    return _Task(
        row=row,
        facts=_facts(records),
        curves=_curves(results, arrays, styles),
        histograms=_histograms(results, row, arrays, styles),
        losses=_losses(results, row, styles),
        tables=category_tables(results, row),
        gallery=images,
        no_maps=", ".join(without),
        notes=_task_notes(records),
    )


def _task_notes(records: Sequence[ExperimentRecord]) -> list[str]:
    """Notes on evaluations, each once; one that is not on all of them says whose it is."""
    whose: dict[str, list[ExperimentRecord]] = {}
    for record in records:
        for note in dict.fromkeys(record.evaluation.notes):
            whose.setdefault(plain(note, 400), []).append(record)
    runs = Counter(record.spec.label for record in records)
    told = []
    for note, owners in whose.items():
        own = Counter(record.spec.label for record in owners)
        names = [
            label
            if own[label] == runs[label]
            else f"{label}, seed {', '.join(str(r.spec.seed) for r in owners if r.spec.label == label)}"
            for label in own
        ]
        told.append(note if len(owners) == len(records) else plain(f"{'; '.join(names)}: {note}", 480))
    return told


def _facts(records: Sequence[ExperimentRecord]) -> str:
    if not records:
        return "no result"
    train = sorted({r.n_train for r in records})
    image = records[0].evaluation.image
    trained = f"{train[0]}" if len(train) == 1 else f"{train[0]} to {train[-1]}"
    return f"{trained} good training images; test: {image.n_good} good, {image.n_defective} defective"


_Arrays = dict[str, list[tuple[ExperimentRecord, EvaluationArrays]]]


def _curves(results: DatasetResults, arrays: _Arrays, styles: dict[str, int]) -> list[_Chart]:
    charts = []
    roc = []
    for column in results.columns:
        band = figures.roc_band([(a.image_scores, a.labels()) for _, a in arrays.get(column.key, []) if _finite(a)])
        if band is not None:
            roc.append((styles[column.key], band))
    if roc:
        svg = figures.curves_svg(roc, x_label="FPR (good images that alarm)", y_label="TPR", diagonal=True)
        charts.append(_Chart("ROC: detection", Markup(svg), "grey: a toss of a coin"))
    limit = primary_limit(results)
    curves = []
    for column in results.columns:
        runs = [(a.spro_fpr, a.spro) for _, a in arrays.get(column.key, []) if a.spro_fpr is not None]
        usable = [(x, y) for x, y in runs if x is not None and y is not None and _is_curve(x, y)]
        if usable:
            end = min(min(float(x[-1]) for x, _ in usable), 3 * limit)
            curves.append((styles[column.key], figures.average_curve(usable, np.linspace(0, end, 151))))
    if curves:
        right = max(float(band.x[-1]) for _, band in curves)
        svg = figures.curves_svg(curves, x_label="pixel FPR", y_label="mean sPRO", x_limit=right, marked=limit)
        charts.append(_Chart("FPR–sPRO: localisation", Markup(svg), f"dashed: AUsPRO is taken up to FPR {limit:g}"))
    return charts


def _finite(arrays: EvaluationArrays) -> bool:
    # A NaN is the maximum of whatever it is among, and below nothing.
    scores = arrays.image_scores
    return scores.dtype.kind == "f" and float(np.abs(scores).max(initial=0)) < figures.HUGE


def _is_curve(x: Any, y: Any) -> bool:
    """Whether arrays of a store are a curve that can be drawn."""
    return bool(
        x.dtype.kind == y.dtype.kind == "f"
        and x.ndim == y.ndim == 1
        and len(x) == len(y) >= 2
        and np.isfinite(x).all()
        and np.isfinite(y).all()
        and (np.diff(x) >= 0).all()
        and x[-1] > 0
    )


def _histograms(results: DatasetResults, row: Row, arrays: _Arrays, styles: dict[str, int]) -> list[_Chart]:
    charts = []
    for column in results.columns:
        found = [(r, a) for r, a in arrays.get(column.key, []) if _finite(a) and len(a.image_scores)]
        if not found:
            continue
        record, first = found[0]
        thresholds = [
            (dashes, point.threshold)
            for source, dashes, _ in _THRESHOLDS
            for point in record.evaluation.operating_points
            if point.source == source and point.target_tnr == 0.95 and np.isfinite(point.threshold)
        ]
        labels = first.labels()
        svg = figures.histogram_svg(first.image_scores[~labels], first.image_scores[labels], thresholds)
        seed = f"seed {record.spec.seed}" if record.seeded else ""
        charts.append(_Chart(column.label, Markup(svg), seed, styles[column.key]))
    return charts


def _losses(results: DatasetResults, row: Row, styles: dict[str, int]) -> list[_Chart]:
    charts = []
    for column in results.columns:
        records = results.get(row, column).records
        for name in dict.fromkeys(name for r in records for name in r.curves):
            curves = [(styles[column.key], r.curves[name]) for r in records if r.curves.get(name)]
            svg = figures.losses_svg(curves)
            if svg is not None:
                charts.append(_Chart(f"{column.label}: {plain(name)}", Markup(svg), style=styles[column.key]))
    return charts


# Methods and experiments


def _method_details(column: Column) -> list[tuple[str, str]]:
    spec = column.spec
    protocol = spec.protocol
    details = [
        ("Method", plain(spec.method)),
        ("Configuration", _pretty(spec.config)),
        ("Training images", "all" if protocol.shots is None else f"{protocol.shots}, drawn with the seed"),
        ("AUsPRO limits", ", ".join(f"{limit:g}" for limit in protocol.fpr_limits)),
        ("Calibration folds", str(protocol.calibration_folds) if protocol.calibration_folds else "none"),
    ]
    return details + ([("Code", spec.code_fingerprint)] if spec.code_fingerprint else [])


def _pretty(options: Mapping[str, Any]) -> str:
    """One line an option; ASCII, so that nothing in it can be mistaken for anything else."""
    return "\n".join(
        f"{plain(str(key))}: {json.dumps(value, sort_keys=True)}" for key, value in sorted(options.items())
    )


def _experiments(results: Results) -> Iterator[_Experiment]:
    for dataset in results.datasets:
        for row in dataset.rows:
            for column in dataset.columns:
                runs = dataset.get(row, column)
                for record in runs.records:
                    yield _finished(dataset, row, column, record)
                for failure in runs.failures:
                    yield _failed(dataset, row, column, failure)


def _finished(dataset: DatasetResults, row: Row, column: Column, record: ExperimentRecord) -> _Experiment:
    limit = primary_limit(dataset)
    image, localisation = record.evaluation.image, record.evaluation.localisation
    auspro = localisation.auspro.get(limit) if localisation else None
    stages = ", ".join(f"{plain(k)} {v:.2f}" for k, v in record.fit_seconds.items())
    details = [
        ("Experiment", record.id),
        ("Method", plain(record.spec.method)),
        ("Started", plain(record.started)),
        ("Whole experiment", f"{record.seconds:.2f} s"),
        ("Fit (s)", stages),
        ("Predict", f"{record.predict_seconds:.2f} s for the test set"),
        ("Calibration", f"{record.calibration_seconds:.2f} s" if record.calibration_seconds is not None else "none"),
        ("Speed", f"{record.images_per_second:.2f} images a second" if record.images_per_second else "not measured"),
        ("Features", "read from the cache" if record.features_cached else "computed in this run"),
        ("Peak memory", f"{record.peak_memory_mb:,.0f} MiB"),
        ("Hardware", _hardware(record)),
        ("Versions", ", ".join(f"{plain(k)} {plain(v)}" for k, v in record.versions.items())),
        ("Weights", "\n".join(_weights(w) for w in record.weights) or "none"),
        ("Notes", "\n".join(plain(n, 400) for n in [*record.notes, *record.evaluation.notes]) or "none"),
        ("Data", plain(record.spec.data_fingerprint)),
        ("Protocol", _pretty(record.spec.protocol.model_dump(mode="json"))),
        ("Configuration", _pretty(record.spec.config)),
    ]
    return _Experiment(
        id=record.id,
        dataset=plain(dataset.name),
        task=row.label,
        label=column.label,
        seed=record.spec.seed,
        state="finished",
        figures=[
            ("AUROC", "–" if image.auroc is None else f"{100 * image.auroc:.1f}"),
            ("AUsPRO", "–" if auspro is None else f"{100 * auspro:.1f}"),
            ("fit", f"{record.fit_seconds.get('total', float('nan')):.1f} s"),
            ("peak", f"{record.peak_memory_mb:,.0f} MiB"),
        ],
        details=details,
    )


def _failed(dataset: DatasetResults, row: Row, column: Column, failure: Failure) -> _Experiment:
    lines = "\n".join(plain(line, 400) for line in failure.detail.splitlines()[-60:])
    return _Experiment(
        id=failure.id,
        dataset=plain(dataset.name),
        task=row.label,
        label=column.label,
        seed=failure.spec.seed,
        state="failed",
        figures=[],
        details=[
            ("Experiment", failure.id),
            ("Started", plain(failure.started)),
            ("Ran for", f"{failure.seconds:.1f} s"),
            ("Reason", plain(failure.reason, 1000)),
            ("Last lines", lines or "none"),
            ("Protocol", _pretty(failure.spec.protocol.model_dump(mode="json"))),
            ("Configuration", _pretty(failure.spec.config)),
        ],
        reason=plain(failure.reason, 1000),
    )


def _hardware(record: ExperimentRecord) -> str:
    h = record.hardware
    device = "" if h.device == "cpu" else f"; {plain(h.device)}"
    return f"{plain(h.cpu)}, {h.cores} cores, {h.memory_gb:g} GB, {h.threads} threads{device}"


def _weights(weights: dict[str, Any]) -> str:
    known = {k: plain(str(weights.get(k) or "")) for k in ("part", "source", "name", "licence", "sha256")}
    random = "" if weights.get("pretrained", True) else " RANDOM, not pretrained;"
    licence = f"; licence {known['licence']}" if known["licence"] else ""
    return f"{known['part']}:{random} {known['source']} {known['name']}{licence}; SHA-256 {known['sha256'][:16]}…"
