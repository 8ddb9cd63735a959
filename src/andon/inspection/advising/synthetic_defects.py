"""Synthetic defects, pasted into good images that a detector has not seen.

They stand for no real defect of the task: nobody knows those before they occur. They measure whether a detector notices
that something local was changed. Foreign patches are after CutPaste (Li et al. 2021, arXiv 2104.04015), missing parts
are inpainted (Telea 2004). The changes that the designed features are adapted with (``andon.features``) are others on
purpose: a candidate that has been fitted to a change must not be judged by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np

from andon.core import BoolArray, FloatArray, ImageArray
from andon.inspection.advising.edges import coarse_slopes

__all__ = ["KINDS", "LARGEST", "SMALLEST", "DefectKind", "SyntheticDefect", "add_defect"]

DefectKind = Literal["scratch", "stain", "patch", "missing", "displaced", "blur", "colour"]
KINDS: tuple[DefectKind, ...] = get_args(DefectKind)
SMALLEST, LARGEST = 0.0005, 0.02
"""Shares of the image that a defect's region covers, drawn evenly on the logarithm between these."""
CHANGED = 6
"""Grey levels by which a pixel must differ to count as changed."""
_LEAST_CHANGED = 0.25
"""Part of the region that must have changed: what cannot be seen is no defect."""
_LEAST_PIXELS = 4
_TRIES = 20
_MARGIN = 0.04


@dataclass(frozen=True)
class SyntheticDefect:
    """A good image with one defect.

    Attributes:
        image: RGB uint8 ``[H, W, 3]``.
        mask: bool ``[H, W]``: pixels that differ by more than 6 grey levels.
        kind: of the defect.
    """

    image: ImageArray
    mask: BoolArray
    kind: DefectKind

    @property
    def share(self) -> float:
        """Part of the image that has changed, 0..1."""
        return float(self.mask.mean())


def add_defect(image: ImageArray, other: ImageArray, rng: np.random.Generator, kind: DefectKind) -> SyntheticDefect:
    """A copy of an image with a defect, where the image has something to it (edges) rather than anywhere.

    Args:
        image: RGB uint8 ``[H, W, 3]``, at least 16 pixels either way.
        other: another good image, of any size, that texture may come from.
        rng: draws everything.
        kind: one of ``KINDS``. Where that changes nothing that can be seen after 20 tries (a missing piece of a bare
            wall), the defect is a colour's shift, and says so.
    """
    if min(image.shape[:2]) < 16:
        raise ValueError(f"an image must be at least 16 pixels either way, not {image.shape[1]} × {image.shape[0]}")
    weights = _busy(image)
    for _ in range(_TRIES):
        found = _tried(image, other, rng, kind, weights)
        if found is not None:
            return found
    while (found := _tried(image, other, rng, "colour", weights)) is None:
        pass  # 20 grey levels or more towards the far end of the scale: soon one is seen
    return found


def _tried(
    image: ImageArray, other: ImageArray, rng: np.random.Generator, kind: DefectKind, weights: FloatArray
) -> SyntheticDefect | None:
    """One try; None where too little has changed."""
    share = math.exp(rng.uniform(math.log(SMALLEST), math.log(LARGEST)))
    place = _place(rng, weights, image.shape[:2])
    region = (_stroke if kind == "scratch" else _blob)(rng, image.shape[:2], place, share)
    changed = _CHANGES[kind](image, other, rng, region)
    sigma = rng.uniform(0.3, 1.0) * max(image.shape[:2]) / 512  # edges as soft as the camera's
    opacity = cv2.GaussianBlur(region.astype(np.float32), (0, 0), max(sigma, 0.3))[..., None]
    if kind in ("missing", "displaced"):
        opacity = np.ones_like(opacity)  # they bring their own surroundings
    mixed = image * (1 - opacity) + changed * opacity
    result = np.rint(mixed.clip(0, 255)).astype(np.uint8)
    mask: BoolArray = np.abs(result.astype(np.int16) - image).max(axis=2) > CHANGED
    if np.count_nonzero(mask) < max(_LEAST_PIXELS, _LEAST_CHANGED * np.count_nonzero(region)):
        return None
    return SyntheticDefect(result, mask, kind)


