from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from andon.benchmark import Store, load_plan, plan_status, resume_plan, run_plan
from andon.benchmark import bench as bench_module
from andon.benchmark.engine import Job
from andon.benchmark.events import (
    Event,
    ExperimentEvent,
    Failed,
    Finished,
    Planned,
    Progressed,
    Repaired,
    RunEvent,
    Started,
)
from andon.benchmark.expansion import expand
from andon.benchmark.record import ExperimentRecord
from andon.benchmark.runner import RunOptions, draw_shots, gallery_samples, run_experiment
from andon.core import AndonError, StoreError
from andon.data import load_dataset
from andon.data.images import Images
from andon.features import AndonFeatures, Extractor, FixedExtractor
from andon.methods import create_method, load
from tests.benchmark.tiny import save, write_tiny

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).with_name("fake_method.py")
METHOD = f"{FAKE}:FakeMethod"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture
def write(tmp_path: Path, tiny: Path) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        plan = {"datasets": [{"path": str(tiny), "categories": ["bolt"]}], "methods": [METHOD], **changes}
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump(plan))
        return path

    return write


class HereEngine:
    """Runs jobs in this process: quick, for tests of everything but processes."""

    def __init__(self, before: Callable[[Job], None] = lambda job: None) -> None:
        self.before = before
        self.ran: list[str] = []

    def run(self, jobs: Any, on_event: Callable[[Event], None]) -> None:
        for job in jobs:
            on_event(Started(job.id))
            self.before(job)
            try:
                job.function(*job.args, progress=lambda stage, done, total: None)
            except AndonError as error:
                on_event(Failed(job.id, "error", str(error), "", 0.0, type(error).__name__))
            else:
                self.ran.append(job.id)
                on_event(Finished(job.id, 0.0))


def trouble(kind: str, **config: Any) -> dict[str, Any]:
    return {"method": METHOD, "label": kind, "config": {"trouble": kind, **config}}


def test_the_whole_way_in_processes(write: Callable[..., Path], tmp_path: Path) -> None:
    """Two methods that do their work beside four that do not, in processes of their own."""
    methods = [METHOD, f"{FAKE}:Unseeded", *(trouble(k) for k in ("raise", "exit", "kill", "hang", "nan"))]
    events: list[RunEvent] = []
    store_dir = tmp_path / "store"
    summary = run_plan(write(methods=methods, seeds=2, timeout=5), store_dir, jobs=2, on_event=events.append)

    assert [(f.spec.label, f.kind) for f in sorted(summary.failed, key=lambda f: f.spec.label)] == [
        ("exit", "killed"),
        ("hang", "timeout"),
        ("kill", "killed"),
        ("nan", "error"),
        ("nan", "error"),
        ("raise", "error"),
    ]
    reasons = {f.spec.label: f.reason for f in summary.failed}
    assert reasons["raise"] == "ArithmeticError: the fit went astray"
    assert reasons["kill"] == "killed by signal 9 (out of memory?)"
    assert "exit code 7" in reasons["exit"]
    assert "5 s" in reasons["hang"]
    assert "000.png" in reasons["nan"]
    assert "\n" not in "".join(reasons.values())

    store = Store(store_dir)
    assert sorted(store.failures(), key=lambda f: f.id) == sorted(summary.failed, key=lambda f: f.id)
    done = {(r.spec.label, r.spec.seed) for r in store.records()}
    # Trouble is for seed 0 only: seed 1 of the same method has a result.
    assert done == {("Fake", 0), ("Fake", 1), ("Unseeded", 0), *((k, 1) for k in ("raise", "exit", "kill", "hang"))}
    assert not store.scratch.exists()
    status = plan_status(store_dir)
    assert (status.count("done"), status.count("failed"), status.count("missing")) == (7, 6, 0)
    kinds = [type(e.event).__name__ if isinstance(e, ExperimentEvent) else type(e).__name__ for e in events]
    assert kinds[0] == "Planned"
    assert (kinds.count("Started"), kinds.count("Finished"), kinds.count("Failed")) == (13, 7, 6)
    happened = [e.event for e in events if isinstance(e, ExperimentEvent)]
    assert {"mean", "predict"} <= {e.stage for e in happened if isinstance(e, Progressed)}
    assert isinstance(events[-1], ExperimentEvent)
    assert (events[-1].done, events[-1].total, events[-1].eta_seconds) == (13, 13, 0.0)


