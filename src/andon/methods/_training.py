"""What the trained methods share beside the loop itself (``andon.training.loop``)."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import Field

from andon.core import canonical_json
from andon.data.images import Images
from andon.methods.base import Method, MethodConfig
from andon.training.loop import TrainingOptions

__all__ = ["TrainedConfig", "budget_notes", "budgeted", "stage_options", "training_identity"]


class TrainedConfig(MethodConfig):
    """Base of the trained methods' Configs.

    Attributes:
        budget: part of the training's length that is trained, for demonstrations and tests; schedules are compressed
            likewise. The result's notes say so where it is not 1.
    """

    budget: float = Field(1.0, gt=0, le=1)


def budgeted(amount: float, budget: float) -> int:
    """``amount`` steps or epochs under a budget: at least 1."""
    return max(1, round(amount * budget))


def budget_notes(config: TrainedConfig, done: int, full: int, unit: str = "steps") -> tuple[str, ...]:
    """The note on a shortened training, for ``FitReport.notes``; nothing for a full one."""
    if config.budget == 1:
        return ()
    return (f"shortened training: {done:,} {unit} instead of {full:,} (budget {config.budget:g})",)


def stage_options(method: Method[Any], stage: str, *, channels_last: bool = False) -> TrainingOptions:
    """How a stage of a method's training is carried out: its checkpoint is where the method keeps them."""
    return TrainingOptions(
        channels_last=channels_last,
        checkpoint=None if method.checkpoints is None else method.checkpoints / f"{stage}.ckpt",
        checkpoint_seconds=method.checkpoint_seconds,
    )


def training_identity(method: Method[Any], train: Images, seed: int) -> str:
    """What a training run is: method, configuration, seed, and the content of its images in order.

    A checkpoint of another run is refused by it.
    """
    content = hashlib.blake2b(digest_size=16)
    for index in range(len(train)):
        content.update(train.fingerprint(index).encode())
    return canonical_json({**method.describe(), "seed": seed, "train": content.hexdigest()})
