"""What a trained method says of one of its trainings; the loop does the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from andon.core import ProgressCallback, no_progress
from andon.training.loop import TrainingOptions, TrainingReport, train
from andon.training.schedules import Schedule

__all__ = ["Stage", "train_stage"]

BatchT = TypeVar("BatchT")


class Stage(ABC, Generic[BatchT]):
    """One training of a method: its networks, its batches, its losses.

    Attributes:
        name: "training", "decoders", "layer2": names the progress, the checkpoint and, where a method has several
            stages, the curves.
        full_steps: steps of the training at its whole length.
        steps: steps that are trained: fewer under a budget.
        channels_last: memory format of networks and images; changes results by rounding only.
        clip_norm: largest norm of all gradients together; None does not clip.
    """

    name: str
    full_steps: int
    steps: int
    channels_last: bool = False
    clip_norm: float | None = None

    @abstractmethod
    def modules(self) -> Mapping[str, nn.Module]:
        """All networks whose state the training changes, by name, in training mode."""

    @abstractmethod
    def optimiser(self) -> Optimizer:
        """A new optimiser over what is trained."""

    def schedule(self) -> Schedule | None:
        """The factor on the learning rate by step; None for a constant one."""
        return None

    @abstractmethod
    def batch(self, number: int) -> BatchT:
        """The batch of step ``number``: a pure function of it, called from a thread ahead of its time."""

    @abstractmethod
    def losses(self, batch: BatchT) -> Mapping[str, torch.Tensor]:
        """Named scalar losses of a batch on the networks' device; the sum of those with a gradient is minimised."""

    def close(self) -> None:
        """Drops what was kept for the training alone."""


def train_stage(
    stage: Stage[Any],
    *,
    seed: int,
    identity: str,
    device: torch.device,
    options: TrainingOptions,
    progress: ProgressCallback = no_progress,
) -> TrainingReport:
    """Trains a stage, or goes on from its checkpoint; arguments as for ``train``."""
    try:
        return train(
            lambda _, batch: stage.losses(batch),
            stage.batch,
            steps=stage.steps,
            modules=stage.modules(),
            optimiser=stage.optimiser(),
            schedule=stage.schedule(),
            seed=seed,
            identity=identity,
            device=device,
            options=options,
            stage=stage.name,
            progress=progress,
        )
    finally:
        stage.close()
