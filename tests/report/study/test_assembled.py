"""The assembled tables: known answers from the runs behind them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from andon.benchmark import published, rank_methods, study_protocol
from andon.benchmark.record import ExperimentRecord
from andon.core import ConfigError, StoreError, no_progress
from andon.report import write_study
from andon.report.study.assemble import Section, assemble
from andon.report.study.beyond import operating_cell
from andon.report.study.drawings import difference_svg
from andon.report.study.model import Block, Cell, StudyRow, StudyTable, folded
from andon.report.study.parts import Study, read_study
from tests.report.study.fake_study import FEW, FakeStudy, make_study

CLIP, SCREW, MEAN = "Clip", "T. screw", "Mean"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), small=FEW)


@pytest.fixture(scope="module")
def study(fake: FakeStudy) -> Study:
    return read_study(fake.store, fake.parts, study_protocol("paper"), None, no_progress)


@pytest.fixture(scope="module")
def section(study: Study) -> Section:
    return assemble(study, {}, no_progress)


def cell(table: StudyTable, row: str, column: str, block: int = 0) -> Cell:
    found = table.blocks[block]
    return next(r for r in found.rows if r.label == row).cells[found.columns.index(column)]


def runs(fake: FakeStudy, method: str, category: str, part: str = "study") -> list[ExperimentRecord]:
    """The part's own runs of a method on all images, as they are."""
    plan = next(p for p in fake.parts if p.part == part)
    stored = fake.store.plan(plan.name)
    assert stored is not None
    return [
        fake.store.record(s.id)
        for s in stored.specs
        if s.method == method
        and s.category == category
        and s.protocol.shots is None
        and s.protocol.augmentation is None
    ]


def aurocs(fake: FakeStudy, method: str, category: str, part: str = "study") -> np.ndarray:  # type: ignore[type-arg]
    scores = [fake.store.arrays(r.id) for r in runs(fake, method, category, part)]
    return np.asarray([100 * roc_auc_score(a.labels(), a.image_scores) for a in scores])


def test_every_table_and_figure_of_the_study_is_there(section: Section) -> None:
    assert {t.number for t in section.tables if t.number and not t.missing} == set(range(1, 15))
    sheets = {s.key for s in section.sheets if not s.missing}
    drawn = {f.key for f in section.figures if not f.missing}
    assert {f"figure-{n}" for n in range(1, 6)} <= sheets | drawn
    assert {"cd-auroc", "cd-auspro", "pareto-speed", "pareto-training"} <= drawn


def test_table_6_is_mean_and_population_deviation_of_the_runs(fake: FakeStudy, section: Section) -> None:
    table = section.table("table-6")
    for method, label in (("padim", "PaDiM"), ("draem", "DRAEM")):
        clip, screw = aurocs(fake, method, "pipe_clip"), aurocs(fake, method, "tank_screw")
        assert cell(table, label, CLIP).text == f"{clip.mean():.1f} ± {clip.std():.1f}"
        means = np.asarray([clip.mean(), screw.mean()])
        assert cell(table, label, MEAN).text == f"{means.mean():.1f} ± {means.std():.1f}"
        assert cell(table, label, CLIP).ids == tuple(r.id for r in runs(fake, method, "pipe_clip"))


def test_the_best_of_a_column_are_those_of_scipys_welch_test(fake: FakeStudy, section: Section) -> None:
    table = section.table("table-9")
    methods = {"CFlow": "cflow", "DRAEM": "draem", "DSR": "dsr", "EfficientAD": "efficientad", "PaDiM": "padim"}
    methods |= {"Patchcore": "patchcore"}

    def auspros(method: str) -> list[float]:
        found = [r.evaluation.localisation for r in runs(fake, method, "pipe_clip")]
        return [m.auspro[0.05] for m in found if m is not None]

    values = {label: auspros(method) for label, method in methods.items()}
    leader = max(values, key=lambda label: float(np.mean(values[label])))
    expected = {
        label
        for label, own in values.items()
        if label == leader or stats.ttest_ind(values[leader], own, equal_var=False).pvalue >= 0.05
    }
    assert {label for label in methods if cell(table, label, CLIP).best} == expected


