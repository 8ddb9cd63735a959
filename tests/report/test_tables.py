"""Tables: figures, what is missing, best sets, the study's figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from andon.benchmark.store import Store
from andon.core import AndonError
from andon.report.results import collect
from andon.report.tables import Table, TableCell, TableRow, category_tables, make_tables, published_text
from tests.report.fake import METHODS, FakeMethod, fill

PATCHCORE, PADIM, THUMBNAIL = METHODS


def table(tables: list[Table], name: str) -> Table:
    return next(t for t in tables if t.name == name)


def rows(found: Table, group: int = 0) -> dict[str, TableRow]:
    return {row.label: row for row in found.groups[group].rows}


def cells(store: Store, name: str = "auroc", group: int = 0) -> dict[str, dict[str, TableCell]]:
    """By row and column label."""
    found = table(make_tables(store), name)
    return {r: dict(zip(found.columns, row.cells, strict=True)) for r, row in rows(found, group).items()}


def aurocs(store: Store, label: str, category: str) -> list[float]:
    return [
        r.evaluation.image.auroc or 0.0
        for r in store.records()
        if r.spec.label == label and r.spec.category == category
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return fill(tmp_path_factory.mktemp("store") / "s", gallery=False)


def test_a_cell_is_the_mean_and_the_population_deviation_over_the_seeds(store: Store) -> None:
    values = 100 * np.asarray(aurocs(store, "PaDiM", "washer"))
    assert len(values) == 3
    assert cells(store)["washer"]["PaDiM"].text == f"{values.mean():.1f} ± {values.std():.1f}"


def test_the_mean_row_is_over_the_tasks(store: Store) -> None:
    means = [100 * np.mean(aurocs(store, "PaDiM", c)) for c in ("washer", "bracket")]
    assert cells(store)["Mean"]["PaDiM"].text == f"{np.mean(means):.1f} ± {np.std(means):.1f}"


def test_a_method_without_randomness_has_no_deviation(store: Store) -> None:
    cell = cells(store)["washer"]["Thumbnail NN"]
    assert cell.text == f"{100 * aurocs(store, 'Thumbnail NN', 'washer')[0]:.1f}"
    assert cell.mark == ""
    assert any(
        "Not dependent on the seed" in n and "Thumbnail NN" in n for n in table(make_tables(store), "auroc").notes
    )


def test_the_best_set_is_that_of_scipys_welch_test(store: Store) -> None:
    for category in ("washer", "bracket"):
        by_label = {m.label: aurocs(store, m.label, category) for m in METHODS}
        leader = max(by_label, key=lambda label: np.mean(by_label[label]))
        best = {leader}
        for label, values in by_label.items():
            if label == leader:
                continue
            if label == THUMBNAIL.label:  # exact: a one-sample test
                p = stats.ttest_1samp(by_label[leader], values[0]).pvalue
            else:
                p = stats.ttest_ind(by_label[leader], values, equal_var=False).pvalue
            best |= {label} if p >= 0.05 else set()
        assert {label for label, cell in cells(store)[category].items() if cell.best} == best


def test_all_the_studys_tables_are_there(store: Store) -> None:
    found = {t.study_table: t.name for t in make_tables(store) if t.study_table}
    assert found == {6: "auroc", 7: "ap", 8: "tpr-at-tnr", 9: "auspro", 10: "speed"}
    assert [g.metric.title for g in table(make_tables(store), "tpr-at-tnr").groups] == [
        "TPR at TNR 99 %",
        "TPR at TNR 95 %",
        "TPR at TNR 90 %",
    ]


def test_the_threshold_from_training_images_shows_the_error_rates_it_really_has(store: Store) -> None:
    record = next(r for r in store.records() if r.spec.label == "Thumbnail NN" and r.spec.category == "washer")
    point = next(p for p in record.evaluation.operating_points if p.source == "train good" and p.target_tnr == 0.95)
    assert point.fpr is not None
    assert point.fnr is not None
    assert cells(store, "train-threshold", 2)["washer"]["Thumbnail NN"].text == f"{100 * point.fpr:.1f}"
    assert cells(store, "train-threshold", 3)["washer"]["Thumbnail NN"].text == f"{100 * point.fnr:.1f}"
    assert not any(cell.best for cell in table(make_tables(store), "train-threshold").cells)


def test_localisation_that_a_method_lacks_is_shown_as_undefined(store: Store) -> None:
    cell = cells(store, "auspro")["washer"]["Thumbnail NN"]
    assert (cell.text, cell.status, cell.summary) == ("–", "undefined", None)


def test_missing_runs_are_marked_and_failed_ones_named(tmp_path: Path) -> None:
    methods = (
        PATCHCORE,
        FakeMethod("padim", "Some failed", fails=frozenset({("washer", 1)})),
        FakeMethod("padim", "All failed", fails=frozenset({("washer", s) for s in range(3)})),
        FakeMethod("padim", "To do", pending=frozenset({("washer", s) for s in range(3)})),
    )
    found = cells(fill(tmp_path / "s", methods=methods, gallery=False))
    assert found["washer"]["Some failed"].mark == "2/3"
    assert found["washer"]["All failed"].text == "failed"
    assert found["washer"]["To do"].text == "not run"
    assert found["bracket"]["All failed"].mark == ""
    assert found["Mean"]["Some failed"].mark == "in part"
    assert found["Mean"]["All failed"].mark == "1/2 tasks"
    assert not found["Mean"]["All failed"].best
    assert not any(found["washer"][label].best for label in ("All failed", "To do"))


def test_means_over_different_tasks_are_not_compared(tmp_path: Path) -> None:
    strong = FakeMethod("padim", "Strong", 6.0, fails=frozenset({("washer", s) for s in range(3)}))
    found = cells(fill(tmp_path / "s", methods=(strong, PADIM, THUMBNAIL), gallery=False))["Mean"]
    strong_mean, padim_mean = found["Strong"].summary, found["PaDiM"].summary
    assert strong_mean is not None
    assert padim_mean is not None
    assert (strong_mean.mean or 0) > (padim_mean.mean or 1)
    assert not found["Strong"].best
    assert found["PaDiM"].best


def test_one_seed_has_no_deviation_and_only_the_highest_is_best(tmp_path: Path) -> None:
    store = fill(tmp_path / "s", seeds=1, gallery=False)
    found = cells(store)["washer"]
    means = {m.label: aurocs(store, m.label, "washer")[0] for m in METHODS}
    assert {label for label, cell in found.items() if cell.best} == {max(means, key=lambda k: means[k])}
    assert all("±" not in cell.text for cell in found.values())
    assert any("single run" in note for note in table(make_tables(store), "auroc").notes)


def test_a_data_set_without_defects_has_no_figures_but_its_times(tmp_path: Path) -> None:
    tables = make_tables(fill(tmp_path / "s", defects={}, gallery=False))
    assert all(cell.status == "undefined" for cell in table(tables, "auroc").cells)
    assert all(cell.status == "ok" for cell in table(tables, "speed").cells)


def test_training_time_counts_runs_that_computed_their_features(store: Store) -> None:
    first = next(
        r for r in store.records() if r.spec.label == "PaDiM" and r.spec.category == "washer" and not r.features_cached
    )
    cell = cells(store, "speed")["washer"]["PaDiM"]
    assert cell.text == f"{first.fit_seconds['total']:.2f}"
    assert cell.mark == "1/3"


def test_times_of_cached_features_alone_say_so(tmp_path: Path) -> None:
    method = FakeMethod("padim", "PaDiM", fails=frozenset({("washer", 0)}))
    cell = cells(fill(tmp_path / "s", methods=(method,), categories=("washer",), gallery=False), "speed")["washer"]
    assert cell["PaDiM"].mark == "2/3, cached"


def test_the_studys_figures_stand_beside_those_of_its_data_set(tmp_path: Path) -> None:
    own = FakeMethod("patchcore", "Patchcore", 2.5, preset="study")
    few = FakeMethod("patchcore", "Patchcore 10 shots", shots=10, preset="study")
    methods = (own, few, THUMBNAIL)
    store = fill(tmp_path / "s", methods=methods, categories=("tank_screw", "my_own"), dataset="AutoVI", gallery=False)
    found = table(make_tables(store), "auroc")
    metric = found.groups[0].metric
    by_row = rows(found)
    assert [published_text(c, metric) for c in by_row["tank_screw"].cells] == ["89.3 ± 0.7", "", ""]
    assert [published_text(c, metric) for c in by_row["my_own"].cells] == ["", "", ""]
    assert published_text(by_row["Mean"].cells[0], metric) == "88.4 ± 10.1 !"
    assert any("Carvalho" in note for note in found.notes)
    assert any("beside Patchcore 10 shots" in note and "shots 10" in note for note in found.notes)
    assert not any("beside Patchcore:" in note or "Thumbnail" in note for note in found.notes if "No published" in note)
    auspro = table(make_tables(store), "auspro")
    assert published_text(rows(auspro)["tank_screw"].cells[0], auspro.groups[0].metric) == "80.6 ± 0.5"
    speed = table(make_tables(store), "speed")
    assert published_text(rows(speed)["Mean"].cells[0], speed.groups[0].metric) == "46 ± 23"


@pytest.mark.parametrize(
    ("method", "why"),
    [
        (FakeMethod("patchcore", "Patchcore", preset="embedded"), "transform.size"),
        (FakeMethod("patchcore", "Patchcore", preset="study", random=True), "random weights"),
        (FakeMethod("patchcore", "Patchcore"), "cannot be read"),
    ],
)
def test_another_configuration_stands_alone(tmp_path: Path, method: FakeMethod, why: str) -> None:
    store = fill(tmp_path / "s", methods=(method,), categories=("tank_screw",), dataset="autovi", gallery=False)
    found = table(make_tables(store), "auroc")
    assert not found.has_published
    assert any("No published figures beside Patchcore" in note and why in note for note in found.notes)


def test_other_data_sets_of_the_same_layout_get_no_published_figures(tmp_path: Path) -> None:
    store = fill(tmp_path / "s", categories=("tank_screw",), dataset="line", gallery=False)
    assert not any(t.has_published for t in make_tables(store))


def test_random_weights_are_named_under_every_table(store: Store) -> None:
    tables = make_tables(store)
    assert tables
    for found in tables:
        note = next(n for n in found.notes if n.startswith("Random weights"))
        assert "Patchcore" in note
        assert "PaDiM" in note
        assert "Thumbnail" not in note
        assert "not pretrained" in note


def test_changed_data_or_configurations_are_never_averaged(tmp_path: Path) -> None:
    from tests.report.fake import record_of, spec_of, types_of

    store = Store(tmp_path / "s", create=True)  # without a plan: everything in it as it is
    types = types_of({"bent": 5}, 10)
    for seed, fingerprint, config in ((0, "a" * 32, 1), (1, "b" * 32, 1), (2, "a" * 32, 2)):
        spec = spec_of(PADIM, "washer", seed, fingerprint=fingerprint).model_copy(update={"config": {"k": config}})
        record, arrays = record_of(PADIM, spec, types)
        store.write_experiment(record, arrays)
    found = collect(store).datasets[0]
    assert [row.label for row in found.rows] == ["washer [data aaaaaaaa]", "washer [data bbbbbbbb]"] or len(
        found.rows
    ) == 2
    assert len(found.columns) == 2
    assert len({c.label for c in found.columns}) == 2
    assert max(runs.expected for runs in found.runs.values()) == 1


def test_tables_of_a_task_show_defect_types_and_operating_points(store: Store) -> None:
    dataset = collect(store).datasets[0]
    defects, points = category_tables(dataset, dataset.rows[0])
    assert [row.label for row in defects.groups[0].rows] == ["missing (14)", "scratched (10)"]
    assert [g.metric.title for g in defects.groups] == ["AUROC", "AUsPRO to FPR 0.05"]
    record = next(r for r in dataset.records if r.spec.label == "Thumbnail NN")
    assert record.evaluation.defect_types["missing"].auroc is not None
    shown = defects.groups[0].rows[0].cells[2].text
    assert shown == f"{100 * record.evaluation.defect_types['missing'].auroc:.1f}"
    assert len(points.groups) == 3
    assert all(len(g.rows) == 7 for g in points.groups)


def test_figures_that_are_not_finite_count_as_missing(tmp_path: Path) -> None:
    from tests.report.fake import record_of, spec_of, types_of

    store = Store(tmp_path / "s", create=True)
    types = types_of({"bent": 5}, 10)
    for seed in range(2):
        record, arrays = record_of(PADIM, spec_of(PADIM, "washer", seed), types)
        if seed:
            record = record.model_copy(update={"peak_memory_mb": float("inf")})
        store.write_experiment(record, arrays)
    assert cells(store, "speed", 2)["washer"]["PaDiM"].mark == "1/2"


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    with pytest.raises(AndonError, match=r"no finished experiments in .*andon bench run"):
        make_tables(store)


def test_a_store_of_failures_alone_still_has_tables(tmp_path: Path) -> None:
    method = FakeMethod("padim", "PaDiM", fails=frozenset({("washer", s) for s in range(3)}))
    store = fill(tmp_path / "s", methods=(method,), categories=("washer",), gallery=False)
    assert cells(store)["washer"]["PaDiM"].status == "failed"


def test_several_data_sets_have_tables_of_their_own(tmp_path: Path) -> None:
    fill(tmp_path / "s", categories=("a",), dataset="one", gallery=False, plan="p1")
    store = fill(tmp_path / "s", categories=("b",), dataset="two", gallery=False, plan="p2")
    tables = make_tables(store)
    assert len({t.name for t in tables}) == len(tables)
    assert {t.dataset for t in tables} == {"one", "two"}
    assert list(rows(table(tables, "one-1-auroc"))) == ["a"]
    assert list(rows(table(tables, "two-2-auroc"))) == ["b"]
