from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from andon.benchmark import Store, study_plans
from andon.benchmark.estimate import PlanEstimate, RowEstimate
from andon.benchmark.events import ExperimentEvent, Failed, Finished, Planned, RunEvent
from andon.benchmark.expansion import expand
from andon.benchmark.plan import Plan, load_plan
from andon.benchmark.study import SHOTS, SMALL, StudyPlan
from andon.benchmark.study_run import (
    _Tally,
    estimate_study,
    joined_plan,
    prepare_study,
    run_study,
    with_images,
)
from andon.core import ConfigError, DataError, WeightsError
from andon.synthetic import TASKS
from tests.benchmark.factory import make_spec
from tests.benchmark.test_bench import FAKE, HereEngine
from tests.benchmark.tiny import write_tiny

METHOD = f"{FAKE}:FakeMethod"
MAIN = """
name: tiny-study
datasets: [{path: data, name: line}]
methods: [{method: thumbnail-nn, config: {transform: {size: [16, 16]}}}, {method: METHOD}]
seeds: 2
"""
TABLE11 = """
name: tiny-table11
datasets: [{path: data, name: line, categories: [bolt]}]
methods: [{method: METHOD}, {method: METHOD, label: "Fake, augmented", protocol: {augmentation: {versions: 2}}}]
seeds: 2
"""


@pytest.fixture
def parts(tmp_path: Path) -> tuple[StudyPlan, ...]:
    """Two parts that share one method on one category."""
    write_tiny(tmp_path / "data")
    found = []
    for part, text in (("study", MAIN), ("table11", TABLE11)):
        path = tmp_path / f"{part}.yaml"
        path.write_text(text.replace("METHOD", METHOD), encoding="utf-8")
        found.append(StudyPlan(part, load_plan(path), f"what {part} shows"))
    return tuple(found)


def any_layout(part: StudyPlan, folder: Path) -> StudyPlan:
    """On images that are not in AutoVI's layout."""
    plan = part.on(folder, folder)
    datasets = tuple(d.model_copy(update={"layout": None}) for d in plan.content.datasets)
    return replace(part, plan=replace(plan, content=plan.content.model_copy(update={"datasets": datasets})))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("data") / "line", categories=tuple(TASKS), train=70)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"small": True},
        {"synthetic": True},
        {"small": True, "synthetic": True, "added": [METHOD]},
        {"protocol": "released-code", "added": [METHOD], "seeds": 3},
        {"raw": False, "all_methods": True},
    ],
)
def test_the_joined_plan_is_the_experiments_of_all_parts(line: Path, options: dict[str, Any]) -> None:
    parts = [any_layout(part, line) for part in prepare_study(**options)]
    joined = expand(joined_plan(parts)).specs
    ids = [spec.id for spec in joined]
    assert len(set(ids)) == len(ids)
    assert set(ids) == {spec.id for part in parts for spec in expand(part.plan).specs}


def test_an_added_method_is_in_every_part_as_the_part_has_its_own(line: Path) -> None:
    parts = {part.part: any_layout(part, line).plan for part in prepare_study(added=[METHOD], small=True)}
    own = {name: [e for e in plan.content.methods if e.method.endswith("FakeMethod")] for name, plan in parts.items()}
    assert {name: len(entries) for name, entries in own.items()} == {
        "study": 1, "table11": 2, "table12": 1, "table13": 0, "figure5": len(SMALL.shots),
    }  # fmt: skip
    assert [e.label for e in own["table11"]] == [None, "Fake, augmented"]
    assert own["table11"][1].protocol["augmentation"] == {"versions": SMALL.versions}
    assert [e.protocol.get("shots") for e in own["figure5"]] == list(SMALL.shots)
    specs = {
        name: {s.id: s for s in expand(plan).specs if s.method.endswith("FakeMethod")} for name, plan in parts.items()
    }
    whole = {i for i, spec in specs["figure5"].items() if spec.protocol.shots is None}
    assert whole
    assert whole <= set(specs["study"]), "the curve's end is the main part's"
    assert {spec.seed for spec in specs["figure5"].values() if spec.protocol.shots} == set(range(SMALL.draws))


