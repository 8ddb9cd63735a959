"""What DRAEM and DSR share: images in 0..1, anomalies beneath Perlin masks, the score of a mask."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, cast

import cv2
import torch
from pydantic import AfterValidator, field_validator
from torch.nn import functional as F

from andon.core import ImageArray
from andon.data.transform import Transform
from andon.methods._training import TrainedConfig

__all__ = ["OddSide", "PerlinExponents", "ReconstructionConfig", "TrainingParts", "largest_average", "rotated"]

_SIDES = 32
"""Sides are multiples of this: DRAEM's discriminative network halves them five times; of DSR 8 pixels are a coarse
position, and there are two halvings inside of the subspace restriction."""


def _parts(value: tuple[float, ...]) -> tuple[float, ...]:
    if not all(0 <= part <= 1 for part in value):
        raise ValueError("must be parts of the training, 0..1")
    return value


def _range(value: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= value[0] <= value[1] <= 10:
        raise ValueError(f"must be two numbers in 0..10, the smaller first, not {value}")
    return value


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd, so that a window has a centre")
    return value


TrainingParts = Annotated[tuple[float, ...], AfterValidator(_parts)]
PerlinExponents = Annotated[tuple[int, int], AfterValidator(_range)]
OddSide = Annotated[int, AfterValidator(_odd)]


class ReconstructionConfig(TrainedConfig):
    """Config of a method whose networks give images in 0..1 back."""

    unit_reason: ClassVar[str]
    """Why images must be in 0..1, for the message."""
    transform: Transform = Transform(size=(256, 256), normalisation="unit")

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
        if any(side % _SIDES or side < 2 * _SIDES for side in value.output_size):
            raise ValueError(f"sides must be multiples of {_SIDES}, at least {2 * _SIDES}, not {value.output_size}")
        return value


def rotated(image: ImageArray, degrees: float) -> ImageArray:
    """An image ``[H, W, 3]`` turned about its centre, black where nothing was."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return cast(ImageArray, cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR))


def largest_average(mask: torch.Tensor, window: int) -> torch.Tensor:
    """Image scores ``[B]``: the largest average of masks ``[B, 1, H, W]`` over windows of an odd side."""
    return F.avg_pool2d(mask, window, stride=1, padding=window // 2).amax(dim=(1, 2, 3))
