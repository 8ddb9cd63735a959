"""DRAEM's artificial anomalies (section 3.3): textures, how they are changed, how they are laid over an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from andon._tools.memory import BoundedStore, capacity
from andon.core import FloatArray, ImageArray
from andon.data import ImageSource, image_source
from andon.methods._reconstruction import rotated
from andon.methods.draem.config import DraemConfig

__all__ = ["AUGMENTATIONS", "Textures", "augment_texture", "simulate_anomaly"]

_TEXTURES_GIB = 0.25
"""Memory for textures that were used before."""


def _gamma(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    tones = np.linspace(0, 1, 256)[:, None] ** rng.uniform(0.5, 2.0, 3)
    return cast(ImageArray, cv2.LUT(image, (tones * 255 + 0.5).astype(np.uint8)[None]))


def _brightness(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    parts = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)
    tones = np.arange(256) * rng.uniform(0.8, 1.2) + rng.uniform(-30, 30)
    parts[..., 0] = cv2.LUT(parts[..., 0], np.clip(tones, 0, 255).astype(np.uint8))
    return cast(ImageArray, cv2.cvtColor(parts, cv2.COLOR_YCrCb2RGB))


def _sharpness(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    return np.asarray(ImageEnhance.Sharpness(Image.fromarray(image)).enhance(rng.uniform(0, 2)))


def _colour(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    """Hue rotated by up to a fifth of the circle, saturation changed by up to a fifth of its range."""
    parts = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # hue 0..179
    hue, saturation = rng.uniform(-50, 50, 2)
    values = np.arange(256)
    parts[..., 0] = cv2.LUT(parts[..., 0], ((values + round(hue * 180 / 255)) % 180).astype(np.uint8))
    parts[..., 1] = cv2.LUT(parts[..., 1], np.clip(values + saturation, 0, 255).astype(np.uint8))
    return cast(ImageArray, cv2.cvtColor(parts, cv2.COLOR_HSV2RGB))


def _solarised(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    threshold = int(rng.integers(32, 129))
    return np.where(image >= threshold, 255 - image, image) if rng.random() < 0.5 else image


def _posterised(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    return np.asarray(ImageOps.posterize(Image.fromarray(image), int(rng.integers(1, 9))))


def _inverted(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    return 255 - image


def _contrast(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    return np.asarray(ImageOps.autocontrast(Image.fromarray(image), cutoff=int(rng.integers(0, 21))))


def _equalised(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    return np.asarray(ImageOps.equalize(Image.fromarray(image)))


def _rotated(rng: np.random.Generator, image: ImageArray) -> ImageArray:
    return rotated(image, rng.uniform(-45, 45))


AUGMENTATIONS: tuple[Callable[[np.random.Generator, ImageArray], ImageArray], ...] = (
    _gamma,
    _brightness,
    _sharpness,
    _colour,
    _solarised,
    _posterised,
    _inverted,
    _contrast,
    _equalised,
    _rotated,
)
"""Kinds and ranges are those of the authors' repository."""


def augment_texture(texture: ImageArray, rng: np.random.Generator, count: int = 3) -> ImageArray:
    """``count`` different changes of colour or shape of RGB uint8 ``[H, W, 3]``, drawn at random, one by one."""
    for number in rng.choice(len(AUGMENTATIONS), count, replace=False):
        texture = AUGMENTATIONS[number](rng, texture)
    return texture


def simulate_anomaly(image: FloatArray, texture: FloatArray, mask: FloatArray, beta: float) -> FloatArray:
    """Equation 2: the texture with opacity ``beta`` over the image, inside of the mask; nothing changes outside.

    Args:
        image, texture: float32 ``[H, W, 3]``, 0 … 1.
        mask: float32 ``[H, W]`` of zeros and ones.
    """
    return image + (mask * np.float32(beta))[..., None] * (texture - image)


class Textures:
    """Images that anomalies are made of; what was used stays in memory while there is room. For any thread."""

    def __init__(self, config: DraemConfig) -> None:
        self._source: ImageSource = image_source(config.textures)
        self._count = config.n_textures if self._source.count is None else self._source.count
        self._height, self._width = config.transform.output_size
        self._used = BoundedStore[ImageArray](capacity(_TEXTURES_GIB, self._height * self._width * 3))

    @property
    def name(self) -> str:
        return self._source.name if self._source.count is not None else f"{self._source.name}, {self._count:,} images"

    def draw(self, rng: np.random.Generator) -> ImageArray:
        """RGB uint8 ``[H, W, 3]``."""
        index = int(rng.integers(self._count))
        texture = self._used.get(index)
        if texture is None:
            texture = self._source.image(index, max(self._height, self._width))
            if texture.shape[:2] != (self._height, self._width):
                texture = cast(ImageArray, cv2.resize(texture, (self._width, self._height)))
            self._used.put(index, texture)
        return texture
