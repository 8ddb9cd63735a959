"""Tables as text: what a reader of each format gets back."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.benchmark.statistics import Summary
from andon.benchmark.store import Store
from andon.report.metrics import Metric, image_metrics, long_values
from andon.report.renderers import long_csv, to_csv, to_latex, to_markdown, to_text
from andon.report.results import collect, plain
from andon.report.tables import RowGroup, Table, TableCell, TableRow, make_tables
from tests.report.fake import METHODS, FakeMethod, fill

NASTY = 'a|b & <script>alert(1)</script> $x_1^2$ #%~{\\} "q" [l](u) *s* `c`'


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    study = FakeMethod("patchcore", "Patchcore", 2.5, preset="study")
    methods = (
        study,
        *METHODS[1:],
        FakeMethod("draem", "Broken", fails=frozenset({("tank_screw", s) for s in range(3)})),
    )
    root = tmp_path_factory.mktemp("store") / "s"
    return fill(root, methods=methods, categories=("tank_screw", "pipe_clip"), dataset="autovi", gallery=False)


def small(label: str = "washer", column: str = "Method", cell: TableCell | None = None) -> Table:
    cell = cell or TableCell("88.4 ± 0.3", summary=Summary(3, 0.884, 9e-6), best=True)
    return Table(
        "auroc", "AUROC (%)", label, (column,), (RowGroup(image_metrics()["auroc"], (TableRow(label, (cell,)),)),)
    )


def test_terminal_shows_figures_best_marks_and_published_rows(store: Store) -> None:
    text = to_text(make_tables(store)[0])
    lines = [line for line in text.splitlines() if line.strip().startswith(("tank_screw", "published"))]
    assert re.search(r"\d\d\.\d ± \d\.\d \*", lines[0])
    assert "failed" in lines[0]
    assert "89.3 ± 0.7" in lines[1]
    assert "\x1b" not in text


def wide(columns: int, label: str = "tank_screw") -> Table:
    """A table of many methods with long names, in two groups."""
    names = tuple(f"Patchcore backbone=resnet{index}, coreset_ratio=0.25" for index in range(columns))
    cells = tuple(TableCell(f"{100 - index / 10:.1f} ± 0.3") for index in range(columns))
    metrics = image_metrics()
    rows = (TableRow(label, cells), TableRow("Mean", cells, is_mean=True))
    return Table(
        "auroc", "AUROC (%)", "autovi", names, (RowGroup(metrics["auroc"], rows), RowGroup(metrics["ap"], rows))
    )


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200, 1000])
@pytest.mark.parametrize("label", ["tank_screw", "x" * 200])
def test_a_terminal_of_any_width_shows_every_figure_and_name(width: int, label: str) -> None:
    table = wide(12, label)
    text = to_text(table, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for cell in table.groups[0].rows[0].cells:
        assert text.count(cell.text) == 4, "whole, once a row"
    letters = "".join(text.split())
    for index in range(12):
        assert f"backbone=resnet{index}," in letters
    assert text.count("x") >= (400 if len(label) == 200 else 0)


def test_columns_that_find_no_room_follow_below_under_the_same_rows() -> None:
    text = to_text(wide(12), 80)
    assert text.count("Mean") % 2 == 0
    assert text.count("Mean") > 2
    assert text.count("AUROC (%)\n") == 1, "one title"


def test_into_a_file_a_table_is_as_wide_as_it_needs_to_be() -> None:
    lines = to_text(wide(12)).splitlines()
    assert sum(line.startswith("Mean") for line in lines) == 2
    assert max(map(len, lines)) > 500


def test_markdown_has_as_many_cells_in_every_line(store: Store) -> None:
    for table in make_tables(store):
        lines = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
        bars = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert bars == {len(table.columns) + 2}


def test_markdown_escapes_names() -> None:
    text = to_markdown(small(NASTY, NASTY))
    assert "<script>" not in text
    row = text.splitlines()[4]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    assert r"\*s\*" in row
    assert "**88.4 ± 0.3**" in row


def test_latex_is_balanced_and_escaped() -> None:
    text = to_latex(small(NASTY, NASTY))
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert r"a\textbar{}b \& \textless{}script\textgreater{}" in body
    assert r"\textbf{88.4 $\pm$ 0.3}" in body
    unescaped = re.sub(r"\\[&%$#_{}\\]", "", body.replace(r"$\pm$", ""))
    assert not re.search(r"[%$#_~^]", unescaped)
    assert unescaped.count("&") == 1
    assert unescaped.count("{") == unescaped.count("}")
    assert text.count(r"\begin{") == text.count(r"\end{")


def test_latex_compiles(store: Store, tmp_path: Path) -> None:
    program = shutil.which("pdflatex") or shutil.which("tectonic")
    if program is None:
        pytest.skip("no LaTeX here")
    tables = "\n".join(to_latex(t) for t in [*make_tables(store), small(NASTY, NASTY)])
    source = tmp_path / "t.tex"
    source.write_text(
        r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}\usepackage{booktabs}"
        rf"\begin{{document}}{tables}\end{{document}}",
        encoding="utf-8",
    )
    subprocess.run([program, "-interaction=nonstopmode", source.name], cwd=tmp_path, check=True, capture_output=True)


def test_the_wide_csv_holds_unrounded_fractions(store: Store) -> None:
    table = make_tables(store)[0]
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    first = table.groups[0].rows[0]
    for label, cell in zip(table.columns, first.cells, strict=True):
        assert cell.status == lines[0][f"{label}: status"]
        if cell.summary is not None:
            assert float(lines[0][f"{label}: mean"]) == cell.summary.mean
            assert int(lines[0][f"{label}: runs"]) == cell.summary.n
    assert float(lines[0]["Patchcore: published mean"]) == pytest.approx(0.893)
    assert {len(row) for row in csv.reader(io.StringIO(to_csv(table)))} == {4 + 7 * len(table.columns)}


def test_the_long_csv_holds_every_figure_of_every_run(store: Store) -> None:
    lines = list(csv.DictReader(io.StringIO(long_csv(collect(store)))))
    by_key = {(line["experiment"], line["metric"]): line for line in lines}
    assert len(by_key) == len(lines)
    for record in store.records():
        for metric, unit, value in long_values(record):
            line = by_key[record.id, metric]
            assert line["unit"] == unit
            assert (line["value"] == "") if value is None else (float(line["value"]) == value)
            assert line["label"] == record.spec.label
    failed = [line for line in lines if line["status"] == "failed"]
    assert {line["experiment"] for line in failed} == {f.id for f in store.failures()}
    assert len(failed) == 3


def test_names_that_a_spreadsheet_would_run_are_quoted() -> None:
    rows = list(csv.reader(io.StringIO(to_csv(small('=HYPERLINK("x")', "@SUM(1)")))))
    assert rows[1][0] == rows[1][3] == '\'=HYPERLINK("x")'
    assert rows[0][4] == "'@SUM(1): mean"


def test_terminal_names_cannot_send_commands() -> None:
    name = plain("\x1b[31mred\x07[bold]x[/bold]\u202e")
    text = to_text(small(name, name))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]x[/bold]" in text


@given(st.text(max_size=300))
@settings(max_examples=60, deadline=None)
def test_plain_text_is_short_printable_and_can_be_written(text: str) -> None:
    clean = plain(text)
    assert len(clean) <= 200
    assert len(clean.splitlines()) <= 1
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in clean)
    clean.encode("utf-8")
    assert plain(clean) == clean


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=40, deadline=None)
def test_every_renderer_keeps_its_shape_whatever_the_names(label: str, column: str) -> None:
    table = small(plain(label), plain(column))
    lines = [line for line in to_markdown(table).split("\n") if line.startswith("|")]
    assert len(lines) == 3
    assert len(list(csv.reader(io.StringIO(to_csv(table))))) == 2
    assert to_latex(table).count("\\\\\n") == 2
    assert "88.4" in to_text(table)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("%", 0.88449, "88.4"),
        ("%", 1.0, "100.0"),
        ("s", 4.256, "4.26"),
        ("s", 42.56, "42.6"),
        ("s", 15954.2, "15,954"),
        ("MiB", 5.0, "5.0"),
        ("score", 0.000123456, "0.0001235"),
    ],
)
def test_figures_have_the_digits_of_their_size(unit: str, value: float, text: str) -> None:
    assert Metric("m", "M", lambda r: None, unit).format(value) == text  # type: ignore[arg-type]


def test_a_deviation_has_the_digits_of_its_mean() -> None:
    metric = Metric("m", "M", lambda r: None, "s")
    assert metric.format_summary(Summary(2, 120.0, 8.0)) == "120 ± 2"
    assert metric.format_summary(Summary(2, 5.0, 0.02)) == "5.00 ± 0.10"
    assert metric.format_summary(Summary(0, None, None)) == "–"
