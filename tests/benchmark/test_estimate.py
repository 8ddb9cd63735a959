"""What a plan would cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from andon.benchmark import Store, estimate_plan, make_plan, run_plan
from andon.benchmark.estimate import Cost, PlanEstimate, RowEstimate
from andon.methods import Detector, Fitting, Method, MethodConfig, time_fit
from andon.methods.timed_fit import _grown
from andon.training import Stage
from tests.benchmark.test_bench import FAKE, HereEngine
from tests.benchmark.tiny import write_tiny


def test_stages_grow_with_the_power_that_two_fits_show() -> None:
    for power in (1.0, 1.5, 2.0):
        assert _grown(1.0, 2.0**power, 160) == pytest.approx(10.0**power * 2.0**power)
    assert _grown(1.0, 1.0, 160) == pytest.approx(10.0), "never below linear"
    assert _grown(1.0, 16.0, 160) == pytest.approx(1600.0), "nor above the square"
    assert _grown(0.001, 0.01, 160) == pytest.approx(0.1), "too short to see how it grows"


class _Training(Stage[torch.Tensor]):
    name = "training"

    def __init__(self, steps: int, seen: list[int]) -> None:
        self.full_steps = self.steps = steps
        self.net, self.seen = torch.nn.Linear(1, 1), seen

    def modules(self) -> dict[str, torch.nn.Module]:
        return {"net": self.net}

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.net.parameters(), 1e-3)

    def batch(self, number: int) -> torch.Tensor:
        return torch.ones(1, 1)

    def losses(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        import time

        self.seen.append(1)
        time.sleep(0.01)
        return {"loss": self.net(batch).square().mean()}


class _Scores(Detector):
    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, None]:
        return batch.mean((1, 2, 3)), None


class _Trained(Method[MethodConfig]):
    name, title, trained, Config = "trained", "Trained", True, MethodConfig
    seen: list[int]

    def learn(self, fitting: Fitting) -> Detector:
        fitting.train(_Training(10_000, self.seen))
        return _Scores(self.config)


def test_a_training_is_reckoned_from_a_few_steps() -> None:
    method = _Trained()
    method.seen = []
    timed = time_fit(method, [np.zeros((20, 20, 3), np.uint8)] * 3)
    assert len(method.seen) == 6
    assert timed.seconds > 10_000 * 0.01
    assert timed.seconds < 10_000 * 0.2
    assert timed.n_train == 3
    assert len(timed.detector.predict([np.ones((20, 20, 3), np.uint8)]).image_scores) == 1


def test_costs_are_in_proportion_to_images() -> None:
    cost = Cost(fit=10.0, rest=4.0, memory_mb=100.0, n_train=5, n_test=2, basis="")
    assert cost.scaled(5, 2) == 14.0
    assert cost.scaled(10, 1) == 22.0


def test_sums() -> None:
    def row(seconds: float | None, memory: float | None, done: int, failed: int, missing: int) -> RowEstimate:
        return RowEstimate("d", "c", "m", done, failed, missing, seconds, memory, "")

    found = PlanEstimate((row(10.0, 100.0, 1, 1, 2), row(None, None, 0, 0, 4), row(5.0, 300.0, 0, 0, 1)), jobs=2)
    assert (found.todo, found.unknown, found.seconds) == (8, 4, 35.0)
    assert found.wall_seconds == 17.5
    assert found.memory_mb == 400.0


def test_from_the_store_and_from_timed_steps(tmp_path: Path) -> None:
    data = write_tiny(tmp_path / "data", categories=("bolt",))
    reference = f"{FAKE}:FakeMethod"
    run_plan(make_plan([data], [reference]), tmp_path / "store", engine=HereEngine())
    (record,) = Store(tmp_path / "store").records()
    before = sorted(path for path in (tmp_path / "store").rglob("*"))
    write_tiny(tmp_path / "data", categories=("nut",), train=10, good=6)
    plan = make_plan([data], [reference, "thumbnail-nn"], seeds=2, options=["thumbnail-nn.transform.size=[16, 16]"])
    found = estimate_plan(plan, tmp_path / "store", jobs=1)
    rows = {(row.category, row.label): row for row in found.rows}
    bolt, nut = rows["bolt", "Fake"], rows["nut", "Fake"]
    assert (bolt.done, bolt.missing, bolt.basis) == (1, 1, "1 in the store")
    assert bolt.seconds == pytest.approx(record.seconds)
    assert (nut.done, nut.missing, nut.basis) == (0, 2, "1 in the store of other categories")
    fit = record.fit_seconds["total"]
    assert nut.seconds == pytest.approx(fit * 10 / 5 + (record.seconds - fit) * 10 / 7)
    timed = [row for row in found.rows if row.label.startswith("Thumbnail")]
    assert {row.basis for row in timed} == {"timed steps"}
    assert all(row.seconds and row.memory_mb and row.missing == 1 for row in timed)
    assert sorted(path for path in (tmp_path / "store").rglob("*")) == before, "nothing is written"
