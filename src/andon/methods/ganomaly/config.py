"""GANomaly's hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from andon.data import Transform
from andon.methods._adversarial import PatchConfig

__all__ = ["PRESETS", "GanomalyConfig"]


class GanomalyConfig(PatchConfig):
    """Hyperparameters of GANomaly; the defaults are the paper's, where it says nothing the authors' repository's.

    Attributes:
        extra_layers: convolutions at half a patch's size in every encoder and decoder.
        epochs: times that every training image gives a patch.
        momentum: β₁ of Adam.
        adversarial_weight, contextual_weight, encoder_weight: of the three losses of the generator (equation 4).
        restart_below: the discriminator begins anew after a step in which its loss was below this: it has won, and the
            generator learns nothing from it.
        score: distance between the two descriptions: "l1", the sum of differences (the paper's equation 5), or "l2",
            the mean of their squares (the repository's).
    """

    transform: Transform = Transform(size=(32, 32), normalisation="unit")
    patch: int = Field(32, ge=16)
    extra_layers: int = Field(0, ge=0)
    epochs: float = Field(25, gt=0)
    learning_rate: float = Field(2e-3, gt=0)
    momentum: float = Field(0.5, ge=0, lt=1)
    adversarial_weight: float = Field(1.0, ge=0)
    contextual_weight: float = Field(50.0, ge=0)
    encoder_weight: float = Field(1.0, ge=0)
    restart_below: float = Field(1e-5, ge=0)
    score: Literal["l1", "l2"] = "l1"


# Minutes on a CPU: narrow networks, and enough steps for a hundred images rather than for tens of thousands.
_QUICK: Mapping[str, Any] = {
    "transform": {"size": (64, 64)},
    "patch": 64,
    "width": 16,
    "epochs": 120,
    "train_batch_size": 16,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The AutoVI study cites GANomaly and does not run it: the paper's.
    "study": {},
    # The authors' code, where it differs from their paper.
    "authors-code": {"epochs": 15, "learning_rate": 2e-4, "score": "l2"},
    "default": _QUICK,
    "designed": _QUICK,
}
