"""DRAEM's hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from andon.methods._reconstruction import AnomalySimulationConfig, TrainingParts

__all__ = ["PRESETS", "DraemConfig"]


class DraemConfig(AnomalySimulationConfig):
    """Hyperparameters of DRAEM; the defaults are the paper's, where it says nothing the authors' repository's.

    Attributes:
        textures: what anomalies are made of: the folder of a texture data set (the paper's is the Describable Textures
            Dataset), "rendered" or "rendered:SEED" for rendered images, or "noise" for the values of the Perlin noise
            itself, as in the study's code.
        n_textures: how many different ones of rendered images are used (the Describable Textures Dataset has 5,640).
        reconstructive_width, discriminative_width: channels of the first block of either network.
        epochs: times that every training image is seen.
        beta: opacity of the anomalies, uniform from the first to the second (equation 2).
        texture_augmentations: how many of the ten changes of colour and shape a texture goes through, in random order.
        ssim_weight: λ of the structural similarity (equation 3).
        ssim_window: side of its window in pixels; odd.
        initialisation: "normal": filters with deviation 0.02, as the authors'; "torch": PyTorch's own.
    """

    unit_reason: ClassVar[str] = "the losses are for images in 0..1"
    batch_size: int = 8
    textures: str = "rendered"
    n_textures: int = Field(5640, ge=1)
    reconstructive_width: int = Field(128, ge=1)
    discriminative_width: int = Field(64, ge=1)
    epochs: float = Field(700, gt=0)
    decay_at: TrainingParts = (400 / 700, 600 / 700)
    anomaly_probability: float = Field(0.5, gt=0, le=1)
    beta: tuple[float, float] = (0.1, 1.0)
    texture_augmentations: int = Field(3, ge=0, le=10)
    rotation_probability: float = Field(0.3, ge=0, le=1)
    rotation: float = Field(45.0, ge=0, le=180)
    ssim_weight: float = Field(1.0, ge=0)
    ssim_window: int = Field(11, ge=1)
    initialisation: Literal["normal", "torch"] = "normal"

    @field_validator("beta")
    @classmethod
    def _opacities(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise ValueError(f"must be two numbers above 0, at most 1, the smaller first, not {value}")
        return value


_STUDY: Mapping[str, Any] = {"textures": "noise", "rotation_probability": 0.0, "batch_size": 32}

# Minutes on a CPU: small images and networks.
_QUICK: Mapping[str, Any] = {
    "transform": {"size": (96, 96)},
    "n_textures": 200,
    "reconstructive_width": 8,
    "discriminative_width": 8,
    "epochs": 100,
    "train_batch_size": 2,
    "learning_rate": 4e-3,
    "perlin_exponents": (1, 4),
    "rotation_probability": 0.0,
    "score_window": 9,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The AutoVI study named no textures and rotated none of the images.
    "study": _STUDY,
    # The study's code takes the map's maximum, one more size of Perlin noise and PyTorch's initial weights.
    "released-code": {**_STUDY, "score_window": 1, "perlin_exponents": (0, 6), "initialisation": "torch"},
    # The method's authors' code, where it differs from their paper.
    "authors-code": {"beta": (0.2, 1.0), "rotation": 90.0, "decay_at": (0.8, 0.9), "decay": 0.2},
    "default": _QUICK,
    "designed": _QUICK,
}
