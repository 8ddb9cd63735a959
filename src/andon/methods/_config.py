"""Bases of the methods' Configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from andon._tools.models import FrozenModel
from andon.data import Transform

__all__ = ["DESIGNED_FEATURES", "LEARNED_FEATURES", "FeatureConfig", "MethodConfig", "TrainedConfig", "budgeted"]


class MethodConfig(FrozenModel):
    """Base of every method's Config: frozen, unknown options refused, every hyperparameter with the paper's default."""

    transform: Transform = Transform()
    batch_size: int = 32
    """Images a batch at prediction; changes speed and memory, never scores."""


class FeatureConfig(MethodConfig):
    """Base of the Configs of methods on a frozen extractor.

    Attributes:
        backbone, layers, weights: see ``andon.features.create_extractor``.
    """

    backbone: str = "wide_resnet50_2"
    layers: tuple[str, ...] = Field(("layer2", "layer3"), min_length=1)
    weights: str = "imagenet"


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


LEARNED_FEATURES: Mapping[str, Any] = {
    "backbone": "efficientnet_lite0",
    "weights": "imagenet",
    "layers": ("row3", "row5"),
    "transform": {"size": (256, 256)},
}
"""Options with which a method stands on the package's default features (docs/features.md)."""

DESIGNED_FEATURES: Mapping[str, Any] = {
    "backbone": "andon-features",
    "layers": ("cells",),
    "weights": "embedded",
    "transform": {"size": (224, 224), "crop": None},
}
"""Options with which a method stands on the designed features, for who may not use weights learned from ImageNet."""