# Where


def _busy(image: ImageArray) -> FloatArray:
    """How likely a defect's middle is where, float32 on a coarse grid, sum 1: nine parts edges, one part anywhere."""
    energy = cv2.resize(coarse_slopes(image), (32, 32), interpolation=cv2.INTER_AREA)
    total = float(energy.sum())
    even = np.full_like(energy, 1 / energy.size)
    return np.asarray(even if total <= 0 else 0.9 * energy / total + 0.1 * even, dtype=np.float32)


def _place(rng: np.random.Generator, weights: FloatArray, size: tuple[int, ...]) -> tuple[float, float]:
    """(y, x) in pixels, not nearer to the border than 4 % of the side."""
    flat = weights.ravel().astype(np.float64)
    row, column = divmod(int(rng.choice(flat.size, p=flat / flat.sum())), weights.shape[1])
    at = (row + rng.random()) / weights.shape[0], (column + rng.random()) / weights.shape[1]
    y, x = (min(max(part, _MARGIN), 1 - _MARGIN) * side for part, side in zip(at, size, strict=False))
    return y, x


def _blob(rng: np.random.Generator, size: tuple[int, ...], place: tuple[float, float], share: float) -> BoolArray:
    """A region of that share about a place: the pixels nearest to it, by a distance that noise makes uneven."""
    height, width = size[:2]
    count = max(_LEAST_PIXELS, round(share * height * width))
    stretch, angle = math.exp(rng.uniform(-0.6, 0.6)), rng.uniform(0, math.pi)
    y, x = np.arange(height)[:, None] - place[0], np.arange(width)[None, :] - place[1]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    radius = math.sqrt(count / math.pi)
    cells = [min(256, max(2, round(side / radius))) for side in (height, width)]
    noise = cv2.resize(rng.standard_normal(cells).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    distance = np.hypot(along * stretch, across / stretch) * np.exp(0.3 * noise)
    limit = np.partition(distance, count - 1, axis=None)[count - 1]
    return np.asarray(distance <= limit)


def _stroke(rng: np.random.Generator, size: tuple[int, ...], place: tuple[float, float], share: float) -> BoolArray:
    """A wandering line of a quarter of that share, 15 to 60 times as long as it is wide."""
    height, width = size[:2]
    area = max(12.0, share * height * width / 4)
    thickness = max(1, round(math.sqrt(area / rng.uniform(15, 60))))
    step = area / thickness / 12
    points, angle, at = [], rng.uniform(0, 2 * math.pi), np.array([place[1], place[0]])
    at = at - 6 * step * np.array([math.cos(angle), math.sin(angle)])
    for _ in range(13):
        points.append(at)
        angle += rng.normal(0, 0.15)
        at = at + step * np.array([math.cos(angle), math.sin(angle)])
    canvas = np.zeros((height, width), np.uint8)
    cv2.polylines(canvas, [np.rint(np.array(points)).astype(np.int32)], False, 255, thickness)
    return np.asarray(canvas > 0)


# What


_Change = Callable[[ImageArray, ImageArray, np.random.Generator, BoolArray], FloatArray]


def _scratched(image: ImageArray, other: ImageArray, rng: np.random.Generator, region: BoolArray) -> FloatArray:
    """Lighter or darker, whichever leaves room, by 25 to 90 grey levels."""
    level = float(image[region].mean()) if region.any() else 128.0
    sign = 1.0 if level < 90 or (level < 165 and rng.random() < 0.5) else -1.0
    return np.asarray(image + sign * rng.uniform(25, 90), dtype=np.float32)


def _stained(image: ImageArray, other: ImageArray, rng: np.random.Generator, region: BoolArray) -> FloatArray:
    """A film of one colour of the image's, with the texture beneath half seen."""
    height, width = image.shape[:2]
    tone = image[rng.integers(height), rng.integers(width)].astype(np.float32) + rng.normal(0, 20)
    part = rng.uniform(0.4, 0.8)
    return np.asarray((1 - part) * image + part * tone, dtype=np.float32)


def _pasted(image: ImageArray, other: ImageArray, rng: np.random.Generator, region: BoolArray) -> FloatArray:
    """Another part of this image, or of another, turned: CutPaste with a free outline."""
    height, width = image.shape[:2]
    source = other if rng.random() < 0.5 else image
    if source.shape != image.shape:
        source = np.asarray(cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(0, 360), math.exp(rng.uniform(-0.2, 0.2)))
    turn[:, 2] += rng.uniform(-0.5, 0.5, 2) * np.array([width, height])
    moved = cv2.warpAffine(source, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, dtype=np.float32)


def _missing(image: ImageArray, other: ImageArray, rng: np.random.Generator, region: BoolArray) -> FloatArray:
    """The region as its surroundings would go on."""
    top, bottom, left, right = _around(region)
    part = np.ascontiguousarray(image[top:bottom, left:right])
    hole = cv2.dilate(region[top:bottom, left:right].astype(np.uint8), np.ones((3, 3), np.uint8))
    result = image.astype(np.float32)
    result[top:bottom, left:right] = cv2.inpaint(part, hole, 3, cv2.INPAINT_TELEA)
    return result


def _displaced(image: ImageArray, other: ImageArray, rng: np.random.Generator, region: BoolArray) -> FloatArray:
    """The region's piece moved by a third to once its size, and what it leaves filled from its surroundings."""
    filled = _missing(image, other, rng, region)
    reach, angle = math.sqrt(np.count_nonzero(region)) * rng.uniform(0.35, 1.0), rng.uniform(0, 2 * math.pi)
    shift = np.array([[1, 0, reach * math.cos(angle)], [0, 1, reach * math.sin(angle)]])
    height, width = image.shape[:2]
    piece = cv2.warpAffine(image, shift, (width, height), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    there = cv2.warpAffine(region.astype(np.float32), shift, (width, height))[..., None]
    return np.asarray(filled * (1 - there) + piece * there, dtype=np.float32)


def _blurred(image: ImageArray, other: ImageArray, rng: np.random.Generator, region: BoolArray) -> FloatArray:
    sigma = rng.uniform(2, 6) * max(image.shape[:2]) / 512
    return np.asarray(cv2.GaussianBlur(image, (0, 0), max(sigma, 1.0)), dtype=np.float32)


def _recoloured(image: ImageArray, other: ImageArray, rng: np.random.Generator, region: BoolArray) -> FloatArray:
    """Another hue of the same texture by 20 to 60 grey levels; a grey image stays grey, lighter or darker."""
    tint = rng.standard_normal(3)
    if bool((image == image[..., :1]).all()):
        tint = np.ones(3)
    tint = tint / np.abs(tint).max() * rng.uniform(20, 60)
    level = image[region].mean(axis=0) if region.any() else np.full(3, 128.0)
    # Towards the middle of the scale where an end is near.
    tint = np.where((level + tint < 0) | (level + tint > 255), -tint, tint)
    return np.asarray(image + tint, dtype=np.float32)


def _around(region: BoolArray, margin: int = 8) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of a region with a margin."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    height, width = region.shape
    return (
        max(0, int(rows[0]) - margin),
        min(height, int(rows[-1]) + 1 + margin),
        max(0, int(columns[0]) - margin),
        min(width, int(columns[-1]) + 1 + margin),
    )


_CHANGES: dict[DefectKind, _Change] = {
    "scratch": _scratched,
    "stain": _stained,
    "patch": _pasted,
    "missing": _missing,
    "displaced": _displaced,
    "blur": _blurred,
    "colour": _recoloured,
}
