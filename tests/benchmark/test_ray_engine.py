"""Experiments on a Ray cluster of two workers on this machine."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from andon.benchmark import Store, make_plan, run_plan
from andon.benchmark.engine import Job
from andon.benchmark.events import Event, ExperimentEvent, Failed, Finished, Progressed, Restarted, Started
from andon.benchmark.ray_engine import RayEngine
from andon.core import ConfigError, DataError
from tests.benchmark import jobs
from tests.benchmark.test_bench import FAKE, HereEngine
from tests.benchmark.tiny import write_tiny


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="Ray is not installed (andon[ray])")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("ANDON_CACHE", str(tmp_path_factory.mktemp("cache")))
        ray.init(
            num_cpus=2,
            object_store_memory=100 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield ray
        ray.shutdown()


def outcome(events: list[Event], job: str) -> Finished | Failed:
    (last,) = (e for e in events if e.id == job and isinstance(e, Finished | Failed))
    return last


@pytest.mark.ray
def test_each_job_ends_in_its_own_way(cluster: Any, tmp_path: Path) -> None:
    work = [
        Job("good", jobs.ok, ("x",)),
        Job("raises", jobs.fails),
        Job("user error", jobs.fails_for_the_user),
        Job("dies", jobs.dies),
        Job("dies once", jobs.dies_once, (tmp_path / "dies once",)),
        Job("hangs", jobs.hangs, timeout=1.0),
        Job("own process", jobs.writes, (tmp_path / "one",), log=tmp_path / "one.log"),
        Job("another", jobs.writes, (tmp_path / "two",)),
    ]
    events: list[Event] = []
    RayEngine(retries=1).run(work, events.append)

    for name in ("good", "dies once", "own process", "another"):
        assert isinstance(outcome(events, name), Finished), name
    failures = {e.id: e for e in events if isinstance(e, Failed)}
    assert {i: (f.kind, f.error) for i, f in failures.items()} == {
        "raises": ("error", "ZeroDivisionError"),
        "user error": ("error", "AndonError"),
        "dies": ("killed", ""),
        "hangs": ("timeout", ""),
    }
    assert failures["user error"].reason == "image.png: is no image"
    assert "on purpose" in failures["raises"].reason
    assert "ZeroDivisionError" in failures["raises"].detail
    assert "2 times" in failures["dies"].reason
    assert sorted(e.id for e in events if isinstance(e, Restarted)) == ["dies", "dies once"]
    assert [type(e) for e in events if e.id == "good"] == [Started, Progressed, Progressed, Finished]

    said = [(tmp_path / name).read_text().split() for name in ("one", "two")]
    assert said[0][0] != said[1][0], "each has a process of its own"
    assert {threads for _, threads, _ in said} == {"1"}
    assert {"from below", "printed"} <= set((tmp_path / "one.log").read_text().split("\n"))


def run_tiny(tmp_path: Path, name: str, engine: Any, **config: Any) -> tuple[Store, list[Any]]:
    write_tiny(tmp_path / "data", categories=("bolt",))
    options = [f"{FAKE}:FakeMethod.{key}={value}" for key, value in config.items()]
    plan = make_plan([tmp_path / "data"], [f"{FAKE}:FakeMethod"], seeds=3, options=options)
    events: list[Any] = []
    summary = run_plan(plan, tmp_path / name, engine=engine, on_event=events.append)
    assert [f.reason for f in summary.failed] == []
    return Store(tmp_path / name), [e for e in events if isinstance(e, ExperimentEvent)]


def same_results(one: Store, other: Store) -> None:
    assert [r.spec.seed for r in one.records()] == [r.spec.seed for r in other.records()] == [0, 1, 2]
    for a, b in zip(one.records(), other.records(), strict=True):
        assert a.evaluation == b.evaluation
        np.testing.assert_array_equal(one.arrays(a.id).image_scores, other.arrays(b.id).image_scores)


@pytest.mark.ray
def test_a_worker_killed_in_the_middle_costs_only_its_experiment(cluster: Any, tmp_path: Path) -> None:
    once = tmp_path / "once"
    store, events = run_tiny(tmp_path, "ray", RayEngine(), trouble="kill", trouble_seeds="[1]", once=once)
    begun_again = [e.spec.seed for e in events if isinstance(e.event, Restarted)]
    assert begun_again == [1]
    assert once.exists()
    assert [e.spec.seed for e in events if isinstance(e.event, Failed)] == []
    # ``once`` is there now: nobody kills anything here.
    here, _ = run_tiny(tmp_path, "here", HereEngine(), trouble="kill", trouble_seeds="[1]", once=once)
    same_results(store, here)
    assert list((tmp_path / "ray" / "failures").glob("*")) == []


class Blind(RayEngine):
    """Its workers do not see the run's store."""

    def run(self, jobs: Any, on_event: Any) -> None:
        work = list(jobs)
        for token in {job.args[-1] for job in work}:
            token.unlink()
        super().run(work, on_event)


