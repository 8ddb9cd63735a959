"""Augmentation of training images: the rotations and the noise of the AutoVI study's section 6.1.

An augmented training set is a longer sequence of samples: versions of each image, each a pure function of the seed, the
image's id and the version's number. Neither order nor batches nor threads change a version, and a method sees nothing
but images. How many versions there are depends on how the method learns:

- *A trained method* draws the images of its steps from ``versions`` versions of every image, and its epochs stay as
  long as they are without (an epoch is as many images as were photographed). With at least as many versions as epochs
  no version need come twice; with fewer they come again, in another order. A quarter of the versions (at the study's
  probabilities) are the images as they are.
- *A method of one pass* gets the images as they are, and ``extra_passes`` versions of each beside them.

What the study leaves open, and what is done here: the rotation is of the image at its own size, about its centre, so
that pictures that are not square do not shear; what comes into the frame is the image mirrored at its border, because
black corners are something to learn that no camera ever shows. The noise is added after resizing, to the pixels that
the method sees: an antialiasing resize would average most of it away. It is drawn for every pixel and channel, in
8-bit units, and the result is rounded and clipped to 0..255.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, cast

import cv2
import numpy as np
from pydantic import BeforeValidator, Field, field_validator

from andon._tools.models import FrozenModel
from andon._tools.seeds import numpy_step_generator
from andon.core import ImageArray, Sample, SampleReader, canonical_json
from andon.data.derived import DerivedReader

if TYPE_CHECKING:  # it imports torch, which a plan has no use for
    from andon.data.transform import Transform

__all__ = ["Augmentation", "AugmentationChoice", "augmented"]


class Augmentation(FrozenModel):
    """What is done to training images; the defaults are the study's (section 6.1).

    Attributes:
        rotation: largest angle, degrees; even between it and its negative.
        rotation_probability: of an image to be rotated.
        noise_variance: of the Gaussian noise, even from the first to the second, in 8-bit units squared; drawn once
            an image.
        noise_probability: of an image to get noise, whether it is rotated or not.
        versions: of every image, for a trained method.
        extra_passes: versions of every image beside the image itself, for a method of one pass.
    """

    rotation: float = Field(default=15.0, ge=0, le=180)
    rotation_probability: float = Field(default=0.5, ge=0, le=1)
    noise_variance: tuple[float, float] = (10.0, 120.0)
    noise_probability: float = Field(default=0.5, ge=0, le=1)
    versions: int = Field(default=32, ge=1, le=10_000)
    extra_passes: int = Field(default=1, ge=1, le=1_000)

    @field_validator("noise_variance")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1] <= 65025:
            raise ValueError(f"must be two numbers in 0..65025, the smaller first, not {value}")
        return value

    def draw(self, seed: int, image_id: str, number: int) -> _Draw:
        """What happens to a version: the same every time."""
        rng = numpy_step_generator(seed, "augmentation", image_id, number)
        rotate, angle, noise, variance = rng.random(4)
        low, high = self.noise_variance
        return _Draw(
            float((2 * angle - 1) * self.rotation) if rotate < self.rotation_probability else 0.0,
            float(low + variance * (high - low)) if noise < self.noise_probability else 0.0,
            rng,
        )

    def describe(self, *, trained: bool) -> str:
        """One line for a result's notes."""
        how = f"{self.versions} version(s) of each image" if trained else f"{self.extra_passes} extra pass(es)"
        low, high = self.noise_variance
        return (
            f"augmentation: rotation ±{self.rotation:g}° (p {self.rotation_probability:g}), Gaussian noise of variance "
            f"{low:g} to {high:g} (p {self.noise_probability:g}); {how}"
        )


def _by_name(value: Any) -> Any:
    if value == "study":
        return Augmentation()
    if isinstance(value, str):
        raise ValueError('must be "study", or a mapping with options of an augmentation')
    return value


AugmentationChoice = Annotated[Augmentation, BeforeValidator(_by_name)]
"""An ``Augmentation``, or "study" for its defaults."""


@dataclass(frozen=True)
class _Draw:
    """Angle in degrees and variance of the noise, 0 for none; and the generator that draws the noise."""

    angle: float
    variance: float
    rng: np.random.Generator

    def rotated(self, image: ImageArray) -> ImageArray:
        if not self.angle:
            return image
        height, width = image.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), self.angle, 1.0)
        turned = cv2.warpAffine(
            image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        return cast(ImageArray, turned)

    def noised(self, image: ImageArray) -> ImageArray:
        if not self.variance:
            return image
        noise = self.rng.standard_normal(image.shape, dtype=np.float32) * np.float32(np.sqrt(self.variance))
        return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class _AugmentingReader(DerivedReader):
    """One version of each sample's image."""

    inner: SampleReader
    augmentation: Augmentation
    seed: int
    number: int

    def variant(self, sample: Sample) -> str:
        options = self.augmentation.model_dump(exclude={"versions", "extra_passes"})
        inner = self.inner.variant(sample) if isinstance(self.inner, DerivedReader) else ""
        return canonical_json(["augmentation", 1, options, self.seed, sample.id, self.number, inner])

    def is_version(self) -> bool:
        return True

    def image(self, sample: Sample) -> ImageArray:
        draw = self.augmentation.draw(self.seed, sample.id, self.number)
        return draw.noised(draw.rotated(self.inner.image(sample)))

    def resized(self, sample: Sample, transform: Transform) -> ImageArray:
        draw = self.augmentation.draw(self.seed, sample.id, self.number)
        whole = transform.model_copy(update={"crop": None})
        image = draw.noised(whole.resize(draw.rotated(self.inner.image(sample))))
        cropped = transform.resize(image)  # of the size already: this only crops
        # An image that was of that size and stayed as it is would be a view of somebody else's.
        return cropped if cropped.base is None else cropped.copy()


def augmented(samples: Sequence[Sample], augmentation: Augmentation, *, seed: int, trained: bool) -> tuple[Sample, ...]:
    """A training set with its versions; see the module's text.

    Args:
        samples: good training images.
        augmentation: what is done to them.
        seed: of what is drawn.
        trained: for a trained method, not for one of one pass.
    """

    def version(number: int) -> list[Sample]:
        return [replace(s, reader=_AugmentingReader(s.reader, augmentation, seed, number)) for s in samples]

    if trained:
        return tuple(s for number in range(augmentation.versions) for s in version(number))
    extra = (s for number in range(1, augmentation.extra_passes + 1) for s in version(number))
    return (*samples, *extra)
