"""PaDiM's hyperparameters."""

from __future__ import annotations

from pydantic import Field

from andon.methods.base import FeatureConfig

__all__ = ["PadimConfig"]


class PadimConfig(FeatureConfig):
    """Configuration; defaults as in the paper and in the AutoVI study.

    Attributes:
        backbone, weights: see ``andon.features.create_extractor``.
        layers: stages whose vectors are concatenated, the finest first (III-A).
        n_channels: random channels that are kept (III-A); None for the paper's: 100 of 448 for ResNet-18 (and -34),
            550 of 1792 for Wide-ResNet-50-2 (and ResNet-50), 100 for others, or all where there are fewer.
        epsilon: added to the covariances' diagonal (equation 1).
        sigma: Gaussian smoothing of the map, in pixels of the method's input; 0 for none.
    """

    backbone: str = "resnet18"
    weights: str = "imagenet"
    layers: tuple[str, ...] = Field(("layer1", "layer2", "layer3"), min_length=1)
    n_channels: int | None = Field(None, ge=1)
    epsilon: float = Field(0.01, gt=0)
    sigma: float = Field(4.0, ge=0)
