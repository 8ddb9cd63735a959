"""Images with made-up defects: what a change looks like that was not there before.

They stand for no real defect; they only tell which directions of a feature space move when something local happens to
an image. Pasting is after CutPaste (Li et al. 2021, arXiv 2104.04015); strokes, spots, blur, noise and warps are added
so that no one kind of change decides.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from andon.core import BoolArray, FloatArray, ImageArray

__all__ = ["CHANGED", "KINDS", "add_pseudo_defect"]

CHANGED = 4
"""Grey levels by which a pixel must differ to count as changed."""
KINDS = ("paste", "stroke", "spot", "texture", "warp")


def add_pseudo_defect(
    image: ImageArray, other: ImageArray, rng: np.random.Generator, kind: str | None = None
) -> tuple[ImageArray, BoolArray]:
    """A copy of an image with one local change.

    Args:
        image: RGB uint8 ``[H, W, 3]``.
        other: RGB uint8 of the same size that pasted parts may come from.
        kind: one of ``KINDS``; None draws one.

    Returns:
        The changed image, and bool ``[H, W]``: pixels that differ by more than ``CHANGED`` grey levels.
    """
    kind = kind or KINDS[rng.integers(len(KINDS))]
    height, width = image.shape[:2]
    source = image.astype(np.float32)
    region = _stroke(rng, height, width) if kind == "stroke" else _blob(rng, height, width)
    if kind == "paste":
        changed = _moved(rng, other if rng.random() < 0.5 else image)
    elif kind == "texture":
        changed = _blurred(rng, source) if rng.random() < 0.5 else _noisy(rng, source)
    elif kind == "warp":
        changed = _warped(rng, source)
    else:
        changed = _toned(rng, source, region)
    opacity = cv2.GaussianBlur(region, (0, 0), rng.uniform(0.3, 1.5))[..., None]
    result = np.rint((source * (1 - opacity) + changed * opacity).clip(0, 255)).astype(np.uint8)
    return result, np.abs(result.astype(np.int16) - image).max(axis=2) > CHANGED


def _blob(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """A rounded region with an uneven outline, 20 pixels to 6 % of the image in size, float32 0 or 1."""
    largest = max(0.06 * height * width, 20.0)
    radius = math.sqrt(math.exp(rng.uniform(math.log(20), math.log(largest))) / math.pi)
    stretch, angle = math.exp(rng.uniform(-0.5, 0.5)), rng.uniform(0, math.pi)
    y = np.arange(height)[:, None] - rng.uniform(0.05, 0.95) * height
    x = np.arange(width)[None, :] - rng.uniform(0.05, 0.95) * width
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    outline = np.ones_like(u)
    direction = np.arctan2(v, u)
    for k in range(1, 6):
        outline += rng.normal(0, 0.15) / k * np.cos(k * direction + rng.uniform(0, 2 * math.pi))
    inside: BoolArray = np.hypot(u / stretch, v * stretch) < radius * outline
    return inside.astype(np.float32)


def _stroke(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """A wandering line one to three pixels wide, float32 0..1."""
    point = np.array([rng.uniform(0.05, 0.95) * width, rng.uniform(0.05, 0.95) * height])
    points, angle = [point], rng.uniform(0, 2 * math.pi)
    for _ in range(int(rng.integers(5, 20))):
        angle += rng.normal(0, 0.4)
        point = point + rng.uniform(3, 9) * np.array([math.cos(angle), math.sin(angle)])
        points.append(point)
    canvas = np.zeros((height, width), np.uint8)
    corners = np.rint(np.array(points)).astype(np.int32)
    cv2.polylines(canvas, [corners], False, 255, int(rng.integers(1, 4)), cv2.LINE_AA)
    return np.asarray(canvas, dtype=np.float32) / np.float32(255)


def _moved(rng: np.random.Generator, image: ImageArray) -> FloatArray:
    """The image turned, scaled, shifted and a little lighter or darker."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(0, 360), math.exp(rng.uniform(-0.4, 0.4)))
    turn[:, 2] += rng.uniform(-0.5, 0.5, 2) * np.array([width, height])
    moved = cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, dtype=np.float32) * np.float32(rng.uniform(0.75, 1.25))


def _toned(rng: np.random.Generator, source: FloatArray, region: FloatArray) -> FloatArray:
    """Lighter or darker, grey or coloured; half of the time with the texture beneath mostly covered.

    A grey image stays grey: its camera has no colour to show.
    """
    shift = rng.choice([-1, 1]) * rng.uniform(12, 90)
    tint = np.ones(3) if rng.random() < 0.5 else rng.uniform(0.7, 1.3, 3)
    if bool((source == source[..., :1]).all()):
        tint = np.ones(3)
    tone = (shift * tint).astype(np.float32)
    if rng.random() < 0.5:
        return np.asarray(source + tone, dtype=np.float32)
    mean = (source * region[..., None]).sum(axis=(0, 1)) / max(float(region.sum()), 1.0)
    return np.asarray(0.3 * source + 0.7 * mean + tone, dtype=np.float32)


def _blurred(rng: np.random.Generator, source: FloatArray) -> FloatArray:
    return np.asarray(cv2.GaussianBlur(source, (0, 0), rng.uniform(1, 4)), dtype=np.float32)


def _noisy(rng: np.random.Generator, source: FloatArray) -> FloatArray:
    noise = cv2.GaussianBlur(_white(rng, source), (0, 0), rng.uniform(0.1, 3))
    return np.asarray(source + (noise / noise.std() * rng.uniform(8, 40))[..., None], dtype=np.float32)


def _warped(rng: np.random.Generator, source: FloatArray) -> FloatArray:
    height, width = source.shape[:2]
    amplitude, scale = rng.uniform(2, 10), rng.uniform(4, 12)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    shifts = [cv2.GaussianBlur(_white(rng, source), (0, 0), scale) for _ in range(2)]
    dx, dy = (np.asarray(shift / shift.std() * amplitude, dtype=np.float32) for shift in shifts)
    return np.asarray(
        cv2.remap(source, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), dtype=np.float32
    )


def _white(rng: np.random.Generator, source: FloatArray) -> FloatArray:
    return rng.standard_normal(source.shape[:2], dtype=np.float32)
