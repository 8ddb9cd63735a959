"""GCAD's hyperparameters."""

from __future__ import annotations

from pydantic import Field, model_validator

from andon.methods._patch_networks import ReceptiveField
from andon.methods._patch_teachers import PatchTeacherConfig

__all__ = ["GcadConfig"]


class GcadConfig(PatchTeacherConfig):
    """Configuration. Besides those of ``PatchTeacherConfig``:

    Attributes:
        stride: a power of two.
        latent: g, channels of the global encoder's bottleneck.
        global_channels: channels of what the global encoder says of every place.
        encoder_width: channels of the global encoder's layers (half as many in its first two).
        regression_width: channels of the regression networks' first level; twice as many on each further one, up to
            eight times.
        regression_levels: times that they halve the image.
    """

    receptive_fields: tuple[ReceptiveField, ...] = Field((17, 33), min_length=1)
    epochs: float = Field(500, gt=0)
    latent: int = Field(32, ge=1)
    global_channels: int = Field(10, ge=1)
    encoder_width: int = Field(64, ge=2)
    regression_width: int = Field(64, ge=1)
    regression_levels: int = Field(5, ge=1, le=8)

    @model_validator(mode="after")
    def _fits_the_networks(self) -> GcadConfig:
        if self.stride & (self.stride - 1) or self.stride >= 2**self.regression_levels:
            raise ValueError(
                f"stride must be a power of two below 2^{self.regression_levels} (regression_levels), not {self.stride}"
            )
        if min(self.transform.output_size) < 2**self.regression_levels or min(self.transform.output_size) < 64:
            raise ValueError(
                f"transform: sides must be at least {max(64, 2**self.regression_levels)}, not "
                f"{self.transform.output_size}"
            )
        return self
