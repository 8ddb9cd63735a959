"""Patchcore's hyperparameters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from andon.data import Transform
from andon.methods.base import FeatureConfig

__all__ = ["PatchcoreConfig"]


class PatchcoreConfig(FeatureConfig):
    """Hyperparameters of Patchcore; the defaults are those of the AutoVI study.

    The form in the paper's published code is ``embedding="pooled", image_score="max"``.

    Attributes:
        backbone, layers, weights: of the frozen extractor (``create_extractor``).
        dimensions: that each layer is reduced to, the leading principal directions of good images' features; None
            leaves the layers as they are.
        grid_stride: stride of the grid of patches, in pixels of the method's input; None for the finest layer's.
            Coarser layers are upsampled to it bilinearly, finer ones averaged.
        patch_size: side of the neighbourhood that is averaged around each position, stride 1, zero-padded; odd.
        embedding: "concatenate": neighbourhoods are averaged, layers concatenated (512 + 1,024 channels by default).
            "pooled": channels and neighbourhood together are pooled to ``pretrain_dim`` values a layer, and these to
            ``target_dim``, by adaptive averaging, as in the published code.
        coreset: "greedy" (k-centre on a random projection), "random", or "none" (every patch is kept).
        coreset_ratio: part of the patches that is kept; ``coreset_size``, a number of patches, wins over it.
        projection_eps: distortion that sets the projection's dimension; None selects on the unprojected features.
        image_score: "reweighted" (eq. 7), "max" (the largest patch distance, eq. 6), "mean_top_k" (mean of the
            ``top_k`` largest).
        n_neighbours: b of eq. 7, the nearest memory's own neighbours in the bank, itself included.
        sigma: of the Gaussian that smooths the map, in pixels of the method's input.
        memory_limit: GiB that ``fit`` may use for patches, beside the extractor's own needs.
    """

    transform: Transform = Transform(size=(256, 256), crop=(224, 224))
    dimensions: int | None = Field(default=None, ge=1)
    grid_stride: int | None = Field(default=None, ge=1)
    patch_size: int = Field(default=3, ge=1, le=31)
    embedding: Literal["concatenate", "pooled"] = "concatenate"
    pretrain_dim: int = Field(default=1024, ge=1)
    target_dim: int = Field(default=1024, ge=1)
    coreset: Literal["greedy", "random", "none"] = "greedy"
    coreset_ratio: float = Field(default=0.1, gt=0, le=1)
    coreset_size: int | None = Field(default=None, ge=1)
    projection_eps: float | None = Field(default=0.9, gt=0, lt=1)
    image_score: Literal["reweighted", "max", "mean_top_k"] = "reweighted"
    n_neighbours: int = Field(default=9, ge=1)
    top_k: int = Field(default=20, ge=1)
    sigma: float = Field(default=4.0, ge=0)
    memory_limit: float = Field(default=4.0, gt=0)

    @field_validator("patch_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that a neighbourhood has a centre")
        return value

    @model_validator(mode="after")
    def _target(self) -> PatchcoreConfig:
        if self.embedding == "pooled" and self.target_dim > len(self.layers) * self.pretrain_dim:
            raise ValueError(f"target_dim {self.target_dim} is more than layers × pretrain_dim")
        return self
