"""What the methods share that give images back: images in 0..1, training, anomalies beneath Perlin masks, scores."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeVar, cast

import cv2
import numpy as np
import torch
from pydantic import AfterValidator, Field, field_validator
from torch import nn
from torch.nn import functional as F

from andon.core import FloatArray, ImageArray
from andon.data import Transform
from andon.methods._perlin import perlin_mask
from andon.methods.base import Fitting, TrainedConfig, budgeted
from andon.training import SampleOrder, Schedule, Stage, step_decay, steps_of_epochs

__all__ = [
    "AnomalySimulationConfig",
    "AnomalySimulationStage",
    "ReconstructionConfig",
    "ReconstructionStage",
    "TrainingParts",
    "UnitImagesConfig",
    "Window",
    "largest_average",
    "rotated",
]

BatchT = TypeVar("BatchT")


def _parts(value: tuple[float, ...]) -> tuple[float, ...]:
    if not all(0 <= part <= 1 for part in value):
        raise ValueError("must be parts of the training, 0..1")
    return value


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd, so that a window has a centre")
    return value


TrainingParts = Annotated[tuple[float, ...], AfterValidator(_parts)]
Window = Annotated[int, Field(ge=1), AfterValidator(_odd)]
"""Side of a window in pixels."""


class UnitImagesConfig(TrainedConfig):
    """Config of a method that is trained on images in 0..1.

    Attributes:
        train_batch_size: images a step.
        learning_rate: of the optimiser.
    """

    unit_reason: ClassVar[str]
    """Why images must be in 0..1, for the message."""
    sides: ClassVar[int]
    """Sides of images are multiples of this, at least ``least_side``."""
    least_side: ClassVar[int]
    transform: Transform = Transform(size=(256, 256), normalisation="unit")
    train_batch_size: int = Field(8, ge=1)
    learning_rate: float = Field(1e-4, gt=0)

    @field_validator("transform", mode="before")
    @classmethod
    def _unit(cls, value: Any) -> Any:
        """A transform of which only the size is said keeps this method's normalisation."""
        return {"normalisation": "unit", **value} if isinstance(value, dict) else value

    @field_validator("transform")
    @classmethod
    def _fits(cls, value: Transform) -> Transform:
        if value.normalisation != "unit":
            raise ValueError(f"normalisation must be 'unit': {cls.unit_reason}")
        if any(side % cls.sides or side < cls.least_side for side in value.output_size):
            raise ValueError(
                f"sides must be multiples of {cls.sides}, at least {cls.least_side}, not {value.output_size}"
            )
        return value


class ReconstructionConfig(UnitImagesConfig):
    """Config of a method whose networks give images back.

    Attributes:
        decay_at, decay: parts of the training after which the learning rate is multiplied by ``decay``.
        rotation_probability: of a training image to be rotated before anything is done to it.
        rotation: largest angle of a rotation, degrees.
    """

    decay_at: TrainingParts = ()
    decay: float = Field(0.1, gt=0, le=1)
    rotation_probability: float = Field(0.0, ge=0, le=1)
    rotation: float = Field(90.0, ge=0, le=180)


class AnomalySimulationConfig(ReconstructionConfig):
    """Config of a method that learns from anomalies beneath Perlin masks.

    Attributes:
        anomaly_probability: of a training image to get an anomaly.
        perlin_exponents: the masks' Perlin noise has 2^k cells a side, k even from the first to the second of these.
        perlin_threshold: noise above it is anomalous.
        focal_gamma: γ of the focal loss: 0 (cross-entropy), or at least 1.
        score_window: side in pixels of the average whose largest value is the image score; odd; 1 for the mask's
            largest value itself.
    """

    # DRAEM's discriminative network halves the sides five times; of DSR 8 pixels are a coarse position, and there are
    # two halvings inside of the subspace restriction.
    sides: ClassVar[int] = 32
    least_side: ClassVar[int] = 64
    anomaly_probability: float = Field(0.5, ge=0, le=1)
    perlin_exponents: tuple[int, int] = (0, 5)
    perlin_threshold: float = Field(0.5, ge=0, lt=1)
    focal_gamma: float = Field(2.0, ge=0, allow_inf_nan=False)
    score_window: Window = 21

    @field_validator("perlin_exponents")
    @classmethod
    def _range(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= value[0] <= value[1] <= 10:
            raise ValueError(f"must be two numbers in 0..10, the smaller first, not {value}")
        return value

    @field_validator("focal_gamma")
    @classmethod
    def _differentiable(cls, value: float) -> float:
        if 0 < value < 1:
            raise ValueError("must be 0 or at least 1: between them the gradient has no bound where a pixel is certain")
        return value


class ReconstructionStage(Stage[BatchT]):
    """One training of such a method: its images, its length and its schedule.

    Args:
        networks: all that the method trains, in this stage or another.
        epochs: times that ``samples`` images are seen.
        samples: images an epoch; None for as many as there are.
        rotation_probability, decay_at, decay: of this stage; None for the Config's.
    """

    config: ReconstructionConfig
    networks: nn.Module

    def __init__(
        self,
        fitting: Fitting,
        networks: nn.Module,
        epochs: float,
        *,
        samples: int | None = None,
        rotation_probability: float | None = None,
        decay_at: tuple[float, ...] | None = None,
        decay: float | None = None,
    ) -> None:
        config = self.config = fitting.method.config
        self.images, self.seed, self.transform, self.networks = fitting.images, fitting.seed, config.transform, networks
        self.rotation_probability = (
            config.rotation_probability if rotation_probability is None else rotation_probability
        )
        self._decay_at = config.decay_at if decay_at is None else decay_at
        self._decay = config.decay if decay is None else decay
        self.full_steps = steps_of_epochs(epochs, samples or self.images.n_sources, config.train_batch_size)
        self.steps = budgeted(self.full_steps, config.budget)
        self.order = SampleOrder(len(self.images), config.train_batch_size, self.seed)

    def modules(self) -> dict[str, nn.Module]:
        return {"networks": self.networks}

    def schedule(self) -> Schedule:
        return step_decay(self.steps, self._decay_at, self._decay)

    def image(self, index: int, rng: np.random.Generator) -> tuple[ImageArray, bool]:
        """Training image ``index``, uint8 ``[H, W, 3]``, and whether it is as it was: rotations are drawn."""
        image = self.images.resized(index, self.transform)
        if rng.random() >= self.rotation_probability:
            return image, True
        return rotated(image, rng.uniform(-self.config.rotation, self.config.rotation)), False


class AnomalySimulationStage(ReconstructionStage[BatchT]):
    """One that learns from anomalies beneath Perlin masks."""

    config: AnomalySimulationConfig

    def mask(self, rng: np.random.Generator) -> FloatArray:
        """Zeros, or with ``anomaly_probability`` ones in the region of an anomaly; float32 ``[H, W]``."""
        config, size = self.config, self.transform.output_size
        if rng.random() >= config.anomaly_probability:
            return np.zeros(size, np.float32)
        return perlin_mask(size, rng, exponents=config.perlin_exponents, threshold=config.perlin_threshold)


def rotated(image: ImageArray, degrees: float) -> ImageArray:
    """An image ``[H, W, 3]`` rotated about its centre, black where nothing was."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return cast(ImageArray, cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR))


def largest_average(mask: torch.Tensor, window: int) -> torch.Tensor:
    """Image scores ``[B]``: the largest average of masks ``[B, 1, H, W]`` over windows of an odd side."""
    return F.avg_pool2d(mask, window, stride=1, padding=window // 2).amax(dim=(1, 2, 3))
