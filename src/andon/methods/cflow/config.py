"""CFlow's hyperparameters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from andon.methods.base import FeatureConfig, TrainedConfig

__all__ = ["CflowConfig"]


class CflowConfig(FeatureConfig, TrainedConfig):
    """Configuration; defaults as in the authors' repository.

    Attributes:
        backbone, weights: see ``andon.features.create_extractor``.
        layers: stages that have a flow each.
        condition: dimensions of the positional encoding; a multiple of 4.
        coupling_blocks: of each flow.
        clamp: α, the largest log scale of a block.
        clamping: form of the soft clamp: "tanh" (what the authors' code computes) or "arctan".
        permutation: between blocks: "soft" (random rotations) or "hard" (random permutations).
        meta_epochs: parts of the training with a learning rate each.
        sub_epochs: passes over the training images in each; the authors' default of 25·8 is 200 passes.
        train_batch_size: images whose vectors ("fibres") are shuffled together.
        fibres: vectors a step.
        learning_rate: of Adam.
        schedule: "cosine" (half a cosine down to a thousandth, by meta epochs) or "constant".
        warm_up: first meta epochs, in which the learning rate rises linearly with every step from a tenth to the
            cosine's value at their end; 0 for none, and none with "constant".
        loss: "log-sigmoid": −log σ(log p / C), what the authors' code computes, which hardly looks at vectors that are
            likely already; or "nll": −log p / C, the paper's objective.
        standardise: fixed affine map of a scale's features before its flow: "none"; "whiten": to mean 0 and unit
            covariance over the training images, so that the flow begins as a Gaussian fit. The map's determinant is
            counted: likelihoods are of the features as they are.
        anomaly: what is summed over scales, after upsampling: "likelihood": 1 − exp(log p / C − r), r the scale's
            largest log p / C of training images; "log-likelihood": r − log p / C, which tells apart what is so
            unlikely that its likelihood is nil.
        sigma: Gaussian smoothing of the map, in pixels of the method's input; 0 for none.
        image_top_k: the image score is the mean of this many largest pixels; 1 for the maximum.
        memory_limit: GiB of RAM for features of the training images. Where they exceed it they are read from the
            cache at every pass, or computed where there is no cache.
    """

    layers: tuple[str, ...] = Field(("layer2", "layer3", "layer4"), min_length=1)
    condition: int = Field(128, ge=4, multiple_of=4)
    coupling_blocks: int = Field(8, ge=1)
    clamp: float = Field(1.9, gt=0)
    clamping: Literal["tanh", "arctan"] = "tanh"
    permutation: Literal["soft", "hard"] = "soft"
    meta_epochs: int = Field(25, ge=1)
    sub_epochs: int = Field(8, ge=1)
    train_batch_size: int = Field(32, ge=1)
    fibres: int = Field(256, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warm_up: float = Field(2, ge=0)
    loss: Literal["log-sigmoid", "nll"] = "log-sigmoid"
    standardise: Literal["none", "whiten"] = "none"
    anomaly: Literal["likelihood", "log-likelihood"] = "likelihood"
    sigma: float = Field(0.0, ge=0)
    image_top_k: int = Field(1, ge=1)
    memory_limit: float = Field(4.0, ge=0)

    @field_validator("layers")
    @classmethod
    def _different(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"must be different, not {list(value)}")
        return value
