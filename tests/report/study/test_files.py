"""What is written: the page, LaTeX, figures, CSV, bibliography."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from andon.benchmark import published, study_protocol
from andon.core import ConfigError
from andon.report import write_study
from andon.report.study.formats import can_write_pdf, footnote_mark, standalone_svg, table_csv, to_latex
from andon.report.study.model import Block, Cell, StudyRow, StudyTable, missing_table
from tests.report.chromium import Page, executable
from tests.report.fake import FakeMethod
from tests.report.study.fake_study import FEW, FakeStudy, make_study

EVIL = "<script>alert(1)</script>\"'&_%{{7*7}}"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    extra = [FakeMethod("own", EVIL, 1.0), *(FakeMethod(f"m{i}", f"Researcher's method {i}", 1.0) for i in range(6))]
    return make_study(tmp_path_factory.mktemp("study"), small=FEW, run=("study", "table13", "figure5"), extra=extra)


@pytest.fixture(scope="module")
def folder(fake: FakeStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    stages: list[str] = []
    files = write_study(
        fake.store,
        fake.parts,
        out,
        protocol=study_protocol("paper"),
        progress=lambda stage, done, total: stages.append(stage),
    )
    assert files[0] == out / "index.html"
    assert sorted(files) == sorted(p for p in out.rglob("*") if p.is_file() and not p.name.startswith("."))
    assert {"reading", "late fusion", "writing"} <= set(stages)
    return out


def test_it_is_the_same_whenever_it_is_written(fake: FakeStudy, folder: Path, tmp_path: Path) -> None:
    write_study(fake.store, fake.parts, tmp_path, protocol=study_protocol("paper"))
    for path in folder.rglob("*"):
        # A PDF has the time of its making, and what is written down of the files has its digest.
        if path.is_file() and path.suffix != ".pdf" and not path.name.startswith("."):
            assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes(), path


def test_what_would_come_out_the_same_is_left_alone(fake: FakeStudy, tmp_path: Path) -> None:
    def stages() -> list[str]:
        told: list[str] = []
        files = write_study(
            fake.store,
            fake.parts,
            tmp_path,
            protocol=study_protocol("paper"),
            progress=lambda stage, done, total: told.append(stage),
        )
        assert len(files) > 20
        assert files[0] == tmp_path / "index.html"
        return told

    assert "writing" in stages()
    assert stages() == []
    page = tmp_path / "index.html"
    whole = page.read_bytes()
    page.write_bytes(whole[:-100])  # somebody's editor, or a full disk
    assert "writing" in stages()
    assert page.read_bytes() == whole
    (tmp_path / "tables.csv").unlink()
    assert "writing" in stages()
    (tmp_path / ".andon-pages.json").write_bytes(b"[1")
    assert "writing" in stages()
    assert stages() == []
    manifest = next(iter(sorted((fake.store.root / "experiments").glob("*/manifest.json"))))
    content = manifest.read_bytes()
    manifest.write_bytes(content + b"\n")  # the same to a reader, another one to a digest
    try:
        assert "writing" in stages()
    finally:
        manifest.write_bytes(content)


def test_no_name_becomes_markup(folder: Path) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    for path in (folder / "figures").glob("*.svg"):
        assert not [e for e in ET.parse(path).iter() if e.tag.endswith("script")], path


def test_figures_stand_alone(folder: Path) -> None:
    paths = sorted((folder / "figures").glob("*.svg"))
    assert {"figure-5", "cd-auroc", "cd-auspro", "pareto-speed", "pareto-training", "figure-2", "figure-3"} <= {
        p.stem for p in paths
    }
    for path in paths:
        root = ET.parse(path).getroot()
        text = path.read_text(encoding="utf-8")
        assert "var(" not in text
        assert "currentColor" not in text
        assert float(root.get("width", "0")) > 0, path
        assert not re.search(r'href="(?!data:)', text)


@pytest.mark.skipif(not can_write_pdf(), reason="needs andon[pdf]")
def test_every_figure_is_a_pdf_too(folder: Path) -> None:
    for path in (folder / "figures").glob("*.svg"):
        content = path.with_suffix(".pdf").read_bytes()
        assert content.startswith(b"%PDF")
        assert len(content) > 1000


def test_without_the_extra_there_is_no_pdf_and_the_page_says_so(
    fake: FakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("page", "write"):
        monkeypatch.setattr(f"andon.report.study.{module}.can_write_pdf", lambda: False)
    files = write_study(fake.store, fake.parts, tmp_path, protocol=study_protocol("paper"))
    assert not [f for f in files if f.suffix == ".pdf"]
    assert "andon[pdf]" in files[0].read_text(encoding="utf-8")


def _rows(tex: str) -> Iterator[tuple[int, list[str]]]:
    """(columns of the tabular, its lines)."""
    for found in re.finditer(r"\\begin\{tabularx?\}(?:\{\\linewidth\})?\{([lrX]+)\}(.*?)\\end\{tabularx?\}", tex, re.S):
        yield len(found[1]), [line for line in found[2].splitlines() if line.endswith(r"\\")]


def test_latex_has_as_many_cells_as_columns(folder: Path) -> None:
    paths = sorted((folder / "tables").glob("*.tex"))
    assert {f"table-{n}" for n in range(1, 15)} <= {p.stem for p in paths}
    for path in paths:
        tex = path.read_text(encoding="utf-8")
        if tex.startswith("%"):
            assert "not here" in tex
            assert tex.count("\n") == 1
            continue
        bare = re.sub(r"\\[{}&%$#_]", "", tex)
        assert bare.count("{") == bare.count("}")
        assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == len(list(_rows(tex)))
        for count, lines in _rows(tex):
            assert {line.replace(r"\&", "").count("&") for line in lines} == {count - 1}, path


def test_latex_of_a_table() -> None:
    row = StudyRow(
        "A_1", (Cell("88.4 ± 0.3", best=True, published="77.2 ± 0.3"), Cell("5", underlined=True)), ("n",), ("p",)
    )
    tex = to_latex(StudyTable("t", "50 %", (Block(("x", "y"), (row,)),), notes=("All.",)))
    assert r"\caption{50 \%}" in tex
    assert r"A\_1\textsuperscript{a} & \textbf{88.4 $\pm$ 0.3} & \underline{5} \\" in tex
    assert r"\quad\emph{published}\textsuperscript{b} & \emph{77.2 $\pm$ 0.3} &  \\" in tex
    assert r"All. \textsuperscript{a}~n \textsuperscript{b}~p" in tex
    assert to_latex(missing_table("t", "Title", "why", 11)) == "% Table 11: not here, why\n"


def test_footnotes_go_on_after_z() -> None:
    assert [footnote_mark(i) for i in (0, 25, 26, 27, 51, 52, 701, 702)] == [
        "a",
        "z",
        "aa",
        "ab",
        "az",
        "ba",
        "zz",
        "aaa",
    ]


def test_the_tables_csv_traces_every_figure_to_its_experiments(fake: FakeStudy, folder: Path) -> None:
    lines = list(csv.DictReader((folder / "tables.csv").read_text(encoding="utf-8").splitlines()))
    by_table: dict[str, list[dict[str, str]]] = {}
    for line in lines:
        by_table.setdefault(line["table"], []).append(line)
    for key in ("table-6", "table-7", "table-8", "table-9", "table-10", "table-13", "delong", "defect-types"):
        measured = [x for x in by_table[key] if x["value"] and not x["block"].startswith("Other data sets")]
        assert measured
        assert all(set(x["experiments"].split()) <= set(fake.store.ids()) and x["experiments"] for x in measured), key
    one = next(x for x in by_table["table-6"] if (x["row"], x["column"]) == ("PaDiM", "Clip"))
    arrays = [fake.store.arrays(i) for i in one["experiments"].split()]
    aurocs = [roc_auc_score(a.labels(), a.image_scores) for a in arrays]
    assert float(one["value"]) == pytest.approx(sum(aurocs) / len(aurocs))
    assert (one["published value"], one["published sd"]) == ("62.6", "2.0")
    assert len(by_table["claims"]) == 4 * len(published.CLAIMS)
    assert by_table["table-11"][0]["note"].startswith("not here: the plan")


def test_the_study_csv_has_every_run_once(fake: FakeStudy, folder: Path) -> None:
    lines = list(csv.DictReader(io.StringIO((folder / "study.csv").read_text(encoding="utf-8"))))
    ids = [line["experiment"] for line in lines if line["metric"] == "auroc"]
    assert len(ids) == len(set(ids))
    assert set(fake.store.ids()) <= set(ids)
    own = set(fake.store.ids())
    assert {line["method"] for line in lines if line["experiment"] not in own} == {"late-fusion"}


def test_a_spreadsheet_takes_no_name_for_a_formula() -> None:
    table = StudyTable("t", "T", (Block(("=x",), (StudyRow("@SUM(1)", (Cell("1"),)),)),))
    row = list(csv.reader(io.StringIO(table_csv([table]))))[1]
    assert "'@SUM(1)" in row
    assert "'=x" in row


def test_the_bibliography_has_every_method_of_the_study(folder: Path) -> None:
    text = (folder / "references.bib").read_text(encoding="utf-8")
    assert text.count("{") == text.count("}")
    keys = re.findall(r"^@\w+\{(\w+),$", text, re.M)
    assert len(keys) == len(set(keys))
    for method in published.METHODS:
        assert any(method in key for key in keys), method


def test_colours_of_a_drawing_that_stands_alone() -> None:
    svg = '<svg viewBox="0 0 10 20"><path style="stroke:var(--m1,#d55e00);fill:currentColor"/></svg>'
    assert standalone_svg(svg).splitlines()[1] == (
        '<svg width="10" height="20" viewBox="0 0 10 20"><path style="stroke:#d55e00;fill:#000"/></svg>'
    )


def test_a_place_that_cannot_be_written_is_named(fake: FakeStudy, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigError, match="out"):
        write_study(fake.store, fake.parts[:1], tmp_path / "out", protocol=study_protocol("paper"))


# In a browser


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(tmp_path_factory.mktemp("profile")) as opened:
        opened.open(folder / "index.html")
        yield opened


browser = [pytest.mark.browser, pytest.mark.skipif(executable() is None, reason="no Chromium here")]


def marked(function):  # type: ignore[no-untyped-def]
    for mark in browser:
        function = mark(function)
    return function


@marked
def test_the_page_loads_without_complaint_and_without_a_request(page: Page) -> None:
    assert [r for r in page.requests() if not r.startswith(("data:", "file:"))] == []
    assert page.complaints() == []


@marked
@pytest.mark.parametrize("width", [768, 1280])
def test_nothing_overflows_with_more_than_twelve_methods(page: Page, width: int) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    page.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.run("document.querySelectorAll('#table-6 tbody:not(.fused) tr').length") >= 14
    assert page.run("document.documentElement.scrollWidth") <= width
    wide = (
        "Array.from(document.querySelectorAll('.scroll')).filter(e => e.scrollWidth > e.clientWidth + 1)"
        ".map(e => e.getAttribute('aria-label'))"
    )
    assert page.run(wide) == []
    smallest = (
        "Math.min(...Array.from(document.querySelectorAll('main td, main th, main figcaption, main .notes'))"
        ".map(e => parseFloat(getComputedStyle(e).fontSize)))"
    )
    assert page.run(smallest) >= 11


@marked
def test_every_experiment_that_is_named_is_listed(page: Page) -> None:
    dangling = (
        "Array.from(document.querySelectorAll('a[href^=\"#x\"]')).filter(a => !document.querySelector(a.hash)).length"
    )
    assert page.run("document.querySelectorAll('a[href^=\"#x\"]').length") > 100
    assert page.run(dangling) == 0


@marked
def test_what_is_missing_says_why_on_the_page(page: Page) -> None:
    for key in ("table-11", "table-12", "figure-4"):
        assert "was not run in this store" in page.run(f"document.querySelector('#{key} .missing').textContent")