def test_a_record_holds_what_the_report_needs(write: Callable[..., Path], tmp_path: Path, tiny: Path) -> None:
    plan = write(methods=[METHOD], keep_models=True, protocol={"calibration_folds": 2})
    run_plan(plan, tmp_path / "store", jobs=1, threads=1)
    store = Store(tmp_path / "store")
    (record,) = store.records()
    assert record.evaluation.image.n_good == 3
    assert record.evaluation.image.n_defective == 4
    assert record.evaluation.image.auroc == 1.0
    assert record.evaluation.localisation is not None
    assert {p.source for p in record.evaluation.operating_points} == {"test good", "train good", "best F1"}
    assert record.n_train == 5
    assert record.fit_seconds["total"] > 0
    assert 0 < record.fit_seconds["mean"] <= record.fit_seconds["total"]
    assert record.calibration_seconds is not None
    assert record.images_per_second is not None
    assert record.images_per_second > 1
    assert record.seeded
    assert not record.features_cached
    assert 20 < record.peak_memory_mb < 4000
    assert record.notes == ("a fake",)
    assert record.curves == {"loss": [(0, 1.0)]}
    assert {"andon", "torch", "numpy", "python"} <= set(record.versions)
    assert record.hardware.threads == 1
    assert record.hardware.device == "cpu"
    assert os.uname().nodename not in store.path(record.id).joinpath("record.json").read_text()

    arrays = store.arrays(record.id)
    category = load_dataset(tiny)["bolt"]
    assert arrays.sample_ids == tuple(s.id for s in category.test)
    assert arrays.calibration_scores is not None
    assert len(arrays.calibration_scores) == 5

    # The gallery is two of each defect type and two good ones; maps are kept of just these.
    gallery = store.gallery("tiny", "bolt", record.spec.data_fingerprint)
    assert [p.defect_type for p in gallery] == ["dent", "scratch", "scratch", "good", "good"]
    maps = store.maps(record.id)
    assert maps is not None
    assert set(maps.sample_ids) == {p.sample_id for p in gallery}
    truth = category.select("test", defective=True)[0].ground_truth()
    assert truth is not None
    assert gallery[0].mask is not None
    np.testing.assert_array_equal(gallery[0].mask, truth.union())
    assert gallery[-1].mask is not None
    assert not gallery[-1].mask.any()

    # What was learned is kept, and gives the kept maps and scores again.
    path = store.model_path(record.id)
    assert path is not None
    again = load(path, method=create_method(METHOD, record.spec.config)).predict(category.test)
    np.testing.assert_array_equal(again.image_scores, arrays.image_scores)
    found = maps.get(category.test[0].id)
    assert found is not None
    assert again.anomaly_maps is not None
    np.testing.assert_array_equal(found[0], again.anomaly_maps[0])


