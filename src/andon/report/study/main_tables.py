"""Tables 6 to 10, and section 5's extremes of single runs."""

from __future__ import annotations

from dataclasses import replace

from andon.benchmark import ExperimentRecord, published
from andon.report.cells import mean_cell, measured_cell, not_comparable
from andon.report.metrics import Metric, auspro
from andon.report.results import Column
from andon.report.study.measured import cell_of, column_notes, metric_block, published_of, short
from andon.report.study.model import Block, Cell, StudyRow, StudyTable, folded, missing_table
from andon.report.study.parts import Study, experiment_ids
from andon.report.tables import primary_limit

__all__ = ["comparable_methods", "main_tables"]

_MEAN = "Mean ± standard deviation over the runs; Mean column: over the categories."


def main_tables(study: Study) -> list[StudyTable]:
    """Tables 6 to 10 and the extremes; each says why where it is not there."""
    limit = _limit(study)
    titles = {
        6: ("table-6", "Detection: AUROC (%)"),
        7: ("table-7", "Detection: average precision (%)"),
        8: ("table-8", "Defective images found (TPR, %) where 99, 95 and 90 % of the good ones pass"),
        9: ("table-9", f"Localisation: AUsPRO to a pixel FPR of {limit:g} (%)"),
        10: ("table-10", "Training time, speed at evaluation, memory"),
    }
    if why := study.missing("study"):
        extremes = missing_table("extremes", "Lowest and highest run", why)
        return [*(missing_table(key, title, why, n) for n, (key, title) in titles.items()), extremes]
    metrics = study.metrics
    tables = [
        _table(6, *titles[6], [(metrics["auroc"], "")], study),
        _table(7, *titles[7], [(metrics["ap"], "")], study),
        _table(8, *titles[8], [(metrics[f"tpr_at_tnr_{p}"], f"TNR {p} %") for p in ("99", "95", "90")], study),
        _table(9, *titles[9], [(auspro(limit), "")], study),
        _times(study, *titles[10]),
        _extremes(study, limit),
    ]
    literature = _literature(study)
    tables[0] = replace(
        tables[0],
        blocks=(*tables[0].blocks, literature),
        notes=(*tables[0].notes, "AUROCs on other data sets: as the study quotes them in Table 2; not measured here."),
    )
    tnr = "a TNR of at least the target" if study.protocol.tnr == "at least" else "the TNR nearest to the target"
    tables[2] = replace(
        tables[2], notes=(*tables[2].notes, f"Thresholds are set on the test set's own good images: {tnr}.")
    )
    tables[1] = replace(tables[1], notes=(*tables[1].notes, f"Average precision: {study.protocol.ap}."))
    return tables


def _limit(study: Study) -> float:
    return primary_limit(study.main) if study.has_main else 0.05


def _table(number: int, key: str, title: str, metrics: list[tuple[Metric, str]], study: Study) -> StudyTable:
    blocks = [block for metric, name in metrics for block in folded(metric_block(study, metric, name))]
    return StudyTable(key, title, tuple(blocks), number, notes=_notes(study, blocks))


def _notes(study: Study, blocks: list[Block]) -> tuple[str, ...]:
    cells = [cell for block in blocks for row in block.rows for cell in row.cells]
    notes = [_MEAN] if any(cell.sd is not None for cell in cells) else []
    if any(cell.best for cell in cells):
        p = study.protocol
        words = [p.alternative, *([p.correction] if p.correction != "none" else ["uncorrected"])]
        notes.append(
            f"Bold: the best mean of a column and all that do not differ from it (Welch's t-test, {100 * p.alpha:g} %, "
            f"{', '.join(words)})."
        )
    if any(cell.published for cell in cells):
        notes.append(f"Italic: published, {published.SOURCE}, mean ± standard deviation of {published.RUNS} runs.")
    elif not study.on_autovi:
        notes.append(f"No published figures: they are AutoVI's, this is {study.main.name}.")
    exact = [c.label for c in study.main.columns if any(study.main.get(r, c).exact for r in study.main.rows)]
    if exact:
        notes.append(f"Not dependent on the seed, so one run stands for all: {', '.join(exact)}.")
    if any("/" in cell.mark for cell in cells):
        notes.append("k/n: only k of the n planned runs (or tasks) have the figure.")
    if any(row.kind == "fused" for block in blocks for row in block.rows):
        notes += study.fusion_rule
    if study.main.skipped:
        notes.append(f"Run without unreadable images (skip_bad): {study.main.skipped}.")
    return tuple(notes)


