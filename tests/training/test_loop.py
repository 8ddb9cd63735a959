"""The training loop: resuming, schedules, curves, and what it refuses."""

from __future__ import annotations

import gc
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from andon._tools.seeds import numpy_step_generator, step_generator
from andon.core import AndonError, TrainingError
from andon.training import (
    LossCurve,
    SampleOrder,
    TrainingOptions,
    TrainingReport,
    checkpoint,
    cosine_schedule,
    step_decay,
    steps_of_epochs,
    train,
)

STEPS = 12


class KilledError(Exception):
    """Stands for a process that ends in the middle of a step."""


def small_network() -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(4, 1, 3)
        )


def run(
    network: nn.Module,
    generators: dict[str, torch.Generator | np.random.Generator],
    options: TrainingOptions,
    *,
    steps: int = STEPS,
    kill_in: int = -1,
    identity: str = "",
    seed: int = 7,
) -> TrainingReport:
    """A run with everything that has state: Adam, a schedule, dropout, batch norm, two stateful generators."""
    order = SampleOrder(10, 4, seed=1)
    samples = torch.rand((10, 3, 8, 8), generator=step_generator(0, "samples"))

    def batches(step: int) -> torch.Tensor:
        return samples[order(step)] + 0.1 * torch.randn((4, 3, 8, 8), generator=step_generator(1, "noise", step))

    def step(number: int, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        if number == kill_in:
            raise KilledError
        shift = torch.rand((), generator=generators["torch"]) + generators["numpy"].random()
        return {"fit": (network(batch) - shift).square().mean(), "size": 0.1 * network[0].weight.square().mean()}

    return train(
        step,
        batches,
        steps=steps,
        modules={"network": network},
        optimiser=torch.optim.Adam(network.parameters(), lr=1e-2),
        schedule=cosine_schedule(steps, 2),
        seed=seed,
        generators=generators,
        identity=identity,
        options=options,
    )


def fresh_generators() -> dict[str, Any]:
    return {"torch": torch.Generator().manual_seed(5), "numpy": np.random.default_rng(5)}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kill_in", [1, 6, STEPS - 1])
def test_killed_and_resumed_is_bit_equal(tmp_path: Path, kill_in: int, channels_last: bool) -> None:
    whole = small_network()
    expected = run(whole, fresh_generators(), TrainingOptions(channels_last=channels_last, clip_norm=0.5))

    options = TrainingOptions(
        checkpoint=tmp_path / "run.checkpoint", checkpoint_seconds=0, channels_last=channels_last, clip_norm=0.5
    )
    with pytest.raises(KilledError):
        run(small_network(), fresh_generators(), options, kill_in=kill_in)
    resumed = small_network()
    report = run(resumed, fresh_generators(), options)

    assert report.resumed_at == kill_in
    assert report.curves == expected.curves
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert [p.name for p in tmp_path.iterdir()] == ["run.checkpoint"]


def test_sparse_checkpoints_repeat_the_steps_after_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from andon.training import loop as training

    clock = iter(float(i) for i in range(10_000))
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock))
    options = TrainingOptions(checkpoint=tmp_path / "c", checkpoint_seconds=5)
    with pytest.raises(KilledError):
        run(small_network(), fresh_generators(), options, kill_in=9)
    resumed, whole = small_network(), small_network()
    report = run(resumed, fresh_generators(), options)
    run(whole, fresh_generators(), TrainingOptions())
    assert 0 < report.resumed_at < 9
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    options = TrainingOptions(checkpoint=tmp_path / "c")
    first = small_network()
    run(first, fresh_generators(), options)
    again = small_network()
    report = run(again, fresh_generators(), options, kill_in=0)
    assert report.resumed_at == STEPS
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert report.final_loss > 0


def test_prefetch_changes_nothing() -> None:
    networks = [small_network(), small_network()]
    for network, prefetch in zip(networks, (True, False), strict=True):
        run(network, fresh_generators(), TrainingOptions(prefetch=prefetch))
    assert all(torch.equal(a, b) for a, b in zip(*(n.parameters() for n in networks), strict=True))


def test_the_global_generator_is_left_alone_and_does_not_matter() -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = small_network()
    run(first, fresh_generators(), TrainingOptions())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(456)
    second, other = small_network(), small_network()
    run(second, fresh_generators(), TrainingOptions())
    run(other, fresh_generators(), TrainingOptions(), seed=8)
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight), "the seed decides dropout"


