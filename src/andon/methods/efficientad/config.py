"""EfficientAD's hyperparameters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from andon.data import Transform
from andon.methods.base import TrainedConfig
from andon.methods.efficientad.pdn import PDNSize

__all__ = ["EfficientAdConfig"]

_SMALLEST = 64


class EfficientAdConfig(TrainedConfig):
    """Configuration; the defaults are the paper's.

    Attributes:
        size: of the patch description networks: "small" (EfficientAD-S) or "medium" (EfficientAD-M).
        teacher: "pdn" (the paper's), or the name of a frozen extractor (``andon.features.create_extractor``), whose
            features the student then predicts, interpolated to its own grid.
        layers: stages of an extractor as teacher; empty for "pdn".
        weights: of the teacher: for "pdn" see ``pdn.load_teacher``, for an extractor ``create_extractor``.
        student_width: factor on the channels of the student's layers before its last; 1 in the paper.
        latent: channels of the autoencoder's bottleneck.
        autoencoder_width: channels of the autoencoder's layers (half as many in its first two).
        dropout: in the autoencoder's decoder, in training.
        steps: of the training.
        epochs: length of the training in passes over the training images, in place of ``steps``.
        train_batch_size: images a step.
        learning_rate, weight_decay: of Adam.
        decay_at, decay: part of the training after which the learning rate is multiplied by ``decay``.
        hard_quantile: p_hard: the student–teacher loss is of the squared differences at or above this quantile.
        penalty: images on which the student shall say nothing: a folder, "rendered" or "rendered:SEED" (formulas
            instead of the paper's ImageNet), or "none".
        penalty_images: number of different penalty images; None for all, endlessly many where rendered.
        penalty_grey: probability with which a penalty image loses its colours.
        jitter: largest change of brightness, contrast or saturation, for the autoencoder's image.
        validation_share: part of the training images on which maps are normalised, and which are not trained on.
        extra_normalisation: normalise maps on all training images (the study's section 6.4).
        quantiles: of the maps that become 0 and 0.1.
        map_padding: what the border is that the network without padding does not describe: "zeros" as in the paper, or
            the nearest value ("edge").
        memory_limit: GiB that teacher outputs of training images may use; beyond it they are computed at every step.
            A quarter of it, besides, for penalty images that come again.
    """

    transform: Transform = Transform(size=(256, 256))
    size: PDNSize = "small"
    teacher: str = "pdn"
    layers: tuple[str, ...] = ()
    weights: str = "imagenet"
    student_width: float = Field(1.0, gt=0)
    latent: int = Field(64, ge=1)
    autoencoder_width: int = Field(64, ge=2)
    dropout: float = Field(0.2, ge=0, lt=1)
    steps: int = Field(70_000, ge=1)
    epochs: float | None = Field(None, gt=0)
    train_batch_size: int = Field(1, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    decay_at: float = Field(0.95, ge=0, le=1)
    decay: float = Field(0.1, gt=0, le=1)
    hard_quantile: float = Field(0.999, ge=0, lt=1)
    penalty: str = "rendered"
    penalty_images: int | None = Field(None, ge=1)
    penalty_grey: float = Field(0.3, ge=0, le=1)
    jitter: float = Field(0.2, ge=0, le=1)
    validation_share: float = Field(0.1, gt=0, lt=1)
    extra_normalisation: bool = False
    quantiles: tuple[float, float] = (0.9, 0.995)
    map_padding: Literal["zeros", "edge"] = "zeros"
    memory_limit: float = Field(1.0, ge=0)

    @field_validator("transform")
    @classmethod
    def _fits(cls, value: Transform) -> Transform:
        if value.normalisation != "imagenet":
            raise ValueError("normalisation must be 'imagenet': the teacher knows images like that")
        if min(value.output_size) < _SMALLEST:
            raise ValueError(f"sides must be at least {_SMALLEST}, not {value.output_size}")
        return value

    @field_validator("quantiles")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1] <= 1:
            raise ValueError(f"must be two numbers in 0..1, the smaller first, not {value}")
        return value

    @model_validator(mode="after")
    def _layers_belong_to_an_extractor(self) -> EfficientAdConfig:
        if (self.teacher == "pdn") == bool(self.layers):
            raise ValueError("layers must name the stages of an extractor as teacher, and be empty for teacher 'pdn'")
        return self
