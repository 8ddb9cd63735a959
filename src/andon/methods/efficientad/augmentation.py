"""What EfficientAD's training does to images: colour jitter, and images of other things."""

from __future__ import annotations

import numpy as np
import torch

from andon._tools.memory import BoundedStore, capacity
from andon.core import ImageArray
from andon.data import ImageSource, Transform, image_source
from andon.methods.efficientad.config import EfficientAdConfig

__all__ = ["PenaltyImages", "colour_jitter", "normalised"]


def colour_jitter(image: torch.Tensor, kind: int, factor: float) -> torch.Tensor:
    """Brightness (kind 0), contrast (1) or saturation (2) of ``[3, H, W]`` in 0..1, changed by a factor, clipped.

    Brightness is blended with black, contrast with the mean grey, saturation with the image's grey values
    (0.299 R + 0.587 G + 0.114 B).
    """
    if kind == 0:
        return (image * factor).clamp(0, 1)
    grey = _grey(image)
    other = grey.mean() if kind == 1 else grey
    return (factor * image + (1 - factor) * other).clamp(0, 1)


def _grey(image: torch.Tensor) -> torch.Tensor:
    return (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)


def normalised(transform: Transform, batch: torch.Tensor) -> torch.Tensor:
    """``transform.normalise`` of float ``[B, 3, H, W]`` in 0..1."""
    zero_one = transform.normalise(np.array([[[[0, 0, 0], [255, 255, 255]]]], np.uint8))[0]
    offset, top = zero_one[:, 0, :1, None], zero_one[:, 0, 1:, None]
    return batch * (top - offset) + offset


class PenaltyImages:
    """Images of other things (appendix A.2): twice the size, at times grey, and their centre.

    A quarter of the memory limit is for crops of images that come again.
    """

    def __init__(self, config: EfficientAdConfig) -> None:
        self.config = config
        self.source: ImageSource = image_source(config.penalty)
        counts = [count for count in (self.source.count, config.penalty_images) if count is not None]
        self.count = min(counts) if counts else None
        self.name = self.source.name + (f", {self.count:,} of them" if config.penalty_images else "")
        height, width = config.transform.output_size
        self._kept = BoundedStore[ImageArray](capacity(config.memory_limit / 4, 3 * height * width))

    def image(self, number: int, rng: np.random.Generator) -> ImageArray:
        """uint8 ``[H, W, 3]``, the number-th of the training's; ``rng`` decides on grey, and which one of a count."""
        index = number if self.count is None else int(rng.integers(self.count))
        crop = self._kept.get(index)
        if crop is None:
            crop = self._crop(index)
            if self.count is not None:
                self._kept.put(index, crop)
        if rng.random() < self.config.penalty_grey:
            grey = np.rint(crop @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return crop

    def _crop(self, index: int) -> ImageArray:
        height, width = self.config.transform.output_size
        side = 2 * max(height, width)
        image = self.source.image(index, side)
        top, left = (side - height) // 2, (side - width) // 2
        return image[top : top + height, left : left + width].copy()