def test_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    options = TrainingOptions(checkpoint=tmp_path / "c")
    run(small_network(), fresh_generators(), options)
    with pytest.raises(AndonError, match=r"checkpoint .*c: is of another run"):
        run(small_network(), fresh_generators(), options, identity="other")


@pytest.fixture(scope="module")
def half_way(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint in the middle of a run."""
    path = tmp_path_factory.mktemp("run") / "c"
    with pytest.raises(KilledError):
        run(small_network(), fresh_generators(), TrainingOptions(checkpoint=path, checkpoint_seconds=0), kill_in=6)
    return path.read_bytes()


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, torch.Tensor]:
    network = small_network()
    run(network, fresh_generators(), TrainingOptions())
    return network.state_dict()


def begins_again(path: Path, undisturbed: dict[str, torch.Tensor]) -> None:
    """A run with a damaged checkpoint says so once, sets it aside and ends as if there had been none."""
    damaged = path.read_bytes()
    network = small_network()
    with pytest.warns(UserWarning, match="damaged .* begins again") as said:
        report = run(network, fresh_generators(), TrainingOptions(checkpoint=path))
    assert len(said) == 1
    assert report.resumed_at == 0
    assert path.with_name("c.damaged").read_bytes() == damaged
    assert all(torch.equal(value, undisturbed[name]) for name, value in network.state_dict().items())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_checkpoint_is_set_aside_and_the_run_begins_again(
    data: st.DataObject,
    half_way: bytes,
    undisturbed: dict[str, torch.Tensor],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    kind = data.draw(st.sampled_from(["byte", "cut", "longer", "zeros", "other"]))
    content, place = bytearray(half_way), data.draw(st.integers(0, len(half_way) - 1))
    match kind:
        case "byte":
            content[place] ^= data.draw(st.integers(1, 255))
        case "cut":
            del content[place:]
        case "longer":
            content += data.draw(st.binary(min_size=1, max_size=50))
        case "zeros":
            content[place : place + 64] = b"\1" * 7 if place % 2 else bytes(65)
        case _:
            content = bytearray(data.draw(st.binary(max_size=200)))
    path = tmp_path_factory.mktemp("damaged") / "c"
    path.write_bytes(content)
    begins_again(path, undisturbed)


@pytest.mark.parametrize(
    "change", ["no modules", "other tensor", "other optimiser", "generators", "curve", "step", "list"]
)
def test_a_whole_checkpoint_that_does_not_fit_changes_nothing(
    tmp_path: Path, half_way: bytes, undisturbed: dict[str, torch.Tensor], change: str
) -> None:
    """Of another version of Andon, say: what was taken from it is undone."""
    path = tmp_path / "c"
    path.write_bytes(half_way)
    state: Any = dict(checkpoint._sealed_state(path, 2**30))
    match change:
        case "no modules":
            del state["modules"]
        case "other tensor":
            state["modules"]["network"]["4.weight"] = torch.zeros(2)
        case "other optimiser":
            state["optimiser"]["param_groups"] = []
        case "generators":
            state["generators"]["numpy"] = "{}"
        case "curve":
            state["curve"] = "[1]"
        case "step":
            state["step"] = -3
        case "list":
            state = [1]
    torch.save(state, path)
    checkpoint._seal(path)
    begins_again(path, undisturbed)


def test_a_checkpoint_with_code_is_not_run(tmp_path: Path, undisturbed: dict[str, torch.Tensor]) -> None:
    torch.save({"format": 2, "identity": Path("x")}, tmp_path / "c")
    checkpoint._seal(tmp_path / "c")
    begins_again(tmp_path / "c", undisturbed)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_no_checkpoint(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "c"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case _:
            path.mkdir()
    with pytest.raises(TrainingError, match=rf"checkpoint .*c: a {kind}, not a"):
        run(small_network(), fresh_generators(), TrainingOptions(checkpoint=path))


def test_a_checkpoint_of_a_terabyte_is_set_aside_unread(tmp_path: Path, undisturbed: dict[str, torch.Tensor]) -> None:
    with (tmp_path / "c").open("wb") as file:
        file.truncate(2**40)
    network = small_network()
    with pytest.warns(UserWarning, match=r"damaged \(1,099,511,627,728 bytes, more than one of this run can have\)"):
        run(network, fresh_generators(), TrainingOptions(checkpoint=tmp_path / "c"))
    assert all(torch.equal(value, undisturbed[name]) for name, value in network.state_dict().items())
    assert (tmp_path / "c.damaged").stat().st_size == 2**40


def test_a_checkpoint_that_would_take_memory_is_set_aside(tmp_path: Path, undisturbed: dict[str, torch.Tensor]) -> None:
    pickled = b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (10**11).to_bytes(6, "little") + b"\x85R."
    with zipfile.ZipFile(tmp_path / "c", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    checkpoint._seal(tmp_path / "c")
    begins_again(tmp_path / "c", undisturbed)


def test_what_a_kill_left_of_a_checkpoint_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".c.0123").write_bytes(b"torn")
    run(small_network(), fresh_generators(), TrainingOptions(checkpoint=tmp_path / "c"))
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_full_disk_does_not_end_the_run(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    network, plain = small_network(), small_network()
    with pytest.warns(UserWarning, match="cannot be written"):
        run(network, fresh_generators(), TrainingOptions(checkpoint=blocked / "c", checkpoint_seconds=0))
    run(plain, fresh_generators(), TrainingOptions())
    assert torch.equal(network[0].weight, plain[0].weight)


def one_weight(losses: Callable[[int, torch.Tensor], torch.Tensor], steps: int = 60, **options: Any) -> TrainingReport:
    weight = nn.Linear(1, 1, bias=False)
    return train(
        lambda number, _: {"fit": losses(number, weight.weight.sum())},
        lambda number: None,
        steps=steps,
        modules={"w": weight},
        optimiser=torch.optim.SGD(weight.parameters(), lr=1e-6),
        options=TrainingOptions(**options),
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_stops_the_run(tmp_path: Path, value: float) -> None:
    path = tmp_path / "c"
    with pytest.raises(AndonError, match=r"loss 'fit' is (nan|-?inf) at step 31; use a smaller learning rate"):
        one_weight(
            lambda n, w: w * 0 + (value if n == 30 else 1.0), checkpoint=path, checkpoint_seconds=0, prefetch=False
        )
    assert torch.load(path, weights_only=True)["step"] == 30, "the checkpoint is of before"


def test_exploding_loss_stops_the_run() -> None:
    with pytest.raises(AndonError, match=r"loss 'fit' explodes: 3e\+03 at step 41, at most 2 in the beginning"):
        one_weight(lambda n, w: w * 0 + (3000.0 if n == 40 else 2.0))


def test_high_losses_at_the_start_and_falling_negative_ones_are_no_explosion() -> None:
    one_weight(lambda n, w: w * 0 + (1e6 if n < 3 else 1e5))
    one_weight(lambda n, w: w * 0 - 10.0**n / 1e3, steps=30)


def test_losses_without_gradient_are_only_recorded() -> None:
    weight = nn.Parameter(torch.tensor(1.0))
    holder = nn.Module()
    holder.register_parameter("w", weight)
    report = train(
        lambda n, _: {"fit": weight * 2, "watched": torch.tensor(100.0)},
        lambda n: None,
        steps=1,
        modules={"m": holder},
        optimiser=torch.optim.SGD([weight], lr=0.25),
    )
    assert weight.item() == 0.5
    assert report.curves == {"fit": [(1, 2.0)], "watched": [(1, 100.0)], "loss": [(1, 2.0)]}
    with pytest.raises(ValueError, match="no loss has a gradient"):
        one_weight(lambda n, w: torch.tensor(1.0))


def test_rates_follow_the_schedule_step_by_step() -> None:
    # The gradient is 1 and SGD has no memory: the weight's steps are the rates.
    weight = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))
    holder = nn.Module()
    holder.register_parameter("w", weight)
    seen = []

    def step(number: int, _: None) -> dict[str, torch.Tensor]:
        seen.append(weight.item())
        return {"loss": weight + 0}

    schedule = step_decay(20, at=0.95, factor=0.1)
    train(
        step,
        lambda n: None,
        steps=20,
        modules={"m": holder},
        optimiser=torch.optim.SGD([weight], lr=0.5),
        schedule=schedule,
    )
    np.testing.assert_allclose(-np.diff([*seen, weight.item()]), [0.5] * 19 + [0.05], rtol=1e-12)


def test_several_decays_multiply() -> None:
    """PyTorch's own scheduler steps to the same factors."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.MultiStepLR(optimiser, [8, 9], gamma=0.2)
    schedule = step_decay(10, at=(0.8, 0.9), factor=0.2)
    for step in range(10):
        assert schedule(step) == pytest.approx(reference.get_last_lr()[0])
        optimiser.step()
        reference.step()
    assert step_decay(10, at=())(9) == 1


def test_gradients_are_clipped_together() -> None:
    weight = nn.Parameter(torch.zeros(2))
    holder = nn.Module()
    holder.register_parameter("w", weight)
    train(
        lambda n, _: {"loss": (weight * torch.tensor([3.0, 4.0])).sum()},
        lambda n: None,
        steps=1,
        modules={"m": holder},
        optimiser=torch.optim.SGD([weight], lr=1.0),
        options=TrainingOptions(clip_norm=1.0),
    )
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.6, -0.8]), rtol=1e-4, atol=0)