def test_an_added_method_with_a_budget_is_shortened_and_one_that_is_trained_is_not_calibrated() -> None:
    parts = study_plans(small=True, synthetic=True, added=["padim"])
    # The synthetic line has every method on its default, which is no preset named; the study's stays out.
    assert [e.preset for e in parts[0].plan.content.methods if e.method == "padim"] == [None, None]
    whole = study_plans(added=["dsr"])
    assert whole[0].plan.content.methods[-1].protocol == {"calibration_folds": 0}
    assert whole[0].plan.content.methods[-1].preset == "study"
    assert len(whole[4].plan.content.methods) == 2 * len(SHOTS)


def test_the_number_of_runs_is_that_of_every_part() -> None:
    for part in prepare_study(seeds=3, small=True):
        assert part.plan.content.seeds == (0, 1, 2)
        assert all(entry.seeds is None for entry in part.plan.content.methods)


def test_all_methods_adds_what_the_study_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("andon.benchmark.study_run.method_names", lambda: ("padim", METHOD, "thumbnail-nn"))
    first = prepare_study(all_methods=True)[0].plan.content.methods
    assert len(first) == len(study_plans()[0].plan.content.methods) + 1
    assert first[-1].method.endswith("FakeMethod")


def test_uncropped_images_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="uncropped images"):
        with_images(prepare_study(), tmp_path)
    assert all(
        part.plan.content.datasets[0].path == str(tmp_path) for part in with_images(prepare_study(raw=False), tmp_path)
    )


def test_parts_share_what_they_have_in_common_and_a_second_start_does_nothing(
    parts: tuple[StudyPlan, ...], tmp_path: Path
) -> None:
    told: list[RunEvent] = []
    begun: list[tuple[str, int, int]] = []
    engine = HereEngine()
    summary = run_study(
        parts,
        tmp_path / "store",
        engine=engine,
        on_event=told.append,
        on_part=lambda part, todo, done: begun.append((part.part, todo, done)),
    )
    # Thumbnails have no seed: (1 + 2) on two categories, then two augmented ones.
    assert len(engine.ran) == len(set(engine.ran)) == 8
    assert begun == [("study", 6, 0), ("table11", 2, 2)]
    assert (len(summary.finished), len(summary.skipped), len(summary.failed)) == (8, 0, 0)
    assert [event.total for event in told if isinstance(event, Planned)] == [8]
    ended = [e for e in told if isinstance(e, ExperimentEvent) and isinstance(e.event, Finished)]
    assert [(e.done, e.total) for e in ended] == [(n, 8) for n in range(1, 9)]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "experiments").rglob("*")}

    begun.clear()
    idle = HereEngine()
    again = run_study(
        parts, tmp_path / "store", engine=idle, on_part=lambda part, todo, done: begun.append((part.part, todo, done))
    )
    assert idle.ran == []
    assert begun == [("study", 0, 6), ("table11", 0, 4)]
    assert (len(again.finished), len(again.skipped), len(again.failed)) == (0, 8, 0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "experiments").rglob("*")} == before


def test_what_is_damaged_in_any_part_is_done_again(parts: tuple[StudyPlan, ...], tmp_path: Path) -> None:
    run_study(parts, tmp_path / "store", engine=HereEngine())
    store = Store(tmp_path / "store")
    augmented = next(r.id for r in store.records() if r.spec.protocol.augmentation is not None)
    (store.path(augmented) / "arrays.npz").write_bytes(b"rubbish")
    engine = HereEngine()
    summary = run_study(parts, tmp_path / "store", engine=engine)
    assert engine.ran == [augmented]
    assert len(summary.repaired) == 1
    assert [spec.id for spec in summary.finished] == [augmented]
    assert len(summary.skipped) == 7


def test_a_part_that_changed_is_kept_as_it_is_now(parts: tuple[StudyPlan, ...], tmp_path: Path) -> None:
    run_study(parts, tmp_path / "store", engine=HereEngine())
    content = parts[1].plan.content.model_copy(update={"seeds": (0,)})
    fewer = (parts[0], replace(parts[1], plan=replace(parts[1].plan, content=content)))
    run_study(fewer, tmp_path / "store", engine=HereEngine())
    stored = Store(tmp_path / "store").plan("tiny-table11")
    assert stored is not None
    assert len(stored.specs) == 2


