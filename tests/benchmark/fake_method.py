"""A tiny method that learns the mean image, and misbehaves when told to. Used by file path, as a user's would be."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import torch

from andon.core import Prediction, ProgressCallback, no_progress
from andon.data.images import ImageLike, Images, as_images
from andon.data.transform import Transform
from andon.methods.base import FitReport, Method, MethodConfig


class FakeConfig(MethodConfig):
    transform: Transform = Transform(size=(16, 16), normalisation="unit")
    batch_size: int = 3
    noise: float = 0.01
    trouble: Literal["none", "raise", "exit", "kill", "hang", "nan"] = "none"
    trouble_seeds: tuple[int, ...] = (0,)
    once: str = ""
    """With a file's name trouble comes only while there is no such file; it is made then."""


class FakeMethod(Method[FakeConfig]):
    name: ClassVar[str] = "fake"
    title: ClassVar[str] = "Fake"
    Config = FakeConfig

    def fit(
        self,
        train: Images | Iterable[ImageLike],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        progress: ProgressCallback = no_progress,
    ) -> FitReport:
        images = as_images(train)
        self.trouble(seed)
        total = torch.zeros(3, *self.transform.output_size)
        for indices, batch in images.batches(self.transform, self.config.batch_size):
            total += batch.sum(0)
            progress("mean", indices.stop, len(images))
        noise = torch.randn(total.shape, generator=torch.Generator().manual_seed(seed)) if self.seeded else 0.0
        self.mean = total / len(images) + self.config.noise * noise
        return FitReport(len(images), {"mean": 0.001}, notes=("a fake",), curves={"loss": [(0, 1.0)]})

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

    def predict_batch(self, batch: torch.Tensor) -> Prediction:
        maps = (batch - self.mean).abs().sum(1)
        scores = maps.amax((1, 2))
        if self.config.trouble == "nan":
            scores = scores * float("nan")
        return Prediction(scores.numpy(), maps.numpy(), self.transform.region)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"mean": self.mean}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        self.mean = state["mean"]


class Unseeded(FakeMethod):
    name = "fake-unseeded"
    title = "Unseeded"
    seeded = False


class Trained(FakeMethod):
    """Leaves a checkpoint, and says whether it found one."""

    name = "fake-trained"
    title = "Trained"
    trained = True

    def fit(
        self,
        train: Images | Iterable[ImageLike],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        progress: ProgressCallback = no_progress,
    ) -> FitReport:
        assert self.checkpoints is not None
        state = self.checkpoints / "state"
        found = state.exists()
        state.parent.mkdir(parents=True, exist_ok=True)
        state.touch()
        report = super().fit(train, seed=seed, device=device, progress=progress)
        return replace(report, notes=(f"checkpoint found: {found}",))
