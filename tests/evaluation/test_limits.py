"""A limit without a short decimal, from the store to the tables: nothing that was asked for may vanish."""

import json

import pytest

from andon.benchmark.record import ExperimentRecord, Protocol
from andon.benchmark.store import Store
from andon.evaluation import DefectTypeMetrics, LocalisationMetrics
from andon.report.metrics import long_values
from andon.report.results import collect
from andon.report.tables import build_tables, category_tables, primary_limit
from tests.report import fake

VALUES = {1 / 3: 0.625, 0.3333333: 0.25}


@pytest.fixture
def store(tmp_path):
    """One experiment, whose tables are of AUsPRO to 1/3, and which has 0.3333333 (``--limit 0.3333333``) too."""
    store, types = Store(tmp_path / "store", create=True), ["good"] * 4 + ["dent"] * 4
    protocol = Protocol(fpr_limits=tuple(VALUES))
    spec = fake.spec_of(fake.METHODS[0], "washer", 0).model_copy(update={"protocol": protocol})
    record, arrays = fake.record_of(fake.METHODS[0], spec, types)
    evaluation = record.evaluation.model_copy(
        update={
            "localisation": LocalisationMetrics(n_channels=4, auspro=VALUES, aupro=VALUES),
            "defect_types": {"dent": DefectTypeMetrics(n=4, auroc=0.5, auspro=VALUES)},
        }
    )
    store.write_experiment(record.model_copy(update={"evaluation": evaluation}), arrays)
    return store


def rows_of(table):
    return {group.metric.name: group.rows[0].cells[0].text for group in table.groups}


def test_it_shows_up_in_the_tables(store):
    results = collect(store)
    (dataset,) = results.datasets
    assert primary_limit(dataset) == 1 / 3
    tables = {table.name: table for table in build_tables(results)}
    assert tables["auspro"].title == "Localisation: AUsPRO to a pixel FPR of 0.333333 (%)"
    assert rows_of(tables["auspro"]) == {"auspro@0.3333333333333333": "62.5"}
    assert rows_of(tables["localisation"]) == {
        "auspro@0.3333333": "25.0",
        "aupro@0.3333333": "25.0",
        "aupro@0.3333333333333333": "62.5",
        "pixel_auroc": "–",
        "pixel_ap": "–",
    }
    by_type = rows_of(category_tables(dataset, dataset.rows[0])[0])
    assert by_type["auspro@0.3333333333333333[]"] == "62.5"
    figures = {name: value for name, _, value in long_values(dataset.records[0])}
    assert figures["auspro@0.3333333333333333"] == figures["auspro@0.3333333333333333[dent]"] == 0.625


def test_so_does_that_of_a_record_written_before(store):
    """With 12 digits of a limit, and integers as such."""
    (path,) = store.root.rglob("record.json")
    written = json.loads(path.read_text())
    local = written["evaluation"]["localisation"]
    assert list(local["auspro"]) == [repr(limit) for limit in VALUES]
    for values in (local, *written["evaluation"]["defect_types"].values()):
        for name in {"auspro", "aupro"} & set(values):
            values[name] = {"0.333333333333": 0.625, "0.3333333": 0.25}
    record = ExperimentRecord.model_validate_json(json.dumps(written))
    assert record.evaluation.localisation.auspro == VALUES
    assert record.evaluation.localisation.aupro == VALUES
    assert record.evaluation.defect_types["dent"].auspro == VALUES
