"""Writing the study's results section: a folder with the page, LaTeX, figures, CSV and a bibliography."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

from andon.benchmark import Store, StudyPlan, StudyProtocol
from andon.core import ConfigError, ProgressCallback, no_progress
from andon.report.renderers import long_csv
from andon.report.results import DatasetResults, Results, Runs
from andon.report.study.assemble import Section, assemble
from andon.report.study.formats import can_write_pdf, standalone_svg, svg_to_pdf, table_csv, to_latex
from andon.report.study.page import render_page
from andon.report.study.parts import Study, read_study
from andon.report.study.samples import sheet_svg
from andon.report.study.stamp import pages_key, stamp_pages, stamped_pages
from andon.report.write import write_bytes

__all__ = ["write_study"]


def write_study(
    store: Store,
    parts: Sequence[StudyPlan],
    folder: Path,
    *,
    protocol: StudyProtocol,
    progress: ProgressCallback = no_progress,
    ensembles: Sequence[Sequence[str]] | None = None,
    public_datasets: Mapping[str, str | Path] | None = None,
) -> list[Path]:
    """Writes the results section of a study from what a store has of it.

    ``index.html`` is the whole of it, for a browser. Beside it: ``tables/*.tex``, ``figures/*.svg`` (and ``*.pdf``
    with ``andon[pdf]``), ``tables.csv`` (every cell), ``study.csv`` (every figure of every run) and
    ``references.bib``. What is not in the store is not left out: its place says why.

    Args:
        store: the benchmark's.
        parts: of the study (``andon.benchmark.study_plans``).
        folder: gets the files; those of an earlier report are replaced.
        protocol: how figures are read.
        progress: stages "reading", "late fusion", "intervals: …", "writing".
        ensembles: labels of the members of each late fusion; None for those of a rule that no result enters.
        public_datasets: folders of data sets of Table 1 by name, for Figure 1.

    A second call that would write the same does nothing: ``stamp.py`` says when that is known.

    Returns:
        The files.

    Raises:
        StoreError: the store has no result of any part.
        ConfigError: no parts, an ensemble of an unknown method, or a file cannot be written.
    """
    if not parts:
        raise ConfigError("no parts of the study were given; see andon.benchmark.study_plans")
    folder = Path(folder)
    # With a key, files that are there already and would come out the same are left alone.
    usual = ensembles is None and not public_datasets
    key = pages_key(store, parts, protocol) if usual else None
    there = None if key is None else stamped_pages(folder, key)
    if there is not None:
        return there
    study = read_study(store, parts, protocol, ensembles, progress)
    section = assemble(study, public_datasets or {}, progress)
    files: list[Path] = []
    contents = list(_contents(study, section))
    for number, (name, content) in enumerate(contents):
        progress("writing", number, len(contents))
        files.append(write_bytes(folder / name, content))
    if key is not None:
        stamp_pages(folder, key, files)
    progress("writing", len(contents), len(contents))
    return files


def _contents(study: Study, section: Section) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files, the page first."""
    yield "index.html", render_page(study, section).encode("utf-8", "replace")
    for table in section.tables:
        yield f"tables/{table.key}.tex", to_latex(table).encode("utf-8", "replace")
    drawings = [(figure.key, figure.svg) for figure in section.figures if not figure.missing]
    drawings += [(sheet.key, sheet_svg(sheet)) for sheet in section.sheets if not sheet.missing]
    for key, svg in drawings:
        alone = standalone_svg(svg)
        yield f"figures/{key}.svg", alone.encode("utf-8", "replace")
        if can_write_pdf():
            yield f"figures/{key}.pdf", svg_to_pdf(alone)
    yield "tables.csv", table_csv(section.tables).encode("utf-8", "replace")
    yield "study.csv", _every_run(study).encode("utf-8", "replace")
    yield "references.bib", resources.files("andon.report.study").joinpath("references.bib").read_bytes()


def _every_run(study: Study) -> str:
    """Every figure of every run of every part, each experiment once; ensembles last."""
    seen: set[str] = set()
    out = io.StringIO()
    everything = [results for part in study.parts.values() for results in part.datasets]
    if study.fused is not None:
        everything.append(study.fused)
    for number, results in enumerate(everything):
        lines = long_csv(Results((_unseen(results, seen),))).splitlines(keepends=True)
        out.writelines(lines if number == 0 else lines[1:])
    return out.getvalue()


def _unseen(results: DatasetResults, seen: set[str]) -> DatasetResults:
    """The results without experiments that another part has, too."""
    runs = {}
    for key, found in results.runs.items():
        records = tuple(r for r in found.records if r.id not in seen)
        failures = tuple(f for f in found.failures if f.id not in seen)
        runs[key] = Runs(records, failures)
        seen.update([r.id for r in records], [f.id for f in failures])
    return DatasetResults(results.name, results.rows, results.columns, runs)
