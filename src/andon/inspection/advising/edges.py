"""Where images have edges."""

from __future__ import annotations

import cv2
import numpy as np

from andon.core import FloatArray, ImageArray

__all__ = ["coarse_slopes", "slopes"]


def slopes(grey: FloatArray) -> FloatArray:
    """How steep grey values are, by Sobel's filters (8 times grey levels a pixel): float32, of the image's shape."""
    return np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))


def coarse_slopes(image: ImageArray) -> FloatArray:
    """``slopes`` of an RGB image that is brought to 128 × 128 pixels."""
    grey = cv2.cvtColor(cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    return slopes(grey.astype(np.float32))
