"""Overlay images: the heat map on a scale that the threshold anchors, its contour, and the verdict in words.

The scale is the same for every image: its lower end is what good parts mostly show, its middle the pixel threshold.
So a good part has no colour to speak of, however little its own map varies, and what is yellow to red is above it.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from andon.core import FloatArray, ImageArray, Region
from andon.evaluation import place_map
from andon.inspection.inspector import Inspector, Verdict

__all__ = ["heat", "overlay_image"]

MAX_SIDE = 1600
"""Longest side of an overlay, pixels."""
_STRIP = 22
_COLOURS = {"pass": (46, 125, 50), "look": (230, 145, 0), "stop": (198, 40, 40), "part not found": (106, 27, 154)}
_CONTOUR = (255, 255, 255)
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
    scale = min(1.0, MAX_SIDE / max(shown.shape[:2]))
    if scale < 1:
        size = (max(1, round(shown.shape[1] * scale)), max(1, round(shown.shape[0] * scale)))
        shown = np.asarray(cv2.resize(shown, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    threshold, floor = inspector.pixel_threshold, inspector.calibration.map_floor
    if verdict.anomaly_map is not None and threshold is not None and floor is not None:
        shown = _heated(shown, verdict.anomaly_map, verdict.region, floor, threshold)
    if inspector.regions.mask is not None and verdict.verdict != "part not found":
        shown = _dimmed(shown, inspector.regions.mask)
    return _captioned(shown, verdict)


def _heated(image: ImageArray, anomaly_map: FloatArray, region: Region, floor: float, threshold: float) -> ImageArray:
    height, width = image.shape[:2]
    placed = place_map(anomaly_map, region, (height, width), interpolation="bilinear")
    seen = np.isfinite(placed)
    values = np.where(seen, placed, floor).astype(np.float32)
    places = heat(values, floor, threshold)
    rgba = np.stack([np.interp(places, _SCALE, _RGBA[:, k]) for k in range(4)], axis=-1)
    mixed = image * (1 - rgba[..., 3:]) + rgba[..., :3] * rgba[..., 3:]
    out = np.ascontiguousarray(np.rint(mixed).astype(np.uint8))
    outlines, _ = cv2.findContours((values > threshold).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, outlines, -1, _CONTOUR, max(1, round(max(height, width) / 400)))
    return out


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
