"""Samples whose ground truth is written down (boxes, ellipses, run lengths) and drawn when it is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from andon.core import BoolArray, Channel, GroundTruth, ImageArray, Sample, SampleReader
from andon.data.decode import read_image, read_size

__all__ = ["DrawnReader", "ellipse", "rectangle"]


@dataclass(frozen=True)
class DrawnReader(SampleReader, ABC):
    """Reads an image that is a file; its channels are drawn at the image's size."""

    def image(self, sample: Sample) -> ImageArray:
        return read_image(sample.path)

    def size(self, sample: Sample) -> tuple[int, int]:
        return read_size(sample.path)

    def ground_truth(self, sample: Sample) -> GroundTruth | None:
        """All channels; AndonError names the file whose words cannot be read or do not fit the image."""
        size = self.size(sample)
        return GroundTruth(size, tuple(self.channels(sample, size)) if sample.is_defective else ())

    @abstractmethod
    def channels(self, sample: Sample, size: tuple[int, int]) -> Iterator[Channel]:
        """The channels of a defective sample of ``size`` (height, width)."""


def rectangle(size: tuple[int, int], top: int, left: int, bottom: int, right: int) -> BoolArray:
    """bool ``[H, W]``: rows top to bottom and columns left to right, the last ones not included."""
    mask = np.zeros(size, dtype=bool)
    mask[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
    return mask


def ellipse(size: tuple[int, int], semi_major: float, semi_minor: float, angle: float, x: float, y: float) -> BoolArray:
    """bool ``[H, W]``: pixels whose middle lies in an ellipse.

    Args:
        semi_major, semi_minor: pixels, above 0.
        angle: of the major axis against the x axis, radians, counter-clockwise as seen in the image.
        x, y: of its middle, pixels from the image's upper left one.
    """
    rows, columns = np.ogrid[: size[0], : size[1]]
    right, up = columns - x, y - rows
    along = right * np.cos(angle) + up * np.sin(angle)
    across = -right * np.sin(angle) + up * np.cos(angle)
    inside: BoolArray = (along / semi_major) ** 2 + (across / semi_minor) ** 2 <= 1
    return inside
