"""f-AnoGAN's hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from andon.data import Transform
from andon.methods._adversarial import PatchConfig

__all__ = ["PRESETS", "FAnoganConfig"]


class FAnoganConfig(PatchConfig):
    """Hyperparameters of f-AnoGAN; the defaults are those of the authors' repository.

    Attributes:
        critic_steps: steps of the critic in the GAN's training; the generator makes one after every
            ``steps_a_turn`` of them. The authors' code counts passes over their patches (7); of fewer images those
            would be a few steps, so the length is a number of steps here.
        steps_a_turn: the critic's steps for one of the generator.
        penalty_weight: λ of the gradient penalty.
        momentum, second_momentum: β₁ and β₂ of Adam.
        norm_momentum: part of a step's mean and variance in the running ones of batch norms.
        encoder_steps: steps of the encoder's training.
        encoder_learning_rate, encoder_smoothing: of RMSprop.
        kappa: κ, weight of the critic's features beside the pixels, in the encoder's loss and in the score.
        encoder_range: "tanh" keeps what the encoder says in −1..1 (the authors'); "none" leaves it free.
    """

    transform: Transform = Transform(size=(64, 64), normalisation="unit")
    latent: int = Field(128, ge=1)
    flip_probability: float = Field(0.5, ge=0, le=1)
    critic_steps: int = Field(50_000, ge=1)
    steps_a_turn: int = Field(5, ge=1)
    penalty_weight: float = Field(10.0, ge=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    second_momentum: float = Field(0.9, ge=0, lt=1)
    norm_momentum: float = Field(0.01, gt=0, le=1)
    encoder_steps: int = Field(50_000, ge=1)
    encoder_learning_rate: float = Field(5e-5, gt=0)
    encoder_smoothing: float = Field(0.9, ge=0, lt=1)
    kappa: float = Field(1.0, ge=0)
    encoder_range: Literal["tanh", "none"] = "tanh"


# Minutes on a CPU: small patches and networks, and more turns for the generator, which has few steps to learn in.
_QUICK: Mapping[str, Any] = {
    "transform": {"size": (32, 32)},
    "patch": 32,
    "width": 8,
    "latent": 32,
    "train_batch_size": 16,
    "learning_rate": 1e-3,
    "critic_steps": 1200,
    "steps_a_turn": 2,
    "norm_momentum": 0.1,
    "encoder_steps": 600,
    "encoder_learning_rate": 1e-3,
    "encoder_range": "none",
    "flip_probability": 0.0,
    "sigma": 1.0,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The AutoVI study cites f-AnoGAN and does not run it: the authors'.
    "study": {},
    "default": _QUICK,
    "designed": _QUICK,
}
