"""One training loop for everything that is trained: checkpoints, resuming, schedules per step, loss curves.

A run that is killed at any moment and started again goes on from its last checkpoint and ends bit for bit where it
would have ended, on one machine. That holds because everything random is either a pure function of the seed and the
number of the step (``SampleOrder``, ``step_generator``), which also lets the next batch be made while a step computes,
or has its state in the checkpoint: generators that are handed in, and torch's own for layers that draw by themselves
(dropout), which is set apart for the run, so that nobody else's is touched.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from andon._tools.files import written_atomically
from andon.core import AndonError, ProgressCallback, no_progress

__all__ = [
    "LossCurve",
    "SampleOrder",
    "Schedule",
    "TrainingOptions",
    "TrainingReport",
    "cosine_schedule",
    "numpy_step_generator",
    "step_decay",
    "step_generator",
    "steps_of_epochs",
    "train",
]

Schedule = Callable[[int], float]
"""The factor on every learning rate at step 0, 1, 2, …: a function of the step, so it cannot be stepped wrongly."""

BatchT = TypeVar("BatchT")
_FORMAT = 1
_TOTAL = "loss"
"""Name of the sum of all losses in curves; a single loss keeps its own name."""
_WARM_UP = 20
"""Losses of this many steps say what is normal for a run."""
_FLUSH_CUDA = 16
"""Losses stay on a GPU for this many steps: reading each at once would make it wait for the CPU."""
_PROGRESS_SECONDS = 0.1


# Randomness that is a function of the step


def _derived_seed(seed: int, names: tuple[str | int, ...]) -> int:
    digest = hashlib.blake2b(repr((int(seed), *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def step_generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for (seed, names), e.g. ``step_generator(seed, "augmentation", step)``: the same every time."""
    return torch.Generator(device).manual_seed(_derived_seed(seed, names))


def numpy_step_generator(seed: int, *names: str | int) -> np.random.Generator:
    """``step_generator`` for numpy."""
    return np.random.default_rng(_derived_seed(seed, names))