@pytest.mark.ray
def test_without_a_shared_store_results_are_fetched_back(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, events = run_tiny(tmp_path, "fetched", Blind())
    assert sum(isinstance(e.event, Finished) for e in events) == 3
    here, _ = run_tiny(tmp_path, "here", HereEngine())
    same_results(store, here)
    record = store.records()[0]
    assert store.problems == []
    assert len(store.gallery("data", "bolt", record.spec.data_fingerprint)) > 0
    assert store.maps(record.id) is not None


@pytest.mark.ray
def test_what_no_node_has_is_refused(cluster: Any) -> None:
    with pytest.raises(ConfigError, match=r"no node of the Ray cluster has the 64 CPU and 0 GPU.*2 CPU and 0 GPU"):
        RayEngine(threads=64).run([Job("a", jobs.ok, ("x",))], lambda event: None)
    with pytest.raises(ConfigError, match="1 CPU and 1 GPU"):
        RayEngine(gpus=1).run([Job("a", jobs.ok, ("x",))], lambda event: None)


@pytest.mark.ray
def test_an_exception_from_the_listener_ends_all(cluster: Any, tmp_path: Path) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Finished):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RayEngine().run([Job("good", jobs.ok, ("x",)), Job("h", jobs.hangs)], listen)
    events: list[Event] = []
    RayEngine(threads=2).run([Job("again", jobs.ok, ("x",))], events.append)  # both CPUs are free again
    assert isinstance(outcome(events, "again"), Finished)


@pytest.mark.ray
def test_an_address_where_nobody_answers_is_told_at_once(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (andon[ray])")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"no Ray cluster answers at {address}"):
            RayEngine(address).check()
    with pytest.raises(ConfigError, match="no Ray cluster answers"):
        RayEngine("127.0.0.1:99999999").check()


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'andon\[ray\]'"):
        RayEngine().run([Job("a", jobs.ok, ("x",))], lambda event: None)
    with pytest.raises(ConfigError, match="threads must be at least 1"):
        RayEngine(threads=0)


def test_a_worker_with_other_data_or_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from andon.benchmark import remote

    monkeypatch.setattr(remote, "redirect_output", lambda log: None)
    monkeypatch.setenv("ANDON_CACHE", str(tmp_path / "cache"))
    taken: list[Job] = []

    class Taking(HereEngine):
        def run(self, jobs: Any, on_event: Any) -> None:
            taken.extend(jobs)
            for token in {job.args[-1] for job in taken}:
                token.unlink()

    write_tiny(tmp_path / "data", categories=("bolt",))
    method = tmp_path / "mine.py"
    method.write_text(FAKE.read_text())
    run_plan(make_plan([tmp_path / "data"], [f"{method}:FakeMethod"]), tmp_path / "store", engine=Taking())
    job, token = taken[0].args
    assert isinstance(remote.remote_experiment_job(job, token, lambda *_: None), remote.FetchedResult)
    image = next((tmp_path / "data" / "bolt" / "train" / "good").glob("*.png"))
    content = image.read_bytes()
    image.write_bytes(content + b"\0")
    with pytest.raises(DataError, match="other images there than this run was planned with"):
        remote.remote_experiment_job(job, token, lambda *_: None)
    image.write_bytes(content)
    method.write_text(f"{FAKE.read_text()}\n# changed\n")
    with pytest.raises(ConfigError, match="other code for it"):
        remote.remote_experiment_job(job, token, lambda *_: None)