def test_published_figures_stand_beside_the_study_s_configurations(section: Section) -> None:
    assert cell(section.table("table-6"), "Patchcore", SCREW).published == "89.3 ± 0.7"
    assert cell(section.table("table-7"), "DSR", CLIP).published == "69.3 ± 6.8"
    assert cell(section.table("table-8"), "Patchcore", CLIP, 1).published == "4.9 ± 0.0"
    assert cell(section.table("table-10"), "PaDiM", "Training (s)").published == "15 ± 2"
    assert cell(section.table("table-13"), "EfficientAD, extra norm.", CLIP).published == "79.5 ± 1.5"
    assert not section.table("table-6").blocks[0].rows[0].has_published  # the trivial floor is not the study's
    row = next(r for r in section.table("table-8").blocks[1].rows if r.label == "Patchcore")
    assert any("7/141" in note for note in row.published_notes)
    assert any("clips" in note for note in row.published_notes)


def test_other_configurations_are_labelled_and_not_compared(tmp_path: object) -> None:
    root = tmp_path
    fake = make_study(root, run=("study",), seeds=2, random=("padim",))  # type: ignore[arg-type]
    study = read_study(fake.store, fake.parts, study_protocol("paper"), None, no_progress)
    section = assemble(study, {}, no_progress)
    rows = {row.label: row for row in section.table("table-6").blocks[0].rows}
    assert any("Not compared" in n and "random weights" in n for n in rows["PaDiM"].notes)
    assert any("Not compared" in n and "budget" in n for n in rows["DRAEM"].notes)
    assert rows["Patchcore"].has_published
    assert not rows["PaDiM"].has_published
    assert not rows["DRAEM"].has_published
    verdicts = {c.check.claim.method: c.verdict for c in section.claims if c.check.claim.statistic == "maximum"}
    assert verdicts["cflow"] == "not compared"
    for key in ("table-11", "table-12", "table-13"):
        assert "was not run in this store" in section.table(key).missing
    assert "was not run" in next(f for f in section.figures if f.key == "figure-5").missing


def test_table_6_quotes_the_other_data_sets(section: Section) -> None:
    table = section.table("table-6")
    last = len(table.blocks) - 1
    assert cell(table, "EfficientAD", "MVTec LOCO", last).text == "90.7"
    assert cell(table, "CFlow", "VisA", last).text == "91.5*"
    assert cell(table, "PaDiM", "VisA", last).text == "–"


def test_extremes_are_the_lowest_and_highest_run(fake: FakeStudy, section: Section) -> None:
    values = aurocs(fake, "cflow", "pipe_clip")
    expected = f"{values.min():.1f} – {values.max():.1f}"
    assert cell(section.table("extremes"), "CFlow", CLIP).text == expected


def test_table_10_is_over_the_categories_and_names_the_machine(fake: FakeStudy, section: Section) -> None:
    times = [np.mean([r.fit_seconds["total"] for r in runs(fake, "dsr", c)]) for c in ("pipe_clip", "tank_screw")]
    found = cell(section.table("table-10"), "DSR", "Training (s)")
    assert found.value == pytest.approx(np.mean(times))
    assert found.sd == pytest.approx(np.std(times))
    assert any("Example CPU" in note for note in section.table("table-10").notes)
    assert cell(section.table("table-10"), "DSR", "Peak memory (MiB)").value is not None


def test_table_11_underlines_what_is_above_the_same_method_without(fake: FakeStudy, section: Section) -> None:
    table = section.table("table-11")
    plan = next(p for p in fake.parts if p.part == "table11")
    stored = fake.store.plan(plan.name)
    assert stored is not None
    augmented = [s for s in stored.specs if s.method == "dsr" and s.category == "pipe_clip" and s.protocol.augmentation]
    arrays = [fake.store.arrays(s.id) for s in augmented]
    values = np.asarray([100 * roc_auc_score(a.labels(), a.image_scores) for a in arrays])
    without = aurocs(fake, "dsr", "pipe_clip", "table11").mean()
    mean, area = cell(table, "DSR", CLIP), cell(table, "DSR", CLIP, 1)
    assert mean.text == f"{values.mean():.1f} ± {values.std():.1f}"
    # Averaging vertically is linear: the area under the averaged curve is the mean of the areas.
    assert area.value == pytest.approx(values.mean() / 100)
    assert mean.underlined == area.underlined == (values.mean() > without)
    assert mean.published == "70.6 ± 7.4"
    assert {s.id for s in augmented} < set(mean.ids)