class SampleOrder:
    """The order in which samples are drawn, as a pure function of the step: epoch after epoch, each shuffled anew.

    Batches run on over the end of an epoch, so each has ``batch_size`` samples and every sample is seen equally often.

    Args:
        count: number of samples, at least 1.
        batch_size: samples a step.
        seed: of the shuffling.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        if count < 1 or batch_size < 1:
            raise ValueError(f"count and batch_size must be at least 1, not {count} and {batch_size}")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._epoch: tuple[int, np.ndarray[Any, np.dtype[np.int64]]] | None = None

    def __call__(self, step: int) -> list[int]:
        """Indices of the samples of a step."""
        chosen = []
        for position in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, place = divmod(position, self.count)
            known = self._epoch
            if known is None or known[0] != epoch:
                known = epoch, numpy_step_generator(self.seed, "epoch", epoch).permutation(self.count)
                self._epoch = known
            chosen.append(int(known[1][place]))
        return chosen


def steps_of_epochs(epochs: float, count: int, batch_size: int) -> int:
    """Steps in which ``count`` samples are seen ``epochs`` times, at least 1."""
    return max(1, math.ceil(epochs * count / batch_size))


# Schedules


def step_decay(steps: int, at: float | Sequence[float] = 0.95, factor: float = 0.1) -> Schedule:
    """1, and ``factor`` from the fraction ``at`` of all steps on; of several fractions each multiplies by it again."""
    borders = [int(fraction * steps) for fraction in ([at] if isinstance(at, int | float) else at)]
    return lambda step: factor ** sum(step >= border for border in borders)


def cosine_schedule(steps: int, warm_up: int = 0, final: float = 0.0) -> Schedule:
    """Linear from 0 over ``warm_up`` steps to 1, then half a cosine down to ``final`` at the last step."""

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / (warm_up + 1)
        done = (step - warm_up) / max(1, steps - 1 - warm_up)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor


# Loss curves


@dataclass
class LossCurve:
    """The course of named losses in at most ``limit`` (even) points, each the mean over as many steps as the others.

    When it is full, neighbours are merged: the interval doubles. Memory does not depend on the number of steps.
    """

    limit: int = 500
    interval: int = 1
    points: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    _sums: dict[str, float] = field(default_factory=dict)
    _count: int = 0
    _steps: int = 0

    def add(self, losses: Mapping[str, float]) -> None:
        """Takes the losses of the next step; the same names every time."""
        self._steps += 1
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if self._count < self.interval:
            return
        for name, total in self._sums.items():
            self.points.setdefault(name, []).append((self._steps, total / self._count))
        self._sums, self._count = {}, 0
        if any(len(points) >= self.limit for points in self.points.values()):
            self.interval *= 2
            self.points = {
                name: [(b[0], (a[1] + b[1]) / 2) for a, b in zip(points[::2], points[1::2], strict=True)]
                for name, points in self.points.items()
            }

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """``{name: [(steps done, mean loss since the point before), …]}``, the unfinished last interval included."""
        curves = {name: list(points) for name, points in self.points.items()}
        if self._count:
            for name, total in self._sums.items():
                curves.setdefault(name, []).append((self._steps, total / self._count))
        return curves

    def to_json(self) -> str:
        return json.dumps([self.limit, self.interval, self.points, self._sums, self._count, self._steps])

    @classmethod
    def from_json(cls, text: str) -> LossCurve:
        limit, interval, points, *rest = json.loads(text)
        return cls(limit, interval, {n: [(int(s), v) for s, v in p] for n, p in points.items()}, *rest)


# The loop


@dataclass(frozen=True)
class TrainingOptions:
    """How a run is carried out; none of it is a hyperparameter of a paper but ``clip_norm``.

    Attributes:
        clip_norm: largest norm of all gradients together; None does not clip.
        autocast: bfloat16 where the device is a GPU that has it. On CPUs it is never used: it is far slower there.
        channels_last: memory format of networks and images; changes results by rounding only.
        checkpoint: file of the run's state; None keeps none. It stays when the run ends, for a run of several stages;
            whoever has stored the result removes it.
        checkpoint_seconds: least time between two checkpoints.
        prefetch: make the next batch in a thread while a step computes.
        explosion: stop when a loss is this many times the largest that it was in the first 20 steps.
    """

    clip_norm: float | None = None
    autocast: bool = False
    channels_last: bool = False
    checkpoint: Path | None = None
    checkpoint_seconds: float = 60.0
    prefetch: bool = True
    explosion: float = 1e3


@dataclass(frozen=True)
class TrainingReport:
    """What a run did.

    Attributes:
        steps: all steps, those before a resumption included.
        seconds: of all steps likewise.
        curves: ``{loss: [(steps done, mean), …]}``, at most 500 points each.
        resumed_at: the step from which this call went on; 0 for a run from the start.
        autocast: whether bfloat16 was used.
    """

    steps: int
    seconds: float
    curves: Mapping[str, list[tuple[int, float]]]
    resumed_at: int = 0
    autocast: bool = False

    @property
    def final_loss(self) -> float:
        """Mean of the total loss over the last tenth of the curve's points (at least one)."""
        points = self.curves.get(_TOTAL) or next(iter(self.curves.values()))
        tail = points[-max(1, len(points) // 10) :]
        return sum(value for _, value in tail) / len(tail)


def train(
    step: Callable[[int, BatchT], Mapping[str, torch.Tensor]],
    batches: Callable[[int], BatchT],
    *,
    steps: int,
    modules: Mapping[str, nn.Module],
    optimiser: Optimizer,
    schedule: Schedule | None = None,
    seed: int = 0,
    generators: Mapping[str, torch.Generator | np.random.Generator] | None = None,
    identity: str = "",
    device: torch.device | str = "cpu",
    options: TrainingOptions | None = None,
    stage: str = "train",
    progress: ProgressCallback = no_progress,
) -> TrainingReport:
    """Trains for ``steps`` steps, or goes on from the checkpoint.

    Args:
        step: ``step(number, batch)`` gives named scalar losses; the sum of those with a gradient is minimised, the
            others are only recorded. It runs with gradients and, where asked for, autocast.
        batches: ``batches(number)`` gives a step's batch: a pure function of the number (use ``SampleOrder`` and
            ``step_generator``), called from a thread with ``prefetch``. Tensors in it (also in tuples, lists and
            dicts) are moved to ``device``.
        modules: all networks whose state changes, by name, in training mode as the caller set them. State that the
            optimiser does not see (codebooks, running means) must lie in their buffers or parameters.
        optimiser: over parameters of the modules.
        schedule: factor on the optimiser's learning rates by step; None leaves them.
        seed: of layers that draw by themselves (dropout).
        generators: stateful generators that ``step`` draws from (not ``batches``); their states are in the checkpoint.
        identity: what the run is (JSON of its configuration, say): a checkpoint of another run is refused.
        device: where the modules are.
        stage: name of the progress stage; the current loss follows it, as in "train · loss 0.0123".

    Raises:
        AndonError: a loss that is not finite or explodes; a checkpoint that is damaged or of another run.
    """
    options = options or TrainingOptions()
    device = torch.device(device)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    run = _Run(modules, optimiser, generators or {}, f"{stage}\n{steps}\n{seed}\n{identity}", options, stage)
    if options.channels_last:
        for module in modules.values():
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for group in optimiser.param_groups:
        group.setdefault("initial_lr", group["lr"])
    autocast = options.autocast and device.type == "cuda" and torch.cuda.is_bf16_supported()
    context: Callable[[], AbstractContextManager[object]] = (
        (lambda: torch.autocast("cuda", dtype=torch.bfloat16)) if autocast else nullcontext
    )
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(_derived_seed(seed, ("layers", stage)))
        resumed_at = run.restore()
        watch = _LossWatch(run.curve, stage, options.explosion, resumed_at, 1 if device.type == "cpu" else _FLUSH_CUDA)
        started, shown = time.monotonic(), -math.inf
        saved = started
        with _Ahead(batches, range(resumed_at, steps), options.prefetch) as source:
            for number, batch in source:
                for group in optimiser.param_groups:
                    group["lr"] = group["initial_lr"] * (schedule(number) if schedule else 1.0)
                with context():
                    losses = step(number, _moved(batch, device, options.channels_last))
                    total = _total(losses)
                optimiser.zero_grad(set_to_none=True)
                total.backward()  # type: ignore[no-untyped-call]
                watch.see(number, losses, total)
                if options.clip_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, options.clip_norm)
                optimiser.step()
                now, done = time.monotonic(), number + 1
                if done == steps or (options.checkpoint and now - saved >= options.checkpoint_seconds):
                    watch.flush()
                    run.save(done, run.seconds + now - started)
                    saved = time.monotonic()
                if done == steps or now - shown >= _PROGRESS_SECONDS:
                    progress(f"{stage} · loss {watch.latest:.4g}", done, steps)
                    shown = now
        optimiser.zero_grad(set_to_none=True)
        seconds = run.seconds + time.monotonic() - started
    return TrainingReport(steps, seconds, run.curve.curves(), resumed_at, autocast)


def _total(losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
    counted = [loss for loss in losses.values() if loss.requires_grad]
    if not counted:
        raise ValueError("no loss has a gradient")
    return sum(counted[1:], start=counted[0])


def _moved(batch: Any, device: torch.device, channels_last: bool) -> Any:
    if isinstance(batch, torch.Tensor):
        if channels_last and batch.ndim == 4:
            return batch.to(device, non_blocking=True, memory_format=torch.channels_last)
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: _moved(value, device, channels_last) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        moved = [_moved(value, device, channels_last) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch


class _Ahead(Generic[BatchT]):
    """The batches of some steps, each made in a thread while the step before computes."""

    def __init__(self, batches: Callable[[int], BatchT], numbers: range, prefetch: bool) -> None:
        self._batches, self._numbers = batches, numbers
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="andon-batch") if prefetch else None

    def __enter__(self) -> Iterator[tuple[int, BatchT]]:
        return self._iterate()

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _iterate(self) -> Iterator[tuple[int, BatchT]]:
        if self._pool is None:
            for number in self._numbers:
                yield number, self._batches(number)
            return
        ahead: Future[BatchT] | None = None
        for number in self._numbers:
            batch = (ahead or self._pool.submit(self._batches, number)).result()
            ahead = self._pool.submit(self._batches, number + 1) if number + 1 in self._numbers else None
            yield number, batch
            del batch  # not two batches beside the one that is made


class _LossWatch:
    """Records losses and stops a run that has gone wrong, before any checkpoint of it is written."""

    def __init__(self, curve: LossCurve, stage: str, explosion: float, first: int, every: int) -> None:
        self.latest = math.nan
        self._curve, self._stage, self._explosion, self._every = curve, stage, explosion, every
        self._pending: list[tuple[int, list[str], torch.Tensor]] = []
        # After a resumption the curve knows how large losses are; its points are means of the same losses.
        self._largest = {name: max(abs(v) for _, v in points[:_WARM_UP]) for name, points in curve.points.items()}
        self._seen = first

    def see(self, step: int, losses: Mapping[str, torch.Tensor], total: torch.Tensor) -> None:
        names, values = list(losses), [loss.detach().float() for loss in losses.values()]
        if len(names) > 1 and _TOTAL not in names:
            names, values = [*names, _TOTAL], [*values, total.detach().float()]
        self._pending.append((step, names, torch.stack(values)))
        if len(self._pending) >= self._every:
            self.flush()

    def flush(self) -> None:
        pending, self._pending = self._pending, []
        for step, names, values in pending:
            losses = dict(zip(names, values.tolist(), strict=True))
            for name, value in losses.items():
                self._check(step, name, value)
            self._seen += 1
            self._curve.add(losses)
            self.latest = losses.get(_TOTAL, next(iter(losses.values())))

    def _check(self, step: int, name: str, value: float) -> None:
        advice = "use a smaller learning rate, clip gradients, or look for broken images among the training ones"
        if not math.isfinite(value):
            raise AndonError(f"{self._stage}: loss {name!r} is {value} at step {step + 1}; {advice}")
        largest = self._largest.get(name, 0.0)
        if self._seen < _WARM_UP:
            self._largest[name] = max(largest, abs(value))
        elif value > self._explosion * max(largest, 1.0):
            raise AndonError(
                f"{self._stage}: loss {name!r} explodes: {value:.3g} at step {step + 1}, at most {largest:.3g} in the "
                f"beginning; {advice}"
            )


class _Run:
    """The state of a run, and its checkpoint."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        optimiser: Optimizer,
        generators: Mapping[str, torch.Generator | np.random.Generator],
        identity: str,
        options: TrainingOptions,
        stage: str,
    ) -> None:
        self.modules, self.optimiser, self.generators = modules, optimiser, generators
        self.identity, self.stage = identity, stage
        self.path = options.checkpoint
        self.curve, self.seconds = LossCurve(), 0.0
        self._warned = False

    def save(self, done: int, seconds: float) -> None:
        if self.path is None:
            return
        state = {
            "format": _FORMAT,
            "identity": self.identity,
            "step": done,
            "seconds": seconds,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimiser": self.optimiser.state_dict(),
            "generators": {name: _state_of(generator) for name, generator in self.generators.items()},
            "layers": [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if _cuda_used() else [])],
            "curve": self.curve.to_json(),
        }
        try:
            with written_atomically(self.path) as aside:
                torch.save(state, aside)
        except (OSError, RuntimeError) as error:
            # Hours of training must not end because there is no room for a checkpoint.
            if not self._warned:
                warnings.warn(f"checkpoint {self.path}: cannot be written ({error}); going on without", stacklevel=3)
            self._warned = True

    def restore(self) -> int:
        """Steps that are done: 0 where there is no checkpoint."""
        if self.path is None or not self.path.is_file():
            return 0
        what = f"checkpoint {self.path}"
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or state.get("format") != _FORMAT:
                raise ValueError("not a checkpoint of this version")
            identity = state["identity"]
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as e:
            reason = (str(e).strip() or type(e).__name__).splitlines()[0][:200]
            raise AndonError(f"{what}: cannot be read ({reason}); remove it to start from the beginning") from e
        if identity != self.identity:
            raise AndonError(f"{what}: is of another run (other options); remove it, or name another file")
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        for name, generator in self.generators.items():
            _restore(generator, state["generators"][name])
        layers = state["layers"]
        torch.set_rng_state(layers[0])
        if len(layers) > 1 and _cuda_used():
            torch.cuda.set_rng_state_all(layers[1:])
        self.curve, self.seconds = LossCurve.from_json(state["curve"]), float(state["seconds"])
        return int(state["step"])


def _cuda_used() -> bool:
    return torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _state_of(generator: torch.Generator | np.random.Generator) -> torch.Tensor | str:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return json.dumps(generator.bit_generator.state, default=lambda array: {"array": array.tolist()})


def _restore(generator: torch.Generator | np.random.Generator, state: torch.Tensor | str) -> None:
    if isinstance(generator, torch.Generator):
        assert isinstance(state, torch.Tensor)
        generator.set_state(state)
    else:
        assert isinstance(state, str)
        generator.bit_generator.state = json.loads(state, object_hook=lambda d: d.get("array", d))
