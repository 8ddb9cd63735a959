"""How an image looks, in two figures: exposure and sharpness; and which images are blurred among the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from andon.core import ImageArray
from andon.data.matching import grey_of

__all__ = ["DEFAULT_DEVIATIONS", "Appearance", "BlurLimit", "appearance_of", "blur_limit"]

DEFAULT_DEVIATIONS = 4.5
"""Robust deviations below the median from which an image is called blurred."""
_SIDE = 512
"""Longest side at which sharpness is measured: blur that is gone at this size does not matter to a method."""
_LEAST_RATIO = 0.6
"""An image is never called blurred while its sharpness is more than this part of the median."""
_LEAST_IMAGES = 8
_FLAT = 1e-3


class Appearance(NamedTuple):
    """Figures of one image.

    Attributes:
        exposure: mean grey value, 0..255.
        sharpness: energy of the Laplacian over that of structures of 1 to 3 pixels, at a longest side of 512; it does
            not change with gain or offset of the exposure. 0 for an image of one colour.
    """

    exposure: float
    sharpness: float


class BlurLimit(NamedTuple):
    """What counts as blurred among images.

    Attributes:
        median: of their sharpness.
        least: sharpness below which an image is blurred.
    """

    median: float
    least: float


def appearance_of(image: ImageArray) -> Appearance:
    """Exposure and sharpness of RGB uint8 ``[H, W, 3]``."""
    grey = grey_of(image)
    scale = _SIDE / max(grey.shape)
    if scale < 1:
        size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    values = grey.astype(np.float32)
    fine, coarse = (cv2.GaussianBlur(values, (0, 0), sigma) for sigma in (1.0, 3.0))
    structure = float(np.var(fine - coarse))
    edges = float(np.var(cv2.Laplacian(values, cv2.CV_32F)))
    return Appearance(float(grey.mean()), edges / structure if structure > _FLAT else 0.0)


def blur_limit(sharpness: Sequence[float], deviations: float = DEFAULT_DEVIATIONS) -> BlurLimit:
    """From which sharpness on an image is blurred, as the others are.

    Sharpness spreads evenly on a logarithmic scale; its deviation is the median absolute one of the images below the
    median, so that neither a few blurred images nor some very sharp ones move it.

    Args:
        sharpness: of all images; of fewer than 8 nothing is said (``least`` is 0).
        deviations: how many of them below the median; 0 for never.
    """
    positive = np.log([value for value in sharpness if value > 0])
    if len(positive) == 0:
        return BlurLimit(0.0, 0.0)
    median = float(np.median(positive))
    below = median - positive[positive <= median]
    if len(positive) < _LEAST_IMAGES or not deviations > 0:
        return BlurLimit(math.exp(median), 0.0)
    # 1.4826: of a normal distribution the median absolute deviation times this is the standard deviation.
    spread = 1.4826 * float(np.median(below))
    return BlurLimit(math.exp(median), math.exp(median - max(deviations * spread, -math.log(_LEAST_RATIO))))