def test_a_failed_experiment_is_tried_once_a_start(tmp_path: Path, parts: tuple[StudyPlan, ...]) -> None:
    def failing(plan: Plan) -> Plan:
        methods = [
            e.model_copy(update={"config": {"trouble": "raise", "trouble_seeds": [0]}}) if "Fake" in e.method else e
            for e in plan.content.methods
        ]
        return replace(plan, content=plan.content.model_copy(update={"methods": tuple(methods)}))

    class Engine(HereEngine):
        def run(self, jobs: Any, on_event: Any) -> None:
            for job in jobs:
                tried.append(job.id)
                try:
                    super().run([job], on_event)
                except ArithmeticError as error:
                    on_event(Failed(job.id, "error", str(error), "", 1.0, "ArithmeticError"))

    tried: list[str] = []
    broken = tuple(replace(part, plan=failing(part.plan)) for part in parts)
    summary = run_study(broken, tmp_path / "store", engine=Engine())
    assert len(tried) == len(set(tried)) == 8
    assert {(f.spec.label, f.spec.seed) for f in summary.failed} == {("Fake", 0), ("Fake, augmented", 0)}
    assert len(summary.failed) == 3
    tried.clear()
    assert len(run_study(broken, tmp_path / "store", engine=Engine()).failed) == 3
    assert len(tried) == 3, "another start tries them again"


def test_data_and_weights_of_all_parts_are_looked_at_before_anything_runs(
    parts: tuple[StudyPlan, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    content = parts[1].plan.content
    lacking = content.methods[0].model_copy(
        update={"method": "padim", "label": "PaDiM", "config": {"weights": "no-such-file.safetensors"}}
    )
    wanting = replace(parts[1].plan, content=content.model_copy(update={"methods": (lacking,)}))
    with pytest.raises(WeightsError, match="nothing was run"):
        run_study((parts[0], replace(parts[1], plan=wanting)), store, jobs=1)
    assert not store.exists()
    (tmp_path / "data" / "nut" / "test" / "good" / "000.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="nothing was started"):
        run_study(parts, store, engine=HereEngine())
    assert not store.exists()


def test_the_time_left_is_reckoned_by_what_the_same_kind_has_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("andon.benchmark.study_run.time.monotonic", lambda: now[0])
    quick = [make_spec(method="padim", label="PaDiM", seed=seed) for seed in range(3)]
    slow = [make_spec(method="dsr", label="DSR", seed=seed) for seed in range(3)]
    told: list[Any] = []
    tally = _Tally([*quick, *slow], told.append)

    def ended(spec: Any, seconds: float) -> float | None:
        now[0] += seconds / 2  # two at a time
        tally(ExperimentEvent(spec, Finished(spec.id, seconds), "", 0, 0, None))
        return told[-1].eta_seconds  # type: ignore[no-any-return]

    assert ended(quick[0], 10.0) == pytest.approx(5 * 10.0 / 2), "nothing else is known yet"
    assert ended(slow[0], 100.0) == pytest.approx((2 * 10.0 + 2 * 100.0) / 2)
    assert ended(slow[1], 200.0) == pytest.approx((2 * 10.0 + 150.0) / 2)
    assert (told[-1].done, told[-1].total) == (3, 6)


def test_what_a_study_would_cost_counts_what_parts_share_once(
    parts: tuple[StudyPlan, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def estimated(plan: Plan, store: Path, **_: object) -> PlanEstimate:
        keys = dict.fromkeys((s.dataset, s.category, s.label) for s in expand(plan).specs)
        rows = [
            RowEstimate(*key, done=1, failed=0, missing=2, seconds=None if key[2] == "Fake, augmented" else 10.0,
                        memory_mb=100.0 if key[1] == "bolt" else 300.0, basis=f"basis of {key[1]}")
            for key in keys
        ]  # fmt: skip
        return PlanEstimate(tuple(rows), 2)

    monkeypatch.setattr("andon.benchmark.study_run.estimate_plan", estimated)
    found = estimate_study(parts, tmp_path / "store")
    shown = {(row.part.part, row.label): row for row in found.rows}
    assert set(shown) == {("study", "Thumbnail NN"), ("study", "Fake"), ("table11", "Fake, augmented")}
    fake = shown["study", "Fake"]
    assert (fake.done, fake.missing, fake.seconds, fake.memory_mb) == (2, 4, 40.0, 300.0)
    assert fake.basis == "basis of bolt; basis of nut"
    augmented = shown["table11", "Fake, augmented"]
    assert (augmented.seconds, augmented.unknown) == (None, 2)