def _literature(study: Study) -> Block:
    """The last three rows of Table 6: what the study quotes of other data sets."""
    rows = []
    for column in study.main.columns:
        cells = []
        for name in published.LITERATURE_DATASETS:
            found = published.literature_figure(column.method, name)
            cells.append(
                Cell("–", muted=True, tip="the study quotes none")
                if found is None
                else Cell(f"{found.auroc:.1f}{'*' if found.asterisk else ''}", found.auroc / 100, tip=found.source)
            )
        if any(cell.value is not None for cell in cells):
            rows.append(StudyRow(column.label, tuple(cells)))
    return Block(published.LITERATURE_DATASETS, tuple(rows), "Other data sets, as quoted (* Papers with Code)")


def _times(study: Study, key: str, title: str) -> StudyTable:
    """Table 10: over all categories, then training by category."""
    results = study.main
    metrics = [study.metrics[name] for name in ("training_seconds", "images_per_second", "peak_memory_mb")]
    rows = []
    for column in results.columns:
        cells = [_time_cell(study, metric, column) for metric in metrics]
        different = published.quantity_differences("training_seconds", column.method)
        printed = different if cells[0].published else ()
        rows.append(StudyRow(column.label, tuple(cells), column_notes(study, column), printed))
    blocks = [Block(("Training (s)", "Images per second", "Peak memory (MiB)"), tuple(rows), "Over the categories")]
    blocks += folded(metric_block(study, metrics[0], "Training by category (s)", fused=False))
    notes = [
        "Mean ± standard deviation over the categories; by category over the runs. Training: whole fits that computed "
        "their own features (“cached”: none did). Speed: from file to score, without any cache, in the runs that "
        "measured it. Memory: the experiment's process.",
        f"Measured on: {'; '.join(dict.fromkeys(_machine(r) for r in results.records))}.",
    ]
    if any(row.has_published for row in rows):
        notes.append(f"Italic: published, {published.SOURCE}; images per second are not in its open text.")
    return StudyTable(key, title, tuple(blocks), 10, notes=tuple(notes))


def _machine(record: ExperimentRecord) -> str:
    h = record.hardware
    return f"{h.cpu}, {h.cores} cores, {h.threads} threads" + ("" if h.device == "cpu" else f", {h.device}")


def _time_cell(study: Study, metric: Metric, column: Column) -> Cell:
    results, printed = study.main, published_of(study, metric)
    runs = [results.get(row, column) for row in results.rows]
    cells = [measured_cell(metric, r, None, study.protocol) for r in runs]
    if len(results.rows) == 1:
        return cell_of(replace(cells[0], published=printed(column, None)), metric, runs)
    return cell_of(mean_cell(metric, cells, runs, printed(column, None), study.protocol)[0], metric, runs)


def _extremes(study: Study, limit: float) -> StudyTable:
    """Section 5: a method's lowest and highest run of a category."""
    results = study.main
    blocks: list[Block] = []
    for metric in (study.metrics["auroc"], study.metrics["ap"], auspro(limit)):
        rows = []
        for column in results.columns:
            cells = []
            for row in results.rows:
                runs = results.get(row, column)
                values = [v for v in runs.values(metric.read).values() if v is not None]
                if not values:
                    cells.append(Cell("–", muted=True, tip=measured_cell(metric, runs).reason))
                    continue
                low, high = metric.format(min(values)), metric.format(max(values))
                text = low if len(values) == 1 else f"{low} – {high}"
                cells.append(Cell(text, min(values), n=len(values), ids=experiment_ids([runs])))
            rows.append(StudyRow(column.label, tuple(cells), column_notes(study, column, compared=False)))
        columns = tuple(short(row.label) for row in results.rows)
        blocks += folded(Block(columns, tuple(rows), metric.title))
    note = "Lowest – highest figure of the runs (%); a single figure where there is one run."
    return StudyTable("extremes", "Single runs: lowest and highest (%)", tuple(blocks), notes=(note,))


def comparable_methods(study: Study) -> frozenset[str]:
    """Methods of the study that are configured as there, on its data set."""
    if not study.has_main or not study.on_autovi:
        return frozenset()
    return frozenset(c.method for c in study.main.columns if c.method in published.METHODS and not not_comparable(c))
