"""The page of the results section: one HTML file with everything in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from andon.benchmark import STUDY_PROTOCOLS, ExperimentRecord, published
from andon.report import figures as styles
from andon.report._page import page_environment, page_script, page_style
from andon.report.cells import not_comparable
from andon.report.results import plain
from andon.report.study.assemble import Section
from andon.report.study.formats import can_write_pdf, footnote_mark
from andon.report.study.model import Cell, StudyTable
from andon.report.study.parts import Study

__all__ = ["render_page"]

_CONTENTS = (
    ("data", "Data"),
    ("detection", "Detection"),
    ("localisation", "Localisation"),
    ("cost", "Cost"),
    ("variants", "Variants"),
    ("suitability", "Suitability"),
    ("claims", "What the study says"),
    ("beyond", "Beyond the study"),
    ("experiments", "Experiments"),
)


@dataclass(frozen=True)
class _Experiment:
    """A line of the list of experiments."""

    id: str
    part: str
    dataset: str
    category: str
    label: str
    seed: int
    state: str
    facts: str


def render_page(study: Study, section: Section) -> str:
    """The page as text. It needs no network and can use none; given the same store it is the same, byte for byte."""
    environment = page_environment()
    environment.globals |= {"marks": _marks, "sources": _sources, "tip": _tip, "Markup": Markup}
    experiments = list(_experiments(study))
    return environment.get_template("study.html.j2").render(
        title=_title(study),
        contents=_CONTENTS,
        study=study,
        section=section,
        style=page_style("report.css", "study.css"),
        **page_script("study.js"),
        protocol=_protocol(study),
        warnings=list(_warnings(study)),
        verdicts=Counter(claim.verdict for claim in section.claims),
        experiments=experiments,
        pdf=can_write_pdf(),
        contradictions=published.CONTRADICTIONS,
        source=published.SOURCE,
        dashes=styles.DASHES,
    )


def _title(study: Study) -> str:
    part = study.part("study")
    plan = (part or next(iter(study.parts.values()))).plan.plan
    return plain(plan.content.title or plan.name)


def _protocol(study: Study) -> str:
    """The protocol in words."""
    p = study.protocol
    name = next((n for n, known in STUDY_PROTOCOLS.items() if known == p), "of its own")
    deviation = "population's" if p.ddof == 0 else "sample's"
    correction = "" if p.correction == "none" else f", {p.correction} correction"
    return (
        f"Protocol “{name}”: {deviation} standard deviation; Welch's test {p.alternative}{correction}, "
        f"{100 * p.alpha:g} %; "
        f"TPR at a TNR {'of at least the target' if p.tnr == 'at least' else 'nearest to the target'}; {p.ap} average "
        "precision."
    )


def _warnings(study: Study) -> Iterator[str]:
    """What holds for the whole page: what its methods are not."""
    for name, part in study.parts.items():
        if part.missing:
            yield f"{part.plan.shows}: not here, {part.missing}."
            continue
        failed = sum(len(results.failures) for results in part.datasets)
        pending = sum(r.pending for results in part.datasets for r in results.runs.values())
        if failed or pending:
            counts = [f"{failed} failed"] * bool(failed) + [f"{pending} not run"] * bool(pending)
            yield f"{part.plan.shows}: of the part {name} {' and '.join(counts)}."
    if not study.has_main:
        return
    columns = study.main.columns
    if not study.on_autovi:
        name = plain(study.main.name)
        yield f"The data set is {name}, not AutoVI: no figure of the study stands beside one of these."
    elif other := _other_counts(study):
        yield f"These are not the images that the study's Table 3 counts: {other}."
    weights = [c.label for c in columns if c.random_weights]
    if weights:
        yield f"Random weights, features not pretrained: {', '.join(weights)}."
    embedded = sorted({c.label for c in columns if "andon-features" in str(c.spec.config)})
    if embedded:
        yield f"Stand on the package's own small features, not on ImageNet's: {', '.join(embedded)}."
    other_configuration = [c.label for c in columns if not_comparable(c)]
    if other_configuration:
        yield f"Not the study's configurations (footnotes say what differs): {', '.join(other_configuration)}."
    short = [f"{c.label} {c.shortened}" for c in columns if c.shortened]
    if short:
        yield f"Trained for a part of the full length: {', '.join(short)}."


def _other_counts(study: Study) -> str:
    """Where AutoVI's categories have other numbers of test images than the study printed; "" where none has."""
    printed = {e.category: (e.good, e.defective) for e in published.AUTOVI_CATEGORIES}
    other = []
    for row in study.main.rows:
        records = [r for column in study.main.columns for r in study.main.get(row, column).records]
        if records and row.category in printed:
            image = records[0].evaluation.image
            good, defective = printed[row.category]
            if (image.n_good, image.n_defective) != (good, defective):
                other.append(f"{row.label} {image.n_good} + {image.n_defective} test images, not {good} + {defective}")
    return "; ".join(other)


def _marks(table: StudyTable) -> dict[str, str]:
    """Footnote marks by note."""
    return {note: footnote_mark(i) for i, note in enumerate(table.footnotes())}


def _tip(cell: Cell) -> str:
    """A cell's tooltip: what is to be known of it and its experiments."""
    shown = ", ".join(cell.ids[:12]) + (f" and {len(cell.ids) - 12} more" if len(cell.ids) > 12 else "")
    return "\n".join(t for t in (cell.tip, f"experiments: {shown}" if shown else "") if t)


def _sources(table: StudyTable) -> list[tuple[str, tuple[str, ...]]]:
    """The experiments behind each row of a table."""
    found: dict[str, dict[str, None]] = {}
    for row in table.rows:
        for cell in row.cells:
            found.setdefault(row.label, {}).update(dict.fromkeys(cell.ids))
    return [(label, tuple(ids)) for label, ids in found.items() if ids]


def _experiments(study: Study) -> Iterator[_Experiment]:
    seen: set[str] = set()
    for name, part in study.parts.items():
        for results in part.datasets:
            for row in results.rows:
                for column in results.columns:
                    runs = results.get(row, column)
                    for record in runs.records:
                        if record.id not in seen:
                            seen.add(record.id)
                            where = (name, plain(results.name), row.label, column.label)
                            yield _Experiment(record.id, *where, record.spec.seed, "finished", _facts(record))
                    for failure in runs.failures:
                        if failure.id not in seen:
                            seen.add(failure.id)
                            where = (name, plain(results.name), row.label, column.label)
                            reason = plain(failure.reason, 300)
                            yield _Experiment(failure.id, *where, failure.spec.seed, "failed", reason)


def _facts(record: ExperimentRecord) -> str:
    auroc = record.evaluation.image.auroc
    shown = "–" if auroc is None else f"{100 * auroc:.1f}"
    return f"AUROC {shown}, fit {record.fit_seconds.get('total', float('nan')):.1f} s"
