"""Hyperparameters of the positional Gaussians."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from andon.data import Transform
from andon.features import ANDON_FEATURES
from andon.methods.base import FeatureConfig

__all__ = ["CELLS", "PositionalGaussiansConfig"]

CELLS = "cells"
"""The stage of the designed features."""


class PositionalGaussiansConfig(FeatureConfig):
    """Configuration; defaults were chosen by measurement (docs/methods.md).

    Attributes:
        backbone, layers, weights: the learned features, see ``andon.features.create_extractor``.
        designed: andon-features, adapted to the good images, stand beside them as one more stage, "cells".
        score_stages: whose distances make the image score.
        map_stages: whose distances make the anomaly map.
        max_radius: largest tolerance of pose that is tried, in cells of a stage.
        radius: tolerance of pose of every stage; None: of each the one that the good images ask for.
        top: share of a stage's cells, those with the largest distances, whose mean is the stage's score.
        mix: part of the typical distance of all cells in that of each cell, 0 to 1.
        epsilon: added to the covariances' diagonal, in units of the mean variance of a stage's features.
        sigma: Gaussian smoothing of the map, in pixels of the method's input; 0 for none.
    """

    transform: Transform = Transform(size=(224, 224))
    backbone: str = "efficientnet_lite0"
    layers: tuple[str, ...] = Field(("row3", "row5"), min_length=1)
    weights: str = "imagenet"
    designed: bool = True
    score_stages: tuple[str, ...] = Field(("row5", CELLS), min_length=1)
    map_stages: tuple[str, ...] = Field(("row3", CELLS), min_length=1)
    max_radius: int = Field(2, ge=0, le=8)
    radius: int | None = Field(None, ge=0, le=8)
    top: float = Field(0.02, gt=0, le=1)
    mix: float = Field(0.25, ge=0, le=1)
    epsilon: float = Field(1e-4, gt=0)
    sigma: float = Field(4.0, ge=0)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of all stages, in the extractor's order."""
        return (*self.layers, CELLS) if self.designed else self.layers

    @property
    def radii(self) -> tuple[int, ...]:
        """Tolerances of pose that are tried, ascending."""
        return tuple(range(self.max_radius + 1)) if self.radius is None else (self.radius,)

    @model_validator(mode="after")
    def _known_stages(self) -> Self:
        if self.designed and self.backbone == ANDON_FEATURES:
            raise ValueError(f"backbone {ANDON_FEATURES} is the designed features; set designed to false")
        for option in ("score_stages", "map_stages"):
            chosen = getattr(self, option)
            unknown = [stage for stage in chosen if stage not in self.stages]
            if unknown or len(set(chosen)) < len(chosen):
                raise ValueError(f"{option} must be different ones of {', '.join(self.stages)}, not {list(chosen)}")
        return self
