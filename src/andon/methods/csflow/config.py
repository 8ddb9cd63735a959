"""CS-Flow's hyperparameters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from andon.data import Transform
from andon.methods._flows import Clamping
from andon.methods.base import FeatureConfig, TrainedConfig

__all__ = ["CsflowConfig"]


class CsflowConfig(FeatureConfig, TrainedConfig):
    """Configuration; defaults as in the authors' repository.

    Attributes:
        backbone, weights: see ``andon.features.create_extractor``.
        layers: the one stage whose features are taken at every scale; the authors' is the 36th block of
            EfficientNet-B5 (304 channels, stride 32), the end of its sixth stage.
        scales: sizes at which the image is seen: whole, half, a quarter …
        downscaling: how it is halved: "nearest" (every second pixel, as the authors' code does it) or "area".
        kernels: side of the filters, one for each coupling block; their number is the flow's length.
        hidden: channels inside of a block's networks.
        clamp: α, the largest log scale of a coupling.
        clamping: form of the soft clamp: "arctan" (the authors') or "tanh".
        slope: of the leaky ReLU for what is negative.
        epochs: passes over the training images.
        train_batch_size: images a step.
        learning_rate, weight_decay, epsilon: of Adam.
        clip_norm: largest norm of all gradients together.
        standardise: fixed affine map of a scale's features before the flow: "none", or "whiten" to mean 0 and unit
            covariance over all positions of the training images, so that the flow begins as a Gaussian fit.
        image_score: "mean" of z²/2 over all that the flow gives, at all scales; or "max" of the map.
        map_scales: the map is the mean over channels of z²: of the "finest" scale, or the mean of "all", upsampled.
        sigma: Gaussian smoothing of the map, in pixels of the method's input; 0 for none.
        memory_limit: GiB of RAM for features of the training images; beyond it they are read from the cache at every
            step, or computed where there is no cache.
    """

    transform: Transform = Transform(size=(768, 768))
    backbone: str = "timm:tf_efficientnet_b5"
    layers: tuple[str, ...] = ("blocks.5",)
    scales: int = Field(3, ge=1, le=6)
    downscaling: Literal["nearest", "area"] = "nearest"
    kernels: tuple[int, ...] = Field((3, 3, 3, 5), min_length=1)
    hidden: int = Field(1024, ge=1)
    clamp: float = Field(3.0, gt=0)
    clamping: Clamping = "arctan"
    slope: float = Field(0.1, ge=0)
    epochs: float = Field(240, gt=0)
    train_batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    epsilon: float = Field(1e-4, gt=0)
    clip_norm: float = Field(1.0, gt=0)
    standardise: Literal["none", "whiten"] = "none"
    image_score: Literal["mean", "max"] = "mean"
    map_scales: Literal["finest", "all"] = "finest"
    sigma: float = Field(0.0, ge=0)
    memory_limit: float = Field(4.0, ge=0)

    @field_validator("layers")
    @classmethod
    def _one(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) != 1:
            raise ValueError(f"must be one stage, which every scale of the image goes through, not {list(value)}")
        return value

    @field_validator("kernels")
    @classmethod
    def _odd(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(side < 1 or side % 2 == 0 for side in value):
            raise ValueError(f"must be odd, so that a filter has a centre, not {list(value)}")
        return value

    @model_validator(mode="after")
    def _halves(self) -> CsflowConfig:
        least = 2 ** (self.scales - 1)
        if any(side % least for side in self.transform.output_size):
            raise ValueError(
                f"transform: sides must be multiples of {least} for {self.scales} scales, not "
                f"{self.transform.output_size}"
            )
        return self