def test_table_12_has_a_column_a_window_and_the_printed_figure(section: Section) -> None:
    table = section.table("table-12")
    heads = {block.title: block.columns for block in table.blocks}
    assert heads[CLIP] == ("200×200", "400×400", "600×600")
    assert heads["Wiring"] == ("400×400", "400×480", "640×480")
    block = [b.title for b in table.blocks].index(CLIP)
    assert cell(table, "EfficientAD", "600×600", block).published == "58.8 ± 1.0"


def test_table_14_follows_the_rule(fake: FakeStudy, section: Section) -> None:
    mean = (aurocs(fake, "dsr", "pipe_clip").mean() + aurocs(fake, "dsr", "tank_screw").mean()) / 2
    found = cell(section.table("table-14"), "DSR", "Small defects")
    assert found.text == f"{'✓' if mean >= 80 else '·'} {mean:.1f}"
    assert found.published == "·"
    assert cell(section.table("table-14"), "DSR", "Logical defects").text == "–"


def test_figure_5_has_the_runs_of_every_size(fake: FakeStudy, section: Section) -> None:
    (figure,) = section.figures_of("figure-5")
    stored = fake.store.plan(next(p for p in fake.parts if p.part == "figure5").name)
    assert stored is not None
    assert set(figure.ids) == {s.id for s in stored.specs}
    assert all(f">{text}<" in figure.svg for text in ("1", "4", "all", CLIP, SCREW))


@pytest.mark.parametrize("name", ["paper", "released-code"])
def test_the_protocol_decides_how_figures_are_read(fake: FakeStudy, name: str) -> None:
    study = read_study(fake.store, fake.parts, study_protocol(name), [], no_progress)
    record = runs(fake, "padim", "pipe_clip")[0]
    arrays = fake.store.arrays(record.id)
    read = study.metrics["ap"].read
    step = average_precision_score(arrays.labels(), arrays.image_scores)
    found = read(record)
    assert found is not None
    assert (found == pytest.approx(step)) == (name == "paper")
    expected = study.protocol.tpr_at_tnr(arrays.image_scores, arrays.labels(), 0.9)
    assert study.metrics["tpr_at_tnr_90"].read(record) == expected


def test_claims_hold_their_own_figure_against_the_study_s(fake: FakeStudy, section: Section) -> None:
    best = next(c for c in section.claims if c.check.claim.text.startswith("CFlow's best run"))
    # The claim is about a category that was not run.
    assert (best.says, best.here, best.verdict) == ("87.8 %", "–", "no figure")
    assert "underbody_pipes" in best.reason
    screw = next(c for c in section.claims if c.check.claim.text == "PaDiM's mean AUROC on tank_screw is at 50 %")
    assert screw.here == f"{aurocs(fake, 'padim', 'tank_screw').mean():.1f} %"
    assert set(screw.ids) == {r.id for r in runs(fake, "padim", "tank_screw")}
    assert len(section.claims) == len(published.CLAIMS)


def test_the_operating_point_s_interval_is_that_of_the_beta_quantiles(fake: FakeStudy, section: Section) -> None:
    record = runs(fake, "padim", "pipe_clip")[0]
    point = next(p for p in record.evaluation.operating_points if p.source == "train good" and p.target_tnr == 0.95)
    assert point.fnr is not None
    n = record.evaluation.image.n_defective
    k = round(point.fnr * n)
    low = 0.0 if k == 0 else stats.beta.ppf(0.025, k, n - k + 1)
    high = 1.0 if k == n else stats.beta.ppf(0.975, k + 1, n - k)
    found = operating_cell(record, 0.95, "fnr")
    assert found.text == f"{100 * k / n:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    table = section.table("operating-point")
    block = [b.title for b in table.blocks].index("FNR (%), threshold for a TNR of 95 %")
    assert cell(table, "PaDiM", CLIP, block) == found
    assert any("CFlow" in note for note in table.notes)  # it has no held-out images
    assert operating_cell(None, 0.95, "fnr").muted


