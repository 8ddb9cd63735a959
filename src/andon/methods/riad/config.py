"""RIAD's hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from andon.methods._reconstruction import ReconstructionConfig, TrainingParts, Window

__all__ = ["PRESETS", "RiadConfig"]


class RiadConfig(ReconstructionConfig):
    """Hyperparameters of RIAD; the defaults are the paper's, where it says nothing those of its implementations.

    Attributes:
        region_sizes: sides k in pixels of the square regions that are removed; each is tried at prediction, one of
            them, drawn at random, in a step of the training.
        subsets: n, into so many subsets all regions of an image are divided; a subset's are removed together.
        width: channels of the network's first block.
        epochs: times that every training image is seen.
        scales: sizes at which gradients are compared: whole, half, a quarter, …
        gms_constant: c, below which gradients (of images in 0..1) do not matter.
        gradients: of the "grey" image (mean of the colours), or of each of the "colours" by itself, averaged after.
        gms_weight, ssim_weight: λ_G and λ_S, of the losses beside the squared error.
        ssim_window: side of the structural similarity's window in pixels; odd.
        map_window: side in pixels of the map's average; odd.
    """

    unit_reason: ClassVar[str] = "the gradients' constant is for images in 0..1"
    sides: ClassVar[int] = 16
    least_side: ClassVar[int] = 32
    batch_size: int = 8
    train_batch_size: int = Field(4, ge=1)
    decay_at: TrainingParts = (250 / 300,)
    region_sizes: tuple[int, ...] = Field((2, 4, 8, 16), min_length=1)
    subsets: int = Field(3, ge=2, le=255)
    width: int = Field(64, ge=1)
    epochs: float = Field(300, gt=0)
    scales: int = Field(4, ge=1, le=5)
    gms_constant: float = Field(0.0026, gt=0)
    gradients: Literal["grey", "colours"] = "grey"
    gms_weight: float = Field(1.0, ge=0)
    ssim_weight: float = Field(1.0, ge=0)
    ssim_window: Window = 11
    map_window: Window = 21

    @field_validator("region_sizes")
    @classmethod
    def _regions(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(size < 1 for size in value) or len(set(value)) < len(value):
            raise ValueError(f"must be different numbers of pixels, at least 1, not {list(value)}")
        return value

    @model_validator(mode="after")
    def _enough_regions(self) -> RiadConfig:
        height, width = self.transform.output_size
        for size in self.region_sizes:
            if -(-height // size) * -(-width // size) < self.subsets:
                raise ValueError(f"region_sizes: images of {height} × {width} have too few regions of {size} pixels")
        return self


# Minutes on a CPU: small images and a narrow network.
_QUICK: Mapping[str, Any] = {
    "transform": {"size": (96, 96)},
    "region_sizes": (2, 4, 8),
    "gradients": "colours",
    "width": 8,
    "epochs": 60,
    "train_batch_size": 2,
    "learning_rate": 3e-3,
    "map_window": 7,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The AutoVI study cites RIAD and does not run it: the paper's.
    "study": {},
    "default": _QUICK,
    "designed": _QUICK,
}
