"""What ``andon data prepare`` can be told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from andon._tools.models import FrozenModel
from andon.core import ConfigError
from andon.data.preparing.appearance import DEFAULT_DEVIATIONS

__all__ = ["PrepareOptions", "Saturation", "TemplateBox", "parse_saturation", "parse_template"]


class TemplateBox(FrozenModel):
    """A part to look for.

    Attributes:
        file: name of a raw image, below the source's folder; None for the first good one.
        box: (x, y, width, height) of the part in it, pixels.
    """

    file: str | None
    box: tuple[int, int, int, int]

    @model_validator(mode="after")
    def _check(self) -> TemplateBox:
        if min(self.box[:2]) < 0 or min(self.box[2:]) < 16:
            raise ValueError("a template's box must be in the image and at least 16 pixels in both directions")
        return self


class Saturation(FrozenModel):
    """How much of a region must be found.

    Attributes:
        threshold: with ``relative`` a fraction of its area, otherwise pixels of the prepared images.
        relative: which of both.
    """

    threshold: float = Field(default=1.0, gt=0)
    relative: bool = True

    @model_validator(mode="after")
    def _check(self) -> Saturation:
        if self.relative and self.threshold > 1:
            raise ValueError("a relative saturation threshold is above 0 and at most 1")
        if not self.relative and self.threshold != int(self.threshold):
            raise ValueError("an absolute saturation threshold is a whole number of pixels")
        return self


class PrepareOptions(FrozenModel):
    """How raw images become a data set.

    Attributes:
        labels: CSV with the columns file and label; None where folders say it.
        order: "name", "exif", or the path of a list.
        train: share of the good images, the first ones, that is for training.
        crop: (height, width) that is cut out; None for the template's box, or the whole image where there is none.
        templates: parts to look for, one for each model that is built; the crop's middle is the found box's.
        rotation: how far parts may be turned, degrees.
        search: how far a part may have moved from its place in the template's image, pixels; None for anywhere.
        confidence: least correlation with a template; an image below it is rejected.
        displacement: how far from the median place a part may be, pixels; None for anywhere.
        upright: turn crops so that parts are as they are in the template's image.
        resize: (height, width) that crops are resized to.
        blur: robust deviations of sharpness below the median from which on an image is rejected; 0 rejects none.
        duplicates: whether near duplicates are only reported, or all but the first of each group left out.
        masks: annotations, a file or a folder.
        saturation: by defect name; ``default`` for the others.
        default: see there.
    """

    labels: Path | None = None
    order: str = "name"
    train: float = Field(default=0.5, gt=0, le=1)
    crop: tuple[int, int] | None = None
    templates: tuple[TemplateBox, ...] = ()
    rotation: float = Field(default=10.0, ge=0, le=180)
    search: int | None = Field(default=None, ge=1)
    confidence: float = Field(default=0.7, ge=-1, le=1)
    displacement: float | None = Field(default=None, gt=0)
    upright: bool = False
    resize: tuple[int, int] | None = None
    blur: float = Field(default=DEFAULT_DEVIATIONS, ge=0)
    duplicates: Literal["report", "drop"] = "report"
    masks: Path | None = None
    saturation: Mapping[str, Saturation] = {}
    default: Saturation = Saturation()

    @model_validator(mode="after")
    def _check(self) -> PrepareOptions:
        for name, size in (("crop", self.crop), ("resize", self.resize)):
            if size is not None and not all(16 <= side <= 8192 for side in size):
                raise ValueError(f"{name} must be 16..8192 in both directions, not {size[1]}×{size[0]}")
        if not self.templates and (self.displacement is not None or self.search is not None or self.upright):
            raise ValueError("displacement, search and upright are for templates")
        if self.saturation and self.masks is None:
            raise ValueError("saturation thresholds are for masks; give these as well")
        return self


def parse_template(text: str) -> TemplateBox:
    """``FILE:x,y,width,height``, or the box alone."""
    file, colon, box = text.rpartition(":")
    try:
        x, y, width, height = (int(number) for number in box.split(","))
        return TemplateBox(file=file if colon else None, box=(x, y, width, height))
    except ValueError:
        raise ConfigError(
            f"--template {text!r}: expected FILE:x,y,width,height (a raw image, and a box of at least 16 pixels in it)"
        ) from None


def parse_saturation(text: str) -> tuple[str, Saturation]:
    """``NAME=0.7`` (of the region's area) or ``NAME=420px``."""
    name, equals, value = (part.strip() for part in text.rpartition("="))
    try:
        if not (name and equals):
            raise ValueError
        if value.endswith("px"):
            return name, Saturation(threshold=int(value.removesuffix("px")), relative=False)
        return name, Saturation(threshold=float(value))
    except ValueError:
        raise ConfigError(
            f"--saturation {text!r}: expected NAME=0.7 (a fraction of the region's area, at most 1) or NAME=420px"
        ) from None