def test_intervals_say_where_they_say_nothing(section: Section) -> None:
    for key in ("delong", "bootstrap"):
        cells = [c for row in section.table(key).rows for c in row.cells]
        assert cells
        for found in cells:
            if found.mark == "no interval":
                assert "[" not in found.text
            elif found.value is not None:
                low, high = (float(x) for x in found.text.partition("[")[2].rstrip("]").split(","))
                assert low <= 100 * found.value + 0.05
                assert 100 * found.value <= high + 0.05


def test_ranks_are_scipy_s(fake: FakeStudy, section: Section) -> None:
    methods = {"Thumbnail NN": "thumbnail-nn", "CFlow": "cflow", "DRAEM": "draem", "DSR": "dsr", "PaDiM": "padim"}
    methods |= {"EfficientAD": "efficientad", "Patchcore": "patchcore"}
    table = [[aurocs(fake, m, c).mean() for m in methods.values()] for c in ("pipe_clip", "tank_screw")]
    ranks = np.mean([stats.rankdata(-np.asarray(row)) for row in table], axis=0)
    found = {row.label.partition(". ")[2]: row.cells[0].value for row in section.table("ranks").blocks[0].rows}
    assert found == pytest.approx(dict(zip(methods, ranks, strict=True)))


def test_late_fusion_is_set_apart_and_takes_no_part_in_the_best(section: Section) -> None:
    table = section.table("table-6")
    (row,) = [row for row in table.blocks[0].rows if row.kind == "fused"]
    assert row.label == "PaDiM + Patchcore"
    assert not any(c.best for c in row.cells)
    assert len(row.cells[0].ids) == 6  # three seeds of two members
    assert any("chosen by no result" in note for note in table.notes)


def test_defect_types_are_columns_with_their_counts(section: Section) -> None:
    block = next(b for b in section.table("defect-types").blocks if b.title == "Clip: AUROC")
    assert block.columns == ("dent (1)", "scratch (3)")


def test_the_data_set_s_counts_are_those_of_the_store(section: Section) -> None:
    table = section.table("table-3")
    assert [c.text for c in table.blocks[0].rows[0].cells] == ["20×24", "5", "3", "4", "12"]
    assert [c.text for c in table.blocks[1].rows[-1].cells] == ["", "1,530", "1,533", "887", "3,950"]


@pytest.mark.parametrize(("count", "sizes"), [(3, [3]), (7, [7]), (8, [4, 4]), (15, [5, 5, 5]), (16, [5, 6, 5])])
def test_wide_blocks_are_folded_and_lose_nothing(count: int, sizes: list[int]) -> None:
    names = tuple(f"c{i}" for i in range(count))
    block = Block(names, (StudyRow("row", tuple(Cell(n) for n in names)),), "Title")
    parts = folded(block)
    assert [len(p.columns) for p in parts] == sizes
    assert [c.text for p in parts for c in p.rows[0].cells] == list(names)
    assert all(len(p.title) > 0 for p in parts)


def test_a_difference_diagram_names_every_method_and_escapes_it() -> None:
    figures: dict[str, dict[str, float | None]] = {
        name: {f"c{i}": float(value + i) for i in range(6)} for name, value in (("<b>&", 3), ("B", 2), ("C", 1))
    }
    ranking = rank_methods(figures)
    svg = difference_svg(ranking)
    assert "&lt;b&gt;&amp; 1.00" in svg
    assert f"CD {ranking.difference:.2f}" in svg
    assert math.isfinite(ranking.friedman_p)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda f, out: write_study(f.store, (), out, protocol=study_protocol("paper")), ConfigError),
        (lambda f, out: write_study(f.store, f.parts[1:2], out, protocol=study_protocol("paper")), StoreError),
    ],
)
def test_nothing_to_show_is_one_clear_error(
    tmp_path: object, call: Callable[[FakeStudy, object], object], error: type[Exception]
) -> None:
    fake = make_study(tmp_path, run=("table13",), small=FEW)  # type: ignore[arg-type]
    with pytest.raises(error, match="study"):
        call(fake, tmp_path)
