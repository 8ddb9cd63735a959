"""Overlay images: the heat map on a scale that the threshold anchors, its contour, and the verdict in words.

The scale is the same for every image: its lower end is what good parts mostly show, its middle the pixel threshold.
So a good part has no colour to speak of, however little its own map varies, and what is yellow to red is above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from andon.core import FloatArray, ImageArray, Region
from andon.evaluation import place_map
from andon.inspection.inspector import Inspector, Verdict

__all__ = ["heat", "heat_layer", "ignored_layer", "overlay_image"]

MAX_SIDE = 1600
"""Longest side of an overlay, pixels."""
_STRIP = 22
_COLOURS = {"pass": (46, 125, 50), "look": (230, 145, 0), "stop": (198, 40, 40), "part not found": (106, 27, 154)}
_CONTOUR = (255, 255, 255)
_EDGE = (120, 190, 255)
# Of the scale: nothing, the threshold, twice as far and beyond. Colour and opacity.
_SCALE = np.asarray([0.0, 0.6, 1.0, 1.5, 2.0])
_RGBA = np.asarray(
    [[0, 0, 255, 0], [0, 160, 255, 0.12], [255, 220, 0, 0.45], [255, 110, 0, 0.6], [220, 0, 0, 0.7]], dtype=np.float64
)


def heat(values: FloatArray, floor: float, threshold: float) -> npt.NDArray[np.float64]:
    """Places on the scale, ``[H, W]``: 0 at the floor, 1 at the threshold, 2 at most."""
    span = threshold - floor
    if span <= 0:
        return np.where(values > threshold, 2.0, 0.0)
    return np.clip((values.astype(np.float64) - floor) / span, 0, 2)


def overlay_image(inspector: Inspector, verdict: Verdict, image: ImageArray) -> ImageArray:
    """An image, or its frame where parts are aligned, with what the inspector says of it: RGB uint8.

    Args:
        inspector: that gave the verdict.
        verdict: its.
        image: RGB uint8 ``[H, W, 3]``, at its own size.
    """
    shown = image if verdict.frame is None else verdict.frame
    size = _at_most(shown.shape, MAX_SIDE)
    if size != shown.shape[:2]:
        shown = np.asarray(cv2.resize(shown, size[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)
    threshold, floor = inspector.pixel_threshold, inspector.calibration.map_floor
    if verdict.anomaly_map is not None and threshold is not None and floor is not None:
        shown = _heated(shown, verdict.anomaly_map, verdict.region, floor, threshold)
    if inspector.regions.mask is not None and verdict.verdict != "part not found":
        shown = _dimmed(shown, inspector.regions.mask)
    return _captioned(shown, verdict)


def heat_layer(inspector: Inspector, verdict: Verdict, *, max_side: int = MAX_SIDE) -> npt.NDArray[np.uint8] | None:
    """The heat map alone, to be laid over the image: RGBA uint8 ``[H, W, 4]``, clear where there is nothing to see.

    Args:
        inspector: that gave the verdict.
        verdict: its.
        max_side: longest side, pixels; a larger image's layer is smaller, of the same shape.

    Returns:
        The layer in the frame of ``verdict.boxes``; None for a method without maps, or a part that was not found.
    """
    threshold, floor = inspector.pixel_threshold, inspector.calibration.map_floor
    if verdict.anomaly_map is None or threshold is None or floor is None:
        return None
    size = _at_most(verdict.size if verdict.frame is None else verdict.frame.shape[:2], max_side)
    rgba, outlines = _colours(verdict.anomaly_map, verdict.region, size, floor, threshold)
    out = np.rint(rgba * (1, 1, 1, 255)).astype(np.uint8)
    cv2.drawContours(out, outlines, -1, (*_CONTOUR, 255), _line_width(size))
    return out


def ignored_layer(mask: npt.NDArray[np.bool_], *, max_side: int = MAX_SIDE) -> npt.NDArray[np.uint8]:
    """What does not count, to be laid over the image: RGBA uint8 ``[H, W, 4]``, dark there and with an edge.

    Args:
        mask: bool ``[H, W]``, which pixels count.
        max_side: longest side, pixels.
    """
    size = _at_most(mask.shape, max_side)
    counted = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    out = np.zeros((*size, 4), dtype=np.uint8)
    out[counted == 0, 3] = 170
    outlines, _ = cv2.findContours(counted, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, outlines, -1, (*_EDGE, 255), _line_width(size))
    return out


def _heated(image: ImageArray, anomaly_map: FloatArray, region: Region, floor: float, threshold: float) -> ImageArray:
    size = (image.shape[0], image.shape[1])
    rgba, outlines = _colours(anomaly_map, region, size, floor, threshold)
    mixed = image * (1 - rgba[..., 3:]) + rgba[..., :3] * rgba[..., 3:]
    out = np.ascontiguousarray(np.rint(mixed).astype(np.uint8))
    cv2.drawContours(out, outlines, -1, _CONTOUR, _line_width(size))
    return out


def _colours(
    anomaly_map: FloatArray, region: Region, size: tuple[int, int], floor: float, threshold: float
) -> tuple[npt.NDArray[np.float64], Sequence[Any]]:
    """Colour 0..255 and opacity 0..1, ``[H, W, 4]``, and the outlines of what is above the threshold."""
    placed = place_map(anomaly_map, region, size, interpolation="bilinear")
    values = np.where(np.isfinite(placed), placed, floor).astype(np.float32)
    places = heat(values, floor, threshold)
    rgba = np.stack([np.interp(places, _SCALE, _RGBA[:, k]) for k in range(4)], axis=-1)
    outlines, _ = cv2.findContours((values > threshold).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return rgba, outlines


def _line_width(size: tuple[int, int]) -> int:
    return max(1, round(max(size) / 400))


def _at_most(size: tuple[int, ...], max_side: int) -> tuple[int, int]:
    """(height, width), smaller where a side is longer than allowed."""
    scale = min(1.0, max_side / max(size[:2]))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _dimmed(image: ImageArray, mask: npt.NDArray[np.bool_]) -> ImageArray:
    """What does not count, darker."""
    size = (image.shape[1], image.shape[0])
    counted = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    return np.where(counted[..., None], image, image // 3).astype(np.uint8)


def _captioned(image: ImageArray, verdict: Verdict) -> ImageArray:
    """The image under a strip of the verdict's colour with its figures."""
    width = max(image.shape[1], 160)
    out = np.zeros((image.shape[0] + _STRIP, width, 3), dtype=np.uint8)
    out[:_STRIP] = _COLOURS[verdict.verdict]
    out[_STRIP:, : image.shape[1]] = image
    words = verdict.verdict.upper()
    if verdict.verdict != "part not found":
        words += f"  {verdict.score:.4g} / {verdict.thresholds.stop:.4g}  p {verdict.p_value:.2g}"
        words += f"  area {100 * verdict.area:.2g} %" if verdict.anomaly_map is not None else ""
    scale = 0.45
    while scale > 0.2 and cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] > width - 8:
        scale -= 0.05
    place = (4, _STRIP - 7)
    cv2.putText(out, words, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return out
