"""The camera: pose, lens, sensor and file format, from linear light to an 8-bit image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import cv2
import numpy as np

from andon.core import FloatArray, ImageArray
from andon.synthetic.filters import dim, gaussian, resized, thrice

__all__ = ["Exposure", "Pose", "expose", "lens_grid", "project"]


@dataclass(frozen=True)
class Pose:
    """How the scene moved against the camera.

    Attributes:
        dx, dy: shift in pixels.
        angle: rotation in radians about the image's centre.
        zoom: factor.
        tilt: perspective, (x, y): relative growth per 1000 pixels.
    """

    dx: float = 0.0
    dy: float = 0.0
    angle: float = 0.0
    zoom: float = 1.0
    tilt: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Exposure:
    """What lens, sensor and file format do to the light.

    Attributes:
        gain: exposure factor.
        white: factor on R, G, B (white balance).
        blur: defocus, Gaussian σ in pixels.
        motion: length of motion blur in pixels, along ``motion_angle`` (radians).
        noise: deviation of shot noise at white, as a fraction of white in the square-root domain.
        jpeg: quality 1..100; 0 for none.
        vignette: darkening of the corners, 0..1.
        haze: veiling light added everywhere (linear).
    """

    gain: float = 1.0
    white: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur: float = 0.0
    motion: float = 0.0
    motion_angle: float = 0.0
    noise: float = 0.0
    jpeg: int = 0
    vignette: float = 0.2
    haze: float = 0.0


@lru_cache(maxsize=8)
def lens_grid(size: tuple[int, int], distortion: float) -> tuple[FloatArray, FloatArray]:
    """Offsets from the image's centre, undistorted, for every pixel: ``r·(1 + distortion·(r/half diagonal)²)``."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x -= np.float32((width - 1) / 2)
    y -= np.float32((height - 1) / 2)
    factor = 1 + np.float32(distortion) * (x * x + y * y) / np.float32((height**2 + width**2) / 4)
    return x * factor, y * factor


def project(
    size: tuple[int, int], top_left: tuple[float, float], origin: tuple[float, float], pose: Pose, distortion: float
) -> tuple[FloatArray, FloatArray]:
    """Canvas coordinates (column, row) that every pixel of an image looks at.

    Args:
        size: (height, width) of the image.
        top_left: scene coordinates of its first pixel for a camera at rest.
        origin: scene coordinates of the canvas' first pixel.
    """
    x, y = lens_grid(size, distortion)
    c, s = np.cos(pose.angle) / pose.zoom, np.sin(pose.angle) / pose.zoom
    centre_x = (size[1] - 1) / 2 + top_left[0] - origin[0]
    centre_y = (size[0] - 1) / 2 + top_left[1] - origin[1]
    depth = 1 + np.float32(pose.tilt[0] / 1000) * x + np.float32(pose.tilt[1] / 1000) * y
    np.divide(1, depth, out=depth)
    u = (np.float32(c) * x + np.float32(s) * y) * depth + np.float32(centre_x - pose.dx)
    v = (np.float32(c) * y - np.float32(s) * x) * depth + np.float32(centre_y - pose.dy)
    return u, v


_STEPS = 2048
_ROWS = 48


@lru_cache(maxsize=1)
def _tone_curve() -> ImageArray:
    """8-bit output over the square root of exposure (0..1.6): sRGB with a film-like shoulder."""
    x = (np.linspace(0, 1.6, _STEPS)) ** 2
    # Straight up to 0.35, then bending towards 1, which it would reach at about 2.5: highlights keep some form.
    knee = 0.35
    y = np.where(x < knee, x, knee + (1 - knee) * (1 - np.exp(-(np.maximum(x, knee) - knee) / (1 - knee))))
    srgb = np.where(y < 0.0031308, 12.92 * y, 1.055 * np.maximum(y, 1e-9) ** (1 / 2.4) - 0.055)
    out: ImageArray = np.rint(srgb * 255).astype(np.uint8)
    return out


@lru_cache(maxsize=4)
def _vignette(size: tuple[int, int], amount: float) -> FloatArray:
    x, y = lens_grid(size, 0.0)
    r2 = (x * x + y * y) / np.float32((size[0] ** 2 + size[1] ** 2) / 4)
    shading: FloatArray = np.sqrt(1 - np.float32(amount) * r2).astype(np.float32)
    return shading


def expose(linear: FloatArray, exposure: Exposure, rng: np.random.Generator) -> ImageArray:
    """Linear RGB ``[H, W, 3]`` at image size to RGB uint8. Changes its argument."""
    height, width = linear.shape[:2]
    if exposure.blur > 0.15:
        linear = gaussian(linear, exposure.blur)
    if exposure.motion > 0.5:
        streak = _streak(exposure.motion, exposure.motion_angle)
        linear = cast(FloatArray, cv2.filter2D(linear, -1, streak, borderType=cv2.BORDER_REPLICATE))
    grey = colour = None
    if exposure.noise:
        grey = rng.standard_normal((height, width), dtype=np.float32)
        colour = rng.standard_normal(((height + 1) // 2, (width + 1) // 2, 3), dtype=np.float32)
        colour *= np.float32(0.55 * exposure.noise)
        grey *= np.float32(0.8 * exposure.noise)
        colour = resized(colour, (height, width))
    gain = tuple(float(exposure.gain * factor) for factor in exposure.white)
    vignette = _vignette((height, width), round(exposure.vignette, 3))
    image = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _ROWS):
        # Some rows at a time: what is computed on the way stays in the processor's cache.
        rows = slice(top, top + _ROWS)
        part = cast(FloatArray, cv2.multiply(linear[rows], cast(Any, (*gain, 0.0))))
        part += np.float32(exposure.haze)
        np.maximum(part, 0, out=part)
        # In the square-root domain photon noise has the same deviation at every brightness.
        np.sqrt(part, out=part)
        dim(part, vignette[rows])
        if grey is not None and colour is not None:
            part += colour[rows]
            part += thrice(grey[rows])
        part *= np.float32((_STEPS - 1) / 1.6)
        np.clip(part, 0, _STEPS - 1, out=part)
        np.take(_tone_curve(), part.astype(np.uint16), out=image[rows])
    if exposure.jpeg:
        image = _through_jpeg(image, exposure.jpeg)
    return image


def _through_jpeg(image: ImageArray, quality: int) -> ImageArray:
    _, code = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cast(ImageArray, cv2.imdecode(code, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(decoded[..., ::-1])


def _streak(length: float, angle: float) -> FloatArray:
    """Kernel of a straight motion of ``length`` pixels."""
    half = int(np.ceil(length / 2)) + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    along = np.abs(x * np.cos(angle) + y * np.sin(angle))
    across = np.abs(y * np.cos(angle) - x * np.sin(angle))
    kernel = np.clip(length / 2 - along + 0.5, 0, 1) * np.clip(1 - across, 0, 1)
    out: FloatArray = (kernel / kernel.sum()).astype(np.float32)
    return out