def test_progress_shows_the_loss_and_ends_at_the_total() -> None:
    calls: list[tuple[str, int, int]] = []
    weight = nn.Linear(1, 1)
    train(
        lambda n, _: {"fit": weight.weight.sum() * 0 + 0.25},
        lambda n: None,
        steps=5,
        modules={"w": weight},
        optimiser=torch.optim.SGD(weight.parameters(), lr=0.1),
        stage="student",
        progress=lambda *call: calls.append(call),
    )
    assert calls[0] == ("student · loss 0.25", 1, 5)
    assert calls[-1] == ("student · loss 0.25", 5, 5)


def test_memory_does_not_grow() -> None:
    alive = []

    def step(number: int, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        if number in (10, 50):
            gc.collect()
            alive.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
        return {"fit": network(batch).square().mean()}

    network = small_network()
    train(
        step,
        lambda n: torch.rand((2, 3, 8, 8), generator=step_generator(0, n)),
        steps=51,
        modules={"n": network},
        optimiser=torch.optim.Adam(network.parameters()),
        options=TrainingOptions(prefetch=False),
    )
    assert alive[1] <= alive[0]


@settings(deadline=None, max_examples=40)
@given(count=st.integers(1, 30), batch=st.integers(1, 12), steps=st.integers(1, 40))
def test_every_sample_is_drawn_equally_often(count: int, batch: int, steps: int) -> None:
    order = SampleOrder(count, batch, seed=4)
    drawn = [index for step in range(steps) for index in order(step)]
    assert len(drawn) == steps * batch
    for start in range(0, len(drawn) - count + 1, count):
        assert sorted(drawn[start : start + count]) == list(range(count))
    # A pure function: asked for out of order, by another object.
    assert SampleOrder(count, batch, seed=4)(steps - 1) == drawn[-batch:]


def test_epochs_are_shuffled_differently() -> None:
    order = SampleOrder(50, 50, seed=0)
    assert order(0) != order(1)
    assert order(0) != SampleOrder(50, 50, seed=1)(0)


def test_steps_of_epochs() -> None:
    assert steps_of_epochs(3, 10, 4) == 8
    assert steps_of_epochs(0.01, 10, 4) == 1


def test_step_generators_are_pure_and_independent() -> None:
    def first(*names: str | int) -> float:
        return float(torch.rand((), generator=step_generator(1, *names)))

    assert first("a", 2) == first("a", 2)
    assert len({first("a", 2), first("a", 3), first("b", 2)}) == 3
    assert numpy_step_generator(1, "a").random() == numpy_step_generator(1, "a").random()


def test_cosine_schedule_against_torch() -> None:
    factor = cosine_schedule(11)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=10)
    for step in range(11):
        assert factor(step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        theirs.step()
    warm = cosine_schedule(20, warm_up=4, final=0.1)
    assert [warm(i) for i in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert warm(19) == pytest.approx(0.1)


@settings(deadline=None, max_examples=30)
@given(values=st.lists(st.floats(-100, 100), min_size=1, max_size=300), limit=st.sampled_from([2, 4, 10]))
def test_curve_keeps_the_mean_whatever_is_merged(values: list[float], limit: int) -> None:
    curve = LossCurve(limit)
    for number, value in enumerate(values):
        curve.add({"a": value})
        if number % 7 == 3:
            curve = LossCurve.from_json(curve.to_json())
    points = curve.curves()["a"]
    assert len(points) <= limit
    assert points[-1][0] == len(values)
    ends = np.array([0] + [step for step, _ in points])
    weighted = float(np.sum(np.diff(ends) * [mean for _, mean in points]))
    assert weighted == pytest.approx(math.fsum(values), abs=1e-6)
