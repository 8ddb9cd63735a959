"""How hard the line is: one documented knob a difficulty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError

from andon._tools.models import FrozenModel, first_fault
from andon.core import ConfigError

__all__ = ["Counts", "Knobs", "as_knobs"]

Factor = Annotated[float, Field(ge=0, le=4)]


class Knobs(FrozenModel):
    """Difficulties of the synthetic line; 1 stands for a station like AutoVI's, 0 for none of it.

    Only ``modes`` is a count and only ``defect_size`` and ``defect_contrast`` must be above 0.
    """

    light: Factor = Field(default=1.0, description="variation of brightness, colour and direction of the light")
    pose: Factor = Field(
        1.0, description="jitter of the position of the part before the camera, and of loose parts in it"
    )
    modes: int | None = Field(
        None, ge=1, le=8, description="models built on the line (modes of normality); None: the task's own"
    )
    clutter: Factor = Field(
        1.0, description="how often harmless things appear: shards, nuts, loose cables, the red receptacle"
    )
    blur: Factor = Field(default=1.0, description="defocus and motion blur, and how often they are strong")
    noise: Factor = Field(default=1.0, description="sensor noise and JPEG traces")
    drift: Factor = Field(default=1.0, description="slow change of light, camera position and dirt over the production")
    dirt: Factor = Field(default=1.0, description="dirt and wear on the parts")
    defect_size: float = Field(default=1.0, gt=0, le=2, description="how far a defect departs: size or displacement")
    defect_contrast: float = Field(
        1.0,
        gt=0,
        le=2,
        description="visibility of a defect: factor on the change that it makes to the light of the scene",
    )


class Counts(FrozenModel):
    """Images a task."""

    train: int = Field(default=60, ge=1, le=99_999)
    good: int = Field(default=30, ge=0, le=99_999)
    """Good test images."""
    defective: int = Field(default=30, ge=0, le=99_999)
    """Defective test images, spread over the task's defect types."""


def as_knobs(knobs: Knobs | Mapping[str, Any] | None) -> Knobs:
    """Knobs from a mapping; AndonError that names the knob that does not exist or is out of range."""
    if isinstance(knobs, Knobs):
        return knobs
    try:
        return Knobs(**(knobs or {}))
    except ValidationError as error:
        raise ConfigError(first_fault(error, Knobs, "knob")) from error
