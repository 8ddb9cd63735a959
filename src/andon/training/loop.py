"""One training loop for everything that is trained: checkpoints, resuming, schedules per step, loss curves.

A run that is killed at any moment and started again goes on from its last checkpoint and ends bit for bit where it
would have ended, on one machine. That holds because everything random is either a pure function of the seed and the
number of the step (``SampleOrder``, ``step_generator``), which also lets the next batch be made while a step computes,
or has its state in the checkpoint: generators that are handed in, and torch's own for layers that draw by themselves
(dropout), which is set apart for the run, so that nobody else's is touched.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from andon._tools.seeds import derived_seed
from andon.core import ProgressCallback, no_progress
from andon.training.checkpoint import RunState
from andon.training.curves import TOTAL, LossWatch
from andon.training.schedules import Schedule

__all__ = ["TrainingOptions", "TrainingReport", "train"]

BatchT = TypeVar("BatchT")
_FLUSH_CUDA = 16
"""Losses stay on a GPU for this many steps: reading each at once would make it wait for the CPU."""
_PROGRESS_SECONDS = 0.1


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
        points = self.curves.get(TOTAL) or next(iter(self.curves.values()))
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
        step: ``step(number, batch)`` gives named scalar losses; the sum of those with a gradient is minimised.
        batches: ``batches(number)`` gives a step's batch: a pure function of the number (use ``SampleOrder`` and
            ``step_generator``), called from a thread with ``prefetch``; tensors in it are moved to ``device``.
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
        TrainingError: a loss that is not finite or explodes; a checkpoint that is damaged or of another run.
    """
    options, device = options or TrainingOptions(), torch.device(device)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    what = f"{stage}\n{steps}\n{seed}\n{identity}"
    state = RunState(modules, optimiser, generators or {}, what, options.checkpoint, stage)
    if options.channels_last:
        for module in modules.values():
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(derived_seed(seed, "layers", stage))
        resumed_at = state.restore()
        watch = LossWatch(state.curve, stage, options.explosion, resumed_at, 1 if not devices else _FLUSH_CUDA)
        clock = _Clock(state, watch, steps, options, progress)
        stepper = _Stepper(step, optimiser, schedule, options, device)
        with _Ahead(batches, range(resumed_at, steps), options.prefetch) as source:
            for number, batch in source:
                watch.see(number, *stepper(number, batch))
                stepper.apply()
                clock.stepped(number + 1)
        optimiser.zero_grad(set_to_none=True)
    return TrainingReport(steps, clock.seconds(), state.curve.curves(), resumed_at, stepper.autocast)


class _Stepper(Generic[BatchT]):
    """One step: losses and gradients; then, when the losses were looked at, the optimiser's move."""

    def __init__(
        self,
        step: Callable[[int, BatchT], Mapping[str, torch.Tensor]],
        optimiser: Optimizer,
        schedule: Schedule | None,
        options: TrainingOptions,
        device: torch.device,
    ) -> None:
        self.autocast = options.autocast and device.type == "cuda" and torch.cuda.is_bf16_supported()
        self._step, self._optimiser, self._schedule = step, optimiser, schedule
        self._options, self._device = options, device
        for group in optimiser.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def __call__(self, number: int, batch: BatchT) -> tuple[Mapping[str, torch.Tensor], torch.Tensor]:
        """Named losses and their sum, whose gradients are then in the parameters."""
        for group in self._optimiser.param_groups:
            group["lr"] = group["initial_lr"] * (self._schedule(number) if self._schedule else 1.0)
        with torch.autocast("cuda", dtype=torch.bfloat16) if self.autocast else nullcontext():
            losses = self._step(number, _moved(batch, self._device, self._options.channels_last))
            total = _total(losses)
        self._optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        return losses, total

    def apply(self) -> None:
        if self._options.clip_norm is not None:
            parameters = [p for group in self._optimiser.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self._options.clip_norm)
        self._optimiser.step()


class _Clock:
    """When a run's state is saved and its progress is shown."""

    def __init__(
        self, state: RunState, watch: LossWatch, steps: int, options: TrainingOptions, progress: ProgressCallback
    ) -> None:
        self._state, self._watch, self._steps, self._options = state, watch, steps, options
        self._progress = progress
        self._before = state.seconds
        self._started, self._shown = time.monotonic(), -math.inf
        self._saved = self._started

    def seconds(self) -> float:
        """Of all steps, those before a resumption included."""
        return self._before + time.monotonic() - self._started

    def stepped(self, done: int) -> None:
        now, last, options = time.monotonic(), done == self._steps, self._options
        if last or (options.checkpoint and now - self._saved >= options.checkpoint_seconds):
            self._watch.flush()
            self._state.save(done, self._before + now - self._started)
            self._saved = time.monotonic()
        if last or now - self._shown >= _PROGRESS_SECONDS:
            self._progress(f"{self._state.stage} · loss {self._watch.latest:.4g}", done, self._steps)
            self._shown = now


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
