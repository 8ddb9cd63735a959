"""Samples whose pixels are made from those of their file: a window of it, or an augmented version."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from andon.core import GroundTruth, ImageArray, Sample, SampleReader

if TYPE_CHECKING:  # it imports torch, which a plan has no use for
    from andon.data.transform import Transform

__all__ = ["DerivedReader", "source_numbers", "variant_of"]


class DerivedReader(SampleReader, ABC):
    """Reads samples through another reader, and changes what it gives.

    Attributes:
        inner: that reader.
    """

    inner: SampleReader

    @abstractmethod
    def variant(self, sample: Sample) -> str:
        """What is done to the file, as a text: caches keep the result under it and the file's content."""

    def resized(self, sample: Sample, transform: Transform) -> ImageArray:
        """The image resized and cropped: uint8 ``[h, w, 3]``."""
        return transform.resize(self.image(sample))

    def size(self, sample: Sample) -> tuple[int, int]:
        return self.inner.size(sample)

    def ground_truth(self, sample: Sample) -> GroundTruth | None:
        return self.inner.ground_truth(sample)

    def is_version(self) -> bool:
        """Whether it gives one of several versions of an image, which count as one training image."""
        return False


def variant_of(item: object) -> str:
    """``DerivedReader.variant`` of a sample; "" for all else."""
    if isinstance(item, Sample) and isinstance(item.reader, DerivedReader):
        return item.reader.variant(item)
    return ""


def source_numbers(items: Sequence[object]) -> tuple[int, ...]:
    """For each image the number of the image that it is of: versions of one image share theirs.

    Numbers run from 0 in order of appearance; without versions they are the places in the sequence. An image that
    stands as it is beside its versions is one of them.
    """
    versioned = {
        (item.id, item.path)
        for item in items
        if isinstance(item, Sample) and isinstance(item.reader, DerivedReader) and item.reader.is_version()
    }
    numbers: dict[object, int] = {}
    found = []
    for place, item in enumerate(items):
        key: object = place
        if isinstance(item, Sample) and (item.id, item.path) in versioned:
            key = (item.id, item.path)
        found.append(numbers.setdefault(key, len(numbers)))
    return tuple(found)
