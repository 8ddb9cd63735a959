"""A tiny method that learns the mean image, and misbehaves when told to. Used by file path, as a user's would be."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch

from andon.data import Transform
from andon.methods import Detector, Fitting, Method, MethodConfig
from andon.weights import WeightsRecord


class FakeConfig(MethodConfig):
    transform: Transform = Transform(size=(16, 16), normalisation="unit")
    batch_size: int = 3
    noise: float = 0.01
    trouble: Literal["none", "raise", "exit", "kill", "hang", "nan"] = "none"
    trouble_seeds: tuple[int, ...] = (0,)
    once: str = ""
    """With a file's name trouble comes only while there is no such file; it is made then."""


class FakeDetector(Detector):
    config: FakeConfig
    mean: torch.Tensor

    def __init__(self, config: FakeConfig, mean: torch.Tensor) -> None:
        super().__init__(config)
        self.register_buffer("mean", mean)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = (batch - self.mean).abs().sum(1)
        scores = maps.amax((1, 2))
        if self.config.trouble == "nan":
            scores = scores * float("nan")
        return scores, maps


class FakeMethod(Method[FakeConfig]):
    name: ClassVar[str] = "fake"
    title: ClassVar[str] = "Fake"
    Config = FakeConfig

    def learn(self, fitting: Fitting) -> FakeDetector:
        images, transform, seed = fitting.images, self.config.transform, fitting.seed
        self.trouble(seed)
        total = torch.zeros(3, *transform.output_size)
        with fitting.clock("mean"):
            for indices, batch in images.batches(transform, self.config.batch_size):
                total += batch.sum(0)
                fitting.progress("mean", indices.stop, len(images))
        noise = torch.randn(total.shape, generator=torch.Generator().manual_seed(seed)) if self.seeded else 0.0
        fitting.note("a fake")
        fitting.curve("loss", [(0, 1.0)])
        return FakeDetector(self.config, total / len(images) + self.config.noise * noise)

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> FakeDetector:
        return FakeDetector(self.config, torch.zeros(3, *self.config.transform.output_size))

    def trouble(self, seed: int) -> None:
        if seed not in self.config.trouble_seeds:
            return
        if self.config.once:
            if Path(self.config.once).exists():
                return
            Path(self.config.once).touch()
        match self.config.trouble:
            case "raise":
                raise ArithmeticError("the fit went astray")
            case "exit":
                os._exit(7)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(600)


class Unseeded(FakeMethod):
    name = "fake-unseeded"
    title = "Unseeded"
    seeded = False


class Trained(FakeMethod):
    """Leaves a checkpoint, and says whether it found one."""

    name = "fake-trained"
    title = "Trained"
    trained = True

    def learn(self, fitting: Fitting) -> FakeDetector:
        assert fitting.run.checkpoints is not None
        state = fitting.run.checkpoints / "state"
        found = state.exists()
        state.parent.mkdir(parents=True, exist_ok=True)
        state.touch()
        detector = super().learn(fitting)
        fitting.note(f"checkpoint found: {found}")
        return detector