def test_running_again_does_only_what_is_left(write: Callable[..., Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    run_plan(write(seeds=2), store, engine=HereEngine())
    ids = Store(store).ids()
    engine = HereEngine()
    summary = run_plan(write(seeds=3), store, engine=engine)
    assert (len(summary.finished), len(summary.skipped)) == (1, 2)
    assert set(engine.ran) == set(Store(store).ids()) - set(ids)
    before = {p: p.stat().st_mtime_ns for p in store.rglob("record.json")}
    assert run_plan(write(seeds=3), store, engine=HereEngine()).finished == ()
    assert {p: p.stat().st_mtime_ns for p in store.rglob("record.json")} == before


def test_failed_experiments_are_tried_again_unless_told_not_to(write: Callable[..., Path], tmp_path: Path) -> None:
    store, once = tmp_path / "store", tmp_path / "once"
    plan = write(methods=[trouble("raise", once=str(once))])
    assert len(run_plan(plan, store, jobs=1).failed) == 1
    summary = run_plan(plan, store, retry_failed=False, engine=HereEngine())
    assert (len(summary.finished), len(summary.skipped)) == (0, 1)
    assert plan_status(store).count("failed") == 1
    assert len(run_plan(plan, store, jobs=1).finished) == 1
    assert plan_status(store).count("failed") == 0
    assert Store(store).failures() == []


def test_resume_needs_the_store_only(write: Callable[..., Path], tmp_path: Path, tiny: Path) -> None:
    store, data = tmp_path / "store", tmp_path / "copy"
    shutil.copytree(tiny, data)
    code = tmp_path / "mine.py"
    code.write_text(FAKE.read_text())
    plan = write(datasets=["copy"], methods=["mine.py:FakeMethod"], seeds=9)

    def stop_at_the_third(job: Job) -> None:
        if len(engine.ran) == 3:
            raise KeyboardInterrupt

    engine = HereEngine(stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_plan(load_plan(plan, seeds=2, categories=["bolt", "nut"]), store, engine=engine)
    assert plan_status(store).count("missing") == 1
    plan.unlink()
    summary = resume_plan(store, engine=HereEngine())
    assert (len(summary.finished), len(summary.skipped)) == (1, 3)
    data.rename(tmp_path / "moved")
    with pytest.raises(AndonError, match="no such folder"):
        resume_plan(store, engine=HereEngine())
    summary = resume_plan(store, data=[tmp_path / "moved"], engine=HereEngine())
    assert (len(summary.finished), len(summary.skipped)) == (0, 4), "moved data is the same data"
    with pytest.raises(AndonError, match="has no plan 'x'"):
        resume_plan(store, "x")
    with pytest.raises(AndonError, match="no benchmark store"):
        resume_plan(tmp_path / "nothing")
    with pytest.raises(AndonError, match="has no plan"):
        plan_status(store, "x")


def test_a_killed_run_loses_only_the_experiments_in_flight(write: Callable[..., Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    hang = trouble("hang", trouble_seeds=[3], once=str(tmp_path / "once"))
    plan = write(methods=[hang], seeds=6)
    code = (
        "import sys; from andon.benchmark import run_plan\n"
        "tell = lambda event: print(event, flush=True)\n"
        "run_plan(sys.argv[1], sys.argv[2], jobs=1, on_event=tell)"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(plan), str(store)], cwd=ROOT)
    try:
        for _ in range(600):
            if (tmp_path / "once").exists():
                break
            time.sleep(0.05)
        run.kill()
        run.wait()
    finally:
        run.kill()
    assert len(Store(store)) == 3
    assert Store(store).repair() == []
    summary = run_plan(plan, store, jobs=1)
    assert (len(summary.finished), len(summary.skipped), summary.failed) == (3, 3, ())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker_fails_alone(write: Callable[..., Path], tmp_path: Path, how: signal.Signals) -> None:
    plan = write(methods=[trouble("hang")], seeds=3)
    victims: list[int] = []

    def kill(event: RunEvent) -> None:
        if isinstance(event, ExperimentEvent) and isinstance(event.event, Started) and event.spec.seed == 0:
            import multiprocessing

            (child,) = (c for c in multiprocessing.active_children() if event.spec.id in c.name)
            assert child.pid is not None
            victims.append(child.pid)
            os.kill(child.pid, how)

    summary = run_plan(plan, tmp_path / "store", jobs=1, on_event=kill)
    assert len(victims) == 1
    assert [(f.kind, f.spec.seed) for f in summary.failed] == [("killed", 0)]
    assert f"killed by signal {int(how)}" in summary.failed[0].reason
    assert [s.seed for s in summary.finished] == [1, 2]


def test_killed_after_its_result_was_kept_is_no_failure(write: Callable[..., Path], tmp_path: Path) -> None:
    class KilledLate(HereEngine):
        def run(self, jobs: Any, on_event: Callable[[Event], None]) -> None:
            def late(event: Event) -> None:
                finished = isinstance(event, Finished)
                on_event(Failed(event.id, "killed", "killed by signal 9", "", 0.0) if finished else event)

            super().run(jobs, late)

    summary = run_plan(write(), tmp_path / "store", engine=KilledLate())
    assert (len(summary.finished), summary.failed) == (1, ())
    assert plan_status(tmp_path / "store").count("done") == 1


def test_damage_is_repaired_by_doing_it_again(write: Callable[..., Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    run_plan(write(seeds=2), store, engine=HereEngine())
    first, second = Store(store).ids()
    record = store / "experiments" / first / "record.json"
    record.write_bytes(record.read_bytes()[:100])
    shutil.rmtree(store / "galleries")
    assert plan_status(store).count("missing") == 1
    assert first in plan_status(store).problems[0]
    events: list[RunEvent] = []
    summary = run_plan(write(seeds=2), store, engine=HereEngine(), on_event=events.append)
    assert [s.id for s in summary.finished] == [first]
    assert [s.id for s in summary.skipped] == [second]
    assert len(summary.repaired) == 1
    assert [type(e) for e in events[:2]] == [Repaired, Planned]
    assert Store(store).repair() == []
    assert len(list((store / "galleries").iterdir())) == 1, "the gallery is made again too"


def test_a_full_disk_ends_the_run_with_one_message(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"

    def fill_the_disk(job: Job) -> None:
        if len(engine.ran) == 1:

            def full(folder: Path) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            # Only results do not fit any more; a failure's few bytes would.
            monkeypatch.setattr("andon._tools.files._fsync_file", full)

    engine = HereEngine(fill_the_disk)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        run_plan(write(seeds=3), store, engine=engine)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert len(Store(store)) == 1
    assert len(engine.ran) == 1, "it goes on although nothing can be kept"
    summary = run_plan(write(seeds=3), store, engine=HereEngine())
    assert (len(summary.finished), len(summary.skipped), summary.repaired) == (2, 1, ())


def test_a_failure_that_cannot_be_written_down_ends_the_run(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StoreError("failures: cannot be written (No space left on device)")

    monkeypatch.setattr(Store, "write_failure", full)
    with pytest.raises(StoreError, match="No space left"):
        run_plan(write(methods=[trouble("raise")], seeds=2), tmp_path / "store", jobs=1)
    assert not (tmp_path / "store/scratch").exists()


def test_two_runs_in_one_store(write: Callable[..., Path], tmp_path: Path) -> None:
    def second(job: Job) -> None:
        with pytest.raises(AndonError, match="another run is writing"):
            run_plan(write(), tmp_path / "store", engine=HereEngine())

    assert len(run_plan(write(), tmp_path / "store", engine=HereEngine(second)).finished) == 1


def test_a_bad_image_is_that_experiments_failure(write: Callable[..., Path], tmp_path: Path, tiny: Path) -> None:
    data = tmp_path / "bad"
    shutil.copytree(tiny, data)
    (data / "nut/test/scratch/001.png").write_bytes(b"no image")
    summary = run_plan(write(datasets=[str(data)]), tmp_path / "store", jobs=1, anyway=True)
    assert [s.category for s in summary.finished] == ["bolt"]
    (failure,) = summary.failed
    assert (failure.spec.category, failure.kind) == ("nut", "error")
    assert "001.png" in failure.reason


def test_a_method_defined_in_the_running_program_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(AndonError, match=r"put it in a file and name it path/to/file\.py:Class"):
        run_plan(write(methods=["__main__:FakeMethod"]), tmp_path / "store", engine=HereEngine())


def test_an_importable_method_works_in_its_process_and_its_code_is_in_the_id(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "andon_plugin_for_test.py").write_text(FAKE.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    summary = run_plan(write(methods=["andon_plugin_for_test:FakeMethod"]), tmp_path / "store", jobs=1)
    assert summary.failed == ()
    (spec,) = summary.finished
    assert len(spec.code_fingerprint) == 32


def run_one(tiny: Path, tmp_path: Path, **changes: Any) -> tuple[ExperimentRecord, Store]:
    plan = tmp_path / "one.yaml"
    plan.write_text(yaml.safe_dump({"datasets": [{"path": str(tiny), "categories": ["bolt"]}], **changes}))
    expanded = expand(load_plan(plan))
    spec = expanded.specs[0]
    store = Store(tmp_path / "one", create=True)
    options = RunOptions(reference=expanded.references[spec.id], keep_maps="all")
    return run_experiment(spec, expanded.category(spec), store, options=options), store


def test_calibration_scores_come_from_models_that_did_not_see_the_image(tiny: Path, tmp_path: Path) -> None:
    record, store = run_one(tiny, tmp_path, methods=[METHOD], protocol={"calibration_folds": 2})
    scores = store.arrays(record.id).calibration_scores
    assert scores is not None
    train = load_dataset(tiny)["bolt"].train
    # Two contiguous blocks of 3 and 2, each scored by a model of the other.
    for block, rest in ((range(3), range(3, 5)), (range(3, 5), range(3))):
        detector = create_method(METHOD).fit(Images([train[i] for i in rest]), seed=0)
        expected = detector.predict([train[i] for i in block]).image_scores
        np.testing.assert_allclose(scores[list(block)], expected, rtol=1e-6)


def test_calibration_stands_on_the_extractor_as_it_was_adapted_to_all_images(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    adapt = AndonFeatures.adapt

    def counted(self: AndonFeatures, images: Images, *args: Any, **options: Any) -> Extractor:
        calls.append(len(images))
        return adapt(self, images, *args, **options)

    monkeypatch.setattr(AndonFeatures, "adapt", counted)
    method = {"method": "patchcore", "preset": "designed", "config": {"transform": {"size": [64, 64]}}}
    record, store = run_one(tiny, tmp_path, methods=[method], protocol={"calibration_folds": 3})
    assert calls == [5]
    scores = store.arrays(record.id).calibration_scores
    assert scores is not None
    train = load_dataset(tiny)["bolt"].train
    options = {"transform": {"size": (64, 64)}}
    whole = create_method("patchcore", options, preset="designed")
    again = create_method("patchcore", options, preset="designed")
    again.extractor = FixedExtractor(whole.fit(train, seed=0).extractor)  # type: ignore[attr-defined]
    expected = again.fit(Images(train[2:]), seed=0).predict(train[:2]).image_scores
    np.testing.assert_allclose(scores[:2], expected, rtol=1e-5)


def test_with_as_many_folds_as_images_each_is_left_out_once(tiny: Path, tmp_path: Path) -> None:
    record, store = run_one(tiny, tmp_path, methods=[METHOD], protocol={"calibration_folds": 99})
    scores = store.arrays(record.id).calibration_scores
    train = load_dataset(tiny)["bolt"].train
    detector = create_method(METHOD).fit(Images(train[1:]), seed=0)
    assert scores is not None
    assert scores[0] == pytest.approx(detector.predict(train[:1]).image_scores[0], rel=1e-6)


def test_an_experiment_that_failed_finds_its_checkpoint_and_a_finished_one_leaves_none(
    tiny: Path, tmp_path: Path
) -> None:
    once = {"trouble": "raise", "once": str(tmp_path / "once")}
    method = {"method": METHOD.replace("FakeMethod", "Trained"), "config": once}
    with pytest.raises(ArithmeticError):
        run_one(tiny, tmp_path, methods=[method])
    kept = list((tmp_path / "one" / "checkpoints").rglob("state"))
    assert len(kept) == 1
    record, store = run_one(tiny, tmp_path, methods=[method], protocol={"calibration_folds": 2})
    assert "checkpoint found: False" in record.notes  # another protocol is another experiment
    record, store = run_one(tiny, tmp_path, methods=[method])
    assert "checkpoint found: True" in record.notes
    assert not list((store.root / "checkpoints").rglob("state"))


def test_maps_and_speed_are_of_each_methods_own_first_seed(write: Callable[..., Path], tmp_path: Path) -> None:
    plan = write(
        methods=[METHOD, {"method": METHOD, "label": "Other", "config": {"noise": 0.1}, "seeds": [4, 5]}], seeds=2
    )
    run_plan(plan, tmp_path / "s", engine=HereEngine())
    store = Store(tmp_path / "s")
    with_maps = {(r.spec.label, r.spec.seed) for r in store.records() if store.maps(r.id) is not None}
    measured = {(r.spec.label, r.spec.seed) for r in store.records() if r.images_per_second is not None}
    assert {r.spec.seed for r in store.records() if r.spec.label == "Other"} == {4, 5}
    assert with_maps == measured == {("Fake", 0), ("Other", 4)}


def test_all_maps_are_kept_when_asked(tiny: Path, tmp_path: Path) -> None:
    record, store = run_one(tiny, tmp_path, methods=[METHOD])
    maps = store.maps(record.id)
    assert maps is not None
    assert maps.sample_ids == store.arrays(record.id).sample_ids


def test_shots_are_drawn_by_seed_alone(tiny: Path, tmp_path: Path) -> None:
    train = load_dataset(tiny)["bolt"].train
    draws = [draw_shots(train, 2, seed) for seed in range(20)]
    assert draws[3] == draw_shots(train, 2, 3)
    assert len(set(draws)) > 5
    assert all(len(set(d)) == 2 and train.index(d[0]) < train.index(d[1]) for d in draws)
    assert draw_shots(train, None, 0) == train
    assert draw_shots(train, 5, 1) == train
    with pytest.raises(AndonError, match="5 good training images, fewer than the 6 shots"):
        draw_shots(train, 6, 0, "bolt")
    record, _ = run_one(tiny, tmp_path, methods=[f"{FAKE}:Unseeded"], protocol={"shots": 2})
    assert record.n_train == 2
    assert record.seeded, "with a random draw the seed matters"


def test_gallery_is_the_first_of_each_type(tiny: Path) -> None:
    test = load_dataset(tiny)["bolt"].test
    chosen = [test[i].id for i in gallery_samples(test)]
    names = [i.removeprefix("test/") for i in chosen]
    assert names == ["dent/000", "scratch/000", "scratch/001", "good/000", "good/001"]


def test_same_seed_same_result_in_process_and_out(write: Callable[..., Path], tmp_path: Path, tiny: Path) -> None:
    run_plan(write(), tmp_path / "store", jobs=1, threads=1)
    outside = Store(tmp_path / "store")
    torch.set_num_threads(1)
    record, inside = run_one(tiny, tmp_path, methods=[METHOD])
    assert outside.ids() == inside.ids()
    np.testing.assert_array_equal(outside.arrays(record.id).image_scores, inside.arrays(record.id).image_scores)
    assert outside.record(record.id).evaluation == record.evaluation


def test_features_are_computed_once_for_all_seeds(write: Callable[..., Path], tmp_path: Path) -> None:
    config = {
        "backbone": "resnet18",
        "weights": "random",
        "layers": ["layer1"],
        "n_channels": 8,
        "transform": {"size": [32, 32]},
    }
    plan = write(methods=[{"method": "padim", "config": config}], seeds=2, protocol={"calibration_folds": 2})
    run_plan(plan, tmp_path / "store", engine=HereEngine())
    first, second = Store(tmp_path / "store").records()
    assert (first.features_cached, second.features_cached) == (False, True)
    assert first.weights[0]["pretrained"] is False
    assert any("random weights" in note for note in first.notes)
    run_plan(plan, tmp_path / "other", engine=HereEngine(), cache=False)
    uncached = Store(tmp_path / "other").records()
    assert [r.features_cached for r in uncached] == [False, False]
    assert not (tmp_path / "other/cache").exists()
    assert first.images_per_second is not None
    assert second.images_per_second is None, "speed is measured with the first seed"
    for cached, plain in zip((first, second), uncached, strict=True):
        assert cached.evaluation.image.auroc == pytest.approx(plain.evaluation.image.auroc, abs=1e-6)


def test_a_category_without_defects_gets_a_result_with_notes(tmp_path: Path, write: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        for index in range(count):
            save(tmp_path / f"ok/bolt/{split}/good/{index}.png", rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))
    run_plan(write(datasets=[str(tmp_path / "ok")]), tmp_path / "store", engine=HereEngine())
    (record,) = Store(tmp_path / "store").records()
    assert record.evaluation.image.auroc is None
    assert any("no defective test images" in note for note in record.evaluation.notes)
    assert bench_module.plan_status(tmp_path / "store").count("done") == 1
